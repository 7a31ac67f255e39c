//! Acquiring, taking over and breaking a lease.

use std::time::{Duration, SystemTime};

use super::objects::{LeaseInfo, Newest};
use super::options::{LeaseOptions, check_holder};
use crate::random::random_share;
use crate::snapshot::clock::Moment;
use crate::snapshot::lease_timing::{expiry, look};
use crate::snapshot::shared::{HeldLease, LeaseRecord, LeaseState, ScopeRef, described_scope};
use crate::snapshot::{Error, MAX_VERSION, Result};

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
                let term = newest.record.term();
                tokio::time::sleep(look(left, term, patience, random_share())).await;
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
    let left = expiry(newest.record.term()).saturating_sub(newest.age.unwrap_or_default());
    (!left.is_zero()).then_some(left)
}

pub(super) fn next(number: u64) -> Result<u64> {
    match number {
        MAX_VERSION => Err(Error::unsupported("the lease has the last possible number")
            .with_hint("remove its objects below ~/lease while no host runs")),
        number => Ok(number + 1),
    }
}
