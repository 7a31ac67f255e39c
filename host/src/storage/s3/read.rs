//! One ranged GetObject.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;

use super::error_response::ErrorResponse;
use super::{Operation, S3, fault};
use crate::storage::bucket::read::{About, Answer, Body, Source, Wanted};
use crate::storage::bucket::{innermost, unlogged};
use crate::storage::retry::{Attempt, RetryLoop};

const GET: Operation = Operation {
    name: "GetObject",
    permission: "s3:GetObject on the objects of the bucket",
    change: false,
};

/// An object, by its key in the bucket.
#[derive(Clone, Debug)]
pub(super) struct S3Object {
    pub(super) s3: S3,
    pub(super) full: String,
}

impl Source for S3Object {
    type Body = ByteStream;

    const CALL: &'static str = GET.name;

    fn begin(&self) -> RetryLoop<'_> {
        self.s3.begin(&GET, &self.full, 0)
    }

    async fn ask(
        &self,
        tries: &mut RetryLoop<'_>,
        wanted: &Wanted,
        tag: Option<&str>,
    ) -> Attempt<Answer<ByteStream>> {
        self.s3.attempt(tries, self.get(wanted, tag)).await
    }
}

impl S3Object {
    async fn get(&self, wanted: &Wanted, tag: Option<&str>) -> Attempt<Answer<ByteStream>> {
        let get = self
            .s3
            .client()
            .get_object()
            .bucket(&self.s3.settings().bucket)
            .key(&self.full)
            .set_range(wanted.header())
            .set_if_match(tag.map(str::to_owned));
        let error = match unlogged(get.send()).await {
            Ok(answer) => return Ok(Answer::Bytes(about(&answer, wanted)?, answer.body)),
            Err(error) => error,
        };
        ErrorResponse::of(&error)
            .and_then(|refusal| Answer::refused(refusal.status, refusal.size, wanted, tag))
            .ok_or_else(|| fault(&GET, &error))
    }
}

/// Returns the encryption of the object, as the server reports it on a read.
pub(super) async fn encryption(
    s3: &S3,
    full: &str,
) -> crate::storage::Result<Option<ServerSideEncryption>> {
    let get = || async {
        let get = s3
            .client()
            .get_object()
            .bucket(&s3.settings().bucket)
            .key(full)
            .range("bytes=-1");
        match unlogged(get.send()).await {
            Ok(answer) => Ok(answer.server_side_encryption),
            Err(error) => Err(fault(&GET, &error)),
        }
    };
    s3.call(&GET, full, 0, get).await
}

fn about(answer: &GetObjectOutput, wanted: &Wanted) -> Attempt<About> {
    let len = answer.content_length();
    let len = len.and_then(|len| u64::try_from(len).ok());
    let tag = answer.e_tag().map(str::to_owned);
    About::new(GET.name, wanted, answer.content_range(), len, tag)
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let next = self.try_next().await;
        next.map_err(|error| innermost(&error).to_string())
    }
}
