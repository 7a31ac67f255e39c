//! Objects as files under one directory of the local disk.
//!
//! `create` writes a temporary file, syncs it, links it to its key and syncs the directory; only then is
//! it done. `link(2)` fails where the name is taken, in one step, between all processes: that is the
//! whole of our concurrency control. Nothing is ever renamed over, and nothing written in place.
//!
//! # What a hostile tree can do
//! Every directory is opened from its parent's handle, one segment at a time, and never through a
//! symbolic link; a segment cannot be `..` or hold a `/` ([`Key`]). So nothing outside the root is read or
//! written, whatever lies inside it.
//!
//! # What is synced when
//! A new directory is synced into its parent before anything in it is acknowledged. One that was there
//! already may have been made a moment ago by a process that died before it synced: so the first time
//! that this process meets a directory, it syncs its parent too, whoever made it.

use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, MetadataExt as _, OpenOptions, OpenOptionsExt as _,
};
use rustix::fs::OFlags;

use super::error::kind_of;
use super::key::is_segment;
use super::{Entry, Error, ErrorKind, Key, List, Page, Part, ReadRange, Result, Storage, Upload};

/// Agents' memories are nobody else's business.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Where temporary files are made: on the same file system as every key, and under no agent.
const TEMP_DIR: &str = "~/tmp";

/// Directories remembered as synced, at most: 16 bytes each, so 1 MiB.
const MAX_SYNCED: usize = 1 << 16;

/// How deep below a listed directory a file is looked for: no key has more segments than this.
const MAX_DEPTH: usize = 8;

/// Temporary files looked at in one sweep, at most.
const MAX_SWEPT: usize = 1000;

/// Keeps objects in files under a directory, which is made at the first `create`.
///
/// Directories are made with mode 0700, files with 0600. Clones share what they know of the directory.
#[derive(Clone, Debug)]
pub struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// The directories that this process has synced into their parents.
    synced: Mutex<HashSet<DirId>>,
    swept: AtomicBool,
}

/// Device, inode and time of birth: an inode's number is used again when its directory is removed.
type DirId = (u64, u64, Option<SystemTime>);

impl Local {
    /// Objects under `root`. Touches nothing yet. A relative path is taken from where the process is now.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            shared: Arc::new(Shared {
                root: std::path::absolute(&root).unwrap_or(root),
                synced: Mutex::default(),
                swept: AtomicBool::new(false),
            }),
        }
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    async fn begin(&self, key: &Key, replace: bool) -> Result<Box<dyn Upload>> {
        let temp = self.blocking(Shared::temp).await?;
        Ok(Box::new(LocalUpload {
            local: self.clone(),
            key: key.clone(),
            replace,
            temp: Some(temp),
        }))
    }

    /// Removes temporary files whose process died, once in a process, beside what it does next.
    fn sweep_once(&self) {
        if !self.shared.swept.swap(true, Ordering::Relaxed) {
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.sweep());
        }
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => {
                    let what = "the runtime shut down during a disk operation";
                    Err(Error::new(ErrorKind::Unanswered, what).with_source(error))
                }
            },
        }
    }
}

#[async_trait]
impl Storage for Local {
    fn location(&self) -> String {
        format!("the directory {}", self.shared.root.display())
    }

    fn honours_conditions(&self) -> bool {
        true
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let key = key.clone();
        self.blocking(move |shared| {
            let dir = shared.make_dirs(key.split().0)?;
            let mut temp = shared.temp()?;
            for piece in &body {
                temp.write(piece)?;
            }
            temp.commit(&dir, key.split().1)
        })
        .await?;
        self.sweep_once();
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
        self.blocking(move |shared| shared.read(&key, &range)).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let (dir, prefix) = (list.dir.to_owned(), list.prefix.to_owned());
        let (after, limit) = (list.after.clone(), list.limit.max(1));
        self.blocking(move |shared| shared.list(&dir, &prefix, after, limit))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.blocking(move |shared| {
            let (dir, file) = key.split();
            let Some(dir) = shared.open_dirs(dir)? else {
                return Ok(());
            };
            let removed = match dir.remove_file(file) {
                // Whoever removed it may have died before it synced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            match removed {
                Ok(()) => sync(&dir).map_err(|error| {
                    Error::new(
                        ErrorKind::NotDurable,
                        "sync the directory after deleting a file",
                    )
                    .with_source(error)
                }),
                Err(error) => Err(Error::io(format!("delete {}", shared.path(&key)), error)),
            }
        })
        .await
    }
}

