//! Limits of one guest, and the counters of its usage.

use std::sync::Arc;

use super::error::GuestError;
use super::ledger::{Call, Ledger, ScopeUsage, SlotGuard};
use super::limits::Limits;
use crate::snapshot::Info;

/// A callback for every durable change.
pub(super) type OnChange = Arc<dyn Fn(&Info) + Send + Sync>;

/// A callback for every call that fails.
pub(super) type OnError = Arc<dyn Fn(&GuestError) + Send + Sync>;

/// Limits of a guest with the counters that they are compared with. A guest shares it with its
/// writers and readers.
#[derive(Clone)]
pub(super) struct Allowance {
    pub(super) limits: Limits,
    pub(super) ledger: Ledger,
    pub(super) usage: Arc<ScopeUsage>,
    pub(super) on_change: Option<OnChange>,
    pub(super) on_error: Option<OnError>,
}

impl Allowance {
    /// Begins a call that names something or lists the scope.
    pub(super) async fn call(&self) -> Result<Call, GuestError> {
        let max = self.limits.calls_in_flight;
        self.ledger.call(&self.usage, max).await
    }

    /// Begins a call of a writer or a reader.
    pub(super) async fn call_of_handle(&self) -> Result<Call, GuestError> {
        self.ledger.call_of_handle().await
    }

    /// Counts a change.
    pub(super) fn change(&self) -> Result<(), GuestError> {
        self.usage.change(&self.limits)
    }

    /// Counts a read that is about to be made.
    pub(super) fn read(&self) -> Result<(), GuestError> {
        self.usage.read(&self.limits)
    }

    /// Counts further requests and bytes of a read.
    pub(super) fn has_read(&self, more_reads: u64, bytes: u64) {
        self.usage.has_read(more_reads, bytes);
    }

    pub(super) fn writer_slot(&self) -> Result<SlotGuard, GuestError> {
        self.ledger.writer(&self.usage, self.limits.open_writers)
    }

    pub(super) fn reader_slot(&self) -> Result<SlotGuard, GuestError> {
        self.ledger.reader(&self.usage, self.limits.open_readers)
    }

    /// Tells the embedder about a durable change, and returns it.
    pub(super) fn notify(&self, info: Info) -> Info {
        if let Some(on_change) = &self.on_change {
            on_change(&info);
        }
        info
    }

    /// Reports a call that failed to the embedder, and returns its result.
    pub(super) fn report<T>(&self, result: Result<T, GuestError>) -> Result<T, GuestError> {
        if let (Err(error), Some(on_error)) = (&result, &self.on_error) {
            on_error(error);
        }
        result
    }
}
