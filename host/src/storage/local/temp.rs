//! Files that are being written, and how they get their names.

use std::io;
use std::time::{Duration, SystemTime};

use super::disk::{Folder, NewFile};
use super::lacking;
use super::tree::Tree;
use crate::storage::error::kind_of;
use crate::storage::{Error, ErrorKind, Result, Swept};

/// Directory where temporary files are made: on the same file system as every key, and under no
/// agent.
const TEMP_DIR: &str = "~/tmp";

/// Temporary files looked at in the sweep that a process begins with, at most.
const MAX_SWEPT: usize = 1000;

/// A temporary file. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Temp {
    /// None for a file that has no name.
    named: Option<Named>,
    file: NewFile,
}

/// The directory and the name of a temporary file.
#[derive(Debug)]
struct Named {
    dir: Folder,
    name: String,
}

impl Drop for Named {
    fn drop(&mut self) {
        // A name that stays is swept once the lock is gone.
        let _ = self.dir.remove(&self.name);
    }
}

impl Temp {
    /// Makes a file for [`Temp::commit`] into `dir`: without a name where the system can name it
    /// later. That saves two changes of a directory that all writers share, and leaves nothing
    /// behind when the process dies.
    pub(super) fn of(tree: &Tree, dir: &Folder) -> Result<Self> {
        if tree.names_unnamed(probe_unnamed) {
            // Another file system may be mounted on a directory of the store.
            if let Ok(file) = dir.create_unnamed() {
                return Ok(Self { named: None, file });
            }
        }
        Self::new(tree)
    }

    /// Makes a file with a name of its own.
    pub(super) fn new(tree: &Tree) -> Result<Self> {
        let dir = tree.make_unsynced(TEMP_DIR)?;
        loop {
            let failed = |error| {
                Error::io(
                    format!("cannot create a file in {}", dir.path().display()),
                    error,
                )
            };
            let name = format!("{:032x}", crate::random::u128());
            let file = match dir.create_file(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(failed)?,
            };
            // The lock tells a sweep that the owner is alive. Where the file system has no locks, a
            // sweep cannot take one either, and removes nothing.
            let _ = file.lock();
            // A sweep may have taken the name before the lock was there. The number of names would
            // not tell: a backup by hard links may have given the file another one.
            match dir.id_of(&name) {
                Ok(there) if there == file.id().map_err(failed)? => {
                    let named = Some(Named { dir, name });
                    return Ok(Self { named, file });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.file
            .write(piece)
            .map_err(|error| Error::io("cannot write a temporary file", error))
    }

    /// Gives the complete file its name in `dir`, in the one order that survives a power failure:
    /// the bytes, then the name, then the directory. All of it is here, so that no caller can
    /// forget a part.
    pub(super) fn commit(self, dir: &Folder, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| temp.link(dir, name))
    }

    /// Gives the complete file its name as [`Temp::commit`] does, in place of the file that has it.
    pub(super) fn commit_over(self, dir: &Folder, name: &str) -> Result<()> {
        self.commit_with(dir, |temp| {
            let Some(named) = &temp.named else {
                let what = "cannot replace a file by one without a name";
                return Err(Error::new(ErrorKind::Unsupported, what));
            };
            let renamed = named.dir.rename(&named.name, dir, name);
            temp.confirm(renamed.map_err(not_named), dir, name)
        })
    }

    fn commit_with(self, dir: &Folder, give_name: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.file.sync().map_err(|error| {
            let what = "cannot sync a file before naming it";
            lacking::no_file_sync(what, error)
        })?;
        let named = give_name(&self);
        match &named {
            Err(error) if error.kind() != ErrorKind::OutcomeUnknown => return named,
            // Where the answer is unclear, the caller looks at the name. If the file has it, it
            // must be durable.
            _ => {}
        }
        dir.sync().map_err(|error| {
            let what = "cannot sync the directory after naming a file";
            lacking::no_sync(Some(ErrorKind::NotDurable), what, error)
        })?;
        named
    }

    fn link(&self, dir: &Folder, name: &str) -> Result<()> {
        let Some(named) = &self.named else {
            let linked = dir.link_unnamed(&self.file, name).map_err(not_named);
            return self.confirm(linked, dir, name);
        };
        let linked = match named.dir.link(&named.name, dir, name) {
            // Some file systems, such as exFAT, have no hard links.
            Err(link) if lacking::may_lack_links(&link) => {
                let renamed = named.dir.rename_no_replace(&named.name, dir, name);
                renamed.map_err(|rename| match lacking::no_names(link, &rename) {
                    Some(error) => error,
                    None => not_named(rename),
                })
            }
            linked => linked.map_err(not_named),
        };
        self.confirm(linked, dir, name)
    }

    /// Checks the answer of the call that was to give this file its name, by device and inode. The
    /// number of names proves nothing: a backup by hard links adds one to a temporary file, too.
    fn confirm(&self, answer: Result<()>, dir: &Folder, name: &str) -> Result<()> {
        match (answer, self.has_name(dir, name)) {
            // An answer may be lost after the call was made.
            (Ok(()) | Err(_), Ok(true)) => Ok(()),
            (Ok(()), Ok(false)) => Err(Error::new(
                ErrorKind::NotDurable,
                "another file replaced the one that was written",
            )
            .with_hint("keep other programs from replacing files in the store")),
            (Ok(()), Err(error)) => {
                let what = "cannot stat a file after naming it";
                Err(Error::new(ErrorKind::OutcomeUnknown, what).with_source(error))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Returns whether the file in `dir` with this name is this one.
    fn has_name(&self, dir: &Folder, name: &str) -> io::Result<bool> {
        match dir.id_of(name) {
            Ok(there) => Ok(there == self.file.id()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns true if a file that was made without a name can be named: not every file system makes
/// such files, and naming them takes `/proc`.
fn probe_unnamed(tree: &Tree) -> bool {
    let Ok(dir) = tree.make_unsynced(TEMP_DIR) else {
        return false;
    };
    let Ok(file) = dir.create_unnamed() else {
        return false;
    };
    let name = format!("{:032x}", crate::random::u128());
    let linked = dir.link_unnamed(&file, &name);
    // The link may have been made though its answer is an error.
    let named = Named { dir, name };
    let is_named = matches!(
        (named.dir.id_of(&named.name), file.id()),
        (Ok(there), Ok(made)) if there == made
    );
    linked.is_ok() && is_named
}

/// A file did not get its name, as far as the answer says. What the errno does not settle, only
/// looking can.
fn not_named(error: io::Error) -> Error {
    let kind = match kind_of(&error) {
        ErrorKind::Unavailable | ErrorKind::Timeout => ErrorKind::OutcomeUnknown,
        kind => kind,
    };
    Error::new(kind, "cannot name a new file").with_source(error)
}

/// Which temporary files a sweep looks at.
#[derive(Debug)]
pub(super) struct Sweep {
    older_than: Duration,
    dry_run: bool,
    most: usize,
}

impl Sweep {
    /// Limits the files of one sweep, so that a process does not wait long for it.
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
    let failed = |error| Error::io(format!("cannot sweep {}", dir.path().display()), error);
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
        // The lock is held until the name is gone: a new file waits for it, and sees that it has no
        // name.
        if let Ok(file) = dir.open_file(&entry.name)
            && file.is_abandoned()
        {
            if !sweep.dry_run {
                dir.remove(&entry.name).map_err(failed)?;
            }
            drop(file);
            swept.removed += 1;
            swept.bytes += size;
        }
    }
    Ok(swept)
}
