//! Acquiring, taking over and breaking a lease.

use std::time::{Duration, SystemTime};

use super::objects::{LeaseInfo, Newest};
use super::options::{LeaseOptions, check_holder};
use crate::snapshot::clock::Moment;
use crate::snapshot::shared::{
    HeldLease, LeaseRecord, LeaseState, ScopeRef, described_scope, validity,
};
use crate::snapshot::{Error, MAX_VERSION, Result};

/// Shortest pause of a host that waits for a lease.
const MIN_PAUSE: Duration = Duration::from_millis(5);

impl ScopeRef {
    /// Acquires the lease of the scope, or takes it over.
    pub(crate) async fn acquire_lease(&self, options: &LeaseOptions) -> Result<HeldLease> {
        options.check()?;
        let scope = Self {
            lease: None,
            ..self.clone()
        };
        scope.store.ensure_initialized().await?;
        let record = LeaseRecord::new(
            scope.place(),
            LeaseState::Held,
            &options.holder,
            options.term,
        );
        let waiting = Moment::now();
        loop {
            let began = Moment::now();
            let newest = scope.newest_lease().await?;
            let left = newest.as_ref().and_then(time_left);
            if let (Some(newest), Some(left)) = (&newest, left) {
                let patience = options.wait.saturating_sub(waiting.elapsed());
                if patience.is_zero() {
                    return Err(scope.leased(newest, left));
                }
                // A holder may release it before.
                let pause = left.min(newest.record.term() / 4).max(MIN_PAUSE);
                tokio::time::sleep(with_jitter(pause.min(patience))).await;
                continue;
            }
            let last = newest.as_ref().map_or(0, |newest| newest.number);
            let number = next(last)?;
            if !scope.create_lease(number, &record).await? {
                continue;
            }
            // A host that slept since it looked may have made a number that others passed.
            if began.elapsed() >= options.term {
                let now = scope.newest_lease().await?;
                if now.is_none_or(|now| now.number != number) {
                    scope.remove_leases(&[number]).await;
                    continue;
                }
            }
            // The last object of the holder before stays, so that its next renewal meets ours.
            scope
                .remove_leases(newest.as_ref().map_or(&[], |newest| &newest.older))
                .await;
            return Ok(HeldLease::new(scope.place(), record, (last, number), began));
        }
    }

    /// Ends the lease of the scope.
    pub(crate) async fn break_lease(&self, by: &str) -> Result<Option<LeaseInfo>> {
        check_holder(by)?;
        loop {
            let Some(newest) = self.newest_lease().await? else {
                self.store.check_empty().await?;
                return Ok(None);
            };
            if newest.record.state != LeaseState::Held {
                return Ok(None);
            }
            let term = newest.record.term();
            let record = LeaseRecord::new(self.place(), LeaseState::Broken, by, term);
            // Another one was first: the lease was renewed, or released.
            if !self.create_lease(next(newest.number)?, &record).await? {
                continue;
            }
            self.remove_leases(&newest.older).await;
            return Ok(Some(self.info_of(newest)));
        }
    }

    fn leased(&self, newest: &Newest, left: Duration) -> Error {
        Error::Leased {
            scope: described_scope(self.agent(), self.session()),
            holder: newest.record.holder.clone(),
            expires: SystemTime::now() + left,
        }
    }
}

/// Returns the time before a lease may be taken over; none where it is free.
fn time_left(newest: &Newest) -> Option<Duration> {
    if newest.record.state != LeaseState::Held {
        return None;
    }
    let left = validity(newest.record.term()).saturating_sub(newest.age.unwrap_or_default());
    (!left.is_zero()).then_some(left)
}

pub(super) fn next(number: u64) -> Result<u64> {
    match number {
        MAX_VERSION => Err(Error::unsupported("the lease has the last possible number")
            .with_hint("remove its objects below ~/lease while no host runs")),
        number => Ok(number + 1),
    }
}

/// Lengthens a pause by up to a tenth, so that hosts that began together do not stay in step.
pub(crate) fn with_jitter(pause: Duration) -> Duration {
    let share = f64::from(crate::random::u128() as u16) / f64::from(u16::MAX);
    pause.mul_f64(1.0 + share / 10.0)
}
