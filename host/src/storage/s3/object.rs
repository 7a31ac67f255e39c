//! Requests about one object: to create, read and delete it, and to upload it in parts.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
use bytes::Bytes;

use super::error_response::{fault, response};
use super::response_meta::ResponseInterceptor;
use super::{Request, S3Driver, innermost, unlogged};
use crate::storage::S3Encryption;
use crate::storage::bucket::{
    Attempt, AttemptError, Body, Driver as _, GetResponse, Mode, ObjectInfo, ObjectRange,
    RetryDecision, Stored, UploadPart, content_type, foreign_response,
};

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

impl S3Driver {
    pub(super) async fn put_object(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
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

    pub(super) async fn create_multipart_upload(&self, key: &str) -> Attempt<S3Upload> {
        let (encryption, kms_key) = self.encryption();
        let begin = self
            .client
            .create_multipart_upload()
            .bucket(self.bucket())
            .key(key)
            .content_type(content_type(key))
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
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

    pub(super) async fn upload_part(
        &self,
        key: &str,
        upload: &S3Upload,
        part: &UploadPart,
    ) -> Attempt<CompletedPart> {
        let number = i32::try_from(part.number).unwrap_or(i32::MAX);
        let send = self
            .client
            .upload_part()
            .bucket(self.bucket())
            .key(key)
            .upload_id(&upload.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(part.body.clone()));
        let answer = unlogged(send.send())
            .await
            .map_err(|error| fault(Request::Part, &error))?;
        self.require_e_tag(Request::Part, answer.e_tag.as_deref())?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build())
    }

    pub(super) async fn complete_upload(
        &self,
        key: &str,
        upload: &S3Upload,
        parts: &[CompletedPart],
        mode: Mode,
    ) -> Attempt<Stored> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec()));
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
                Ok(self.stored(confirmed.or_else(|| upload.encryption.clone())))
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

    pub(super) async fn abort_upload(&self, key: &str, upload: &S3Upload) -> Attempt<()> {
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

    pub(super) async fn get_object(
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

    fn info(&self, answer: &GetObjectOutput, range: &ObjectRange) -> Attempt<ObjectInfo> {
        let len = answer.content_length();
        let len = len.and_then(|len| u64::try_from(len).ok());
        let tag = answer.e_tag().map(str::to_owned);
        let name = self.name(Request::Get);
        ObjectInfo::from_headers(name, range, answer.content_range(), len, tag)
    }

    pub(super) async fn is_encrypted_as_requested(&self, key: &str) -> Attempt<bool> {
        let get = self
            .client
            .get_object()
            .bucket(self.bucket())
            .key(key)
            .range("bytes=-1");
        let answer = unlogged(get.send())
            .await
            .map_err(|error| fault(Request::Get, &error))?;
        Ok(self.encryption().0 == answer.server_side_encryption)
    }

    pub(super) async fn delete_object(&self, key: &str) -> Attempt<()> {
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
        Stored::with_encryption(asked.is_none() || asked == confirmed)
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

fn error_code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error()?.code()
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let next = self.try_next().await;
        next.map_err(|error| innermost(&error).to_string())
    }
}
