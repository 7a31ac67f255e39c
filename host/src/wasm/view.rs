//! Borrows of a call from the embedder's `T`.

use wasmtime::component::{HasData, ResourceTable};

use crate::guest::Guest;

/// View that a call of a guest works on: its context and its handles, borrowed from your `T`.
#[derive(Debug)]
pub struct SnapshotView<'a> {
    pub(super) guest: &'a Guest,
    pub(super) table: &'a mut ResourceTable,
}

impl<'a> SnapshotView<'a> {
    /// A view of what your `T` holds.
    pub fn new(guest: &'a Guest, table: &'a mut ResourceTable) -> Self {
        Self { guest, table }
    }
}

impl Guest {
    /// Bytes that one call of the guest may bring into the host: for
    /// [`Store::set_hostcall_fuel`](wasmtime::Store::set_hostcall_fuel).
    pub fn hostcall_fuel(&self) -> usize {
        self.limits().hostcall_fuel()
    }
}

/// The view as the data of generated bindings.
pub(super) struct HasSnapshots;

impl HasData for HasSnapshots {
    type Data<'a> = SnapshotView<'a>;
}
