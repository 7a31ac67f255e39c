//! The requests of GCS.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;

use super::error_response::{Operation, damaged, insert_failure};
use super::{GcsDriver, encode, innermost, small, unlogged, whole};
use crate::storage::bucket::{
    self, After, Attempt, AttemptError, Body, Completion, Directories, Driver, ErrorResponse,
    GetResponse, ListRequest, ListResponse, ListedObject, Mode, ObjectInfo, ObjectRange, Progress,
    Request, RetryDecision, Stored, UploadPart, Uploads, content_type, foreign_response,
    refuse_page,
};
use crate::storage::{Error, ErrorKind, ObjectMeta};

/// The most entries that GCS gives at once.
const MAX_RESULTS: usize = 1000;

/// One answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    /// Kind that the answer says it is.
    kind: String,
    items: Vec<Listed>,
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    name: String,
    size: Option<String>,
    time_created: Option<String>,
}

/// A resumable upload that GCS knows of.
#[derive(Clone)]
pub struct Session {
    /// URL of the session. Anyone who has it may continue the upload, so it is never shown.
    url: String,
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

impl Driver for GcsDriver {
    type Upload = Session;
    type Receipt = ();
    type Body = Response;

    const UPLOADS: Uploads = Uploads {
        at_once: 1,
        max_parts: u32::MAX,
        completed_by_last_part: true,
    };

    /// GCS counts directories among what a page may hold. Others (fake-gcs-server) count objects
    /// only, and show all directories at once.
    const DIRECTORIES: Directories = Directories::BesideObjects;

    const LIMITS_WRITES: bool = true;

    fn settings(&self) -> &bucket::Settings {
        &self.settings.common
    }

    fn name(&self, request: Request) -> &'static str {
        Operation::of(request).name
    }

    async fn ready(&self) -> Attempt<()> {
        self.credentials.headers().await.map(drop)
    }

    async fn renew(&self) -> bool {
        self.credentials.renew().await
    }

    async fn put(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
        let bucket = format!("projects/_/buckets/{}", self.settings.common.bucket);
        let mut insert = self
            .crates()
            .await?
            .write_object(bucket, key, body)
            .set_content_type(content_type(key))
            .with_resumable_upload_threshold(usize::MAX);
        if mode == Mode::Create {
            insert = insert.set_if_generation_match(0);
        }
        if let Some(key) = &self.settings.kms_key {
            insert = insert.set_kms_key(key);
        }
        let operation = Operation::of(Request::Put);
        match unlogged(insert.send_buffered()).await {
            // GCS names the generation that it made.
            Ok(object) if object.generation <= 0 => {
                Err(foreign_response(operation.name, "has no generation"))
            }
            Ok(object) => Ok(self.stored(&object.kms_key)),
            Err(error) => match damaged(&error) {
                Some(generation) => Err(self.discard(operation, key, generation).await),
                None => {
                    let refusal = insert_failure(operation, &error)?;
                    Err(self.refused(operation, &refusal))
                }
            },
        }
    }

    async fn begin(&self, key: &str, mode: Mode) -> Attempt<Session> {
        let mut query = format!("/o?uploadType=resumable&name={}", encode(key));
        if mode == Mode::Create {
            query += "&ifGenerationMatch=0";
        }
        if let Some(key) = &self.settings.kms_key {
            query += &format!("&kmsKeyName={}", encode(key));
        }
        let begin = self
            .request(Method::POST, &self.url("/upload/storage/v1/b/", &query))
            .header(CONTENT_TYPE, "application/json")
            .body(format!("{{\"contentType\":\"{}\"}}", content_type(key)));
        let answer = self.send(Operation::of(Request::Begin), begin).await?;
        let url = location(answer.headers(), &self.settings.common.server)?;
        Ok(Session { url })
    }

