//! Retention of a name's history: which versions are kept, and how the rest is removed.
//!
//! Pruning runs beside writers, without a lock. What makes that safe is one rule: it never touches
//! the newest version, nor one that was the newest within the grace
//! ([`StoreOptions::grace`](super::StoreOptions)). How long a version has not been the newest is
//! told by the age of the one above it, whose writer saw it there before it began; and ages are
//! differences between times of the storage's own clock. That clock may have been behind when a
//! version was made, so an age must also fit the creation time in the trailer.
//! docs/src/durability.md argues why a writer that slept cannot lose a save then. Versions go in
//! ascending order, so that what is left of a prune that was cut short is what a shorter history
//! would be.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::format::{Encoded, TrailerFields};
use super::{
    Error, Expect, MAX_REREADS, MAX_VERSION, Name, Result, Scope, Store, Version, clock, layout,
    store_init,
};
use crate::storage::{Entry, ErrorKind, Key, List, ObjectMeta, Pager};
use bytes::Bytes;

/// Versions that are looked at together.
const PAGE: usize = 10_000;

/// Versions that are removed before the pins are listed again.
const PIN_CHECK: usize = 50;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// From the Monday before 1970 to 1970, which began on a Thursday.
const BEFORE_EPOCH: u64 = 3 * DAY;

/// Which versions of a name are kept. Each rule keeps what it keeps, whatever the others say.
///
/// ```
/// use std::time::Duration;
/// use persist_host::snapshot::Retention;
///
/// let mut week = Retention::default();
/// week.keep_within = Duration::from_secs(7 * 24 * 60 * 60);
/// week.keep_daily = 30;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Keeps versions that were the newest at some time within this duration; 1 day. It counts from
    /// when a version was replaced: a state that was the newest for a month is kept for a day after
    /// it is saved over.
    pub keep_within: Duration,
    /// Keeps this many of the newest versions; 20.
    pub keep_last: usize,
    /// Keeps the newest version of each of the last N hours (UTC) that have one; 48.
    pub keep_hourly: usize,
    /// Keeps the newest version of each of the last N days (UTC) that have one; 30.
    pub keep_daily: usize,
    /// Keeps the newest version of each of the last N weeks (Monday to Sunday, UTC) that have one;
    /// 52.
    pub keep_weekly: usize,
}

impl Retention {
    /// Returns rules that keep nothing: what is always kept stays.
    pub fn nothing() -> Self {
        Self {
            keep_within: Duration::ZERO,
            keep_last: 0,
            keep_hourly: 0,
            keep_daily: 0,
            keep_weekly: 0,
        }
    }

    /// Returns the rules by which a full scope is thinned out: at least the default numbers of
    /// versions, however few these rules keep. A rule by age would keep whatever a flood of saves
    /// made.
    #[cfg(feature = "guest")]
    fn when_full(&self) -> Self {
        let default = Self::default();
        Self {
            keep_within: Duration::ZERO,
            keep_last: self.keep_last.max(default.keep_last),
            keep_hourly: self.keep_hourly.max(default.keep_hourly),
            keep_daily: self.keep_daily.max(default.keep_daily),
            keep_weekly: self.keep_weekly.max(default.keep_weekly),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            keep_within: Duration::from_secs(DAY),
            keep_last: 20,
            keep_hourly: 48,
            keep_daily: 30,
            keep_weekly: 52,
        }
    }
}

/// Why a version is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// It is the newest.
    Head,
    /// It was the newest within the grace: a writer that began before it was made may still be at
    /// work.
    Recent,
    /// It is pinned.
    Pinned,
    /// [`Retention::keep_last`].
    Last,
    /// [`Retention::keep_within`].
    Within,
    /// [`Retention::keep_hourly`].
    Hourly,
    /// [`Retention::keep_daily`].
    Daily,
    /// [`Retention::keep_weekly`].
    Weekly,
}

/// Decision of pruning about a version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneDecision {
    /// The version.
    pub version: Version,
    /// Bytes of its file.
    pub stored_size: u64,
    /// When it was made, by the storage's clock.
    pub created: SystemTime,
    /// The first rule that keeps it; none: it is removed.
    pub keep: Option<KeepReason>,
}

