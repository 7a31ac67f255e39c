//! The host side of `persist:snapshot`: converts types, finds handles and calls
//! [`guest`](crate::guest).

use wasmtime::component::{Linker, Resource};

use super::bindings::persist::snapshot::store::{self, Host, HostReader, HostWriter};
use super::bindings::persist::snapshot::types::{self, Info, Snapshot};
use super::error::CallError;
use super::view::{HasSnapshots, SnapshotView};
use crate::guest::{GuestReader, GuestWriter};
use crate::snapshot::{Name, Version};

type Result<T> = std::result::Result<T, CallError>;

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

impl types::Host for SnapshotView<'_> {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<types::Error> {
        match error {
            CallError::Told(error) => Ok(error.into()),
            CallError::Trap(error) => Err(error),
        }
    }
}

impl Host for SnapshotView<'_> {
    async fn limits(&mut self) -> wasmtime::Result<types::GuestLimits> {
        Ok(self.guest.guest_limits().into())
    }

    async fn save(
        &mut self,
        name: String,
        state: Vec<u8>,
        options: types::SaveOptions,
    ) -> Result<Info> {
        // The guest's list was copied once, into this vector; from here on it is shared, not
        // copied.
        let saved = self.guest.save(&name, state.into(), options.into());
        Ok(saved.await?.into())
    }

    async fn load(&mut self, name: String, at: Option<Version>) -> Result<Option<Snapshot>> {
        Ok(self.guest.load(&name, at).await?.map(Snapshot::from))
    }

    async fn stat(&mut self, name: String, at: Option<Version>) -> Result<Option<Info>> {
        Ok(self.guest.stat(&name, at).await?.map(Info::from))
    }

    async fn history(
        &mut self,
        name: String,
        before: Option<Version>,
        limit: u32,
    ) -> Result<Vec<Info>> {
        let page = self.guest.history(&name, before, limit).await?;
        Ok(page.into_iter().map(Info::from).collect())
    }

    async fn names(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<Vec<String>> {
        let page = self.guest.names(&prefix, after.as_deref(), limit).await?;
        Ok(page.iter().map(Name::to_string).collect())
    }

    async fn delete(&mut self, name: String, expect: types::Expect) -> Result<Info> {
        Ok(self.guest.delete(&name, expect.into()).await?.into())
    }

    async fn restore(
        &mut self,
        name: String,
        version: Version,
        expect: types::Expect,
    ) -> Result<Info> {
        let restored = self.guest.restore(&name, version, expect.into());
        Ok(restored.await?.into())
    }

    async fn fork(
        &mut self,
        name: String,
        at: Option<Version>,
        new_name: String,
        expect: types::Expect,
    ) -> Result<Info> {
        let forked = self.guest.fork(&name, at, &new_name, expect.into());
        Ok(forked.await?.into())
    }
}

impl HostWriter for SnapshotView<'_> {
    async fn open(
        &mut self,
        name: String,
        options: types::SaveOptions,
    ) -> Result<Resource<GuestWriter>> {
        let writer = self.guest.writer(&name, options.into()).await?;
        Ok(self.table.push(writer)?)
    }

    async fn write(&mut self, this: Resource<GuestWriter>, chunk: Vec<u8>) -> Result<()> {
        let writer = self.table.get_mut(&this)?;
        Ok(writer.write(&chunk).await?)
    }

    async fn finish(&mut self, this: Resource<GuestWriter>) -> Result<Info> {
        let writer = self.table.delete(this)?;
        Ok(writer.finish().await?.into())
    }

    async fn drop(&mut self, this: Resource<GuestWriter>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostReader for SnapshotView<'_> {
    async fn open(
        &mut self,
        name: String,
        at: Option<Version>,
    ) -> Result<Option<Resource<GuestReader>>> {
        match self.guest.reader(&name, at).await? {
            Some(reader) => Ok(Some(self.table.push(reader)?)),
            None => Ok(None),
        }
    }

    async fn info(&mut self, this: Resource<GuestReader>) -> wasmtime::Result<Info> {
        Ok(self.table.get(&this)?.info().clone().into())
    }

    async fn read(
        &mut self,
        this: Resource<GuestReader>,
        offset: u64,
        len: u32,
    ) -> Result<Vec<u8>> {
        let reader = self.table.get_mut(&this)?;
        Ok(reader.read(offset, len).await?.into())
    }

    async fn drop(&mut self, this: Resource<GuestReader>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
