//! Objects in a bucket, on a server.
//!
//! [`Bucket`] is a [`Storage`] over a [`Driver`], which says what a provider can do in one request.
//! Amazon S3 and Google Cloud Storage are two drivers. For another provider, write a driver:
//! [`conformance`](crate::conformance) says whether it keeps what a store needs.
//!
//! # What a bucket does
//! | call | requests |
//! |---|---|
//! | `create` of at most one part | [`Driver::put`] |
//! | `create` of more, `upload` | [`Driver::begin`], [`Driver::part`] for each part, [`Driver::complete`] |
//! | `read` | [`Driver::get`]; of more than 8 MiB, one for each 8 MiB, four at a time |
//! | `list` | [`Driver::list`] for each 1000 entries |
//! | `delete` | [`Driver::delete`] |
//! | `sweep` | [`Driver::list_uploads`] for each page of uploads, [`Driver::abort`] for each that is removed |
//!
//! A request is sent again as [`Retry`](crate::storage::Retry) says. Where an attempt had no
//! answer, an acknowledgement of the next one is verified: the end of the object is read, and
//! compared with what was sent. A server that is not the provider's own is probed before a store is
//! trusted to it (see [`probe`](crate::storage::probe)).

mod driver;
mod error_response;
mod list;
mod read;
mod settings;
mod sweep;
mod tail;
mod unsent;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

pub use super::retry::{Attempt, AttemptError, RetryDecision};
use super::retry::{Call, Counts, Retrier, RetryLoop};
use super::{
    Error, ErrorKind, Key, List, Page, Part, ReadRange, RecursiveList, RecursivePage, Result,
    Storage, StorageIdentity, Sweep, Swept, Upload, task,
};
pub use driver::{
    After, Body, Completion, Directories, Driver, GetResponse, ListRequest, ListResponse,
    ListedObject, ListedUpload, Mode, ObjectInfo, Progress, Request, Stored, UploadList,
    UploadMarker, UploadPart, Uploads,
};
#[cfg(feature = "s3")]
pub(super) use error_response::word;
pub use error_response::{
    Classification, ErrorResponse, Failure, foreign_response, innermost, transport_error,
};
pub use read::ObjectRange;
pub use settings::Settings;
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(super) use settings::{check_endpoint, directory, not_an_endpoint, variable, wrong};
use tail::Tail;
use upload::BucketUpload;

/// The longest answer that is read as a whole, in bytes: a list of 1000 keys of 1 KiB each has a
/// tenth of it.
pub const MAX_ANSWER: usize = 16 << 20;

/// A [`Storage`] that keeps objects in a bucket. Clones share its connections.
#[derive(Debug)]
pub struct Bucket<D: Driver> {
    shared: Arc<Shared<D>>,
}

#[derive(Debug)]
struct Shared<D> {
    driver: D,
    retrier: Retrier,
    /// Set once an object was looked at whose encryption was not confirmed when it was made.
    encryption_checked: AtomicBool,
    /// Set once it was said that uploads may not be aborted.
    litter: AtomicBool,
    /// Uploads that are being aborted.
    background: TaskTracker,
    /// Set once it is known that one of several uploads in parts that race is acknowledged.
    uploads_probed: OnceCell<()>,
}

impl<D: Driver> Clone for Bucket<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<D: Driver> Bucket<D> {
    /// The bucket that `driver` reaches. Nothing is asked yet.
    pub fn with_driver(driver: D) -> Self {
        let background = TaskTracker::new();
        // So that a wait ends when nothing is under way.
        background.close();
        Self {
            shared: Arc::new(Shared {
                retrier: Retrier::new(driver.settings().retry),
                driver,
                encryption_checked: AtomicBool::new(false),
                litter: AtomicBool::new(false),
                background,
                uploads_probed: OnceCell::new(),
            }),
        }
    }

    /// Returns the counts of what was sent since this was made, by all clones.
    pub fn counts(&self) -> Counts {
        self.shared.retrier.counts()
    }

    pub(super) fn driver(&self) -> &D {
        &self.shared.driver
    }

    fn settings(&self) -> &Settings {
        self.driver().settings()
    }

