//! Creates an object in one request, and verifies an acknowledgement that is not certain.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::driver::{Driver, Mode, Request, Stored};
use super::range::{GetResponse, ObjectRange};
use super::shared::Bucket;
use super::tail::Tail;
use crate::storage::{Error, ErrorKind, Key, ReadRange, Result};

impl<D: Driver> Bucket<D> {
    /// Makes an object in one request.
    pub(super) async fn put(&self, key: &Key, body: Bytes, mode: Mode) -> Result<()> {
        let full = &self.full(key);
        let put = || self.driver().put(full, body.clone(), mode);
        let mut tries = self.begin(Request::Put, full, body.len());
        let stored = loop {
            match self.attempt(&mut tries, put()).await {
                Ok(stored) => break stored,
                Err(fault) => {
                    let is_limited = D::LIMITS_WRITES
                        && mode == Mode::Create
                        && fault.error.kind() == ErrorKind::Throttled;
                    tries.again(fault).await?;
                    // Writers of one key take turns, a second each. Reads do not.
                    if is_limited && self.exists(full).await {
                        let what = "another writer created the object first";
                        return Err(Error::new(ErrorKind::AlreadyExists, what));
                    }
                }
            }
        };
        let unclear = tries.is_unclear();
        let look = unclear && mode == Mode::Create;
        self.stored(key, stored, look, &Tail::of(&body)).await
    }

    /// Returns true if an object is known to exist.
    async fn exists(&self, full: &str) -> bool {
        let range = ObjectRange::Span(0..1);
        let look = || self.driver().get(full, &range, None);
        let found = self.call(Request::Get, full, 0, look).await;
        matches!(found, Ok(GetResponse::Bytes(..) | GetResponse::Beyond(_)))
    }

    /// Looks at an object whose creation was acknowledged only after an attempt without an answer.
    ///
    /// That attempt may have been refused, since another writer was first, and a server may
    /// acknowledge what is sent once more without looking again. The end of the object tells: that
    /// of a version holds a nonce.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where it is another writer's; [`ErrorKind::OutcomeUnknown`]
    /// where it cannot be read.
    async fn confirm(&self, key: &Key, tail: &Tail) -> Result<()> {
        let start = tail.len() - tail.bytes().len() as u64;
        let end = ReadRange::Bounded(start..tail.len());
        match self.read_range(self.full(key), end).await {
            Ok(part) if part.size == tail.len() && part.bytes == tail.bytes() => Ok(()),
            Ok(_) => {
                let what = "the object was acknowledged after an attempt without a response, and \
                            belongs to another writer";
                Err(Error::new(ErrorKind::AlreadyExists, what))
            }
            Err(error) => Err(error
                .about("the object was acknowledged after an attempt without a response; then")
                .unanswered()),
        }
    }

    /// Some servers take the request for encryption and ignore it. Others say nothing when an
    /// object is made, as SeaweedFS of one that comes in parts, and tell of its encryption when it
    /// is read: so that is looked at, once, before an operator is alarmed.
    async fn check_encryption(&self, key: &Key) {
        if self.shared.encryption_checked.swap(true, Ordering::Relaxed) {
            return;
        }
        let full = &self.full(key);
        let look = || self.driver().is_encrypted(full);
        match self.call(Request::Get, full, 0, look).await {
            Ok(Some(true)) => {}
            Ok(Some(false)) => tracing::warn!("the server does not encrypt objects as requested"),
            Ok(None) => tracing::warn!("the server does not confirm the requested encryption"),
            Err(error) => {
                tracing::debug!(key = full, %error, "the encryption of an object is not known");
                tracing::warn!("the server does not confirm the requested encryption");
            }
        }
    }

    /// After an object was stored. One that was acknowledged only after an attempt without an
    /// answer is looked at.
    pub(super) async fn stored(
        &self,
        key: &Key,
        stored: Stored,
        look: bool,
        tail: &Tail,
    ) -> Result<()> {
        if look {
            self.confirm(key, tail).await?;
        }
        if !stored.encryption_confirmed {
            self.check_encryption(key).await;
        }
        Ok(())
    }
}
