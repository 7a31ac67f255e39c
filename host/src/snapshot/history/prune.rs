//! Pruning of a name's history, and pins.
//!
//! Pruning runs beside writers, without a lock. What makes that safe is one rule: it never touches
//! the newest version, nor one that was the newest within the grace
//! ([`StoreOptions::grace`]). How long a version has not been the newest is
//! told by the age of the one above it, whose writer saw it there before it began; and ages are
//! differences between times of the storage's own clock. That clock may have been behind when a
//! version was made, so an age must also fit the creation time in the trailer.
//! docs/src/durability.md argues why a writer that slept cannot lose a save then. Versions go in
//! ascending order, so that what is left of a prune that was cut short is what a shorter history
//! would be.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::snapshot::ordered_tasks::OrderedTasks;
use crate::snapshot::read::{no_times, versions_in};
use crate::snapshot::retention::Rules;
use crate::snapshot::setup::probe_clock;
use crate::snapshot::shared::{ScopeRef, StoreRef};
use crate::snapshot::{
    Error, KeepReason, MAX_VERSION, Name, PruneDecision, Result, Retention, Version, clock, layout,
};
#[cfg(doc)]
use crate::snapshot::{Scope, StoreOptions};
use crate::storage::{Entry, ErrorKind, List, ObjectMeta, Pager};

/// Versions whose labels are read at the same time.
const AT_ONCE: usize = 8;

/// Versions that are looked at together.
const PAGE: usize = 10_000;

/// Versions that are removed before the pins are listed again.
const PIN_CHECK: usize = 50;

impl ScopeRef {
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

    /// Removes versions that [`ScopeRef::removable`] listed, which are to be ascending.
    #[cfg(feature = "guest")]
    pub(crate) async fn remove(&self, name: &Name, versions: &[Version]) -> Result<()> {
        for &version in versions {
            self.storage().delete(&self.key(name, version)?).await?;
        }
        Ok(())
    }

    /// Prunes as [`Scope::prune`] does, at most the oldest `most` versions. A shorter grace period
    /// than the store's is only for a store whose hosts are stopped.
    pub(crate) async fn prune_at_most(
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

    /// Keeps a version from being pruned.
    pub(crate) async fn pin(&self, name: &Name, version: Version) -> Result<()> {
        let exists = async || self.open(name, Some(version)).await.map(drop);
        match exists().await {
            Err(error) if !error.is_of_file() => return Err(error),
            _ => {}
        }
        self.prepare_change().await?;
        let key = self.pin_key(name, version)?;
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

    /// Lets a version be pruned again.
    pub(crate) async fn unpin(&self, name: &Name, version: Version) -> Result<()> {
        if !(1..=MAX_VERSION).contains(&version) {
            return Ok(());
        }
        self.prepare_change().await?;
        Ok(self.storage().delete(&self.pin_key(name, version)?).await?)
    }

    pub(crate) async fn fates(
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

    pub(crate) async fn versions_and_ages(
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

    pub(crate) async fn decide(
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
        self.keep_labelled(name, &mut fates, retention).await?;
        Ok(fates)
    }

    /// Keeps the versions whose labels a rule keeps. One whose labels cannot be read is kept, too.
    async fn keep_labelled(
        &self,
        name: &Name,
        fates: &mut [PruneDecision],
        retention: &Retention,
    ) -> Result<()> {
        if retention.keep_labels.is_empty() {
            return Ok(());
        }
        let mut looks = OrderedTasks::new(AT_ONCE);
        let mut kept = BTreeSet::new();
        for fate in fates.iter().filter(|fate| fate.keep.is_none()) {
            let scope = self.clone();
            let name = name.clone();
            let retention = retention.clone();
            let version = fate.version;
            let look = async move {
                let is_kept = scope.is_labelled(&name, version, &retention).await?;
                Ok(is_kept.then_some(version))
            };
            kept.extend(looks.push(look).await?.flatten());
        }
        while let Some(version) = looks.next().await? {
            kept.extend(version);
        }
        for fate in fates.iter_mut().filter(|fate| kept.contains(&fate.version)) {
            fate.keep.get_or_insert(KeepReason::Labelled);
        }
        Ok(())
    }

    /// Returns true if a rule keeps the labels of a version, or if they cannot be read.
    pub(crate) async fn is_labelled(
        &self,
        name: &Name,
        version: Version,
        retention: &Retention,
    ) -> Result<bool> {
        if retention.keep_labels.is_empty() {
            return Ok(false);
        }
        match self.trailer(name, version).await {
            Ok(trailer) => Ok(retention.keeps_labels(&trailer.metadata.labels)),
            // Another prune removed it.
            Err(error) if error.is_missing_object() => Ok(false),
            Err(error) if error.is_of_file() => Ok(true),
            Err(error) if self.is_of_one_version(name, &error).await => Ok(true),
            Err(error) => Err(error),
        }
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
    pub(crate) async fn is_older_by_trailer(
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
    pub(crate) async fn listed(
        &self,
        name: &Name,
    ) -> Result<(Vec<(Version, ObjectMeta)>, SystemTime)> {
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

    pub(crate) async fn pinned(&self, name: &Name) -> Result<BTreeSet<Version>> {
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
}

/// Evidence that a version is old. Some: a grace period that is shorter than the store's, where all
/// hosts are stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Age {
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
pub(crate) struct Ages {
    pub(crate) grace: Duration,
    pub(crate) now: SystemTime,
    /// True if trailers must fit the storage's times.
    pub(crate) by_trailer: bool,
}

/// How the creation time in a trailer is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgeLimits {
    /// The age above which it is old.
    pub(crate) min: Duration,
    /// A time that is further ahead than this is not believed.
    pub(crate) ahead: Duration,
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

impl StoreRef {
    /// Returns the storage's time now, after its clock and this host's were compared.
    pub(crate) async fn storage_time(&self, grace: Duration) -> Result<SystemTime> {
        let clock = &self.shared.clock;
        clock.check_host(grace)?;
        match clock.now(grace) {
            Some(now) => Ok(now),
            None => {
                let probe = probe_clock(self).await?;
                clock.observe(probe, grace)
            }
        }
    }
}