    fn name(&self, request: Request) -> &'static str {
        self.driver().name(request)
    }

    /// The key in the bucket.
    fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.settings().prefix)
    }

    /// Begins a call about `key` that sends `body` bytes.
    fn begin<'a>(&'a self, request: Request, key: &'a str, body: usize) -> RetryLoop<'a> {
        self.begin_named(self.name(request), request.is_change(), key, body)
    }

    fn begin_named<'a>(
        &'a self,
        name: &'static str,
        change: bool,
        key: &'a str,
        body: usize,
    ) -> RetryLoop<'a> {
        self.shared.retrier.begin(Call {
            name,
            key,
            change,
            body,
            server: &self.settings().server,
        })
    }

    /// Makes an attempt, with credentials.
    async fn attempt<T>(
        &self,
        tries: &mut RetryLoop<'_>,
        send: impl Future<Output = Attempt<T>> + Send,
    ) -> Attempt<T> {
        self.driver().ready().await?;
        match tries.attempt(send).await {
            Err(mut fault) if fault.next == RetryDecision::RefreshCredentials => {
                fault.next = if self.driver().renew().await {
                    RetryDecision::RetryOnce
                } else {
                    RetryDecision::Stop
                };
                Err(fault)
            }
            answer => answer,
        }
    }

    /// Makes a call, as often as it takes.
    async fn call<T, F>(
        &self,
        request: Request,
        key: &str,
        body: usize,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        let (answer, _) = self.call_change(request, key, body, send).await?;
        Ok(answer)
    }

    /// Makes a call as [`Bucket::call`] does. Returns true beside the answer where an attempt
    /// before had none.
    async fn call_change<T, F>(
        &self,
        request: Request,
        key: &str,
        body: usize,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<(T, bool)>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        let tries = self.begin(request, key, body);
        self.repeat(tries, send).await
    }

    /// Makes a call of a driver's own that changes nothing, as often as it takes.
    #[cfg(feature = "gcs")]
    pub(super) async fn ask<T, F>(
        &self,
        name: &'static str,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        let tries = self.begin_named(name, false, "", 0);
        let (answer, _) = self.repeat(tries, send).await?;
        Ok(answer)
    }

    async fn repeat<T, F>(
        &self,
        mut tries: RetryLoop<'_>,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<(T, bool)>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        loop {
            match self.attempt(&mut tries, send()).await {
                Ok(answer) => return Ok((answer, tries.is_unclear())),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// Makes an object in one request.
    async fn put(&self, key: &Key, body: Bytes, mode: Mode) -> Result<()> {
        let full = &self.full(key);
        let put = || self.driver().put(full, body.clone(), mode);
        let (stored, unclear) = self
            .call_change(Request::Put, full, body.len(), put)
            .await?;
        let look = unclear && mode == Mode::Create;
        self.stored(key, stored, look, &Tail::of(&body)).await
    }

    /// Looks at an object whose creation was acknowledged only after an attempt without an answer.
    ///
    /// That attempt may have been refused, since another writer was first, and a server may
    /// acknowledge what is sent once more without looking again. The end of the object tells: that
    /// of a version holds a nonce.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where it is another writer's; [`ErrorKind::OutcomeUnknown`]
    /// where it cannot be read.
    async fn confirm(&self, key: &Key, tail: &Tail) -> Result<()> {
        let start = tail.len() - tail.bytes().len() as u64;
        let end = ReadRange::Bounded(start..tail.len());
        match self.read(key, end).await {
            Ok(part) if part.size == tail.len() && part.bytes == tail.bytes() => Ok(()),
            Ok(_) => {
                let what = "the object was acknowledged after an attempt without a response, and \
                            belongs to another writer";
                Err(Error::new(ErrorKind::AlreadyExists, what))
            }
            Err(error) => Err(error
                .about("the object was acknowledged after an attempt without a response; then")
                .unanswered()),
        }
    }

    /// Some servers take the request for encryption and ignore it. Others say nothing when an
    /// object is made, as SeaweedFS of one that comes in parts, and tell of its encryption when it
    /// is read: so that is looked at, once, before an operator is alarmed.
    async fn check_encryption(&self, key: &Key) {
        if self.shared.encryption_checked.swap(true, Ordering::Relaxed) {
            return;
        }
        let full = &self.full(key);
        let look = || self.driver().is_encrypted(full);
        match self.call(Request::Get, full, 0, look).await {
            Ok(Some(true)) => {}
            Ok(Some(false)) => tracing::warn!("the server does not encrypt objects as requested"),
            Ok(None) => tracing::warn!("the server does not confirm the requested encryption"),
            Err(error) => {
                tracing::debug!(key = full, %error, "the encryption of an object is not known");
                tracing::warn!("the server does not confirm the requested encryption");
            }
        }
    }

    /// Makes the server forget an upload and its parts.
    async fn abort_upload(&self, full: &str, upload: &D::Upload) -> Result<()> {
        let abort = || self.driver().abort(full, upload);
        self.call(Request::Abort, full, 0, abort).await
    }

    /// Does what goes on when nobody waits for it.
    fn spawn(
        &self,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.shared.background.spawn_on(work, runtime)
    }
}

#[async_trait]
impl<D: Driver> Storage for Bucket<D> {
    fn location(&self) -> String {
        self.settings().location()
    }

    fn identity(&self) -> StorageIdentity {
        self.driver().identity()
    }

    fn unknown_server(&self) -> Option<String> {
        let settings = self.settings();
        (!settings.is_own_server).then(|| settings.server.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if body.iter().map(Bytes::len).sum::<usize>() <= self.settings().part {
            return self.put(key, join(body), Mode::Create).await;
        }
        let mut upload = Box::new(BucketUpload::new(self, key, Mode::Create));
        for piece in body {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::new(self, key, Mode::Create)))
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::in_parts(self, key, body).await?))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::new(self, key, Mode::Replace)))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.read_range(self.full(key), range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.page(list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        self.recursive_page(list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let full = &self.full(key);
        let delete = || self.driver().delete(full);
        self.call(Request::Delete, full, 0, delete).await
    }

    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        self.sweep_uploads(sweep).await
    }

    async fn wait_idle(&self) {
        self.shared.background.wait().await;
    }
}

/// Returns the media type of an object. Never with a content encoding: a server that decompressed
/// what it sends would break every range.
pub fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.') {
        Some((_, "gz")) => "application/gzip",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}

/// One piece of several; nothing is copied where there is but one.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    pieces.retain(|piece| !piece.is_empty());
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    }
}

/// Returns a call of a library without a subscriber of `tracing`. Libraries log headers, with
/// signatures and tokens, and bodies, at levels that anybody may turn on.
pub fn unlogged<F: Future>(send: F) -> tracing::instrument::WithDispatch<F> {
    send.with_subscriber(NoSubscriber::new())
}

/// Why a task of ours did not end by itself.
pub(super) fn stopped_error(stopped: tokio::task::JoinError) -> Error {
    task::stopped(stopped, ErrorKind::Unavailable, "a request")
}
