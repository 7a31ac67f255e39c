//! Interceptor that captures what the SDK does not expose of a response: its `Date`, whether it has
//! a body, and whether the body of a list is complete.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

use super::{Operation, http_date};
use crate::storage::bucket;
use crate::storage::retry::{Attempt, AttemptError};
use crate::storage::{Error, ErrorKind};

/// Metadata of an answer that the SDK does not return.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseMeta {
    /// The server's time.
    pub(super) now: Option<SystemTime>,
}

/// Hears one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseInterceptor(Arc<Captured>);

#[derive(Debug, Default)]
struct Captured {
    meta: OnceLock<ResponseMeta>,
    /// Set where the body does not end as it must.
    cut: OnceLock<()>,
    /// Set where there is a body.
    body: OnceLock<()>,
}

impl ResponseInterceptor {
    /// Returns the metadata of an answer with a list in it. The SDK takes a list that breaks off in
    /// the middle for a shorter one.
    pub(super) fn meta(&self, operation: &Operation) -> Attempt<ResponseMeta> {
        if self.0.cut.get().is_some() {
            let what = format!("the response to {} is truncated", operation.name);
            return Err(AttemptError::unclear(Error::new(
                ErrorKind::Unavailable,
                what,
            )));
        }
        Ok(self.0.meta.get().copied().unwrap_or_default())
    }

    /// Requires that the answer has no body, as a deletion has none. The login page of a network
    /// has one, and nothing is deleted.
    pub(super) fn require_empty(&self, operation: &Operation) -> Attempt<()> {
        if self.0.body.get().is_none() {
            return Ok(());
        }
        let error = bucket::another_service(operation.name, "S3");
        Err(AttemptError::unclear(error))
    }
}

impl Intercept for ResponseInterceptor {
    fn name(&self) -> &'static str {
        "Ear"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // A call has one answer.
        let _ = self.0.meta.set(ResponseMeta {
            now: headers.get("date").and_then(http_date),
        });
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default();
        if !body.is_empty() {
            let _ = self.0.body.set(());
        }
        if !is_whole(body) {
            let _ = self.0.cut.set(());
        }
        Ok(())
    }
}

/// Returns true if an answer ends with the end tag of its outermost element. The name of this
/// element ends the same way for every list, whatever its prefix.
fn is_whole(body: &[u8]) -> bool {
    body.trim_ascii_end().ends_with(b"Result>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_breaks_off_is_not_whole() {
        assert!(is_whole(b"<ListBucketResult></ListBucketResult>\n"));
        assert!(is_whole(b"<s3:ListBucketResult></s3:ListBucketResult>\r\n"));
        for cut in [
            &b""[..],
            b"<ListBucketResult><IsTruncated>false</IsTruncated>",
            b"<ListBucketResult></ListBucketResul",
        ] {
            assert!(!is_whole(cut));
        }
    }
}
