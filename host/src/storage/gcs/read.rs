//! One ranged objects.get.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};

use super::{Gcs, Operation};
use crate::storage::bucket::innermost;
use crate::storage::bucket::read::{About, Answer, Body, Source, Wanted};
use crate::storage::retry::{Attempt, RetryLoop};

const GET: Operation = Operation {
    name: "objects.get",
    permission: "storage.objects.get",
    change: false,
    needs_bucket: false,
};

/// An object, by its name in the bucket.
#[derive(Clone, Debug)]
pub(super) struct GcsObject {
    pub(super) gcs: Gcs,
    pub(super) full: String,
}

impl Source for GcsObject {
    type Body = Response;

    const CALL: &'static str = GET.name;

    fn begin(&self) -> RetryLoop<'_> {
        self.gcs.begin(&GET, &self.full, 0)
    }

    async fn ask(
        &self,
        tries: &mut RetryLoop<'_>,
        wanted: &Wanted,
        tag: Option<&str>,
    ) -> Attempt<Answer<Response>> {
        self.gcs.attempt(tries, self.get(wanted, tag)).await
    }
}

impl GcsObject {
    async fn get(&self, wanted: &Wanted, tag: Option<&str>) -> Attempt<Answer<Response>> {
        let pin = tag.map_or_else(String::new, |tag| format!("&ifGenerationMatch={tag}"));
        let url = self.gcs.object_url(&self.full, &format!("?alt=media{pin}"));
        let mut get = self.gcs.request(Method::GET, &url);
        if let Some(range) = wanted.header() {
            get = get.header(RANGE, range);
        }
        let (response, refusal) = self.gcs.answer(&GET, get).await?;
        let Some(refusal) = refusal else {
            let about = about(response.headers(), wanted)?;
            return Ok(Answer::Bytes(about, response));
        };
        Answer::refused(refusal.status, refusal.size, wanted, tag)
            .ok_or_else(|| refusal.fault(&GET))
    }
}

fn about(headers: &HeaderMap, wanted: &Wanted) -> Attempt<About> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let len = text(CONTENT_LENGTH.as_str()).and_then(|len| len.parse::<u64>().ok());
    let generation = text("x-goog-generation")
        .filter(|generation| generation.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned);
    About::new(
        GET.name,
        wanted,
        text(CONTENT_RANGE.as_str()),
        len,
        generation,
    )
}

impl Body for Response {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let next = self.chunk().await;
        next.map_err(|error| innermost(&error).to_string())
    }
}