/// Choice of whether a purge waits for the grace period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// Purge that spares each version that was the newest within the grace period; a later purge
    /// removes it.
    #[default]
    AfterGrace,
    /// Everything goes at once. Only where no host has written this name within the grace, nor
    /// does: one that goes on from a head that it saw before may have its save acknowledged, below
    /// the newest version.
    Now,
}

/// Result of a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// The tombstone that stays, so that numbering goes on. None where the last possible version
    /// was there: there is no number for a tombstone, and numbering begins again once all versions
    /// are removed.
    pub tombstone: Option<Version>,
    /// How many versions were removed.
    pub removed: u64,
    /// How many were the newest within the grace, and stay until a later purge.
    pub kept: u64,
}

impl Scope {
    /// Returns what [`Scope::prune`] would do, newest version first.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where the storage does not tell when its objects
    /// were made.
    pub async fn plan_prune(
        &self,
        name: &str,
        retention: &Retention,
    ) -> Result<Vec<PruneDecision>> {
        self.fates(&Name::new(name)?, retention, Age::Planned(None))
            .await
    }

    /// Plans as [`Scope::plan_prune`] does for [`Scope::prune_with_hosts_stopped`].
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn plan_prune_with_hosts_stopped(
        &self,
        name: &str,
        retention: &Retention,
        grace: Duration,
    ) -> Result<Vec<PruneDecision>> {
        self.fates(&Name::new(name)?, retention, Age::Planned(Some(grace)))
            .await
    }

    /// Lists the versions of `name` that may go to make room for more: all but pins and what
    /// [`Retention::when_full`] keeps. None where the policy keeps every version.
    #[cfg(feature = "guest")]
    pub(crate) async fn removable(&self, name: &Name) -> Result<Vec<Removable>> {
        let policy = self.store.policy().await?.policy;
        let Some(retention) = policy.retention else {
            return Ok(Vec::new());
        };
        let fates = self
            .fates(name, &retention.when_full(), Age::Checked(None))
            .await?;
        let replaced = std::iter::once(None).chain(fates.iter().map(|fate| Some(fate.created)));
        let removable = fates.iter().zip(replaced).filter_map(|(fate, replaced)| {
            let replaced = replaced.filter(|_| fate.keep.is_none())?;
            Some(Removable {
                version: fate.version,
                stored_size: fate.stored_size,
                newest_for: replaced.duration_since(fate.created).unwrap_or_default(),
            })
        });
        Ok(removable.collect())
    }

    /// Removes versions that [`Scope::removable`] listed, which are to be ascending.
    #[cfg(feature = "guest")]
    pub(crate) async fn remove(&self, name: &Name, versions: &[Version]) -> Result<()> {
        for &version in versions {
            self.storage().delete(&self.key(name, version)?).await?;
        }
        Ok(())
    }

    /// Removes the versions that `retention` does not keep, the oldest first, and says what became
    /// of each, newest first. Never the newest version, nor one that is pinned or was the newest
    /// within the grace. What was removed before an error stays removed.
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn prune(&self, name: &str, retention: &Retention) -> Result<Vec<PruneDecision>> {
        let name = Name::new(name)?;
        self.prune_at_most(&name, retention, usize::MAX, None).await
    }

    /// Prunes as [`Scope::prune`] does, by a grace period that is shorter than that of the store's
    /// policy.
    ///
    /// Only where every host of the store is stopped: one that is at work, or sleeps, may have a
    /// save acknowledged below the newest version, where no load finds it.
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn prune_with_hosts_stopped(
        &self,
        name: &str,
        retention: &Retention,
        grace: Duration,
    ) -> Result<Vec<PruneDecision>> {
        let name = Name::new(name)?;
        self.prune_at_most(&name, retention, usize::MAX, Some(grace))
            .await
    }

