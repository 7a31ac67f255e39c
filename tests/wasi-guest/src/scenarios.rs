//! The scenarios.

use wasip2::cli::environment::get_environment;
use wasip2::cli::stderr::get_stderr;
use wasip2::cli::stdin::get_stdin;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::streams::{OutputStream, StreamError};

use crate::http::{Request, send};

type Answer = Result<String, String>;

pub(crate) fn run(args: Vec<String>) -> Answer {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        // One NAME=VALUE a line.
        ["env"] => Ok(environment()),
        // The text.
        ["stdin"] => stdin(),
        // Prints bytes, each step as out:HEX or err:HEX. Before each step but the first, waits for
        // the next version of NAME.
        ["print", name, ref steps @ ..] => print(name, steps),
        // Prints BYTES bytes, then saves NAME.
        ["flood", name, bytes] => flood(name, bytes),
        // Bytes of the last argument.
        ["length", text] => Ok(text.len().to_string()),
        // STATUS BODY, or `error CODE`.
        ["get", url] => Ok(get(url, &[])),
        ["get", url, name, value] => Ok(get(url, &[(name, value)])),
        ["post", url, body] => Ok(answer(send(&Request {
            method: "POST",
            url,
            headers: &[],
            body: body.as_bytes(),
        }))),
        ["post-bytes", url, bytes] => {
            let bytes = bytes.parse().map_err(|_| "no number".to_owned())?;
            Ok(answer(send(&Request {
                method: "POST",
                url,
                headers: &[],
                body: &vec![b'x'; bytes],
            })))
        }
        // The last answer, after N requests.
        ["get-many", url, times] => {
            let times: usize = times.parse().map_err(|_| "no number".to_owned())?;
            let mut last = String::new();
            for _ in 0..times {
                last = get(url, &[]);
            }
            Ok(last)
        }
        // Follows redirects, as a client library of a guest does.
        ["follow", url] => Ok(follow(url)),
        _ => Err("no such scenario".into()),
    }
}

fn environment() -> String {
    let lines = get_environment()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn stdin() -> Answer {
    let stdin = get_stdin();
    let mut bytes = Vec::new();
    loop {
        match stdin.blocking_read(1 << 16) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn print(name: &str, steps: &[&str]) -> Answer {
    for (turn, step) in (0..).zip(steps) {
        while turn > 0 && head(name)? < turn {
            subscribe_duration(5_000_000).block();
        }
        let (stream, digits) = match step.split_once(':') {
            Some(("out", digits)) => (get_stdout(), digits),
            Some(("err", digits)) => (get_stderr(), digits),
            _ => return Err("no stream".into()),
        };
        write(&stream, &bytes(digits)?)?;
    }
    Ok("printed".into())
}

fn flood(name: &str, bytes: &str) -> Answer {
    let mut left: usize = bytes.parse().map_err(|_| "no number".to_owned())?;
    let stdout = get_stdout();
    while left > 0 {
        let piece = [b'x'; 4096];
        let piece = &piece[..left.min(4096)];
        write(&stdout, piece)?;
        left -= piece.len();
    }
    persist_guest::save(name, "printed").map_err(|error| error.to_string())?;
    Ok("printed".into())
}

/// Returns the newest version of a name; 0 where there is none.
fn head(name: &str) -> Result<u64, String> {
    let info = persist_guest::stat(name, None).map_err(|error| error.to_string())?;
    Ok(info.map_or(0, |info| info.version))
}

fn write(stream: &OutputStream, bytes: &[u8]) -> Result<(), String> {
    let mut pieces = bytes.chunks(4096);
    let done = pieces.try_for_each(|piece| stream.blocking_write_and_flush(piece));
    done.map_err(|error| error.to_string())
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let pairs = (0..digits.len()).step_by(2);
    let bytes = pairs.map(|at| {
        let pair = digits.get(at..at + 2).ok_or("half a byte")?;
        u8::from_str_radix(pair, 16).map_err(|_| "no digit")
    });
    Ok(bytes.collect::<Result<_, _>>()?)
}

fn get(url: &str, headers: &[(&str, &str)]) -> String {
    answer(send(&Request {
        method: "GET",
        url,
        headers,
        body: b"",
    }))
}

fn answer(answer: Result<crate::http::Response, String>) -> String {
    match answer {
        Ok(response) => format!(
            "{} {}",
            response.status,
            String::from_utf8_lossy(&response.body)
        ),
        Err(code) => format!("error {code}"),
    }
}

fn follow(url: &str) -> String {
    let mut url = url.to_owned();
    for _ in 0..10 {
        let response = send(&Request {
            method: "GET",
            url: &url,
            headers: &[],
            body: b"",
        });
        match response {
            Ok(response) if (300..400).contains(&response.status) => {
                let Some(location) = response.location else {
                    return "no location".into();
                };
                url = location;
            }
            other => return answer(other),
        }
    }
    "a loop".into()
}
