//! The requests of S3.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId as _;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, EncodingType, MultipartUpload,
    Object as Listed, ServerSideEncryption,
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::error_response::{fault, response};
use super::response_meta::ResponseInterceptor;
use super::{S3Driver, innermost, name, unlogged};
use crate::storage::bucket::{
    self, After, Attempt, AttemptError, Body, Completion, Directories, Driver, GetResponse,
    ListRequest, ListResponse, ListedObject, ListedUpload, Mode, ObjectInfo, ObjectRange, Progress,
    Request, RetryDecision, Stored, UploadList, UploadMarker, UploadPart, Uploads, content_type,
    foreign_response, refuse_page,
};
use crate::storage::{Error, ErrorKind, ObjectMeta, S3Checksums, S3Encryption, StorageIdentity};

/// Sorts after everything that can follow the `/` of a directory.
const LAST: char = char::MAX;

/// A multipart upload.
#[derive(Clone, Debug)]
pub struct S3Upload {
    pub(super) id: String,
    /// Encryption that S3 said it uses.
    pub(super) encryption: Option<ServerSideEncryption>,
}

/// The value of `If-None-Match`.
fn condition(mode: Mode) -> Option<String> {
    (mode == Mode::Create).then(|| "*".into())
}

impl Driver for S3Driver {
    type Upload = S3Upload;
    type Receipt = CompletedPart;
    type Body = ByteStream;

    const UPLOADS: Uploads = Uploads {
        at_once: 4,
        max_parts: 10_000,
        completed_by_last_part: false,
    };

    const DIRECTORIES: Directories = Directories::InOrderOrByName;

    fn settings(&self) -> &bucket::Settings {
        &self.settings.common
    }

