//! Objects whose length is not known yet: parts, each of which can be sent again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::driver::{Completion, Driver, Mode, Progress, Request, UploadPart};
use super::shared::Bucket;
use super::tail::Tail;
use super::unsent::Unsent;
use crate::storage::probe::{self, Way};
use crate::storage::{Error, ErrorKind, Key, Result, Storage, Upload, task};
use crate::telemetry::hashed;

/// A completion waits for its answer as long as an upload of 128 KiB for each part, but no longer
/// than one of this: two minutes more than any other call, with the default policy. A server may
/// take its time to put many parts together.
const MAX_COMPLETION: usize = 8 << 20;

/// An object that is being uploaded. It is one request unless it grows over one part.
#[derive(Debug)]
pub(super) struct BucketUpload<D: Driver> {
    bucket: Bucket<D>,
    key: Key,
    mode: Mode,
    unsent: Unsent,
    tail: Tail,
    parts: Option<Parts<D>>,
    /// Set while a call is under way, and after one that failed: what was written is not whole any
    /// more.
    failed: bool,
    runtime: Handle,
}

/// An upload in parts that the server knows of.
struct Parts<D: Driver> {
    upload: D::Upload,
    /// Parts that were handed over to be sent, their bytes, and the CRC-32C of these.
    number: u32,
    offset: u64,
    crc32c: u32,
    sending: JoinSet<Result<(u32, D::Receipt)>>,
    sent: Vec<(u32, D::Receipt)>,
}

impl<D: Driver> BucketUpload<D> {
    /// Nothing is sent yet. Must be called in a runtime.
    pub(super) fn new(bucket: &Bucket<D>, key: &Key, mode: Mode) -> Self {
        Self {
            bucket: bucket.clone(),
            key: key.clone(),
            mode,
            unsent: Unsent::default(),
            tail: Tail::default(),
            parts: None,
            failed: false,
            runtime: Handle::current(),
        }
    }

    /// Begins an upload of one part, and sends all of it that is not sent with the completion.
    pub(super) async fn in_parts(bucket: &Bucket<D>, key: &Key, body: Bytes) -> Result<Self> {
        let mut upload = Self::new(bucket, key, Mode::Create);
        upload.tail.push(&body);
        upload.unsent.push(body);
        // From here on, it is aborted where it is dropped.
        upload.begin().await?;
        if !D::UPLOADS.completed_by_last_part
            && let Some(parts) = &mut upload.parts
        {
            parts.send(bucket, key, upload.unsent.take_all()).await?;
            parts.join_all().await?;
        }
        Ok(upload)
    }

    /// Begins an upload that is never completed, to see whether it is listed.
    pub(super) async fn probe(bucket: &Bucket<D>) -> Result<Self> {
        let mut upload = Self::new(bucket, &probe::unfinished()?, Mode::Create);
        upload.begin().await?;
        Ok(upload)
    }

    /// Aborts it, and waits until that is done.
    pub(super) async fn discard(mut self) {
        if let Some(aborting) = self.abort() {
            // Whether it succeeded is logged, and changes nothing.
            let _ = aborting.await;
        }
    }

