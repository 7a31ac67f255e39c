//! Objects as files under one directory of the local disk.
//!
//! `create` writes a file without a name, syncs it, links it to its key and syncs the directory;
//! only then is it done. Streams, and file systems without such files, begin with a temporary name.
//! `link(2)` fails where the name is taken, in one step, between all processes: that is the whole
//! of our concurrency control. Nothing is ever renamed over, and nothing written in place.
//!
//! # What a hostile tree can do
//! Every directory is opened from its parent's handle, one segment at a time, and never through a
//! symbolic link; a segment cannot be `..` or hold a `/` ([`Key`]). So nothing outside the root is
//! read or written, whatever lies inside it.
//!
//! # What is synced when
//! A new directory is synced into its parent before anything in it is acknowledged. One that was
//! there already may have been made a moment ago by a process that died before it synced: so the
//! first time that this process meets a directory, it also syncs its parent, even if another
//! process created it.

mod disk;
mod lacking;
mod list;
mod modes;
mod temp;
mod tree;
mod watch;

pub use modes::{Modes, parse_mode};
#[cfg(any(test, feature = "testing"))]
pub use watch::{Call, Watch};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;

use super::{
    Error, ErrorKind, Key, List, Page, Part, ReadRange, RecursiveList, RecursivePage, Result,
    Storage, StorageIdentity, Sweep, Swept, Upload, task,
};
use disk::Disk;
use temp::Temp;
use tree::Tree;

/// Keeps objects in files under a directory, which is made at the first `create`.
///
/// Directories are made with mode 0700, files with 0600, unless [`Local::with_modes`] says
/// otherwise. Clones share what they know of the directory.
#[derive(Clone, Debug)]
pub struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tree: Tree,
    swept: AtomicBool,
}

impl Local {
    /// Objects under `root`. Touches nothing yet. A relative path is taken from where the process
    /// is now.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_modes(root, Modes::default())
    }

    /// Returns objects under `root`, as [`Local::new`] does, of which new ones get these
    /// permissions.
    pub fn with_modes(root: impl Into<PathBuf>, modes: Modes) -> Self {
        Self::with_disk(root.into(), Disk::new(modes))
    }

    /// Creates a storage for objects under `root` that tells `watch` of every call to the operating
    /// system.
    #[cfg(any(test, feature = "testing"))]
    pub fn watched(root: impl Into<PathBuf>, watch: Arc<dyn Watch>) -> Self {
        Self::with_disk(root.into(), Disk::watched(watch))
    }

    fn with_disk(root: PathBuf, disk: Disk) -> Self {
        let root = std::path::absolute(&root).unwrap_or(root);
        Self {
            shared: Arc::new(Shared {
                tree: Tree::new(root, disk),
                swept: AtomicBool::new(false),
            }),
        }
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        self.shared.tree.root()
    }

    async fn begin(&self, key: &Key, replace: bool) -> Result<Box<dyn Upload>> {
        let temp = self.blocking(Temp::new).await?;
        Ok(Box::new(LocalUpload {
            local: self.clone(),
            key: key.clone(),
            replace,
            temp: Some(temp),
        }))
    }

    /// Removes temporary files whose process died, once in a process. It is waited for: a process
    /// that saves once and ends would otherwise end before its sweep began.
    async fn sweep_once(&self) {
        if !self.shared.swept.swap(true, Ordering::Relaxed) {
            let shared = Arc::clone(&self.shared);
            // A sweep that fails is tried by the next process.
            let sweep = move || temp::sweep(&shared.tree, &temp::Sweep::some());
            let _ = tokio::task::spawn_blocking(sweep).await;
        }
    }

    /// Runs `work` where it may block and logs the call at debug, like the other backends.
    async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        key: &str,
        work: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let started = Instant::now();
        let done = self.blocking(work).await;
        let took = started.elapsed();
        match &done {
            Ok(_) => tracing::debug!(call, key, ?took, "local disk"),
            Err(error) => {
                let kind = error.kind();
                tracing::debug!(call, key, ?took, ?kind, %error, "local disk");
            }
        }
        done
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared.tree)).await {
            Ok(result) => result,
            Err(error) => Err(task::stopped(
                error,
                ErrorKind::OutcomeUnknown,
                "a disk operation",
            )),
        }
    }
}

#[async_trait]
impl Storage for Local {
    fn location(&self) -> String {
        format!("the directory {}", self.root().display())
    }

