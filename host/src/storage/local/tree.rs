//! The directories: opened from their parents, one segment at a time, and durable before anything
//! in them is.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::disk::{Disk, Folder, FolderId};
use super::lacking;
use crate::storage::{Error, ErrorKind, Key, Result};

/// Directories remembered as synced, at most: 40 bytes each.
const MAX_SYNCED: usize = 1 << 16;

/// The root, and what this process knows of the directories below it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    disk: Disk,
    /// The directories that this process has synced into their parents.
    synced: Mutex<HashSet<FolderId>>,
    /// The root that this process met first: a disk that is mounted over it, or unmounted, is
    /// another directory.
    root_id: OnceLock<FolderId>,
    /// Result of the probe for files without names.
    names_unnamed: OnceLock<bool>,
}

impl Tree {
    pub(super) fn new(root: PathBuf, disk: Disk) -> Self {
        Self {
            root,
            disk,
            synced: Mutex::default(),
            root_id: OnceLock::new(),
            names_unnamed: OnceLock::new(),
        }
    }

    /// Returns true if files can be made without a name and named later, which `probe` finds out
    /// once in a process.
    pub(super) fn names_unnamed(&self, probe: impl FnOnce(&Self) -> bool) -> bool {
        let probe = || self.disk.allows_unnamed() && probe(self);
        *self.names_unnamed.get_or_init(probe)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, key: &Key) -> String {
        self.root.join(key.as_str()).display().to_string()
    }

