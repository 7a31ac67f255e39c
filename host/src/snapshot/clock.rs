//! Time for people, and ages that a machine which sleeps cannot hide.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 UTC, as this machine believes.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment on two clocks: one that goes on while the machine sleeps, which `std::time::Instant` does not everywhere, since a writer
/// that slept must know that it did; and the one of people, which jumps ahead when it is set after a pause that the first one missed,
/// as that of a virtual machine may.
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

    /// What the clock says that says more.
    pub(crate) fn elapsed(self) -> Duration {
        self.until(Self::now())
    }

    fn until(self, now: Self) -> Duration {
        let boot = now.boot.saturating_sub(self.boot);
        boot.max(now.wall.saturating_sub(self.wall))
    }

    /// Whether this was certainly earlier.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.boot < other.boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_noticed_by_either_clock_and_a_clock_that_is_put_back_hides_none() {
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
