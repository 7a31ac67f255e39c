//! The calls to the operating system, each of them made here and nowhere else.
//!
//! So one place can be watched: the crash laboratory records what is written and synced in which
//! order, and makes any call fail. Without a [`Watch`] each is the bare call.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;

use super::modes::Modes;
use super::watch::{Call, Watch};
use crate::random;

/// Only the owner may read what agents saved.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The bit of a directory that gives its group to what is made in it.
const SET_GROUP: u32 = 0o2000;

/// Makes the calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    modes: Modes,
    watch: Option<Arc<dyn Watch>>,
}

impl Disk {
    pub(super) fn new(modes: Modes) -> Self {
        Self { modes, watch: None }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn watched(watch: Arc<dyn Watch>) -> Self {
        Self {
            modes: Modes::default(),
            watch: Some(watch),
        }
    }

    fn call<T>(&self, call: Call<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(watch) = &self.watch else {
            return make();
        };
        watch.before(call)?;
        let result = make();
        watch.after(call, result.is_ok())?;
        result
    }

    /// Returns true if files may be made without a name.
    pub(super) fn allows_unnamed(&self) -> bool {
        self.watch
            .as_ref()
            .is_none_or(|watch| watch.allows_unnamed())
    }

    /// Opens a directory by its path, through links where there are some.
    pub(super) fn open(&self, path: &Path) -> io::Result<Folder> {
        self.call(Call::OpenDir(path), || {
            let mut options = fs::OpenOptions::new();
            options.read(true).custom_flags(flags(OFlags::DIRECTORY));
            Ok(self.folder(options.open(path)?, path.to_owned()))
        })
    }

    /// Makes a directory by its path.
    pub(super) fn make(&self, path: &Path) -> io::Result<()> {
        self.call(Call::MakeDir(path), || {
            fs::DirBuilder::new().mode(DIR_MODE).create(path)?;
            let mut options = fs::OpenOptions::new();
            let flags = flags(OFlags::DIRECTORY | OFlags::NOFOLLOW);
            options.read(true).custom_flags(flags);
            let set = self.set_dir_mode(|| options.open(path));
            set.inspect_err(|_| drop(fs::remove_dir(path)))
        })
    }

    /// Returns the number of the file system that holds `path`.
    pub(super) fn device(&self, path: &Path) -> io::Result<u64> {
        self.call(Call::StatFile(path), || Ok(fs::metadata(path)?.dev()))
    }

    /// Gives a directory that was just made the mode that a setting asks for, whatever the umask
    /// says, and makes the mode durable. The directory is opened only where there is a setting.
    fn set_dir_mode(&self, open: impl FnOnce() -> io::Result<fs::File>) -> io::Result<()> {
        let Some(mode) = self.modes.dir() else {
            return Ok(());
        };
        let dir = open()?;
        let inherited = dir.metadata()?.mode() & SET_GROUP;
        set_mode(&dir, mode | inherited)?;
        dir.sync_all()
    }

    fn folder(&self, file: fs::File, path: PathBuf) -> Folder {
        Folder {
            disk: self.clone(),
            dir: Dir::from_std_file(file),
            path,
        }
    }
}

/// A directory that is open for reading and syncing.
#[derive(Debug)]
pub(super) struct Folder {
    disk: Disk,
    dir: Dir,
    path: PathBuf,
}

/// Device, inode and time of birth: an inode's number is used again when its directory is removed.
pub(super) type FolderId = (u64, u64, Option<SystemTime>);

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Which directory this is, whatever its path.
    pub(super) fn id(&self) -> io::Result<FolderId> {
        use cap_std::fs::MetadataExt as _;

        let metadata = self.dir.dir_metadata()?;
        let born = metadata
            .created()
            .ok()
            .map(cap_std::time::SystemTime::into_std);
        Ok((metadata.dev(), metadata.ino(), born))
    }

    /// Opens a child directory, and never through a link.
    pub(super) fn open(&self, name: &str) -> io::Result<Self> {
        let path = self.path.join(name);
        self.disk.call(Call::OpenDir(&path), || {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(flags(OFlags::NOFOLLOW | OFlags::DIRECTORY));
            let file = self.dir.open_with(name, &options)?.into_std();
            Ok(self.disk.folder(file, path.clone()))
        })
    }

    pub(super) fn make(&self, name: &str) -> io::Result<()> {
        self.disk.call(Call::MakeDir(&self.path.join(name)), || {
            let mut builder = DirBuilder::new();
            builder.mode(DIR_MODE);
            self.dir.create_dir_with(name, &builder)?;
            let mut options = OpenOptions::new();
            let flags = flags(OFlags::NOFOLLOW | OFlags::DIRECTORY);
            options.read(true).custom_flags(flags);
            let open = || Ok(self.dir.open_with(name, &options)?.into_std());
            let set = self.disk.set_dir_mode(open);
            set.inspect_err(|_| drop(self.dir.remove_dir(name)))
        })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let sync = || Ok(rustix::fs::fsync(&self.dir)?);
        self.disk.call(Call::SyncDir(&self.path), sync)
    }

