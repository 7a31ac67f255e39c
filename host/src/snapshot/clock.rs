//! Time for people, and ages that a machine which sleeps cannot hide.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Error, Result};

/// The smallest difference between two clocks that counts: a server tells whole seconds.
const RESOLUTION: Duration = Duration::from_secs(2);

/// How long one look at the storage's clock serves.
const OBSERVED_FOR: Duration = Duration::from_secs(60);

/// The longest time over which this host's two clocks are compared: they drift apart by some
/// seconds a day.
const COMPARED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Milliseconds since 1970 UTC, as this machine believes.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment on two clocks: one that goes on while the machine sleeps, which `std::time::Instant`
/// does not everywhere, since a writer that slept must know that it did; and the one of people,
/// which jumps ahead when it is set after a pause that the first one missed, as that of a virtual
/// machine may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    boot: Duration,
    wall: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = rustix::time::ClockId::Boottime;
        // Elsewhere the monotonic clock is the one that includes sleep, or the best there is.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        Self {
            boot: Duration::new(
                time.tv_sec.unsigned_abs(),
                u32::try_from(time.tv_nsec).unwrap_or(0),
            ),
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Returns the elapsed time by the clock that shows more of it.
    pub(crate) fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    /// Returns the elapsed time by the clock that no person sets.
    pub(crate) fn elapsed_boot(self) -> Duration {
        Self::now().boot.saturating_sub(self.boot)
    }

    fn until(self, now: Self) -> Duration {
        let boot = now.boot.saturating_sub(self.boot);
        boot.max(now.wall.saturating_sub(self.wall))
    }

    /// Returns by how much the wall clock and the boot clock moved apart since this moment.
    fn drift(self, now: Self) -> Duration {
        let boot = now.boot.saturating_sub(self.boot);
        (self.wall + boot).abs_diff(now.wall)
    }

    /// Returns true if this moment was certainly earlier than the other.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.boot < other.boot
    }
}

/// Compares the storage's clock with this host's two clocks before anything is removed by age.
///
/// An age is a difference of two times of the storage. If its clock jumps ahead between them, the
/// age is too large, and a prune would remove what a writer still relies on.
#[derive(Debug)]
pub(crate) struct StorageClock(Mutex<ClockState>);

#[derive(Debug)]
struct ClockState {
    /// This host's clocks are compared with this moment.
    reference: Moment,
    /// The last time that they were found to have moved apart.
    jumped: Option<Moment>,
    observed: Option<Observed>,
}

/// A time that the storage gave to an object which was made at a known moment.
#[derive(Clone, Copy, Debug)]
struct Observed {
    storage: SystemTime,
    at: Moment,
}

/// One look at the storage's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockProbe {
    /// A moment before the probe was made.
    pub(crate) before: Moment,
    /// The time that the storage gave to the probe.
    pub(crate) created: SystemTime,
}

impl Default for StorageClock {
    fn default() -> Self {
        Self(Mutex::new(ClockState {
            reference: Moment::now(),
            jumped: None,
            observed: None,
        }))
    }
}

impl StorageClock {
    /// Returns the storage's time now, from a probe that is recent enough; none where a new probe
    /// is due.
    pub(crate) fn now(&self, grace: Duration) -> Option<SystemTime> {
        let observed = self.state().observed?;
        let since = observed.at.elapsed();
        (since < OBSERVED_FOR.min(grace / 8)).then(|| observed.storage + since)
    }

    /// Takes the storage's time from a probe, and returns it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the storage's clock and this host's wall clock differ by more
    /// than a quarter of the grace period.
    pub(crate) fn observe(&self, probe: ClockProbe, grace: Duration) -> Result<SystemTime> {
        let earliest = UNIX_EPOCH + probe.before.wall;
        let latest = SystemTime::now().max(earliest);
        let ahead = probe.created.duration_since(latest).unwrap_or_default();
        let behind = earliest.duration_since(probe.created).unwrap_or_default();
        if ahead.max(behind) > tolerance(grace) {
            let which = if ahead > behind { "ahead of" } else { "behind" };
            return Err(disagree(format!(
                "the storage's clock is {} {which} this host's",
                seconds(ahead.max(behind))
            )));
        }
        self.state().observed = Some(Observed {
            storage: probe.created,
            at: probe.before,
        });
        Ok(probe.created)
    }

    /// Checks that this host's clocks did not move apart within the grace period.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where they did, by more than a quarter of it.
    pub(crate) fn check_host(&self, grace: Duration) -> Result<()> {
        self.check_host_at(Moment::now(), grace)
    }

