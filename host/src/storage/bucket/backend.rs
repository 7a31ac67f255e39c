//! The bucket as a storage.

use async_trait::async_trait;
use bytes::Bytes;

use super::driver::{Driver, Mode, Request};
use super::shared::Bucket;
use super::unsent::join;
use super::upload::BucketUpload;
use crate::storage::{
    Counts, Key, List, Page, Part, ReadRange, RecursiveList, RecursivePage, Result, Storage,
    StorageIdentity, Sweep, Swept, Upload,
};

#[async_trait]
impl<D: Driver> Storage for Bucket<D> {
    fn location(&self) -> String {
        self.settings().location()
    }

    fn backend(&self) -> &'static str {
        match self.settings().scheme {
            "gs" => "gcs",
            scheme => scheme,
        }
    }

    fn identity(&self) -> StorageIdentity {
        self.driver().identity()
    }

    fn unknown_server(&self) -> Option<String> {
        let settings = self.settings();
        (!settings.is_own_server).then(|| settings.server.clone())
    }

    fn is_providers_own(&self) -> bool {
        self.settings().is_own_server
    }

    fn counts(&self) -> Option<Counts> {
        Some(self.counts())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if body.iter().map(Bytes::len).sum::<usize>() <= self.settings().part {
            return self.put(key, join(body), Mode::Create).await;
        }
        let mut upload = Box::new(BucketUpload::new(self, key, Mode::Create));
        for piece in body {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::new(self, key, Mode::Create)))
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::in_parts(self, key, body).await?))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BucketUpload::new(self, key, Mode::Replace)))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.read_range(self.full(key), range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.page(list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        self.recursive_page(list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let full = &self.full(key);
        let delete = || self.driver().delete(full);
        self.call(Request::Delete, full, 0, delete).await
    }

    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        self.sweep_uploads(sweep).await
    }

    async fn wait_idle(&self) {
        self.shared.background.wait().await;
    }
}
