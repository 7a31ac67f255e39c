//! What a scope has at rest, and room for more.
//!
//! It is listed at first use, tracked, and listed again now and then: between hosts, the limit is soft by what the others save
//! in that time. Within a host it is not: a save has its room before it begins, and gives back what it did not need.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::GuestError;
use super::ledger::{Account, lock};
use super::limits::Limits;
use crate::snapshot::{self, Info, Name, Retention};

/// How old the listed numbers become: other hosts save, and operators prune.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// How soon they are listed again for a scope that is full: an agent that tries on and on must not list on and on.
const REFRESH_FULL: Duration = Duration::from_secs(10);

/// Names that are pruned together.
const PAGE: usize = 1000;

/// What a scope has at rest, as far as this host knows.
#[derive(Default)]
pub(super) struct AtRest {
    numbers: Mutex<Numbers>,
    /// One looks, the others wait for what it finds.
    looking: tokio::sync::Mutex<()>,
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
}

/// Room for one version that is being made. Dropping it gives the room back.
pub(super) struct Room {
    account: Arc<Account>,
    bytes: u64,
    max: u64,
    /// What it became.
    outcome: Sum,
}

impl Room {
    /// Room for a version of `bytes`: pruned for, where there is too little.
    pub(super) async fn of(
        account: &Arc<Account>,
        limits: &Limits,
        retention: &Retention,
        bytes: u64,
    ) -> Result<Self, GuestError> {
        account.refresh().await?;
        if let Ok(room) = Self::take(account, limits, bytes) {
            return Ok(room);
        }
        account.make_room(retention).await?;
        Self::take(account, limits, bytes)
    }

    fn take(account: &Arc<Account>, limits: &Limits, bytes: u64) -> Result<Self, GuestError> {
        let mut numbers = lock(&account.at_rest.numbers);
        let (max, max_versions) = (limits.bytes_at_rest, limits.versions_at_rest);
        if numbers.versions() >= max_versions {
            return Err(GuestError::quota("versions-at-rest", max_versions));
        }
        // A version has a trailer at least.
        if bytes.max(1) > max.saturating_sub(numbers.bytes()) {
            return Err(GuestError::quota("bytes-at-rest", max));
        }
        numbers.promised.bytes += bytes;
        numbers.promised.versions += 1;
        Ok(Self {
            account: Arc::clone(account),
            bytes,
            max,
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
        let bytes = match &made {
            Ok(info) => info.stored_size,
            // It may be there; the next look will tell.
            Err(snapshot::Error::UnknownOutcome { .. }) => self.bytes,
            Err(_) => return made,
        };
        self.outcome = Sum { bytes, versions: 1 };
        made
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut numbers = lock(&self.account.at_rest.numbers);
        numbers.promised.bytes -= self.bytes;
        numbers.promised.versions -= 1;
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
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.versions = self.versions.saturating_add(other.versions);
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
        });
    }

    /// Looks at what is there, where that was done too long ago.
    async fn refresh(&self) -> Result<(), GuestError> {
        let is_old = || is_old(lock(&self.at_rest.numbers).listed, REFRESH);
        if !is_old() {
            return Ok(());
        }
        let _looking = self.at_rest.looking.lock().await;
        match is_old() {
            true => self.look().await,
            false => Ok(()),
        }
    }

    /// Prunes and looks again, where that was done too long ago.
    async fn make_room(&self, retention: &Retention) -> Result<(), GuestError> {
        let _looking = self.at_rest.looking.lock().await;
        if !is_old(lock(&self.at_rest.numbers).pruned, REFRESH_FULL) {
            return Ok(());
        }
        self.prune(retention).await;
        self.look().await?;
        lock(&self.at_rest.numbers).pruned = Some(Instant::now());
        Ok(())
    }

    async fn look(&self) -> Result<(), GuestError> {
        let before = lock(&self.at_rest.numbers).kept;
        let usage = self.scope.usage().await?;
        let mut numbers = lock(&self.at_rest.numbers);
        // What was made while we looked. Some of it may be counted twice, until the next look.
        let meanwhile = Sum {
            bytes: numbers.kept.bytes.saturating_sub(before.bytes),
            versions: numbers.kept.versions.saturating_sub(before.versions),
        };
        numbers.kept = Sum {
            bytes: usage.bytes,
            versions: usage.versions,
        };
        numbers.kept.add(meanwhile);
        numbers.listed = Some(Instant::now());
        Ok(())
    }

    /// Makes room. Where that fails, the save that wanted it is refused, as it would be without.
    async fn prune(&self, retention: &Retention) {
        let mut after: Option<Name> = None;
        loop {
            let last = after.as_ref().map(Name::as_str);
            let Ok(names) = self.scope.names("", last, PAGE).await else {
                return;
            };
            for name in &names {
                if let Err(error) = self.scope.prune(name.as_str(), retention).await {
                    tracing::debug!(%error, "a full scope could not be pruned");
                }
            }
            match names.into_iter().next_back() {
                Some(name) => after = Some(name),
                None => return,
            }
        }
    }
}

fn is_old(then: Option<Instant>, age: Duration) -> bool {
    then.is_none_or(|then| then.elapsed() >= age)
}
