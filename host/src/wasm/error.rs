//! Errors of a call: a case of the contract, or a trap.

use wasmtime::component::ResourceTableError;

use crate::guest::GuestError;

/// An error of a guest's call.
#[derive(Debug)]
pub(super) enum CallError {
    /// The guest is told.
    Told(GuestError),
    /// The call ends the guest.
    Trap(wasmtime::Error),
}

impl From<GuestError> for CallError {
    fn from(error: GuestError) -> Self {
        Self::Told(error)
    }
}

impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::Told(GuestError::Other {
                code: "too-many-handles",
                message: "this guest holds as many handles as its host allows; drop some".into(),
            }),
            error => Self::Trap(error.into()),
        }
    }
}
