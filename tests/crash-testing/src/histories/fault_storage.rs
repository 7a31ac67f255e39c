//! A storage in bad weather: calls that take their time, writers that sleep, requests that arrive
//! late; and the bugs that are planted to see that they are found.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Expect, Policy, Store, Version};
use persist_host::storage::{
    self, Entry, Error, ErrorKind, Key, List, Memory, Object, Page, Part, ReadRange, Result,
    Storage, Upload, Watch,
};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::Call;
use crate::links::{Backup, LinkCount};
use crate::malformed_file::redate;
use crate::version_key::version_file;

/// A bug that is planted under a store, where its own checks do not see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Creating a version replaces the one that is there.
    ConditionIgnored,
    /// The head that a saver knows from its last save is believed however old that is.
    CachedHead,
    /// A version that was the head once is taken for it still.
    OldVersionAccepted,
    /// The newest go first.
    Descending,
    /// Versions look a day older than they are, in lists and in their trailers.
    YoungPruned,
    /// A writer that slept longer than the grace period believes the answer that it gets: it
    /// follows another grace period than the store's.
    SleeperBelieved,
    /// A prune believes the storage's clock, and compares it with nothing.
    ClockBelieved,
    /// A prune compares the storage's clock with this host's, and not the times of versions with
    /// their trailers.
    TrailerIgnored,
    /// A success that answers a repeated request is believed, although the server says so to
    /// everybody.
    RepeatBelieved,
    /// An expiry finds that a head is old, and deletes the head that is there by then.
    ExpiryUnconditional,
    /// On a local disk: a second name of a temporary file is taken for the proof that a version was
    /// made.
    LinkCountBelieved,
}

/// Times by which the clock of a storage is wrong, in seconds; it is right as often as not.
const AHEAD: [i64; 6] = [0, 0, 0, 2 * 60 * 60, 40 * 24 * 60 * 60, -2 * 60 * 60];

/// The clock of a storage, which is set wrong for a while.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// True if it is ever wrong.
    jumps: bool,
    /// Seconds by which it is ahead.
    ahead: AtomicI64,
    /// Seconds by which it was ahead when each object was made, if it was wrong then.
    made: Mutex<BTreeMap<String, i64>>,
}

impl Clock {
    pub(crate) fn new(jumps: bool) -> Self {
        Self {
            jumps,
            ..Self::default()
        }
    }

    /// Sets it, now and then.
    fn may_jump(&self, rng: &mut Rng) {
        if self.jumps && rng.u32(0..40) == 0 {
            let ahead = AHEAD[rng.usize(..AHEAD.len())];
            self.ahead.store(ahead, Ordering::SeqCst);
        }
    }

    fn made(&self, key: &Key) {
        let ahead = self.ahead.load(Ordering::SeqCst);
        // Who loses a race does not change the time of what is there.
        locked(&self.made)
            .entry(key.as_str().into())
            .or_insert(ahead);
    }

    /// Tells the times of a list by this clock.
    fn tell(&self, dir: &str, page: &mut Page) {
        let ahead = self.ahead.load(Ordering::SeqCst);
        page.now = page.now.map(|now| shifted(now, ahead));
        self.shift(dir, page, 0);
    }

    /// Tells the ages of versions by this clock, and everything else by the right one: whoever
    /// compares clocks sees no difference.
    fn tell_ages(&self, dir: &str, page: &mut Page) {
        if !is_reserved(dir) {
            self.shift(dir, page, -self.ahead.load(Ordering::SeqCst));
        }
    }

    /// Shifts the time of each object by what the clock was ahead when it was made, and by `more`.
    fn shift(&self, dir: &str, page: &mut Page, more: i64) {
        let made = locked(&self.made);
        for entry in &mut page.entries {
            if let Entry::Object(Object {
                name,
                meta: Some(meta),
                ..
            }) = entry
            {
                let ahead = made.get(&format!("{dir}/{name}")).copied();
                meta.created = shifted(meta.created, ahead.unwrap_or(0) + more);
            }
        }
    }
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - by } else { time + by }
}

/// The directory of the store's policy.
const POLICY: &str = "~/~/policy/";

/// More versions than a history makes of its policy.
const POLICIES: u64 = 200;

