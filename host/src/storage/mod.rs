//! Storage backends, which hold the bytes.
//!
//! A [`Storage`] keeps immutable objects under keys. It knows nothing of snapshots: no versions, no
//! compression, no guests. Everything above it rests on one primitive that every backend has:
//! [`Storage::create`] makes an object that was not there, whole and durable, or fails.
//!
//! # Why not a file system interface?
//!
//! Renames, appends and locks mean different things on a disk and in a bucket. Exclusive creation
//! means the same on all of them (`link(2)`, `If-None-Match: *`, `ifGenerationMatch=0`), and is
//! enough for atomic saves, compare-and-swap between machines, and history.
//!
//! # Backends
//! | backend | objects are | with |
//! |---|---|---|
//! | [`Local`] | files under a directory | always |
//! | `S3` | objects of a bucket, on Amazon S3 or a server that honours conditional writes as it does | feature `s3` |
//! | `Gcs` | objects of a bucket on Google Cloud Storage | feature `gcs` |
//! | `bucket::Bucket` | objects of a bucket of another provider, over a driver of your own | feature `bucket` |
//! | [`Memory`] | in this process, for tests | always |
//!
//! [`StorageConfig`] says which one, from a program, the environment or a URL. [`Retry`] says when
//! a call to a server is sent again.

#[cfg(feature = "bucket")]
pub mod bucket;
mod config;
mod endpoint;
mod environment;
mod error;
#[cfg(feature = "gcs")]
mod gcs;
mod identity;
mod key;
mod local;
mod memory;
mod pager;
pub mod probe;
mod recursive;
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod secret;
pub(crate) mod task;

pub use config::{
    S3Credentials, S3Encryption, StorageBackend, StorageConfig, absolute_local_path, local_path,
};
pub use endpoint::Endpoint;
pub use environment::Environment;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "gcs")]
pub use gcs::{Gcs, GcsDriver};
pub use identity::{IdentityRelation, StorageIdentity};
pub use key::Key;
pub use local::Local;
#[cfg(feature = "testing")]
pub use local::{Call, Watch};
pub use memory::Memory;
pub use pager::Pager;
#[cfg(feature = "testing")]
pub(crate) use recursive::page as list_by_directory;
#[cfg(feature = "bucket")]
pub use retry::Counts;
pub use retry::Retry;
#[cfg(feature = "s3")]
pub use s3::{S3, S3Driver};
pub use secret::{redact, secret_in};

use std::fmt;
use std::ops::{AddAssign, Range};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

/// A place that keeps immutable objects under keys.
///
/// Reads see every object whose creation was acknowledged before, at once, and lists show it, in
/// order. A backend that cannot promise this must not implement this trait.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Returns the location of the storage, for messages to the operator. Never a credential.
    fn location(&self) -> String;

    /// Returns the identity of the storage. Two storages that could hold the same object at the
    /// same time must not be [`IdentityRelation::Different`]. A storage that passes its calls to
    /// another one returns the identity of that one.
    ///
    /// Unknown unless a backend says otherwise.
    fn identity(&self) -> StorageIdentity {
        StorageIdentity::unknown()
    }

    /// Returns true if it is known that [`Storage::create`] never replaces an object, for example
    /// on an operating system or in this process's own memory. Where this is not known, for example
    /// with a server of any kind, each process probes the storage before it trusts it.
    fn supports_conditional_create(&self) -> bool {
        false
    }

    /// Names the server of a storage that may be any: not an operating system, and not Amazon's or
    /// Google's own. Before a store is trusted to it, its lists and conditional creates are probed
    /// (see [`probe`]), once for each store and name.
    ///
    /// None unless a backend says otherwise.
    fn unknown_server(&self) -> Option<String> {
        None
    }

    /// Makes an object that was not there. When this returns ok, the object is whole and survives a
    /// power failure; when two callers race, one of them wins.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where an object is there, which is left as it is (and may be
    /// our own, where a server made it, its answer was lost, and it was asked again);
    /// [`ErrorKind::OutcomeUnknown`] and [`ErrorKind::NotDurable`] where the outcome is not known;
    /// any other kind says that nothing was made. A future that is dropped has an unknown outcome,
    /// too.
    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()>;

    /// Begins an object whose length is not known yet. Nothing is visible before
    /// [`Upload::finish`].
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>>;

    /// Begins an object in the way of large ones and sends all its bytes: [`Upload::finish`] only
    /// completes it. For probes of how a server completes uploads.
    ///
    /// Calls [`Storage::upload`] and writes once, unless a backend creates small objects in another
    /// way than large ones.
    ///
    /// # Errors
    /// Any kind.
    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        let mut upload = self.upload(key).await?;
        upload.write(body).await?;
        Ok(upload)
    }

    /// Begins an upload like [`Storage::upload`], for an object that may exist: [`Upload::finish`]
    /// replaces it with the new one, in one step. Not for versions.
    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>>;

    /// Reads part of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where nothing is at `key`.
    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part>;

    /// Lists what is directly under a directory, at most `limit` entries (at least one).
    async fn list(&self, list: &List<'_>) -> Result<Page>;

    /// Lists all objects below a directory, at any depth: on a server, one request for each
    /// thousand objects.
    ///
    /// Lists directory after directory, unless a backend has something better.
    ///
    /// # Errors
    /// Any kind.
    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        recursive::page(self, list).await
    }

    /// Names the directories directly under `dir` in which no object is, at any depth. A bucket has
    /// none. [`Storage::list`] leaves them out; on a disk, an object cannot be made in the place of
    /// one.
    ///
    /// Finds none unless a backend says otherwise.
    ///
    /// # Errors
    /// Any kind.
    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        let _ = dir;
        Ok(Vec::new())
    }

    /// Removes an object, durably. What is not there is removed already.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Removes what was begun and never finished, of which nothing was ever visible: temporary
    /// files, and parts of uploads for keys of the caller's. What is too young, by the storage's
    /// clock, stays: another process may be at work on it. Where a storage cannot tell (S3), an
    /// upload that is swept under its writer fails, and is not acknowledged.
    ///
    /// Finds nothing unless a backend says otherwise.
    ///
    /// # Errors
    /// Any kind. What was removed before stays removed.
    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        let _ = sweep;
        Ok(Swept::default())
    }

    /// Waits for background tasks, such as the abort of an upload that was
    /// dropped. A process calls it before it ends, with a limit of its own: the wait is as long as
    /// a server takes, and its retries.
    async fn wait_idle(&self) {}
}

