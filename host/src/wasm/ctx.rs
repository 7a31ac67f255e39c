//! View of a store for one guest.

use std::fmt;
use std::sync::Arc;

use wasmtime::component::ResourceTable;

use super::error::GuestError;
use super::ledger::{Call, Ledger, ScopeUsage, SlotGuard};
use super::limits::Limits;
use super::rights::{Right, Rights};
use super::storage_quota::Reservation;
use crate::snapshot::{Info, MAX_ENCODED, MAX_LABEL_BYTES, Name, Scope, Version, stat_cost};

type OnChange = Arc<dyn Fn(&Info) + Send + Sync>;

/// View of a store for one guest: a scope that the host chose, rights in it, and limits. A guest
/// cannot name another scope, a bucket, a path or a credential.
///
/// Clones share what is counted, so that a guest with many instances has one allowance; contexts
/// with the same [`Ledger`] share it by scope.
#[derive(Clone)]
pub struct SnapshotCtx {
    pub(super) scope: Scope,
    pub(super) limits: Limits,
    pub(super) rights: Rights,
    on_change: Option<OnChange>,
    ledger: Ledger,
    pub(super) account: Arc<ScopeUsage>,
    /// True for each of limits and ledger that the embedder chose.
    chosen: (bool, bool),
}

impl SnapshotCtx {
    /// A guest that sees `scope`, with default limits.
    pub fn new(scope: Scope) -> Self {
        Self::builder(scope).build()
    }

    /// A guest that sees `scope`.
    pub fn builder(scope: Scope) -> SnapshotCtxBuilder {
        SnapshotCtxBuilder {
            scope,
            limits: None,
            rights: Rights::all(),
            ledger: None,
            on_change: None,
        }
    }

    /// Bytes that one call of the guest may bring into the host: for
    /// [`Store::set_hostcall_fuel`](wasmtime::Store::set_hostcall_fuel).
    pub fn hostcall_fuel(&self) -> usize {
        self.limits.hostcall_fuel()
    }

    /// Returns the context with the limits and the ledger of a host where the embedder chose none.
    pub(super) fn on_host(mut self, limits: &Limits, ledger: &Ledger) -> Self {
        if !self.chosen.0 {
            self.limits = limits.clone();
        }
        if !self.chosen.1 {
            self.ledger = ledger.clone();
            self.account = ledger.account(&self.scope);
        }
        self
    }

    /// Begins every call that names something. Nothing was asked of the storage before, and nothing
    /// is asked if this returns an error.
    pub(super) async fn call(&self, needs: &[(Right, &str)]) -> Result<Call, GuestError> {
        for (right, name) in needs {
            self.rights.check(*right, name)?;
        }
        for (_, name) in needs {
            self.check_name(name)?;
        }
        self.call_of_scope().await
    }

    /// Begins a call that names nothing.
    pub(super) async fn call_of_scope(&self) -> Result<Call, GuestError> {
        let max = self.limits.calls_in_flight;
        self.ledger.call(&self.account, max).await
    }

    /// Begins a call of a writer or a reader.
    pub(super) async fn call_of_handle(&self) -> Result<Call, GuestError> {
        self.ledger.call_of_handle().await
    }

    /// Checks a name against the limit of its size. The store reports a name that is over the
    /// maximum for all names.
    fn check_name(&self, name: &str) -> Result<(), GuestError> {
        let max = self.limits.name_size;
        let is_over =
            |name: &str| Name::new(name).is_ok_and(|name| name.encoded().len() as u64 > max);
        if max < MAX_ENCODED as u64 && is_over(name) {
            Err(GuestError::quota("name-size", max))
        } else {
            Ok(())
        }
    }

    pub(super) fn check_labels(
        &self,
        labels: &[(String, String)],
        media_type: Option<&String>,
    ) -> Result<(), GuestError> {
        let max = self.limits.label_size;
        let texts = labels.iter().flat_map(|(key, value)| [key, value]);
        let bytes: usize = texts.chain(media_type).map(String::len).sum();
        if bytes <= MAX_LABEL_BYTES && bytes as u64 > max {
            Err(GuestError::quota("label-size", max))
        } else {
            Ok(())
        }
    }

    /// Counts a change, and takes room for a version of `name` of `bytes`.
    pub(super) async fn change(&self, name: &str, bytes: u64) -> Result<Reservation, GuestError> {
        self.account.change(&self.limits)?;
        Reservation::of(self, name, bytes).await
    }

