//! In-process cache of head versions, so that a save can skip the LIST.
//!
//! An entry comes from a list, or from a version that this process created. Another host may save
//! at any moment: then the cached head is stale, the conditional create is refused, and the head is
//! listed again. Only changes use the cache, and only for half the grace period, in which no newer
//! version can have been created and pruned (docs/src/durability.md, "Writers that sleep"). Reads
//! always list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::policy_cache::PolicyCache;
use crate::snapshot::clock::Moment;
use crate::snapshot::{Info, Version};

/// Names whose heads are kept, at most: some hundred bytes each.
const MAX_KNOWN: usize = 10_000;

/// The newest version of a name, and what is known of it without another read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: Version,
    pub(crate) sha256: Option<String>,
    /// True if it is a tombstone.
    pub(crate) deleted: Option<bool>,
}

impl Head {
    /// One of which only the number is known.
    pub(crate) fn of(version: Version) -> Self {
        Self {
            version,
            sha256: None,
            deleted: None,
        }
    }
}

impl From<&Info> for Head {
    fn from(info: &Info) -> Self {
        Self {
            version: info.version,
            sha256: Some(info.sha256.clone()),
            deleted: Some(info.deleted),
        }
    }
}

/// Observation of a name.
#[derive(Clone, Debug)]
pub(crate) struct HeadObservation {
    /// Its head; none: nothing was saved.
    pub(crate) head: Option<Head>,
    /// This was so at some moment after this one.
    pub(crate) since: Moment,
}

impl HeadObservation {
    /// The version of the head; 0: nothing was saved.
    pub(crate) fn version(&self) -> Version {
        self.head.as_ref().map_or(0, |head| head.version)
    }
}

/// The heads of names, by their directories.
#[derive(Debug)]
pub(crate) struct HeadCache {
    /// Tells for how long a head is good.
    policy: Arc<PolicyCache>,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    seen: HeadObservation,
    /// When this was learnt.
    at: Moment,
    /// True if a change may be based on the observation.
    trusted: bool,
    /// True if others write this name, too. Then our own last version is looked up before the next,
    /// which costs less than a create that is refused; this ends when no other writer wrote in
    /// between.
    shared: bool,
}

impl HeadCache {
    pub(crate) fn new(policy: Arc<PolicyCache>) -> Self {
        Self {
            policy,
            known: Mutex::default(),
        }
    }

    /// Returns true if an observation made after `since` may still be the base of a change.
    pub(crate) fn is_good(&self, since: Moment) -> bool {
        self.policy.is_good(since)
    }

    /// Returns the observation that a change may be based on without a lookup. Never returns one
    /// without a head: a store may be copied to where nothing is, and histories that were pruned do
    /// not begin with version 1.
    pub(crate) fn get(&self, dir: &str) -> Option<HeadObservation> {
        let known = self.known();
        let known = known.get(dir)?;
        let good = known.trusted && known.seen.head.is_some() && self.is_good(known.seen.since);
        good.then(|| known.seen.clone())
    }

    /// After a list that showed this.
    pub(crate) fn record_listed(&self, dir: &str, seen: &HeadObservation) {
        self.learn(dir, seen.clone(), |known, last| {
            known.shared = last.is_some_and(|last| last != known.seen.version());
            known.trusted = true;
        });
    }

    /// After this process made a version, which it began to do at this moment.
    pub(crate) fn record_created(&self, dir: &str, head: Head, since: Moment) {
        let seen = HeadObservation {
            head: Some(head),
            since,
        };
        self.learn(dir, seen, |known, _| known.trusted = !known.shared);
    }

    /// After another writer created this version first.
    pub(crate) fn invalidate(&self, dir: &str, version: Version) {
        if let Some(known) = self.known().get_mut(dir)
            // Else it was another task of this process.
            && known.seen.version() < version
        {
            (known.shared, known.trusted) = (true, false);
        }
    }

    /// After a change that may have been made.
    pub(crate) fn mark_uncertain(&self, dir: &str) {
        if let Some(known) = self.known().get_mut(dir) {
            known.trusted = false;
        }
    }

