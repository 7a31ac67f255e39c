//! The host side of `persist:snapshot/store`.
//!
//! Everything here is called by a guest that may mean harm: every length it chooses is compared
//! with a limit before anything is allocated for it, and every handle is looked up in the guest's
//! own table.

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource};

use super::ctx::SnapshotView;
use super::error::GuestError;
use super::generated::persist::snapshot::store::{self, Host, HostReader, HostWriter};
use super::generated::persist::snapshot::types::{self, Info, Snapshot};
use super::ledger::SlotGuard;
use super::rights::Right;
use super::storage_quota::Reservation;
use crate::snapshot::{self, Expect, Name, Reader, SaveOptions, Version, Writer};

type Result<T> = std::result::Result<T, GuestError>;

/// Gives every guest of `linker` the imports of `persist:snapshot`. `view` finds its context in
/// your `T`.
///
/// The calls are async: use [`call_async`](wasmtime::component::TypedFunc::call_async) and a tokio
/// runtime. The crate page has a complete example.
///
/// # Errors
/// Where the linker has these imports already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> SnapshotView<'_>,
) -> wasmtime::Result<()> {
    types::add_to_linker::<T, HasSnapshots>(linker, view)?;
    store::add_to_linker::<T, HasSnapshots>(linker, view)
}

struct HasSnapshots;

impl HasData for HasSnapshots {
    type Data<'a> = SnapshotView<'a>;
}

/// A guest's open writer. Dropping it, with its store or alone, aborts what it wrote.
#[derive(Debug)]
pub struct WriterHandle {
    /// None after an error, and while a call is under way: what was written may not be whole.
    writer: Option<(Writer, Reservation)>,
    _place: SlotGuard,
}

impl WriterHandle {
    fn take(&mut self) -> Result<(Writer, Reservation)> {
        let after_error = "a writer cannot continue after an error; drop it and open a new one";
        self.writer
            .take()
            .ok_or_else(|| GuestError::invalid(after_error))
    }
}

/// A guest's open reader.
#[derive(Debug)]
pub struct ReaderHandle {
    reader: Reader,
    _place: SlotGuard,
}

impl types::Host for SnapshotView<'_> {
    fn convert_error(&mut self, error: GuestError) -> wasmtime::Result<types::Error> {
        match error {
            GuestError::Told(error) => Ok(error),
            GuestError::Trap(error) => Err(error),
        }
    }
}

impl Host for SnapshotView<'_> {
    async fn limits(&mut self) -> wasmtime::Result<types::GuestLimits> {
        let limits = &self.ctx.limits;
        Ok(types::GuestLimits {
            max_inline: limits.inline_size,
            max_chunk: short(limits.chunk),
            max_state: limits.state_size.min(self.ctx.scope.max_state()),
            max_name: short(limits.name_size),
            max_page: short(limits.page),
        })
    }

    async fn save(
        &mut self,
        name: String,
        state: Vec<u8>,
        options: types::SaveOptions,
    ) -> Result<Info> {
        let ctx = self.ctx;
        let size = state.len() as u64;
        let _call = ctx.call(&[(Right::Save, &name)]).await?;
        if size > ctx.limits.inline_size {
            return Err(GuestError::too_large(size));
        }
        if size > ctx.limits.state_size {
            return Err(GuestError::quota("state-size", ctx.limits.state_size));
        }
        ctx.check_labels(&options.labels, options.media_type.as_ref())?;
        let reservation = ctx.change(&name, size).await?;
        // The guest's list was copied once, into this vector; from here on it is shared, not
        // copied.
        let state = Bytes::from(state);
        let made = ctx.scope.save(&name, state, options.into()).await;
        Ok(ctx.changed(reservation.settle(made)?).into())
    }

    async fn load(&mut self, name: String, at: Option<Version>) -> Result<Option<Snapshot>> {
        let ctx = self.ctx;
        let _call = ctx.call(&[(Right::Load, &name)]).await?;
        ctx.read()?;
        let max = ctx.limits.inline_size;
        match ctx.scope.load_at_most(&name, at, max).await {
            Ok(snapshot) => Ok(snapshot.map(|snapshot| {
                ctx.has_read(0, snapshot.info.stored_size);
                Snapshot {
                    info: snapshot.info.into(),
                    state: snapshot.state.into(),
                }
            })),
            Err(snapshot::Error::TooLarge { size, .. }) => Err(GuestError::too_large(size)),
            Err(error) => {
                // All of it was read, and how much that was is not known any more.
                if let snapshot::Error::Corrupt { .. } = error {
                    ctx.has_read(0, max);
                }
                Err(error.into())
            }
        }
    }

    async fn stat(&mut self, name: String, at: Option<Version>) -> Result<Option<Info>> {
        let _call = self.ctx.call(&[(Right::Load, &name)]).await?;
        Ok(self.ctx.stat(&name, at).await?.map(Info::from))
    }

    async fn history(
        &mut self,
        name: String,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<Info>> {
        let _call = self.ctx.call(&[(Right::List, &name)]).await?;
        let limit = self.page(limit);
        self.ctx.read()?;
        let page = self.ctx.scope.history(&name, before, limit).await?;
        let bytes = page.iter().map(snapshot::stat_cost).sum();
        self.ctx.has_read(page.len() as u64, bytes);
        Ok(page.into_iter().map(Info::from).collect())
    }

    async fn names(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let scope = &self.ctx.scope;
        let limit = self.page(limit);
        let Some(prefix) = self.ctx.rights.listed(&prefix)? else {
            return Ok(Vec::new());
        };
        let _call = self.ctx.call_of_scope().await?;
        self.ctx.read()?;
        let page = scope.names(prefix, after.as_deref(), limit).await?;
        Ok(page.iter().map(Name::to_string).collect())
    }

    async fn delete(&mut self, name: String, expect: types::Expect) -> Result<Info> {
        let _call = self.ctx.call(&[(Right::Delete, &name)]).await?;
        self.ctx.deletion()?;
        let info = self.ctx.scope.delete(&name, expect.into()).await?;
        self.ctx.deleted(&info);
        Ok(self.ctx.changed(info).into())
    }

    async fn restore(
        &mut self,
        name: String,
        version: Version,
        expect: types::Expect,
    ) -> Result<Info> {
        let ctx = self.ctx;
        let needs = [(Right::Load, &*name), (Right::Save, &name)];
        let _call = ctx.call(&needs).await?;
        let reservation = ctx.copy(&name, Some(version), &name).await?;
        let made = ctx.scope.restore(&name, version, expect.into()).await;
        Ok(ctx.changed(reservation.settle(made)?).into())
    }

    async fn fork(
        &mut self,
        name: String,
        at: Option<Version>,
        new_name: String,
        expect: types::Expect,
    ) -> Result<Info> {
        let ctx = self.ctx;
        let needs = [(Right::Load, &*name), (Right::Save, &new_name)];
        let _call = ctx.call(&needs).await?;
        let reservation = ctx.copy(&name, at, &new_name).await?;
        let made = ctx.scope.fork(&name, at, &new_name, expect.into()).await;
        Ok(ctx.changed(reservation.settle(made)?).into())
    }
}

