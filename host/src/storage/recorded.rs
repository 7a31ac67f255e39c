//! Storage whose calls are measured, for all that a store does.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tracing::field::Empty;

use super::{
    Counts, Error, ErrorKind, Key, List, Page, Part, ReadRange, RecursiveList, RecursivePage,
    Result, Storage, StorageIdentity, Sweep, Swept, Upload,
};
use crate::telemetry::{Layer, Outcome, Pending, Telemetry, hashed};

/// Storage that measures every call of the storage below.
#[derive(Debug)]
pub(crate) struct Recorded {
    inner: Arc<dyn Storage>,
    telemetry: Telemetry,
}

impl Recorded {
    pub(crate) fn new(inner: Arc<dyn Storage>, telemetry: Telemetry) -> Self {
        Self { inner, telemetry }
    }

    /// Begins a call about a key or a directory.
    fn begin(&self, operation: &'static str, object: &str) -> Pending {
        let span = tracing::info_span!(
            "storage_call",
            backend = self.telemetry.backend(),
            operation,
            object = %hashed(object),
            bytes = Empty,
            outcome = Empty,
        );
        self.telemetry.begin(Layer::Storage, operation, span)
    }

    async fn begin_upload(
        &self,
        mut pending: Pending,
        begin: impl Future<Output = Result<Box<dyn Upload>>>,
        bytes: u64,
    ) -> Result<Box<dyn Upload>> {
        let inner = pending.part(begin, |_| bytes).await?;
        Ok(Box::new(RecordedUpload { inner, pending }))
    }
}

/// Returns the bytes of a call that transfers none of an object.
fn none<T>(_: &T) -> u64 {
    0
}

#[derive(Debug)]
struct RecordedUpload {
    inner: Box<dyn Upload>,
    pending: Pending,
}

#[async_trait]
impl Upload for RecordedUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let len = piece.len() as u64;
        self.pending.part(self.inner.write(piece), |()| len).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.pending.last(self.inner.finish(), none).await
    }
}

// A new method of `Storage` must be forwarded, too: its default would hide the storage below.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Storage for Recorded {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn identity(&self) -> StorageIdentity {
        self.inner.identity()
    }

    fn supports_conditional_create(&self) -> bool {
        self.inner.supports_conditional_create()
    }

    fn unknown_server(&self) -> Option<String> {
        self.inner.unknown_server()
    }

    fn is_providers_own(&self) -> bool {
        self.inner.is_providers_own()
    }

    fn counts(&self) -> Option<Counts> {
        self.inner.counts()
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let len = body.iter().map(|piece| piece.len() as u64).sum();
        let pending = self.begin("create", key.as_str());
        pending.last(self.inner.create(key, body), |()| len).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let pending = self.begin("upload", key.as_str());
        self.begin_upload(pending, self.inner.upload(key), 0).await
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        let len = body.len() as u64;
        let pending = self.begin("upload", key.as_str());
        let begin = self.inner.upload_in_parts(key, body);
        self.begin_upload(pending, begin, len).await
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let pending = self.begin("replace", key.as_str());
        self.begin_upload(pending, self.inner.replace(key), 0).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let pending = self.begin("read", key.as_str());
        let read = self.inner.read(key, range);
        pending.last(read, |part| part.bytes.len() as u64).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let pending = self.begin("list", list.dir);
        pending.last(self.inner.list(list), none).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        let pending = self.begin("list_recursive", list.dir);
        pending.last(self.inner.list_recursive(list), none).await
    }

    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        let pending = self.begin("empty_dirs", dir);
        pending.last(self.inner.empty_dirs(dir), none).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let pending = self.begin("delete", key.as_str());
        pending.last(self.inner.delete(key), none).await
    }

    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        let pending = self.begin("sweep", "");
        pending.last(self.inner.sweep(sweep), none).await
    }

    async fn remove_obstacle(&self, key: &Key) -> Result<bool> {
        let pending = self.begin("remove_obstacle", key.as_str());
        pending.last(self.inner.remove_obstacle(key), none).await
    }

    async fn has_obstacle(&self, key: &Key) -> Result<bool> {
        let pending = self.begin("has_obstacle", key.as_str());
        pending.last(self.inner.has_obstacle(key), none).await
    }

    async fn restore_access(&self, key: &Key) -> Result<bool> {
        let pending = self.begin("restore_access", key.as_str());
        pending.last(self.inner.restore_access(key), none).await
    }

    async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

impl Outcome for Error {
    fn outcome(&self) -> &'static str {
        match self.kind() {
            ErrorKind::NotFound => "not_found",
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::Denied => "denied",
            ErrorKind::Retained => "retained",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::Throttled => "throttled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::NoSpace => "no_space",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Config => "config",
            ErrorKind::OutcomeUnknown => "outcome_unknown",
            ErrorKind::NotDurable => "not_durable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use crate::storage::Memory;

    #[test]
    fn a_recorded_storage_keeps_every_promise_of_the_one_below() {
        let inner: Arc<dyn Storage> = Arc::new(Memory::new());
        let telemetry = || Telemetry::new(inner.backend(), None);
        let open = || Arc::new(Recorded::new(Arc::clone(&inner), telemetry())) as Arc<dyn Storage>;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let report = runtime
            .expect("a runtime")
            .block_on(conformance::run(&open));
        assert!(report.is_ok(), "{report}");
    }
}