/// Returns a storage with versions of a policy whose grace period is an hour.
pub(crate) async fn policies_of_an_hour() -> Memory {
    static MADE: OnceCell<Memory> = OnceCell::const_new();
    let make = async || {
        let memory = Memory::new();
        let store = Store::new(Arc::new(memory.clone()));
        for _ in 1..POLICIES {
            let set = store.set_policy(&Policy::default(), Expect::Any).await;
            set.expect("a policy");
        }
        memory
    };
    MADE.get_or_init(make).await.clone()
}

/// View that one worker has of a storage that all workers use.
#[derive(Debug)]
pub(crate) struct FaultStorage {
    inner: Arc<dyn Storage>,
    rng: Mutex<Rng>,
    grace: Duration,
    bug: Option<Bug>,
    clock: Arc<Clock>,
    /// Creates that were given up and are still on their way.
    late: Mutex<JoinSet<()>>,
    /// With [`Bug::CachedHead`]: the first page of each directory.
    pages: Mutex<BTreeMap<String, Page>>,
    /// With [`Bug::Descending`]: which key is removed in place of which.
    instead: Mutex<BTreeMap<String, String>>,
    /// With [`Bug::OldVersionAccepted`]: the version that this worker takes for the head; 0 for
    /// none.
    taken_for_head: AtomicU64,
    /// With [`Bug::SleeperBelieved`]: the storage whose policy is read in place of the store's.
    policy: Option<Memory>,
    /// True while this worker prunes.
    is_pruning: AtomicBool,
}

