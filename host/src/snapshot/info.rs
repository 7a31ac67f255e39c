//! Information about a version, and options for saving one.

use bytes::Bytes;
use serde::Serialize;

use super::{Error, Result, Version};

/// Labels and media type together, in bytes, at most.
pub const MAX_LABEL_BYTES: usize = 8 * 1024;

/// Label keys that begin so are the host's.
pub(crate) const HOST_LABEL: &str = "persist.";

/// Information about one version that is known without reading its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// The name as it was written.
    pub name: String,
    /// This version.
    pub version: Version,
    /// The version that was newest when this one was made; none for the first.
    pub parent: Option<Version>,
    /// True for a tombstone: the name was deleted here.
    pub deleted: bool,
    /// Bytes of state.
    pub size: u64,
    /// Bytes at rest: compressed, trailer included.
    pub stored_size: u64,
    /// SHA-256 of the state, 64 lower-case hex digits.
    pub sha256: String,
    /// The saving host's clock, milliseconds since 1970 UTC. `version` is the order. A version is
    /// pruned by age only where this time allows it, too.
    pub created_at: u64,
    /// Media type, as given when saved.
    pub media_type: Option<String>,
    /// Labels, as given when saved, and the host's own under `persist.`.
    pub labels: Vec<(String, String)>,
}

/// One version with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Information about the version.
    pub info: Info,
    /// The state, bit for bit as it was saved.
    pub state: Bytes,
}

/// Condition that a name must meet for a change to be made: compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect {
    /// Anything.
    #[default]
    Any,
    /// Nothing was saved, or the newest version is a tombstone.
    Absent,
    /// Nothing was ever saved. A tombstone does not count as nothing, so that a name that was saved
    /// and deleted is a conflict.
    NeverSaved,
    /// This version is the newest. A tombstone counts.
    Version(Version),
}

/// How to save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveOptions {
    /// Condition that the name must meet.
    pub expect: Expect,
    /// Kept in [`Info`], never interpreted.
    pub media_type: Option<String>,
    /// Kept in [`Info`]. Keys are unique; those under `persist.` are the host's.
    pub labels: Vec<(String, String)>,
}

impl SaveOptions {
    /// Saves only where the name meets a condition.
    ///
    /// ```
    /// use persist_host::snapshot::{Expect, SaveOptions};
    ///
    /// let options = SaveOptions::expecting(Expect::Version(3))
    ///     .with_media_type("application/json")
    ///     .with_label("turn", "4");
    /// assert_eq!(options.labels, [("turn".into(), "4".into())]);
    /// ```
    pub fn expecting(expect: Expect) -> Self {
        Self {
            expect,
            ..Self::default()
        }
    }

    /// Adds a media type.
    #[must_use]
    pub fn with_media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = Some(media_type.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// Returns the bytes of the labels and the media type together.
    pub(crate) fn label_bytes(&self) -> usize {
        let texts = self.labels.iter().flat_map(|(key, value)| [key, value]);
        texts.chain(&self.media_type).map(String::len).sum()
    }

    /// Refuses what cannot be kept.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_with(self.label_bytes())
    }

    /// Refuses what cannot be kept. `bytes` is [`SaveOptions::label_bytes`].
    pub(crate) fn check_with(&self, bytes: usize) -> Result<()> {
        if bytes > MAX_LABEL_BYTES {
            return Err(Error::Invalid(format!(
                "labels and media type have {bytes} bytes; the maximum is {MAX_LABEL_BYTES}"
            )));
        }
        let mut keys: Vec<_> = self.labels.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if keys.first().is_some_and(|key| key.is_empty()) {
            return Err(Error::Invalid("a label key is empty".into()));
        }
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("the label key {:?} is given twice", twice[0]);
            return Err(Error::Invalid(what));
        }
        match keys.iter().find(|key| key.starts_with(HOST_LABEL)) {
            Some(key) => Err(Error::Invalid(format!(
                "the label key {key:?} is not known to this host: keys that start with \
                 {HOST_LABEL} are reserved"
            ))),
            None => Ok(()),
        }
    }
}
