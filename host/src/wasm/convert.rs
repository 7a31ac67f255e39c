//! Conversions between the types of [`guest`](crate::guest) and the generated ones.

use super::bindings::persist::snapshot::types;
use crate::guest::{GuestError, GuestLimits};
use crate::snapshot::{Expect, Info, SaveOptions, Snapshot};

impl From<GuestError> for types::Error {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Conflict { head } => Self::Conflict(head),
            GuestError::NotFound => Self::NotFound,
            GuestError::Denied { right } => Self::Denied(right.into()),
            GuestError::TooLarge { size } => Self::TooLarge(size),
            GuestError::QuotaExceeded { limit, max } => Self::QuotaExceeded(types::Quota {
                limit: limit.into(),
                max,
            }),
            GuestError::Invalid(what) => Self::Invalid(what),
            GuestError::Corrupt(what) => Self::Corrupt(what),
            GuestError::Throttled { retry_after_ms } => Self::Throttled(retry_after_ms),
            GuestError::Unavailable(what) => Self::Unavailable(what),
            GuestError::Timeout => Self::Timeout,
            GuestError::UnknownOutcome { version } => Self::UnknownOutcome(version),
            GuestError::Other { code, message } => Self::Other(types::Failure {
                code: code.into(),
                message,
            }),
        }
    }
}

impl From<GuestLimits> for types::GuestLimits {
    fn from(limits: GuestLimits) -> Self {
        Self {
            max_inline: limits.max_inline,
            max_chunk: limits.max_chunk,
            max_state: limits.max_state,
            max_name: limits.max_name,
            max_page: limits.max_page,
        }
    }
}

impl From<Info> for types::Info {
    fn from(info: Info) -> Self {
        Self {
            name: info.name,
            version: info.version,
            parent: info.parent,
            deleted: info.deleted,
            size: info.size,
            stored_size: info.stored_size,
            sha256: info.sha256,
            created_at: info.created_at,
            media_type: info.media_type,
            labels: info.labels,
        }
    }
}

impl From<Snapshot> for types::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            info: snapshot.info.into(),
            state: snapshot.state.into(),
        }
    }
}

impl From<types::Expect> for Expect {
    fn from(expect: types::Expect) -> Self {
        match expect {
            types::Expect::Any => Self::Any,
            types::Expect::Absent => Self::Absent,
            types::Expect::Version(version) => Self::Version(version),
        }
    }
}

impl From<types::SaveOptions> for SaveOptions {
    fn from(options: types::SaveOptions) -> Self {
        Self {
            expect: options.expect.into(),
            media_type: options.media_type,
            labels: options.labels,
        }
    }
}
