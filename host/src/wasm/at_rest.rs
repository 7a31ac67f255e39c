//! What a scope has at rest, and room for more.
//!
//! It is listed at first use, tracked, and listed again now and then: between hosts, the limit is soft by what the others save
//! in that time. Within a host it is not: a save has its room before it begins, and gives back what it did not need.
//!
//! Lists and prunes run in tasks of their own. A run that ends while it waits for one does not end
//! it: the next run finds what it found, and a scope that takes long to list can be saved to all
//! the same.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ctx::SnapshotCtx;
use super::error::GuestError;
use super::ledger::{Account, lock};
use super::limits::Limits;
use super::rights::Rights;
use crate::snapshot::{self, Info, Retention};

/// How old the listed numbers become: other hosts save, and operators prune.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// How soon they are listed again for a scope that is full: an agent that tries on and on must not list on and on.
const REFRESH_FULL: Duration = Duration::from_secs(10);

/// What a scope has at rest, as far as this host knows.
#[derive(Default)]
pub(super) struct AtRest {
    numbers: Mutex<Numbers>,
    /// One looks, the others wait for what it finds. Held by the task that looks, not by the run
    /// that began it.
    looking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Numbers {
    /// What is there.
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

/// What a guest may have removed to make room.
#[derive(Clone)]
struct Removable {
    /// Only of names that begin so.
    prefix: String,
    retention: Retention,
}

impl Removable {
    /// None for a guest without the right `delete`: what it may not remove itself is not removed
    /// for it.
    fn of(rights: &Rights, retention: &Retention) -> Option<Self> {
        rights.delete.then(|| Self {
            prefix: rights.prefix.clone(),
            retention: retention.clone(),
        })
    }
}

/// Room for one version that is being made. Dropping it gives the room back.
pub(super) struct Room {
    account: Arc<Account>,
    bytes: u64,
    max: u64,
    /// Whether the version may be the first of a new name.
    may_be_new: bool,
    /// What it became.
    outcome: Sum,
}

impl Room {
    /// Room for a version of `name` of `bytes`: pruned for, where there is too little and the guest
    /// may remove something.
    pub(super) async fn of(ctx: &SnapshotCtx, name: &str, bytes: u64) -> Result<Self, GuestError> {
        let (account, limits) = (&ctx.account, &ctx.limits);
        account.refresh().await?;
        let may_be_new = account.may_be_new(limits, name).await?;
        if let Ok(room) = Self::take(account, limits, bytes, may_be_new) {
            return Ok(room);
        }
        let removable = Removable::of(&ctx.rights, &ctx.retention);
        account.make_room(removable).await?;
        Self::take(account, limits, bytes, may_be_new)
    }

    fn take(
        account: &Arc<Account>,
        limits: &Limits,
        bytes: u64,
        may_be_new: bool,
    ) -> Result<Self, GuestError> {
        let mut numbers = lock(&account.at_rest.numbers);
        let (max, max_versions) = (limits.bytes_at_rest, limits.versions_at_rest);
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
            account: Arc::clone(account),
            bytes,
            max,
            may_be_new,
            outcome: Sum::default(),
        })
    }

    /// Takes more.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), GuestError> {
        let mut numbers = lock(&self.account.at_rest.numbers);
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

impl Drop for Room {
    fn drop(&mut self) {
        let mut numbers = lock(&self.account.at_rest.numbers);
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
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.versions = self.versions.saturating_add(other.versions);
        self.names = self.names.saturating_add(other.names);
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

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// Counts a version that had no room of its own: a tombstone, which must be possible where everything is full.
    pub(super) fn made(&self, info: &Info) {
        lock(&self.at_rest.numbers).kept.add(Sum {
            bytes: info.stored_size,
            versions: 1,
            names: 0,
        });
    }

    /// Returns whether a save of `name` may make a new name. Asks the storage only where no new
    /// name is allowed, and refuses one: no pruning makes room for it.
    async fn may_be_new(&self, limits: &Limits, name: &str) -> Result<bool, GuestError> {
        let max = limits.names_at_rest;
        if lock(&self.at_rest.numbers).names() < max {
            return Ok(true);
        }
        if self.scope.versions(name, None, 1).await?.is_empty() {
            return Err(GuestError::quota("names-at-rest", max));
        }
        Ok(false)
    }

    /// Looks at what is there, where that was done too long ago.
    async fn refresh(self: &Arc<Self>) -> Result<(), GuestError> {
        let is_old = || is_old(lock(&self.at_rest.numbers).listed, REFRESH);
        if !is_old() {
            return Ok(());
        }
        let looking = Arc::clone(&self.at_rest.looking).lock_owned().await;
        if !is_old() {
            return Ok(());
        }
        let account = Arc::clone(self);
        outliving(async move {
            let _looking = looking;
            account.look().await
        })
        .await
    }

    /// Prunes and looks again, where that was done too long ago.
    async fn make_room(self: &Arc<Self>, removable: Option<Removable>) -> Result<(), GuestError> {
        let looking = Arc::clone(&self.at_rest.looking).lock_owned().await;
        let numbers = || lock(&self.at_rest.numbers);
        let last = match removable {
            Some(_) => numbers().pruned,
            // Another host may have removed something.
            None => numbers().listed,
        };
        if !is_old(last, REFRESH_FULL) {
            return Ok(());
        }
        let account = Arc::clone(self);
        outliving(async move {
            let _looking = looking;
            if let Some(removable) = &removable {
                account.prune(removable).await;
            }
            account.look().await?;
            if removable.is_some() {
                lock(&account.at_rest.numbers).pruned = Some(Instant::now());
            }
            Ok(())
        })
        .await
    }

    async fn look(&self) -> Result<(), GuestError> {
        let before = lock(&self.at_rest.numbers).kept;
        let usage = self.scope.usage().await?;
        let mut numbers = lock(&self.at_rest.numbers);
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

    /// Makes room. Where that fails, the save that wanted it is refused, as it would be without.
    async fn prune(&self, removable: &Removable) {
        let Removable { prefix, retention } = removable;
        // Of a name with fewer versions, none goes.
        let names = self
            .scope
            .names_with_more_versions_than(retention.keep_last, prefix);
        for name in names.await.unwrap_or_default() {
            if let Err(error) = self.scope.prune(name.as_str(), retention).await {
                tracing::debug!(%error, "a full scope could not be pruned");
            }
        }
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
