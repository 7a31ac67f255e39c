//! A wrapper of a storage, for tests: every call goes on to the storage below unless it is
//! overridden.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{
    Counts, Key, List, Page, Part, ReadRange, RecursiveList, RecursivePage, Result, Storage,
    StorageIdentity, Sweep, Swept, Upload, list_by_directory,
};

/// Wrapper that forwards every call of [`Storage`] to another storage, and overrides the calls that
/// it changes. Each type that implements this trait is a [`Storage`].
///
/// Two calls are made of others, so that a changed [`Self::list`] shows in
/// [`Self::list_recursive`], and a changed [`Self::upload`] in [`Self::upload_in_parts`].
///
/// ```
/// use std::sync::Arc;
///
/// use persist_host::conformance::Forward;
/// use persist_host::storage::{Error, ErrorKind, Key, Memory, Result, Storage};
///
/// /// Objects that cannot be deleted.
/// #[derive(Debug)]
/// struct NeverDeletes(Arc<dyn Storage>);
///
/// #[async_trait::async_trait]
/// impl Forward for NeverDeletes {
///     fn inner(&self) -> Arc<dyn Storage> {
///         Arc::clone(&self.0)
///     }
///
///     async fn delete(&self, _: &Key) -> Result<()> {
///         Err(Error::new(ErrorKind::Denied, "objects stay"))
///     }
/// }
///
/// let storage: Arc<dyn Storage> = Arc::new(NeverDeletes(Arc::new(Memory::new())));
/// assert!(storage.supports_conditional_create());
/// ```
#[async_trait]
pub trait Forward: fmt::Debug + Send + Sync + Sized + 'static {
    /// Returns the storage that calls go on to.
    fn inner(&self) -> Arc<dyn Storage>;

    /// Forwards [`Storage::location`].
    fn location(&self) -> String {
        self.inner().location()
    }

    /// Forwards [`Storage::backend`].
    fn backend(&self) -> &'static str {
        self.inner().backend()
    }

    /// Forwards [`Storage::identity`].
    fn identity(&self) -> StorageIdentity {
        self.inner().identity()
    }

    /// Forwards [`Storage::supports_conditional_create`].
    fn supports_conditional_create(&self) -> bool {
        self.inner().supports_conditional_create()
    }

    /// Forwards [`Storage::unknown_server`].
    fn unknown_server(&self) -> Option<String> {
        self.inner().unknown_server()
    }

    /// Forwards [`Storage::is_providers_own`].
    fn is_providers_own(&self) -> bool {
        self.inner().is_providers_own()
    }

    /// Forwards [`Storage::counts`].
    fn counts(&self) -> Option<Counts> {
        self.inner().counts()
    }

    /// Forwards [`Storage::create`].
    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.inner().create(key, body).await
    }

    /// Forwards [`Storage::upload`].
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner().upload(key).await
    }

    /// Calls [`Self::upload`] and writes once.
    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        let mut upload = Forward::upload(self, key).await?;
        upload.write(body).await?;
        Ok(upload)
    }

    /// Forwards [`Storage::replace`].
    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner().replace(key).await
    }

    /// Forwards [`Storage::read`].
    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.inner().read(key, range).await
    }

    /// Forwards [`Storage::list`].
    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.inner().list(list).await
    }

    /// Lists directory after directory with [`Self::list`].
    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        list_by_directory(self, list).await
    }

    /// Forwards [`Storage::empty_dirs`].
    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        self.inner().empty_dirs(dir).await
    }

    /// Forwards [`Storage::delete`].
    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner().delete(key).await
    }

    /// Forwards [`Storage::sweep`].
    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        self.inner().sweep(sweep).await
    }

    /// Forwards [`Storage::remove_obstacle`].
    async fn remove_obstacle(&self, key: &Key) -> Result<bool> {
        self.inner().remove_obstacle(key).await
    }

    /// Forwards [`Storage::has_obstacle`].
    async fn has_obstacle(&self, key: &Key) -> Result<bool> {
        self.inner().has_obstacle(key).await
    }

    /// Forwards [`Storage::restore_access`].
    async fn restore_access(&self, key: &Key) -> Result<bool> {
        self.inner().restore_access(key).await
    }

    /// Forwards [`Storage::wait_idle`].
    async fn wait_idle(&self) {
        self.inner().wait_idle().await;
    }
}

// A new method of `Storage` must be forwarded, too: its default would hide the storage below.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: Forward> Storage for T {
    fn location(&self) -> String {
        Forward::location(self)
    }

    fn backend(&self) -> &'static str {
        Forward::backend(self)
    }

    fn identity(&self) -> StorageIdentity {
        Forward::identity(self)
    }

    fn supports_conditional_create(&self) -> bool {
        Forward::supports_conditional_create(self)
    }

    fn unknown_server(&self) -> Option<String> {
        Forward::unknown_server(self)
    }

    fn is_providers_own(&self) -> bool {
        Forward::is_providers_own(self)
    }

    fn counts(&self) -> Option<Counts> {
        Forward::counts(self)
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        Forward::create(self, key, body).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Forward::upload(self, key).await
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        Forward::upload_in_parts(self, key, body).await
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Forward::replace(self, key).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        Forward::read(self, key, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        Forward::list(self, list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        Forward::list_recursive(self, list).await
    }

    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        Forward::empty_dirs(self, dir).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        Forward::delete(self, key).await
    }

    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        Forward::sweep(self, sweep).await
    }

    async fn remove_obstacle(&self, key: &Key) -> Result<bool> {
        Forward::remove_obstacle(self, key).await
    }

    async fn has_obstacle(&self, key: &Key) -> Result<bool> {
        Forward::has_obstacle(self, key).await
    }

    async fn restore_access(&self, key: &Key) -> Result<bool> {
        Forward::restore_access(self, key).await
    }

    async fn wait_idle(&self) {
        Forward::wait_idle(self).await;
    }
}
