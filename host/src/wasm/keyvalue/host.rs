//! The host side of each dialect: converts types, finds handles and calls
//! [`Bucket`](crate::guest::Bucket).

use wasmtime::component::Resource;

use super::KeyValueView;
use super::bindings::{draft, draft2, draft2_spin, spin};
use super::error::CallError;
use crate::guest::{Bucket, CompareAndSwap, SwapError};

type Result<T> = std::result::Result<T, CallError>;

impl KeyValueView<'_> {
    fn open(&mut self, name: &str) -> Result<Resource<Bucket>> {
        let bucket = self.buckets.open(name)?;
        Ok(self.table.push(bucket)?)
    }

    async fn get(&mut self, this: &Resource<Bucket>, key: &str) -> Result<Option<Vec<u8>>> {
        let value = self.table.get(this)?.get(key).await?;
        Ok(value.map(Into::into))
    }

    async fn set(&mut self, this: &Resource<Bucket>, key: &str, value: Vec<u8>) -> Result<()> {
        Ok(self.table.get(this)?.set(key, value.into()).await?)
    }

    async fn delete(&mut self, this: &Resource<Bucket>, key: &str) -> Result<()> {
        Ok(self.table.get(this)?.delete(key).await?)
    }

    async fn exists(&mut self, this: &Resource<Bucket>, key: &str) -> Result<bool> {
        Ok(self.table.get(this)?.exists(key).await?)
    }

    async fn get_many(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<impl Iterator<Item = (String, Option<Vec<u8>>)> + use<>> {
        let values = self.table.get(bucket)?.get_many(keys).await?;
        let values = values.into_iter();
        Ok(values.map(|(key, value)| (key, value.map(Into::into))))
    }

    async fn set_many(
        &mut self,
        bucket: &Resource<Bucket>,
        values: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let values = values.into_iter().map(|(key, value)| (key, value.into()));
        Ok(self.table.get(bucket)?.set_many(values.collect()).await?)
    }

    async fn delete_many(&mut self, bucket: &Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        Ok(self.table.get(bucket)?.delete_many(keys).await?)
    }

    fn drop_bucket(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// Implements the calls on a store that every dialect has.
macro_rules! store_calls {
    () => {
        async fn get(&mut self, this: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
            KeyValueView::get(self, &this, &key).await
        }

        async fn set(&mut self, this: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
            KeyValueView::set(self, &this, &key, value).await
        }

        async fn delete(&mut self, this: Resource<Bucket>, key: String) -> Result<()> {
            KeyValueView::delete(self, &this, &key).await
        }

        async fn exists(&mut self, this: Resource<Bucket>, key: String) -> Result<bool> {
            KeyValueView::exists(self, &this, &key).await
        }

        async fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
            self.drop_bucket(this)
        }
    };
}

/// Implements the calls on several keys that change something.
macro_rules! batch_calls {
    () => {
        async fn set_many(
            &mut self,
            bucket: Resource<Bucket>,
            values: Vec<(String, Vec<u8>)>,
        ) -> Result<()> {
            KeyValueView::set_many(self, &bucket, values).await
        }

        async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
            KeyValueView::delete_many(self, &bucket, keys).await
        }
    };
}

impl draft::wasi::keyvalue::store::Host for KeyValueView<'_> {
    fn convert_error(
        &mut self,
        error: CallError,
    ) -> wasmtime::Result<draft::wasi::keyvalue::store::Error> {
        error.try_into()
    }

    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        KeyValueView::open(self, &identifier)
    }
}

impl draft::wasi::keyvalue::store::HostBucket for KeyValueView<'_> {
    store_calls!();

    async fn list_keys(
        &mut self,
        this: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<draft::wasi::keyvalue::store::KeyResponse> {
        let bucket = self.table.get(&this)?;
        let (keys, cursor) = self.buckets.keys_at(bucket, cursor).await?;
        Ok(draft::wasi::keyvalue::store::KeyResponse { keys, cursor })
    }
}

