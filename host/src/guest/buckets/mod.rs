//! Buckets of keys and values over the names of scopes, for `wasi:keyvalue` and interfaces like it.
//!
//! A bucket is a scope, or the names of a scope that start with a prefix. A value is a state: each
//! change of a value is a version with a history. Every call goes through [`Guest`], which checks
//! rights and counts usage.

mod bucket;
mod counter;
mod cursors;
mod error;
mod key;
mod objects;
mod swap;

use std::collections::BTreeMap;
use std::fmt;

pub use bucket::{Bucket, KeyPage};
pub use error::BucketError;
pub use objects::ObjectNames;
pub use swap::{CompareAndSwap, SwapError};

use super::Guest;
use cursors::Cursors;

/// Name of the bucket that every guest has. Guests may also call it by the empty name.
pub const DEFAULT_BUCKET: &str = "default";

/// Buckets that the host allows one guest to open, by name.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::guest::{Buckets, Guest};
/// use persist_host::snapshot::Store;
/// use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Store::new(Arc::new(Memory::new()));
/// let own = Guest::new(store.scope("bot", Some("session-1"))?);
/// let shared = Guest::new(store.scope("counters", None)?);
/// let buckets = Buckets::new(own)
///     .prefix("cache", "cache/")
///     .scope("shared", shared);
///
/// buckets.open("cache")?.set("page", "text".into()).await?; // session-1's name `cache/page`
/// assert_eq!(buckets.open("shared")?.increment_u64("visits", 1).await?, 1);
/// assert!(buckets.open("secrets").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Buckets {
    map: BTreeMap<String, Bucket>,
    cursors: Cursors,
}

impl Buckets {
    /// Allows the bucket [`DEFAULT_BUCKET`]: all names of the guest's scope.
    pub fn new(guest: Guest) -> Self {
        let bucket = Bucket::new(DEFAULT_BUCKET, guest, "");
        Self {
            map: BTreeMap::from([(DEFAULT_BUCKET.into(), bucket)]),
            cursors: Cursors::default(),
        }
    }

    /// Allows a bucket of the names that start with `prefix`, in the scope of the default bucket.
    /// The name [`DEFAULT_BUCKET`] changes the default bucket.
    #[must_use]
    pub fn prefix(self, name: impl Into<String>, prefix: impl Into<String>) -> Self {
        let guest = self.map[DEFAULT_BUCKET].guest().clone();
        self.scope_prefix(name, guest, prefix)
    }

    /// Allows a bucket of all names in the scope of another guest, with the rights and limits of
    /// that guest.
    #[must_use]
    pub fn scope(self, name: impl Into<String>, guest: Guest) -> Self {
        self.scope_prefix(name, guest, "")
    }

    /// Allows a bucket of the names that start with `prefix`, in the scope of another guest.
    #[must_use]
    pub fn scope_prefix(
        mut self,
        name: impl Into<String>,
        guest: Guest,
        prefix: impl Into<String>,
    ) -> Self {
        let name = name.into();
        let bucket = Bucket::new(name.clone(), guest, prefix);
        self.map.insert(name, bucket);
        self
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`] if the host allows none of this name.
    pub fn open(&self, name: &str) -> Result<Bucket, BucketError> {
        let name = match name {
            "" => DEFAULT_BUCKET,
            name => name,
        };
        self.map.get(name).cloned().ok_or(BucketError::NoSuchBucket)
    }

    /// Returns a page of keys, as [`Bucket::keys`] does, for interfaces whose cursors are numbers.
    /// A cursor is good for this value of `Buckets`, until 64 others were made.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn keys_at(
        &mut self,
        bucket: &Bucket,
        cursor: Option<u64>,
    ) -> Result<(Vec<String>, Option<u64>), BucketError> {
        let after = match cursor {
            Some(cursor) => Some(self.cursors.find(bucket.name(), cursor)?),
            None => None,
        };
        let page = bucket.keys(after.as_deref()).await?;
        let next = page.next.map(|next| self.cursors.keep(bucket.name(), next));
        Ok((page.keys, next))
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets")
            .field("buckets", &self.map.values())
            .finish_non_exhaustive()
    }
}
