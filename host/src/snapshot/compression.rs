//! Compression of states.

use std::fmt;
use std::str::FromStr;

use super::{Error, Result};

/// Compression of the states that a process saves: a choice between time and space. All of them
/// write the same file format, which every build reads.
///
/// ```
/// use persist_host::snapshot::{Compression, StoreOptions};
///
/// let mut options = StoreOptions::default();
/// options.compression = "fast".parse()?;
/// assert_eq!(options.compression, Compression::Fast);
/// # Ok::<(), persist_host::snapshot::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// States are stored as they are, in a gzip file that is a little larger than the state. For
    /// states that are compressed or encrypted already.
    None,
    /// Deflate level 1: the least time of a processor.
    Fast,
    /// Deflate level 6: the size that gzip gives.
    #[default]
    Default,
    /// Deflate level 8: smaller for most states, and slower. Level 9 of zlib-rs makes JSON larger.
    Best,
}

impl Compression {
    /// All of them, the fastest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Fast, Self::Default, Self::Best];

    /// Returns the word that settings have for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Fast => "fast",
            Self::Default => "default",
            Self::Best => "best",
        }
    }

    /// Returns the level of deflate; none where states are not compressed.
    pub(crate) const fn level(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Fast => Some(1),
            Self::Default => Some(6),
            Self::Best => Some(8),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Parses `none`, `fast`, `default` or `best`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other text.
    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| {
            let what = "not a compression: write none, fast, default or best";
            Error::Invalid(what.into())
        })
    }
}
