//! Makes one call of `wasi:keyvalue` or `wasi:blobstore`: the arguments are the dialect or `blob`,
//! the function, the bucket, and what the function takes.

mod blob;
mod draft2;

use wasmcloud_component::wasi::keyvalue::{atomics, batch, store};

mod agent {
    wit_bindgen::generate!({
        inline: "
            package test:wasmcloud-guest;
            world guest {
                export run: func(args: list<string>) -> result<string, string>;
            }
        ",
    });

    struct Agent;

    impl Guest for Agent {
        fn run(args: Vec<String>) -> Result<String, String> {
            super::run(&args)
        }
    }

    export!(Agent);
}

fn run(args: &[String]) -> Result<String, String> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["draft", function, bucket, rest @ ..] => draft(function, bucket, rest),
        ["blob", function, container, rest @ ..] => blob::call(function, container, rest),
        ["draft2", function, bucket, rest @ ..] => draft2::call(function, bucket, rest),
        _ => Err("no such dialect".into()),
    }
}

fn told(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "no such store".into(),
        store::Error::AccessDenied => "access denied".into(),
        store::Error::Other(what) => what,
    }
}

fn draft(function: &str, bucket: &str, rest: &[&str]) -> Result<String, String> {
    let bucket = store::open(bucket).map_err(told)?;
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    match (function, rest) {
        ("get", [key]) => {
            let value = bucket.get(key).map_err(told)?;
            Ok(value.map_or("none".into(), |value| shown(&value)))
        }
        ("set", [key, value]) => {
            bucket.set(key, value.as_bytes()).map_err(told)?;
            Ok("set".into())
        }
        ("set-bytes", [key, size]) => {
            let size = size.parse().map_err(|_| "no size")?;
            bucket.set(key, &vec![b'x'; size]).map_err(told)?;
            Ok("set".into())
        }
        ("delete", [key]) => bucket.delete(key).map(|()| "deleted".into()).map_err(told),
        ("exists", [key]) => bucket.exists(key).map(|is| is.to_string()).map_err(told),
        ("keys", []) => {
            let mut keys = Vec::new();
            let mut cursor = None;
            loop {
                let page = bucket.list_keys(cursor).map_err(told)?;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(keys.join(" "));
                }
            }
        }
        ("keys-at", [cursor]) => {
            let cursor = cursor.parse().map_err(|_| "no cursor")?;
            let page = bucket.list_keys(Some(cursor)).map_err(told)?;
            Ok(page.keys.join(" "))
        }
        ("increment", [key, delta]) => {
            let delta = delta.parse().map_err(|_| "no number")?;
            let value = atomics::increment(&bucket, key, delta).map_err(told)?;
            Ok(value.to_string())
        }
        ("increment-times", [key, times]) => {
            for _ in 0..times.parse().map_err(|_| "no number")? {
                atomics::increment(&bucket, key, 1).map_err(told)?;
            }
            Ok("incremented".into())
        }
        ("get-many", keys) => {
            let values = batch::get_many(&bucket, &owned(keys)).map_err(told)?;
            let values = values.iter().map(|value| match value {
                Some((key, value)) => format!("{key}={}", shown(value)),
                None => "none".into(),
            });
            Ok(values.collect::<Vec<_>>().join(" "))
        }
        ("set-many", pairs) => {
            let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.into()));
            batch::set_many(&bucket, &pairs.collect::<Vec<_>>()).map_err(told)?;
            Ok("set".into())
        }
        ("delete-many", keys) => {
            batch::delete_many(&bucket, &owned(keys)).map_err(told)?;
            Ok("deleted".into())
        }
        _ => Err("no such function".into()),
    }
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
