//! Garbage collection of the data that unfinished saves leave behind. No reader ever sees this
//! data; it takes space until it is removed.

use std::time::Duration;

use super::{Result, Store, layout, store_init};
use crate::storage::{Sweep, Swept};

/// Options of [`Store::gc`].
///
/// ```
/// use persist_host::snapshot::GcOptions;
///
/// let mut options = GcOptions::default();
/// options.dry_run = true;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    /// Age from which it is removed; one day, which is far longer than any save takes.
    pub older_than: Duration,
    /// Removes nothing, and counts.
    pub dry_run: bool,
    /// Removes uploads for keys that are not the store's too, such as those of an
    /// [`Adapter`](super::Adapter), and of others who share the bucket.
    pub all_uploads: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            older_than: Duration::from_secs(24 * 60 * 60),
            dry_run: false,
            all_uploads: false,
        }
    }
}

impl Store {
    /// Removes what was begun and never finished: uploads and temporary files of hosts that died,
    /// and probes of a new storage, also where no store was made in the end. Uploads are removed
    /// where they are for a version or a probe.
    ///
    /// On S3, a save whose upload is removed while it is at work fails, and says that its outcome
    /// is unknown; on a local disk, what a living process is at work on stays, however old it is.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use persist_host::snapshot::{GcOptions, Store};
    /// use persist_host::storage::Memory;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = Store::new(Arc::new(Memory::new()));
    /// let swept = store.gc(&GcOptions::default()).await?;
    /// assert_eq!((swept.removed, swept.bytes), (0, 0));
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`](super::Error::Unsupported) where the store is of a later format;
    /// [`Error::Storage`](super::Error::Storage), on S3 also where the account may not list uploads
    /// (`s3:ListBucketMultipartUploads`). What was removed before stays removed.
    pub async fn gc(&self, options: &GcOptions) -> Result<Swept> {
        let storage = &*self.shared.storage;
        // A store of a later format may have other names for its probes.
        store_init::check(storage).await?;
        let mut swept = store_init::gc(storage, options).await?;
        let sweep = Sweep {
            older_than: options.older_than,
            dry_run: options.dry_run,
            is_ours: &|key| options.all_uploads || layout::is_of_store(key),
        };
        swept += storage.sweep(&sweep).await?;
        Ok(swept)
    }
}
