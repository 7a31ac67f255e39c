//! Calls of `wasi:blobstore@0.2.0-draft`. The arguments are the function, the container, and what
//! the function takes.

use wasmcloud_component::wasi::blobstore::{blobstore, container, types};
use wasmcloud_component::wasi::io::streams::StreamError;

/// Bytes that one call writes to a stream at most.
const PIECE: usize = 4096;

pub(crate) fn call(function: &str, container: &str, rest: &[&str]) -> Result<String, String> {
    // The bindings take references to owned names.
    let container = &container.to_owned();
    let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
    match (function, &rest[..]) {
        ("create", []) => {
            let container = blobstore::create_container(container)?;
            return container.name();
        }
        ("has-container", []) => {
            let exists = blobstore::container_exists(container)?;
            return Ok(exists.to_string());
        }
        ("delete-container", []) => {
            blobstore::delete_container(container)?;
            return Ok("deleted".into());
        }
        (call @ ("copy" | "move"), [from, to_container, to]) => {
            let id = |container: &str, object: &str| types::ObjectId {
                container: container.into(),
                object: object.into(),
            };
            let (from, to) = (id(container, from), id(to_container, to));
            if call == "copy" {
                blobstore::copy_object(&from, &to)?;
            } else {
                blobstore::move_object(&from, &to)?;
            }
            return Ok("done".into());
        }
        _ => {}
    }
    let container = blobstore::get_container(container)?;
    object(function, &container, &rest)
}

fn object(
    function: &str,
    container: &container::Container,
    rest: &[String],
) -> Result<String, String> {
    match (function, rest) {
        ("write", [name, text]) => {
            write(container, name, text.as_bytes())?;
            Ok("written".into())
        }
        ("write-bytes", [name, size]) => {
            write(container, name, &bytes(size)?)?;
            Ok("written".into())
        }
        // The container gets the value after its bytes.
        ("write-late", [name, size]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            write_body(&value, &bytes(size)?)?;
            container.write_data(name, &value)?;
            types::OutgoingValue::finish(value)?;
            Ok("written".into())
        }
        ("write-no-stream", [name]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            types::OutgoingValue::finish(value)?;
            Ok("written".into())
        }
        ("finish-alone", []) => {
            let value = types::OutgoingValue::new_outgoing_value();
            types::OutgoingValue::finish(value)?;
            Ok("written".into())
        }
        ("write-twice", [name]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            container.write_data(name, &value)?;
            Ok("written".into())
        }
        // The value is dropped, and not finished.
        ("drop", [name, size]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            write_body(&value, &bytes(size)?)?;
            drop(value);
            Ok("dropped".into())
        }
        // The guest ends while the stream is open.
        ("trap", [name, size]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            write_body(&value, &bytes(size)?)?;
            panic!("it ends here");
        }
        ("finish-open", [name]) => {
            let value = types::OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            let stream = value.outgoing_value_write_body();
            types::OutgoingValue::finish(value)?;
            drop(stream);
            Ok("finished".into())
        }
        ("get", [name]) => get(container, name, 0, u64::MAX),
        ("get", [name, start, end]) => get(container, name, number(start)?, number(end)?),
        ("stream", [name, start, end]) => {
            let value = container.get_data(name, number(start)?, number(end)?)?;
            let sum = stream(value)?;
            Ok(sum)
        }
        // The object is replaced while its stream is open.
        ("stream-replaced", [name, text]) => {
            let value = container.get_data(name, 0, u64::MAX)?;
            write(container, name, text.as_bytes())?;
            container.delete_object(name)?;
            stream(value)
        }
        ("open-many", [name, count]) => {
            let mut open = Vec::new();
            for _ in 0..number(count)? {
                open.push(container.get_data(name, 0, 1)?);
            }
            Ok("opened".into())
        }
        ("list", [len]) => {
            let names = container.list_objects()?;
            let mut pages = Vec::new();
            loop {
                let (page, end) = names.read_stream_object_names(number(len)?)?;
                pages.push(page.join(" "));
                if end {
                    return Ok(pages.join(" | "));
                }
            }
        }
        ("skip", [len]) => {
            let names = container.list_objects()?;
            let (skipped, _) = names.skip_stream_object_names(number(len)?)?;
            let (rest, end) = names.read_stream_object_names(100)?;
            Ok(format!("{skipped} then {} {end}", rest.join(" ")))
        }
        ("delete", names) => {
            match names {
                [name] => container.delete_object(name)?,
                names => container.delete_objects(names)?,
            }
            Ok("deleted".into())
        }
        ("has", [name]) => Ok(container.has_object(name)?.to_string()),
        ("info", [name]) => {
            let info = container.object_info(name)?;
            let is_recent = info.created_at > 1_700_000_000 && info.created_at < 10_000_000_000;
            Ok(format!(
                "{}/{} {} {is_recent}",
                info.container, info.name, info.size
            ))
        }
        ("clear", []) => {
            container.clear()?;
            Ok("cleared".into())
        }
        _ => Err("no such function".into()),
    }
}

fn write(container: &container::Container, name: &String, bytes: &[u8]) -> Result<(), String> {
    let value = types::OutgoingValue::new_outgoing_value();
    container.write_data(name, &value)?;
    write_body(&value, bytes)?;
    types::OutgoingValue::finish(value)
}

fn write_body(value: &types::OutgoingValue, bytes: &[u8]) -> Result<(), String> {
    let stream = value.outgoing_value_write_body();
    let stream = stream.map_err(|()| "no stream")?;
    if value.outgoing_value_write_body().is_ok() {
        return Err("a second stream".into());
    }
    for piece in bytes.chunks(PIECE) {
        stream.blocking_write_and_flush(piece).map_err(told)?;
    }
    Ok(())
}

fn get(
    container: &container::Container,
    name: &String,
    start: u64,
    end: u64,
) -> Result<String, String> {
    let value = container.get_data(name, start, end)?;
    let size = value.size();
    let bytes = types::IncomingValue::incoming_value_consume_sync(value)?;
    if bytes.len() as u64 != size {
        return Err(format!("{} bytes of {size}", bytes.len()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a value as a stream, and returns its size and the sum of its bytes.
fn stream(value: types::IncomingValue) -> Result<String, String> {
    let stream = types::IncomingValue::incoming_value_consume_async(value)?;
    let (mut size, mut sum) = (0_u64, 0_u64);
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(bytes) => {
                size += bytes.len() as u64;
                sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
            Err(StreamError::Closed) => return Ok(format!("{size} bytes, sum {sum}")),
            Err(error) => return Err(told(error)),
        }
    }
}

fn bytes(size: &str) -> Result<Vec<u8>, String> {
    let size = usize::try_from(number(size)?).map_err(|_| "too large")?;
    Ok((0..size).map(|at| (at % 251) as u8).collect())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("no number: {text}"))
}

fn told(error: StreamError) -> String {
    match error {
        StreamError::Closed => "closed".into(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    }
}
