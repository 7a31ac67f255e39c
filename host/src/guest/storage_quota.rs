//! Quota of a scope: names and bytes at rest.
//!
//! It is listed at first use, tracked, and listed again now and then: between hosts, the limit is
//! soft by what the others save in that time. Within a host it is not: a save has its room before
//! it begins, and gives back what it did not need.
//!
//! Lists and prunes run in tasks of their own. A run that ends while it waits for one does not end
//! it: the next run finds what it found, and a scope that takes long to list can be saved to all
//! the same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::GuestError;
use super::limits::Limits;
use super::lock::lock;
use super::rights::Rights;
use crate::snapshot::{self, Info, Scope, Version};

/// How old the listed numbers become: other hosts save, and operators prune.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// How soon they are listed again for a scope that is full: an agent that tries on and on must not
/// list on and on.
const REFRESH_FULL: Duration = Duration::from_secs(10);

/// Storage that a scope uses at rest, as far as this host knows.
pub(super) struct StorageQuota {
    /// Its store lives as long as it is counted, so that no other is taken for it.
    scope: Scope,
    numbers: Mutex<Numbers>,
    /// One looks, the others wait for what it finds. Held by the task that looks, not by the run
    /// that began it.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Numbers {
    /// Sum of what is stored.
    kept: Sum,
    /// Room for changes that are under way.
    promised: Sum,
    listed: Option<Instant>,
    pruned: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    versions: u64,
    names: u64,
}

/// Versions that a guest may have removed to make room, and how much room it wants.
struct Removal {
    /// Only versions of names that begin so.
    prefix: String,
    bytes: u64,
    limits: Limits,
}

impl Removal {
    /// None for a guest without the right `delete`: what it may not remove itself is not removed
    /// for it.
    fn of(limits: &Limits, rights: &Rights, bytes: u64) -> Option<Self> {
        rights.delete.then(|| Self {
            prefix: rights.prefix.clone(),
            bytes,
            limits: limits.clone(),
        })
    }
}

/// Room for one version that is being made. Dropping it gives the room back.
pub(super) struct Reservation {
    quota: Arc<StorageQuota>,
    bytes: u64,
    max: u64,
    /// True if the version may be the first of a new name.
    may_be_new: bool,
    /// Usage that the reservation became.
    outcome: Sum,
}

impl Reservation {
    fn take(
        quota: &Arc<StorageQuota>,
        limits: &Limits,
        bytes: u64,
        may_be_new: bool,
    ) -> Result<Self, GuestError> {
        let mut numbers = lock(&quota.numbers);
        let max = limits.bytes_at_rest;
        let max_versions = limits.versions_at_rest;
        if may_be_new && numbers.names() >= limits.names_at_rest {
            return Err(GuestError::quota("names-at-rest", limits.names_at_rest));
        }
        if numbers.versions() >= max_versions {
            return Err(GuestError::quota("versions-at-rest", max_versions));
        }
        // A version has a trailer at least.
        if bytes.max(1) > max.saturating_sub(numbers.bytes()) {
            return Err(GuestError::quota("bytes-at-rest", max));
        }
        numbers.promised.add(Sum {
            bytes,
            versions: 1,
            names: may_be_new.into(),
        });
        Ok(Self {
            quota: Arc::clone(quota),
            bytes,
            max,
            may_be_new,
            outcome: Sum::default(),
        })
    }

    /// Takes more.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), GuestError> {
        let mut numbers = lock(&self.quota.numbers);
        if bytes > self.max.saturating_sub(numbers.bytes()) {
            return Err(GuestError::quota("bytes-at-rest", self.max));
        }
        numbers.promised.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Keeps as much as the version took.
    pub(super) fn settle(mut self, made: snapshot::Result<Info>) -> snapshot::Result<Info> {
        let (bytes, version) = match &made {
            Ok(info) => (info.stored_size, info.version),
            // It may be there; the next look will tell.
            Err(snapshot::Error::UnknownOutcome { version, .. }) => (self.bytes, *version),
            Err(_) => return made,
        };
        self.outcome = Sum {
            bytes,
            versions: 1,
            names: (version == 1).into(),
        };
        made
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut numbers = lock(&self.quota.numbers);
        numbers.promised.bytes -= self.bytes;
        numbers.promised.versions -= 1;
        numbers.promised.names -= u64::from(self.may_be_new);
        numbers.kept.add(self.outcome);
    }
}

impl Numbers {
    fn bytes(&self) -> u64 {
        self.kept.bytes.saturating_add(self.promised.bytes)
    }

    fn versions(&self) -> u64 {
        self.kept.versions.saturating_add(self.promised.versions)
    }

    fn names(&self) -> u64 {
        self.kept.names.saturating_add(self.promised.names)
    }

