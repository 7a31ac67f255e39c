//! Calls that a watch over the disk is told of.
#![cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, dead_code, reason = "only tests watch")
)]

use std::fmt;
use std::io;
use std::path::Path;

/// A call to the operating system, about paths that begin with the store's own.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Opens a directory.
    OpenDir(&'a Path),
    /// Makes a directory.
    MakeDir(&'a Path),
    /// Reads the names in a directory.
    ReadDir(&'a Path),
    /// Makes the names in a directory durable.
    SyncDir(&'a Path),
    /// Makes a file that is not there.
    CreateFile(&'a Path),
    /// Makes a file that has no name. The path stands for it in later calls: it begins with the
    /// directory that the file is made in, and nothing is found at it.
    CreateUnnamed(&'a Path),
    /// Appends bytes to a file that was created.
    WriteFile(&'a Path, &'a [u8]),
    /// Makes the bytes of a file durable.
    SyncFile(&'a Path),
    /// Gives the file at the first path the second one too, which nothing has yet.
    Link(&'a Path, &'a Path),
    /// Gives the file at the first path the second one instead, which nothing has yet.
    RenameNoReplace(&'a Path, &'a Path),
    /// Gives the file at the first path the second one instead, whatever has it.
    Rename(&'a Path, &'a Path),
    /// Takes a name from a file.
    Remove(&'a Path),
    /// Looks at which file has a name.
    StatFile(&'a Path),
    /// Opens a file for reading.
    OpenFile(&'a Path),
    /// Reads from a file that was opened.
    ReadFile(&'a Path),
}

/// Is told of every call, before and after.
pub trait Watch: fmt::Debug + Send + Sync {
    /// Before the call; an error is returned in its place, and it is not made.
    fn before(&self, call: Call<'_>) -> io::Result<()>;

    /// After the call, which succeeded if `done`; an error is returned in place of its answer.
    fn after(&self, call: Call<'_>, done: bool) -> io::Result<()>;

    /// Returns true if files may be written before they have a name. A watch that acts on temporary
    /// files by their names returns false, as the default does.
    fn allows_unnamed(&self) -> bool {
        false
    }
}
