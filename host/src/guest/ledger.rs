//! Counts what guests use, across their instances.
//!
//! | counted | of a scope | of the host |
//! |---|---|---|
//! | runs | wait for their turn, for a time | wait for their turn, for a time |
//! | calls in flight | refused at once | wait for their turn |
//! | open writers, open readers | refused at once | told to try later |
//! | changes, reads and bytes read in a minute | refused at once | |
//! | names at rest | refused | |
//! | bytes and versions at rest | refused, after old versions were pruned | |
//!
//! A guest's own ceiling comes first, so that a guest at it does not touch the one that others
//! share. Nothing here waits for something that only a guest can give back: a writer stays open as
//! long as its guest likes, a call ends.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::GuestError;
use super::limits::{Limits, to_usize};
use super::lock::lock;
use super::storage_quota::StorageQuota;
use crate::snapshot::Scope;

/// Time for which an unused scope is remembered, with its changes of the last minute and what it
/// has at rest.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// How often what is not used is looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Counts what guests use, so that a guest with many instances has one allowance, and all guests of
/// a host share another. Clones share the counts.
///
/// A runner has one for all its agents. A program with an engine of its own makes one, and gives it
/// to every [`Guest`](super::Guest). Without one, each guest and its clones count for themselves.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::guest::{Guest, Ledger, Limits};
/// use persist_host::snapshot::Store;
/// use persist_host::storage::Memory;
///
/// let ledger = Ledger::new(&Limits::default());
/// let store = Store::new(Arc::new(Memory::new()));
/// let guest = Guest::builder(store.scope("bot", None)?).ledger(&ledger).build();
/// # Ok::<(), persist_host::snapshot::Error>(())
/// ```
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    calls: Arc<Semaphore>,
    writers: Count,
    readers: Count,
    max_writers: u64,
    max_readers: u64,
    /// Runs of one scope at the same time.
    max_runs: usize,
    scopes: Mutex<Scopes>,
}

struct Scopes {
    usage: HashMap<Key, Arc<ScopeUsage>>,
    swept: Instant,
}

/// Store, agent and session.
type Key = (usize, String, Option<String>);

/// Usage that is counted for one scope.
pub(super) struct ScopeUsage {
    calls: Count,
    writers: Count,
    readers: Count,
    runs: Arc<Semaphore>,
    changes: Mutex<Rate>,
    reads: Mutex<Rate>,
    bytes_read: Mutex<Rate>,
    pub(super) quota: Arc<StorageQuota>,
    used: Mutex<Instant>,
}

/// Number of items that are open at the moment, of a scope or of the host.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

/// One that is counted, until it is dropped.
struct Counted(Arc<AtomicU64>);

/// A writer's or a reader's place, until it is dropped.
pub(super) struct SlotGuard {
    _scope: Counted,
    _host: Counted,
}

/// A call's place, until it is dropped.
pub(super) struct Call {
    _scope: Option<Counted>,
    _host: OwnedSemaphorePermit,
}

/// A permit of one run. The run is counted until the permit is dropped.
#[derive(Debug)]
pub struct RunPermit {
    _permit: OwnedSemaphorePermit,
}

/// A token bucket: as many as a minute allows, and as many again each minute.
struct Rate {
    /// Below zero after something that turned out to be larger than what was left.
    left: f64,
    at: Instant,
}

impl Ledger {
    /// One that has counted nothing. Of `limits`, it takes those of the host.
    pub fn new(limits: &Limits) -> Self {
        let calls = to_usize(limits.host_calls).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                calls: Arc::new(Semaphore::new(calls)),
                writers: Count::default(),
                readers: Count::default(),
                max_writers: limits.host_writers,
                max_readers: limits.host_readers,
                max_runs: to_usize(limits.share_of_runs()).min(Semaphore::MAX_PERMITS),
                scopes: Mutex::new(Scopes {
                    usage: HashMap::new(),
                    swept: Instant::now(),
                }),
            }),
        }
    }

    /// Returns the usage of a scope: the same counters for every handle of it.
    pub(super) fn usage(&self, scope: &Scope) -> Arc<ScopeUsage> {
        let session = scope.session().map(|name| name.as_str().to_owned());
        let key = (scope.store_id(), scope.agent().as_str().to_owned(), session);
        let mut scopes = lock(&self.shared.scopes);
        scopes.sweep();
        let new = || Arc::new(ScopeUsage::new(scope.clone(), self.shared.max_runs));
        let usage = scopes.usage.entry(key).or_insert_with(new);
        *lock(&usage.used) = Instant::now();
        Arc::clone(usage)
    }

    /// A place for one more call of a scope.
    pub(super) async fn call(&self, usage: &ScopeUsage, max: u64) -> Result<Call, GuestError> {
        let counted = usage.calls.take(max);
        let counted = counted.ok_or_else(|| GuestError::quota("calls-in-flight", max))?;
        let mut call = self.call_of_handle().await?;
        call._scope = Some(counted);
        Ok(call)
    }

    /// A place for a call of a writer or a reader, which its scope has already.
    pub(super) async fn call_of_handle(&self) -> Result<Call, GuestError> {
        let calls = Arc::clone(&self.shared.calls);
        // Every call ends, for storage gives up in time: so this is a queue, and not a lock.
        let permit = calls.acquire_owned().await;
        Ok(Call {
            _scope: None,
            _host: permit.map_err(|_| GuestError::later())?,
        })
    }

    pub(super) fn writer(&self, usage: &ScopeUsage, max: u64) -> Result<SlotGuard, GuestError> {
        let of_host = (&self.shared.writers, self.shared.max_writers);
        place((&usage.writers, max), of_host, "open-writers")
    }

    pub(super) fn reader(&self, usage: &ScopeUsage, max: u64) -> Result<SlotGuard, GuestError> {
        let of_host = (&self.shared.readers, self.shared.max_readers);
        place((&usage.readers, max), of_host, "open-readers")
    }
}

