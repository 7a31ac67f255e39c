//! Requests and answers of GCS, and a proxy that makes fake-gcs-server keep its conditions.
//!
//! Of a resumable upload, fake-gcs-server ignores `ifGenerationMatch`, appends a part again that it
//! has, and forgets that it completed it. Google's does none of this, so a proxy before it, which
//! all tests share, answers as theirs would. It looks, and then lets pass, one request after the
//! other: enough for uploads that race with uploads.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::proxy::{Fault, Proxy, Reply, Seen};
use persist_servers::{Kind, Server};

/// Returns the GCS operation of a request.
pub fn operation(seen: &Seen) -> &'static str {
    let upload = seen.uri.path().starts_with("/upload/");
    match seen.method.as_str() {
        "POST" if param(seen, "uploadType").as_deref() == Some("resumable") => "begin",
        "POST" if upload => "insert",
        "PUT" if is_last(seen) => "last part",
        "PUT" => "part",
        "DELETE" if upload => "cancel",
        "DELETE" => "delete",
        "GET" if seen.uri.path().ends_with("/o") => "list",
        "GET" if param(seen, "alt").is_some() => "get",
        _ => "another",
    }
}

/// Returns the operations that were requested through a proxy.
pub fn operations(proxy: &Proxy) -> Vec<&'static str> {
    proxy.seen().iter().map(operation).collect()
}

/// An error as GCS tells of it, of the request `PLANNED-REQUEST-ID`.
pub fn refusal(status: u16, reason: &str) -> Reply {
    let body = format!(
        "{{\"error\":{{\"code\":{status},\"message\":\"as planned\",\"errors\":[{{\"reason\":\"{reason}\"}}]}}}}"
    );
    json(status, body).header("x-guploader-uploadid", "PLANNED-REQUEST-ID")
}

/// An answer in JSON.
pub fn json(status: u16, body: impl Into<String>) -> Reply {
    Reply::new(status, body).header("content-type", "application/json")
}

/// A parameter of a request's query, decoded as far as keys of tests need it.
pub fn param(seen: &Seen, name: &str) -> Option<String> {
    let query = seen.uri.query()?;
    let pair = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    });
    pair.map(|value| {
        value
            .replace("%2F", "/")
            .replace("%2f", "/")
            .replace("%7E", "~")
    })
}

fn is_last(seen: &Seen) -> bool {
    let range = seen.header("content-range").unwrap_or("*");
    !range.ends_with('*')
}

/// The proxy that keeps the condition of resumable uploads.
pub(crate) fn conditional() -> &'static Proxy {
    static PROXY: OnceLock<Proxy> = OnceLock::new();
    PROXY.get_or_init(|| {
        let server = Server::shared(Kind::FakeGcs);
        let proxy = Proxy::start(server.endpoint());
        let state = Mutex::new(Conditions::default());
        let endpoint = server.endpoint().to_owned();
        let bucket = server.facts().bucket.clone();
        proxy.rule(move |_, seen| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.judge(seen, |name| about(&endpoint, &bucket, name))
        });
        proxy
    })
}

#[derive(Default)]
struct Conditions {
    /// Names for which an upload has the condition.
    asked: HashSet<String>,
    /// Names that are made, or about to be, and by which upload.
    made: HashMap<String, Option<String>>,
    /// How many bytes of an upload arrived.
    arrived: HashMap<Option<String>, u64>,
}

impl Conditions {
    /// `about` tells what the server says of the object of a name.
    fn judge(&mut self, seen: &Seen, about: impl Fn(&str) -> Option<String>) -> Option<Fault> {
        if operation(seen) == "delete" {
            let path = seen.uri.path().replace("%2F", "/").replace("%7E", "~");
            let name = path.split_once("/o/")?.1;
            self.made.remove(name);
            return None;
        }
        let name = param(seen, "name")?;
        match operation(seen) {
            "begin" if param(seen, "ifGenerationMatch").as_deref() == Some("0") => {
                self.asked.insert(name);
                None
            }
            "begin" => {
                self.asked.remove(&name);
                None
            }
            "part" => {
                let (start, end) = range(seen)?;
                let arrived = self.arrived.entry(param(seen, "upload_id")).or_default();
                if start < *arrived {
                    // The server would append it once more. Google's passes over what it has.
                    let has = format!("bytes=0-{}", *arrived - 1);
                    return Some(Fault::Reply(Reply::new(308, "").header("range", has)));
                }
                *arrived = end;
                None
            }
            "last part" if self.asked.contains(&name) => {
                let upload = param(seen, "upload_id");
                let there = about(&name);
                match (self.made.get(&name), there) {
                    // The server has forgotten the upload. Google's says again what it said when it
                    // made the object.
                    (Some(by), Some(object)) if *by == upload => {
                        Some(Fault::Reply(json(200, object)))
                    }
                    (Some(by), None) if *by == upload => None,
                    (None, None) => {
                        self.made.insert(name, upload);
                        None
                    }
                    _ => Some(Fault::Reply(refusal(412, "conditionNotMet"))),
                }
            }
            _ => None,
        }
    }
}

/// `Content-Range: bytes 0-99/*`: where a part begins and ends.
fn range(seen: &Seen) -> Option<(u64, u64)> {
    let range = seen.header("content-range")?.strip_prefix("bytes ")?;
    let (start, last) = range.split_once('/')?.0.split_once('-')?;
    Some((start.parse().ok()?, last.parse::<u64>().ok()? + 1))
}

/// Returns the server's reply about the object of this name; none if the server has no such object.
fn about(endpoint: &str, bucket: &str, name: &str) -> Option<String> {
    let address = endpoint.trim_start_matches("http://");
    let path = format!("/storage/v1/b/{bucket}/o/{}", name.replace('/', "%2F"));
    let mut stream = TcpStream::connect(address).expect("the server is there");
    // Of this version, an answer is its headers and its body, to the end.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").expect("writes");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a body");
    head.split(' ')
        .nth(1)
        .is_some_and(|status| status == "200")
        .then(|| body.to_owned())
}