    /// Prunes as [`Scope::prune`] does, at most the oldest `most` versions. A shorter grace period
    /// than the store's is only for a store whose hosts are stopped.
    pub(super) async fn prune_at_most(
        &self,
        name: &Name,
        retention: &Retention,
        most: usize,
        grace: Option<Duration>,
    ) -> Result<Vec<PruneDecision>> {
        let mut fates = self.fates(name, retention, Age::Checked(grace)).await?;
        if fates.iter().any(|fate| fate.keep.is_none()) {
            self.prepare_change().await?;
        }
        let mut pinned = BTreeSet::new();
        let doomed = fates.iter_mut().rev().filter(|fate| fate.keep.is_none());
        for (at, fate) in doomed.take(most).enumerate() {
            // The plan knows the pins of its own time; a long prune looks again.
            if at > 0 && at.is_multiple_of(PIN_CHECK) {
                pinned = self.pinned(name).await?;
            }
            if pinned.contains(&fate.version) {
                fate.keep = Some(KeepReason::Pinned);
                continue;
            }
            let key = self.key(name, fate.version)?;
            self.storage().delete(&key).await?;
        }
        Ok(fates)
    }

    /// Commits a tombstone, then removes every version below it, pinned ones too. It cannot be
    /// undone. Numbering goes on.
    ///
    /// On a full storage, versions that are not the newest are removed first, to make room
    /// for the tombstone. If only the newest is left and there is still no room, [`Purge::Now`]
    /// removes that, too, and then commits the tombstone; a process that dies between these two
    /// leaves nothing, and numbering begins again.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing was ever saved; then as [`Scope::delete`] and
    /// [`Scope::prune`].
    pub async fn purge(&self, name: &str, purge: Purge) -> Result<PurgeReport> {
        let name = Name::new(name)?;
        let mut purged = PurgeReport {
            tombstone: None,
            removed: 0,
            kept: 0,
        };
        if self.is_at_the_end(&name).await? {
            self.purge_the_end(&name, purge, &mut purged).await?;
            return Ok(purged);
        }
        let tombstone = match self.tombstone_for_purge(name.as_str()).await {
            Err(error) if is_full(&error) => {
                self.tombstone_when_full(&name, purge, &mut purged).await?
            }
            tombstone => tombstone?,
        };
        purged.tombstone = Some(tombstone);
        let fates = self.purge_fates(&name, purge).await?;
        let below = fates.iter().rev().filter(|fate| fate.version < tombstone);
        for &PruneDecision { version, keep, .. } in below {
            if purge == Purge::AfterGrace && keep == Some(KeepReason::Recent) {
                purged.kept += 1;
                continue;
            }
            self.purge_version(&name, version, &mut purged).await?;
        }
        Ok(purged)
    }

    async fn purge_version(
        &self,
        name: &Name,
        version: Version,
        to: &mut PurgeReport,
    ) -> Result<()> {
        self.storage().delete(&self.key(name, version)?).await?;
        self.storage().delete(&self.pin_key(name, version)?).await?;
        to.removed += 1;
        Ok(())
    }

    /// Removes versions until there is room for a tombstone, and commits it. The newest version is
    /// the last to go: as long as it is there, numbering goes on from it.
    async fn tombstone_when_full(
        &self,
        name: &Name,
        purge: Purge,
        purged: &mut PurgeReport,
    ) -> Result<Version> {
        let fates = self.purge_fates(name, purge).await?;
        let spared = |fate: &PruneDecision| {
            purge == Purge::AfterGrace && fate.keep == Some(KeepReason::Recent)
        };
        let old = fates.iter().skip(1).rev().filter(|fate| !spared(fate));
        for fate in old {
            self.purge_version(name, fate.version, purged).await?;
        }
        match self.tombstone_for_purge(name.as_str()).await {
            Err(error) if is_full(&error) && purge == Purge::Now => {}
            tombstone => return tombstone,
        }
        let Some(head) = self.head(name).await? else {
            return Err(self.missing(name, None));
        };
        // The caller says that no host writes this name: none sees that its head is gone for a
        // moment.
        self.purge_version(name, head.version, purged).await?;
        self.heads().mark_uncertain(&self.dir_of(name));
        self.create_tombstone(name, head.version).await
    }