impl Shared {
    fn path(&self, key: &Key) -> String {
        self.root.join(key.as_str()).display().to_string()
    }

    /// The root, if it is there.
    fn open_root(&self) -> Result<Option<Dir>> {
        match Dir::open_ambient_dir(&self.root, ambient_authority()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(
                format!("open the store {}", self.root.display()),
                error,
            )),
        }
    }

    /// The root, made with every directory above it that is missing, and durable.
    fn make_root(&self) -> Result<Dir> {
        if let Some(dir) = self.open_root()? {
            return self.sync_root(dir);
        }
        let missing: Vec<_> = self
            .root
            .ancestors()
            .take_while(|dir| !dir.exists())
            .collect();
        let failed = |error: io::Error| {
            let what = format!("make the store {}", self.root.display());
            match error.kind() {
                // Something on the way is no directory, or is not there to be made.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Error::new(ErrorKind::Config, what).with_source(error)
                }
                _ => Error::io(what, error),
            }
        };
        // Another process may have made the last one that is there a moment ago, and died before it synced.
        if let Some(there) = missing.last().and_then(|dir| dir.parent())
            && let Err(error) = sync_path(parent_of(there))
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(failed(error));
        }
        for dir in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
            sync_path(parent_of(dir)).map_err(failed)?;
        }
        let dir = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(failed)?;
        self.sync_root(dir)
    }

    fn sync_root(&self, root: Dir) -> Result<Dir> {
        let sync = || match sync_path(parent_of(&self.root)) {
            // Who may not read the directory above cannot have made the root in it either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        };
        match self.sync_once(&root, false, sync) {
            Ok(()) => Ok(root),
            Err(error) => Err(Error::io("sync the directory above the store", error)),
        }
    }

    /// The directory `dir` below the root, if it is there.
    fn open_dirs(&self, dir: &str) -> Result<Option<Dir>> {
        let Some(mut at) = self.open_root()? else {
            return Ok(None);
        };
        for segment in segments(dir) {
            at = match open_dir(&at, segment) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.not_a_dir(segment, error)),
            };
        }
        Ok(Some(at))
    }

    /// The directory `dir` below the root, made where it is missing, and durable.
    fn make_dirs(&self, dir: &str) -> Result<Dir> {
        let mut at = self.make_root()?;
        for segment in segments(dir) {
            let (child, made) = self.make_dir(&at, segment)?;
            self.sync_once(&child, made, || sync(&at))
                .map_err(|error| Error::io("sync a directory", error))?;
            at = child;
        }
        Ok(at)
    }

    /// The directory for temporary files. Nothing in it needs to survive a power failure.
    fn make_temp_dir(&self) -> Result<Dir> {
        let root = self.make_root()?;
        segments(TEMP_DIR).try_fold(root, |at, segment| Ok(self.make_dir(&at, segment)?.0))
    }

    /// The directory `segment` in `parent`, and whether it was made here.
    fn make_dir(&self, parent: &Dir, segment: &str) -> Result<(Dir, bool)> {
        let mut made = false;
        let opened = match open_dir(parent, segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.mode(DIR_MODE);
                match parent.create_dir_with(segment, &builder) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        let what =
                            format!("make the directory {segment} in {}", self.root.display());
                        return Err(Error::io(what, error));
                    }
                    result => {
                        made = result.is_ok();
                        open_dir(parent, segment)
                    }
                }
            }
            opened => opened,
        };
        match opened {
            Ok(dir) => Ok((dir, made)),
            Err(error) => Err(self.not_a_dir(segment, error)),
        }
    }

    /// Runs `sync`, which makes `dir` durable, if it was just made or this process meets it for the first time.
    fn sync_once(
        &self,
        dir: &Dir,
        made: bool,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let metadata = dir.dir_metadata()?;
        let born = metadata
            .created()
            .ok()
            .map(cap_std::time::SystemTime::into_std);
        let id = (metadata.dev(), metadata.ino(), born);
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

    fn not_a_dir(&self, segment: &str, error: io::Error) -> Error {
        let linked = rustix::io::Errno::from_io_error(&error).is_some_and(|errno| {
            matches!(errno, rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR)
        });
        let root = self.root.display();
        if linked {
            let what = format!(
                "{segment} in {root} is not a directory; links inside a store are not followed"
            );
            Error::new(ErrorKind::Unsupported, what)
        } else {
            Error::io(format!("open the directory {segment} in {root}"), error)
        }
    }

    fn read(&self, key: &Key, range: &ReadRange) -> Result<Part> {
        let not_found = || Error::new(ErrorKind::NotFound, format!("no file {}", self.path(key)));
        let failed = |error| Error::io(format!("read {}", self.path(key)), error);
        let (dir, file) = key.split();
        let dir = self.open_dirs(dir)?.ok_or_else(not_found)?;
        // Without NONBLOCK, a named pipe planted here would hold this thread for ever.
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
        let file = match dir.open_with(file, &options) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found()),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let what = format!("{} is not a regular file", self.path(key));
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let size = metadata.len();
        let range = range.of(size);
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        // A sparse file of any length costs its maker nothing.
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(len, 0);
        file.read_exact_at(&mut bytes, range.start)
            .map_err(failed)?;
        Ok(Part {
            bytes: bytes.into(),
            start: range.start,
            size,
        })
    }

    fn list(
        &self,
        dir: &str,
        prefix: &str,
        mut after: Option<Entry>,
        limit: usize,
    ) -> Result<Page> {
        let failed = |error| Error::io(format!("list {}", self.root.join(dir).display()), error);
        let Some(dir) = self.open_dirs(dir)? else {
            return Ok(Page::default());
        };
        loop {
            let mut page = smallest_entries(&dir, prefix, after.as_ref(), limit).map_err(failed)?;
            after = page.entries.last().cloned();
            let mut kept = Vec::with_capacity(page.entries.len());
            for entry in page.entries {
                // A bucket has no empty directories; a first save that was killed leaves one here.
                if match &entry {
                    Entry::Object(_) => true,
                    Entry::Dir(name) => open_dir(&dir, name)
                        .and_then(|dir| holds_a_file(&dir, MAX_DEPTH))
                        .map_err(failed)?,
                } {
                    kept.push(entry);
                }
            }
            if !kept.is_empty() || !page.more {
                page.entries = kept;
                return Ok(page);
            }
        }
    }

    fn temp(&self) -> Result<Temp> {
        let dir = self.make_temp_dir()?;
        let failed = |error| Error::io(format!("make a file in {}", self.root.display()), error);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        loop {
            let name = format!("{:032x}", crate::random::u128());
            let file = match dir.open_with(&name, &options) {
                Ok(file) => file.into_std(),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            };
            // The lock tells a sweep that the owner is alive; it ends with the process. Where the
            // file system has no locks, a sweep cannot take one either, and removes nothing.
            let _ = file.lock();
            let swept = file.metadata().map_err(failed)?.nlink() == 0;
            if !swept {
                return Ok(Temp { dir, name, file });
            }
        }
    }

    /// Removes temporary files whose process died.
    fn sweep(&self) {
        // Litter costs space, not correctness: a sweep that fails is tried by the next process.
        let Ok(Some(dir)) = self.open_dirs(TEMP_DIR) else {
            return;
        };
        let Ok(entries) = dir.entries() else {
            return;
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
        for entry in entries.flatten().take(MAX_SWEPT) {
            if let Ok(file) = entry.open_with(&options).map(cap_std::fs::File::into_std)
                && file.try_lock().is_ok()
            {
                let _ = entry.remove_file();
            }
        }
    }
}

