//! What one guest sees of a store.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::ResourceTable;

use super::error::GuestError;
use super::limits::GuestLimits;
use crate::snapshot::{Info, Scope};

type OnChange = Arc<dyn Fn(&Info) + Send + Sync>;

/// What one guest sees of a store: a scope that the host chose, and limits. A guest cannot name another
/// scope, a bucket, a path or a credential.
///
/// Clones share the counts of open writers and readers, so that a guest with many instances has one allowance.
#[derive(Clone)]
pub struct SnapshotCtx {
    pub(super) scope: Scope,
    pub(super) limits: GuestLimits,
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    on_change: Option<OnChange>,
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
            limits: GuestLimits::default(),
            on_change: None,
        }
    }

    /// Bytes that one call of the guest may bring into the host: for
    /// [`Store::set_hostcall_fuel`](wasmtime::Store::set_hostcall_fuel).
    pub fn hostcall_fuel(&self) -> usize {
        self.limits.hostcall_fuel()
    }

    pub(super) fn writer_permit(&self) -> Result<OwnedSemaphorePermit, GuestError> {
        permit(&self.writers, "open-writers", self.limits.max_writers)
    }

    pub(super) fn reader_permit(&self) -> Result<OwnedSemaphorePermit, GuestError> {
        permit(&self.readers, "open-readers", self.limits.max_readers)
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
            .finish_non_exhaustive()
    }
}

fn permit(
    semaphore: &Arc<Semaphore>,
    limit: &'static str,
    max: u32,
) -> Result<OwnedSemaphorePermit, GuestError> {
    // Waiting would be for something that only this guest can give back.
    Arc::clone(semaphore)
        .try_acquire_owned()
        .map_err(|_| GuestError::quota(limit, max.into()))
}

/// Builds a [`SnapshotCtx`].
pub struct SnapshotCtxBuilder {
    scope: Scope,
    limits: GuestLimits,
    on_change: Option<OnChange>,
}

impl SnapshotCtxBuilder {
    /// Sets what the guest may ask of the store.
    #[must_use]
    pub fn limits(mut self, limits: GuestLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what is called with every save, deletion, restore and fork once it is durable, before the guest
    /// hears of it. It should not block.
    #[must_use]
    pub fn on_change(mut self, on_change: impl Fn(&Info) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Arc::new(on_change));
        self
    }

    /// The context.
    pub fn build(self) -> SnapshotCtx {
        SnapshotCtx {
            writers: Arc::new(Semaphore::new(self.limits.max_writers as usize)),
            readers: Arc::new(Semaphore::new(self.limits.max_readers as usize)),
            scope: self.scope,
            limits: self.limits,
            on_change: self.on_change,
        }
    }
}

impl fmt::Debug for SnapshotCtxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCtxBuilder")
            .field("scope", &self.scope)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What a call of a guest works on: its context and its handles, borrowed from your `T`.
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
