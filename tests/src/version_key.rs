//! Keys of versions, written from `docs/src/file-format.md` and not with the code that is tested.
//! The crate of the crash tests includes this file, too.

/// Returns the last segment of the key of a version: the highest version minus this one, so that a
/// list begins with the newest, and the version.
pub fn version_file(version: u64) -> String {
    const HIGHEST: u64 = 9_999_999_999;
    format!("{:010}-{version:010}.gz", HIGHEST.saturating_sub(version))
}