    /// Returns the children of the directory, by name, in no order. Names that are not UTF-8 are
    /// not ours.
    pub(super) fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<Child>>> {
        let read = || self.dir.entries();
        let entries = self.disk.call(Call::ReadDir(&self.path), read)?;
        Ok(entries.filter_map(|entry| {
            let child = |entry: cap_std::fs::DirEntry| {
                let name = entry.file_name().into_string().map_err(not_ours)?;
                let is_dir = entry.file_type().map_err(Some)?.is_dir();
                Ok(Child {
                    entry,
                    name,
                    is_dir,
                })
            };
            match entry.map_err(Some).and_then(child) {
                Ok(child) => Some(Ok(child)),
                Err(error) => error.map(Err),
            }
        }))
    }

    /// A file that was not there, for writing.
    pub(super) fn create_file(&self, name: &str) -> io::Result<NewFile> {
        let path = self.path.join(name);
        self.disk.call(Call::CreateFile(&path), || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(FILE_MODE);
            let file = self.dir.open_with(name, &options)?.into_std();
            if let Some(mode) = self.disk.modes.file() {
                let set = set_mode(&file, mode);
                set.inspect_err(|_| drop(self.dir.remove_file(name)))?;
            }
            Ok(NewFile {
                disk: self.disk.clone(),
                file,
                path: path.clone(),
            })
        })
    }

    /// Makes a file that has no name, for writing. It is gone with its last handle, unless
    /// [`Folder::link_unnamed`] gave it a name.
    pub(super) fn create_unnamed(&self) -> io::Result<NewFile> {
        let path = self.path.join(format!("unnamed-{:032x}", random::u128()));
        self.disk.call(Call::CreateUnnamed(&path), || {
            let file = open_unnamed(&self.dir)?;
            if let Some(mode) = self.disk.modes.file() {
                set_mode(&file, mode)?;
            }
            Ok(NewFile {
                disk: self.disk.clone(),
                file,
                path: path.clone(),
            })
        })
    }

    /// Opens a file for reading, and never through a link.
    pub(super) fn open_file(&self, name: &str) -> io::Result<OldFile> {
        let path = self.path.join(name);
        self.disk.call(Call::OpenFile(&path), || {
            // Without NONBLOCK, a named pipe planted here would hold this thread for ever.
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
            Ok(OldFile {
                disk: self.disk.clone(),
                file: self.dir.open_with(name, &options)?.into_std(),
                path: path.clone(),
            })
        })
    }

    pub(super) fn link(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        let old = self.path.join(name);
        let new = to.path.join(new_name);
        self.disk.call(Call::Link(&old, &new), || {
            self.dir.hard_link(name, &to.dir, new_name)
        })
    }

    /// Gives a file without a name this one, which nothing has yet.
    pub(super) fn link_unnamed(&self, file: &NewFile, name: &str) -> io::Result<()> {
        let new = self.path.join(name);
        self.disk.call(Call::Link(&file.path, &new), || {
            // Linking the handle itself (AT_EMPTY_PATH) is a privilege before Linux 6.10.
            let handle = format!("/proc/self/fd/{}", file.file.as_raw_fd());
            let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
            Ok(rustix::fs::linkat(
                rustix::fs::CWD,
                handle,
                &self.dir,
                name,
                follow,
            )?)
        })
    }

    pub(super) fn rename_no_replace(
        &self,
        name: &str,
        to: &Self,
        new_name: &str,
    ) -> io::Result<()> {
        let old = self.path.join(name);
        let new = to.path.join(new_name);
        self.disk.call(Call::RenameNoReplace(&old, &new), || {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            Ok(rustix::fs::renameat_with(
                &self.dir, name, &to.dir, new_name, flags,
            )?)
        })
    }

    pub(super) fn rename(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        let old = self.path.join(name);
        let new = to.path.join(new_name);
        self.disk.call(Call::Rename(&old, &new), || {
            self.dir.rename(name, &to.dir, new_name)
        })
    }

    /// Identifies the file that has `name`; a symbolic link is not followed.
    pub(super) fn id_of(&self, name: &str) -> io::Result<FileId> {
        use cap_std::fs::MetadataExt as _;

        let path = self.path.join(name);
        self.disk.call(Call::StatFile(&path), || {
            let metadata = self.dir.symlink_metadata(name)?;
            Ok(FileId {
                device: metadata.dev(),
                inode: metadata.ino(),
            })
        })
    }

    /// Removes what has `name`, unless it is a regular file. Returns true if it was removed.
    pub(super) fn remove_obstacle(&self, name: &str) -> io::Result<bool> {
        self.disk.call(Call::Remove(&self.path.join(name)), || {
            let kind = self.dir.symlink_metadata(name)?.file_type();
            if kind.is_file() {
                return Ok(false);
            }
            if kind.is_dir() {
                self.dir.remove_dir(name)?;
            } else {
                self.dir.remove_file(name)?;
            }
            Ok(true)
        })
    }

    /// Returns true where what has `name` is neither a regular file nor a directory with entries.
    pub(super) fn has_obstacle(&self, name: &str) -> io::Result<bool> {
        let path = self.path.join(name);
        let stat = || Ok(self.dir.symlink_metadata(name)?.file_type());
        let kind = self.disk.call(Call::StatFile(&path), stat)?;
        if kind.is_dir() {
            return Ok(self.dir.open_dir(name)?.entries()?.next().is_none());
        }
        Ok(!kind.is_file())
    }

    /// Locks the directory against others that lock it, until the result is dropped.
    pub(super) fn lock(&self) -> io::Result<fs::File> {
        let file = self.dir.try_clone()?.into_std_file();
        file.lock()?;
        Ok(file)
    }

    /// Sets the permissions of a file or directory that lacks those of its owner. Returns true if
    /// they were set.
    pub(super) fn restore_access(&self, name: &str) -> io::Result<bool> {
        use cap_std::fs::MetadataExt as _;

        let metadata = self.dir.symlink_metadata(name)?;
        let kind = metadata.file_type();
        let mode = match (kind.is_dir(), kind.is_file()) {
            (true, _) => DIR_MODE,
            (_, true) => FILE_MODE,
            _ => return Ok(false),
        };
        if metadata.mode() & mode == mode {
            return Ok(false);
        }
        let mode = rustix::fs::Mode::from_raw_mode(mode);
        rustix::fs::chmodat(&self.dir, name, mode, rustix::fs::AtFlags::empty())?;
        Ok(true)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.call(Call::Remove(&self.path.join(name)), || {
            self.dir.remove_file(name)
        })
    }
}

