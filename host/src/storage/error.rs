//! Errors that a storage backend reports when it cannot do what it was asked.
//!
//! Rules:
//! - The kind decides; the text is for people. No caller looks into the text.
//! - A backend picks the kind where it still sees the cause (an errno, a status code), never later.
//! - A change whose outcome is not known MUST be [`ErrorKind::OutcomeUnknown`] or
//!   [`ErrorKind::NotDurable`]. Every other kind of a change says: it was not made.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::secret::redact;

/// The result of a storage call.
pub type Result<T> = std::result::Result<T, Error>;

/// Kind of an error, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object is at this key.
    NotFound,
    /// An object is at this key already; it was not touched.
    AlreadyExists,
    /// The storage knows who we are and refuses.
    Denied,
    /// The storage keeps the object for now: a retention policy or a hold forbids to delete it.
    Retained,
    /// No credentials, or none that the storage accepts.
    Unauthenticated,
    /// Too many requests; the same call may succeed later.
    Throttled,
    /// The time for the call ran out, and it changes nothing.
    Timeout,
    /// The disk, quota or bucket is full.
    NoSpace,
    /// The storage cannot be reached or fails.
    Unavailable,
    /// The storage cannot do this: no links, not a regular file, conditions ignored.
    Unsupported,
    /// The configuration cannot work: an unknown URL, a missing backend.
    Config,
    /// A change was sent and no answer came back: it may have been made, or be made later. Only
    /// looking can tell, and absence proves nothing.
    OutcomeUnknown,
    /// The change was made and is visible, and may be gone after a power failure.
    NotDurable,
}

/// A storage call that failed: what was tried, why it failed, and what to do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` says what failed, such as "cannot read PATH".
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            hint: None,
            source: None,
        }
    }

    /// Returns the error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the error with a hint, for cases where something better can be done than the hint of
    /// its kind says.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the error with a hint if it has none yet.
    #[cfg(feature = "bucket")]
    pub(crate) fn with_hint_unless(mut self, hint: String) -> Self {
        self.hint.get_or_insert(hint);
        self
    }

    /// Returns the error, with its cause, as that of a change that was sent and may have been made.
    #[cfg(feature = "bucket")]
    pub(crate) fn unanswered(mut self) -> Self {
        self.kind = ErrorKind::OutcomeUnknown;
        self.hint = None;
        self
    }

    /// Returns the error as that of a probe of whether the storage can be used: nothing that the
    /// caller asked for was sent yet.
    pub(crate) fn of_a_trial(mut self) -> Self {
        if matches!(self.kind, ErrorKind::OutcomeUnknown | ErrorKind::NotDurable) {
            self.kind = ErrorKind::Unavailable;
            let hint = self.hint.take();
            let hint = hint.unwrap_or("check that the storage exists and is available".into());
            self.hint = Some(format!("nothing was saved; {hint}"));
        }
        self
    }

    /// Returns the error with `what` in front of its message.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }

    /// An I/O error of a call that changed nothing.
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::new(kind_of(&error), what).with_source(error)
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what to do about the error, for a person.
    pub fn hint(&self) -> Option<&str> {
        if self.hint.is_some() {
            return self.hint.as_deref();
        }
        match self.kind {
            ErrorKind::NotFound | ErrorKind::Config => None,
            ErrorKind::AlreadyExists => Some("load the version of the other writer and try again"),
            ErrorKind::Denied => Some("check the permissions of the account that runs this"),
            ErrorKind::Retained => Some("it can be removed after the retention ends"),
            ErrorKind::Unauthenticated => Some("check the credentials"),
            ErrorKind::Throttled => Some("try again later"),
            ErrorKind::Timeout => Some("try again, or raise the time limit"),
            ErrorKind::NoSpace => Some("free some space; older versions are unchanged"),
            ErrorKind::Unavailable => Some("check that the storage exists and is available"),
            ErrorKind::Unsupported => Some("use another location for this store"),
            ErrorKind::OutcomeUnknown => Some("load the newest version before trying again"),
            ErrorKind::NotDurable => Some("check the disk before relying on this version"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.what.clone();
        if let Some(source) = &self.source {
            text += &format!(": {source}");
        }
        // Settings were checked before they came here; servers and libraries may repeat anything.
        f.write_str(&redact(&text))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The source is in the message already; a reporter that walks the chain goes on below it.
        self.source.as_deref().and_then(StdError::source)
    }
}

/// The kind for an I/O error of a call that changed nothing.
pub(crate) fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::TooManyLinks => ErrorKind::NoSpace,
        io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices => ErrorKind::Unsupported,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}
