//! Garbage collection of the data that unfinished saves leave behind. No reader ever sees this
//! data; it takes space until it is removed.

use std::time::{Duration, SystemTime};

use crate::snapshot::layout::{CLOCK_PREFIX, OWN_DIR, PROBE_PREFIX, own_key};
use crate::snapshot::setup::{MAX_SWEPT, PROBING};
use crate::snapshot::shared::check;
#[cfg(doc)]
use crate::snapshot::{Adapter, Error};
use crate::snapshot::{Result, Store, layout};
use crate::storage::{Entry, List, Object, Pager, RecursiveList, Storage, Sweep, Swept};

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
    /// [`Adapter`], and of others who share the bucket.
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
    /// [`Error::Unsupported`] where the store is of a later format;
    /// [`Error::Storage`], on S3 also where the account may not list uploads
    /// (`s3:ListBucketMultipartUploads`). What was removed before stays removed.
    pub async fn gc(&self, options: &GcOptions) -> Result<Swept> {
        let storage = self.inner.storage();
        // A store of a later format may have other names for its probes.
        check(storage).await?;
        let mut swept = gc_of(storage, PROBE_PREFIX, options).await?;
        swept += gc_of(storage, CLOCK_PREFIX, options).await?;
        let sweep = Sweep {
            older_than: options.older_than,
            dry_run: options.dry_run,
            probe: true,
            is_ours: &|key| options.all_uploads || layout::is_of_store(key),
        };
        swept += storage.sweep(&sweep).await?;
        Ok(swept)
    }
}

/// Removes the old objects whose names begin with `prefix`.
async fn gc_of(storage: &dyn Storage, prefix: &str, options: &GcOptions) -> Result<Swept> {
    let mut swept = Swept::default();
    let list = List::new(OWN_DIR).with_prefix(prefix).with_meta();
    let mut pages = Pager::new(storage, list);
    while let Some(page) = pages.next().await? {
        for entry in &page.entries {
            match entry {
                Entry::Object(object) => {
                    gc_object(storage, object, page.now, options, &mut swept).await?;
                }
                Entry::Dir(dir) => gc_dir(storage, dir, options, &mut swept).await?,
            }
        }
    }
    Ok(swept)
}

/// Removes the objects of a probe of lists.
async fn gc_dir(
    storage: &dyn Storage,
    dir: &str,
    options: &GcOptions,
    swept: &mut Swept,
) -> Result<()> {
    let list = RecursiveList {
        dir: &format!("{OWN_DIR}/{dir}"),
        token: None,
        limit: MAX_SWEPT,
        meta: true,
    };
    let page = storage.list_recursive(&list).await?;
    for object in &page.objects {
        let object = Object {
            name: format!("{dir}/{}", object.name),
            ..object.clone()
        };
        gc_object(storage, &object, page.now, options, swept).await?;
    }
    Ok(())
}

async fn gc_object(
    storage: &dyn Storage,
    object: &Object,
    now: Option<SystemTime>,
    options: &GcOptions,
    swept: &mut Swept,
) -> Result<()> {
    let (Some(meta), Some(now)) = (object.meta, now) else {
        return Ok(());
    };
    let age = now.duration_since(meta.created).unwrap_or_default();
    if age < options.older_than.max(PROBING) {
        return Ok(());
    }
    let key = own_key(&object.name)?;
    if !options.dry_run {
        storage.delete(&key).await?;
    }
    swept.removed += 1;
    swept.bytes += meta.size;
    swept.keys.push(key.to_string());
    Ok(())
}