fn not_ours(_: OsString) -> Option<io::Error> {
    None
}

/// Device and inode: two names with the same id are the same file. The inode is not used again
/// while the file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) struct Child {
    entry: cap_std::fs::DirEntry,
    pub(super) name: String,
    pub(super) is_dir: bool,
}

impl Child {
    /// Its length and the time of its last change. A link counts as a change, so this is when it
    /// got its name; the last write may have been long before.
    pub(super) fn size_and_change(&self) -> io::Result<(u64, SystemTime)> {
        use cap_std::fs::MetadataExt as _;

        let metadata = self.entry.metadata()?;
        let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
        let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        // A time that cannot be told is in the future: nothing is pruned for it.
        let changed = changed.unwrap_or_else(|| SystemTime::now() + Duration::from_secs(1 << 32));
        Ok((metadata.len(), changed))
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct NewFile {
    disk: Disk,
    file: fs::File,
    path: PathBuf,
}

impl NewFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { disk, file, path } = self;
        disk.call(Call::WriteFile(path, bytes), || file.write_all(bytes))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let sync = || self.file.sync_all();
        self.disk.call(Call::SyncFile(&self.path), sync)
    }

    /// Takes the lock that says that its owner is alive; it ends with the process.
    pub(super) fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }

    /// Identifies this file among all files.
    pub(super) fn id(&self) -> io::Result<FileId> {
        let metadata = self.file.metadata()?;
        Ok(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// A file that is open for reading.
#[derive(Debug)]
pub(super) struct OldFile {
    disk: Disk,
    file: fs::File,
    path: PathBuf,
}

impl OldFile {
    /// Its length; none for what is no regular file.
    pub(super) fn size(&self) -> io::Result<Option<u64>> {
        let metadata = self.file.metadata()?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        self.disk.call(Call::ReadFile(&self.path), || {
            self.file.read_exact_at(bytes, start)
        })
    }

    /// Returns true if the process that made the file is gone; if so, its lock is ours until this
    /// value is dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.file.try_lock().is_ok()
    }
}

/// Makes a file without a name in a directory.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open_unnamed(dir: &Dir) -> io::Result<fs::File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::from_raw_mode(FILE_MODE);
    Ok(rustix::fs::openat(dir, ".", flags, mode)?.into())
}

/// Other systems have no such files.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open_unnamed(_: &Dir) -> io::Result<fs::File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn set_mode(file: &fs::File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}
