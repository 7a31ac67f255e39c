//! Leases, as callers hold them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::lease::{LeaseInfo, LeaseOptions};
use super::lease_timing::{failed_renewal, renewal};
use super::shared::{HeldLease, ScopeRef};
use super::{Error, Name, Result, Scope, Store};
use crate::random::random_share;

/// A lease that this process holds. Dropping it releases it in the background.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::snapshot::{Error, LeaseOptions, SaveOptions, Store};
/// # use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Store::new(Arc::new(Memory::new()));
/// let lease = store.lease("bot", None, &LeaseOptions::default()).await?;
/// let other = store.lease("bot", None, &LeaseOptions::default()).await;
/// assert!(matches!(other, Err(Error::Leased { .. })));
///
/// lease.scope().save("memory", "x".into(), SaveOptions::default()).await?;
/// lease.release().await?;
/// # Ok::<(), persist_host::snapshot::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Lease {
    /// Its changes are made under the lease.
    scope: ScopeRef,
    held: Arc<HeldLease>,
    renewal: Option<JoinHandle<()>>,
    is_released: bool,
}

impl Store {
    /// Acquires the lease of an agent, or of one session of it: [`Scope::lease`].
    ///
    /// # Errors
    /// Errors of [`Scope::lease`].
    pub async fn lease(
        &self,
        agent: &str,
        session: Option<&str>,
        options: &LeaseOptions,
    ) -> Result<Lease> {
        self.scope(agent, session)?.lease(options).await
    }

    /// Lists the leases of all agents and sessions that were ever leased, in the order of their
    /// keys: a list for each thousand, and two requests for each.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where the store is of a later format.
    pub async fn leases(&self) -> Result<Vec<LeaseInfo>> {
        self.inner.leases().await
    }
}

impl Scope {
    /// Acquires the lease of this scope, or takes over one that was not renewed in time. Waits for
    /// one that another host holds for at most [`LeaseOptions::wait`].
    ///
    /// The lease of an agent is for what belongs to no session; each session has a lease of its
    /// own. Cost: a list and a create, and a read where the scope was leased before.
    ///
    /// # Errors
    /// [`Error::Leased`] where another host holds it; [`Error::Invalid`] for options that cannot
    /// be kept; [`Error::Storage`]; then as [`Store::init`].
    pub async fn lease(&self, options: &LeaseOptions) -> Result<Lease> {
        let held = Arc::new(self.inner.acquire_lease(options).await?);
        Ok(Lease {
            scope: ScopeRef {
                lease: Some(Arc::clone(&held)),
                ..self.inner.clone()
            },
            held,
            renewal: None,
            is_released: false,
        })
    }

    /// Returns the newest state of the lease of this scope; none where it was never leased.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn lease_info(&self) -> Result<Option<LeaseInfo>> {
        self.inner.lease_info().await
    }

    /// Ends the lease of this scope, in the name of `by`. Its holder learns of it when it renews
    /// the lease, or when a change is refused. Returns the lease that was broken; none where no
    /// host held one.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn break_lease(&self, by: &str) -> Result<Option<LeaseInfo>> {
        self.inner.break_lease(by).await
    }
}

impl Lease {
    /// The agent.
    pub fn agent(&self) -> &Name {
        self.scope.agent()
    }

    /// The session; none for what belongs to no session.
    pub fn session(&self) -> Option<&Name> {
        self.scope.session()
    }

    /// The holder's name, as other hosts are told it.
    pub fn holder(&self) -> &str {
        &self.held.record.holder
    }

    /// The number of the object with which the lease was acquired. A later holder has a higher one.
    pub fn number(&self) -> u64 {
        self.held.acquired
    }

    /// Time that is left before another host may take over, by this machine's own clock.
    pub fn remaining(&self) -> Duration {
        self.held.remaining()
    }

    /// The moment after which another host may take over, for people: no decision is made on it.
    pub fn expires(&self) -> SystemTime {
        SystemTime::now() + self.remaining()
    }

    /// The scope of the lease. A change through it is made on the newest version that was seen
    /// through it, with [`Expect::Any`](super::Expect::Any) too, and fails once another host has
    /// taken over.
    pub fn scope(&self) -> Scope {
        self.scope.clone().into()
    }

    /// Permits changes only on the versions that were seen through [`Lease::scope`] before this
    /// call, and on those that are made under the lease. Names that were not seen count as never
    /// saved, so look at all of them first: [`Scope::versions`] lists the newest version of a name.
    ///
    /// Use it where a decision rests on those versions, such as that none of them is the result
    /// of the request that is to be served. A save that the holder before had begun then refuses
    /// the changes of this one with [`Error::LeaseLost`], also if they were computed from it.
    pub fn freeze(&self) {
        self.held.freeze();
    }

    /// Returns true if the lease is known to have ended: another host took it over, an operator
    /// broke it, or a change was refused after [`Lease::freeze`].
    pub fn is_lost(&self) -> bool {
        self.held.has_ended() || self.held.is_superseded()
    }

    /// Renews the lease: one create. To be called once a term, unless
    /// [`Lease::renew_in_background`] does so.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] where another host took over; [`Error::Storage`] where it is not
    /// renewed, and may be tried again.
    pub async fn renew(&self) -> Result<()> {
        self.scope.renew_lease(&self.held).await
    }

    /// Renews the lease once a term in the background, until it is released or lost. A renewal
    /// that fails is tried again.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime.
    pub fn renew_in_background(&mut self) {
        let held = Arc::downgrade(&self.held);
        let term = self.held.record.term();
        // A lease that nothing else holds ends.
        let scope = ScopeRef {
            lease: None,
            ..self.scope.clone()
        };
        let task = tokio::spawn(async move {
            let mut pause = renewal(term, random_share());
            loop {
                tokio::time::sleep(pause).await;
                let Some(held) = held.upgrade() else { return };
                pause = match scope.renew_lease(&held).await {
                    Ok(()) => renewal(term, random_share()),
                    Err(Error::LeaseLost { .. }) => return,
                    Err(error) => {
                        tracing::warn!("a lease was not renewed; it is tried again");
                        tracing::debug!(%error, "a lease was not renewed");
                        failed_renewal(term, random_share())
                    }
                };
            }
        });
        self.stop_renewal();
        self.renewal = Some(task);
    }

    /// Ends the lease, so that another host may have it at once. A lease that was lost is no error.
    ///
    /// # Errors
    /// [`Error::Storage`]; then the lease ends with its term.
    pub async fn release(mut self) -> Result<()> {
        self.stop_renewal();
        self.is_released = true;
        self.scope.release_lease(&self.held).await
    }

    fn stop_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewal();
        let (false, Ok(runtime)) = (self.is_released, Handle::try_current()) else {
            return;
        };
        let held = Arc::clone(&self.held);
        let scope = self.scope.clone();
        runtime.spawn(async move {
            if let Err(error) = scope.release_lease(&held).await {
                tracing::debug!(%error, "a lease was not released; it ends with its term");
            }
        });
    }
}

#[cfg(test)]
mod tests;