/// An object that is being made piece by piece. Dropping it aborts: nothing becomes visible.
#[async_trait]
pub trait Upload: fmt::Debug + Send + Sync {
    /// Appends a piece.
    async fn write(&mut self, piece: Bytes) -> Result<()>;

    /// Makes the object visible, as [`Storage::create`] does, and with its errors; what was begun
    /// by [`Storage::replace`] takes the place of what is there.
    async fn finish(self: Box<Self>) -> Result<()>;
}

/// Selection of what was begun and never finished, to be removed.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Sweep<'a> {
    /// Age from which it is removed.
    pub older_than: Duration,
    /// Removes nothing, and counts.
    pub dry_run: bool,
    /// Returns true for the key of an upload that may be removed: others may use the same bucket.
    pub is_ours: &'a (dyn Fn(&Key) -> bool + Send + Sync),
}

impl fmt::Debug for Sweep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older_than = self.older_than;
        let dry_run = self.dry_run;
        write!(
            f,
            "Sweep {{ older_than: {older_than:?}, dry_run: {dry_run} }}"
        )
    }
}

/// Counts of what a sweep removed, or a dry run would have removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many files, uploads or objects.
    pub removed: u64,
    /// Bytes of these, where the storage tells. S3 does not tell how long the parts of an upload
    /// are.
    pub bytes: u64,
    /// Keys of the objects that uploads and probes were for. Temporary files of a local disk have
    /// none.
    pub keys: Vec<String>,
    /// Reason for which unfinished uploads were left: the server cannot list them.
    pub unlisted: Option<String>,
}

impl AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.removed += other.removed;
        self.bytes += other.bytes;
        self.keys.extend(other.keys);
        self.unlisted = self.unlisted.take().or(other.unlisted);
    }
}

/// Which bytes of an object to read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadRange {
    /// The last bytes, or the whole object where it is shorter.
    Suffix(u64),
    /// From `start` up to, not including, `end`; cut at the end of the object.
    Bounded(Range<u64>),
}

impl ReadRange {
    /// The bytes that this names in an object of `size` bytes.
    pub fn of(&self, size: u64) -> Range<u64> {
        match self {
            Self::Suffix(len) => size.saturating_sub(*len)..size,
            Self::Bounded(range) => {
                let end = range.end.min(size);
                range.start.min(end)..end
            }
        }
    }
}

/// Part of an object.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Part {
    /// The bytes that were asked for, as far as the object has them.
    pub bytes: Bytes,
    /// Offset in the object where the bytes begin.
    pub start: u64,
    /// Length of the whole object in bytes.
    pub size: u64,
}

/// Options of a list request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct List<'a> {
    /// The directory: a key without its last segment, "" for the top.
    pub dir: &'a str,
    /// Only entries whose name begins so.
    pub prefix: &'a str,
    /// Only what sorts after this entry of an earlier page.
    pub after: Option<Entry>,
    /// Limit on the entries of the page.
    pub limit: usize,
    /// True if [`Page::now`] and the [`ObjectMeta`] of each object are wanted; on a local disk
    /// these cost a call for each.
    pub meta: bool,
}

impl<'a> List<'a> {
    /// Asks for the first 1,000 entries of a directory, without metadata.
    ///
    /// ```
    /// use persist_host::storage::List;
    ///
    /// let list = List::new("agents").with_prefix("we").with_limit(10);
    /// assert_eq!((list.prefix, list.limit, list.meta), ("we", 10, false));
    /// ```
    pub fn new(dir: &'a str) -> Self {
        Self {
            dir,
            prefix: "",
            after: None,
            limit: 1000,
            meta: false,
        }
    }