    fn check_host_at(&self, now: Moment, grace: Duration) -> Result<()> {
        let mut state = self.state();
        let drift = state.reference.drift(now);
        if drift > tolerance(grace) {
            state.reference = now;
            state.jumped = Some(now);
            state.observed = None;
        } else if state.reference.until(now) > COMPARED_FOR {
            state.reference = now;
        }
        // What was made before the jump is older than it was by as much, and what is older than the
        // grace then is so by both clocks.
        let wait = grace + grace / 4;
        match state
            .jumped
            .map(|jumped| now.boot.saturating_sub(jumped.boot))
        {
            Some(since) if since <= wait => Err(disagree(format!(
                "this host's wall clock was changed by more than {} within the grace period",
                seconds(tolerance(grace))
            ))),
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that a list was made at a time that fits the storage's clock, and returns the earlier of
/// both: ages are rather too small.
///
/// # Errors
/// [`Error::Unsupported`] where they differ by more than a quarter of the grace period.
pub(crate) fn list_time(
    listed: SystemTime,
    storage: SystemTime,
    grace: Duration,
) -> Result<SystemTime> {
    let ahead = listed.duration_since(storage).unwrap_or_default();
    let behind = storage.duration_since(listed).unwrap_or_default();
    if ahead.max(behind) > tolerance(grace) {
        return Err(disagree(format!(
            "a list gives a time that differs by {} from the storage's clock",
            seconds(ahead.max(behind))
        )));
    }
    Ok(listed.min(storage))
}

/// Returns the age that a trailer's creation time gives a version, or none where that time is
/// further ahead of `now` than `ahead`: then the clock of the host that saved it was wrong, and it
/// says nothing.
pub(crate) fn claimed_age(created_at: u64, now: SystemTime, ahead: Duration) -> Option<Duration> {
    let created = UNIX_EPOCH.checked_add(Duration::from_millis(created_at))?;
    match now.duration_since(created) {
        Ok(age) => Some(age),
        Err(error) => (error.duration() <= ahead).then_some(Duration::ZERO),
    }
}

fn tolerance(grace: Duration) -> Duration {
    (grace / 4).max(RESOLUTION)
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

fn disagree(what: String) -> Error {
    Error::unsupported(format!("nothing was pruned: clocks disagree: {what}"))
        .with_hint("correct the clock and try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_stops_prunes_for_the_grace_period() {
        let hour = Duration::from_secs(3600);
        let clock = StorageClock::default();
        let start = clock.state().reference;
        let later = |boot: Duration, wall: Duration| Moment {
            boot: start.boot + boot,
            wall: start.wall + wall,
        };
        let check = |moment| clock.check_host_at(moment, hour);
        let minute = Duration::from_secs(60);
        assert!(check(later(minute, 10 * minute)).is_ok(), "9 minutes");
        assert!(check(later(2 * minute, 30 * minute)).is_err(), "28 minutes");
        assert!(check(later(3 * minute, 31 * minute)).is_err());
        assert!(check(later(76 * minute, 104 * minute)).is_err());
        assert!(check(later(78 * minute, 106 * minute)).is_ok());
        // Back by two hours.
        assert!(check(later(80 * minute, Duration::ZERO)).is_err());
    }

    #[test]
    fn a_storage_clock_that_differs_from_the_hosts_is_refused() {
        let hour = Duration::from_secs(3600);
        let clock = StorageClock::default();
        for (ahead, fits) in [(0, true), (600, true), (1000, false), (7200, false)] {
            let created = SystemTime::now() + Duration::from_secs(ahead);
            let before = Moment::now();
            let observed = clock.observe(ClockProbe { before, created }, hour);
            assert_eq!(observed.is_ok(), fits, "{ahead} s ahead");
            let created = SystemTime::now() - Duration::from_secs(ahead);
            let observed = clock.observe(ClockProbe { before, created }, hour);
            assert_eq!(observed.is_ok(), fits, "{ahead} s behind");
        }
        let now = SystemTime::now();
        assert!(list_time(now + hour, now, hour).is_err());
        assert!(list_time(now - hour, now, hour).is_err());
        let earlier = now - Duration::from_secs(5);
        assert_eq!(list_time(earlier, now, hour).expect("fits"), earlier);
    }

    #[test]
    fn a_creation_time_far_ahead_says_nothing() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        let now = UNIX_EPOCH + 100 * hour;
        let millis = |hours: u64| hours * 3_600_000;
        assert_eq!(claimed_age(millis(98), now, hour), Some(2 * hour));
        assert_eq!(claimed_age(millis(101), now, hour), Some(Duration::ZERO));
        assert_eq!(claimed_age(millis(101) + 1, now, hour), None);
        assert_eq!(claimed_age(millis(0), now, second), Some(100 * hour));
        assert_eq!(claimed_age(u64::MAX, now, hour), None);
    }

    #[test]
    fn a_pause_is_noticed_by_either_clock() {
        let moment = |boot, wall| Moment {
            boot: Duration::from_secs(boot),
            wall: Duration::from_secs(wall),
        };
        let before = moment(1000, 5000);
        for now in [moment(1060, 5000), moment(1000, 5060), moment(1060, 1)] {
            assert_eq!(before.until(now), Duration::from_secs(60), "{now:?}");
        }
        assert!(before.elapsed() > Duration::from_secs(60 * 60));
    }
}
