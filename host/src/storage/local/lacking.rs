//! Errors of file systems that lack a call without which no save is durable, or atomic.

use std::io;

use rustix::io::Errno;

use crate::storage::error::kind_of;
use crate::storage::{Error, ErrorKind};

const HINT: &str = "use a local file system such as ext4, XFS or Btrfs for the store";

/// Returns the error for a directory that could not be synced, of `kind` where the caller knows
/// what that means.
pub(super) fn no_sync(kind: Option<ErrorKind>, what: impl Into<String>, error: io::Error) -> Error {
    of_sync("a directory", kind, what.into(), error)
}

/// Returns the error for a file that could not be synced before it got its name.
pub(super) fn no_file_sync(what: impl Into<String>, error: io::Error) -> Error {
    of_sync("a file", None, what.into(), error)
}

fn of_sync(object: &str, kind: Option<ErrorKind>, what: String, error: io::Error) -> Error {
    let lost = "so a save could be lost in a power failure";
    match Errno::from_io_error(&error) {
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
            let kind = kind.unwrap_or(ErrorKind::Unsupported);
            let what = format!("{what}: this file system cannot sync {object}, {lost}");
            Error::new(kind, what).with_source(error).with_hint(HINT)
        }
        // Some network and container file systems answer so to what they do not know.
        Some(Errno::IO) => {
            let kind = kind.unwrap_or(ErrorKind::Unavailable);
            let what =
                format!("{what}: the disk fails or this file system cannot sync {object}, {lost}");
            let hint = format!("check the disk, for example with dmesg; if it is sound, {HINT}");
            Error::new(kind, what).with_source(error).with_hint(hint)
        }
        _ => Error::new(kind.unwrap_or_else(|| kind_of(&error)), what).with_source(error),
    }
}

/// Returns true where a link that failed may work on another file system, or as a rename on this
/// one. It is safe to rename after a link whose answer is unclear: the name is given once, to the
/// same file.
pub(super) fn may_lack_links(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        let lacks = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
        lacks.contains(&errno) || [Errno::XDEV, Errno::IO].contains(&errno)
    })
}

/// Returns the error of a file system that can neither link a file nor rename one without replacing
/// another; none where the rename failed for another reason.
pub(super) fn no_names(link: io::Error, rename: &io::Error) -> Option<Error> {
    let link_errno = Errno::from_io_error(&link);
    let lacks = match Errno::from_io_error(rename) {
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV) => true,
        // An account without the right to change the directory gets this twice.
        Some(Errno::PERM) => link_errno != Some(Errno::PERM),
        _ => false,
    };
    if !lacks {
        return None;
    }
    let what = "cannot name a new file: this file system can neither link a file nor rename one \
                without replacing another, so two writers could overwrite each other";
    // An input or output error does not say that nothing was done.
    let kind = match link_errno {
        Some(Errno::IO) => ErrorKind::OutcomeUnknown,
        _ => ErrorKind::Unsupported,
    };
    Some(Error::new(kind, what).with_source(link).with_hint(HINT))
}
