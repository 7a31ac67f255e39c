//! A storage that tells what was asked of it, and waits where it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::storage::{Key, List, Memory, Page, Part, ReadRange, Result, Storage, Upload};
use tokio::sync::Semaphore;

/// Objects in memory, behind a gate.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Memory,
    /// Calls that were made.
    calls: AtomicUsize,
    /// Uploads that were neither finished nor dropped.
    uploads: Arc<AtomicUsize>,
    /// Reads and creations that may pass.
    gate: Semaphore,
    /// Reads and creations that wait there.
    waiting: AtomicUsize,
    /// Maximum number of calls that ever waited together.
    most_waiting: AtomicUsize,
}

/// An upload that is counted as long as it lives.
#[derive(Debug)]
struct Counted {
    upload: Box<dyn Upload>,
    _alive: Alive,
}

/// A call at the gate, until it passes or is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Watched {
    /// One whose gate is open.
    pub(super) fn new() -> Arc<Self> {
        let watched = Self::closed();
        watched.open();
        watched
    }

    /// One whose gate lets nothing through.
    pub(super) fn closed() -> Arc<Self> {
        Arc::new(Self {
            inner: Memory::new(),
            calls: AtomicUsize::new(0),
            uploads: Arc::default(),
            gate: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(0),
        })
    }

    pub(super) fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub(super) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn most_waiting(&self) -> usize {
        self.most_waiting.load(Ordering::SeqCst)
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn uploads(&self) -> usize {
        self.uploads.load(Ordering::SeqCst)
    }

    /// Waits until a number of calls wait at the gate.
    pub(super) async fn until_waiting(&self, calls: usize) {
        // A call counts as waiting a moment before the most that waited are noted.
        let are_fewer = |count: &AtomicUsize| count.load(Ordering::SeqCst) < calls;
        while are_fewer(&self.waiting) || are_fewer(&self.most_waiting) {
            tokio::task::yield_now().await;
        }
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    async fn pass(&self) {
        self.called();
        let waiting = Waiting::new(&self.waiting);
        self.most_waiting
            .fetch_max(waiting.0.load(Ordering::SeqCst), Ordering::SeqCst);
        let passed = self.gate.acquire().await.expect("never closed for good");
        passed.forget();
    }

    fn counted(&self, upload: Box<dyn Upload>) -> Box<dyn Upload> {
        self.uploads.fetch_add(1, Ordering::SeqCst);
        Box::new(Counted {
            upload,
            _alive: Alive(Arc::clone(&self.uploads)),
        })
    }
}

#[async_trait]
impl Forward for Watched {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.inner.clone())
    }

    fn location(&self) -> String {
        "watched memory".into()
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.pass().await;
        self.inner.create(key, body).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.called();
        Ok(self.counted(self.inner.upload(key).await?))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.called();
        Ok(self.counted(self.inner.replace(key).await?))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.pass().await;
        self.inner.read(key, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.called();
        self.inner.list(list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.called();
        self.inner.delete(key).await
    }
}

#[async_trait]
impl Upload for Counted {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.upload.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.upload.finish().await
    }
}