    /// Creates a tombstone above a version that may be gone.
    async fn create_tombstone(&self, name: &Name, below: Version) -> Result<Version> {
        let version = below + 1;
        let (mut file, encoded) = Encoded::tombstone();
        let (trailer, _) = encoded.build_trailer(&TrailerFields {
            agent: self.agent().as_str(),
            session: self.session().map(Name::as_str),
            name: name.as_str(),
            version,
            parent: Some(below),
            parent_sha256: None,
            created_at: clock::unix_millis(),
            media_type: None,
            labels: &[],
            nonce: &format!("{:032x}", crate::random::u128()),
        });
        file.push(trailer);
        self.storage()
            .create(&self.key(name, version)?, file)
            .await?;
        Ok(version)
    }

    /// Returns true where the newest version has the last possible number: no tombstone can be
    /// above it.
    async fn is_at_the_end(&self, name: &Name) -> Result<bool> {
        let head = self.head(name).await?;
        Ok(head.is_some_and(|head| head.version == MAX_VERSION))
    }

    /// Removes every version of a name whose numbers are used up. A host that looked at the head
    /// before the last version was made has forgotten it when that is older than the grace, so that
    /// none goes on from it.
    async fn purge_the_end(
        &self,
        name: &Name,
        purge: Purge,
        purged: &mut PurgeReport,
    ) -> Result<()> {
        let (versions, listed) = self.listed(name).await?;
        if let (Purge::AfterGrace, Some((newest, meta))) = (purge, versions.first()) {
            let grace = self.store.prune_grace().await?;
            let now = clock::list_time(listed, self.store.storage_time(grace).await?, grace)?;
            let age = now.duration_since(meta.created).unwrap_or_default();
            let limits = AgeLimits {
                min: grace,
                ahead: grace,
            };
            if age <= grace || !self.is_older_by_trailer(name, *newest, now, limits).await? {
                purged.kept = versions.len() as u64;
                return Ok(());
            }
        }
        self.prepare_change().await?;
        // The newest version goes last: until then, nothing can be saved below it.
        for &(version, _) in versions.iter().rev() {
            self.purge_version(name, version, purged).await?;
        }
        self.heads().mark_uncertain(&self.dir_of(name));
        Ok(())
    }