/// A temporary file. Dropping it removes it.
#[derive(Debug)]
struct Temp {
    dir: Dir,
    name: String,
    file: fs::File,
}

impl Temp {
    fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.file
            .write_all(piece)
            .map_err(|error| Error::io("write a temporary file", error))
    }

    /// Gives the complete file its name in `dir`, in the one order that survives a power failure: the
    /// bytes, then the name, then the directory. All of it is here, so that no caller can forget a part.
    fn commit(self, dir: &Dir, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| temp.link(dir, name))
    }

    /// The same, in place of what has the name.
    fn commit_over(self, dir: &Dir, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| {
            temp.dir.rename(&temp.name, dir, name).map_err(|error| {
                Error::new(settled(&error), "give a new file its name").with_source(error)
            })
        })
    }

    fn commit_with(self, dir: &Dir, give_name: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| Error::io("sync a file before it gets its name", error))?;
        give_name(&self)?;
        sync(dir).map_err(|error| {
            let what = "sync the directory after a file got its name";
            Error::new(ErrorKind::NotDurable, what).with_source(error)
        })
    }

    fn link(&self, dir: &Dir, name: &str) -> Result<()> {
        let error = match self.dir.hard_link(&self.name, dir, name) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let no_links = matches!(
            rustix::io::Errno::from_io_error(&error),
            Some(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS)
        );
        let error = match no_links {
            true => match rename_no_replace(&self.dir, &self.name, dir, name) {
                Ok(()) => return Ok(()),
                // The file system knows neither links nor renames that do not replace.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    io::Error::new(io::ErrorKind::Unsupported, error)
                }
                Err(error) => error,
            },
            // Its name and the one that it was to get: the link was made, whatever the answer was.
            false
                if self
                    .file
                    .metadata()
                    .is_ok_and(|metadata| metadata.nlink() == 2) =>
            {
                return Ok(());
            }
            false => error,
        };
        Err(Error::new(settled(&error), "give a new file its name").with_source(error))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // A name that stays is swept once the lock is gone.
        let _ = self.dir.remove_file(&self.name);
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
                "an upload cannot go on after an error",
            )
        })
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let mut temp = self.take()?;
        let write = move |_: &Shared| temp.write(&piece).map(|()| temp);
        self.temp = Some(self.local.blocking(write).await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let temp = self.take()?;
        let (key, replace) = (self.key.clone(), self.replace);
        let commit = move |shared: &Shared| {
            let (dir, name) = key.split();
            let dir = shared.make_dirs(dir)?;
            match replace {
                true => temp.commit_over(&dir, name),
                false => temp.commit(&dir, name),
            }
        };
        self.local.blocking(commit).await?;
        self.local.sweep_once();
        Ok(())
    }
}

