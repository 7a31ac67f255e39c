//! The traits of a backend.

use std::collections::VecDeque;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Counts, Entry, Key, List, Object, Page, Part, ReadRange, RecursiveList, RecursivePage, Result,
    StorageIdentity, Sweep, Swept,
};
#[cfg(doc)]
use super::{ErrorKind, IdentityRelation, probe};

/// A place that keeps immutable objects under keys.
///
/// Reads see every object whose creation was acknowledged before, at once, and lists show it, in
/// order. A backend that cannot promise this must not implement this trait.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Returns the location of the storage, for messages to the operator. Never a credential.
    fn location(&self) -> String;

    /// Returns a short name of this kind of storage, such as `s3`, which is the label `backend` of
    /// [metrics](crate::telemetry). A storage that passes its calls to another one returns the name
    /// of that one.
    ///
    /// `other` unless a backend says otherwise.
    fn backend(&self) -> &'static str {
        "other"
    }

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

    /// Returns true for a bucket on Amazon's or Google's own server. These keep the condition of a
    /// create, so no process tries it again in a store that exists: they limit how often one object
    /// may be written.
    ///
    /// False unless a backend says otherwise.
    fn is_providers_own(&self) -> bool {
        false
    }

    /// Returns the counts of requests to a server since the storage was opened. A storage that
    /// passes its calls to another one returns the counts of that one.
    ///
    /// None unless a backend says otherwise.
    fn counts(&self) -> Option<Counts> {
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
        list_by_directory(self, list).await
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

    /// Removes what lies at a key and is neither an object nor a directory with something in it: a
    /// link, a named pipe, an empty directory. Returns false where nothing like that lies there.
    /// Two processes that call this at once do not remove an object that one of them makes room
    /// for.
    ///
    /// Finds nothing unless a backend says otherwise.
    ///
    /// # Errors
    /// Any kind.
    async fn remove_obstacle(&self, key: &Key) -> Result<bool> {
        let _ = key;
        Ok(false)
    }

    /// Returns true where something lies at a key that [`Storage::remove_obstacle`] removes.
    ///
    /// Finds nothing unless a backend says otherwise.
    ///
    /// # Errors
    /// Any kind.
    async fn has_obstacle(&self, key: &Key) -> Result<bool> {
        let _ = key;
        Ok(false)
    }

    /// Lets this account use a file or directory that it owns, and whose permissions keep it from
    /// doing so. Returns false where permissions are not the reason.
    ///
    /// Changes nothing unless a backend says otherwise.
    ///
    /// # Errors
    /// Any kind.
    async fn restore_access(&self, key: &Key) -> Result<bool> {
        let _ = key;
        Ok(false)
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

/// A directory of which not everything was seen.
struct Open {
    /// Below the directory of the list; empty, or with a `/` at its end.
    path: String,
    /// Entries that were listed and not seen yet.
    entries: VecDeque<Entry>,
    /// The last entry that was listed.
    after: Option<Entry>,
    more: bool,
}

impl Open {
    fn new(path: String, after: Option<Entry>) -> Self {
        Self {
            path,
            entries: VecDeque::new(),
            after,
            more: true,
        }
    }
}

/// Lists all objects below a directory of a backend that lists one directory at a time. A page ends
/// at an object, and the next one goes on behind it: the token is that object's name.
pub(crate) async fn list_by_directory<S: Storage + ?Sized>(
    storage: &S,
    list: &RecursiveList<'_>,
) -> Result<RecursivePage> {
    let limit = list.limit.max(1);
    let mut page = RecursivePage::default();
    let mut open = resume(list.token.as_deref());
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.entries.pop_front() else {
            if dir.more {
                let below = path_below(list.dir, &dir.path);
                let asked = List {
                    dir: &below,
                    prefix: "",
                    after: dir.after.clone(),
                    limit,
                    meta: list.meta,
                };
                let found = storage.list(&asked).await?;
                page.now = page.now.or(found.now);
                dir.after = found.entries.last().cloned().or(dir.after.take());
                dir.more = found.more && !found.entries.is_empty();
                dir.entries = found.entries.into();
            } else {
                open.pop();
            }
            continue;
        };
        if page.objects.len() == limit {
            page.next = page.objects.last().map(|last| last.name.clone());
            break;
        }
        let path = format!("{}{}", dir.path, entry.name());
        match entry {
            Entry::Object(object) => page.objects.push(Object {
                name: path,
                meta: object.meta,
            }),
            Entry::Dir(_) => open.push(Open::new(path + "/", None)),
        }
    }
    Ok(page)
}

/// The directories above the object of a token, the innermost last.
fn resume(token: Option<&str>) -> Vec<Open> {
    let Some(token) = token else {
        return vec![Open::new(String::new(), None)];
    };
    let mut open = Vec::new();
    let mut start = 0;
    for (end, _) in token.match_indices('/') {
        let after = Entry::Dir(token[start..end].into());
        open.push(Open::new(token[..start].into(), Some(after)));
        start = end + 1;
    }
    let after = Entry::object(&token[start..]);
    open.push(Open::new(token[..start].into(), Some(after)));
    open
}

/// The key of a directory that is `path` below `dir`.
fn path_below(dir: &str, path: &str) -> String {
    let path = path.trim_end_matches('/');
    if dir.is_empty() || path.is_empty() {
        format!("{dir}{path}")
    } else {
        format!("{dir}/{path}")
    }
}
