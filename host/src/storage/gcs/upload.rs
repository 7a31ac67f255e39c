//! Objects whose length is not known yet: a resumable upload, whose parts can each be sent again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Response};
use serde::Deserialize;
use tokio::runtime::Handle;

use super::{Gcs, INSERT, Mode, Operation, PART, content_type, encode, whole};
use crate::storage::bucket::{Tail, Unsent, confirm};
use crate::storage::probe::{self, Way};
use crate::storage::retry::{Attempt, AttemptError, RetryDecision};
use crate::storage::{Error, ErrorKind, Key, Result, Storage, Upload};

/// Nothing can be seen of it.
const BEGIN: Operation = Operation {
    name: "objects.insert (begin)",
    change: false,
    ..INSERT
};

const SEND: Operation = Operation {
    name: "objects.insert (part)",
    change: false,
    needs_bucket: false,
    ..INSERT
};

const COMPLETE: Operation = Operation {
    name: "objects.insert (last part)",
    needs_bucket: false,
    ..INSERT
};

/// An object that is being uploaded. It is one request unless it grows over one part.
#[derive(Debug)]
pub(super) struct GcsUpload {
    gcs: Gcs,
    key: Key,
    mode: Mode,
    unsent: Unsent,
    tail: Tail,
    session: Option<Session>,
    /// Set while a call is under way, and after one that failed: what was written is not whole any
    /// more.
    failed: bool,
    runtime: Handle,
}

/// A resumable upload that GCS knows of.
struct Session {
    /// URL of the session. Anyone who has it may continue the upload, so it is never shown.
    url: String,
    /// Bytes that GCS has, and their checksum.
    sent: u64,
    crc32c: u32,
}

/// Metadata that GCS returns for the object that it made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Made {
    generation: String,
    size: String,
    crc32c: String,
    kms_key_name: String,
}

impl GcsUpload {
    /// Nothing is sent yet. Must be called in a runtime.
    pub(super) fn new(gcs: &Gcs, key: &Key, mode: Mode) -> Self {
        Self {
            gcs: gcs.clone(),
            key: key.clone(),
            mode,
            unsent: Unsent::default(),
            tail: Tail::default(),
            session: None,
            failed: false,
            runtime: Handle::current(),
        }
    }

    /// Begins a resumable upload of one part, which is sent when it is finished.
    pub(super) async fn in_parts(gcs: &Gcs, key: &Key, body: Bytes) -> Result<Self> {
        let mut upload = Self::new(gcs, key, Mode::Create);
        upload.tail.push(&body);
        upload.unsent.push(body);
        upload.session = Some(Session::begin(gcs, &gcs.full(key), Mode::Create).await?);
        Ok(upload)
    }

    /// Sends the next `len` bytes; with the last of them the object is made.
    async fn send(&mut self, len: usize, last: bool) -> Result<()> {
        let body = self.unsent.take(len);
        let full = self.gcs.full(&self.key);
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                if self.mode == Mode::Create {
                    ensure_exclusive(&self.gcs).await?;
                }
                none.insert(Session::begin(&self.gcs, &full, self.mode).await?)
            }
        };
        let unclear = session.send(&self.gcs, &full, body, last).await?;
        if last && unclear && self.mode == Mode::Create {
            confirm(&self.gcs, &self.key, &self.tail).await?;
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        if self.session.is_none() {
            let body = self.unsent.take_all();
            return self.gcs.put(&self.key, body, self.mode).await;
        }
        self.send(self.unsent.len(), true).await
    }

    /// Tells GCS to forget what it has, in a task of its own. It forgets by itself within a week.
    fn abort(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        let gcs = self.gcs.clone();
        let background = self.gcs.shared.background.clone();
        background.spawn(&self.runtime, async move {
            let cancel = gcs
                .request(Method::DELETE, &session.url)
                .header(CONTENT_LENGTH, 0);
            // GCS answers 499 where it did so.
            let cancelled = gcs.answer(&SEND, cancel);
            let _ = tokio::time::timeout(gcs.settings().retry.attempt, cancelled).await;
        });
    }
}

