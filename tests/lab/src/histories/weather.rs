//! A storage in bad weather: calls that take their time, writers that sleep, requests that arrive late; and the bugs that
//! are planted to see that they are found.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use persist_host::snapshot::{Expect, Policy, Store, Version};
use persist_host::storage::{
    Call, Entry, Error, ErrorKind, Key, List, Memory, Page, Part, ReadRange, Result, Storage,
    Upload, Watch,
};
use tokio::task::JoinSet;

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
    /// Versions look a day older than they are.
    YoungPruned,
    /// A writer that slept longer than the grace period believes the answer that it gets: it follows another grace period than
    /// the store's.
    SleeperBelieved,
}

/// The directory of the store's policy.
const POLICY: &str = "~/~/policy/";

/// Makes the file of a policy whose grace period is an hour.
pub(crate) async fn policy_of_an_hour() -> Bytes {
    let memory = Memory::new();
    let store = Store::new(Arc::new(memory.clone()));
    let policy = Policy::default();
    let version = store.set_policy(&policy, Expect::Any).await;
    assert_eq!(version.expect("a policy"), 2);
    let key = Key::new(format!("{POLICY}9999999998-0000000001.gz")).expect("a key");
    let file = memory.read(&key, ReadRange::Suffix(u64::MAX)).await;
    file.expect("the first policy is there").bytes
}

/// What one worker sees of a storage that all of them use.
#[derive(Debug)]
pub(crate) struct Weather {
    inner: Arc<dyn Storage>,
    rng: Mutex<Rng>,
    grace: Duration,
    bug: Option<Bug>,
    /// Creates that were given up and are still on their way.
    late: Mutex<JoinSet<()>>,
    /// With [`Bug::CachedHead`]: the first page of each directory.
    pages: Mutex<BTreeMap<String, Page>>,
    /// With [`Bug::Descending`]: which key is removed in place of which.
    instead: Mutex<BTreeMap<String, String>>,
    /// With [`Bug::OldVersionAccepted`]: the version that this worker takes for the head; 0 for none.
    taken_for_head: AtomicU64,
    /// With [`Bug::SleeperBelieved`]: the file that is read in place of the store's policy.
    policy: Option<Bytes>,
}

impl Weather {
    pub(crate) fn new(
        inner: Arc<dyn Storage>,
        rng: Rng,
        grace: Duration,
        bug: Option<Bug>,
    ) -> Self {
        Self {
            inner,
            rng: Mutex::new(rng),
            grace,
            bug,
            late: Mutex::default(),
            pages: Mutex::default(),
            instead: Mutex::default(),
            taken_for_head: AtomicU64::new(0),
            policy: None,
        }
    }

    /// Reads this file in place of the store's policy.
    pub(crate) fn with_policy(mut self, policy: Option<Bytes>) -> Self {
        self.policy = policy;
        self
    }

