//! Loads, opens, describes and verifies versions of a name.

use std::sync::Arc;

use super::ahead::{GROUP, GROUPS_OF_LOAD, GROUPS_OF_VERIFICATION, ReadAhead};
use super::find::PrunedReadRetry;
use super::object::Object;
use super::reader::{Reader, VerifyReport};
#[cfg(doc)]
use crate::snapshot::Scope;
use crate::snapshot::format::{Decoder, Sums};
use crate::snapshot::offload::spawn_cpu;
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

impl Object {
    /// The whole state, verified.
    pub(crate) async fn load(self, name: &Name, version: Version) -> Result<Snapshot> {
        let object = Arc::new(self);
        let info = object.trailer.info(name.as_str(), version);
        let state = Self::decode_all(&object).await;
        Ok(Snapshot {
            info,
            state: state.map_err(|error| error.at(&object.key))?.into(),
        })
    }

    async fn decode_all(this: &Arc<Self>) -> Result<Vec<u8>> {
        let trailer = &this.trailer;
        let blocks = trailer.blocks();
        if blocks <= GROUP {
            let member = this.fetch(&(0..blocks)).await?;
            let object = Arc::clone(this);
            let read = move || {
                let trailer = &object.trailer;
                let decoder = Decoder::new(trailer)?.add(trailer, 0..blocks, &member)?;
                decoder.finish(trailer)
            };
            return spawn_cpu(trailer.metadata.size, read).await;
        }
        let mut decoder = Decoder::new(trailer)?;
        let mut groups = ReadAhead::new(this, 0, GROUPS_OF_LOAD);
        while let Some((group, bytes)) = groups.next().await? {
            let object = Arc::clone(this);
            let add = move || decoder.add(&object.trailer, group, &bytes);
            decoder = spawn_cpu(trailer.metadata.size, add).await?;
        }
        let object = Arc::clone(this);
        spawn_cpu(trailer.metadata.size, move || {
            decoder.finish(&object.trailer)
        })
        .await
    }

    /// Verifies every byte, in bounded memory.
    pub(crate) async fn verify(self, name: &Name, version: Version) -> Result<VerifyReport> {
        let object = Arc::new(self);
        let trailer = &object.trailer;
        let metadata = &trailer.metadata;
        let blocks = trailer.blocks();
        if blocks == 0 {
            object.frame().await?;
        }
        let mut sums = Sums::default();
        let mut groups = ReadAhead::new(&object, 0, GROUPS_OF_VERIFICATION);
        while let Some((group, bytes)) = groups.next().await? {
            let state = Self::decode(&object, group, bytes).await?;
            sums = spawn_cpu(metadata.size, move || Ok(sums.and(&state))).await?;
        }
        sums.verify(metadata)
            .map_err(|error| error.at(&object.key))?;
        Ok(VerifyReport {
            info: trailer.info(name.as_str(), version),
        })
    }
}
