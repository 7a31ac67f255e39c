//! Why a call failed: one case for each of the contract's, and one for what is no JSON of the
//! agent's, with a message that says what to do.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::Version;

/// Why a call failed. After any case but [`UnknownOutcome`](Error::UnknownOutcome) the call has
/// changed nothing.
///
/// [`Reader`](crate::Reader) and [`Writer`](crate::Writer) return it inside [`io::Error`]; `?`
/// converts either way and loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The expectation does not hold. The head, or `None` where nothing was saved.
    Conflict(Option<Version>),
    /// The name or version that the call needs was never saved, or was pruned.
    NotFound,
    /// The right that is missing: `load`, `save`, `list` or `delete`.
    Denied(String),
    /// The state has this many bytes, more than [`Limits::max_inline`](crate::Limits::max_inline).
    TooLarge(u64),
    /// A limit of this agent was met.
    QuotaExceeded {
        /// Its stable kebab-case name, for example `versions-at-rest`.
        limit: String,
        /// Its value.
        max: u64,
    },
    /// An argument breaks a rule; which, and the rule.
    Invalid(String),
    /// Stored data that fails verification, and of which nothing is returned. Contains a
    /// description of what was found.
    Corrupt(String),
    /// Storage wants to be asked later; after how long, if known.
    Throttled(Option<Duration>),
    /// Storage cannot be reached or refuses the host; what to tell the operator.
    Unavailable(String),
    /// The host's time for the call ran out.
    Timeout,
    /// The change may have been made, as this version.
    UnknownOutcome(Version),
    /// A version was loaded and verified, and its state is not the type that [`json`](crate::json)
    /// was asked for. It was left as it is.
    #[cfg(feature = "serde")]
    Unreadable {
        /// The name that was loaded.
        name: String,
        /// The version that was loaded.
        version: Version,
        /// Place where the state differs from the type, for people.
        why: String,
    },
    /// Anything else.
    Other {
        /// Stable and kebab-case: match on this.
        code: String,
        /// For people, never for matching.
        message: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(Some(head)) => {
                write!(
                    f,
                    "conflict: the newest version is {head}, not what this change expects; \
                     load it and decide again"
                )
            }
            Self::Conflict(None) => f.write_str(
                "conflict: this change expects a version, and nothing is saved under the name",
            ),
            Self::NotFound => {
                f.write_str("not found: never saved, or pruned; the history lists what there is")
            }
            Self::Denied(right) => write!(
                f,
                "denied: this agent has no right to {right}; the operator can grant it"
            ),
            Self::TooLarge(size) => {
                write!(
                    f,
                    "too large: the state has {size} bytes, more than one call carries; \
                     save it with Writer, load it with Reader"
                )
            }
            Self::QuotaExceeded { limit, max } => {
                write!(
                    f,
                    "quota exceeded: {limit} is limited to {max}; \
                     use less, or ask the operator for more"
                )
            }
            Self::Invalid(rule) => write!(f, "invalid argument: {rule}"),
            Self::Corrupt(found) => {
                write!(
                    f,
                    "corrupt: what is stored fails verification ({found}); \
                     an earlier version may be whole"
                )
            }
            Self::Throttled(Some(wait)) => {
                write!(f, "throttled: try again in {} ms", wait.as_millis())
            }
            Self::Throttled(None) => f.write_str("throttled: try again later"),
            Self::Unavailable(reason) => {
                write!(f, "storage is unavailable, tell the operator: {reason}")
            }
            Self::Timeout => f.write_str(
                "timeout: the host's time for the call ran out and nothing was changed; try again",
            ),
            Self::UnknownOutcome(version) => {
                write!(
                    f,
                    "unknown outcome: it may have been saved as version {version}; \
                     stat that and compare before trying again"
                )
            }
            #[cfg(feature = "serde")]
            Self::Unreadable { name, version, why } => {
                write!(
                    f,
                    "unreadable: version {version} of {name} is not what this agent reads ({why}); \
                     it is left as it is, and an earlier version may be readable"
                )
            }
            Self::Other { code, message } => write!(f, "{message} ({code})"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::NotFound => io::ErrorKind::NotFound,
            Error::Denied(_) => io::ErrorKind::PermissionDenied,
            Error::TooLarge(_) => io::ErrorKind::FileTooLarge,
            Error::QuotaExceeded { .. } => io::ErrorKind::QuotaExceeded,
            Error::Invalid(_) => io::ErrorKind::InvalidInput,
            Error::Corrupt(_) => io::ErrorKind::InvalidData,
            #[cfg(feature = "serde")]
            Error::Unreadable { .. } => io::ErrorKind::InvalidData,
            Error::Timeout => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The error that a [`Reader`](crate::Reader) or [`Writer`](crate::Writer) wrapped; an I/O error
/// from elsewhere becomes [`Error::Other`] with the code `io`.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|error| Self::Other {
            code: "io".into(),
            message: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a cause, as the crate anyhow shows it.
    struct Chain;

    impl fmt::Display for Chain {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if f.alternate() {
                "outer: inner"
            } else {
                "outer"
            })
        }
    }

    #[test]
    fn the_caller_gets_the_whole_chain_of_causes() {
        assert_eq!(crate::__reason(&Chain), "outer: inner");
    }

    #[test]
    fn an_error_survives_the_way_through_io() {
        let error = Error::QuotaExceeded {
            limit: "open-writers".into(),
            max: 8,
        };
        assert_eq!(Error::from(io::Error::from(error.clone())), error);
    }

    #[test]
    fn an_io_error_from_elsewhere_keeps_its_message() {
        let error = Error::from(io::Error::other("the pipe is gone"));
        assert_eq!(
            error,
            Error::Other {
                code: "io".into(),
                message: "the pipe is gone".into()
            }
        );
    }
}
