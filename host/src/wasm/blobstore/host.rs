//! The host side of `wasi:blobstore`: converts types, finds handles and calls
//! [`Bucket`](crate::guest::Bucket).

use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::BlobStoreView;
use super::bindings::wasi::blobstore::blobstore::{self, ObjectId};
use super::bindings::wasi::blobstore::container::{self, ContainerMetadata, ObjectMetadata};
use super::bindings::wasi::blobstore::types;
use super::incoming::IncomingValue;
use super::outgoing::OutgoingValue;
use crate::guest::{Bucket, BucketError, ObjectNames};

/// Result of a call: what the guest is told, or a trap.
type Answer<T> = wasmtime::Result<Result<T, String>>;

/// An error of a call.
enum CallError {
    Told(String),
    Trap(wasmtime::Error),
}

impl From<BucketError> for CallError {
    fn from(error: BucketError) -> Self {
        Self::Told(match error {
            BucketError::NoSuchBucket => "no such container: this host does not allow it".into(),
            error => error.to_string(),
        })
    }
}

impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::Told(
                "too many handles: this guest holds as many as its host allows; drop some".into(),
            ),
            error => Self::Trap(error.into()),
        }
    }
}

fn answer<T>(result: Result<T, CallError>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(CallError::Told(why)) => Ok(Err(why)),
        Err(CallError::Trap(error)) => Err(error),
    }
}

fn no_such_object() -> CallError {
    CallError::Told("no such object".into())
}

impl BlobStoreView<'_> {
    fn open(&mut self, name: &str) -> Result<Resource<Bucket>, CallError> {
        let bucket = self.buckets.open(name)?;
        Ok(self.table.push(bucket)?)
    }

    async fn get_data(
        &mut self,
        this: &Resource<Bucket>,
        name: &str,
        (start, last): (u64, u64),
    ) -> Result<Resource<IncomingValue>, CallError> {
        if start > last {
            return Err(CallError::Told(format!(
                "invalid range: it starts at {start} and ends at {last}"
            )));
        }
        let bucket = self.table.get(this)?;
        let reader = bucket.reader(name).await?;
        let reader = reader.ok_or_else(no_such_object)?;
        let max = bucket.guest().limits().inline_size;
        let value = IncomingValue::new(reader, (start, last), max);
        Ok(self.table.push(value)?)
    }

    async fn write_data(
        &mut self,
        this: &Resource<Bucket>,
        name: &str,
        data: &Resource<OutgoingValue>,
    ) -> Result<(), CallError> {
        if self.table.get(data)?.has_writer() {
            let why = "the value was given to a container before; make another one";
            return Err(CallError::Told(why.into()));
        }
        let writer = self.table.get(this)?.writer(name).await?;
        self.table.get(data)?.write_to(writer);
        Ok(())
    }

    async fn object_info(
        &mut self,
        this: &Resource<Bucket>,
        name: String,
    ) -> Result<ObjectMetadata, CallError> {
        let bucket = self.table.get(this)?;
        let info = bucket.info(&name).await?.ok_or_else(no_such_object)?;
        Ok(ObjectMetadata {
            name,
            container: bucket.name().into(),
            // Seconds, as other hosts have it.
            created_at: info.created_at / 1000,
            size: info.size,
        })
    }

    async fn transfer(
        &mut self,
        from: &ObjectId,
        to: &ObjectId,
        is_move: bool,
    ) -> Result<(), CallError> {
        let source = self.buckets.open(&from.container)?;
        let target = self.buckets.open(&to.container)?;
        let found = if is_move {
            let moved = source.move_to(&from.object, &target, &to.object);
            moved.await?
        } else {
            let copied = source.copy(&from.object, &target, &to.object);
            copied.await?
        };
        found.then_some(()).ok_or_else(no_such_object)
    }
}

impl blobstore::Host for BlobStoreView<'_> {
    async fn create_container(&mut self, name: String) -> Answer<Resource<Bucket>> {
        answer(self.open(&name))
    }

    async fn get_container(&mut self, name: String) -> Answer<Resource<Bucket>> {
        answer(self.open(&name))
    }

    async fn delete_container(&mut self, name: String) -> Answer<()> {
        let cleared = async { Ok(self.buckets.open(&name)?.clear().await?) };
        answer(cleared.await)
    }

    async fn container_exists(&mut self, name: String) -> Answer<bool> {
        Ok(Ok(self.buckets.open(&name).is_ok()))
    }

    async fn copy_object(&mut self, src: ObjectId, dest: ObjectId) -> Answer<()> {
        answer(self.transfer(&src, &dest, false).await)
    }

    async fn move_object(&mut self, src: ObjectId, dest: ObjectId) -> Answer<()> {
        answer(self.transfer(&src, &dest, true).await)
    }
}

impl container::Host for BlobStoreView<'_> {}