impl FaultStorage {
    pub(crate) fn new(
        inner: Arc<dyn Storage>,
        rng: Rng,
        grace: Duration,
        bug: Option<Bug>,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            inner,
            rng: Mutex::new(rng),
            grace,
            bug,
            clock,
            late: Mutex::default(),
            pages: Mutex::default(),
            instead: Mutex::default(),
            taken_for_head: AtomicU64::new(0),
            policy: None,
            is_pruning: AtomicBool::new(false),
        }
    }

    /// Reads the policy of this storage in place of the store's.
    pub(crate) fn with_policy(mut self, policy: Option<Memory>) -> Self {
        self.policy = policy;
        self
    }

    /// Prepares for the next call of the worker.
    pub(crate) fn expect(&self, call: Call) {
        let is_pruning = matches!(call, Call::Prune { .. });
        self.is_pruning.store(is_pruning, Ordering::SeqCst);
        self.take_for_head(call.wanted_version());
    }

    /// Takes a version for the head in the next call.
    fn take_for_head(&self, version: Option<Version>) {
        self.taken_for_head
            .store(version.unwrap_or(0), Ordering::Relaxed);
    }

    /// Waits for everything that is still on its way.
    pub(crate) async fn calm(&self) {
        let mut late = std::mem::take(&mut *locked(&self.late));
        while late.join_next().await.is_some() {}
    }

    fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut locked(&self.rng))
    }

    /// Some calls take a moment, in which others are made.
    async fn pass(&self) {
        self.random(|rng| self.clock.may_jump(rng));
        match self.random(|rng| rng.u32(0..4)) {
            0 => {
                tokio::time::sleep(Duration::from_micros(self.random(|rng| rng.u64(0..1500)))).await
            }
            _ => tokio::task::yield_now().await,
        }
    }

    /// A time that is longer than the grace.
    fn long(&self) -> Duration {
        self.grace.mul_f64(self.random(|rng| 1.1 + 1.9 * rng.f64()))
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Returns true if trailers say that their versions are old. Only to a prune: a change looks at
    /// trailers to know its own version.
    fn hides_trailers(&self) -> bool {
        let is_hidden = matches!(
            self.bug,
            Some(Bug::YoungPruned | Bug::ClockBelieved | Bug::TrailerIgnored)
        );
        is_hidden && self.is_pruning.load(Ordering::SeqCst)
    }

    async fn create_version(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        match self.random(|rng| rng.u32(0..100)) {
            // The writer sleeps between its look at the head and its create.
            0..8 => tokio::time::sleep(self.long()).await,
            // The request is given up, and arrives all the same.
            8..12 => {
                let inner = Arc::clone(&self.inner);
                let key = key.clone();
                let time = self.long();
                locked(&self.late).spawn(async move {
                    tokio::time::sleep(time).await;
                    // The response is not awaited.
                    let _ = inner.create(&key, body).await;
                });
                return Err(Error::new(ErrorKind::OutcomeUnknown, "given up"));
            }
            // The answer is lost, and the request is sent again.
            12..20 => {
                let first = self.inner.create(key, body).await;
                return repeated(first, self.has(Bug::RepeatBelieved));
            }
            _ => {}
        }
        if self.has(Bug::ConditionIgnored) {
            self.inner.delete(key).await?;
        }
        let created = self.inner.create(key, body).await;
        if created.is_err() {
            self.take_for_head(None);
        }
        if self.has(Bug::CachedHead) {
            self.remember_create(key, &created);
        }
        created
    }

    /// Records a create as a cache of heads would: a create that succeeds is the new head, a create
    /// that fails shows that the cache was wrong.
    fn remember_create(&self, key: &Key, created: &Result<()>) {
        let Some((dir, name)) = key.as_str().rsplit_once('/') else {
            return;
        };
        let page = Page::new(vec![Entry::object(name)], true);
        match created {
            Ok(()) => drop(locked(&self.pages).insert(dir.into(), page)),
            Err(_) => drop(locked(&self.pages).remove(dir)),
        }
    }

    async fn list_head(&self, list: &List<'_>) -> Result<Page> {
        let cached = locked(&self.pages).get(list.dir).cloned();
        if let (true, Some(page)) = (self.has(Bug::CachedHead), cached) {
            return Ok(page);
        }
        let mut page = self.inner.list(list).await?;
        let old = self.taken_for_head.load(Ordering::Relaxed);
        let is_agents = !list.dir.starts_with('~');
        if self.has(Bug::OldVersionAccepted) && is_agents && old > 0 && !page.entries.is_empty() {
            let name = version_file(old);
            page.entries = vec![Entry::object(name)];
        }
        Ok(page)
    }

    /// The key to remove first where the one that is asked for should be.
    async fn reversed(&self, key: &Key) -> Result<Key> {
        let (dir, _) = key.as_str().rsplit_once('/').unwrap_or(("", ""));
        if !locked(&self.instead).contains_key(key.as_str()) {
            let list = List::new(dir).with_limit(1000);
            let page = self.inner.list(&list).await?;
            let versions = page
                .entries
                .iter()
                .map(Entry::name)
                .filter(|name| name.ends_with(".gz"));
            // From the newest but the head, down to the one that is asked for.
            let keys: Vec<_> = versions
                .skip(1)
                .map(|name| format!("{dir}/{name}"))
                .collect();
            let mut instead = locked(&self.instead);
            instead.extend(keys.iter().rev().cloned().zip(keys.iter().cloned()));
        }
        let other = locked(&self.instead).remove(key.as_str());
        other.map_or_else(|| Ok(key.clone()), Key::new)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a key is that of an agent's version, and not of the store's own.
fn is_version(key: &Key) -> bool {
    !is_reserved(key.as_str()) && key.as_str().ends_with(".gz")
}

/// Returns whether a directory, or a key, is the store's own: of its probes, or of its policy.
fn is_reserved(path: &str) -> bool {
    path == "~" || path.starts_with("~/")
}

#[async_trait]
impl Forward for FaultStorage {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.inner)
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.pass().await;
        self.clock.made(key);
        if is_version(key) {
            self.create_version(key, body).await
        } else {
            self.inner.create(key, body).await
        }
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.pass().await;
        let sleeps = self.random(|rng| rng.bool());
        self.clock.made(key);
        let is_repeated = self.random(|rng| rng.u32(0..4)) == 0;
        Ok(Box::new(Slow {
            upload: self.inner.upload(key).await?,
            // Until what came in its place is old enough to be removed.
            sleep: sleeps.then(|| 2 * self.long()),
            repeated: is_repeated.then_some(self.has(Bug::RepeatBelieved)),
        }))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.pass().await;
        match &self.policy {
            Some(policies) if key.as_str().starts_with(POLICY) => {
                self.inner.read(key, range.clone()).await?;
                policies.read(key, range).await
            }
            _ if self.hides_trailers() && is_version(key) => {
                let mut part = self.inner.read(key, range).await?;
                let mut tail = part.bytes.to_vec();
                redate(&mut tail, 0);
                part.bytes = tail.into();
                Ok(part)
            }
            _ => self.inner.read(key, range).await,
        }
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.pass().await;
        if list.limit == 1 && list.after.is_none() && !list.meta && !is_reserved(list.dir) {
            return self.list_head(list).await;
        }
        let mut page = self.inner.list(list).await?;
        if self.has(Bug::ClockBelieved) {
            self.clock.tell_ages(list.dir, &mut page);
        } else {
            self.clock.tell(list.dir, &mut page);
        }
        if self.has(Bug::YoungPruned) {
            for entry in &mut page.entries {
                if let Entry::Object(object) = entry
                    && object.name.ends_with(".gz")
                    && let Some(meta) = &mut object.meta
                {
                    meta.created -= Duration::from_secs(24 * 60 * 60);
                }
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.pass().await;
        let key = if self.has(Bug::Descending) && is_version(key) {
            self.reversed(key).await?
        } else {
            key.clone()
        };
        if !is_version(&key) {
            return self.inner.delete(&key).await;
        }
        // What was to be removed after it stays.
        match self.random(|rng| rng.u32(0..100)) {
            0..6 => Err(Error::new(ErrorKind::Unavailable, "not removed")),
            6..10 => {
                self.inner.delete(&key).await?;
                Err(Error::new(
                    ErrorKind::OutcomeUnknown,
                    "removed, and not told",
                ))
            }
            _ => self.inner.delete(&key).await,
        }
    }
}

/// Answers a request that was sent again after its first answer was lost. The server answers every
/// repetition with success, whoever created the object; so a driver must call it unanswered.
fn repeated(first: Result<()>, is_believed: bool) -> Result<()> {
    match first {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ if is_believed => Ok(()),
        _ => Err(Error::new(
            ErrorKind::OutcomeUnknown,
            "a repeated request succeeded, and the answer to the first was lost",
        )),
    }
}

/// A stream whose guest stops in the midst of it, for longer than the grace.
#[derive(Debug)]
struct Slow {
    upload: Box<dyn Upload>,
    sleep: Option<Duration>,
    /// Some: its completion is sent twice; true: and the second answer is believed.
    repeated: Option<bool>,
}

#[async_trait]
impl Upload for Slow {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if let Some(sleep) = self.sleep.take() {
            tokio::time::sleep(sleep).await;
        }
        self.upload.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        let finished = self.upload.finish().await;
        match self.repeated {
            None => finished,
            Some(is_believed) => repeated(finished, is_believed),
        }
    }
}

/// Disturbs a local disk: makes it sleep longer than the grace right before some versions get their
/// names, and links some of their temporary files elsewhere.
#[derive(Debug)]
pub(crate) struct Disturbed {
    rng: Mutex<Rng>,
    grace: Duration,
    backup: Backup,
    links: Arc<LinkCount>,
}

impl Disturbed {
    /// `backup` is a directory for the links.
    pub(crate) fn new(rng: Rng, grace: Duration, backup: PathBuf) -> io::Result<Self> {
        Ok(Self {
            rng: Mutex::new(rng),
            grace,
            backup: Backup::new(backup)?,
            links: Arc::default(),
        })
    }

    /// Knows whether the temporary file of the last lost race had more than one name.
    pub(crate) fn links(&self) -> Arc<LinkCount> {
        Arc::clone(&self.links)
    }
}

impl Watch for Disturbed {
    fn before(&self, call: storage::Call<'_>) -> io::Result<()> {
        if let storage::Call::Link(temporary, new) = call
            && new.extension().is_some_and(|extension| extension == "gz")
        {
            let mut rng = locked(&self.rng);
            let long = self.grace.mul_f64(1.1 + 1.4 * rng.f64());
            let sleeps = rng.u32(0..100) < 8;
            let is_linked = rng.u32(0..3) == 0;
            drop(rng);
            if is_linked {
                self.backup.link(temporary);
            }
            if sleeps {
                std::thread::sleep(long);
            }
        }
        Ok(())
    }

    fn after(&self, call: storage::Call<'_>, done: bool) -> io::Result<()> {
        self.links.after(call, done);
        Ok(())
    }
}