    // Sends a part that another follows. What GCS has of it already when it is sent again, it
    // passes over.
    async fn part(&self, _: &str, session: &Session, part: &UploadPart) -> Attempt<Progress<()>> {
        let operation = Operation::of(Request::Part);
        let (response, refusal) = self
            .answer(operation, self.put_part(session, part, "*"))
            .await?;
        match refusal {
            None => {
                let what = "is an object before its last part";
                Err(foreign_response(operation.name, what))
            }
            Some(refusal) => self.progress(operation, part, &response, &refusal),
        }
    }

    // Sends the last part, with which the object is made.
    async fn complete(
        &self,
        key: &str,
        session: &Session,
        completion: &Completion<()>,
        _: Mode,
    ) -> Attempt<Progress<Stored>> {
        let operation = Operation::of(Request::Complete);
        let Some(last) = &completion.last else {
            let what = format!("{}: an upload needs a last part", operation.name);
            let error = Error::new(ErrorKind::Unsupported, what);
            return Err(AttemptError::new(RetryDecision::Stop, error));
        };
        let crc32c = BASE64_STANDARD.encode(completion.crc32c.to_be_bytes());
        let put = self
            .put_part(session, last, &completion.size.to_string())
            .header("x-goog-hash", format!("crc32c={crc32c}"));
        let (response, refusal) = self.answer(operation, put).await?;
        match refusal {
            None => {
                let stored = self.made(key, completion.size, &crc32c, response).await?;
                Ok(Progress::Whole(stored))
            }
            Some(refusal) => match self.progress(operation, last, &response, &refusal)? {
                Progress::Taken(taken) => Ok(Progress::Taken(taken)),
                Progress::Whole(()) => Err(odd_length(operation)),
            },
        }
    }

    async fn abort(&self, _: &str, session: &Session) -> Attempt<()> {
        let operation = Operation::of(Request::Abort);
        let cancel = self
            .request(Method::DELETE, &session.url)
            .header(CONTENT_LENGTH, 0);
        match self.answer(operation, cancel).await? {
            (_, None) => Ok(()),
            // GCS answers 499 where it did so.
            (_, Some(gone)) if matches!(gone.status, 404 | 410 | 499) => Ok(()),
            (_, Some(refusal)) => Err(self.refused(operation, &refusal)),
        }
    }

    async fn get(
        &self,
        key: &str,
        range: &ObjectRange,
        tag: Option<&str>,
    ) -> Attempt<GetResponse<Response>> {
        let operation = Operation::of(Request::Get);
        let pin = tag.map_or_else(String::new, |tag| format!("&ifGenerationMatch={tag}"));
        let url = self.object_url(key, &format!("?alt=media{pin}"));
        let mut get = self.request(Method::GET, &url);
        if let Some(range) = range.header() {
            get = get.header(RANGE, range);
        }
        let (response, refusal) = self.answer(operation, get).await?;
        let Some(refusal) = refusal else {
            refuse_foreign(operation, &response)?;
            let info = info(operation, response.headers(), range)?;
            return Ok(GetResponse::Bytes(info, response));
        };
        GetResponse::refused(refusal.status, refusal.size, range, tag)
            .ok_or_else(|| self.refused(operation, &refusal))
    }

    async fn list(&self, list: &ListRequest) -> Attempt<ListResponse> {
        let operation = Operation::of(Request::List);
        let url = self.url("/storage/v1/b/", &query(list));
        let request = self.request(Method::GET, &url);
        let response = self.send(operation, request).await?;
        let date = response.headers().get("date").and_then(|d| d.to_str().ok());
        let now = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let body = whole(response).await.map_err(|why| {
            let what = format!("the response to {} {why}", operation.name);
            AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
        })?;
        let answer = match serde_json::from_slice::<Answer>(&body) {
            // Any object of JSON could be read as an empty list.
            Ok(answer) if answer.kind == "storage#objects" => answer,
            _ => return Err(foreign_response(operation.name, "is not a list of objects")),
        };
        let objects = answer.items.into_iter().map(|listed| ListedObject {
            meta: now.and_then(|now| object_meta(&listed, now)),
            key: listed.name,
        });
        Ok(ListResponse {
            objects: objects.collect(),
            directories: answer.prefixes,
            more: answer.next_page_token.is_some(),
            token: answer.next_page_token,
            now,
        })
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        let operation = Operation::of(Request::Delete);
        let request = self.request(Method::DELETE, &self.object_url(key, ""));
        let (mut response, refusal) = self.answer(operation, request).await?;
        match refusal {
            // It is removed already.
            Some(refusal) if refusal.status == 404 => Ok(()),
            Some(refusal) => Err(self.refused(operation, &refusal)),
            None if small(&mut response).await.is_empty() => Ok(()),
            None => Err(foreign_response(
                operation.name,
                "has a body, which that of a deletion has not",
            )),
        }
    }
}