    /// Selects the entries whose names begin with `prefix`.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &'a str) -> Self {
        self.prefix = prefix;
        self
    }

    /// Selects the entries after one of an earlier page.
    #[must_use]
    pub fn with_after(mut self, after: Option<Entry>) -> Self {
        self.after = after;
        self
    }

    /// Limits the entries of the page.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Asks for [`Page::now`] and the [`ObjectMeta`] of each object.
    #[must_use]
    pub fn with_meta(mut self) -> Self {
        self.meta = true;
        self
    }
}

/// A list of all objects below a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecursiveList<'a> {
    /// The directory: a key without its last segment, "" for the top.
    pub dir: &'a str,
    /// [`RecursivePage::next`] of the page before; none for the first page.
    pub token: Option<String>,
    /// Limit on the objects of the page.
    pub limit: usize,
    /// Asks for [`RecursivePage::now`] and the [`ObjectMeta`] of each object.
    pub meta: bool,
}

impl<'a> RecursiveList<'a> {
    /// Asks for the first 1,000 objects below a directory, without metadata.
    pub fn new(dir: &'a str) -> Self {
        Self {
            dir,
            token: None,
            limit: 1000,
            meta: false,
        }
    }
}

/// One page of a [`RecursiveList`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecursivePage {
    /// Objects, each once, in any order; those of one directory stand together. Their names are
    /// keys below the directory of the list, such as `a/b` for the key `dir/a/b`.
    pub objects: Vec<Object>,
    /// Position at which the list goes on; none at its end.
    pub next: Option<String>,
    /// The storage's own time when it made this page, where metadata was asked for.
    pub now: Option<SystemTime>,
}

/// One entry of a list. Entries are compared by their keys alone, where a directory's ends in `/`.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An object.
    Object(Object),
    /// A directory that holds at least one object at some depth. A server may show one for a while
    /// after its last object was deleted.
    Dir(String),
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// The last segment of its key.
    pub name: String,
    /// Present where the list asked for them.
    pub meta: Option<ObjectMeta>,
}

/// Metadata that a list returns for an object, beside its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectMeta {
    /// Length in bytes.
    pub size: u64,
    /// When the object was made, by the clock that [`Page::now`] is of. Some servers tell of a long
    /// upload only when it began.
    pub created: SystemTime,
}

impl Object {
    /// An object with the metadata that the list asked for, if it did.
    pub fn new(name: impl Into<String>, meta: Option<ObjectMeta>) -> Self {
        Self {
            name: name.into(),
            meta,
        }
    }
}

impl ObjectMeta {
    /// Metadata of an object of `size` bytes that was made at `created`.
    pub fn new(size: u64, created: SystemTime) -> Self {
        Self { size, created }
    }
}

impl Part {
    /// Bytes from `start` on of an object of `size` bytes.
    pub fn new(bytes: Bytes, start: u64, size: u64) -> Self {
        Self { bytes, start, size }
    }
}

impl Page {
    /// Entries in order; `more` is true if others may follow.
    pub fn new(entries: Vec<Entry>, more: bool) -> Self {
        Self {
            entries,
            more,
            now: None,
        }
    }

    /// Adds the storage's own time, for a list that asked for metadata.
    #[must_use]
    pub fn with_now(mut self, now: Option<SystemTime>) -> Self {
        self.now = now;
        self
    }
}

impl RecursivePage {
    /// Objects, and the token of the next page, if there is one.
    pub fn new(objects: Vec<Object>, next: Option<String>) -> Self {
        Self {
            objects,
            next,
            now: None,
        }
    }
}

impl Entry {
    /// An object of which only the name is known.
    pub fn object(name: impl Into<String>) -> Self {
        Self::Object(Object {
            name: name.into(),
            meta: None,
        })
    }

    /// The entry's own segment.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(object) => &object.name,
            Self::Dir(name) => name,
        }
    }

    fn sort_key(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Object(object) => (object.name.as_bytes(), b""),
            Self::Dir(name) => (name.as_bytes(), b"/"),
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
    }
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let ((a, a_end), (b, b_end)) = (self.sort_key(), other.sort_key());
        a.iter().chain(a_end).cmp(b.iter().chain(b_end))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// True if more entries may follow.
    pub more: bool,
    /// The storage's own time when it made this page, where metadata was asked for. Ages are
    /// differences to it, never to the clock of the process that asks.
    pub now: Option<SystemTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_sorts_as_its_keys_do() {
        let in_order = [
            Entry::object("a"),
            Entry::Dir("a.b".into()),
            Entry::Dir("a".into()),
            Entry::object("a0"),
        ];
        let mut entries = in_order.clone();
        entries.reverse();
        entries.sort();
        assert_eq!(entries, in_order);
    }

    #[test]
    fn a_range_never_leaves_the_object() {
        assert_eq!(ReadRange::Suffix(10).of(4), 0..4);
        assert_eq!(ReadRange::Suffix(3).of(4), 1..4);
        assert_eq!(ReadRange::Bounded(2..9).of(4), 2..4);
        assert_eq!(ReadRange::Bounded(7..9).of(4), 4..4);
    }
}
