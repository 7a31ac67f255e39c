//! Bodies of requests and responses, with limits of size and time.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::problem::{Problem, Result};
use crate::text::seen;

/// Body of a request, which is read piece by piece.
pub(super) struct Incoming {
    pieces: axum::body::BodyDataStream,
    idle: Duration,
}

impl Incoming {
    pub(super) fn new(body: Body, idle: Duration) -> Self {
        let pieces = body.into_data_stream();
        Self { pieces, idle }
    }

    /// Returns the next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        match tokio::time::timeout(self.idle, self.pieces.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) => Err(Problem::usage("the body of the request is incomplete")),
            Err(_) => {
                let what = "no more of the request came in time";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "limit", what))
            }
        }
    }

    /// Reads the whole body, of at most `max` bytes.
    pub(super) async fn whole(mut self, max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > max {
                let what = format!("the body of the request has more than {max} bytes");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "limit", what));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Refuses a body that is not JSON by its type. A page in a browser cannot send this type to
/// another host without asking.
pub(super) fn require_json(headers: &HeaderMap) -> Result<()> {
    let sent = headers.get(header::CONTENT_TYPE);
    let sent = sent.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = sent.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let what = "the body is not application/json";
    let error = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "usage", what);
    Err(error.hint("send the header `Content-Type: application/json`"))
}

/// Sends the pieces of a response, each within a time: a client that reads nothing loses the
/// connection.
pub(super) struct Outgoing {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    idle: Duration,
}

impl Outgoing {
    pub(super) fn new(idle: Duration) -> (Self, Body) {
        let (pieces, received) = mpsc::channel(1);
        let stream = stream::unfold(received, |mut received: mpsc::Receiver<_>| async {
            let piece = received.recv().await?;
            Some((piece, received))
        });
        (Self { pieces, idle }, Body::from_stream(stream))
    }

    /// Sends a piece. False: the client is gone, or does not read.
    pub(super) async fn send(&self, piece: Bytes) -> bool {
        let sent = self.pieces.send_timeout(Ok(piece), self.idle);
        sent.await.is_ok()
    }

    /// Ends the response before its end, so that the client sees that it is incomplete.
    pub(super) async fn fail(&self) {
        let error = io::Error::other("the rest cannot be read");
        let _ = self.pieces.send_timeout(Err(error), self.idle).await;
    }

    /// Sends a server-sent event.
    pub(super) async fn event(&self, event: &str, data: &Value) -> bool {
        let text = format!("event: {event}\ndata: {}\n\n", seen(data));
        self.send(text.into()).await
    }

    /// Sends a comment, which keeps proxies from ending a quiet stream.
    pub(super) async fn keep_alive(&self) -> bool {
        self.send(Bytes::from_static(b": still here\n\n")).await
    }
}

/// Returns a response that is a stream of events.
pub(super) fn events_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let events = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, events);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