impl container::HostContainer for BlobStoreView<'_> {
    async fn name(&mut self, this: Resource<Bucket>) -> Answer<String> {
        Ok(Ok(self.table.get(&this)?.name().into()))
    }

    async fn info(&mut self, this: Resource<Bucket>) -> Answer<ContainerMetadata> {
        let name = self.table.get(&this)?.name().into();
        // The operator allows a container; no time of that is known.
        let created_at = 0;
        Ok(Ok(ContainerMetadata { name, created_at }))
    }

    async fn get_data(
        &mut self,
        this: Resource<Bucket>,
        name: String,
        start: u64,
        end: u64,
    ) -> Answer<Resource<IncomingValue>> {
        answer(BlobStoreView::get_data(self, &this, &name, (start, end)).await)
    }

    async fn write_data(
        &mut self,
        this: Resource<Bucket>,
        name: String,
        data: Resource<OutgoingValue>,
    ) -> Answer<()> {
        answer(BlobStoreView::write_data(self, &this, &name, &data).await)
    }

    async fn list_objects(&mut self, this: Resource<Bucket>) -> Answer<Resource<ObjectNames>> {
        let mut listed = || {
            let names = self.table.get(&this)?.object_names()?;
            Ok(self.table.push(names)?)
        };
        answer(listed())
    }

    async fn delete_object(&mut self, this: Resource<Bucket>, name: String) -> Answer<()> {
        let deleted = self.table.get(&this)?.delete(&name).await;
        answer(deleted.map_err(CallError::from))
    }

    async fn delete_objects(&mut self, this: Resource<Bucket>, names: Vec<String>) -> Answer<()> {
        let deleted = self.table.get(&this)?.delete_many(names).await;
        answer(deleted.map_err(CallError::from))
    }

    async fn has_object(&mut self, this: Resource<Bucket>, name: String) -> Answer<bool> {
        let exists = self.table.get(&this)?.exists(&name).await;
        answer(exists.map_err(CallError::from))
    }

    async fn object_info(
        &mut self,
        this: Resource<Bucket>,
        name: String,
    ) -> Answer<ObjectMetadata> {
        answer(BlobStoreView::object_info(self, &this, name).await)
    }

    async fn clear(&mut self, this: Resource<Bucket>) -> Answer<()> {
        let cleared = self.table.get(&this)?.clear().await;
        answer(cleared.map_err(CallError::from))
    }

    async fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl container::HostStreamObjectNames for BlobStoreView<'_> {
    async fn read_stream_object_names(
        &mut self,
        this: Resource<ObjectNames>,
        len: u64,
    ) -> Answer<(Vec<String>, bool)> {
        let names = self.table.get_mut(&this)?.next(len).await;
        answer(names.map_err(CallError::from))
    }

    async fn skip_stream_object_names(
        &mut self,
        this: Resource<ObjectNames>,
        num: u64,
    ) -> Answer<(u64, bool)> {
        let names = self.table.get_mut(&this)?.next(num).await;
        let skipped = names.map(|(names, is_end)| (names.len() as u64, is_end));
        answer(skipped.map_err(CallError::from))
    }

    async fn drop(&mut self, this: Resource<ObjectNames>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl types::Host for BlobStoreView<'_> {}

impl types::HostOutgoingValue for BlobStoreView<'_> {
    async fn new_outgoing_value(&mut self) -> wasmtime::Result<Resource<OutgoingValue>> {
        Ok(self.table.push(OutgoingValue::new())?)
    }

    async fn outgoing_value_write_body(
        &mut self,
        this: Resource<OutgoingValue>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        let value = self.table.get_mut(&this)?;
        if value.has_stream {
            return Ok(Err(()));
        }
        value.has_stream = true;
        let stream: DynOutputStream = Box::new(value.stream());
        match self.table.push_child(stream, &this) {
            Ok(stream) => Ok(Ok(stream)),
            Err(ResourceTableError::Full) => Ok(Err(())),
            Err(error) => Err(error.into()),
        }
    }

    async fn finish(&mut self, this: Resource<OutgoingValue>) -> Answer<()> {
        // Traps if the stream is still open, as the interface says.
        let value = self.table.delete(this)?;
        answer(value.finish().await.map_err(CallError::from))
    }

    async fn drop(&mut self, this: Resource<OutgoingValue>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl types::HostIncomingValue for BlobStoreView<'_> {
    async fn incoming_value_consume_sync(
        &mut self,
        this: Resource<IncomingValue>,
    ) -> Answer<Vec<u8>> {
        let value = self.table.delete(this)?;
        answer(value.read_all().await.map_err(CallError::from))
    }

    async fn incoming_value_consume_async(
        &mut self,
        this: Resource<IncomingValue>,
    ) -> Answer<Resource<DynInputStream>> {
        let stream: DynInputStream = Box::new(self.table.delete(this)?.into_stream());
        answer(self.table.push(stream).map_err(CallError::from))
    }

    async fn size(&mut self, this: Resource<IncomingValue>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&this)?.size())
    }

    async fn drop(&mut self, this: Resource<IncomingValue>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
