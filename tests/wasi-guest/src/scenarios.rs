//! The scenarios.

use wasip2::cli::environment::get_environment;
use wasip2::cli::stdin::get_stdin;
use wasip2::io::streams::StreamError;

use crate::http::{Request, send};

type Answer = Result<String, String>;

pub(crate) fn run(args: Vec<String>) -> Answer {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        // One NAME=VALUE a line.
        ["env"] => Ok(environment()),
        // The text.
        ["stdin"] => stdin(),
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
