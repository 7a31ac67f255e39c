//! Why a snapshot call failed.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use crate::storage::{self, ErrorKind};
use crate::telemetry::Outcome;

use super::Version;

/// The result of a snapshot call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a snapshot call failed. After every case but [`Error::UnknownOutcome`], it has changed
/// nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Conflict: an expectation of the caller about the name does not hold.
    #[error(
        "conflict: {}",
        .head.map_or("nothing is saved under this name".into(), |head| format!("the newest \
            version is {head}"))
    )]
    Conflict {
        /// The newest version; none where nothing was saved.
        head: Option<Version>,
    },
    /// The name or version that this call needs was never saved, or was pruned.
    #[error("not found: {0}")]
    NotFound(String),
    /// An argument breaks a rule; which, and the rule.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The state is larger than allowed here.
    #[error("the state has {size} bytes, and the limit is {max} bytes")]
    TooLarge {
        /// Bytes of the state.
        size: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// Stored data that fails verification; nothing of it is returned.
    #[error("corrupt: {}{what}", place(.object.as_deref()))]
    Corrupt {
        /// Description of what was found.
        what: String,
        /// Place where it was found, for the operator.
        object: Option<String>,
    },
    /// The file of a version says that it was saved as another version, or under another name.
    #[error("misplaced: {}the file was saved as {saved_as}", place(.object.as_deref()))]
    Misplaced {
        /// The address that the file names, as `agent/session/name@version`.
        saved_as: String,
        /// Place where it was found, for the operator.
        object: Option<String>,
    },
    /// Stored data, or a storage location, that this build does not support.
    #[error("unsupported: {}{what}", place(.object.as_deref()))]
    Unsupported {
        /// Description of what is not supported.
        what: String,
        /// Place where it was found, for the operator.
        object: Option<String>,
        /// What to use instead.
        hint: Option<String>,
    },
    /// The change may have been made, as this version.
    #[error("the outcome is unknown: version {version} may have been saved ({why})")]
    UnknownOutcome {
        /// The version that may have been made.
        version: Version,
        /// Description of what happened.
        why: String,
    },
    /// Another host holds the lease of the agent or session.
    #[error(
        "{scope} is leased by {holder} until {}",
        humantime::format_rfc3339_seconds(*.expires)
    )]
    Leased {
        /// The agent, and its session.
        scope: String,
        /// The holder, as it names itself.
        holder: String,
        /// The moment from which the lease may be taken over unless it is renewed, by this host's
        /// clock.
        expires: SystemTime,
    },
    /// The lease under which a change was to be made has ended: another host took it over, or an
    /// operator broke it.
    #[error(
        "the lease of {scope} was lost{}",
        .holder.as_deref().map(|holder| format!(" to {holder}")).unwrap_or_default()
    )]
    LeaseLost {
        /// The agent, and its session.
        scope: String,
        /// The host or operator that has it now, where that is known.
        holder: Option<String>,
    },
    /// There is no store, and this process may not make one
    /// ([`StoreOptions::create`](super::StoreOptions::create)).
    #[error("no store in {location}")]
    NoStore {
        /// The storage, for the operator.
        location: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl Outcome for Error {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::Corrupt { .. } => "corrupt",
            Self::Misplaced { .. } => "misplaced",
            Self::Unsupported { .. } => "unsupported",
            Self::UnknownOutcome { .. } => "outcome_unknown",
            Self::Leased { .. } => "leased",
            Self::LeaseLost { .. } => "lease_lost",
            Self::NoStore { .. } => "no_store",
            Self::Storage(error) => error.outcome(),
        }
    }
}

/// Returns the beginning of a message about an object.
fn place(object: Option<&str>) -> String {
    object
        .map(|object| format!("{object}: "))
        .unwrap_or_default()
}

impl Error {
    /// Returns what to do about the error, for a person.
    ///
    /// ```
    /// use persist_host::snapshot::Error;
    ///
    /// let error = Error::Conflict { head: Some(7) };
    /// assert_eq!(error.to_string(), "conflict: the newest version is 7");
    /// assert_eq!(error.hint().as_deref(), Some("load the newest version and try again"));
    /// ```
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Conflict { .. } => "load the newest version and try again",
            Self::NotFound(_) => "run `persist ls` to list names",
            Self::TooLarge { .. } => "use a writer or reader, or raise the limit",
            Self::Corrupt { .. } => "restore an older version, or a backup",
            Self::Misplaced { saved_as, .. } => {
                return Some(
                    format!(
                        "move the file to the key of {saved_as}, or adopt it with \
                         `persist repair`"
                    )
                    .into(),
                );
            }
            Self::UnknownOutcome { .. } => "load the newest version before trying again",
            Self::Leased { .. } => {
                "wait for the other host, or end its lease with `persist leases break`"
            }
            Self::LeaseLost { .. } => "run again: load the newest version, and work on that",
            Self::NoStore { .. } => {
                "create a store with `persist init`, or correct the storage setting"
            }
            Self::Storage(error) => return error.hint().map(Cow::from),
            Self::Unsupported { hint, .. } => return hint.as_deref().map(Cow::from),
            Self::Invalid(_) => return None,
        };
        Some(hint.into())
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            object: None,
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            object: None,
            hint: None,
        }
    }

    /// Returns the error with a hint, if it is [`Error::Unsupported`].
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Unsupported { what, object, .. } => Self::Unsupported {
                what,
                object,
                hint: Some(hint.into()),
            },
            error => error,
        }
    }

    /// Says where it was found, where that is not known yet. The place is the operator's to know,
    /// and stays out of what a guest is told.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        let place = || Some(place.to_string());
        match self {
            Self::Corrupt { what, object } => Self::Corrupt {
                what,
                object: object.or_else(place),
            },
            Self::Unsupported { what, object, hint } => Self::Unsupported {
                what,
                object: object.or_else(place),
                hint,
            },
            Self::Misplaced { saved_as, object } => Self::Misplaced {
                saved_as,
                object: object.or_else(place),
            },
            error => error,
        }
    }

    /// Returns true where the file of one version is at fault, and the storage that holds it works.
    pub fn is_of_file(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. } | Self::Misplaced { .. } | Self::Unsupported { .. }
        )
    }

    /// Returns true if the storage says that nothing is there.
    pub(crate) fn is_missing_object(&self) -> bool {
        matches!(self, Self::Storage(error) if error.kind() == ErrorKind::NotFound)
    }
}
