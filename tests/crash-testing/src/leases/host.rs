//! The storage as one host sees it: the host sleeps, its network is cut, and clocks jump.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use persist_host::conformance::Forward;
use persist_host::storage::{Error, ErrorKind, Key, List, Page, Part, ReadRange, Result, Storage};

use super::Bug;

/// Directory of the leases.
const LEASES: &str = "~/lease/";

/// Jumps of the clock by which the ages of leases are told, in seconds.
const JUMPS: [i64; 4] = [0, 0, 60 * 60, -60 * 60];

/// View that one host has of the storage. Cut off, it is told that nothing was made, or nothing at
/// all; while it sleeps, no call goes out and no answer comes in.
#[derive(Debug)]
pub(super) struct HostStorage {
    inner: Arc<dyn Storage>,
    bug: Option<Bug>,
    rng: Mutex<Rng>,
    start: Instant,
    /// Microseconds after the start until which the host sleeps.
    asleep_until: AtomicU64,
    /// Microseconds after the start until which its network is cut.
    cut_until: AtomicU64,
    /// Seconds by which the storage's clock is ahead when it tells the ages of leases.
    ahead: AtomicI64,
    /// With [`Bug::OldListBelieved`]: the list of each lease after it was acquired.
    old_lists: Mutex<BTreeMap<String, Page>>,
}

impl HostStorage {
    pub(super) fn new(inner: Arc<dyn Storage>, rng: Rng, bug: Option<Bug>) -> Self {
        Self {
            inner,
            bug,
            rng: Mutex::new(rng),
            start: Instant::now(),
            asleep_until: AtomicU64::new(0),
            cut_until: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            old_lists: Mutex::default(),
        }
    }

    /// Lets the host sleep, as SIGSTOP does: its renewals stop, too.
    pub(super) fn sleep_for(&self, time: Duration) {
        self.asleep_until.store(self.after(time), Ordering::SeqCst);
    }

    /// Cuts the network of the host.
    pub(super) fn cut_for(&self, time: Duration) {
        self.cut_until.store(self.after(time), Ordering::SeqCst);
    }

    /// Sets the clock by which the ages of leases are told.
    pub(super) fn jump(&self) {
        let ahead = self.random(|rng| JUMPS[rng.usize(..JUMPS.len())]);
        self.ahead.store(ahead, Ordering::SeqCst);
    }

    /// With [`Bug::OldListBelieved`]: forgets what was listed before the next lease.
    pub(super) fn forget_lists(&self) {
        locked(&self.old_lists).clear();
    }

    /// Waits until the host is awake: between its steps, too, it does nothing while it sleeps.
    pub(super) async fn awake(&self) {
        while self.after(Duration::ZERO) < self.asleep_until.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn after(&self, time: Duration) -> u64 {
        let after = (self.start.elapsed() + time).as_micros();
        u64::try_from(after).unwrap_or(u64::MAX)
    }

    fn is_cut(&self) -> bool {
        self.after(Duration::ZERO) < self.cut_until.load(Ordering::SeqCst)
    }

    fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut locked(&self.rng))
    }

    /// Makes a call: other hosts make theirs before it arrives, and before its answer does.
    async fn call<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.pass().await;
        if self.is_cut() {
            return Err(Error::new(ErrorKind::Unavailable, "the network is cut"));
        }
        let answer = call.await;
        self.pass().await;
        if self.is_cut() {
            let what = "the network was cut before the answer came";
            return Err(Error::new(ErrorKind::OutcomeUnknown, what));
        }
        answer
    }

    async fn pass(&self) {
        if self.random(|rng| rng.u32(0..4)) == 0 {
            let pause = self.random(|rng| rng.u64(0..1500));
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        self.awake().await;
    }

    async fn list_leases(&self, list: &List<'_>) -> Result<Page> {
        let old = locked(&self.old_lists).get(list.dir).cloned();
        if let (Some(Bug::OldListBelieved), Some(page)) = (self.bug, old) {
            return Ok(page);
        }
        let mut page = self.call(self.inner.list(list)).await?;
        page.now = page
            .now
            .map(|now| shifted(now, self.ahead.load(Ordering::SeqCst)));
        Ok(page)
    }

    /// After the host created an object of a lease: lists are remembered from then on.
    async fn remember(&self, key: &Key) {
        let (dir, _) = key.as_str().rsplit_once('/').unwrap_or_default();
        if let Ok(page) = self.inner.list(&List::new(dir).with_meta()).await {
            locked(&self.old_lists).insert(dir.into(), page);
        }
    }
}

#[async_trait]
impl Forward for HostStorage {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.inner)
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let created = self.call(self.inner.create(key, body)).await;
        let is_lease = key.as_str().starts_with(LEASES);
        if self.bug == Some(Bug::OldListBelieved) && is_lease && created.is_ok() {
            self.remember(key).await;
        }
        created
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.call(self.inner.read(key, range)).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        if list.dir.starts_with(LEASES) {
            return self.list_leases(list).await;
        }
        self.call(self.inner.list(list)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.call(self.inner.delete(key)).await
    }
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - by } else { time + by }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
