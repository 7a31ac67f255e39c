//! Retention rules: which versions of a name are kept.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::{Info, Version};
use crate::storage::ObjectMeta;

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

    /// Returns the first rule that keeps each version, of versions that come newest first, with the
    /// time when each was created. None: no rule keeps it.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use std::time::{Duration, SystemTime};
    /// use persist_host::snapshot::{KeepReason, Retention, SaveOptions, Store};
    /// # use persist_host::storage::Memory;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let scope = Store::new(Arc::new(Memory::new())).scope("bot", None)?;
    /// # for state in ["1", "2", "3"] {
    /// #     scope.save("memory", state.into(), SaveOptions::default()).await?;
    /// # }
    /// let history = scope.history("memory", None, 10).await?;
    /// let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
    /// let versions: Vec<_> = history.iter().map(|info| (info, long_ago)).collect();
    /// let mut retention = Retention::nothing();
    /// retention.keep_last = 2;
    /// let kept = retention.decide(&versions, Duration::ZERO, SystemTime::now());
    /// assert_eq!(kept, [Some(KeepReason::Head), Some(KeepReason::Last), None]);
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn decide(
        &self,
        versions: &[(&Info, SystemTime)],
        grace: Duration,
        now: SystemTime,
    ) -> Vec<Option<KeepReason>> {
        let pinned = BTreeSet::new();
        let mut rules = Rules::new(self, grace, now, &pinned);
        let decide = |(info, created): &(&Info, SystemTime)| {
            let meta = ObjectMeta {
                size: info.stored_size,
                created: *created,
            };
            rules.keep(info.version, &meta)
        };
        versions.iter().map(decide).collect()
    }

    /// Returns the rules by which a full scope is thinned out: at least the default numbers of
    /// versions, however few these rules keep. A rule by age would keep whatever a flood of saves
    /// made.
    #[cfg(feature = "guest")]
    pub(crate) fn when_full(&self) -> Self {
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

/// Applies the rules to versions that come newest first.
pub(crate) struct Rules<'a> {
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
    pub(crate) fn new(
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

    /// Returns the first rule that keeps the next version.
    pub(crate) fn keep(&mut self, version: Version, meta: &ObjectMeta) -> Option<KeepReason> {
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
