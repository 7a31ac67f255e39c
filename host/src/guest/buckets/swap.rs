//! Compare-and-swap of a value.

use bytes::Bytes;

use super::{Bucket, BucketError};
use crate::guest::GuestError;
use crate::snapshot::{Expect, SaveOptions, Version};

/// A value as it was found, to be replaced only if it is still the newest.
///
/// Versions are never reused. So a value that was changed and changed back is a conflict, and so is
/// a key that had no value, got one and lost it.
#[derive(Debug)]
pub struct CompareAndSwap {
    bucket: Bucket,
    name: String,
    /// The newest version; none if nothing was ever saved.
    head: Option<Version>,
}

/// Why a value was not replaced.
#[derive(Debug)]
pub enum SwapError {
    /// The value is not the newest any more. Nothing was changed. This is what was found now.
    Conflict(Box<CompareAndSwap>),
    /// Another failure.
    Other(BucketError),
}

impl Bucket {
    /// Looks at the value of `key`, for a swap.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn compare_and_swap(&self, key: &str) -> Result<CompareAndSwap, BucketError> {
        let name = self.name_of(key)?;
        CompareAndSwap::look(self.clone(), name).await
    }
}

impl CompareAndSwap {
    async fn look(bucket: Bucket, name: String) -> Result<Self, BucketError> {
        let head = bucket.guest().stat(&name, None).await?;
        Ok(Self {
            head: head.map(|info| info.version),
            bucket,
            name,
        })
    }

    /// Loads the value as it was found; none if the key had no value.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn current(&self) -> Result<Option<Bytes>, BucketError> {
        let Some(version) = self.head else {
            return Ok(None);
        };
        match self.bucket.guest().load(&self.name, Some(version)).await {
            Ok(snapshot) => Ok(snapshot.map(|snapshot| snapshot.state)),
            Err(GuestError::NotFound) => Err(BucketError::other(
                "the value was replaced and then pruned; begin a new compare-and-swap",
            )),
            Err(error) => Err(self.bucket.error(error)),
        }
    }

    /// Replaces the value, if it is still the newest.
    ///
    /// # Errors
    /// [`SwapError`].
    pub async fn swap(self, value: Bytes) -> Result<(), SwapError> {
        let expect = self.head.map_or(Expect::NeverSaved, Expect::Version);
        let options = SaveOptions::expecting(expect);
        match self.bucket.guest().save(&self.name, value, options).await {
            Ok(_) => Ok(()),
            Err(GuestError::Conflict { .. }) => {
                let found = Self::look(self.bucket, self.name).await;
                Err(match found {
                    Ok(found) => SwapError::Conflict(Box::new(found)),
                    Err(error) => SwapError::Other(error),
                })
            }
            Err(error) => Err(SwapError::Other(self.bucket.error(error))),
        }
    }
}
