//! A proxy before an HTTP server: counts what is asked of it, and does harm as planned.
//!
//! It knows requests, not packets, so a fault meets exactly the request that it was planned for,
//! whatever connection that comes on. `Host` and all other headers go on unchanged, and signatures
//! hold. What no real server can be made to say, it says itself ([`Fault::Reply`]), and names
//! itself in the header `server`.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, SERVER,
    TRANSFER_ENCODING,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How the headers begin that ask for encryption, or tell of it.
const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// Fault that happens to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server gets half of the body and then the end of the connection; so do we.
    CutUpload,
    /// The server is not reached.
    RequestLost,
    /// The server does it, and the connection ends before it can say so.
    ReplyLost,
    /// The server does it, and the connection ends in the middle of the answer's body, if it has
    /// one.
    CutDownload,
    /// The server does it, and the answer never comes.
    Stall,
    /// The server does it, half of the answer's body comes, and then nothing.
    StallBody,
    /// Delays the response.
    Latency(Duration),
    /// The answer's body is half as long as it should be, and its headers say that this is all.
    Truncate,
    /// One bit of the answer's body is another.
    Corrupt,
    /// The server is not asked; this is the answer.
    Reply(Reply),
    /// The server does it, and this is the answer.
    DoneThen(Reply),
    /// The server is asked without `If-Match` and `If-None-Match`, as if it knew no conditions. It
    /// must not check signatures.
    IgnoreConditions,
    /// The server is not asked to encrypt, as if it knew no encryption. It must not check
    /// signatures.
    IgnoreEncryption,
}

/// An answer that the proxy gives by itself.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// An error as S3 tells of it, of the request `PLANNED-REQUEST-ID`.
    pub fn s3(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as \
             planned</Message>\
             <RequestId>PLANNED-REQUEST-ID</RequestId></Error>"
        );
        Self::new(status, body).header("x-amz-request-id", "PLANNED-REQUEST-ID")
    }

    /// Returns the reply with a header added.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A request that came, and what was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Such as PUT.
    pub method: Method,
    /// Path and query as they were sent.
    pub uri: Uri,
    /// Of the request.
    pub headers: HeaderMap,
    /// Length of its body.
    pub body_len: usize,
    /// The first 4 KiB of its body.
    pub body_start: Bytes,
    /// The server's own status and headers; none where it did not answer, or was not asked.
    pub answer: Option<(StatusCode, HeaderMap)>,
}

impl Seen {
    /// Returns the S3 operation of the request.
    pub fn operation(&self) -> &'static str {
        let asks = |name: &str| {
            let query = self.uri.query().unwrap_or_default();
            query
                .split('&')
                .any(|pair| pair.split('=').next() == Some(name))
        };
        match self.method.as_str() {
            "GET" if asks("list-type") => "ListObjectsV2",
            "GET" if asks("uploads") => "ListMultipartUploads",
            "GET" => "GetObject",
            "HEAD" => "HeadObject",
            "PUT" if asks("partNumber") => "UploadPart",
            "PUT" => "PutObject",
            "POST" if asks("uploads") => "CreateMultipartUpload",
            "POST" if asks("uploadId") => "CompleteMultipartUpload",
            "DELETE" if asks("uploadId") => "AbortMultipartUpload",
            "DELETE" => "DeleteObject",
            _ => "another",
        }
    }

    /// A header of the request as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header of the server's answer as text.
    pub fn answered(&self, name: &str) -> Option<&str> {
        self.answer.as_ref()?.1.get(name)?.to_str().ok()
    }
}

/// Decides by the number of a request, from 0, and by what it is.
type Rule = Box<dyn Fn(usize, &Seen) -> Option<Fault> + Send>;

/// A proxy that is running. It ends with this value.
pub struct Proxy {
    endpoint: String,
    state: Arc<State>,
    /// Dropped, it ends the thread.
    _running: oneshot::Sender<Infallible>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a proxy at {}", self.endpoint)
    }
}

#[derive(Default)]
struct State {
    upstream: String,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    seen: Vec<Seen>,
    rule: Option<Rule>,
    /// Requests since the rule was made, and how often it did something.
    count: usize,
    faults: usize,
}