    /// Puts down what was seen, and then `mark`s it, knowing the version that was there before.
    fn learn(
        &self,
        dir: &str,
        seen: HeadObservation,
        mark: impl FnOnce(&mut Known, Option<Version>),
    ) {
        let mut heads = self.known();
        let Some(known) = heads.get_mut(dir) else {
            if heads.len() >= MAX_KNOWN {
                self.make_room(&mut heads);
            }
            let mut known = Known {
                seen,
                at: Moment::now(),
                trusted: false,
                shared: false,
            };
            mark(&mut known, None);
            heads.insert(dir.to_owned(), known);
            return;
        };
        let last = known.seen.version();
        let new = seen.version();
        // A call that began earlier may end later. What is lower otherwise is a store that
        // vanished, or was put back.
        if new < last && seen.since.is_before(known.at) {
            return;
        }
        known.at = Moment::now();
        let HeadObservation { head, since } = std::mem::replace(&mut known.seen, seen);
        if new == last {
            if known.seen.since.is_before(since) {
                known.seen.since = since;
            }
            // A list tells less of it.
            if known
                .seen
                .head
                .as_ref()
                .is_some_and(|head| head.deleted.is_none())
            {
                known.seen.head = head;
            }
        }
        mark(known, Some(last));
    }

    fn make_room(&self, heads: &mut HashMap<String, Known>) {
        heads.retain(|_, known| known.trusted && self.is_good(known.seen.since));
        if heads.len() >= MAX_KNOWN {
            heads.clear();
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Every change of an entry leaves one that costs a look at most, wherever it was broken
        // off.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn head_cache(grace: Duration) -> HeadCache {
        HeadCache::new(Arc::new(PolicyCache::of(grace)))
    }

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn seen(version: Version) -> HeadObservation {
        HeadObservation {
            head: (version > 0).then(|| Head::of(version)),
            since: Moment::now(),
        }
    }

    fn record_created(heads: &HeadCache, version: Version) {
        heads.record_created("name", Head::of(version), Moment::now());
    }

    fn known(heads: &HeadCache) -> Option<Version> {
        heads.get("name").map(|seen| seen.version())
    }

    #[test]
    fn a_head_is_good_for_half_the_grace_and_no_longer() {
        let heads = head_cache(HOUR);
        assert_eq!(known(&heads), None);
        heads.record_listed("name", &seen(0));
        assert_eq!(known(&heads), None, "nothing is no head");
        record_created(&heads, 1);
        assert_eq!(known(&heads), Some(1));
        let heads = head_cache(Duration::ZERO);
        record_created(&heads, 1);
        assert_eq!(known(&heads), None);
    }

    #[test]
    fn a_late_observation_does_not_replace_a_newer_head() {
        let heads = head_cache(HOUR);
        let early = seen(1);
        record_created(&heads, 2);
        heads.record_listed("name", &early);
        assert_eq!(known(&heads), Some(2));
        // A list that was asked for since is right, whatever became of version 2.
        heads.record_listed("name", &seen(1));
        assert_eq!(known(&heads), Some(1));
    }

    #[test]
    fn a_name_that_others_write_is_looked_up_until_they_do_not() {
        let heads = head_cache(HOUR);
        record_created(&heads, 1);
        heads.invalidate("name", 2);
        assert_eq!(known(&heads), None, "somebody else made version 2");
        heads.record_listed("name", &seen(2));
        assert_eq!(known(&heads), Some(2), "a list is believed");
        record_created(&heads, 3);
        assert_eq!(known(&heads), None, "they may write again");
        heads.record_listed("name", &seen(3));
        record_created(&heads, 4);
        assert_eq!(known(&heads), Some(4), "they did not");
    }

    #[test]
    fn a_race_within_this_process_is_no_other_host() {
        let heads = head_cache(HOUR);
        record_created(&heads, 2);
        heads.invalidate("name", 2);
        assert_eq!(known(&heads), Some(2));
    }

    #[test]
    fn a_change_that_may_have_been_made_is_looked_for() {
        let heads = head_cache(HOUR);
        record_created(&heads, 1);
        heads.mark_uncertain("name");
        assert_eq!(known(&heads), None);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        let heads = head_cache(HOUR);
        for n in 0..2 * MAX_KNOWN {
            heads.record_listed(&n.to_string(), &seen(1));
            assert!(heads.known().len() <= MAX_KNOWN);
        }
    }
}