impl draft::wasi::keyvalue::atomics::Host for KeyValueView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Result<u64> {
        let bucket = self.table.get(&bucket)?;
        Ok(bucket.increment_u64(&key, delta).await?)
    }
}

impl draft::wasi::keyvalue::batch::Host for KeyValueView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let values = KeyValueView::get_many(self, &bucket, keys).await?;
        Ok(values.map(|(key, value)| Some((key, value?))).collect())
    }

    batch_calls!();
}

impl draft2::wasi::keyvalue::store::Host for KeyValueView<'_> {
    fn convert_error(
        &mut self,
        error: CallError,
    ) -> wasmtime::Result<draft2::wasi::keyvalue::store::Error> {
        error.try_into()
    }

    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        KeyValueView::open(self, &identifier)
    }
}

impl draft2::wasi::keyvalue::store::HostBucket for KeyValueView<'_> {
    store_calls!();

    async fn list_keys(
        &mut self,
        this: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Result<draft2::wasi::keyvalue::store::KeyResponse> {
        let page = self.table.get(&this)?.keys(cursor.as_deref()).await?;
        Ok(draft2::wasi::keyvalue::store::KeyResponse {
            keys: page.keys,
            cursor: page.next,
        })
    }
}

impl draft2::wasi::keyvalue::atomics::Host for KeyValueView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> Result<i64> {
        let bucket = self.table.get(&bucket)?;
        Ok(bucket.increment_i64(&key, delta).await?)
    }

    async fn swap(
        &mut self,
        cas: Resource<CompareAndSwap>,
        value: Vec<u8>,
    ) -> wasmtime::Result<std::result::Result<(), draft2::wasi::keyvalue::atomics::CasError>> {
        use draft2::wasi::keyvalue::atomics::CasError;

        let error = match self.table.delete(cas)?.swap(value.into()).await {
            Ok(()) => return Ok(Ok(())),
            Err(SwapError::Conflict(found)) => match self.table.push(*found) {
                Ok(found) => return Ok(Err(CasError::CasFailed(found))),
                Err(error) => CallError::from(error),
            },
            Err(SwapError::Other(error)) => error.into(),
        };
        Ok(Err(CasError::StoreError(error.try_into()?)))
    }
}

impl draft2::wasi::keyvalue::atomics::HostCas for KeyValueView<'_> {
    async fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Resource<CompareAndSwap>> {
        let found = self.table.get(&bucket)?.compare_and_swap(&key).await?;
        Ok(self.table.push(found)?)
    }

    async fn current(&mut self, this: Resource<CompareAndSwap>) -> Result<Option<Vec<u8>>> {
        let value = self.table.get(&this)?.current().await?;
        Ok(value.map(Into::into))
    }

    async fn drop(&mut self, this: Resource<CompareAndSwap>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl draft2::wasi::keyvalue::batch::Host for KeyValueView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>> {
        let values = KeyValueView::get_many(self, &bucket, keys).await?;
        Ok(values.map(|(key, value)| Some((key, value?))).collect())
    }

    batch_calls!();
}

impl draft2_spin::wasi::keyvalue::batch::Host for KeyValueView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let values = KeyValueView::get_many(self, &bucket, keys).await?;
        Ok(values.collect())
    }

    batch_calls!();
}

impl spin::fermyon::spin::key_value::Host for KeyValueView<'_> {
    fn convert_error(
        &mut self,
        error: CallError,
    ) -> wasmtime::Result<spin::fermyon::spin::key_value::Error> {
        error.try_into()
    }
}

impl spin::fermyon::spin::key_value::HostStore for KeyValueView<'_> {
    async fn open(&mut self, label: String) -> Result<Resource<Bucket>> {
        KeyValueView::open(self, &label)
    }

    store_calls!();

    async fn get_keys(&mut self, this: Resource<Bucket>) -> Result<Vec<String>> {
        Ok(self.table.get(&this)?.all_keys().await?)
    }
}