#[async_trait]
impl Upload for GcsUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if std::mem::replace(&mut self.failed, true) {
            let what = "an upload cannot continue after an error";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        self.tail.push(&piece);
        self.unsent.push(piece);
        // The last part is sent by `finish`, and is not empty.
        while self.unsent.len() > PART {
            self.send(PART, false).await?;
        }
        self.failed = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        self.write(Bytes::new()).await?;
        self.complete().await?;
        self.session = None;
        Ok(())
    }
}

impl Drop for GcsUpload {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Verifies, before the first upload that must not replace anything, that a server that is not
/// Google's acknowledges one of several uploads that race.
async fn ensure_exclusive(gcs: &Gcs) -> Result<()> {
    let Some(server) = gcs.unknown_server() else {
        return Ok(());
    };
    let storage: Arc<dyn Storage> = Arc::new(gcs.clone());
    let probed = gcs
        .shared
        .uploads_probed
        .get_or_try_init(|| async { probe::ensure_exclusive(&storage, &server, Way::Parts).await });
    probed.await.copied()
}

impl Session {
    async fn begin(gcs: &Gcs, full: &str, mode: Mode) -> Result<Self> {
        let mut query = format!("/o?uploadType=resumable&name={}", encode(full));
        if mode == Mode::Create {
            query += "&ifGenerationMatch=0";
        }
        if let Some(key) = &gcs.settings().kms_key {
            query += &format!("&kmsKeyName={}", encode(key));
        }
        let url = &gcs.url("/upload/storage/v1/b/", &query);
        let about = &format!("{{\"contentType\":\"{}\"}}", content_type(full));
        let begin = || async move {
            let begin = gcs
                .request(Method::POST, url)
                .header(CONTENT_TYPE, "application/json")
                .body(about.clone());
            let answer = gcs.send(&BEGIN, begin).await?;
            location(answer.headers(), &gcs.settings().endpoint)
        };
        Ok(Self {
            url: gcs.call(&BEGIN, full, 0, begin).await?,
            sent: 0,
            crc32c: 0,
        })
    }

    /// Sends a part. What GCS has of it already when it is sent again, it passes over. Returns true
    /// where an attempt had no answer.
    async fn send(&mut self, gcs: &Gcs, full: &str, body: Bytes, last: bool) -> Result<bool> {
        let end = self.sent + body.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &body);
        let mut rest = body;
        let mut unclear = false;
        while self.sent < end {
            let (has, was_unclear) = self.put(gcs, full, &rest, last).await?;
            unclear |= was_unclear;
            if has == end && !last {
                self.sent = end;
                return Ok(unclear);
            }
            match has.checked_sub(self.sent) {
                // The object is made.
                _ if has == u64::MAX => return Ok(unclear),
                Some(taken @ 1..) if has < end => {
                    // A part is at most 8 MiB.
                    rest = rest.slice(taken as usize..);
                    self.sent = has;
                }
                _ => {
                    let what = format!("{}: GCS has a different length than was sent", SEND.name);
                    return Err(Error::new(ErrorKind::Unavailable, what));
                }
            }
        }
        Ok(unclear)
    }

