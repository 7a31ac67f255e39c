//! Errors of calls in the form of each dialect.

use super::bindings::{draft, draft2, spin};
use super::error::CallError;
use crate::guest::BucketError;

const FULL: &str = "too many handles: this guest holds as many as its host allows; drop some";

/// Converts the error of a call for the two dialects whose errors have the same cases.
macro_rules! convert {
    ($error:path) => {
        impl TryFrom<CallError> for $error {
            type Error = wasmtime::Error;

            fn try_from(error: CallError) -> wasmtime::Result<Self> {
                Ok(match error {
                    CallError::Told(BucketError::NoSuchBucket) => Self::NoSuchStore,
                    CallError::Told(BucketError::AccessDenied) => Self::AccessDenied,
                    CallError::Told(BucketError::Other(what)) => Self::Other(what),
                    CallError::Full => Self::Other(FULL.into()),
                    CallError::Trap(error) => return Err(error),
                })
            }
        }
    };
}

convert!(draft::wasi::keyvalue::store::Error);
convert!(draft2::wasi::keyvalue::store::Error);

impl TryFrom<CallError> for spin::fermyon::spin::key_value::Error {
    type Error = wasmtime::Error;

    fn try_from(error: CallError) -> wasmtime::Result<Self> {
        Ok(match error {
            CallError::Told(BucketError::NoSuchBucket) => Self::NoSuchStore,
            CallError::Told(BucketError::AccessDenied) => Self::AccessDenied,
            CallError::Told(BucketError::Other(what)) => Self::Other(what),
            CallError::Full => Self::StoreTableFull,
            CallError::Trap(error) => return Err(error),
        })
    }
}
