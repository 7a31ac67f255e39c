//! In-process cache of the store's policy: for how long a head may be trusted, and by which rules
//! old versions are removed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::snapshot::clock::Moment;
use crate::snapshot::{Retention, Version};

/// Longest grace period: a prune need not look at policies that were replaced longer ago.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The policy as this process read it last.
#[derive(Debug, Default)]
pub(crate) struct PolicyCache {
    state: Mutex<Option<CachedPolicy>>,
    prune: Mutex<Option<CachedPruneGrace>>,
    /// One task reads; others wait for what it finds.
    pub(crate) reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct CachedPolicy {
    version: Option<Version>,
    /// The grace period that this process trusts heads by.
    grace: Duration,
    retention: Option<Retention>,
    /// A moment before the last read began.
    read_at: Moment,
    /// Grace periods that this process followed before, and when each ended.
    earlier: Vec<EarlierGrace>,
}

#[derive(Clone, Copy, Debug)]
struct EarlierGrace {
    grace: Duration,
    ended: Moment,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedPruneGrace {
    pub(crate) grace: Duration,
    pub(crate) good_for: Duration,
    pub(crate) read_at: Moment,
}

impl PolicyCache {
    /// Returns whether a change may go on from a head that was seen after `since`, without another
    /// look.
    pub(crate) fn is_good(&self, since: Moment) -> bool {
        let state = self.state();
        let Some(known) = &*state else {
            return false;
        };
        if !known.is_fresh() {
            return false;
        }
        // A longer grace period holds for heads that were seen after it was read. A prune that
        // began before that spares versions by the shorter one.
        let followed = known
            .earlier
            .iter()
            .filter(|earlier| !earlier.ended.is_before(since))
            .map(|earlier| earlier.grace)
            .fold(known.grace, Duration::min);
        since.elapsed() < followed / 2
    }

    /// Returns the rules by which old versions are removed without an operator; none where every
    /// version is kept.
    pub(crate) fn retention(&self) -> Option<Retention> {
        self.state()
            .as_ref()
            .and_then(|known| known.retention.clone())
    }

    /// Returns true if the policy need not be read again.
    pub(crate) fn is_fresh(&self) -> bool {
        self.state().as_ref().is_some_and(CachedPolicy::is_fresh)
    }

    /// Notes what a read found that began after `read_at`. Returns whether the policy is another
    /// one than before.
    pub(crate) fn learn(
        &self,
        version: Option<Version>,
        grace: Duration,
        retention: Option<Retention>,
        read_at: Moment,
    ) -> bool {
        let mut state = self.state();
        let last = state.take();
        let is_new = last.as_ref().is_none_or(|last| last.version != version);
        let mut earlier = Vec::new();
        if let Some(last) = last {
            earlier = last.earlier;
            // None of them is trusted for longer than half the longest grace period.
            earlier.retain(|earlier| earlier.ended.elapsed() < MAX_GRACE);
            if last.grace != grace {
                earlier.push(EarlierGrace {
                    grace: last.grace,
                    ended: Moment::now(),
                });
            }
        }
        *state = Some(CachedPolicy {
            version,
            grace,
            retention,
            read_at,
            earlier,
        });
        is_new
    }

    /// Returns the grace period that a prune goes by.
    pub(crate) fn prune(&self) -> MutexGuard<'_, Option<CachedPruneGrace>> {
        self.prune.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, Option<CachedPolicy>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn of(grace: Duration) -> Self {
        let cache = Self::default();
        cache.learn(Some(1), grace, None, Moment::now());
        cache
    }
}

impl CachedPolicy {
    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < self.grace / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_seen_under_a_shorter_grace_are_trusted_by_it() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        let cache = PolicyCache::of(Duration::from_millis(20));
        let before = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        cache.learn(Some(2), hour, None, Moment::now());
        assert!(!cache.is_good(before), "half of 20 ms has passed");
        assert!(cache.is_good(Moment::now()));
        // A shorter one holds at once.
        cache.learn(Some(3), second, None, Moment::now());
        assert!(cache.is_good(Moment::now()));
        cache.learn(Some(4), Duration::ZERO, None, Moment::now());
        assert!(!cache.is_good(Moment::now()));
    }

    #[test]
    fn an_unknown_or_old_policy_trusts_no_head() {
        assert!(!PolicyCache::default().is_good(Moment::now()));
        let cache = PolicyCache::of(Duration::from_millis(10));
        std::thread::sleep(Duration::from_millis(10));
        assert!(!cache.is_good(Moment::now()));
    }
}
