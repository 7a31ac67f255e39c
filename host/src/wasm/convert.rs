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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::snapshot::{SaveOptions, Store};
    use crate::storage::Memory;

    /// The engine copies a state once, between the guest's memory and a vector of the host. No
    /// other copy is on the way.
    #[tokio::test]
    async fn a_state_moves_between_guest_and_store_without_a_copy() {
        let from_guest = vec![7u8; 3 << 20];
        let at = from_guest.as_ptr();
        let state = Bytes::from(from_guest);
        assert_eq!(state.as_ptr(), at);

        let store = Store::new(Arc::new(Memory::new()));
        let scope = store.scope("bot", None).expect("a scope");
        let saved = scope.save("memory", state, SaveOptions::default()).await;
        saved.expect("saves");
        let loaded = scope.load("memory", None).await.expect("loads");
        let loaded = loaded.expect("is there");
        let at = loaded.state.as_ptr();
        let to_guest = types::Snapshot::from(loaded);
        assert_eq!(to_guest.state.as_ptr(), at);
        assert_eq!(to_guest.state.len(), 3 << 20);
    }
}