    /// Counts a change that copies version `at` of `name` to `new_name`, and the read of it, and
    /// takes room for it.
    pub(super) async fn copy(
        &self,
        name: &str,
        at: Option<Version>,
        new_name: &str,
    ) -> Result<Reservation, GuestError> {
        let info = self.stat(name, at).await?;
        let size = info.map_or(0, |info| info.stored_size);
        let reservation = self.change(new_name, size).await?;
        self.has_read(0, size);
        Ok(reservation)
    }

    /// Counts a read that is about to be made.
    pub(super) fn read(&self) -> Result<(), GuestError> {
        self.account.read(&self.limits)
    }

    /// Counts what a read cost beyond itself.
    pub(super) fn has_read(&self, more_reads: u64, bytes: u64) {
        self.account.has_read(more_reads, bytes);
    }

    /// Returns what is known of a version, and counts the read.
    pub(super) async fn stat(
        &self,
        name: &str,
        at: Option<Version>,
    ) -> Result<Option<Info>, GuestError> {
        self.read()?;
        let info = self.scope.stat(name, at).await?;
        self.has_read(0, info.as_ref().map_or(0, stat_cost));
        Ok(info)
    }

    /// Counts a change that needs no room.
    pub(super) fn deletion(&self) -> Result<(), GuestError> {
        self.account.change(&self.limits)
    }

    /// Counts what a deletion made.
    pub(super) fn deleted(&self, info: &Info) {
        self.account.made(info);
    }

    pub(super) fn writer_place(&self) -> Result<SlotGuard, GuestError> {
        self.ledger.writer(&self.account, self.limits.open_writers)
    }

    pub(super) fn reader_place(&self) -> Result<SlotGuard, GuestError> {
        self.ledger.reader(&self.account, self.limits.open_readers)
    }

    /// Tells the embedder of a change that was acknowledged.
    pub(super) fn changed(&self, info: Info) -> Info {
        if let Some(on_change) = &self.on_change {
            on_change(&info);
        }
        info
    }
}

impl fmt::Debug for SnapshotCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCtx")
            .field("scope", &self.scope)
            .field("limits", &self.limits)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// Builds a [`SnapshotCtx`].
pub struct SnapshotCtxBuilder {
    scope: Scope,
    limits: Option<Limits>,
    rights: Rights,
    ledger: Option<Ledger>,
    on_change: Option<OnChange>,
}

impl SnapshotCtxBuilder {
    /// Sets what the guest may use, of the store and, run by an [`AgentHost`](super::AgentHost), of
    /// the machine; what all guests share is the host's. Without this: what the host was built
    /// with.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets what the guest may do. Without this: everything in its scope.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Sets where what the guest uses is counted. Without this: with its
    /// [`AgentHost`](super::AgentHost), or by itself.
    #[must_use]
    pub fn ledger(mut self, ledger: &Ledger) -> Self {
        self.ledger = Some(ledger.clone());
        self
    }

    /// Sets what is called with every save, deletion, restore and fork once it is durable, before
    /// the guest hears of it. It should not block.
    #[must_use]
    pub fn on_change(mut self, on_change: impl Fn(&Info) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Arc::new(on_change));
        self
    }

    /// The context.
    pub fn build(self) -> SnapshotCtx {
        let chosen = (self.limits.is_some(), self.ledger.is_some());
        let limits = self.limits.unwrap_or_default();
        let ledger = self.ledger.unwrap_or_else(|| Ledger::new(&limits));
        SnapshotCtx {
            account: ledger.account(&self.scope),
            scope: self.scope,
            limits,
            rights: self.rights,
            on_change: self.on_change,
            ledger,
            chosen,
        }
    }
}

impl fmt::Debug for SnapshotCtxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCtxBuilder")
            .field("scope", &self.scope)
            .field("limits", &self.limits)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// View that a call of a guest works on: its context and its handles, borrowed from your `T`.
#[derive(Debug)]
pub struct SnapshotView<'a> {
    pub(super) ctx: &'a SnapshotCtx,
    pub(super) table: &'a mut ResourceTable,
}

impl<'a> SnapshotView<'a> {
    /// A view of what your `T` holds.
    pub fn new(ctx: &'a SnapshotCtx, table: &'a mut ResourceTable) -> Self {
        Self { ctx, table }
    }
}
