//! Errors of calls on buckets.

use crate::guest::GuestError;

/// An error of a call on a bucket, with the cases that interfaces for keys and values have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The host allows no bucket of this name.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The guest does not have the right that the call needs.
    #[error("access denied")]
    AccessDenied,
    /// Every other failure, as a text.
    #[error("{0}")]
    Other(String),
}

impl BucketError {
    pub(super) fn other(what: impl Into<String>) -> Self {
        Self::Other(what.into())
    }
}

impl From<GuestError> for BucketError {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Denied { .. } => Self::AccessDenied,
            error => Self::Other(error.to_string()),
        }
    }
}