/// The kind for an error of giving a file its name: what the errno does not settle, only looking can.
fn settled(error: &io::Error) -> ErrorKind {
    match kind_of(error) {
        ErrorKind::Unavailable | ErrorKind::Timeout => ErrorKind::Unanswered,
        kind => kind,
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn sync_path(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn segments(dir: &str) -> impl Iterator<Item = &str> {
    dir.split('/').filter(|segment| !segment.is_empty())
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Opens a child directory for reading and syncing, and never through a link.
fn open_dir(parent: &Dir, name: &str) -> io::Result<Dir> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::DIRECTORY));
    let file = parent.open_with(name, &options)?;
    Ok(Dir::from_std_file(file.into_std()))
}

fn sync(dir: &Dir) -> io::Result<()> {
    // The root is opened for its path only, which cannot be synced; "." can.
    dir.open(".")?.sync_all()
}

fn rename_no_replace(from: &Dir, name: &str, to: &Dir, new_name: &str) -> io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    Ok(rustix::fs::renameat_with(from, name, to, new_name, flags)?)
}

/// The first `limit` entries after `after`, holding no more than these in memory.
fn smallest_entries(
    dir: &Dir,
    prefix: &str,
    after: Option<&Entry>,
    limit: usize,
) -> io::Result<Page> {
    let mut smallest = BinaryHeap::with_capacity(limit.min(1024) + 1);
    let mut more = false;
    for entry in dir.entries()? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !is_segment(&name) || !name.starts_with(prefix) {
            continue;
        }
        let entry = match entry.file_type()?.is_dir() {
            true => Entry::Dir(name),
            false => Entry::Object(name),
        };
        if after.is_some_and(|after| entry <= *after) {
            continue;
        }
        smallest.push(entry);
        if smallest.len() > limit {
            smallest.pop();
            more = true;
        }
    }
    Ok(Page {
        entries: smallest.into_sorted_vec(),
        more,
    })
}

fn holds_a_file(dir: &Dir, depth: usize) -> io::Result<bool> {
    for entry in dir.entries()? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            return Ok(true);
        }
        if let Some(name) = entry.file_name().to_str()
            && depth > 0
            && open_dir(dir, name).and_then(|dir| holds_a_file(&dir, depth - 1))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}
