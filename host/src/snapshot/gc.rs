//! What saves that were never finished leave behind. Nobody ever sees it; it takes space until it is removed.

use std::time::Duration;

use super::{Result, Store, introduce};
use crate::storage::Swept;

impl Store {
    /// Removes what is at least `older_than` old of what was begun and never finished: uploads and temporary files of hosts that
    /// died, and what they tried a new storage with. A dry run only counts. Where no store is, nothing is touched.
    ///
    /// A day is far longer than any save takes. On S3, a save whose upload is removed while it is at work fails, and says that its
    /// outcome is unknown; on a local disk, what a living process is at work on stays, however old it is.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use std::time::Duration;
    /// use persist_host::snapshot::Store;
    /// use persist_host::storage::Memory;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = Store::new(Arc::new(Memory::new()));
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let swept = store.gc(day, true).await?;
    /// assert_eq!((swept.removed, swept.bytes), (0, 0));
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`](super::Error::Unsupported) where the store is of a later format; [`Error::Storage`](super::Error::Storage), on
    /// S3 also where the account may not list uploads (`s3:ListBucketMultipartUploads`). What was removed before stays removed.
    pub async fn gc(&self, older_than: Duration, dry_run: bool) -> Result<Swept> {
        let storage = &*self.shared.storage;
        if !introduce::check(storage).await? {
            return Ok(Swept::default());
        }
        let mut swept = introduce::sweep(storage, older_than, dry_run).await?;
        swept += storage.sweep(older_than, dry_run).await?;
        Ok(swept)
    }
}