impl GcsDriver {
    /// `total` is the length of the object, or `*` before the last part.
    fn put_part(&self, session: &Session, part: &UploadPart, total: &str) -> RequestBuilder {
        let first = part.offset;
        let last = first + part.body.len() as u64 - 1;
        self.request(Method::PUT, &session.url)
            .header(CONTENT_RANGE, format!("bytes {first}-{last}/{total}"))
            .body(part.body.clone())
    }

    /// Returns the bytes that GCS has of a part, after a response that the upload is not complete.
    fn progress(
        &self,
        operation: Operation,
        part: &UploadPart,
        response: &Response,
        refusal: &ErrorResponse,
    ) -> Attempt<Progress<()>> {
        match refusal.status {
            308 => {
                let len = part.body.len() as u64;
                match has(response.headers()).checked_sub(part.offset) {
                    Some(0) => {
                        let what = format!("{}: GCS received no data", operation.name);
                        let error = Error::new(ErrorKind::Unavailable, what);
                        Err(AttemptError::new(RetryDecision::Backoff(None), error))
                    }
                    Some(taken) if taken == len => Ok(Progress::Whole(())),
                    Some(taken) if taken < len => Ok(Progress::Taken(taken)),
                    _ => Err(odd_length(operation)),
                }
            }
            // The upload is gone: completed by an attempt whose answer was lost, or cancelled. Only
            // looking tells.
            404 | 410 | 499 => {
                let what = format!("{}: the upload no longer exists", operation.name);
                Err(AttemptError {
                    next: RetryDecision::Stop,
                    ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
                })
            }
            _ => Err(self.refused(operation, refusal)),
        }
    }

    /// The object that was made, which must be the one that was sent.
    async fn made(
        &self,
        key: &str,
        size: u64,
        crc32c: &str,
        response: Response,
    ) -> Attempt<Stored> {
        let operation = Operation::of(Request::Complete);
        let body = whole(response).await.map_err(|why| {
            let what = format!("the response to {} {why}", operation.name);
            AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
        })?;
        let foreign = |what| foreign_response(operation.name, what);
        let made: Made = serde_json::from_slice(&body).map_err(|_| foreign("is not JSON"))?;
        let same =
            made.size == size.to_string() && (made.crc32c.is_empty() || made.crc32c == crc32c);
        if same {
            return Ok(self.stored(&made.kms_key_name));
        }
        let generation = made.generation.parse::<i64>();
        let generation = generation.map_err(|_| foreign("has no generation"))?;
        let discarded = self.discard(operation, key, generation).await;
        // The upload is over: what was sent of it cannot be sent again.
        Err(AttemptError {
            next: RetryDecision::Stop,
            ..discarded
        })
    }

    /// Removes an object that was made of other bytes than were sent, before it is read as ours.
    pub(super) async fn discard(
        &self,
        operation: Operation,
        key: &str,
        generation: i64,
    ) -> AttemptError {
        let what = format!(
            "{}: GCS stored different bytes than were sent",
            operation.name
        );
        let error = Error::new(ErrorKind::Unavailable, what);
        let url = self.object_url(key, &format!("?ifGenerationMatch={generation}"));
        let delete = self.request(Method::DELETE, &url);
        match self.send(Operation::of(Request::Delete), delete).await {
            Ok(_) => AttemptError::new(RetryDecision::Backoff(None), error),
            Err(_) => AttemptError {
                next: RetryDecision::Stop,
                ..AttemptError::unclear(error)
            },
        }
    }
}

