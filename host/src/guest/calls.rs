//! The calls of a guest, one for each function of `persist:snapshot/store`.
//!
//! A guest may be hostile: every length that it chooses is compared with a limit before anything is
//! allocated for it.

use bytes::Bytes;

use super::context::Guest;
use super::error::GuestError;
use super::ledger::Call;
use super::limits::to_u32;
use super::reader::GuestReader;
use super::rights::Right;
use super::storage_quota::Reservation;
use super::writer::GuestWriter;
use crate::snapshot::{
    self, Expect, Info, MAX_ENCODED, MAX_LABEL_BYTES, Name, SaveOptions, Snapshot, Version,
    stat_cost,
};
use crate::telemetry::Telemetry;

/// Returns the bytes of a call that passes no state.
fn none<T>(_: &T) -> u64 {
    0
}

type Result<T> = std::result::Result<T, GuestError>;

/// Limits that a guest can plan for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestLimits {
    /// Bytes of state in one `save` or `load`.
    pub max_inline: u64,
    /// Bytes in one `write` or `read`.
    pub max_chunk: u32,
    /// Bytes of one state.
    pub max_state: u64,
    /// Bytes of an encoded name.
    pub max_name: u32,
    /// Items in one page of `history` or `names`.
    pub max_page: u32,
}

impl Guest {
    /// Returns the limits that the guest can plan for.
    pub fn guest_limits(&self) -> GuestLimits {
        let limits = self.limits();
        GuestLimits {
            max_inline: limits.inline_size,
            max_chunk: to_u32(limits.chunk),
            max_state: limits.state_size.min(self.scope.max_state()),
            max_name: to_u32(limits.name_size),
            max_page: to_u32(limits.page),
        }
    }

