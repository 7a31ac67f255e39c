//! Loads, opens, describes and verifies versions of a name.

use super::find::PrunedReadRetry;
use super::reader::{Reader, VerifyReport};
#[cfg(doc)]
use crate::snapshot::Scope;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Info, Name, Result, Snapshot, Version};

impl ScopeRef {
    /// Loads a state as [`Scope::load`] does, but refuses a state of more than `max` bytes before
    /// it is read.
    pub(crate) async fn load_at_most(
        &self,
        name: &Name,
        at: Option<Version>,
        max: u64,
    ) -> Result<Option<Snapshot>> {
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(name, at).await? else {
                return Ok(None);
            };
            if object.trailer.is_tombstone() {
                object.frame().await?;
                return Ok(None);
            }
            let size = object.trailer.metadata.size;
            if size > max {
                return Err(Error::TooLarge { size, max });
            }
            match object.load(name, version).await {
                Err(error) if rereads.is_due(&error) => {}
                loaded => return loaded.map(Some),
            }
        }
    }

    /// Opens a version for reading in pieces; none for a tombstone, or if nothing was saved.
    pub(crate) async fn reader(&self, name: &Name, at: Option<Version>) -> Result<Option<Reader>> {
        let Some((version, object)) = self.open(name, at).await? else {
            return Ok(None);
        };
        if object.trailer.is_tombstone() {
            object.frame().await?;
            return Ok(None);
        }
        Ok(Some(Reader::new(object, name.as_str(), version)))
    }

    /// Returns the information about a version, tombstones too.
    pub(crate) async fn stat(&self, name: &Name, at: Option<Version>) -> Result<Option<Info>> {
        let object = self.open(name, at).await?;
        Ok(object.map(|(version, object)| object.trailer.info(name.as_str(), version)))
    }

    /// Reads a version and verifies every byte of it, tombstones too.
    pub(crate) async fn verify(
        &self,
        name: &Name,
        at: Option<Version>,
    ) -> Result<Option<VerifyReport>> {
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(name, at).await? else {
                return Ok(None);
            };
            match object.verify(name, version).await {
                Err(error) if rereads.is_due(&error) => {}
                verified => return verified.map(Some),
            }
        }
    }

    /// Returns the information about the versions below `before`, newest first.
    pub(crate) async fn history(
        &self,
        name: &Name,
        mut before: Option<Version>,
        limit: usize,
    ) -> Result<Vec<Info>> {
        loop {
            let versions = self.observed_versions_of(name, before, limit).await?;
            let mut page = Vec::with_capacity(versions.len());
            for version in &versions {
                match self.trailer(name, *version).await {
                    Ok(trailer) => page.push(trailer.info(name.as_str(), *version)),
                    // Pruned since it was listed.
                    Err(error) if error.is_missing_object() => {}
                    Err(error) => return Err(error),
                }
            }
            if !page.is_empty() || versions.is_empty() {
                return Ok(page);
            }
            before = versions.last().copied();
        }
    }
}
