//! Times of leases: when a holder renews, when others look again, and when they may take over.
//!
//! [`Lease`](super::Lease) keeps to them. A program that plans or simulates many hosts can, too. A
//! `share` is a random number from 0 to 1.
//!
//! ```
//! use std::time::Duration;
//! use persist_host::snapshot::lease_timing;
//!
//! let term = Duration::from_secs(30);
//! assert_eq!(lease_timing::expiry(term), Duration::from_secs(45));
//! assert_eq!(lease_timing::renewal(term, 0.5), Duration::from_millis(31_500));
//! ```

use std::time::Duration;

/// Part of a term between two attempts of a renewal that fails: a server that does not answer for
/// a moment costs no lease.
const RETRIES_PER_TERM: u32 = 8;

/// Looks in a term of a host that waits for a lease.
const LOOKS_PER_TERM: u32 = 4;

/// Shortest pause of a host that waits for a lease.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Returns the time after which a lease that was not renewed may be taken over. The half term on
/// top is for a renewal that is slow, or tried again.
pub fn expiry(term: Duration) -> Duration {
    term.saturating_add(term / 2)
}

/// Returns the pause between two renewals.
pub fn renewal(term: Duration, share: f64) -> Duration {
    spread(term, share)
}

/// Returns the pause after a renewal that failed.
pub fn failed_renewal(term: Duration, share: f64) -> Duration {
    spread(term / RETRIES_PER_TERM, share)
}

/// Returns the pause between two looks of a host that waits for the lease of another one, which
/// expires in `left`, for at most `patience`. A holder may release it before it expires.
pub fn look(left: Duration, term: Duration, patience: Duration, share: f64) -> Duration {
    let pause = left.min(term / LOOKS_PER_TERM).max(MIN_PAUSE);
    spread(pause.min(patience), share)
}

/// Lengthens a pause by up to a tenth, so that hosts that began together do not stay in step.
fn spread(pause: Duration, share: f64) -> Duration {
    let longer = pause.as_secs_f64() * share.clamp(0.0, 1.0) / 10.0;
    pause.saturating_add(Duration::try_from_secs_f64(longer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(30);

    #[test]
    fn renewals_come_before_expiry_also_if_some_fail() {
        assert!(renewal(TERM, 1.0) + 2 * failed_renewal(TERM, 1.0) < expiry(TERM));
    }

    #[test]
    fn a_waiting_host_looks_again_soon_after_the_expiry() {
        let left = Duration::from_secs(2);
        let looks = |left, share| look(left, TERM, Duration::MAX, share);
        assert_eq!(looks(left, 0.0), left);
        assert_eq!(looks(left, 1.0), left + left / 10);
        assert_eq!(looks(TERM, 0.0), TERM / 4);
        assert_eq!(looks(Duration::ZERO, 0.0), MIN_PAUSE);
        assert_eq!(look(TERM, TERM, left, 0.0), left);
    }

    #[test]
    fn renewals_that_began_together_spread() {
        let pauses: Vec<_> = (0..=10)
            .map(|n| renewal(TERM, f64::from(n) / 10.0))
            .collect();
        assert!(
            pauses.is_sorted_by(|early, late| early < late),
            "{pauses:?}"
        );
        assert_eq!(pauses[10], TERM + TERM / 10);
    }
}
