//! A guest's open writer.

use super::allowance::Allowance;
use super::error::GuestError;
use super::ledger::SlotGuard;
use super::limits::to_usize;
use super::storage_quota::Reservation;
use crate::snapshot::{Info, Writer};
use crate::telemetry::Telemetry;

/// A guest's open writer. Dropping it aborts what it wrote.
pub struct GuestWriter {
    /// None after an error, and during a call: what was written may be incomplete.
    open: Option<(Writer, Reservation)>,
    allowance: Allowance,
    telemetry: Telemetry,
    _slot: SlotGuard,
}

impl GuestWriter {
    pub(super) fn new(
        writer: Writer,
        reservation: Reservation,
        slot: SlotGuard,
        allowance: Allowance,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            open: Some((writer, reservation)),
            allowance,
            telemetry,
            _slot: slot,
        }
    }

    /// Returns the most bytes that one [`write`](Self::write) takes: the limit `chunk`.
    pub fn max_chunk(&self) -> usize {
        to_usize(self.allowance.limits.chunk)
    }

    /// Appends to the state. After an error the writer can only be dropped.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), GuestError> {
        let pending = self.telemetry.begin_guest_call("write", String::new);
        let len = chunk.len() as u64;
        let written = pending.last(self.write_checked(chunk), |()| len).await;
        self.allowance.report(written)
    }

    async fn write_checked(&mut self, chunk: &[u8]) -> Result<(), GuestError> {
        let (mut writer, mut reservation) = self.take()?;
        let max = self.allowance.limits.chunk;
        let size = chunk.len() as u64;
        if size > max {
            return Err(GuestError::quota("chunk", max));
        }
        let _call = self.allowance.call_of_handle().await?;
        reservation.grow(size)?;
        writer.write(chunk).await?;
        self.open = Some((writer, reservation));
        Ok(())
    }

    /// Commits what was written.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn finish(self) -> Result<Info, GuestError> {
        let pending = self.telemetry.begin_guest_call("finish", String::new);
        let allowance = self.allowance.clone();
        allowance.report(pending.last(self.finish_checked(), |_| 0).await)
    }

    async fn finish_checked(mut self) -> Result<Info, GuestError> {
        let (writer, reservation) = self.take()?;
        let _call = self.allowance.call_of_handle().await?;
        let made = writer.finish().await;
        Ok(self.allowance.notify(reservation.settle(made)?))
    }

    fn take(&mut self) -> Result<(Writer, Reservation), GuestError> {
        let after_error = "a writer cannot continue after an error; drop it and open a new one";
        self.open
            .take()
            .ok_or_else(|| GuestError::invalid(after_error))
    }
}

impl std::fmt::Debug for GuestWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestWriter")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