impl Proxy {
    /// A proxy before `upstream`, such as `http://127.0.0.1:12103`.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn start(upstream: &str) -> Self {
        Self::try_start(upstream).expect("a proxy starts")
    }

    fn try_start(upstream: &str) -> Result<Self> {
        let state = Arc::new(State {
            upstream: upstream.trim_start_matches("http://").into(),
            ..State::default()
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (running, ended) = oneshot::channel();
        // A thread of its own: tests have runtimes of their own, which come and go.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self {
            endpoint: format!("http://{address}"),
            state,
            _running: running,
        })
    }

    /// Such as `http://127.0.0.1:40001`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.book().seen.clone()
    }

    /// Returns the S3 operations of the requests so far.
    pub fn operations(&self) -> Vec<&'static str> {
        self.state.book().seen.iter().map(Seen::operation).collect()
    }

    /// Forgets the requests so far, and what was planned.
    pub fn forget(&self) {
        *self.state.book() = Book::default();
    }

    /// Plans what happens to one request from now, the next being number 0. One plan at a time.
    pub fn plan(&self, request: usize, fault: Fault) {
        self.rule(move |number, _| (number == request).then(|| fault.clone()));
    }

    /// Decides what happens to each request from now, by its number and what it is.
    pub fn rule(&self, rule: impl Fn(usize, &Seen) -> Option<Fault> + Send + 'static) {
        let mut book = self.state.book();
        book.rule = Some(Box::new(rule));
        (book.count, book.faults) = (0, 0);
    }

    /// How often the rule did something.
    pub fn faults(&self) -> usize {
        self.state.book().faults
    }
}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down. Its place in the book, and what is to happen to it.
    fn enter(&self, seen: Seen) -> (usize, Option<Fault>) {
        let mut book = self.book();
        let number = book.count;
        book.count += 1;
        let fault = book.rule.as_ref().and_then(|rule| rule(number, &seen));
        book.faults += usize::from(fault.is_some());
        book.seen.push(seen);
        (book.seen.len() - 1, fault)
    }

    fn answered(&self, place: usize, status: StatusCode, headers: &HeaderMap) {
        // It may have been forgotten meanwhile.
        if let Some(seen) = self.book().seen.get_mut(place) {
            seen.answer = Some((status, headers.clone()));
        }
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("a runtime with I/O");
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| serve(&state, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(stream), service);
            // An error is how a fault ends a connection.
            let _ = connection.await;
        });
    }
}

/// An answer, or an error that ends the connection without one.
type Answer = Result<Response<Outgoing>, Ended>;

type Outgoing = BoxBody<Bytes, Ended>;

/// The connection ends here, as planned.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ends here, as planned")
    }
}

impl std::error::Error for Ended {}

async fn serve(state: &State, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Ended)?.to_bytes();
    let seen = Seen {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body_len: body.len(),
        body_start: Bytes::copy_from_slice(&body[..body.len().min(4096)]),
        answer: None,
    };
    let (place, fault) = state.enter(seen);
    let mut head = head;
    match &fault {
        Some(Fault::RequestLost) => return Err(Ended),
        Some(Fault::CutUpload) => {
            let half = cut(body.slice(..body.len() / 2), Cut::End);
            let _ = forward(state, Request::from_parts(head, half)).await;
            return Err(Ended);
        }
        Some(Fault::Reply(reply)) => return Ok(said(reply)),
        Some(Fault::IgnoreConditions) => {
            head.headers.remove(IF_NONE_MATCH);
            head.headers.remove(IF_MATCH);
        }
        Some(Fault::IgnoreEncryption) => {
            let asked = |name: &HeaderName| name.as_str().starts_with(ENCRYPTION);
            let names: Vec<_> = head
                .headers
                .keys()
                .filter(|name| asked(name))
                .cloned()
                .collect();
            for name in names {
                head.headers.remove(name);
            }
        }
        _ => {}
    }
    let request = Request::from_parts(head, whole(body));
    // A server that is not there answers as little as one that is cut off.
    let (mut head, body) = forward(state, request).await.map_err(|_| Ended)?;
    state.answered(place, head.status, &head.headers);
    // Its length is known now, and told anew.
    head.headers.remove(TRANSFER_ENCODING);
    let half = body.slice(..body.len() / 2);
    let body = match fault {
        Some(Fault::ReplyLost) => return Err(Ended),
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::DoneThen(reply)) => return Ok(said(&reply)),
        Some(Fault::CutDownload) => cut(half, Cut::End),
        Some(Fault::StallBody) => cut(half, Cut::Silence),
        Some(Fault::Truncate) => {
            head.headers.insert(CONTENT_LENGTH, half.len().into());
            whole(half)
        }
        Some(Fault::Corrupt) => whole(with_another_bit(&body)),
        Some(Fault::Latency(time)) => {
            tokio::time::sleep(time).await;
            whole(body)
        }
        _ => whole(body),
    };
    Ok(Response::from_parts(head, body))
}

