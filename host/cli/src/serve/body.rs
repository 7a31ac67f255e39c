//! Bodies of requests and responses, with limits of size and time.

use std::io;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use super::problem::{Problem, Result};
use crate::text::seen;

/// Longest time for the whole of a form or a small JSON document.
const SMALL_TIME: Duration = Duration::from_secs(10);

/// Least bytes a second of a larger body, after the first idle timeout.
const MIN_RATE: u64 = 1 << 10;

/// Body of a request, which is read piece by piece. A client may send slowly, but not so slowly
/// that it keeps a connection for ever.
pub(super) struct Incoming {
    pieces: axum::body::BodyDataStream,
    idle: Duration,
    /// Time that is left to wait for the client, in all.
    left: Duration,
    /// True if each byte that comes allows more time.
    has_rate: bool,
}

impl Incoming {
    pub(super) fn new(body: Body, idle: Duration) -> Self {
        Self {
            pieces: body.into_data_stream(),
            idle,
            left: idle,
            has_rate: true,
        }
    }

    /// Limits the time for the whole body, whatever its size.
    pub(super) fn small(mut self) -> Self {
        self.left = self.left.min(SMALL_TIME);
        self.has_rate = false;
        self
    }

    /// Returns the next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let wait = self.idle.min(self.left);
        let came = tokio::time::timeout(wait, self.pieces.next()).await;
        self.left = self.left.saturating_sub(began.elapsed());
        match came {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => {
                if self.has_rate {
                    let micros = (piece.len() as u64).saturating_mul(1_000_000) / MIN_RATE;
                    self.left = self.left.saturating_add(Duration::from_micros(micros));
                }
                Ok(Some(piece))
            }
            Ok(Some(Err(_))) => Err(Problem::usage("the body of the request is incomplete")),
            Err(_) => {
                let what = "the body of the request comes too slowly";
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

/// Reads JSON. An error tells what is expected in the words of JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = error.to_string();
        let why = why.replace("expected u64", "expected a whole number from 0");
        let why = why.replace("expected a sequence", "expected an array");
        Problem::usage(format!("the body: {why}"))
            .hint("GET /v1/openapi.json has the schema of the body")
    })
}

/// Returns true if a client accepts a media type by its name, and not with the weight 0.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter();
    let lines = lines.filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| {
        let mut parameters = part.split(';').map(str::trim);
        let name = parameters.next().unwrap_or("");
        let mut weights = parameters.filter_map(|one| one.split_once('='));
        let is_refused = weights.any(|(key, weight)| {
            key.eq_ignore_ascii_case("q") && weight.parse().is_ok_and(|weight: f32| weight <= 0.0)
        });
        name.eq_ignore_ascii_case(media_type) && !is_refused
    })
}

/// Refuses a body that is compressed, as nothing decodes it.
pub(super) fn require_no_coding(headers: &HeaderMap) -> Result<()> {
    let has_other = |name: HeaderName, allowed: &str| {
        let lines = headers.get_all(name).into_iter();
        let mut codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        codings.any(|coding| {
            let coding = coding.trim_ascii();
            !coding.is_empty() && !coding.eq_ignore_ascii_case(allowed.as_bytes())
        })
    };
    let (status, what) = if has_other(header::CONTENT_ENCODING, "identity") {
        let what = "Content-Encoding: the body is encoded, and the service does not decode it";
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
    } else if has_other(header::TRANSFER_ENCODING, "chunked") {
        let what = "Transfer-Encoding: the service decodes only chunked";
        (StatusCode::NOT_IMPLEMENTED, what)
    } else {
        return Ok(());
    };
    let error = Problem::new(status, "usage", what);
    Err(error.hint("send the body without compression; a store compresses states itself"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_with_the_weight_0_is_not_accepted() {
        let accepts = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::ACCEPT, line.parse().expect("a value"));
            accepts(&headers, "text/event-stream")
        };
        for (line, is_accepted) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.5", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream; Q=0.000, */*", false),
            ("*/*", false),
        ] {
            assert_eq!(accepts(line), is_accepted, "{line}");
        }
    }
}
