//! Retries of calls to a server: one policy for every backend.
//!
//! A retry repeats the smallest unit that can be sent again: a call, a part, a completion. The
//! backend classifies a response as an [`AttemptError`], and the [`RetryLoop`] decides. The retries
//! of the SDKs are off, so that attempts are not multiplied.

#[cfg(feature = "bucket")]
mod attempts;
#[cfg(feature = "bucket")]
mod proxy;

use std::time::Duration;

#[cfg(feature = "bucket")]
use super::{Error, ErrorKind, Result};

/// When a call to a server is sent again, and how long is waited for it.
///
/// ```
/// use std::time::Duration;
/// use persist_host::storage::{Retry, StorageConfig};
///
/// let mut config = StorageConfig::s3_with_bucket("my-snapshots-bucket".to_string());
/// config.retry.budget = Duration::from_secs(20);
/// config.retry.attempt = Duration::from_secs(5);
/// assert_eq!(config.retry.stall, Retry::default().stall);
/// ```
///
/// Sent again is what the server asks to be sent again, or did not answer: 408, 429, 5xx, broken
/// connections, timeouts. The wait before is random, up to a bound that doubles each time ("full
/// jitter"), and comes after the pause that the server asks for in `Retry-After`. Refused
/// credentials are looked up once more, and the call is sent once more if others were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// A call is sent again only within this time of its first attempt; 30 seconds. Zero: never.
    /// After a call was given up before the server answered any, later calls are sent once, until
    /// it answers one.
    pub budget: Duration,
    /// The budget instead, until the server has answered for the first time, of a failure that may
    /// be permanent: an unknown host, a proxy that fails, a TLS handshake that the server closes, a
    /// connection that is not made in time, a response of another service; 5 seconds.
    pub first_contact: Duration,
    /// The longest wait for an answer; 10 seconds. Less than the budget, unless that is zero.
    pub attempt: Duration,
    /// The longest time in which nothing of a body arrives, and in which 1 MiB of a body leaves; 15
    /// seconds. A call with a body has this time for each MiB, and a part of it for less, in
    /// addition to the two above. Its first attempt is given up sooner where earlier bodies left
    /// faster: after four times what they took.
    pub stall: Duration,
    /// The bound of the first wait; 100 milliseconds.
    pub first_wait: Duration,
    /// Upper limit for the bound of a wait; 5 seconds. `Retry-After` may exceed it, as long as the
    /// budget lasts.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(30),
            first_contact: Duration::from_secs(5),
            attempt: Duration::from_secs(10),
            stall: Duration::from_secs(15),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
        }
    }
}

impl Retry {
    /// Returns the wait before the next attempt at a call, after so many attempts that failed.
    ///
    /// It is `share`, a random number from 0 to 1, of a bound that doubles with each failure. Where
    /// the server asks for a pause of `at_least`, the random part comes after that pause, and its
    /// bound is at least a quarter of it: a server that is overloaded tells all hosts the same. The
    /// bound is at least a quarter of `elapsed`, too, the time since the first attempt: calls that
    /// a server left without an answer may all fail when it comes back.
    ///
    /// ```
    /// use std::time::Duration;
    /// use persist_host::storage::Retry;
    ///
    /// let retry = Retry::default();
    /// let zero = Duration::ZERO;
    /// assert_eq!(retry.wait(3, zero, zero, 1.0), Duration::from_millis(400));
    /// let seconds = Duration::from_secs(4);
    /// assert_eq!(retry.wait(1, seconds, zero, 0.5), Duration::from_millis(4500));
    /// assert_eq!(retry.wait(1, zero, seconds, 0.5), Duration::from_millis(500));
    /// ```
    pub fn wait(
        &self,
        failures: u32,
        at_least: Duration,
        elapsed: Duration,
        share: f64,
    ) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let doubled = self.first_wait.saturating_mul(1 << doublings);
        let bound = doubled.max(elapsed / 4).min(self.longest_wait);
        let bound = bound.max(at_least / 4);
        // The share of a bound that is too long is the bound, never a panic.
        let random = bound.as_secs_f64() * share.clamp(0.0, 1.0);
        let random = Duration::try_from_secs_f64(random).unwrap_or(bound);
        at_least.saturating_add(random.min(bound))
    }
}