fn place(
    (scope, max): (&Count, u64),
    (host, host_max): (&Count, u64),
    limit: &'static str,
) -> Result<SlotGuard, GuestError> {
    Ok(SlotGuard {
        _scope: scope
            .take(max)
            .ok_or_else(|| GuestError::quota(limit, max))?,
        _host: host.take(host_max).ok_or_else(GuestError::later)?,
    })
}

impl Scopes {
    /// Forgets scopes that were not used for a while.
    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        self.usage.retain(|_, usage| {
            let is_used = Arc::strong_count(usage) > 1 || Arc::strong_count(&usage.quota) > 1;
            is_used || lock(&usage.used).elapsed() < REMEMBERED
        });
    }
}

impl ScopeUsage {
    fn new(scope: Scope, max_runs: usize) -> Self {
        Self {
            calls: Count::default(),
            writers: Count::default(),
            readers: Count::default(),
            runs: Arc::new(Semaphore::new(max_runs)),
            changes: Mutex::default(),
            reads: Mutex::default(),
            bytes_read: Mutex::default(),
            quota: Arc::new(StorageQuota::new(scope)),
            used: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the scope may have one more run.
    pub(super) async fn run_permit(&self) -> Result<RunPermit, GuestError> {
        let permit = Arc::clone(&self.runs).acquire_owned().await;
        Ok(RunPermit {
            _permit: permit.map_err(|_| GuestError::later())?,
        })
    }

    /// Counts a change.
    pub(super) fn change(&self, limits: &Limits) -> Result<(), GuestError> {
        let max = limits.saves_per_minute;
        if !lock(&self.changes).take(max, Instant::now()) {
            return Err(GuestError::quota("saves-per-minute", max));
        }
        Ok(())
    }

    /// Counts a read that is about to be made. What it returns is counted with
    /// [`ScopeUsage::has_read`], as it is not known before.
    pub(super) fn read(&self, limits: &Limits) -> Result<(), GuestError> {
        let max = limits.reads_per_minute;
        let max_bytes = limits.bytes_read_per_minute;
        let now = Instant::now();
        if !lock(&self.bytes_read).has_left(max_bytes, now) {
            return Err(GuestError::quota("bytes-read-per-minute", max_bytes));
        }
        if !lock(&self.reads).take(max, now) {
            return Err(GuestError::quota("reads-per-minute", max));
        }
        Ok(())
    }

    /// Counts what a read cost: further requests, such as one for each version of a history, and
    /// bytes of the storage.
    pub(super) fn has_read(&self, more_reads: u64, bytes: u64) {
        lock(&self.reads).left -= more_reads as f64;
        lock(&self.bytes_read).left -= bytes as f64;
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            left: f64::INFINITY,
            at: Instant::now(),
        }
    }
}

impl Rate {
    fn take(&mut self, max: u64, now: Instant) -> bool {
        let may = self.has_left(max, now);
        if may {
            self.left -= 1.0;
        }
        may
    }

    fn has_left(&mut self, max: u64, now: Instant) -> bool {
        // Of a clock that does not go back, whatever the time of day does.
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        let max = max as f64;
        self.at = now;
        self.left = (self.left + minutes * max).min(max);
        self.left >= 1.0
    }
}

impl Count {
    fn take(&self, max: u64) -> Option<Counted> {
        let more = |open: u64| (open < max).then(|| open + 1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()
            .map(|_| Counted(Arc::clone(&self.0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl fmt::Debug for SlotGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotGuard")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_at_its_ceiling_does_not_touch_the_one_of_the_host() {
        let scope = Count::default();
        let host = Count::default();
        let held: Vec<_> = (0..9)
            .map(|_| place((&scope, 2), (&host, 3), "open-writers").ok())
            .collect();
        assert_eq!(held.iter().flatten().count(), 2);
        assert_eq!(host.0.load(Ordering::Acquire), 2);
        drop(held);
        assert_eq!(scope.0.load(Ordering::Acquire), 0);
        assert_eq!(host.0.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_place_that_the_host_has_not_is_given_back_to_the_scope() {
        let scope = Count::default();
        let host = Count::default();
        assert!(place((&scope, 9), (&host, 0), "open-writers").is_err());
        assert_eq!(scope.0.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_minute_gives_back_what_a_minute_allows_and_no_more() {
        let start = Instant::now();
        let mut changes = Rate {
            left: f64::INFINITY,
            at: start,
        };
        let mut made = |after: u64| {
            let now = start + Duration::from_secs(after);
            (0..100).filter(|_| changes.take(60, now)).count()
        };
        assert_eq!(made(0), 60);
        assert_eq!(made(10), 10);
        assert_eq!(made(1000), 60);
        assert_eq!(made(999), 0, "a clock that went back gives nothing");
    }

    #[test]
    fn a_read_larger_than_what_was_left_delays_the_next() {
        let start = Instant::now();
        let mut bytes = Rate {
            left: f64::INFINITY,
            at: start,
        };
        assert!(bytes.has_left(60, start));
        bytes.left -= 100.0;
        let mut after = |seconds| bytes.has_left(60, start + Duration::from_secs(seconds));
        assert!(!after(40), "60 - 100 + 40 is nothing");
        assert!(after(41));
    }
}
