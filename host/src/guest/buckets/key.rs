//! Keys of a bucket as names of a scope.

use std::fmt::Write as _;

use super::BucketError;
use crate::snapshot::{MAX_ENCODED, Name};

/// Name of the empty key. No other key has it, because `%` is written with two digits.
const EMPTY: &str = "%";

/// Returns the name that stands for `key` in a bucket with this prefix.
///
/// A name is not empty and has no control characters. So the bytes of a control character, and the
/// character `%`, become `%` and two hex digits, and the empty key becomes `%` alone. No two keys
/// have one name.
pub(super) fn name_of(prefix: &str, key: &str) -> Result<String, BucketError> {
    // Before anything is allocated for it: the key is the guest's.
    if key.len() > MAX_ENCODED {
        return Err(too_long(prefix, key));
    }
    let mut name = prefix.to_owned();
    if key.is_empty() {
        name.push_str(EMPTY);
    }
    for c in key.chars() {
        if c == '%' || c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(name, "%{byte:02x}");
            }
        } else {
            name.push(c);
        }
    }
    match Name::new(name) {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err(too_long(prefix, key)),
    }
}

/// Returns the key that a name stands for, after the prefix; none if no key has this name, as where
/// a program saved it without a bucket.
pub(super) fn key_of(rest: &str) -> Option<String> {
    if rest == EMPTY {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(rest.len());
    let mut tail = rest.as_bytes();
    while let Some((&byte, more)) = tail.split_first() {
        tail = more;
        if byte == b'%' {
            let (digits, more) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            tail = more;
        } else {
            bytes.push(byte);
        }
    }
    let key = String::from_utf8(bytes).ok()?;
    // A name that another spelling of the digits or of a character made belongs to no key.
    let name = name_of("", &key).ok()?;
    (name == rest).then_some(key)
}

fn too_long(prefix: &str, key: &str) -> BucketError {
    let prefix = match prefix {
        "" => String::new(),
        prefix => format!(" with the bucket's prefix of {} bytes", prefix.len()),
    };
    BucketError::other(format!(
        "key too long: a key of {} bytes{prefix} is over the maximum of {MAX_ENCODED} encoded \
         bytes, where a byte other than a-z 0-9 . _ - counts as three",
        key.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_name_of_its_own_and_comes_back() {
        let keys = [
            "", "%", "%%", "%25", "a", "A", "a/b", ".", "..", "\0", "\n", "%0a", "\u{7f}",
            "\u{85}", "\u{c2}", "%c2%85", "100%", "ключ", " ", "a b",
        ];
        let names = keys.map(|key| name_of("p/", key).expect("a name"));
        for (i, name) in names.iter().enumerate() {
            let rest = name.strip_prefix("p/").expect("the prefix");
            assert_eq!(key_of(rest).as_deref(), Some(keys[i]));
            assert!(!names[..i].contains(name), "{name} stands for two keys");
        }
        assert_eq!(name_of("", "plain-key_1.txt"), Ok("plain-key_1.txt".into()));
        assert_eq!(name_of("", "50%\n"), Ok("50%25%0a".into()));
    }

    #[test]
    fn names_of_no_key_are_told_apart() {
        for name in ["50%", "%0A", "%61", "%zz", "%ff", "a%", "%%", "\u{85}%0"] {
            assert_eq!(key_of(name), None, "{name}");
        }
    }

    #[test]
    fn keys_that_are_too_long_get_an_error_with_the_maximum() {
        assert!(name_of("", &"k".repeat(MAX_ENCODED)).is_ok());
        assert!(name_of("", &"K".repeat(MAX_ENCODED / 3)).is_ok());
        for (prefix, key) in [
            ("", "k".repeat(MAX_ENCODED + 1)),
            ("p-", "k".repeat(MAX_ENCODED - 1)),
            ("", "K".repeat(MAX_ENCODED / 3 + 1)),
            ("", "k".repeat(1 << 20)),
        ] {
            let error = name_of(prefix, &key).expect_err("refused").to_string();
            assert!(error.contains("key too long"), "{error}");
            assert!(error.contains("200"), "{error}");
            assert_eq!(error.contains("prefix"), !prefix.is_empty(), "{error}");
        }
    }
}