#[cfg(feature = "bucket")]
impl Retry {
    /// Refuses a policy that cannot work.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], where a time is zero, or the times contradict each other.
    pub fn check(&self) -> Result<()> {
        let wrong = match self {
            retry if retry.attempt.is_zero() => "retry.attempt is zero",
            retry if retry.stall.is_zero() => "retry.stall is zero",
            retry if retry.first_wait > retry.longest_wait => {
                "retry.first_wait is longer than retry.longest_wait"
            }
            retry if !retry.budget.is_zero() && retry.budget <= retry.attempt => {
                "retry.budget is not longer than retry.attempt, so a call without a response \
                 would never be retried; to disable retries, set it to zero"
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, wrong))
    }
}

#[cfg(feature = "bucket")]
pub use attempts::{Attempt, AttemptError, RetryDecision};
#[cfg(feature = "bucket")]
pub(super) use attempts::{Call, Retrier, RetryLoop};

#[cfg(all(test, feature = "bucket"))]
mod tests {
    use super::*;

    /// Counts the calls of 1,000 hosts that all failed at the same moment, in each hundredth of
    /// `within`, when each is sent for the next time.
    fn arrivals(
        failures: u32,
        at_least: Duration,
        elapsed: Duration,
        within: Duration,
    ) -> Vec<u32> {
        let mut arrivals = vec![0; 100];
        for _ in 0..1000 {
            let share = crate::random::random_share();
            let wait = Retry::default().wait(failures, at_least, elapsed, share);
            let part = (wait - at_least).as_secs_f64() / within.as_secs_f64();
            arrivals[((part * 100.0) as usize).min(99)] += 1;
        }
        arrivals
    }

    #[test]
    fn hosts_that_failed_together_do_not_come_back_together() {
        let seconds = Duration::from_secs;
        let zero = Duration::ZERO;
        let cases = [
            (1, zero, zero, Duration::from_millis(100)),
            (4, zero, zero, Duration::from_millis(800)),
            (20, zero, zero, seconds(5)),
            // Told by the server when to come back, all of them the same.
            (1, seconds(8), zero, seconds(2)),
            (9, seconds(20), zero, seconds(5)),
            // Left without an answer, until the connections of all of them broke.
            (1, zero, seconds(8), seconds(2)),
            (2, zero, seconds(29), seconds(5)),
        ];
        for (failures, at_least, elapsed, within) in cases {
            let arrivals = arrivals(failures, at_least, elapsed, within);
            let most = arrivals.iter().max().expect("a hundred");
            // Ten on average, with a standard deviation of three.
            assert!(*most < 35, "after {at_least:?}, {elapsed:?}: {arrivals:?}");
        }
    }

    #[test]
    fn a_wait_grows_to_its_bound_and_never_overflows() {
        let retry = Retry::default();
        let zero = Duration::ZERO;
        let bound = |failures| retry.wait(failures, zero, zero, 1.0);
        assert_eq!(bound(0), retry.first_wait);
        assert_eq!(bound(1), retry.first_wait);
        assert_eq!(bound(2), 2 * retry.first_wait);
        assert_eq!(bound(u32::MAX), retry.longest_wait);
        let longest = Duration::MAX;
        assert_eq!(retry.wait(u32::MAX, longest, longest, 1.0), longest);
        assert_eq!(retry.wait(1, zero, longest, 1.0), retry.longest_wait);
        assert_eq!(retry.wait(3, zero, longest, 0.0), zero);
    }

    #[test]
    fn a_policy_that_never_sends_again_by_mistake_is_refused() {
        let mut retry = Retry::default();
        retry.check().expect("the default works");
        retry.budget = retry.attempt;
        assert_eq!(
            retry.check().expect_err("no time").kind(),
            ErrorKind::Config
        );
        retry.budget = Duration::ZERO;
        retry.check().expect("never is a choice");
        retry.attempt = Duration::ZERO;
        retry.check().expect_err("no attempt");
    }
}
