//! View of a store for one guest.

use std::fmt;
use std::sync::Arc;

use super::allowance::{Allowance, OnChange, OnError};
use super::error::GuestError;
use super::ledger::{Ledger, RunPermit};
use super::limits::Limits;
use super::rights::Rights;
use crate::snapshot::{self, Info, Lease, LeaseOptions, Scope};

/// View of a store for one guest: a scope that the host chose, rights in it, and limits. A guest
/// cannot name another scope, a bucket, a path or a credential.
///
/// Clones share the counters, so that a guest with many instances has one allowance. Guests with
/// the same [`Ledger`] share counters by scope.
#[derive(Clone)]
pub struct Guest {
    pub(super) scope: Scope,
    pub(super) rights: Rights,
    pub(super) allowance: Allowance,
    /// True if the embedder set the limits.
    has_own_limits: bool,
    /// True if the embedder set the ledger.
    has_own_ledger: bool,
}

impl Guest {
    /// A guest that sees `scope`, with all rights and the default limits.
    pub fn new(scope: Scope) -> Self {
        Self::builder(scope).build()
    }

    /// A guest that sees `scope`.
    pub fn builder(scope: Scope) -> GuestBuilder {
        GuestBuilder {
            scope,
            limits: None,
            rights: Rights::all(),
            ledger: None,
            on_change: None,
            on_error: None,
        }
    }

    /// The limits of the guest.
    pub fn limits(&self) -> &Limits {
        &self.allowance.limits
    }

    /// Acquires the lease of the guest's scope. From then on, the guest's changes are made under it
    /// ([`Lease::scope`]).
    ///
    /// # Errors
    /// Errors of [`Scope::lease`].
    pub async fn acquire_lease(&mut self, options: &LeaseOptions) -> snapshot::Result<Lease> {
        let lease = self.scope.lease(options).await?;
        self.scope = lease.scope();
        Ok(lease)
    }

    /// Returns the guest with the limits and the ledger of a runner, each where its builder set
    /// none.
    #[must_use]
    pub fn with_defaults(mut self, limits: &Limits, ledger: &Ledger) -> Self {
        if !self.has_own_limits {
            self.allowance.limits = limits.clone();
        }
        if !self.has_own_ledger {
            self.allowance.ledger = ledger.clone();
            self.allowance.usage = ledger.usage(&self.scope);
        }
        self
    }

    /// Waits until the scope may have one more run, and counts the run until the permit is
    /// dropped. Take this permit before one that all scopes share, so that a scope that waits
    /// blocks no other.
    ///
    /// # Errors
    /// [`GuestError::Throttled`] while the ledger shuts down.
    pub async fn run_permit(&self) -> Result<RunPermit, GuestError> {
        self.allowance.usage.run_permit().await
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("scope", &self.scope)
            .field("limits", &self.allowance.limits)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Guest`].
pub struct GuestBuilder {
    scope: Scope,
    limits: Option<Limits>,
    rights: Rights,
    ledger: Option<Ledger>,
    on_change: Option<OnChange>,
    on_error: Option<OnError>,
}

impl GuestBuilder {
    /// Sets what the guest may use of the store and, if a runner runs it, of the machine. The
    /// limits that all guests share are the runner's. Default: the limits of the runner.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets what the guest may do. Default: everything in its scope.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Sets the ledger that counts the guest's usage. Default: the ledger of the runner, or one of
    /// its own.
    #[must_use]
    pub fn ledger(mut self, ledger: &Ledger) -> Self {
        self.ledger = Some(ledger.clone());
        self
    }

    /// Sets a function that is called with every save, deletion, restore and fork once it is
    /// durable, before the call of the guest returns. It should not block.
    #[must_use]
    pub fn on_change(mut self, on_change: impl Fn(&Info) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Arc::new(on_change));
        self
    }

    /// Sets a function that is called with the error of every call of the guest that fails, before
    /// the guest gets it: a host can tell an answer that rests on a storage that failed. It should
    /// not block.
    #[must_use]
    pub fn on_error(mut self, on_error: impl Fn(&GuestError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(on_error));
        self
    }

    /// Builds the guest.
    pub fn build(self) -> Guest {
        let has_own_limits = self.limits.is_some();
        let has_own_ledger = self.ledger.is_some();
        let limits = self.limits.unwrap_or_default();
        let ledger = self.ledger.unwrap_or_else(|| Ledger::new(&limits));
        Guest {
            allowance: Allowance {
                usage: ledger.usage(&self.scope),
                limits,
                ledger,
                on_change: self.on_change,
                on_error: self.on_error,
            },
            scope: self.scope,
            rights: self.rights,
            has_own_limits,
            has_own_ledger,
        }
    }
}

impl fmt::Debug for GuestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestBuilder")
            .field("scope", &self.scope)
            .field("limits", &self.limits)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}
