//! Names of agents, sessions and snapshots, and the segments of keys that they become.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, Result};

/// Longest name, in bytes after encoding.
pub const MAX_ENCODED: usize = 200;

/// The name of an agent, a session or a snapshot.
///
/// Any UTF-8 without control characters is a name; `/`, `.` and `..` mean nothing special, and two
/// names are the same only if their bytes are. In a key, `a-z 0-9 . _ -` stand for themselves,
/// except a dot in front; every other byte is `~` and two hex digits. So no two names meet on any
/// file system, however it treats case or Unicode, and nothing needs to be decoded twice.
///
/// ```
/// use persist_host::snapshot::Name;
///
/// let name = Name::new("Notes/2026")?;
/// assert_eq!(name.encoded(), "~4eotes~2f2026");
/// assert!(Name::new("").is_err());
/// # Ok::<(), persist_host::snapshot::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    text: String,
    encoded: String,
}

impl Name {
    /// Takes a name as a person or a guest wrote it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is empty, holds control characters, or is longer than 200 bytes
    /// once encoded.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() {
            return Err(Error::Invalid(
                "a name is empty; the minimum is one byte".into(),
            ));
        }
        // Before anything is allocated for it: the text may be a guest's.
        if text.len() > MAX_ENCODED {
            return Err(too_long(text.len()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(Error::Invalid(format!(
                "a name contains the control character U+{:04X}",
                u32::from(c)
            )));
        }
        let encoded = encode(&text);
        if encoded.len() > MAX_ENCODED {
            return Err(too_long(encoded.len()));
        }
        Ok(Self { text, encoded })
    }

    /// The name in place of an agent's, for what belongs to the store itself. No other name is
    /// encoded so.
    pub(super) fn reserved() -> Self {
        Self {
            text: "~".into(),
            encoded: "~".into(),
        }
    }

    /// The name that an encoded segment stands for; none where no name is encoded so.
    pub(crate) fn from_encoded(encoded: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte == b'~' {
                let (digits, tail) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            } else {
                bytes.push(byte);
            }
        }
        // One name has one encoding: what does not come back the same was made by something else.
        Self::new(String::from_utf8(bytes).ok()?)
            .ok()
            .filter(|name| name.encoded == encoded)
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name as a segment of a key.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// As its text.
impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Encodes a name, or the beginning of one.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(byte.into()),
            b'.' if at > 0 => encoded.push('.'),
            byte => write!(encoded, "~{byte:02x}").expect("writing to a string"),
        }
    }
    encoded
}

fn too_long(len: usize) -> Error {
    Error::Invalid(format!(
        "a name is {len} bytes long; at most {MAX_ENCODED} are allowed, and every byte except a-z \
         0-9 . _ - counts as three"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_converts_from_and_to_text_and_json() {
        let name: Name = "Notes/2026".parse().expect("a name");
        assert_eq!(Name::try_from("Notes/2026").expect("a name"), name);
        assert_eq!(name.as_ref(), "Notes/2026");
        let json = serde_json::to_string(&name).expect("text");
        assert_eq!(json, "\"Notes/2026\"");
        assert_eq!(serde_json::from_str::<Name>(&json).expect("a name"), name);
        assert!(serde_json::from_str::<Name>("\"a\\u0000\"").is_err());
        assert!("".parse::<Name>().is_err());
    }

    #[test]
    fn names_that_look_like_paths_stay_names() {
        for (text, encoded) in [
            ("..", "~2e."),
            (".", "~2e"),
            ("/etc/passwd", "~2fetc~2fpasswd"),
            ("~", "~7e"),
            ("A", "~41"),
            ("é", "~c3~a9"),
            ("e\u{301}", "e~cc~81"),
            ("a b", "a~20b"),
        ] {
            let name = Name::new(text).expect(text);
            assert_eq!(name.encoded(), encoded);
            assert_eq!(Name::from_encoded(encoded), Some(name));
        }
    }

    #[test]
    fn a_name_that_cannot_be_kept_is_refused() {
        let long = "a".repeat(MAX_ENCODED + 1);
        let long_encoded = "A".repeat(MAX_ENCODED / 3 + 1);
        for bad in [
            "",
            "a\0b",
            "a\nb",
            "\u{85}",
            long.as_str(),
            long_encoded.as_str(),
        ] {
            assert!(matches!(Name::new(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(Name::new("a".repeat(MAX_ENCODED)).is_ok());
    }

    #[test]
    fn a_segment_that_is_not_encoded_is_no_name() {
        for bad in [
            "", "A", "~4E", "~61", "~", "~6", "~zz", ".a", "~ff", "a/b", "~00", "~+1",
        ] {
            assert_eq!(Name::from_encoded(bad), None, "{bad}");
        }
    }
}
