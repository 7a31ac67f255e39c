//! The place that a check works in, and its verdict.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::storage::{ErrorKind, Key, Storage};

/// Opens the storage that is tested, anew at each call.
pub type Open<'a> = &'a (dyn Fn() -> Arc<dyn Storage> + Sync);

/// Result of one check: nothing, or a description of what is wrong.
pub(super) type Verdict = Result<(), String>;

/// Storage and directory that a check works in.
pub(super) struct Place<'a> {
    pub(super) open: Open<'a>,
    /// A directory of its own.
    pub(super) dir: String,
}

impl<'a> Place<'a> {
    pub(super) fn new(open: Open<'a>) -> Self {
        Self {
            open,
            dir: format!("check-{:032x}", crate::random::u128()),
        }
    }

    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        (self.open)()
    }

    pub(super) fn key(&self, name: &str) -> Key {
        Key::new(format!("{}/{name}", self.dir)).expect("names in checks are keys")
    }
}

/// Fails unless `holds`.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

/// Fails unless `result` is an error of `kind`.
pub(super) fn ensure_kind<T>(
    result: Result<T, crate::storage::Error>,
    kind: ErrorKind,
    call: &str,
) -> Verdict {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(format!(
            "{call}: {:?} instead of {kind:?}: {error}",
            error.kind()
        )),
        Ok(_) => Err(format!("{call}: ok instead of {kind:?}")),
    }
}

/// Says which call failed.
pub(super) fn on<E: fmt::Display>(call: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{call}: {error}")
}

/// `len` bytes that do not compress, the same for the same `seed`.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut x = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