    /// Saves `state` as the next version of `name`.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn save(&self, name: &str, state: Bytes, options: SaveOptions) -> Result<Info> {
        let pending = self
            .telemetry()
            .begin_guest_call("save", || self.dir_of(name));
        let call = async {
            let limits = self.limits();
            let size = state.len() as u64;
            let (parsed, _call) = self.begin_save(name).await?;
            if size > limits.inline_size {
                return Err(GuestError::TooLarge { size });
            }
            if size > limits.state_size {
                return Err(GuestError::quota("state-size", limits.state_size));
            }
            let label_bytes = self.check_label_bytes(&options)?;
            let reservation = self.reserve(name, size).await?;
            let name = parsed?;
            options.check_with(label_bytes)?;
            let made = self.scope.save_checked(&name, state, options).await;
            Ok(self.allowance.notify(reservation.settle(made)?))
        };
        self.allowance
            .report(pending.last(call, |info| info.size).await)
    }

    /// Loads the newest version, or version `at`. Returns none if nothing was saved, or if the
    /// version is a tombstone.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn load(&self, name: &str, at: Option<Version>) -> Result<Option<Snapshot>> {
        let pending = self
            .telemetry()
            .begin_guest_call("load", || self.dir_of(name));
        let call = async {
            let _call = self.begin(Right::Load, name).await?;
            self.allowance.read()?;
            let max = self.limits().inline_size;
            match self.scope.load_at_most(name, at, max).await {
                Ok(snapshot) => {
                    if let Some(snapshot) = &snapshot {
                        self.allowance.has_read(0, snapshot.info.stored_size);
                    }
                    Ok(snapshot)
                }
                Err(snapshot::Error::TooLarge { size, .. }) => Err(GuestError::TooLarge { size }),
                Err(error) => {
                    // All of it was read, and its size is not known any more.
                    if let snapshot::Error::Corrupt { .. } = error {
                        self.allowance.has_read(0, max);
                    }
                    Err(error.into())
                }
            }
        };
        let size = |snapshot: &Option<Snapshot>| {
            let snapshot = snapshot.as_ref();
            snapshot.map_or(0, |snapshot| snapshot.info.size)
        };
        self.allowance.report(pending.last(call, size).await)
    }

    /// Returns information about the newest version, or about version `at`, also of a tombstone.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn stat(&self, name: &str, at: Option<Version>) -> Result<Option<Info>> {
        let pending = self
            .telemetry()
            .begin_guest_call("stat", || self.dir_of(name));
        let call = async {
            let _call = self.begin(Right::Load, name).await?;
            self.stat_counted(name, at).await
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Returns a page of the versions below `before`, or of all versions, newest first.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn history(
        &self,
        name: &str,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<Info>> {
        let pending = self
            .telemetry()
            .begin_guest_call("history", || self.dir_of(name));
        let call = async {
            let _call = self.begin(Right::List, name).await?;
            let limit = self.page_size(limit);
            self.allowance.read()?;
            let page = self.scope.history(name, before, limit).await?;
            let bytes = page.iter().map(stat_cost).sum();
            self.allowance.has_read(page.len() as u64, bytes);
            Ok(page)
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Returns a page of the names that start with `prefix`, after the name `after`. Lists only
    /// names that the guest has rights to.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn names(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Name>> {
        let pending = self
            .telemetry()
            .begin_guest_call("names", || self.dir_of(prefix));
        let call = async {
            let limit = self.page_size(limit);
            let Some(prefix) = self.rights.listed(prefix)? else {
                return Ok(Vec::new());
            };
            let _call = self.allowance.call().await?;
            self.allowance.read()?;
            Ok(self.scope.names(prefix, after, limit).await?)
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Makes a tombstone the next version of `name`.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn delete(&self, name: &str, expect: Expect) -> Result<Info> {
        let pending = self
            .telemetry()
            .begin_guest_call("delete", || self.dir_of(name));
        let call = async {
            let _call = self.begin(Right::Delete, name).await?;
            self.allowance.change()?;
            let info = self.scope.delete(name, expect).await?;
            self.allowance.usage.quota.count_tombstone(&info);
            Ok(self.allowance.notify(info))
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Saves the state of `version` as the next version of `name`.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn restore(&self, name: &str, version: Version, expect: Expect) -> Result<Info> {
        let pending = self
            .telemetry()
            .begin_guest_call("restore", || self.dir_of(name));
        let call = async {
            self.rights.check(Right::Load, name)?;
            let (parsed, _call) = self.begin_save(name).await?;
            let (parsed, reservation) = self.reserve_copy(parsed, Some(version), name).await?;
            let made = self.scope.inner.restore(&parsed, version, expect).await;
            Ok(self.allowance.notify(reservation.settle(made)?))
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Saves the newest state of `name`, or that of version `at`, as the next version of
    /// `new_name`.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn fork(
        &self,
        name: &str,
        at: Option<Version>,
        new_name: &str,
        expect: Expect,
    ) -> Result<Info> {
        let pending = self
            .telemetry()
            .begin_guest_call("fork", || self.dir_of(new_name));
        let call = async {
            self.rights.check(Right::Load, name)?;
            self.rights.check(Right::Save, new_name)?;
            let parsed = self.parse(name)?;
            let new_parsed = self.parse(new_name)?;
            let _call = self.allowance.call().await?;
            let (parsed, reservation) = self.reserve_copy(parsed, at, new_name).await?;
            let new_parsed = new_parsed?;
            let scope = &self.scope.inner;
            let made = scope.fork(&parsed, at, (scope, &new_parsed), expect).await;
            Ok(self.allowance.notify(reservation.settle(made)?))
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Opens a writer of the next version of `name`. [`Expect::Any`] means the newest version at
    /// this moment.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn writer(&self, name: &str, options: SaveOptions) -> Result<GuestWriter> {
        let pending = self
            .telemetry()
            .begin_guest_call("open_writer", || self.dir_of(name));
        let call = async {
            let (parsed, _call) = self.begin_save(name).await?;
            let label_bytes = self.check_label_bytes(&options)?;
            let slot = self.allowance.writer_slot()?;
            let reservation = self.reserve(name, 0).await?;
            let name = parsed?;
            options.check_with(label_bytes)?;
            let writer = self.scope.writer_from_head(&name, options).await?;
            let writer = writer.at_most(self.limits().state_size);
            Ok(GuestWriter::new(
                writer,
                reservation,
                slot,
                self.allowance.clone(),
                self.telemetry().clone(),
            ))
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Opens the newest version, or version `at`, for reading in pieces. Returns none as
    /// [`Guest::load`] does.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn reader(&self, name: &str, at: Option<Version>) -> Result<Option<GuestReader>> {
        let pending = self
            .telemetry()
            .begin_guest_call("open_reader", || self.dir_of(name));
        let call = async {
            let _call = self.begin(Right::Load, name).await?;
            let slot = self.allowance.reader_slot()?;
            self.allowance.read()?;
            let Some(reader) = self.scope.reader(name, at).await? else {
                return Ok(None);
            };
            self.allowance.has_read(0, stat_cost(reader.info()));
            Ok(Some(GuestReader::new(
                reader,
                slot,
                self.allowance.clone(),
                self.telemetry().clone(),
            )))
        };
        self.allowance.report(pending.last(call, none).await)
    }

    /// Returns the telemetry of the guest's store.
    fn telemetry(&self) -> &Telemetry {
        &self.scope.inner.store.shared.telemetry
    }

    /// Returns the directory of a name, for its hash in a span.
    fn dir_of(&self, name: &str) -> String {
        Name::new(name).map_or_else(|_| String::new(), |name| self.scope.inner.dir_of(&name))
    }

    /// Begins every call that names something. If this returns an error, the storage was asked
    /// nothing.
    async fn begin(&self, right: Right, name: &str) -> Result<Call> {
        self.rights.check(right, name)?;
        self.check_name(name)?;
        self.allowance.call().await
    }

    /// Begins a save, and parses its name for all later steps. An invalid name is reported after
    /// the limits, so that the attempt is counted.
    async fn begin_save(&self, name: &str) -> Result<(snapshot::Result<Name>, Call)> {
        self.rights.check(Right::Save, name)?;
        let name = self.parse(name)?;
        let call = self.allowance.call().await?;
        Ok((name, call))
    }

    /// Parses a name for all later steps, and compares it with the limit of its size. The store
    /// reports a name that is over the maximum for all names.
    fn parse(&self, name: &str) -> Result<snapshot::Result<Name>> {
        let max = self.limits().name_size;
        let name = Name::new(name);
        match &name {
            Ok(name) if name.encoded().len() as u64 > max => {
                Err(GuestError::quota("name-size", max))
            }
            _ => Ok(name),
        }
    }

    /// Compares the bytes of labels and media type with their limit, and returns them. The store
    /// reports options that are over the maximum for all.
    fn check_label_bytes(&self, options: &SaveOptions) -> Result<usize> {
        let max = self.limits().label_size;
        let bytes = options.label_bytes();
        if bytes <= MAX_LABEL_BYTES && bytes as u64 > max {
            Err(GuestError::quota("label-size", max))
        } else {
            Ok(bytes)
        }
    }

    /// Checks a name against the limit of its size. No name is over the default limit.
    fn check_name(&self, name: &str) -> Result<()> {
        if self.limits().name_size < MAX_ENCODED as u64 {
            // The call itself reports a name that is invalid.
            let _ = self.parse(name)?;
        }
        Ok(())
    }

    fn page_size(&self, limit: u32) -> usize {
        limit.min(to_u32(self.limits().page)) as usize
    }

    /// Counts a change, and reserves storage for a version of `name` of `bytes`.
    async fn reserve(&self, name: &str, bytes: u64) -> Result<Reservation> {
        self.allowance.change()?;
        let quota = &self.allowance.usage.quota;
        quota
            .reserve(self.limits(), &self.rights, name, bytes)
            .await
    }

    /// Counts the read and the change of a copy of version `at` of a name, and reserves storage for
    /// it under `new_name`. An invalid name is reported once the attempt is counted.
    async fn reserve_copy(
        &self,
        name: snapshot::Result<Name>,
        at: Option<Version>,
        new_name: &str,
    ) -> Result<(Name, Reservation)> {
        self.allowance.read()?;
        let name = name?;
        let info = self.scope.inner.stat(&name, at).await?;
        self.count_stat(info.as_ref());
        let size = info.map_or(0, |info| info.stored_size);
        let reservation = self.reserve(new_name, size).await?;
        self.allowance.has_read(0, size);
        Ok((name, reservation))
    }

    async fn stat_counted(&self, name: &str, at: Option<Version>) -> Result<Option<Info>> {
        self.allowance.read()?;
        let info = self.scope.stat(name, at).await?;
        self.count_stat(info.as_ref());
        Ok(info)
    }

    fn count_stat(&self, info: Option<&Info>) {
        self.allowance.has_read(0, info.map_or(0, stat_cost));
    }
}
