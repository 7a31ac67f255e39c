//! Requests that list: objects, and uploads in parts.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::{EncodingType, MultipartUpload, Object as Listed};
use percent_encoding::percent_decode_str;

use super::error_response::fault;
use super::object::S3Upload;
use super::response_meta::ResponseInterceptor;
use super::{Request, S3Driver, unlogged};
use crate::storage::ObjectMeta;
use crate::storage::bucket::{
    After, Attempt, Driver as _, ListRequest, ListResponse, ListedObject, ListedUpload, UploadList,
    UploadMarker,
};

/// Sorts after everything that can follow the `/` of a directory.
const LAST: char = char::MAX;

impl S3Driver {
    pub(super) async fn list_objects(&self, list: &ListRequest) -> Attempt<ListResponse> {
        let interceptor = ResponseInterceptor::default();
        let ask = self
            .client
            .list_objects_v2()
            .bucket(self.bucket())
            .prefix(&list.prefix)
            .set_delimiter(list.directories.then(|| "/".into()))
            // Keys of others may hold what XML cannot.
            .encoding_type(EncodingType::Url)
            .max_keys(i32::try_from(list.limit).unwrap_or(i32::MAX))
            .set_start_after(start_after(list))
            .set_continuation_token(list.token.clone());
        let ask = ask.customize().interceptor(interceptor.clone());
        let answer = unlogged(ask.send())
            .await
            .map_err(|error| fault(Request::List, &error))?;
        let now = interceptor.meta(self.name(Request::List))?.now;
        let objects = answer.contents().iter().filter_map(|listed| {
            Some(ListedObject {
                key: decode(listed.key()?)?,
                meta: now.and_then(|now| object_meta(listed, now)),
            })
        });
        let directories = answer.common_prefixes().iter();
        Ok(ListResponse {
            objects: objects.collect(),
            directories: directories
                .filter_map(|dir| decode(dir.prefix()?))
                .collect(),
            more: answer.is_truncated() == Some(true),
            token: answer.next_continuation_token,
            now,
        })
    }

    /// The prefix is not sent: MinIO takes it for the name of one object, and lists nothing. A
    /// bucket that others fill with unfinished uploads costs their pages.
    pub(super) async fn list_multipart_uploads(
        &self,
        after: &UploadMarker,
    ) -> Attempt<UploadList<S3Upload>> {
        let interceptor = ResponseInterceptor::default();
        let ask = self
            .client
            .list_multipart_uploads()
            .bucket(self.bucket())
            .encoding_type(EncodingType::Url)
            .set_key_marker(after.key.clone())
            .set_upload_id_marker(after.id.clone());
        let ask = ask.customize().interceptor(interceptor.clone());
        let answer = unlogged(ask.send())
            .await
            .map_err(|error| fault(Request::ListUploads, &error))?;
        let meta = interceptor.meta(self.name(Request::ListUploads))?;
        let next = (answer.is_truncated() == Some(true)).then(|| UploadMarker {
            key: answer.next_key_marker().and_then(decode),
            id: answer.next_upload_id_marker().map(str::to_owned),
        });
        Ok(UploadList {
            uploads: answer.uploads().iter().filter_map(upload_of).collect(),
            next,
            now: meta.now,
        })
    }
}

/// The value of `start-after`. Every key with the prefix sorts after an entry that sorts before the
/// prefix. Some servers (SeaweedFS 4.44 to 4.47) answer an empty list to such a `start-after`.
fn start_after(list: &ListRequest) -> Option<String> {
    let after = match list.after.as_ref()? {
        After::Key(key) => key.clone(),
        After::Directory(dir) => format!("{dir}/{LAST}"),
    };
    (list.token.is_none() && after >= list.prefix).then_some(after)
}

fn upload_of(listed: &MultipartUpload) -> Option<ListedUpload<S3Upload>> {
    let began = listed.initiated();
    Some(ListedUpload {
        key: decode(listed.key()?)?,
        upload: S3Upload {
            id: listed.upload_id()?.into(),
            encryption: None,
        },
        began: began.and_then(|began| SystemTime::try_from(*began).ok()),
    })
}

/// S3 cuts times to seconds: an object may be younger than it looks by one. (It dates what came in
/// parts by when its upload began, as [`ObjectMeta::created`] says.)
fn object_meta(listed: &Listed, now: SystemTime) -> Option<ObjectMeta> {
    let modified = SystemTime::try_from(*listed.last_modified()?).ok()?;
    Some(ObjectMeta {
        size: u64::try_from(listed.size()?).ok()?,
        created: modified
            .checked_add(Duration::from_secs(1))?
            .min(now.max(modified)),
    })
}

/// A key as it was before the server made it fit for XML.
fn decode(key: &str) -> Option<String> {
    let key = key.replace('+', " ");
    let key = percent_decode_str(&key).decode_utf8().ok()?;
    Some(key.into_owned())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::primitives::DateTime;

    use super::*;

    #[test]
    fn keys_are_read_as_they_were_before_they_became_xml() {
        assert_eq!(decode("p/a+b%2Bc%C3%A9%7E").as_deref(), Some("p/a b+cé~"));
        assert_eq!(decode("p/%ff"), None);
    }

    #[test]
    fn start_after_is_sent_only_within_the_prefix() {
        for (after, sent) in [
            (After::Key("p/apple".into()), None),
            (After::Key("p/note".into()), Some("p/note")),
            (After::Key("p/note-1".into()), Some("p/note-1")),
            (After::Directory("p/note".into()), Some("p/note/\u{10ffff}")),
            (After::Directory("p/a".into()), None),
        ] {
            let mut list = ListRequest {
                prefix: "p/note".into(),
                directories: true,
                after: Some(after),
                limit: 10,
                token: None,
            };
            assert_eq!(start_after(&list).as_deref(), sent);
            list.token = Some("token".into());
            assert_eq!(start_after(&list), None);
        }
    }

    #[test]
    fn times_cut_to_seconds_make_no_object_look_older() {
        let listed = Listed::builder()
            .key("a")
            .size(10)
            .last_modified(DateTime::from_secs(1000))
            .build();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let created = |now| object_meta(&listed, now).expect("meta").created;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(created(now), modified + Duration::from_secs(1));
        assert_eq!(created(modified), modified, "and not of the future");
    }
}
