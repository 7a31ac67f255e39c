//! Arguments and results of the calls of a backend.

use std::fmt;
use std::ops::{AddAssign, Range};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Key;
#[cfg(doc)]
use super::Storage;

/// Selection of what was begun and never finished, to be removed.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Sweep<'a> {
    /// Age from which it is removed.
    pub older_than: Duration,
    /// Removes nothing, and counts.
    pub dry_run: bool,
    /// Begins an upload where the server lists none, to learn whether it lists them, and aborts it.
    pub probe: bool,
    /// Returns true for the key of an upload that may be removed: others may use the same bucket.
    pub is_ours: &'a (dyn Fn(&Key) -> bool + Send + Sync),
}

impl<'a> Sweep<'a> {
    /// Returns a selection of everything that is ours, which is counted and not removed.
    pub fn dry_run(is_ours: &'a (dyn Fn(&Key) -> bool + Send + Sync)) -> Self {
        Self {
            older_than: Duration::ZERO,
            dry_run: true,
            probe: false,
            is_ours,
        }
    }
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

/// Counts of what was sent to a server since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests, the repeated ones too.
    pub requests: u64,
    /// Those that were sent again.
    pub repeated: u64,
    /// Answers that asked for fewer requests.
    pub throttled: u64,
    /// Calls that failed although they were, or could have been, sent again.
    pub given_up: u64,
    /// Changes whose outcome stayed unknown.
    pub unanswered: u64,
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
