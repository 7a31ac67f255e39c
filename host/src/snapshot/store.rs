//! Everything in one storage, and how a process uses it.

use std::sync::Arc;

#[cfg(doc)]
use super::Error;
use super::shared::StoreRef;
use super::{
    CurrentPolicy, Expect, Name, Policy, Result, Scope, StoreOptions, Version, check_limit, layout,
};
use crate::storage::{Counts, Storage, StorageIdentity};
use crate::telemetry::Recorder;

/// Everything in one storage. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: StoreRef,
}

impl Store {
    /// The store in `storage`. Nothing is read or made before it is used.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self::with_options(storage, StoreOptions::default())
    }

    /// Returns the store in `storage`, with options.
    pub fn with_options(storage: Arc<dyn Storage>, options: StoreOptions) -> Self {
        Self {
            inner: StoreRef::new(storage, options, None),
        }
    }

    /// Returns the store in `storage`, with options, whose operations `recorder` receives.
    pub fn with_recorder(
        storage: Arc<dyn Storage>,
        options: StoreOptions,
        recorder: Arc<dyn Recorder>,
    ) -> Self {
        Self {
            inner: StoreRef::new(storage, options, Some(recorder)),
        }
    }

    /// Returns the location of this store, for messages to the operator.
    pub fn location(&self) -> String {
        self.inner.storage().location()
    }

    /// Returns the identity of the storage of this store.
    pub fn identity(&self) -> StorageIdentity {
        self.inner.storage().identity()
    }

    /// Returns the counts of requests to the server of the storage, with their retries; none where
    /// there is no server.
    pub fn counts(&self) -> Option<Counts> {
        self.inner.storage().counts()
    }

    /// Returns the scope of `agent`: its own names, or those of one of its sessions.
    ///
    /// # Errors
    /// [`Error::Invalid`] where one of them is not a name.
    pub fn scope(&self, agent: &str, session: Option<&str>) -> Result<Scope> {
        let session = session.map(Name::new).transpose()?;
        Ok(self.inner.scope(&Name::new(agent)?, session).into())
    }

    /// Agents that saved something, by name, after `after`; only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn agents(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>> {
        let dirs = self
            .inner
            .dirs("", "", after.map(Name::encoded), limit)
            .await?;
        Ok(dirs
            .iter()
            .filter_map(|dir| Name::from_encoded(dir))
            .collect())
    }

    /// Sessions of an agent, after `after`; None among them stands for what belongs to no session.
    /// Only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn sessions(
        &self,
        agent: &Name,
        after: Option<Option<&Name>>,
        limit: usize,
    ) -> Result<Vec<Option<Name>>> {
        check_limit(limit)?;
        let mut after = after.map(|session| layout::session_segment(session).to_owned());
        loop {
            let dirs = self
                .inner
                .dirs(agent.encoded(), "", after.as_deref(), limit)
                .await?;
            let sessions: Vec<_> = dirs
                .iter()
                .filter_map(|dir| match dir.as_str() {
                    layout::NO_SESSION => Some(None),
                    dir => Name::from_encoded(dir).map(Some),
                })
                .collect();
            if !sessions.is_empty() || dirs.is_empty() {
                return Ok(sessions);
            }
            after = dirs.into_iter().next_back();
        }
    }

    /// Makes the store, with the policy of the options, unless it is there. Returns true where it
    /// was not.
    ///
    /// Every change does so by itself, if [`StoreOptions::create`] lets it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the storage does not do what a store
    /// needs, or the store is of a later format; [`Error::NoStore`] as
    /// [`Store::require`]; [`Error::Storage`].
    pub async fn init(&self) -> Result<bool> {
        let is_there = self.inner.find().await?;
        self.inner.ensure_initialized().await?;
        Ok(!is_there)
    }

    /// Refuses a place without a store, unless [`StoreOptions::create`] lets this process make one.
    ///
    /// # Errors
    /// [`Error::NoStore`]; [`Error::Unsupported`]
    /// where the store is of a later format; [`Error::Corrupt`];
    /// [`Error::Storage`].
    pub async fn require(&self) -> Result<()> {
        self.inner.find().await.map(drop)
    }

    /// Reads the policy that this store has now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it cannot be read; [`Error::Unsupported`] where a later build wrote
    /// rules that this one does not know; [`Error::Storage`].
    pub async fn policy(&self) -> Result<CurrentPolicy> {
        self.inner.policy().await
    }

    /// Writes the next version of the policy, which every host follows from the next time that it
    /// reads the policy: at the latest after half the grace period. A prune spares versions by the
    /// longer of both grace periods until then. Returns the version.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the grace period is longer than 30 days; [`Error::Conflict`] where
    /// `expect` does not hold; then as [`Scope::save`].
    pub async fn set_policy(&self, policy: &Policy, expect: Expect) -> Result<Version> {
        self.inner.set_policy(policy, expect).await
    }

    /// Waits for background tasks: automatic pruning, and the
    /// aborts of uploads that were dropped. A process that ends at once would otherwise leave them
    /// undone; it waits with a limit of its own, as a server may take its time.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use persist_host::snapshot::Store;
    /// # use persist_host::storage::Memory;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let store = Store::new(Arc::new(Memory::new()));
    /// store.wait_idle().await;
    /// # });
    /// ```
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}