    fn name(&self, request: Request) -> &'static str {
        name(request)
    }

    fn identity(&self) -> StorageIdentity {
        let common = &self.settings.common;
        let endpoint = common.endpoint.as_deref();
        let region = &self.settings.region;
        StorageIdentity::bucket(endpoint, region, &common.bucket, &common.prefix)
    }

    async fn ready(&self) -> Attempt<()> {
        self.credentials.ready().await
    }

    async fn renew(&self) -> bool {
        self.credentials.renew().await
    }

    async fn put(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
        let (encryption, kms_key) = self.encryption();
        let put = self
            .client
            .put_object()
            .bucket(self.bucket())
            .key(key)
            .set_if_none_match(condition(mode))
            .content_type(content_type(key))
            .set_bucket_key_enabled(kms_key.is_some().then_some(true))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .body(ByteStream::from(body));
        let answer = unlogged(put.send())
            .await
            .map_err(|error| fault(Request::Put, &error))?;
        self.require_e_tag(Request::Put, answer.e_tag.as_deref())?;
        Ok(self.stored(answer.server_side_encryption))
    }

    async fn begin(&self, key: &str, _: Mode) -> Attempt<S3Upload> {
        let (encryption, kms_key) = self.encryption();
        let begin = self
            .client
            .create_multipart_upload()
            .bucket(self.bucket())
            .key(key)
            .content_type(content_type(key))
            .set_checksum_algorithm(self.checksum())
            .set_bucket_key_enabled(kms_key.is_some().then_some(true))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key);
        let answer = unlogged(begin.send())
            .await
            .map_err(|error| fault(Request::Begin, &error))?;
        let name = self.name(Request::Begin);
        let no_id = || foreign_response(name, "has no upload ID");
        Ok(S3Upload {
            id: answer.upload_id.ok_or_else(no_id)?,
            encryption: answer.server_side_encryption,
        })
    }

    async fn part(
        &self,
        key: &str,
        upload: &S3Upload,
        part: &UploadPart,
    ) -> Attempt<Progress<CompletedPart>> {
        let number = i32::try_from(part.number).unwrap_or(i32::MAX);
        let send = self
            .client
            .upload_part()
            .bucket(self.bucket())
            .key(key)
            .upload_id(&upload.id)
            .part_number(number)
            .set_checksum_algorithm(self.checksum())
            .body(ByteStream::from(part.body.clone()));
        let answer = unlogged(send.send())
            .await
            .map_err(|error| fault(Request::Part, &error))?;
        self.require_e_tag(Request::Part, answer.e_tag.as_deref())?;
        let receipt = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build();
        Ok(Progress::Whole(receipt))
    }

    async fn complete(
        &self,
        key: &str,
        upload: &S3Upload,
        completion: &Completion<CompletedPart>,
        mode: Mode,
    ) -> Attempt<Progress<Stored>> {
        let parts =
            CompletedMultipartUpload::builder().set_parts(Some(completion.receipts.clone()));
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(key)
            .upload_id(&upload.id)
            .set_if_none_match(condition(mode))
            .multipart_upload(parts.build());
        match unlogged(complete.send()).await {
            Ok(answer) => {
                self.require_e_tag(Request::Complete, answer.e_tag.as_deref())?;
                let confirmed = answer.server_side_encryption;
                let stored = self.stored(confirmed.or_else(|| upload.encryption.clone()));
                Ok(Progress::Whole(stored))
            }
            Err(error) => {
                let refusal = response(&error);
                let fault = fault(Request::Complete, &error);
                Err(match refusal {
                    // The upload is gone: completed by an attempt whose answer was lost, or aborted
                    // by another process, or by S3 after a conflict. Only looking tells.
                    Some(gone)
                        if matches!(gone.status, 404 | 410) && gone.code != "NoSuchBucket" =>
                    {
                        AttemptError {
                            next: RetryDecision::Stop,
                            unclear: true,
                            ..fault
                        }
                    }
                    // Another change of the same key is under way, and may be an attempt of ours.
                    Some(conflict) if conflict.status == 409 => AttemptError {
                        unclear: true,
                        ..fault
                    },
                    _ => fault,
                })
            }
        }
    }

    async fn abort(&self, key: &str, upload: &S3Upload) -> Attempt<()> {
        let abort = self
            .client
            .abort_multipart_upload()
            .bucket(self.bucket())
            .key(key)
            .upload_id(&upload.id);
        match unlogged(abort.send()).await {
            Ok(_) => Ok(()),
            // It was completed, or aborted, already.
            Err(error) if response(&error).is_some_and(|gone| gone.status == 404) => Ok(()),
            Err(error) => Err(fault(Request::Abort, &error)),
        }
    }

    async fn get(
        &self,
        key: &str,
        range: &ObjectRange,
        tag: Option<&str>,
    ) -> Attempt<GetResponse<ByteStream>> {
        let get = self
            .client
            .get_object()
            .bucket(self.bucket())
            .key(key)
            .set_range(range.header())
            .set_if_match(tag.map(str::to_owned));
        let error = match unlogged(get.send()).await {
            Ok(answer) => {
                let info = self.info(&answer, range)?;
                return Ok(GetResponse::Bytes(info, answer.body));
            }
            Err(error) => error,
        };
        response(&error)
            .and_then(|refusal| GetResponse::refused(refusal.status, refusal.size, range, tag))
            .ok_or_else(|| fault(Request::Get, &error))
    }

    async fn list(&self, list: &ListRequest) -> Attempt<ListResponse> {
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

    async fn delete(&self, key: &str) -> Attempt<()> {
        let interceptor = ResponseInterceptor::default();
        let delete = self.client.delete_object().bucket(self.bucket()).key(key);
        let delete = delete.customize().interceptor(interceptor.clone());
        match unlogged(delete.send()).await {
            Ok(_) => interceptor.require_empty(self.name(Request::Delete)),
            // S3 answers 204 where nothing is; others say so.
            Err(error) if error_code(&error) == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(fault(Request::Delete, &error)),
        }
    }

    // The prefix is not sent: MinIO takes it for the name of one object, and lists nothing. A
    // bucket that others fill with unfinished uploads costs their pages.
    async fn list_uploads(&self, after: &UploadMarker) -> Attempt<Option<UploadList<S3Upload>>> {
        let interceptor = ResponseInterceptor::default();
        let ask = self
            .client
            .list_multipart_uploads()
            .bucket(self.bucket())
            .encoding_type(EncodingType::Url)
            .set_key_marker(after.key.clone())
            .set_upload_id_marker(after.id.clone());
        let ask = ask.customize().interceptor(interceptor.clone());
        let answer = unlogged(ask.send()).await.map_err(|error| {
            if is_another_answer(&error) {
                let what = "the server answers ListMultipartUploads with something else";
                let error = Error::new(ErrorKind::Unsupported, what);
                return AttemptError::new(RetryDecision::Stop, error);
            }
            fault(Request::ListUploads, &error)
        })?;
        let meta = interceptor.meta(self.name(Request::ListUploads))?;
        let next = (answer.is_truncated() == Some(true)).then(|| UploadMarker {
            key: answer.next_key_marker().and_then(decode),
            id: answer.next_upload_id_marker().map(str::to_owned),
        });
        Ok(Some(UploadList {
            uploads: answer.uploads().iter().filter_map(upload_of).collect(),
            next,
            now: meta.now,
        }))
    }

    async fn is_encrypted(&self, key: &str) -> Attempt<Option<bool>> {
        let get = self
            .client
            .get_object()
            .bucket(self.bucket())
            .key(key)
            .range("bytes=-1");
        let answer = unlogged(get.send())
            .await
            .map_err(|error| fault(Request::Get, &error))?;
        Ok(Some(self.encryption().0 == answer.server_side_encryption))
    }
}

