//! Objects whose length is not known yet: parts, several at once, each of which can be sent again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::error_response::ErrorResponse;
use super::{Mode, Operation, S3, content_type, fault, require_e_tag, unlogged};
use crate::storage::bucket::{Tail, Unsent, confirm, stopped_error};
use crate::storage::probe::{self, Way};
use crate::storage::retry::{AttemptError, RetryDecision, hashed};
use crate::storage::{Error, ErrorKind, Key, Result, Storage, Upload};

const PERMISSION: &str = "s3:PutObject on the objects of the bucket";

const BEGIN: Operation = Operation {
    name: "CreateMultipartUpload",
    permission: PERMISSION,
    change: false,
};

const PART: Operation = Operation {
    name: "UploadPart",
    permission: PERMISSION,
    change: false,
};

const COMPLETE: Operation = Operation {
    name: "CompleteMultipartUpload",
    permission: PERMISSION,
    change: true,
};

const ABORT: Operation = Operation {
    name: "AbortMultipartUpload",
    permission: "s3:AbortMultipartUpload on the objects of the bucket",
    change: false,
};

/// Parts of one upload that are under way. With the one that is being filled, this is its memory.
const AT_ONCE: usize = 4;

/// The most parts that S3 takes.
const MAX_PARTS: i32 = 10_000;

/// A completion waits for its answer as long as an upload of 128 KiB for each part, but no longer
/// than one of this: two minutes more than any other call, with the default policy.
const MAX_COMPLETION: usize = 8 << 20;

/// An object that is being uploaded. It is one PutObject unless it grows over one part.
#[derive(Debug)]
pub(super) struct S3Upload {
    s3: S3,
    key: Key,
    mode: Mode,
    unsent: Unsent,
    tail: Tail,
    parts: Option<Parts>,
    /// Set while a call is under way, and after one that failed: what was written is not whole any
    /// more.
    failed: bool,
    runtime: Handle,
}

/// A multipart upload that S3 knows of.
struct Parts {
    id: String,
    /// Encryption that S3 said it uses.
    encryption: Option<ServerSideEncryption>,
    /// The number of the next part.
    next: i32,
    sending: JoinSet<Result<CompletedPart>>,
    sent: Vec<CompletedPart>,
}

impl S3Upload {
    /// Nothing is sent yet. Must be called in a runtime.
    pub(super) fn new(s3: &S3, key: &Key, mode: Mode) -> Self {
        Self {
            s3: s3.clone(),
            key: key.clone(),
            mode,
            unsent: Unsent::default(),
            tail: Tail::default(),
            parts: None,
            failed: false,
            runtime: Handle::current(),
        }
    }

    /// Begins an upload of one part, and sends it.
    pub(super) async fn in_parts(s3: &S3, key: &Key, body: Bytes) -> Result<Self> {
        let mut upload = Self::new(s3, key, Mode::Create);
        upload.tail.push(&body);
        // From here on, it is aborted where it is dropped.
        let parts = upload.parts.insert(Parts::begin(s3, key).await?);
        let part = send_part(s3, &s3.full(key), &parts.id, parts.next, body).await?;
        parts.next += 1;
        parts.sent.push(part);
        Ok(upload)
    }

