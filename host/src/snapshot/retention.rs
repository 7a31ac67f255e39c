//! Retention rules: which versions of a name are kept, and which names expire.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::{Error, Info, Name, Result, Version};
use crate::storage::ObjectMeta;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// The last day that is told apart from later ones: more than 10,000 years after 1970.
const LAST_DAY: u64 = 4_000_000;

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
    /// Keeps the newest version of each of the last N months (UTC) that have one; 0.
    pub keep_monthly: usize,
    /// Keeps the newest version of each of the last N years (UTC) that have one; 0.
    pub keep_yearly: usize,
    /// Keeps versions that have one of these labels; none. A prune reads the trailer of each
    /// version that no other rule keeps, and keeps it also where the labels cannot be read.
    pub keep_labels: Vec<LabelRule>,
}

/// Rule about versions that have a label. As text, it is `KEY` or `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LabelRule {
    /// Key of the label.
    pub key: String,
    /// Value of the label; none: any.
    pub value: Option<String>,
}

impl LabelRule {
    /// Returns the rule about a key, and about a value unless any counts.
    ///
    /// ```
    /// use persist_host::snapshot::LabelRule;
    ///
    /// let rule = LabelRule::new("release", None);
    /// assert!(rule.matches(&[("release".into(), "1.2".into())]));
    /// assert!(!rule.matches(&[("turn".into(), "4".into())]));
    /// ```
    pub fn new(key: impl Into<String>, value: Option<String>) -> Self {
        let key = key.into();
        Self { key, value }
    }

    /// Returns true if one of the labels is that of the rule.
    pub fn matches(&self, labels: &[(String, String)]) -> bool {
        let is_value = |value: &String| self.value.as_ref().is_none_or(|own| own == value);
        let mut labels = labels.iter();
        labels.any(|(key, value)| *key == self.key && is_value(value))
    }
}

impl FromStr for LabelRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err(Error::Invalid(
                "a label rule is not KEY or KEY=VALUE".into(),
            ));
        }
        Ok(Self::new(key, value))
    }
}

/// Expiry of the names of an agent, or of one of its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpireRule {
    /// The agent; none: all.
    pub agent: Option<Name>,
    /// The session of the agent; none: its own names and those of all its sessions.
    pub session: Option<Name>,
    /// Time after the last save. None: these names never expire.
    pub after: Option<Duration>,
}

impl ExpireRule {
    /// Returns the rule for the names of an agent, or of one of its sessions.
    pub fn new(agent: Option<Name>, session: Option<Name>, after: Option<Duration>) -> Self {
        Self {
            agent,
            session,
            after,
        }
    }

    /// Returns how specific the rule is, if it applies to the names of this scope.
    pub(crate) fn rank(&self, agent: &Name, session: Option<&Name>) -> Option<u8> {
        match (&self.agent, &self.session) {
            (None, _) => Some(0),
            (Some(own), None) => (own == agent).then_some(1),
            (Some(own), Some(_)) if own != agent => None,
            (Some(_), of) => (of.as_ref() == session).then_some(2),
        }
    }
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
            keep_monthly: 0,
            keep_yearly: 0,
            keep_labels: Vec::new(),
        }
    }

    /// Returns true if a rule keeps versions that have one of these labels.
    pub(crate) fn keeps_labels(&self, labels: &[(String, String)]) -> bool {
        self.keep_labels.iter().any(|rule| rule.matches(labels))
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
            let is_labelled = self.keeps_labels(&info.labels);
            let keep = rules.keep(info.version, &meta);
            keep.or(is_labelled.then_some(KeepReason::Labelled))
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
            keep_monthly: self.keep_monthly,
            keep_yearly: self.keep_yearly,
            keep_labels: self.keep_labels.clone(),
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
            keep_monthly: 0,
            keep_yearly: 0,
            keep_labels: Vec::new(),
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
    /// [`Retention::keep_monthly`].
    Monthly,
    /// [`Retention::keep_yearly`].
    Yearly,
    /// [`Retention::keep_labels`]; or its labels cannot be read, and such a rule exists.
    Labelled,
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
    months: Buckets,
    years: Buckets,
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
            hours: Buckets::new(Period::Seconds(HOUR), retention.keep_hourly),
            days: Buckets::new(Period::Seconds(DAY), retention.keep_daily),
            weeks: Buckets::new(Period::Seconds(WEEK), retention.keep_weekly),
            months: Buckets::new(Period::Month, retention.keep_monthly),
            years: Buckets::new(Period::Year, retention.keep_yearly),
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
        // Every version counts for its hour, day, week, month and year, whatever else keeps it.
        let hourly = self.hours.take(meta);
        let daily = self.days.take(meta);
        let weekly = self.weeks.take(meta);
        let monthly = self.months.take(meta);
        let yearly = self.years.take(meta);
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
            (monthly, KeepReason::Monthly),
            (yearly, KeepReason::Yearly),
        ];
        rules.into_iter().find(|rule| rule.0).map(|rule| rule.1)
    }
}

/// A stretch of time of which the newest version is kept.
#[derive(Clone, Copy)]
enum Period {
    /// An hour, a day or a week.
    Seconds(u64),
    Month,
    Year,
}

impl Period {
    /// Returns the number of the period that a time is in, in seconds since 1970 UTC.
    fn number(self, time: u64) -> u64 {
        match self {
            Self::Seconds(seconds) => (time + BEFORE_EPOCH) / seconds,
            Self::Month => {
                let (year, month) = year_and_month(time / DAY);
                year * 12 + month
            }
            Self::Year => year_and_month(time / DAY).0,
        }
    }
}

/// Returns the year and the month, from 0, of a day since 1970 (proleptic Gregorian calendar).
fn year_and_month(day: u64) -> (u64, u64) {
    let mut day = day.min(LAST_DAY);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let days = if is_leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let mut month = 0;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month)
}

/// Finds the newest version of each of the last N periods that have one.
struct Buckets {
    period: Period,
    left: usize,
    last: Option<u64>,
}

impl Buckets {
    fn new(period: Period, left: usize) -> Self {
        Self {
            period,
            left,
            last: None,
        }
    }

    fn take(&mut self, meta: &ObjectMeta) -> bool {
        if self.left == 0 {
            return false;
        }
        let since = meta.created.duration_since(SystemTime::UNIX_EPOCH);
        let bucket = self.period.number(since.unwrap_or_default().as_secs());
        if self.last == Some(bucket) {
            return false;
        }
        self.left -= 1;
        self.last = Some(bucket);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_years_begin_on_their_first_day() {
        // Days since 1970, from `date -u -d DAY +%s`.
        for (day, expected) in [
            (0, (1970, 0)),
            (30, (1970, 0)),
            (31, (1970, 1)),
            (364, (1970, 11)),
            (365, (1971, 0)),
            (11_016, (2000, 1)),  // 29 February 2000
            (11_017, (2000, 2)),  // 1 March 2000
            (20_512, (2026, 1)),  // 28 February 2026
            (20_513, (2026, 2)),  // 1 March 2026
            (20_818, (2026, 11)), // 31 December 2026
            (20_819, (2027, 0)),
            (47_540, (2100, 1)), // 28 February 2100, no leap year
            (47_541, (2100, 2)),
        ] {
            assert_eq!(year_and_month(day), expected, "{day}");
        }
        year_and_month(u64::MAX);
    }
}