impl S3Driver {
    fn info(&self, answer: &GetObjectOutput, range: &ObjectRange) -> Attempt<ObjectInfo> {
        let len = answer.content_length();
        let len = len.and_then(|len| u64::try_from(len).ok());
        let tag = answer.e_tag().map(str::to_owned);
        let name = self.name(Request::Get);
        refuse_page(name, answer.content_type())?;
        if tag.is_none() && answer.request_id().is_none() {
            return Err(foreign_response(
                name,
                "has no ETag and no ID, as those of S3 have",
            ));
        }
        ObjectInfo::from_headers(name, range, answer.content_range(), len, tag)
    }

    /// Returns the checksum that an upload in parts is sent with.
    fn checksum(&self) -> Option<ChecksumAlgorithm> {
        let is_sent = self.settings.checksums == S3Checksums::WhenSupported;
        is_sent.then_some(ChecksumAlgorithm::Crc32)
    }

    /// Returns the encryption to ask for, and the key of KMS.
    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            S3Encryption::Bucket => (None, None),
            S3Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            S3Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), Some(key.clone())),
        }
    }

    fn stored(&self, confirmed: Option<ServerSideEncryption>) -> Stored {
        let (asked, _) = self.encryption();
        Stored {
            encryption_confirmed: asked.is_none() || asked == confirmed,
        }
    }

    /// Requires the ETag of what S3 says it stored. The login page of a network and an intermediary
    /// that answers for S3 have none, and nothing is stored.
    fn require_e_tag(&self, request: Request, e_tag: Option<&str>) -> Attempt<()> {
        if e_tag.is_some_and(|tag| !tag.is_empty()) {
            return Ok(());
        }
        Err(foreign_response(self.name(request), "has no ETag"))
    }
}

/// Returns true for a success that cannot be understood: some servers take a request that they do
/// not know for another one.
fn is_another_answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let is_named = error.code().is_some();
    let response = error.raw_response();
    !is_named && response.is_some_and(|response| response.status().is_success())
}

fn error_code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error()?.code()
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let next = self.try_next().await;
        next.map_err(|error| innermost(&error).to_string())
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