fn odd_length(operation: Operation) -> AttemptError {
    let what = format!(
        "{}: GCS has a different length than was sent",
        operation.name
    );
    let error = Error::new(ErrorKind::Unavailable, what);
    AttemptError::new(RetryDecision::Stop, error)
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
        None => {
            let name = Operation::of(Request::Begin).name;
            Err(foreign_response(name, "has no address of the upload"))
        }
    }
}

/// `Range: bytes=0-99`: that many bytes arrived; no such header, none.
fn has(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Returns an error unless a response with an object looks like one of GCS.
fn refuse_foreign(operation: Operation, response: &Response) -> Attempt<()> {
    let headers = response.headers();
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|text| text.to_str().ok());
    refuse_page(operation.name, content_type)?;
    let is_own = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-goog-") || name.starts_with("x-guploader-") || name == "etag"
    };
    if matches!(response.status().as_u16(), 200 | 206) && headers.keys().any(is_own) {
        return Ok(());
    }
    let what = "has no header of GCS, such as x-goog-generation";
    Err(foreign_response(operation.name, what))
}

fn info(operation: Operation, headers: &HeaderMap, range: &ObjectRange) -> Attempt<ObjectInfo> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let len = text(CONTENT_LENGTH.as_str()).and_then(|len| len.parse::<u64>().ok());
    let generation = text("x-goog-generation")
        .filter(|generation| generation.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned);
    let content_range = text(CONTENT_RANGE.as_str());
    ObjectInfo::from_headers(operation.name, range, content_range, len, generation)
}

impl Body for Response {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let next = self.chunk().await;
        next.map_err(|error| innermost(&error).to_string())
    }
}

fn query(list: &ListRequest) -> String {
    let (delimiter, prefixes) = if list.directories {
        ("delimiter=%2F&", "prefixes,")
    } else {
        ("", "")
    };
    let prefix = encode(&list.prefix);
    let fields = format!("kind,items(name,size,timeCreated),{prefixes}nextPageToken");
    let mut query = format!("/o?{delimiter}fields={fields}&prefix={prefix}");
    let (start, limit) = match &list.after {
        None => (None, list.limit),
        // The list begins with it.
        Some(After::Key(key)) => (Some(key.clone()), list.limit + 1),
        // `0` is what follows `/`.
        Some(After::Directory(dir)) => (Some(format!("{dir}0")), list.limit),
    };
    query += &format!("&maxResults={}", limit.min(MAX_RESULTS));
    for (name, value) in [("startOffset", start), ("pageToken", list.token.clone())] {
        if let Some(value) = value {
            query += &format!("&{name}={}", encode(&value));
        }
    }
    query
}

/// GCS tells when an upload was completed, to the millisecond, and the time of a page in whole
/// seconds.
fn object_meta(listed: &Listed, now: SystemTime) -> Option<ObjectMeta> {
    let created = humantime::parse_rfc3339(listed.time_created.as_deref()?).ok()?;
    Some(ObjectMeta {
        size: listed.size.as_deref()?.parse().ok()?,
        created: created.min(now),
    })
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

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.into(),
            size: Some("10".into()),
            time_created: Some("2026-11-22T20:08:07.123Z".into()),
        }
    }

    #[test]
    fn an_object_is_never_of_the_future() {
        let created = humantime::parse_rfc3339("2026-11-22T20:08:07.123Z").expect("a time");
        let second = std::time::Duration::from_secs(1);
        let meta = |now| object_meta(&listed("a"), now).expect("meta").created;
        assert_eq!(meta(created + second), created);
        assert_eq!(meta(created - second), created - second);
    }
}
