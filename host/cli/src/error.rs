//! Errors of the command itself. `exit` gives each its exit code.

use std::borrow::Cow;

use persist_host::snapshot::Severity;

use crate::text::count;

/// The command line or a setting is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Usage {
    what: String,
    pub(crate) hint: Option<String>,
}

impl Usage {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        Self { what, hint: None }
    }

    /// Returns the error with a hint.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An error with a hint of its own.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}")]
pub(crate) struct Hinted {
    pub(crate) error: anyhow::Error,
    pub(crate) hint: String,
}

impl Hinted {
    /// Returns an error with a hint, which ends the command with code 1.
    pub(crate) fn other(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            error: anyhow::Error::msg(what.into()),
            hint: hint.into(),
        }
    }
}

/// An end with this code, for this reason.
#[derive(Debug, thiserror::Error)]
#[error("{1}")]
pub(crate) struct Code(pub(crate) u8, pub(crate) Cow<'static, str>);

/// A signal asked the process to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {left}")]
pub(crate) struct Interrupted {
    /// State that the command leaves behind.
    pub(crate) left: &'static str,
    pub(crate) hint: Option<&'static str>,
}

/// A check found something; each finding was printed when it was met.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Found {
    /// The worst of the findings.
    pub(crate) severity: Severity,
    pub(crate) what: String,
}

/// Something that was listed could not be read; each was reported when it was met.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read", count(*.0 as u64, "version"))]
pub(crate) struct Damaged(pub(crate) usize);

impl Damaged {
    /// An error unless nothing is damaged.
    pub(crate) fn none_of(damaged: usize) -> anyhow::Result<()> {
        match damaged {
            0 => Ok(()),
            damaged => Err(Self(damaged).into()),
        }
    }
}

/// Versions that the destination has of its own.
#[derive(Debug, thiserror::Error)]
#[error(
    "conflict: the destination has {} that the source does not have, with the same number or a \
     newer one",
    count(*.0 as u64, "version")
)]
pub(crate) struct Conflicts(pub(crate) usize);