    /// What the worker takes for the head in its next call.
    pub(crate) fn take_for_head(&self, version: Option<Version>) {
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

    async fn create_version(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        match self.random(|rng| rng.u32(0..100)) {
            // The writer sleeps between its look at the head and its create.
            0..8 => tokio::time::sleep(self.long()).await,
            // The request is given up, and arrives all the same.
            8..12 => {
                let (inner, key, time) = (Arc::clone(&self.inner), key.clone(), self.long());
                locked(&self.late).spawn(async move {
                    tokio::time::sleep(time).await;
                    // Whatever comes of it, nobody waits for the answer.
                    let _ = inner.create(&key, body).await;
                });
                return Err(Error::new(ErrorKind::Unanswered, "given up"));
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

    /// As a cache of heads would: a create that succeeds is the new head, one that is lost says that the cache was wrong.
    fn remember_create(&self, key: &Key, created: &Result<()>) {
        let Some((dir, name)) = key.as_str().rsplit_once('/') else {
            return;
        };
        let page = Page {
            entries: vec![Entry::object(name)],
            more: true,
            now: None,
        };
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
        let page = self.inner.list(list).await?;
        let old = self.taken_for_head.load(Ordering::Relaxed);
        let is_agents = !list.dir.starts_with('~');
        match self.has(Bug::OldVersionAccepted) && is_agents && old > 0 && !page.entries.is_empty()
        {
            true => Ok(Page {
                entries: vec![Entry::object(format!(
                    "{:010}-{old:010}.gz",
                    9_999_999_999 - old
                ))],
                ..page
            }),
            false => Ok(page),
        }
    }

    /// The key to remove first where the one that is asked for should be.
    async fn reversed(&self, key: &Key) -> Result<Key> {
        let (dir, _) = key.as_str().rsplit_once('/').unwrap_or(("", ""));
        if !locked(&self.instead).contains_key(key.as_str()) {
            let list = List {
                dir,
                prefix: "",
                after: None,
                limit: 1000,
                facts: false,
            };
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

/// Whether something is a version, and not what a store keeps beside.
fn is_version(key: &Key) -> bool {
    key.as_str().ends_with(".gz")
}

#[async_trait]
impl Storage for Weather {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn honours_conditions(&self) -> bool {
        self.inner.honours_conditions()
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.pass().await;
        match is_version(key) {
            true => self.create_version(key, body).await,
            false => self.inner.create(key, body).await,
        }
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.pass().await;
        let sleeps = self.random(|rng| rng.bool());
        Ok(Box::new(Slow {
            upload: self.inner.upload(key).await?,
            // Until what came in its place is old enough to be removed.
            sleep: sleeps.then(|| 2 * self.long()),
        }))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner.replace(key).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.pass().await;
        match &self.policy {
            Some(policy) if key.as_str().starts_with(POLICY) => {
                self.inner.read(key, range.clone()).await?;
                let size = policy.len() as u64;
                let range = range.of(size);
                Ok(Part {
                    bytes: policy.slice(range.start as usize..range.end as usize),
                    start: range.start,
                    size,
                })
            }
            _ => self.inner.read(key, range).await,
        }
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.pass().await;
        if list.limit == 1 && list.after.is_none() && !list.facts {
            return self.list_head(list).await;
        }
        let mut page = self.inner.list(list).await?;
        if self.has(Bug::YoungPruned) {
            for entry in &mut page.entries {
                if let Entry::Object(object) = entry
                    && object.name.ends_with(".gz")
                    && let Some(facts) = &mut object.facts
                {
                    facts.created -= Duration::from_secs(24 * 60 * 60);
                }
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.pass().await;
        let key = match self.has(Bug::Descending) && is_version(key) {
            true => self.reversed(key).await?,
            false => key.clone(),
        };
        if !is_version(&key) {
            return self.inner.delete(&key).await;
        }
        // What was to be removed after it stays.
        match self.random(|rng| rng.u32(0..100)) {
            0..6 => Err(Error::new(ErrorKind::Unavailable, "not removed")),
            6..10 => {
                self.inner.delete(&key).await?;
                Err(Error::new(ErrorKind::Unanswered, "removed, and not told"))
            }
            _ => self.inner.delete(&key).await,
        }
    }
}

/// A stream whose guest stops in the midst of it, for longer than the grace.
#[derive(Debug)]
struct Slow {
    upload: Box<dyn Upload>,
    sleep: Option<Duration>,
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
        self.upload.finish().await
    }
}

/// Makes a local disk sleep longer than the grace right before some versions get their names.
#[derive(Debug)]
pub(crate) struct Sleepy {
    rng: Mutex<Rng>,
    grace: Duration,
}

impl Sleepy {
    pub(crate) fn new(rng: Rng, grace: Duration) -> Self {
        Self {
            rng: Mutex::new(rng),
            grace,
        }
    }
}

impl Watch for Sleepy {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if let Call::Link(_, new) = call
            && new.extension().is_some_and(|extension| extension == "gz")
        {
            let mut rng = locked(&self.rng);
            let long = self.grace.mul_f64(1.1 + 1.4 * rng.f64());
            let sleeps = rng.u32(0..100) < 8;
            drop(rng);
            if sleeps {
                std::thread::sleep(long);
            }
        }
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}
