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
/// jitter"), and at least what the server asks for in `Retry-After`. Refused credentials are looked
/// up once more, and the call is sent once more if others were found.
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
