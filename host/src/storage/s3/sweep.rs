//! Uploads that were begun, and neither completed nor aborted: their parts are invisible, and they
//! are paid for.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::types::{EncodingType, MultipartUpload};

use super::list::decode;
use super::response_meta::{ResponseInterceptor, ResponseMeta};
use super::{Operation, S3, fault, unlogged, upload};
use crate::storage::{Error, ErrorKind, Key, Result, Sweep, Swept};

/// Its permission is not among those that saves and loads need.
const LIST_UPLOADS: Operation = Operation {
    name: "ListMultipartUploads",
    permission: "s3:ListBucketMultipartUploads on the bucket, which nothing but this needs",
    change: false,
};

/// After which upload a page begins.
#[derive(Debug, Default)]
struct Marker {
    key: Option<String>,
    id: Option<String>,
}

/// Aborts the uploads below the prefix that `sweep` asks for.
///
/// The prefix is not sent: MinIO takes it for the name of one object, and lists nothing. A bucket
/// that others fill with unfinished uploads costs their pages.
pub(super) async fn sweep(s3: &S3, sweep: &Sweep<'_>) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut marker = Marker::default();
    loop {
        let (page, meta) = match ask(s3, &marker).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                swept.unlisted = Some(error.to_string());
                return Ok(swept);
            }
            page => page?,
        };
        let now = meta.now.ok_or_else(|| {
            let what = "this server does not report its time, so the age of an upload is unknown";
            Error::new(ErrorKind::Unsupported, what)
        })?;
        for listed in page.uploads() {
            let old = age(listed, now).is_some_and(|age| age >= sweep.older_than);
            let ours = upload_of(listed, &s3.settings().prefix);
            let Some((key, id)) = ours.filter(|(key, _)| old && (sweep.is_ours)(key)) else {
                continue;
            };
            if !sweep.dry_run {
                upload::abort(s3, &s3.full(&key), id).await?;
            }
            swept.removed += 1;
            swept.keys.push(key.to_string());
        }
        if page.is_truncated() != Some(true) {
            return Ok(swept);
        }
        marker = Marker {
            key: page.next_key_marker().and_then(decode),
            id: page.next_upload_id_marker().map(str::to_owned),
        };
        if marker.key.is_none() {
            let what = "the server returned a truncated list without a continuation token";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
    }
}

/// One request.
async fn ask(s3: &S3, after: &Marker) -> Result<(ListMultipartUploadsOutput, ResponseMeta)> {
    let ask = || async {
        let interceptor = ResponseInterceptor::default();
        let ask = s3
            .client()
            .list_multipart_uploads()
            .bucket(&s3.settings().bucket)
            .encoding_type(EncodingType::Url)
            .set_key_marker(after.key.clone())
            .set_upload_id_marker(after.id.clone());
        let ask = ask.customize().interceptor(interceptor.clone());
        match unlogged(ask.send()).await {
            Ok(answer) => Ok((answer, interceptor.meta(&LIST_UPLOADS)?)),
            Err(error) => Err(fault(&LIST_UPLOADS, &error)),
        }
    };
    s3.call(&LIST_UPLOADS, "", 0, ask).await
}

/// How long ago it was begun, by the server's clock. What is from the future is new.
fn age(listed: &MultipartUpload, now: SystemTime) -> Option<Duration> {
    let began = SystemTime::try_from(*listed.initiated()?).ok()?;
    Some(now.duration_since(began).unwrap_or_default())
}

/// Returns the key below the prefix and the id of an upload; none for one of another prefix.
fn upload_of<'a>(listed: &'a MultipartUpload, prefix: &str) -> Option<(Key, &'a str)> {
    let full = decode(listed.key()?)?;
    let key = Key::new(full.strip_prefix(prefix)?).ok()?;
    Some((key, listed.upload_id()?))
}
