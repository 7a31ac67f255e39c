//! The bucket that all calls share, and how a call is made.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::driver::{Driver, Request};
use super::settings::Settings;
use super::sizes::ListedSizes;
#[cfg(doc)]
use crate::storage::Storage;
use crate::storage::retry::{Attempt, Call, Retrier, RetryDecision, RetryLoop};
use crate::storage::{Counts, Key, Result};

/// A [`Storage`] that keeps objects in a bucket. Clones share its connections.
#[derive(Debug)]
pub struct Bucket<D: Driver> {
    pub(super) shared: Arc<Shared<D>>,
}

#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) driver: D,
    pub(super) retrier: Retrier,
    /// Set once an object was looked at whose encryption was not confirmed when it was made.
    pub(super) encryption_checked: AtomicBool,
    /// Set once it was said that uploads may not be aborted.
    pub(super) litter: AtomicBool,
    /// Uploads that are being aborted.
    pub(super) background: TaskTracker,
    /// Set once it is known that one of several uploads in parts that race is acknowledged.
    pub(super) uploads_probed: OnceCell<()>,
    /// Sizes of objects that a server that is not the provider's own has listed.
    pub(super) sizes: ListedSizes,
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
                retrier: Retrier::new(driver.settings().retry, &driver.settings().server),
                driver,
                encryption_checked: AtomicBool::new(false),
                litter: AtomicBool::new(false),
                background,
                uploads_probed: OnceCell::new(),
                sizes: ListedSizes::default(),
            }),
        }
    }

    /// Returns the counts of what was sent since this was made, by all clones.
    pub fn counts(&self) -> Counts {
        self.shared.retrier.counts()
    }

    pub(in crate::storage) fn driver(&self) -> &D {
        &self.shared.driver
    }

    pub(super) fn settings(&self) -> &Settings {
        self.driver().settings()
    }

    pub(super) fn name(&self, request: Request) -> &'static str {
        self.driver().name(request)
    }

    /// The key in the bucket.
    pub(super) fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.settings().prefix)
    }

    /// Begins a call about `key` that sends `body` bytes.
    pub(super) fn begin<'a>(
        &'a self,
        request: Request,
        key: &'a str,
        body: usize,
    ) -> RetryLoop<'a> {
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
    pub(super) async fn attempt<T>(
        &self,
        tries: &mut RetryLoop<'_>,
        send: impl Future<Output = Attempt<T>> + Send,
    ) -> Attempt<T> {
        tries.prepare(self.driver().ready()).await?;
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
    pub(super) async fn call<T, F>(
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
    pub(super) async fn call_change<T, F>(
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
    pub(in crate::storage) async fn ask<T, F>(
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

    /// Makes the server forget an upload and its parts.
    pub(super) async fn abort_upload(&self, full: &str, upload: &D::Upload) -> Result<()> {
        let abort = || self.driver().abort(full, upload);
        self.call(Request::Abort, full, 0, abort).await
    }

    /// Starts a task in the background.
    pub(super) fn spawn(
        &self,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.shared.background.spawn_on(work, runtime)
    }
}
