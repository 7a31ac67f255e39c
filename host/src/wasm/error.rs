//! Errors that a guest is told. A guest-visible outcome is a case of the contract; a broken handle
//! is a trap.

use wasmtime::component::ResourceTableError;

use super::generated::persist::snapshot::types;
use super::rights::Right;
use crate::snapshot::Error;
use crate::storage::{self, ErrorKind};

/// An error of a guest's call: a case of the contract, or a trap.
#[derive(Debug)]
pub(super) enum GuestError {
    /// The guest is told.
    Told(types::Error),
    /// The call ends the guest.
    Trap(wasmtime::Error),
}

impl GuestError {
    pub(super) fn quota(limit: &str, max: u64) -> Self {
        Self::Told(types::Error::QuotaExceeded(types::Quota {
            limit: limit.into(),
            max,
        }))
    }

    pub(super) fn invalid(what: &str) -> Self {
        Self::Told(types::Error::Invalid(what.into()))
    }

    pub(super) fn denied(right: Right) -> Self {
        Self::Told(types::Error::Denied(right.name().into()))
    }

    /// Returns the error for a used-up resource that all guests share; this guest did nothing
    /// wrong.
    pub(super) fn later() -> Self {
        Self::Told(types::Error::Throttled(Some(1000)))
    }

    pub(super) fn too_large(size: u64) -> Self {
        Self::Told(types::Error::TooLarge(size))
    }
}

impl From<ResourceTableError> for GuestError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => {
                let what = "this guest holds as many handles as its host allows; drop some";
                Self::Told(other("too-many-handles", what.into()))
            }
            error => Self::Trap(error.into()),
        }
    }
}

impl From<Error> for GuestError {
    fn from(error: Error) -> Self {
        Self::Told(match error {
            Error::Conflict { head } => types::Error::Conflict(head),
            Error::NotFound(_) => types::Error::NotFound,
            Error::Invalid(what) => types::Error::Invalid(what),
            Error::TooLarge { max, .. } => return Self::quota("state-size", max),
            // Where it is, is the operator's to know, not the guest's.
            Error::Corrupt { what, .. } => types::Error::Corrupt(what),
            // The name that the file belongs to may be another agent's.
            Error::Misplaced { .. } => {
                types::Error::Corrupt("it is the file of another version".into())
            }
            Error::Unsupported { what, .. } => other("unsupported", what),
            Error::NoStore { .. } => types::Error::Unavailable("the host has no store".into()),
            Error::UnknownOutcome { version, .. } => types::Error::UnknownOutcome(version),
            Error::Storage(error) => from_storage(&error),
        })
    }
}

/// A guest never sees a path, a bucket or an account: so it gets the kind, and the operator the
/// rest.
fn from_storage(error: &storage::Error) -> types::Error {
    tracing::warn!(kind = ?error.kind(), "a guest's call failed in the storage");
    tracing::debug!(%error, "a guest's call failed in the storage");
    let unavailable = |what: &str| types::Error::Unavailable(what.into());
    match error.kind() {
        ErrorKind::Throttled => types::Error::Throttled(None),
        ErrorKind::Timeout => types::Error::Timeout,
        ErrorKind::NoSpace => unavailable("the host's storage is full"),
        ErrorKind::Denied => unavailable("the host may not use its storage"),
        ErrorKind::Unauthenticated => {
            unavailable("the host's storage does not accept its credentials")
        }
        ErrorKind::Config | ErrorKind::Unsupported => {
            unavailable("the host's storage is not set up right")
        }
        _ => unavailable("the host's storage cannot be reached or fails"),
    }
}

fn other(code: &str, message: String) -> types::Error {
    types::Error::Other(types::Failure {
        code: code.into(),
        message,
    })
}
