//! Errors that a guest is told.

use crate::snapshot::{Error, Version};
use crate::storage::{self, ErrorKind};
use crate::telemetry::Outcome;

/// An error of a guest's call. The cases are those of `error` in `persist:snapshot/types`, which
/// is frozen, so that bindings can match all of them.
///
/// The texts are for the guest: they name no path, bucket, account or other scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The expectation does not hold.
    #[error("conflict: the newest version is {head:?}")]
    Conflict {
        /// The newest version; none where nothing was saved.
        head: Option<Version>,
    },
    /// The name or version that this call needs was never saved, or was pruned.
    #[error("not found")]
    NotFound,
    /// The guest does not have the right that the call needs.
    #[error("denied: the right `{right}` is missing")]
    Denied {
        /// The missing right: `load`, `save`, `list` or `delete`.
        right: &'static str,
    },
    /// The state is larger than one `save` or `load` may pass.
    #[error("too large: {size} bytes; use a reader or a writer")]
    TooLarge {
        /// Bytes of the state.
        size: u64,
    },
    /// A limit of the guest was reached.
    #[error("quota exceeded: the limit `{limit}` is {max}")]
    QuotaExceeded {
        /// The limit's name in [`Limits`](super::Limits).
        limit: &'static str,
        /// The limit's value.
        max: u64,
    },
    /// An argument breaks a rule, which the text names.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Stored data fails verification. The text says what was found.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The guest must try again later.
    #[error("throttled")]
    Throttled {
        /// Milliseconds to wait, if known.
        retry_after_ms: Option<u64>,
    },
    /// The storage cannot be reached or refuses the host. The text is for the operator.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The host's time for the call ran out.
    #[error("timeout")]
    Timeout,
    /// The change may have been made.
    #[error("unknown outcome: version {version} may have been made")]
    UnknownOutcome {
        /// The version that may exist.
        version: Version,
    },
    /// A failure without a case of its own.
    #[error("{code}: {message}")]
    Other {
        /// A stable kebab-case code.
        code: &'static str,
        /// A description for people.
        message: String,
    },
}

impl GuestError {
    pub(super) fn quota(limit: &'static str, max: u64) -> Self {
        Self::QuotaExceeded { limit, max }
    }

    pub(super) fn invalid(what: &str) -> Self {
        Self::Invalid(what.into())
    }

    /// Returns the error for a used-up resource that all guests share; this guest did nothing
    /// wrong.
    pub(super) fn later() -> Self {
        Self::Throttled {
            retry_after_ms: Some(1000),
        }
    }
}

impl Outcome for GuestError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::NotFound => "not_found",
            Self::Denied { .. } => "denied",
            Self::TooLarge { .. } => "too_large",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::Invalid(_) => "invalid",
            Self::Corrupt(_) => "corrupt",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout => "timeout",
            Self::UnknownOutcome { .. } => "outcome_unknown",
            Self::Other { .. } => "other",
        }
    }
}

impl From<Error> for GuestError {
    fn from(error: Error) -> Self {
        match error {
            Error::Conflict { head } => Self::Conflict { head },
            Error::NotFound(_) => Self::NotFound,
            Error::Invalid(what) => Self::Invalid(what),
            Error::TooLarge { max, .. } => Self::quota("state-size", max),
            // The location is for the operator, not for the guest.
            Error::Corrupt { what, .. } => Self::Corrupt(what),
            // The name that the file belongs to may be another agent's.
            Error::Misplaced { .. } => Self::Corrupt("it is the file of another version".into()),
            Error::Unsupported { what, .. } => Self::Other {
                code: "unsupported",
                message: what,
            },
            // The names of hosts are for the operator.
            Error::Leased { .. } => Self::Unavailable("another host works on this agent".into()),
            Error::LeaseLost { .. } => Self::Other {
                code: "lease-lost",
                message: "another host works on this agent now".into(),
            },
            Error::NoStore { .. } => Self::Unavailable("the host has no store".into()),
            Error::UnknownOutcome { version, .. } => Self::UnknownOutcome { version },
            Error::Storage(error) => from_storage(&error),
        }
    }
}

/// Converts an error of the storage. A guest never sees a path, a bucket or an account: it gets
/// the kind, and the log has the rest for the operator.
fn from_storage(error: &storage::Error) -> GuestError {
    tracing::warn!(kind = ?error.kind(), "a guest's call failed in the storage");
    tracing::debug!(%error, "a guest's call failed in the storage");
    let unavailable = |what: &str| GuestError::Unavailable(what.into());
    match error.kind() {
        ErrorKind::Throttled => GuestError::Throttled {
            retry_after_ms: None,
        },
        ErrorKind::Timeout => GuestError::Timeout,
        ErrorKind::NoSpace => unavailable("the host's storage is full"),
        ErrorKind::Denied | ErrorKind::Retained => unavailable("the host may not use its storage"),
        ErrorKind::Unauthenticated => {
            unavailable("the host's storage does not accept its credentials")
        }
        ErrorKind::Config | ErrorKind::Unsupported => {
            unavailable("the host's storage is not set up right")
        }
        _ => unavailable("the host's storage cannot be reached or fails"),
    }
}
