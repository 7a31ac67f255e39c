//! A guest's open reader.

use bytes::Bytes;

use super::allowance::Allowance;
use super::error::GuestError;
use super::ledger::SlotGuard;
use super::limits::to_u32;
use crate::snapshot::{Info, Reader};
use crate::telemetry::Telemetry;

/// A guest's open reader.
pub struct GuestReader {
    reader: Reader,
    allowance: Allowance,
    telemetry: Telemetry,
    _slot: SlotGuard,
}

impl GuestReader {
    pub(super) fn new(
        reader: Reader,
        slot: SlotGuard,
        allowance: Allowance,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            // A guest is charged for what is fetched, and a host has many readers.
            reader: reader.without_read_ahead(),
            allowance,
            telemetry,
            _slot: slot,
        }
    }

    /// Information about the version.
    pub fn info(&self) -> &Info {
        self.reader.info()
    }

    /// Reads up to `len` verified bytes from `offset`, at most the limit `chunk`. Fewer bytes are
    /// not the end of the state; no bytes are.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn read(&mut self, offset: u64, len: u32) -> Result<Bytes, GuestError> {
        let pending = self.telemetry.begin_guest_call("read", String::new);
        let read = self.read_checked(offset, len);
        let read = pending.last(read, |bytes| bytes.len() as u64).await;
        self.allowance.report(read)
    }

    async fn read_checked(&mut self, offset: u64, len: u32) -> Result<Bytes, GuestError> {
        if len == 0 {
            return Err(GuestError::invalid("`len` is 0; the minimum is 1"));
        }
        let len = len.min(to_u32(self.allowance.limits.chunk)) as usize;
        let _call = self.allowance.call_of_handle().await?;
        if !self.reader.holds(offset) {
            self.allowance.read()?;
        }
        let before = self.reader.fetched();
        let read = self.reader.read(offset, len).await;
        let fetched = self.reader.fetched() - before;
        self.allowance.has_read(0, fetched);
        Ok(read?)
    }
}

impl std::fmt::Debug for GuestReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestReader")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}