    /// Makes one request, as often as it takes. Returns how many bytes GCS has now, `u64::MAX` once
    /// the object is made, and true where an attempt had no answer.
    async fn put(&self, gcs: &Gcs, full: &str, body: &Bytes, last: bool) -> Result<(u64, bool)> {
        let operation = if last { &COMPLETE } else { &SEND };
        let end = self.sent + body.len() as u64;
        let total = if last { end.to_string() } else { "*".into() };
        let range = &format!("bytes {}-{}/{total}", self.sent, end - 1);
        let hash = &format!("crc32c={}", self.checksum());
        let put = || async move {
            let mut put = gcs
                .request(Method::PUT, &self.url)
                .header(CONTENT_RANGE, range)
                .body(body.clone());
            if last {
                put = put.header("x-goog-hash", hash);
            }
            let (response, refusal) = gcs.answer(operation, put).await?;
            match refusal {
                None if last => {
                    self.check(gcs, full, end, response).await?;
                    Ok(u64::MAX)
                }
                None => Err(odd("an object before its last part")),
                Some(refusal) if refusal.status == 308 => match has(response.headers()) {
                    has if has == self.sent => {
                        let what = format!("{}: GCS received no data", operation.name);
                        let error = Error::new(ErrorKind::Unavailable, what);
                        Err(AttemptError::new(RetryDecision::Backoff(None), error))
                    }
                    has => Ok(has),
                },
                // The upload is gone: completed by an attempt whose answer was lost, or cancelled.
                // Only looking tells.
                Some(gone) if matches!(gone.status, 404 | 410 | 499) => {
                    let what = format!("{}: the upload no longer exists", operation.name);
                    Err(AttemptError {
                        next: RetryDecision::Stop,
                        ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
                    })
                }
                Some(refusal) => Err(refusal.fault(operation)),
            }
        };
        gcs.call_change(operation, full, body.len(), put).await
    }

    fn checksum(&self) -> String {
        BASE64_STANDARD.encode(self.crc32c.to_be_bytes())
    }

    /// That the object that was made is the one that was sent.
    async fn check(&self, gcs: &Gcs, full: &str, size: u64, response: Response) -> Attempt<()> {
        let body = whole(response).await.map_err(|why| {
            let what = format!("the response to {} {why}", COMPLETE.name);
            AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
        })?;
        let made: Made = serde_json::from_slice(&body).map_err(|_| odd("an invalid body"))?;
        let same = made.size == size.to_string()
            && (made.crc32c.is_empty() || made.crc32c == self.checksum());
        if same {
            gcs.check_encryption(&made.kms_key_name);
            return Ok(());
        }
        let generation = made.generation.parse::<i64>();
        let generation = generation.map_err(|_| odd("an object without its generation"))?;
        let discarded = gcs.discard(&COMPLETE, full, generation).await;
        // The upload is over: what was sent of it cannot be sent again.
        Err(AttemptError {
            next: RetryDecision::Stop,
            ..discarded
        })
    }
}

/// Returns the address where the upload continues. Of the given address only path and query are
/// taken: credentials go to no other server, and some servers do not know their own port.
fn location(headers: &HeaderMap, endpoint: &str) -> Attempt<String> {
    let url = headers.get(LOCATION).and_then(|url| url.to_str().ok());
    let path = url.and_then(|url| match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|path| &rest[path..]),
        None => url.starts_with('/').then_some(url),
    });
    match path {
        Some(path) => Ok(format!("{endpoint}{path}")),
        None => Err(odd("no address of the upload")),
    }
}

/// `Range: bytes=0-99`: that many bytes arrived; no such header, none.
fn has(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

fn odd(what: &str) -> AttemptError {
    let what = format!("objects.insert returned {what}");
    AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session {{ sent: {} }}", self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_at_the_server_that_it_began_at() {
        let to = |url: &str| {
            let headers = [(LOCATION, url.parse().expect("a header"))];
            location(&headers.into_iter().collect(), "http://127.0.0.1:4443").ok()
        };
        let there = "http://127.0.0.1:4443/upload?upload_id=1";
        for said in [
            there,
            "http://127.0.0.1/upload?upload_id=1",
            "https://user@example.org/upload?upload_id=1",
            "/upload?upload_id=1",
        ] {
            assert_eq!(to(said).as_deref(), Some(there), "{said}");
        }
        assert_eq!(to("upload"), None);
        assert_eq!(to("http://127.0.0.1:4443"), None);
    }

    #[test]
    fn a_server_says_how_much_it_has_or_that_it_has_nothing() {
        let of = |range: &'static str| {
            let headers = [(RANGE, http::HeaderValue::from_static(range))];
            has(&headers.into_iter().collect())
        };
        assert_eq!(of("bytes=0-99"), 100);
        assert_eq!(of("nonsense"), 0);
        assert_eq!(has(&HeaderMap::new()), 0);
    }
}