    /// Begins an upload in parts, if there is none.
    async fn begin(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let full = &self.bucket.full(&self.key);
            let begin = || self.bucket.driver().begin(full, self.mode);
            let upload = self.bucket.call(Request::Begin, full, 0, begin).await?;
            self.parts = Some(Parts {
                upload,
                number: 0,
                offset: 0,
                crc32c: 0,
                sending: JoinSet::new(),
                sent: Vec::new(),
            });
        }
        Ok(())
    }

    /// Sends the next `len` bytes as a part, beside the others. Waits only for a place among them.
    async fn send(&mut self, len: usize) -> Result<()> {
        let body = self.unsent.take(len);
        if self.parts.is_none() && self.mode == Mode::Create {
            ensure_exclusive(&self.bucket).await?;
        }
        self.begin().await?;
        match &mut self.parts {
            Some(parts) => parts.send(&self.bucket, &self.key, body).await,
            None => Ok(()),
        }
    }

    async fn complete(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let body = self.unsent.take_all();
            return self.bucket.put(&self.key, body, self.mode).await;
        }
        // The last part of an upload is never empty.
        if !D::UPLOADS.completed_by_last_part && self.unsent.len() > 0 {
            self.send(self.unsent.len()).await?;
        }
        let last = self.unsent.take_all();
        match &mut self.parts {
            Some(parts) => {
                let (bucket, key) = (&self.bucket, &self.key);
                parts
                    .complete(bucket, key, self.mode, last, &self.tail)
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

    /// Aborts what the server knows of, in a background task.
    fn abort(&mut self) -> Option<JoinHandle<()>> {
        let mut parts = self.parts.take()?;
        let bucket = self.bucket.clone();
        let full = self.bucket.full(&self.key);
        let abort = async move {
            // A part that arrives after the abort would stay.
            parts.sending.shutdown().await;
            if let Err(error) = bucket.abort_upload(&full, &parts.upload).await {
                not_aborted(&bucket, &full, &error);
            }
        };
        Some(self.bucket.spawn(&self.runtime, abort))
    }
}

#[async_trait]
impl<D: Driver> Upload for BucketUpload<D> {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if std::mem::replace(&mut self.failed, true) {
            let what = "an upload cannot continue after an error";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        self.tail.push(&piece);
        self.unsent.push(piece);
        let part = self.bucket.settings().part;
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

impl<D: Driver> Drop for BucketUpload<D> {
    fn drop(&mut self) {
        self.abort();
    }
}

impl<D: Driver> Parts<D> {
    /// Takes the next part.
    fn next(&mut self, body: Bytes) -> UploadPart {
        let part = UploadPart {
            number: self.number + 1,
            offset: self.offset,
            body,
        };
        self.number = part.number;
        self.offset += part.body.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &part.body);
        part
    }

    /// Sends a part in a task of its own, once there is a place for it.
    async fn send(&mut self, bucket: &Bucket<D>, key: &Key, body: Bytes) -> Result<()> {
        while self.sending.len() >= D::UPLOADS.at_once {
            self.join().await?;
        }
        if self.number >= D::UPLOADS.max_parts {
            let what = "the object is larger than max_object allows for";
            let hint = "raise StorageConfig::max_object";
            return Err(Error::new(ErrorKind::Config, what).with_hint(hint));
        }
        let part = self.next(body);
        let bucket = bucket.clone();
        let full = bucket.full(key);
        let upload = self.upload.clone();
        self.sending.spawn(async move {
            let number = part.number;
            let receipt = send_part(&bucket, &full, &upload, part).await?;
            Ok((number, receipt))
        });
        Ok(())
    }

    /// Waits for one of the parts that are under way.
    async fn join(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            Some(Ok(part)) => self.sent.push(part?),
            Some(Err(stopped)) => {
                return Err(task::stopped(stopped, ErrorKind::Unavailable, "a request"));
            }
            None => {}
        }
        Ok(())
    }

    async fn join_all(&mut self) -> Result<()> {
        while !self.sending.is_empty() {
            self.join().await?;
        }
        Ok(())
    }

    async fn complete(
        &mut self,
        bucket: &Bucket<D>,
        key: &Key,
        mode: Mode,
        last: Bytes,
        tail: &Tail,
    ) -> Result<()> {
        self.join_all().await?;
        self.sent.sort_by_key(|(number, _)| *number);
        let receipts = std::mem::take(&mut self.sent);
        let last = (!last.is_empty()).then(|| self.next(last));
        let mut completion = Completion {
            receipts: receipts.into_iter().map(|(_, receipt)| receipt).collect(),
            last,
            size: self.offset,
            crc32c: self.crc32c,
        };
        let full = &bucket.full(key);
        let mut unclear = false;
        let stored = loop {
            let many = (completion.receipts.len() << 17).min(MAX_COMPLETION);
            let len = completion.last.as_ref().map_or(0, |last| last.body.len());
            let complete = || {
                let driver = bucket.driver();
                driver.complete(full, &self.upload, &completion, mode)
            };
            let (progress, was_unclear) = bucket
                .call_change(Request::Complete, full, many.max(len), complete)
                .await?;
            unclear |= was_unclear;
            match (progress, &mut completion.last) {
                (Progress::Whole(stored), _) => break stored,
                (Progress::Taken(taken), Some(last)) => {
                    rest_of(last, taken, bucket.name(Request::Complete))?;
                }
                (Progress::Taken(_), None) => {
                    return Err(odd_length(bucket.name(Request::Complete)));
                }
            }
        };
        bucket
            .stored(key, stored, unclear && mode == Mode::Create, tail)
            .await
    }
}

/// Sends a part, in as many requests as the server wants.
async fn send_part<D: Driver>(
    bucket: &Bucket<D>,
    full: &str,
    upload: &D::Upload,
    mut part: UploadPart,
) -> Result<D::Receipt> {
    loop {
        let send = || bucket.driver().part(full, upload, &part);
        let sent = bucket
            .call(Request::Part, full, part.body.len(), send)
            .await?;
        match sent {
            Progress::Whole(receipt) => return Ok(receipt),
            Progress::Taken(taken) => rest_of(&mut part, taken, bucket.name(Request::Part))?,
        }
    }
}

/// Cuts off the bytes that the server took.
fn rest_of(part: &mut UploadPart, taken: u64, request: &str) -> Result<()> {
    match usize::try_from(taken) {
        Ok(len @ 1..) if len < part.body.len() => {
            part.body = part.body.slice(len..);
            part.offset += taken;
            Ok(())
        }
        _ => Err(odd_length(request)),
    }
}

fn odd_length(request: &str) -> Error {
    let what = format!("{request}: the server has a different length than was sent");
    Error::new(ErrorKind::Unavailable, what)
}

/// Verifies, before the first upload that must not replace anything, that a server that is not the
/// provider's own acknowledges one of several uploads that race.
async fn ensure_exclusive<D: Driver>(bucket: &Bucket<D>) -> Result<()> {
    let Some(server) = bucket.unknown_server() else {
        return Ok(());
    };
    let storage: Arc<dyn Storage> = Arc::new(bucket.clone());
    let probed = bucket
        .shared
        .uploads_probed
        .get_or_try_init(|| async { probe::ensure_exclusive(&storage, &server, Way::Parts).await });
    probed.await.copied()
}

/// The parts of an upload that cannot be aborted are found by `persist gc`, or by a lifecycle rule
/// of the bucket.
fn not_aborted<D: Driver>(bucket: &Bucket<D>, full: &str, error: &Error) {
    tracing::debug!(key = full, %error, "an upload could not be aborted");
    if !bucket.shared.litter.swap(true, Ordering::Relaxed) {
        let kind = error.kind();
        let object = hashed(full);
        tracing::warn!(
            ?kind,
            object,
            "an upload could not be aborted; its parts use space until `persist gc` removes them"
        );
    }
}

impl<D: Driver> fmt::Debug for Parts<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        write!(f, "Parts {{ number: {number} }}")
    }
}