    fn backend(&self) -> &'static str {
        "local"
    }

    fn identity(&self) -> StorageIdentity {
        StorageIdentity::local(self.root())
    }

    fn supports_conditional_create(&self) -> bool {
        true
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let key = key.clone();
        self.call("create", key.clone().as_str(), move |tree| {
            let dir = tree.make(key.split().0)?;
            let mut temp = Temp::of(tree, &dir)?;
            for piece in &body {
                temp.write(piece)?;
            }
            temp.commit(&dir, key.split().1)
        })
        .await?;
        self.sweep_once().await;
        Ok(())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin(key, false).await
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin(key, true).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let key = key.clone();
        let name = key.clone();
        self.call("read", name.as_str(), move |tree| read(tree, &key, &range))
            .await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let dir = list.dir.to_owned();
        let prefix = list.prefix.to_owned();
        let after = list.after.clone();
        let limit = list.limit;
        let meta = list.meta;
        self.call("list", list.dir, move |tree| {
            let Some(folder) = tree.open(&dir)? else {
                return Ok(Page {
                    now: meta.then(SystemTime::now),
                    ..Page::default()
                });
            };
            let list = List {
                dir: &dir,
                prefix: &prefix,
                after,
                limit,
                meta,
            };
            list::page(&folder, &list).map_err(|error| {
                Error::io(format!("cannot list {}", folder.path().display()), error)
            })
        })
        .await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        let dir = list.dir.to_owned();
        let token = list.token.clone();
        let limit = list.limit;
        let meta = list.meta;
        self.call("list", list.dir, move |tree| {
            let Some(folder) = tree.open(&dir)? else {
                return Ok(RecursivePage {
                    now: meta.then(SystemTime::now),
                    ..RecursivePage::default()
                });
            };
            let list = RecursiveList {
                dir: &dir,
                token,
                limit,
                meta,
            };
            list::recursive_page(&folder, &list).map_err(|error| {
                Error::io(format!("cannot list {}", folder.path().display()), error)
            })
        })
        .await
    }

    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        let name = dir;
        let dir = dir.to_owned();
        self.call("list", name, move |tree| {
            let Some(folder) = tree.open(&dir)? else {
                return Ok(Vec::new());
            };
            list::empty_dirs(&folder).map_err(|error| {
                Error::io(format!("cannot list {}", folder.path().display()), error)
            })
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.call("delete", key.clone().as_str(), move |tree| {
            let (dir, file) = key.split();
            let Some(dir) = tree.open(dir)? else {
                return Ok(());
            };
            let removed = match dir.remove(file) {
                // The process that removed it may have died before it synced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            match removed {
                Ok(()) => dir.sync().map_err(|error| {
                    let what = "cannot sync the directory after deleting a file";
                    lacking::no_sync(Some(ErrorKind::NotDurable), what, error)
                }),
                Err(error) => Err(Error::io(
                    format!("cannot delete {}", tree.path(&key)),
                    error,
                )),
            }
        })
        .await
    }

    /// Temporary files whose process died; one that lives keeps its own, however old they are.
    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        let sweep = temp::Sweep::all(sweep.older_than, sweep.dry_run);
        self.call("sweep", "", move |tree| temp::sweep(tree, &sweep))
            .await
    }

    async fn remove_obstacle(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.call("remove", key.clone().as_str(), move |tree| {
            // Between the look at what lies there and its removal, another process could remove it
            // and a third one save in its place: all who remove obstacles take turns.
            let Some(root) = tree.open("")? else {
                return Ok(false);
            };
            let failed = |error| Error::io(format!("cannot remove {}", tree.path(&key)), error);
            let _lock = root.lock().map_err(failed)?;
            let (dir, name) = key.split();
            let Some(dir) = tree.open(dir)? else {
                return Ok(false);
            };
            match dir.remove_obstacle(name) {
                Ok(false) => Ok(false),
                Ok(true) => dir.sync().map(|()| true).map_err(failed),
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty]
                        .contains(&error.kind()) =>
                {
                    Ok(false)
                }
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn has_obstacle(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.call("stat", key.clone().as_str(), move |tree| {
            let (dir, name) = key.split();
            let Some(dir) = tree.open(dir)? else {
                return Ok(false);
            };
            match dir.has_obstacle(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                found => found.map_err(|error| {
                    Error::io(format!("cannot look at {}", tree.path(&key)), error)
                }),
            }
        })
        .await
    }

    async fn restore_access(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.call("chmod", key.clone().as_str(), move |tree| {
            let (dir, name) = key.split();
            let Some(dir) = tree.open(dir)? else {
                return Ok(false);
            };
            dir.restore_access(name).map_err(|error| {
                let what = format!("cannot set the permissions of {}", tree.path(&key));
                Error::io(what, error)
            })
        })
        .await
    }
}

#[derive(Debug)]
struct LocalUpload {
    local: Local,
    key: Key,
    replace: bool,
    /// None only while a write is under way, or after one that failed.
    temp: Option<Temp>,
}

impl LocalUpload {
    fn take(&mut self) -> Result<Temp> {
        self.temp.take().ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "an upload cannot continue after an error",
            )
        })
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let mut temp = self.take()?;
        let write = move |_: &Tree| temp.write(&piece).map(|()| temp);
        self.temp = Some(self.local.blocking(write).await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let temp = self.take()?;
        let key = self.key.clone();
        let replace = self.replace;
        let object = key.clone();
        let commit = move |tree: &Tree| {
            let (dir, name) = key.split();
            let dir = tree.make(dir)?;
            if replace {
                temp.commit_over(&dir, name)
            } else {
                temp.commit(&dir, name)
            }
        };
        self.local.call("finish", object.as_str(), commit).await?;
        self.local.sweep_once().await;
        Ok(())
    }
}

fn read(tree: &Tree, key: &Key, range: &ReadRange) -> Result<Part> {
    let not_found = || Error::new(ErrorKind::NotFound, format!("no file {}", tree.path(key)));
    let failed = |error| Error::io(format!("cannot read {}", tree.path(key)), error);
    let no_file = || {
        let what = format!("{} is not a regular file", tree.path(key));
        Error::new(ErrorKind::Unsupported, what)
            .with_hint("another program put it there; move it elsewhere")
    };
    let (dir, file) = key.split();
    let dir = tree.open(dir)?.ok_or_else(not_found)?;
    let file = match dir.open_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => return Err(no_file()),
        file => file.map_err(failed)?,
    };
    let size = file.size().map_err(failed)?.ok_or_else(no_file)?;
    let range = range.of(size);
    let too_long = |_| failed(io::ErrorKind::OutOfMemory.into());
    let len = usize::try_from(range.end - range.start).map_err(|_| too_long(()))?;
    // A sparse file of any length costs its maker nothing.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_long(()))?;
    bytes.resize(len, 0);
    file.read_exact_at(&mut bytes, range.start)
        .map_err(failed)?;
    Ok(Part {
        bytes: bytes.into(),
        start: range.start,
        size,
    })
}