    /// Sends the next `len` bytes as a part, beside the others. Waits only for a place among them.
    async fn send(&mut self, len: usize) -> Result<()> {
        let body = self.unsent.take(len);
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                if self.mode == Mode::Create {
                    ensure_exclusive(&self.s3).await?;
                }
                none.insert(Parts::begin(&self.s3, &self.key).await?)
            }
        };
        while parts.sending.len() >= AT_ONCE {
            parts.join().await?;
        }
        if parts.next > MAX_PARTS {
            let what = "the object is larger than max_object allows for";
            let hint = "raise StorageConfig::max_object";
            return Err(Error::new(ErrorKind::Config, what).with_hint(hint));
        }
        let s3 = self.s3.clone();
        let full = self.s3.full(&self.key);
        let id = parts.id.clone();
        let number = parts.next;
        parts.next += 1;
        parts
            .sending
            .spawn(async move { send_part(&s3, &full, &id, number, body).await });
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let body = self.unsent.take_all();
            return self.s3.put(&self.key, body, self.mode).await;
        }
        // The last part of an upload is never empty.
        if self.unsent.len() > 0 {
            self.send(self.unsent.len()).await?;
        }
        match &mut self.parts {
            Some(parts) => {
                parts
                    .complete(&self.s3, &self.key, self.mode, &self.tail)
                    .await
            }
            None => Ok(()),
        }
    }

    /// Writes and completions leave nothing behind where they fail.
    async fn or_abort(&mut self, done: Result<()>) -> Result<()> {
        if done.is_err()
            && let Some(aborting) = self.abort()
        {
            // Whether it succeeded is logged, and changes nothing.
            let _ = aborting.await;
        }
        done
    }

    /// Aborts what S3 knows of, in a background task.
    fn abort(&mut self) -> Option<JoinHandle<()>> {
        let parts = self.parts.take()?;
        let s3 = self.s3.clone();
        let full = self.s3.full(&self.key);
        let background = self.s3.shared.background.clone();
        Some(background.spawn(&self.runtime, async move { parts.abort(&s3, &full).await }))
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if std::mem::replace(&mut self.failed, true) {
            let what = "an upload cannot continue after an error";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        self.tail.push(&piece);
        self.unsent.push(piece);
        let part = self.s3.settings().part;
        // The last part is sent by `finish`, and is not empty.
        while self.unsent.len() > part {
            let sent = self.send(part).await;
            self.or_abort(sent).await?;
        }
        self.failed = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        self.write(Bytes::new()).await?;
        let done = self.complete().await;
        self.or_abort(done).await?;
        self.parts = None;
        Ok(())
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Parts {
    async fn begin(s3: &S3, key: &Key) -> Result<Self> {
        let full = &s3.full(key);
        let begin = || async move {
            let (encryption, kms_key) = s3.encryption();
            let begin = s3
                .client()
                .create_multipart_upload()
                .bucket(&s3.settings().bucket)
                .key(full)
                .content_type(content_type(full))
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .set_bucket_key_enabled(kms_key.is_some().then_some(true))
                .set_server_side_encryption(encryption)
                .set_ssekms_key_id(kms_key);
            let answer = unlogged(begin.send())
                .await
                .map_err(|error| fault(&BEGIN, &error))?;
            let id = answer.upload_id.ok_or_else(|| {
                let what = "CreateMultipartUpload returned no upload ID";
                AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
            })?;
            Ok((id, answer.server_side_encryption))
        };
        let (id, encryption) = s3.call(&BEGIN, full, 0, begin).await?;
        Ok(Self {
            id,
            encryption,
            next: 1,
            sending: JoinSet::new(),
            sent: Vec::new(),
        })
    }

    /// Waits for one of the parts that are under way.
    async fn join(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            Some(Ok(part)) => self.sent.push(part?),
            Some(Err(stopped)) => return Err(stopped_error(stopped)),
            None => {}
        }
        Ok(())
    }

    async fn complete(&mut self, s3: &S3, key: &Key, mode: Mode, tail: &Tail) -> Result<()> {
        while !self.sending.is_empty() {
            self.join().await?;
        }
        self.sent.sort_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.sent.clone()));
        let full = &s3.full(key);
        let parts = &parts.build();
        let complete = || async {
            let complete = s3
                .client()
                .complete_multipart_upload()
                .bucket(&s3.settings().bucket)
                .key(full)
                .upload_id(&self.id)
                .set_if_none_match(mode.condition())
                .multipart_upload(parts.clone());
            match unlogged(complete.send()).await {
                Ok(answer) => {
                    require_e_tag(&COMPLETE, answer.e_tag.as_deref())?;
                    Ok(answer.server_side_encryption)
                }
                Err(error) => Err(match ErrorResponse::of(&error) {
                    // The upload is gone: completed by an attempt whose answer was lost, or aborted
                    // by another process, or by S3 after a conflict. Only looking tells.
                    Some(gone)
                        if matches!(gone.status, 404 | 410) && gone.code != "NoSuchBucket" =>
                    {
                        AttemptError {
                            next: RetryDecision::Stop,
                            unclear: true,
                            ..gone.fault(&COMPLETE)
                        }
                    }
                    // Another change of the same key is under way, and may be an attempt of ours.
                    Some(conflict) if conflict.status == 409 => AttemptError {
                        unclear: true,
                        ..conflict.fault(&COMPLETE)
                    },
                    _ => fault(&COMPLETE, &error),
                }),
            }
        };
        // S3 may take its time to put many parts together.
        let size = (self.sent.len() << 17).min(MAX_COMPLETION);
        let (encryption, unclear) = s3.call_change(&COMPLETE, full, size, complete).await?;
        if unclear && mode == Mode::Create {
            confirm(s3, key, tail).await?;
        }
        let encryption = encryption.or_else(|| self.encryption.clone());
        s3.check_encryption(full, encryption).await;
        Ok(())
    }

    /// Tells S3 to forget the parts. What cannot be aborted is found by `persist gc`, or by the
    /// bucket's lifecycle rule.
    async fn abort(mut self, s3: &S3, full: &str) {
        // A part that arrives after the abort would stay.
        self.sending.shutdown().await;
        let Err(error) = abort(s3, full, &self.id).await else {
            return;
        };
        tracing::debug!(key = full, %error, "an upload could not be aborted");
        if !s3.shared.litter.swap(true, Ordering::Relaxed) {
            let kind = error.kind();
            let object = hashed(full);
            tracing::warn!(
                ?kind,
                object,
                "an upload could not be aborted; its parts use space until `persist gc` removes \
                 them"
            );
        }
    }
}

