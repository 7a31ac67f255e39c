//! Whether a server keeps the condition of an upload in parts, tried before the first one to a server that is neither Amazon's nor Google's.
//!
//! The store tries the condition of objects that are made in one request. Some servers keep it there, and ignore it where parts are put
//! together: then one large save could overwrite another, and both would have been acknowledged.

use bytes::Bytes;

use crate::storage::{Error, ErrorKind, Key, Result};

/// What the objects of a trial hold.
pub(in crate::storage) const BODY: Bytes = Bytes::from_static(b"probe\n");

/// A key that nobody else has. `persist gc` finds what is left of it.
pub(in crate::storage) fn key() -> Result<Key> {
    Key::new(format!("~/probe-{:032x}-upload", crate::random::u128()))
}

/// What it means that the object of a key of ours was created so. Where it is there already, an attempt whose answer was lost made it.
pub(in crate::storage) fn made(created: Result<()>) -> Result<()> {
    match created {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created.map_err(Error::of_a_trial),
    }
}

/// What it means that an upload to a key that is there was completed so.
pub(in crate::storage) fn judge(completed: Result<()>) -> Result<()> {
    match completed {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.of_a_trial()),
        Ok(()) => {
            let what = "this server completes an upload over an object that is there, though it was asked not to, so one large save \
                        could overwrite another";
            let hint = "use one that honours conditional writes of uploads, too; nothing was saved";
            Err(Error::new(ErrorKind::Unsupported, what).with_hint(hint))
        }
    }
}
