//! Names of buckets, and prefixes of keys.

use super::key::is_segment;
use super::secret::redact;
use super::{Error, ErrorKind, Result};

/// Refuses what cannot be the name of a bucket, or would change the URL that it stands in.
pub(super) fn check_bucket(bucket: &str) -> Result<()> {
    check_bucket_of(bucket, 63)
}

/// Checks the name of a Google bucket. These names are longer than Amazon's where they are domains.
pub(super) fn check_gcs_bucket(bucket: &str) -> Result<()> {
    check_bucket_of(bucket, 222)
}

fn check_bucket_of(bucket: &str, longest: usize) -> Result<()> {
    let plain = bucket
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let first = bucket.as_bytes().first();
    let last = bucket.as_bytes().last();
    if plain && (3..=longest).contains(&bucket.len()) && ends(first) && ends(last) {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "{:?} is not the name of a bucket: a name has 3 to {longest} letters, digits, \
                 dots, hyphens and underscores, and a letter or digit at both ends",
                redact(bucket)
            ),
        ))
    }
}

/// Longest prefix in bytes: S3 and GCS take keys of 1024, and the rest is for what is under it.
const MAX_PREFIX: usize = 300;

/// A prefix without slashes at its ends; none where nothing is left.
pub(super) fn check_prefix(prefix: &str) -> Result<Option<String>> {
    let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
    match trimmed {
        "" if prefix.is_empty() => Ok(None),
        trimmed if trimmed.len() <= MAX_PREFIX && trimmed.split('/').all(is_segment) => {
            Ok(Some(trimmed.into()))
        }
        _ => Err(Error::new(
            ErrorKind::Config,
            format!(
                "{:?} is not a prefix: a prefix has segments of A-Z a-z 0-9 . _ ~ - that do not \
                 start with a dot, joined by /, and at most {MAX_PREFIX} bytes",
                redact(prefix)
            ),
        )),
    }
}
