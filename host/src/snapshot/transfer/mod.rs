//! Stored versions as files: reading them byte for byte, and copying them to other stores.

mod raw_copy;

pub use raw_copy::{CopyOptions, CopyOutcome, RawVersion};
