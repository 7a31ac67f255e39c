//! Fencing of changes by a lease, and its renewal and end.
//!
//! A change under a lease is made on a version of its name that was the newest at a moment before
//! one at which this lease was the newest. Hosts that take over commit later than that moment, and
//! so above that version: then the create of this change is refused. This holds whatever any clock
//! says. Once a later holder has committed to a name, no earlier one does.

use super::acquire::next;
use crate::snapshot::clock::Moment;
use crate::snapshot::shared::{HeldLease, LeaseState, Origin, ScopeRef};
use crate::snapshot::{Error, Expect, Name, Result, Version};

impl ScopeRef {
    /// Creates the next object of a lease that is held.
    pub(crate) async fn renew_lease(&self, held: &HeldLease) -> Result<()> {
        let _changing = held.changing.lock().await;
        held.check()?;
        if held.remaining().is_zero() {
            // Others may have taken over, and removed the object that a renewal would meet.
            self.verify_lease(held).await?;
        }
        let began = Moment::now();
        let last = held.current().number;
        let number = next(last)?;
        let record = held.record.with_state(LeaseState::Held);
        if !self.create_lease(number, &record).await? {
            let newest = self.newest_lease().await.ok().flatten();
            let holder = newest.map(|newest| newest.record.holder);
            return Err(held.end(holder.unwrap_or_default()));
        }
        let mut old = Vec::new();
        {
            let mut current = held.current();
            (current.number, current.since) = (number, began);
            current.objects.push(number);
            // The first object stays: the holder before would create it to renew its lease.
            if last != held.acquired {
                current.objects.retain(|object| *object != last);
                old.push(last);
            }
        }
        self.remove_leases(&old).await;
        Ok(())
    }

    /// Creates the object that ends a lease that is held, and removes the others.
    pub(crate) async fn release_lease(&self, held: &HeldLease) -> Result<()> {
        let _changing = held.changing.lock().await;
        if held.has_ended() {
            return Ok(());
        }
        let current = held.current().clone();
        let record = held.record.with_state(LeaseState::Released);
        if self.create_lease(next(current.number)?, &record).await? {
            self.remove_leases(&current.objects).await;
        }
        held.end(String::new());
        Ok(())
    }

    /// Returns the version that a change of `name` must be made on, 0 for none; `None` without a
    /// lease, and where `expect` says it. Costs a list unless the lease was verified since the
    /// version was seen.
    pub(crate) async fn fenced_base(&self, name: &Name, expect: Expect) -> Result<Option<Version>> {
        let Some(held) = &self.lease else {
            return Ok(None);
        };
        held.check()?;
        let known = held.seen(name);
        let is_current = !held.remaining().is_zero();
        let verified = known.filter(|known| known.verified && is_current);
        if let (Expect::Version(version), Some(known), true) = (expect, known, held.is_frozen())
            && known.version != version
        {
            // It was read after the lease was frozen: another writer made it.
            return Err(held.supersede());
        }
        if let Expect::Version(version) = expect {
            if verified.is_none_or(|known| known.version != version) {
                self.verify_lease(held).await?;
            }
            return Ok(None);
        }
        if let Some(known) = verified {
            return Ok(Some(known.version));
        }
        let version = match known {
            Some(known) => known.version,
            None => self.head(name).await?.map_or(0, |head| head.version),
        };
        // After the look at the head, never before it.
        self.verify_lease(held).await?;
        held.observe(name, version, Origin::Verified);
        Ok(Some(version))
    }

    /// Returns the error of a change under a lease: a conflict of a lease that was lost is said to
    /// be that.
    pub(crate) async fn explain_fenced(&self, error: Error) -> Error {
        let (Some(held), Error::Conflict { .. }) = (&self.lease, &error) else {
            return error;
        };
        match self.verify_lease(held).await {
            Err(lost @ Error::LeaseLost { .. }) => lost,
            // What the run has loaded may be that of the other writer.
            _ if held.is_frozen() => held.supersede(),
            _ => error,
        }
    }

    /// Verifies with the storage that a lease that is held is the newest.
    async fn verify_lease(&self, held: &HeldLease) -> Result<()> {
        held.check()?;
        match self.newest_lease().await? {
            Some(newest) if newest.record.id == held.record.id => Ok(()),
            newest => {
                let holder = newest.map(|newest| newest.record.holder);
                Err(held.end(holder.unwrap_or_default()))
            }
        }
    }
}