/// Verifies, before the first upload that must not replace anything, that a server that is not
/// Amazon's acknowledges one of several uploads that race.
async fn ensure_exclusive(s3: &S3) -> Result<()> {
    let Some(server) = s3.unknown_server() else {
        return Ok(());
    };
    let storage: Arc<dyn Storage> = Arc::new(s3.clone());
    let probed = s3
        .shared
        .uploads_probed
        .get_or_try_init(|| async { probe::ensure_exclusive(&storage, &server, Way::Parts).await });
    probed.await.copied()
}

/// Tells S3 to forget an upload and its parts.
pub(super) async fn abort(s3: &S3, full: &str, id: &str) -> Result<()> {
    let abort = || async move {
        let abort = s3
            .client()
            .abort_multipart_upload()
            .bucket(&s3.settings().bucket)
            .key(full)
            .upload_id(id);
        match unlogged(abort.send()).await {
            Ok(_) => Ok(()),
            // It was completed, or aborted, already.
            Err(error) if ErrorResponse::of(&error).is_some_and(|gone| gone.status == 404) => {
                Ok(())
            }
            Err(error) => Err(fault(&ABORT, &error)),
        }
    };
    s3.call(&ABORT, full, 0, abort).await
}

async fn send_part(
    s3: &S3,
    full: &str,
    id: &str,
    number: i32,
    body: Bytes,
) -> Result<CompletedPart> {
    let body = &body;
    let send = || async move {
        let send = s3
            .client()
            .upload_part()
            .bucket(&s3.settings().bucket)
            .key(full)
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(body.clone()));
        let answer = unlogged(send.send())
            .await
            .map_err(|error| fault(&PART, &error))?;
        require_e_tag(&PART, answer.e_tag.as_deref())?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32)
            .build())
    };
    s3.call(&PART, full, body.len(), send).await
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts {{ next: {} }}", self.next)
    }
}
