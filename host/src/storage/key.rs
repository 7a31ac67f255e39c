//! The key of an object: segments that are safe on every file system and in every URL.

use std::fmt;

use super::{Error, ErrorKind, Result};

/// Bytes of a bad key that its error shows: it may be of any length.
const MAX_SHOWN: usize = 300;

/// Longest segment in bytes: what every common file system takes, with room to spare.
const MAX_SEGMENT: usize = 240;

/// Key of an object: one or more segments, joined by `/`.
///
/// A segment is 1 to 240 bytes of `[A-Za-z0-9._~-]` and does not begin with a dot: so no key is
/// `..`, none is absolute, and nothing needs to be escaped, or decoded twice, anywhere below.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Takes `key` as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it breaks the rule above.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.split('/').all(is_segment) {
            Ok(Self(key))
        } else {
            Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is not a key: a key has segments of 1 to {MAX_SEGMENT} bytes of A-Z a-z \
                     0-9 . _ ~ - that do not start with a dot, joined by /",
                    shown(&key)
                ),
            ))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory ("" for the top) and the last segment.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bad key in quotes, cut off where it is long.
fn shown(key: &str) -> String {
    let end = key.floor_char_boundary(MAX_SHOWN);
    let more = if end < key.len() { "..." } else { "" };
    format!("{:?}{more}", &key[..end])
}

/// Returns true if `segment` can be one segment of a key.
pub(crate) fn is_segment(segment: &str) -> bool {
    (1..=MAX_SEGMENT).contains(&segment.len())
        && !segment.starts_with('.')
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_climb_or_be_absolute() {
        for bad in [
            "", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a\\b", "a\0b", "ä",
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
        let long = Key::new("../".repeat(1 << 20)).expect_err("bad");
        assert!(long.to_string().len() < 1000);
        assert_eq!(
            Key::new("a/~/b-1.gz").expect("good").split(),
            ("a/~", "b-1.gz")
        );
    }
}