impl SnapshotView<'_> {
    fn page(&self, limit: u32) -> usize {
        limit.min(short(self.ctx.limits.page)) as usize
    }
}

impl HostWriter for SnapshotView<'_> {
    async fn open(
        &mut self,
        name: String,
        options: types::SaveOptions,
    ) -> Result<Resource<WriterHandle>> {
        let ctx = self.ctx;
        let _call = ctx.call(&[(Right::Save, &name)]).await?;
        ctx.check_labels(&options.labels, options.media_type.as_ref())?;
        let place = ctx.writer_place()?;
        let reservation = ctx.change(&name, 0).await?;
        let writer = ctx.scope.writer_from_head(&name, options.into()).await?;
        let writer = writer.at_most(ctx.limits.state_size);
        Ok(self.table.push(WriterHandle {
            writer: Some((writer, reservation)),
            _place: place,
        })?)
    }

    async fn write(&mut self, this: Resource<WriterHandle>, chunk: Vec<u8>) -> Result<()> {
        let max = self.ctx.limits.chunk;
        let handle = self.table.get_mut(&this)?;
        let (mut writer, mut reservation) = handle.take()?;
        if chunk.len() as u64 > max {
            return Err(GuestError::quota("chunk", max));
        }
        let _call = self.ctx.call_of_handle().await?;
        reservation.grow(chunk.len() as u64)?;
        writer.write(&chunk).await?;
        handle.writer = Some((writer, reservation));
        Ok(())
    }

    async fn finish(&mut self, this: Resource<WriterHandle>) -> Result<Info> {
        let mut handle = self.table.delete(this)?;
        let (writer, reservation) = handle.take()?;
        let _call = self.ctx.call_of_handle().await?;
        Ok(self
            .ctx
            .changed(reservation.settle(writer.finish().await)?)
            .into())
    }

    async fn drop(&mut self, this: Resource<WriterHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostReader for SnapshotView<'_> {
    async fn open(
        &mut self,
        name: String,
        at: Option<Version>,
    ) -> Result<Option<Resource<ReaderHandle>>> {
        let _call = self.ctx.call(&[(Right::Load, &name)]).await?;
        let place = self.ctx.reader_place()?;
        self.ctx.read()?;
        let Some(reader) = self.ctx.scope.reader(&name, at).await? else {
            return Ok(None);
        };
        self.ctx.has_read(0, snapshot::stat_cost(reader.info()));
        Ok(Some(self.table.push(ReaderHandle {
            reader,
            _place: place,
        })?))
    }

    async fn info(&mut self, this: Resource<ReaderHandle>) -> wasmtime::Result<Info> {
        Ok(self.table.get(&this)?.reader.info().clone().into())
    }

    async fn read(
        &mut self,
        this: Resource<ReaderHandle>,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>> {
        if len == 0 {
            return Err(GuestError::invalid("`len` is 0; the minimum is 1"));
        }
        let len = len.min(short(self.ctx.limits.chunk)) as usize;
        let reader = &mut self.table.get_mut(&this)?.reader;
        let _call = self.ctx.call_of_handle().await?;
        if !reader.holds(offset) {
            self.ctx.read()?;
        }
        let before = reader.fetched();
        let read = reader.read(offset, len).await;
        self.ctx.has_read(0, reader.fetched() - before);
        Ok(read?.into())
    }

    async fn drop(&mut self, this: Resource<ReaderHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// A limit as the contract counts it.
fn short(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

impl From<snapshot::Info> for Info {
    fn from(info: snapshot::Info) -> Self {
        Self {
            name: info.name,
            version: info.version,
            parent: info.parent,
            deleted: info.deleted,
            size: info.size,
            stored_size: info.stored_size,
            sha256: info.sha256,
            created_at: info.created_at,
            media_type: info.media_type,
            labels: info.labels,
        }
    }
}

impl From<types::Expect> for Expect {
    fn from(expect: types::Expect) -> Self {
        match expect {
            types::Expect::Any => Self::Any,
            types::Expect::Absent => Self::Absent,
            types::Expect::Version(version) => Self::Version(version),
        }
    }
}

impl From<types::SaveOptions> for SaveOptions {
    fn from(options: types::SaveOptions) -> Self {
        Self {
            expect: options.expect.into(),
            media_type: options.media_type,
            labels: options.labels,
        }
    }
}