    /// How much is to be removed so that what is wanted fits, and a sixteenth of the limit more:
    /// not every save is to make room for itself.
    fn missing(&self, removal: &Removal) -> Sum {
        let bytes = removal.limits.bytes_at_rest;
        let versions = removal.limits.versions_at_rest;
        let wanted = self.bytes().saturating_add(removal.bytes.max(1));
        let mut missing = Sum {
            bytes: wanted.saturating_sub(bytes),
            versions: (self.versions() + 1).saturating_sub(versions),
            names: 0,
        };
        if missing.bytes > 0 {
            missing.bytes += bytes / 16;
        }
        if missing.versions > 0 {
            missing.versions += versions / 16;
        }
        missing
    }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.versions = self.versions.saturating_add(other.versions);
        self.names = self.names.saturating_add(other.names);
    }

    fn is_none(self) -> bool {
        self.bytes == 0 && self.versions == 0
    }

    /// How much more this is than `before`.
    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            versions: self.versions.saturating_sub(before.versions),
            names: self.names.saturating_sub(before.names),
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl StorageQuota {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            numbers: Mutex::default(),
            looking: Arc::default(),
        }
    }

    /// Reserves storage for a version of `name` of `bytes`. If there is too little and the guest
    /// may remove something, old versions are pruned first.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        limits: &Limits,
        rights: &Rights,
        name: &str,
        bytes: u64,
    ) -> Result<Reservation, GuestError> {
        self.refresh().await?;
        let may_be_new = self.may_be_new(limits, name).await?;
        if let Ok(reservation) = Reservation::take(self, limits, bytes, may_be_new) {
            return Ok(reservation);
        }
        self.make_room(Removal::of(limits, rights, bytes)).await?;
        Reservation::take(self, limits, bytes, may_be_new)
    }

    /// Counts a tombstone. It needs no reservation: a deletion must be possible where everything is
    /// full.
    pub(super) fn count_tombstone(&self, info: &Info) {
        lock(&self.numbers).kept.add(Sum {
            bytes: info.stored_size,
            versions: 1,
            names: 0,
        });
    }

    /// Returns whether a save of `name` may make a new name. Asks the storage only where no new
    /// name is allowed, and refuses one: no pruning makes room for it.
    async fn may_be_new(&self, limits: &Limits, name: &str) -> Result<bool, GuestError> {
        let max = limits.names_at_rest;
        if lock(&self.numbers).names() < max {
            return Ok(true);
        }
        if self.scope.versions(name, None, 1).await?.is_empty() {
            return Err(GuestError::quota("names-at-rest", max));
        }
        Ok(false)
    }

    /// Looks at what is there, where that was done too long ago.
    async fn refresh(self: &Arc<Self>) -> Result<(), GuestError> {
        let is_old = || is_old(lock(&self.numbers).listed, REFRESH);
        if !is_old() {
            return Ok(());
        }
        let looking = Arc::clone(&self.looking).lock_owned().await;
        if !is_old() {
            return Ok(());
        }
        let quota = Arc::clone(self);
        outliving(async move {
            let _looking = looking;
            quota.look().await
        })
        .await
    }

    /// Prunes and looks again, where that was done too long ago.
    async fn make_room(self: &Arc<Self>, removal: Option<Removal>) -> Result<(), GuestError> {
        let looking = Arc::clone(&self.looking).lock_owned().await;
        let last = match removal {
            Some(_) => lock(&self.numbers).pruned,
            // Another host may have removed something.
            None => lock(&self.numbers).listed,
        };
        if !is_old(last, REFRESH_FULL) {
            return Ok(());
        }
        let quota = Arc::clone(self);
        outliving(async move {
            let _looking = looking;
            if let Some(removal) = &removal {
                // Where that fails, the save that wanted room is refused, as it would be without.
                if let Err(error) = quota.prune(removal).await {
                    tracing::debug!(?error, "a full scope could not be pruned");
                }
            }
            quota.look().await?;
            if removal.is_some() {
                lock(&quota.numbers).pruned = Some(Instant::now());
            }
            Ok(())
        })
        .await
    }

    async fn look(&self) -> Result<(), GuestError> {
        let before = lock(&self.numbers).kept;
        let usage = self.scope.usage().await?;
        let mut numbers = lock(&self.numbers);
        // What was made while we looked. Some of it may be counted twice, until the next look.
        let meanwhile = numbers.kept.since(before);
        numbers.kept = Sum {
            bytes: usage.bytes,
            versions: usage.versions,
            names: usage.names,
        };
        numbers.kept.add(meanwhile);
        numbers.listed = Some(Instant::now());
        Ok(())
    }

    /// Removes what the store's policy does not keep. Where that is too little, thins out the rest,
    /// what was the newest version for the shortest time first: pins, and the newest versions and
    /// those of each hour, day and week that the policy or the default rules keep, stay. A policy
    /// that keeps every version is followed.
    async fn prune(&self, removal: &Removal) -> Result<(), GuestError> {
        let Some(retention) = self.scope.policy_retention().await? else {
            return Ok(());
        };
        // Of a name with fewer versions, none goes.
        let names = self
            .scope
            .names_with_more_versions_than(retention.keep_last, &removal.prefix)
            .await?;
        for name in &names {
            self.scope.prune(name.as_str(), &retention).await?;
        }
        self.look().await?;
        let mut missing = lock(&self.numbers).missing(removal);
        if missing.is_none() {
            return Ok(());
        }
        let mut candidates = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let removable = self.scope.removable(name).await?;
            candidates.extend(removable.into_iter().map(|version| (at, version)));
        }
        candidates.sort_by_key(|(_, version)| version.newest_for);
        let mut chosen: Vec<Vec<Version>> = vec![Vec::new(); names.len()];
        for (at, version) in candidates {
            if missing.is_none() {
                break;
            }
            chosen[at].push(version.version);
            missing.bytes = missing.bytes.saturating_sub(version.stored_size);
            missing.versions = missing.versions.saturating_sub(1);
        }
        for (name, mut versions) in names.iter().zip(chosen) {
            versions.sort_unstable();
            self.scope.remove(name, &versions).await?;
        }
        Ok(())
    }
}

/// Runs `work` to its end, whether the caller still waits for it or not.
async fn outliving(
    work: impl Future<Output = Result<(), GuestError>> + Send + 'static,
) -> Result<(), GuestError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(GuestError::later()),
        },
    }
}

fn is_old(then: Option<Instant>, age: Duration) -> bool {
    then.is_none_or(|then| then.elapsed() >= age)
}
