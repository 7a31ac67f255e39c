//! Version numbers.

/// The version of a name: 1 for its first save, one more for every later change.
pub type Version = u64;

/// The highest version there can be.
pub const MAX_VERSION: Version = 9_999_999_999;
