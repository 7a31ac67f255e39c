//! The host side of `persist:snapshot/store`.
//!
//! Everything here is called by a guest that may mean harm: every length it chooses is compared with a limit before
//! anything is allocated for it, and every handle is looked up in the guest's own table.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{HasData, Linker, Resource};

use super::ctx::SnapshotView;
use super::error::GuestError;
use super::generated::persist::snapshot::store::{self, Host, HostReader, HostWriter};
use super::generated::persist::snapshot::types::{self, Info, Snapshot};
use crate::snapshot::{self, Expect, Name, Reader, SaveOptions, Version, Writer};

type Result<T> = std::result::Result<T, GuestError>;

/// Gives every guest of `linker` the imports of `persist:snapshot`. `view` finds its context in your `T`.
///
/// The calls are async: use [`call_async`](wasmtime::component::TypedFunc::call_async) and a tokio runtime. The crate
/// page has a complete example.
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
    writer: Option<Writer>,
    _permit: OwnedSemaphorePermit,
}

impl WriterHandle {
    fn take(&mut self) -> Result<Writer> {
        let after_error = "a writer cannot go on after an error; drop it and open a new one";
        self.writer
            .take()
            .ok_or_else(|| GuestError::invalid(after_error))
    }
}

/// A guest's open reader.
#[derive(Debug)]
pub struct ReaderHandle {
    reader: Reader,
    _permit: OwnedSemaphorePermit,
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
            max_inline: limits.max_inline,
            max_chunk: limits.max_chunk,
            max_state: limits.max_state.min(self.ctx.scope.max_state()),
            max_name: snapshot::MAX_ENCODED as u32,
            max_page: limits.max_page,
        })
    }

    async fn save(
        &mut self,
        name: String,
        state: Vec<u8>,
        options: types::SaveOptions,
    ) -> Result<Info> {
        let (size, limits) = (state.len() as u64, &self.ctx.limits);
        if size > limits.max_inline {
            return Err(GuestError::too_large(size));
        }
        if size > limits.max_state {
            return Err(GuestError::quota("state-size", limits.max_state));
        }
        // The guest's list was copied once, into this vector; from here on it is shared, not copied.
        let state = Bytes::from(state);
        let info = self.ctx.scope.save(&name, state, options.into()).await?;
        Ok(self.ctx.changed(info).into())
    }

    async fn load(&mut self, name: String, at: Option<Version>) -> Result<Option<Snapshot>> {
        let max = self.ctx.limits.max_inline;
        match self.ctx.scope.load_at_most(&name, at, max).await {
            Ok(snapshot) => Ok(snapshot.map(|snapshot| Snapshot {
                info: snapshot.info.into(),
                state: snapshot.state.into(),
            })),
            Err(snapshot::Error::TooLarge { size, .. }) => Err(GuestError::too_large(size)),
            Err(error) => Err(error.into()),
        }
    }

    async fn stat(&mut self, name: String, at: Option<Version>) -> Result<Option<Info>> {
        Ok(self.ctx.scope.stat(&name, at).await?.map(Info::from))
    }

    async fn history(
        &mut self,
        name: String,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<Info>> {
        let page = self
            .ctx
            .scope
            .history(&name, before, self.page(limit))
            .await?;
        Ok(page.into_iter().map(Info::from).collect())
    }

    async fn names(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let (scope, limit) = (&self.ctx.scope, self.page(limit));
        let page = scope.names(&prefix, after.as_deref(), limit).await?;
        Ok(page.iter().map(Name::to_string).collect())
    }

    async fn delete(&mut self, name: String, expect: types::Expect) -> Result<Info> {
        let info = self.ctx.scope.delete(&name, expect.into()).await?;
        Ok(self.ctx.changed(info).into())
    }

    async fn restore(
        &mut self,
        name: String,
        version: Version,
        expect: types::Expect,
    ) -> Result<Info> {
        let info = self
            .ctx
            .scope
            .restore(&name, version, expect.into())
            .await?;
        Ok(self.ctx.changed(info).into())
    }

    async fn fork(
        &mut self,
        name: String,
        at: Option<Version>,
        new_name: String,
        expect: types::Expect,
    ) -> Result<Info> {
        let scope = &self.ctx.scope;
        let info = scope.fork(&name, at, &new_name, expect.into()).await?;
        Ok(self.ctx.changed(info).into())
    }
}

impl SnapshotView<'_> {
    fn page(&self, limit: u32) -> usize {
        limit.min(self.ctx.limits.max_page) as usize
    }
}

impl HostWriter for SnapshotView<'_> {
    async fn open(
        &mut self,
        name: String,
        options: types::SaveOptions,
    ) -> Result<Resource<WriterHandle>> {
        let permit = self.ctx.writer_permit()?;
        let writer = self
            .ctx
            .scope
            .writer_from_head(&name, options.into())
            .await?;
        Ok(self.table.push(WriterHandle {
            writer: Some(writer.at_most(self.ctx.limits.max_state)),
            _permit: permit,
        })?)
    }

    async fn write(&mut self, this: Resource<WriterHandle>, chunk: Vec<u8>) -> Result<()> {
        let max = self.ctx.limits.max_chunk;
        let handle = self.table.get_mut(&this)?;
        let mut writer = handle.take()?;
        if chunk.len() as u64 > u64::from(max) {
            return Err(GuestError::quota("chunk", max.into()));
        }
        writer.write(&chunk).await?;
        handle.writer = Some(writer);
        Ok(())
    }

    async fn finish(&mut self, this: Resource<WriterHandle>) -> Result<Info> {
        let writer = self.table.delete(this)?.take()?;
        Ok(self.ctx.changed(writer.finish().await?).into())
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
        let permit = self.ctx.reader_permit()?;
        let Some(reader) = self.ctx.scope.reader(&name, at).await? else {
            return Ok(None);
        };
        Ok(Some(self.table.push(ReaderHandle {
            reader,
            _permit: permit,
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
            return Err(GuestError::invalid("`len` is 0; read at least one byte"));
        }
        let len = len.min(self.ctx.limits.max_chunk) as usize;
        Ok(self
            .table
            .get_mut(&this)?
            .reader
            .read(offset, len)
            .await?
            .into())
    }

    async fn drop(&mut self, this: Resource<ReaderHandle>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
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