    /// The directory `dir` below the root, if it is there.
    pub(super) fn open(&self, dir: &str) -> Result<Option<Folder>> {
        let Some(mut at) = self.open_root()? else {
            return Ok(None);
        };
        for segment in segments(dir) {
            at = match at.open(segment) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(not_a_dir(&at, segment, error)),
            };
        }
        Ok(Some(at))
    }

    /// The directory `dir` below the root, made where it is missing, and durable.
    pub(super) fn make(&self, dir: &str) -> Result<Folder> {
        let mut at = self.make_root()?;
        for segment in segments(dir) {
            let (child, made) = self.make_child(&at, segment)?;
            self.sync_once(&child, made, || at.sync())
                .map_err(|error| {
                    let what = format!("cannot sync the directory {}", at.path().display());
                    lacking::no_sync(None, what, error)
                })?;
            at = child;
        }
        Ok(at)
    }

    /// Creates the directory `dir` below the root where it is missing. Nothing in it needs to
    /// survive a power failure.
    pub(super) fn make_unsynced(&self, dir: &str) -> Result<Folder> {
        let root = self.make_root()?;
        segments(dir).try_fold(root, |at, segment| Ok(self.make_child(&at, segment)?.0))
    }

    /// The root, if it is there. It is the same directory for as long as this process lives.
    fn open_root(&self) -> Result<Option<Folder>> {
        match self.disk.open(&self.root) {
            Ok(dir) => self.recognize(dir).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.root_id.get() {
                Some(_) => Err(self.root_changed("is gone")),
                None => Ok(None),
            },
            Err(error) => Err(Error::io(
                format!("cannot open the store {}", self.root.display()),
                error,
            )),
        }
    }

    /// Remembers the root, or checks that it is the one that this process met first.
    fn recognize(&self, root: Folder) -> Result<Folder> {
        let failed = |error| {
            Error::io(
                format!("cannot open the store {}", self.root.display()),
                error,
            )
        };
        let id = root.id().map_err(failed)?;
        if *self.root_id.get_or_init(|| id) == id {
            Ok(root)
        } else {
            Err(self.root_changed("was replaced by another directory"))
        }
    }

    /// Nothing is read from, or saved to, the directory that a lost mount leaves behind.
    fn root_changed(&self, what: &str) -> Error {
        let what = format!("the store's directory {} {what}", self.root.display());
        Error::new(ErrorKind::Unavailable, what).with_hint(
            "if the disk was unmounted or the directory was replaced, mount the disk again and \
             restart this process",
        )
    }

    /// The root, made with every directory above it that is missing, and durable.
    fn make_root(&self) -> Result<Folder> {
        if let Some(dir) = self.open_root()? {
            return self.sync_root(dir);
        }
        let missing: Vec<_> = self
            .root
            .ancestors()
            .take_while(|dir| !dir.exists())
            .collect();
        let what = || format!("cannot create the store {}", self.root.display());
        let failed = |error: io::Error| {
            let what = what();
            match error.kind() {
                // Something on the way is no directory, or is not there to be made.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Error::new(ErrorKind::Config, what).with_source(error)
                }
                _ => Error::io(what, error),
            }
        };
        // Another process may have made the last one that is there a moment ago, and died before it
        // synced.
        if let Some(there) = missing.last().and_then(|dir| dir.parent())
            && let Err(error) = self.sync_name(there)
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(lacking::no_sync(None, what(), error));
        }
        for dir in missing.into_iter().rev() {
            match self.disk.make(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
            self.sync_path(parent_of(dir))
                .map_err(|error| lacking::no_sync(None, what(), error))?;
        }
        let dir = self.disk.open(&self.root).map_err(failed)?;
        self.sync_root(self.recognize(dir)?)
    }

    fn sync_root(&self, root: Folder) -> Result<Folder> {
        let sync = || match self.sync_name(&self.root) {
            // Who may not read the directory above cannot have made the root in it either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        };
        match self.sync_once(&root, false, sync) {
            Ok(()) => Ok(root),
            Err(error) => {
                let what = "cannot sync the directory above the store";
                Err(lacking::no_sync(None, what, error))
            }
        }
    }

    /// Makes the name of the directory `dir` durable, in the directory above it. The root of a
    /// mounted file system has no name there: what is above belongs to another file system, which
    /// may be one that cannot sync.
    fn sync_name(&self, dir: &Path) -> io::Result<()> {
        let above = parent_of(dir);
        if self.disk.device(dir)? != self.disk.device(above)? {
            return Ok(());
        }
        self.sync_path(above)
    }

    fn sync_path(&self, dir: &Path) -> io::Result<()> {
        self.disk.open(dir)?.sync()
    }

    /// The directory `segment` in `parent`, and whether it was made here.
    fn make_child(&self, parent: &Folder, segment: &str) -> Result<(Folder, bool)> {
        let mut made = false;
        let opened = match parent.open(segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match parent.make(segment) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    let what = format!(
                        "cannot create the directory {segment} in {}",
                        self.root.display()
                    );
                    return Err(Error::io(what, error));
                }
                result => {
                    made = result.is_ok();
                    parent.open(segment)
                }
            },
            opened => opened,
        };
        match opened {
            Ok(dir) => Ok((dir, made)),
            Err(error) => Err(not_a_dir(parent, segment, error)),
        }
    }

    /// Runs `sync`, which makes `dir` durable, if it was just made or this process meets it for the
    /// first time.
    fn sync_once(
        &self,
        dir: &Folder,
        made: bool,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let id = dir.id()?;
        let synced = || self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if !made && synced().contains(&id) {
            return Ok(());
        }
        sync()?;
        let mut synced = synced();
        if synced.len() == MAX_SYNCED {
            synced.clear();
        }
        synced.insert(id);
        Ok(())
    }
}

/// The error for a directory `segment` in `parent` that cannot be opened.
fn not_a_dir(parent: &Folder, segment: &str, error: io::Error) -> Error {
    use rustix::io::Errno;

    let path = parent.path().join(segment);
    let path = path.display();
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NOTDIR) => {
            let what = format!("{path} is not a directory; links inside a store are not followed");
            Error::new(ErrorKind::Unsupported, what)
        }
        _ => Error::io(format!("cannot open the directory {path}"), error),
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn segments(dir: &str) -> impl Iterator<Item = &str> {
    dir.split('/').filter(|segment| !segment.is_empty())
}
