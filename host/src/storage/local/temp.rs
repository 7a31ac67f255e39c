//! Files that are being written, and how they get their names.

use std::io;
use std::time::{Duration, SystemTime};

use super::disk::{Folder, NewFile};
use super::tree::Tree;
use crate::storage::error::kind_of;
use crate::storage::{Error, ErrorKind, Result, Swept};

/// Where temporary files are made: on the same file system as every key, and under no agent.
const TEMP_DIR: &str = "~/tmp";

/// Temporary files looked at in the sweep that a process begins with, at most.
const MAX_SWEPT: usize = 1000;

/// A temporary file. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Temp {
    dir: Folder,
    name: String,
    file: NewFile,
}

impl Temp {
    pub(super) fn new(tree: &Tree) -> Result<Self> {
        let dir = tree.make_unsynced(TEMP_DIR)?;
        loop {
            let failed =
                |error| Error::io(format!("make a file in {}", dir.path().display()), error);
            let name = format!("{:032x}", crate::random::u128());
            let file = match dir.create_file(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(failed)?,
            };
            // The lock tells a sweep that the owner is alive. Where the file system has no locks, a
            // sweep cannot take one either, and removes nothing.
            let _ = file.lock();
            let was_swept = file.names().map_err(failed)? == 0;
            if !was_swept {
                return Ok(Self { dir, name, file });
            }
        }
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.file
            .write(piece)
            .map_err(|error| Error::io("write a temporary file", error))
    }

    /// Gives the complete file its name in `dir`, in the one order that survives a power failure: the
    /// bytes, then the name, then the directory. All of it is here, so that no caller can forget a part.
    pub(super) fn commit(self, dir: &Folder, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| temp.link(dir, name))
    }

    /// The same, in place of what has the name.
    pub(super) fn commit_over(self, dir: &Folder, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| {
            temp.dir.rename(&temp.name, dir, name).map_err(not_named)
        })
    }

    fn commit_with(self, dir: &Folder, give_name: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.file
            .sync()
            .map_err(|error| Error::io("sync a file before it gets its name", error))?;
        give_name(&self)?;
        dir.sync().map_err(|error| {
            let what = "sync the directory after a file got its name";
            Error::new(ErrorKind::NotDurable, what).with_source(error)
        })
    }

    fn link(&self, dir: &Folder, name: &str) -> Result<()> {
        use rustix::io::Errno;

        let error = match self.dir.link(&self.name, dir, name) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                match self.dir.rename_no_replace(&self.name, dir, name) {
                    Ok(()) => Ok(()),
                    // The file system knows neither links nor renames that do not replace.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        Err(not_named(io::Error::new(io::ErrorKind::Unsupported, error)))
                    }
                    Err(error) => Err(not_named(error)),
                }
            }
            // Its name and the one that it was to get: the link was made, whatever the answer was.
            _ if self.file.names().is_ok_and(|names| names == 2) => Ok(()),
            _ => Err(not_named(error)),
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // A name that stays is swept once the lock is gone.
        let _ = self.dir.remove(&self.name);
    }
}

/// A file did not get its name, as far as the answer says. What the errno does not settle, only looking can.
fn not_named(error: io::Error) -> Error {
    let kind = match kind_of(&error) {
        ErrorKind::Unavailable | ErrorKind::Timeout => ErrorKind::Unanswered,
        kind => kind,
    };
    Error::new(kind, "give a new file its name").with_source(error)
}

/// Which temporary files a sweep looks at.
#[derive(Debug)]
pub(super) struct Sweep {
    older_than: Duration,
    dry_run: bool,
    most: usize,
}

impl Sweep {
    /// So many that a process does not wait long for it.
    pub(super) fn some() -> Self {
        Self {
            most: MAX_SWEPT,
            ..Self::all(Duration::ZERO, false)
        }
    }

    pub(super) fn all(older_than: Duration, dry_run: bool) -> Self {
        Self {
            older_than,
            dry_run,
            most: usize::MAX,
        }
    }
}

/// Removes temporary files whose process died. They cost space, not correctness.
pub(super) fn sweep(tree: &Tree, sweep: &Sweep) -> Result<Swept> {
    let mut swept = Swept::default();
    let Some(dir) = tree.open(TEMP_DIR)? else {
        return Ok(swept);
    };
    let failed = |error| Error::io(format!("sweep {}", dir.path().display()), error);
    let entries = dir.entries().map_err(failed)?;
    let files = entries.flatten().filter(|entry| !entry.is_dir);
    for entry in files.take(sweep.most) {
        // Their owner removes them at any time: what cannot be looked at is gone.
        let Ok((size, changed)) = entry.size_and_change() else {
            continue;
        };
        let age = SystemTime::now().duration_since(changed);
        if age.unwrap_or_default() < sweep.older_than {
            continue;
        }
        // The lock is held until the name is gone: a new file waits for it, and sees that it has no name.
        if let Ok(file) = dir.open_file(&entry.name)
            && file.is_abandoned()
        {
            if !sweep.dry_run {
                dir.remove(&entry.name).map_err(failed)?;
            }
            drop(file);
            swept += Swept {
                removed: 1,
                bytes: size,
            };
        }
    }
    Ok(swept)
}