    /// Keeps a version from being pruned.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use persist_host::snapshot::{SaveOptions, Store};
    /// # use persist_host::storage::Memory;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let scope = Store::new(Arc::new(Memory::new())).scope("bot", None)?;
    /// # scope.save("memory", "x".into(), SaveOptions::default()).await?;
    /// scope.pin("memory", 1).await?;
    /// assert_eq!(scope.pins("memory").await?, [1]);
    /// scope.unpin("memory", 1).await?;
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or a prune that runs at this moment
    /// removed it; [`Error::Storage`].
    pub async fn pin(&self, name: &str, version: Version) -> Result<()> {
        let name = Name::new(name)?;
        let exists = async || self.open(&name, Some(version)).await.map(drop);
        match exists().await {
            Err(error) if !error.is_of_file() => return Err(error),
            _ => {}
        }
        self.prepare_change().await?;
        let key = self.pin_key(&name, version)?;
        match self.storage().create(&key, vec![Bytes::new()]).await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        // A prune that looked for pins before this one was there may have removed the version.
        match exists().await {
            Err(error @ Error::NotFound(_)) => {
                self.storage().delete(&key).await?;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Lets a version be pruned again. What is not pinned is no error.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn unpin(&self, name: &str, version: Version) -> Result<()> {
        let name = Name::new(name)?;
        if !(1..=MAX_VERSION).contains(&version) {
            return Ok(());
        }
        self.prepare_change().await?;
        Ok(self
            .storage()
            .delete(&self.pin_key(&name, version)?)
            .await?)
    }

    /// The pinned versions, ascending.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn pins(&self, name: &str) -> Result<Vec<Version>> {
        let pins = self.pinned(&Name::new(name)?).await?;
        Ok(pins.into_iter().collect())
    }

    async fn fates(
        &self,
        name: &Name,
        retention: &Retention,
        age: Age,
    ) -> Result<Vec<PruneDecision>> {
        let (versions, ages) = self.versions_and_ages(name, age).await?;
        // After the versions: a pin of one that was listed is seen.
        let pinned = self.pinned(name).await?;
        self.decide(name, versions, ages, retention, &pinned).await
    }

    /// Decides about each version for a purge, which no rule and no pin stops.
    async fn purge_fates(&self, name: &Name, purge: Purge) -> Result<Vec<PruneDecision>> {
        let age = match purge {
            Purge::AfterGrace => Age::Checked(None),
            Purge::Now => Age::Unchecked,
        };
        let (versions, ages) = self.versions_and_ages(name, age).await?;
        self.decide(
            name,
            versions,
            ages,
            &Retention::nothing(),
            &BTreeSet::new(),
        )
        .await
    }

    async fn versions_and_ages(
        &self,
        name: &Name,
        age: Age,
    ) -> Result<(Vec<(Version, ObjectMeta)>, Ages)> {
        let mut grace = self.store.prune_grace().await?;
        let shorter = match age {
            Age::Checked(shorter) | Age::Planned(shorter) => shorter,
            Age::Unchecked => None,
        };
        grace = grace.min(shorter.unwrap_or(grace));
        let storage_time = match age {
            Age::Checked(_) => Some(self.store.storage_time(grace).await?),
            Age::Planned(_) | Age::Unchecked => None,
        };
        let (versions, mut now) = self.listed(name).await?;
        if let Some(storage_time) = storage_time {
            now = clock::list_time(now, storage_time, grace)?;
        }
        let ages = Ages {
            grace,
            now,
            // Where all hosts are stopped, no save is lost that a grace period protects.
            by_trailer: shorter.is_none() && !matches!(age, Age::Unchecked),
        };
        Ok((versions, ages))
    }

    async fn decide(
        &self,
        name: &Name,
        versions: Vec<(Version, ObjectMeta)>,
        ages: Ages,
        retention: &Retention,
        pinned: &BTreeSet<Version>,
    ) -> Result<Vec<PruneDecision>> {
        let mut rules = Rules::new(retention, ages.grace, ages.now, pinned);
        let fates = versions.into_iter().map(|(version, meta)| PruneDecision {
            version,
            stored_size: meta.size,
            created: meta.created,
            keep: rules.keep(version, &meta),
        });
        let mut fates: Vec<_> = fates.collect();
        // A storage's times may be later than what they are of: on a disk they change with every
        // name that a file gets or loses. A version is never older than one below it.
        let recent = |fate: &PruneDecision| fate.keep == Some(KeepReason::Recent);
        if let Some(lowest) = fates.iter().rposition(recent) {
            for fate in &mut fates[..lowest] {
                fate.keep.get_or_insert(KeepReason::Recent);
            }
        }
        if ages.by_trailer {
            self.keep_young_by_trailer(name, &mut fates, ages, retention.keep_within)
                .await?;
        }
        Ok(fates)
    }

    /// Keeps the versions that only the storage calls old: its clock may have been behind when the
    /// versions above them were made.
    ///
    /// The trailer of a version has the time of the host that saved it, and was written when the
    /// versions below were there. So one old trailer shows that everything below it is old. One is
    /// read where no clock was wrong; else a binary search finds the newest version with an old
    /// trailer.
    async fn keep_young_by_trailer(
        &self,
        name: &Name,
        fates: &mut [PruneDecision],
        ages: Ages,
        keep_within: Duration,
    ) -> Result<()> {
        let limits = AgeLimits {
            min: ages.grace.max(keep_within),
            ahead: ages.grace,
        };
        let doomed = |(at, fate): (usize, &PruneDecision)| fate.keep.is_none().then_some(at);
        let doomed: Vec<_> = fates.iter().enumerate().filter_map(doomed).collect();
        let mut young = 0;
        let mut old = doomed.len();
        let mut next = 0;
        while young < old {
            // The newest version is never doomed.
            let above = fates[doomed[next] - 1].version;
            if self
                .is_older_by_trailer(name, above, ages.now, limits)
                .await?
            {
                old = next
            } else {
                young = next + 1
            }
            next = young + (old - young) / 2;
        }
        let why = if keep_within > ages.grace {
            KeepReason::Within
        } else {
            KeepReason::Recent
        };
        for &at in &doomed[..young] {
            fates[at].keep = Some(why);
        }
        if young > 0 {
            tracing::info!(
                versions = young,
                "kept versions that are old by the storage's clock alone"
            );
        }
        Ok(())
    }

    /// Returns true where the trailer of a version does not say that it is younger than
    /// `limits.min`. A trailer that cannot be read shows nothing.
    async fn is_older_by_trailer(
        &self,
        name: &Name,
        version: Version,
        now: SystemTime,
        limits: AgeLimits,
    ) -> Result<bool> {
        match self.trailer(name, version).await {
            Ok(trailer) => {
                let age = clock::claimed_age(trailer.metadata.created_at, now, limits.ahead);
                Ok(age.is_none_or(|age| age > limits.min))
            }
            // Also where another prune removed it meanwhile.
            Err(error) if error.is_of_file() => Ok(false),
            Err(error) if self.is_of_one_version(name, &error).await => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All versions, newest first, and the storage's time when the first of them was listed.
    async fn listed(&self, name: &Name) -> Result<(Vec<(Version, ObjectMeta)>, SystemTime)> {
        let dir = self.dir_of(name);
        let list = List::new(&dir).with_limit(PAGE).with_meta();
        let mut pages = Pager::new(self.storage(), list);
        let mut versions = Vec::new();
        let mut now = None;
        while let Some(page) = pages.next().await? {
            now = now.or(page.now);
            versions.extend(versions_in(page.entries)?);
        }
        Ok((versions, now.ok_or_else(no_times)?))
    }

    async fn pinned(&self, name: &Name) -> Result<BTreeSet<Version>> {
        let dir = self.dir_of(name);
        let list = List::new(&dir)
            .with_prefix(layout::PIN_PREFIX)
            .with_limit(PAGE);
        let mut pages = Pager::new(self.storage(), list);
        let mut pinned = BTreeSet::new();
        while let Some(page) = pages.next().await? {
            let names = page.entries.iter().map(Entry::name);
            pinned.extend(names.filter_map(layout::parse_pin));
        }
        Ok(pinned)
    }

    fn pin_key(&self, name: &Name, version: Version) -> Result<Key> {
        let dir = self.dir_of(name);
        Ok(Key::new(format!("{dir}/{}", layout::pin_segment(version)))?)
    }

    /// The tombstone that everything is removed below: a new one, or the newest version where that
    /// is one already.
    async fn tombstone_for_purge(&self, name: &str) -> Result<Version> {
        let mut head = None;
        for _ in 0..MAX_REREADS {
            match self.delete(name, Expect::Any).await {
                Ok(info) => return Ok(info.version),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            let Some(info) = self.stat(name, None).await? else {
                return Err(self.missing(&Name::new(name)?, None));
            };
            if info.deleted {
                return Ok(info.version);
            }
            // Another writer saved meanwhile.
            head = Some(info.version);
        }
        Err(Error::Conflict { head })
    }
}

/// Evidence that a version is old. Some: a grace period that is shorter than the store's, where all
/// hosts are stopped.
#[derive(Clone, Copy, Debug)]
enum Age {
    /// For a removal: the storage's clock is probed first, and times of the storage are compared
    /// with trailers.
    Checked(Option<Duration>),
    /// For a plan: times of the storage are compared with trailers.
    Planned(Option<Duration>),
    /// For a removal that does not go by age.
    Unchecked,
}

/// How the ages of listed versions are told.
#[derive(Clone, Copy, Debug)]
struct Ages {
    grace: Duration,
    now: SystemTime,
    /// True if trailers must fit the storage's times.
    by_trailer: bool,
}

/// How the creation time in a trailer is judged.
#[derive(Clone, Copy, Debug)]
struct AgeLimits {
    /// The age above which it is old.
    min: Duration,
    /// A time that is further ahead than this is not believed.
    ahead: Duration,
}

/// A version that may go to make room for others.
#[cfg(feature = "guest")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removable {
    pub(crate) version: Version,
    pub(crate) stored_size: u64,
    /// How long it was the newest version: the shorter, the less is lost with it.
    pub(crate) newest_for: Duration,
}

impl Store {
    /// Returns the storage's time now, after its clock and this host's were compared.
    async fn storage_time(&self, grace: Duration) -> Result<SystemTime> {
        let clock = &self.shared.clock;
        clock.check_host(grace)?;
        match clock.now(grace) {
            Some(now) => Ok(now),
            None => {
                let probe = store_init::probe_clock(self).await?;
                clock.observe(probe, grace)
            }
        }
    }
}

/// Returns the versions among the entries of a list that was asked for their times.
pub(super) fn versions_in(entries: Vec<Entry>) -> Result<Vec<(Version, ObjectMeta)>> {
    let mut versions = Vec::new();
    for entry in entries {
        if let Entry::Object(object) = entry
            && let Some(version) = layout::parse_version(&object.name)
        {
            versions.push((version, object.meta.ok_or_else(no_times)?));
        }
    }
    Ok(versions)
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.kind() == ErrorKind::NoSpace)
}

/// Applies the rules to versions that come newest first.
struct Rules<'a> {
    retention: &'a Retention,
    grace: Duration,
    now: SystemTime,
    pinned: &'a BTreeSet<Version>,
    seen: usize,
    /// When the version above was made.
    superseded: Option<SystemTime>,
    hours: Buckets,
    days: Buckets,
    weeks: Buckets,
}

impl<'a> Rules<'a> {
    fn new(
        retention: &'a Retention,
        grace: Duration,
        now: SystemTime,
        pinned: &'a BTreeSet<Version>,
    ) -> Self {
        Self {
            retention,
            grace,
            now,
            pinned,
            seen: 0,
            superseded: None,
            hours: Buckets::new(HOUR, retention.keep_hourly),
            days: Buckets::new(DAY, retention.keep_daily),
            weeks: Buckets::new(WEEK, retention.keep_weekly),
        }
    }

    fn keep(&mut self, version: Version, meta: &ObjectMeta) -> Option<KeepReason> {
        // What is from the future is new.
        let age = |time| self.now.duration_since(time).unwrap_or_default();
        let superseded = self.superseded.replace(meta.created);
        let replaced_within = |limit| superseded.is_some_and(|time| age(time) <= limit);
        let rank = self.seen;
        self.seen += 1;
        // Every version counts for its hour, day and week, whatever else keeps it.
        let hourly = self.hours.take(meta);
        let daily = self.days.take(meta);
        let weekly = self.weeks.take(meta);
        let rules = [
            (rank == 0, KeepReason::Head),
            (replaced_within(self.grace), KeepReason::Recent),
            (self.pinned.contains(&version), KeepReason::Pinned),
            (rank < self.retention.keep_last, KeepReason::Last),
            (
                replaced_within(self.retention.keep_within),
                KeepReason::Within,
            ),
            (hourly, KeepReason::Hourly),
            (daily, KeepReason::Daily),
            (weekly, KeepReason::Weekly),
        ];
        rules.into_iter().find(|rule| rule.0).map(|rule| rule.1)
    }
}

/// Finds the newest version of each of the last N hours, days or weeks that have one.
struct Buckets {
    seconds: u64,
    left: usize,
    last: Option<u64>,
}

impl Buckets {
    fn new(seconds: u64, left: usize) -> Self {
        Self {
            seconds,
            left,
            last: None,
        }
    }

    fn take(&mut self, meta: &ObjectMeta) -> bool {
        let since = meta.created.duration_since(SystemTime::UNIX_EPOCH);
        let bucket = (since.unwrap_or_default().as_secs() + BEFORE_EPOCH) / self.seconds;
        if self.left == 0 || self.last == Some(bucket) {
            return false;
        }
        self.left -= 1;
        self.last = Some(bucket);
        true
    }
}

fn no_times() -> Error {
    Error::unsupported(
        "this storage does not report when objects were created, so nothing can be pruned by age",
    )
}
