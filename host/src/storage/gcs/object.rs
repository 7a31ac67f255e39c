//! Requests about one object: to create, read and delete it.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};

use super::error_response::{Operation, broken_insert, damaged};
use super::{GcsDriver, Request, innermost, small, unlogged};
use crate::storage::bucket::{
    Attempt, AttemptError, Body, GetResponse, Mode, ObjectInfo, ObjectRange, RetryDecision, Stored,
    content_type, foreign_response,
};
use crate::storage::{Error, ErrorKind};

impl GcsDriver {
    pub(super) async fn insert(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
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
                None => Err(broken_insert(self, operation, &error)),
            },
        }
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

    pub(super) async fn get_media(
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
            let info = info(operation, response.headers(), range)?;
            return Ok(GetResponse::Bytes(info, response));
        };
        GetResponse::refused(refusal.status, refusal.size, range, tag)
            .ok_or_else(|| self.refused(operation, &refusal))
    }

    pub(super) async fn delete_object(&self, key: &str) -> Attempt<()> {
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