/// Asks the server on a connection of its own.
async fn forward(
    state: &State,
    request: Request<Outgoing>,
) -> Result<(hyper::http::response::Parts, Bytes)> {
    let address: SocketAddr = state.upstream.parse().context("an address")?;
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok((head, body))
}

fn said(reply: &Reply) -> Response<Outgoing> {
    let mut response = Response::new(whole(Bytes::from(reply.body.clone())));
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
    let headers = response.headers_mut();
    let fixed = [
        (SERVER, "persist-tests, a fake".to_owned()),
        (CONTENT_TYPE, "application/xml".to_owned()),
    ];
    let own = reply
        .headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.clone()));
    for (name, value) in fixed.into_iter().chain(own) {
        headers.insert(name, value.parse().expect("a header"));
    }
    response
}

fn whole(bytes: Bytes) -> Outgoing {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

#[derive(Clone, Copy)]
enum Cut {
    End,
    Silence,
}

/// A body that begins with these bytes and goes no further.
fn cut(bytes: Bytes, how: Cut) -> Outgoing {
    let begun = stream::iter([Ok(Frame::data(bytes))]);
    let after = stream::once(async move {
        // Long enough for what was begun to be on its way.
        tokio::time::sleep(Duration::from_millis(20)).await;
        match how {
            Cut::End => Err(Ended),
            Cut::Silence => std::future::pending().await,
        }
    });
    BodyExt::boxed(StreamBody::new(begun.chain(after)))
}

fn with_another_bit(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// A server that answers everything with ten digits, and a proxy before it.
    fn pair() -> (Proxy, Proxy) {
        let server = Proxy::start("nowhere");
        server.rule(|_, _| Some(Fault::Reply(Reply::new(200, "0123456789"))));
        let proxy = Proxy::start(server.endpoint());
        (server, proxy)
    }

    /// All that is answered to one request, as far as it comes.
    fn ask(proxy: &Proxy, request: &str) -> String {
        let address = proxy.endpoint().trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).expect("connects");
        let body = "body";
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: example\r\nconnection: close\r\nif-none-match: *\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("writes");
        let mut answer = Vec::new();
        // An end that is cut is an end.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("text")
    }

    #[test]
    fn unplanned_requests_pass_unchanged_and_are_recorded() {
        let (server, proxy) = pair();
        assert!(ask(&proxy, "PUT /a%2Fb?partNumber=1").ends_with("0123456789"));
        assert_eq!(proxy.operations(), ["UploadPart"]);
        let seen = server.seen();
        assert_eq!(seen[0].uri.to_string(), "/a%2Fb?partNumber=1");
        assert_eq!(seen[0].header("host"), Some("example"));
        assert_eq!(seen[0].header("if-none-match"), Some("*"));
        assert_eq!(seen[0].body_len, 4);
        assert_eq!(
            proxy.seen()[0].answered("content-type"),
            Some("application/xml")
        );
        proxy.forget();
        assert!(proxy.seen().is_empty());
    }

    #[test]
    fn a_fault_meets_the_request_that_it_was_planned_for_and_no_other() {
        let (server, proxy) = pair();
        for (fault, reached, answered) in [
            (Fault::CutUpload, false, ""),
            (Fault::RequestLost, false, ""),
            (Fault::ReplyLost, true, ""),
            (Fault::CutDownload, true, "01234"),
            (Fault::Truncate, true, "01234"),
            (Fault::Corrupt, true, "0123446789"),
            (Fault::Reply(Reply::s3(503, "SlowDown")), false, "</Error>"),
            (
                Fault::DoneThen(Reply::s3(500, "InternalError")),
                true,
                "</Error>",
            ),
        ] {
            server.forget();
            server.rule(|_, _| Some(Fault::Reply(Reply::new(200, "0123456789"))));
            proxy.plan(1, fault.clone());
            for number in 0..3 {
                let answer = ask(&proxy, "PUT /a");
                let expected = if number == 1 { answered } else { "0123456789" };
                assert!(
                    answer.ends_with(expected) && answer.is_empty() == expected.is_empty(),
                    "{fault:?}: {answer}"
                );
            }
            let came = server.seen().iter().filter(|s| s.body_len == 4).count();
            assert_eq!(came, 2 + usize::from(reached), "{fault:?}");
            assert_eq!(proxy.faults(), 1);
        }
    }

    #[test]
    fn conditions_can_be_taken_away() {
        let (server, proxy) = pair();
        proxy.plan(0, Fault::IgnoreConditions);
        ask(&proxy, "PUT /a");
        assert_eq!(server.seen()[0].header("if-none-match"), None);
    }
}
