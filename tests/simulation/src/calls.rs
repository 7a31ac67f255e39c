//! A storage that logs the calls that reach it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::storage::{Key, List, Page, Part, ReadRange, Result, Storage};

/// Kind of a request to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// List of a page of keys.
    List,
    /// Read of an object.
    Read,
    /// Conditional create of an object.
    Create,
    /// Removal of an object.
    Delete,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::List, Self::Read, Self::Create, Self::Delete];

    /// Returns true for a kind that changes what is stored.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

/// A call of a storage. On a bucket, and for a small object, it is one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Kind of the request.
    pub kind: Kind,
    /// The key, or the directory of a list.
    pub target: String,
}

/// A storage that logs calls, and forwards them.
#[derive(Debug)]
pub struct Logged {
    inner: Arc<dyn Storage>,
    calls: Mutex<Vec<Call>>,
}

impl Logged {
    /// Logs the calls of `inner`.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// Returns the calls since the last time.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn log(&self, kind: Kind, target: &str) {
        let call = Call {
            kind,
            target: target.to_owned(),
        };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(call);
    }
}

#[async_trait]
impl Forward for Logged {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.inner)
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.log(Kind::Create, key.as_str());
        self.inner.create(key, body).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.log(Kind::Read, key.as_str());
        self.inner.read(key, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.log(Kind::List, list.dir);
        self.inner.list(list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.log(Kind::Delete, key.as_str());
        self.inner.delete(key).await
    }
}
