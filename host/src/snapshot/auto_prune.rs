//! Automatic pruning in the background, after some of the saves.
//!
//! - No save waits for it, and none fails because of it: it begins when a version is acknowledged
//!   already, and what goes wrong is logged.
//! - It is bounded: one name of a store at a time in this process, after every sixteenth version of
//!   a name that has more than are kept anyway, and a limited number of removals at a time. What it
//!   leaves, the next one finds.
//! - It removes what [`Scope::prune`] would remove, by the same rules.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{Name, Scope, Store, Version};

/// After the versions with these numbers a name is looked at: two lists for sixteen saves.
const EVERY: Version = 16;

/// Versions that are removed in one go.
const MOST: usize = 1000;

/// Semaphore that is held while retention runs.
#[derive(Debug)]
pub(super) struct AutoPrune(Arc<Semaphore>);

impl Default for AutoPrune {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Store {
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
        // It is never closed.
        let _ = self.shared.auto_prune.0.acquire().await;
        self.shared.storage.wait_idle().await;
    }
}

impl Scope {
    /// After `version` of `name` was acknowledged.
    pub(super) fn auto_prune(&self, name: &Name, version: Version) {
        let shared = &self.store.shared;
        if !shared.options.auto_prune || self.is_reserved() {
            return;
        }
        let Some(retention) = shared.policy.retention() else {
            return;
        };
        let is_due = version.is_multiple_of(EVERY) && version > retention.keep_last as Version;
        let (Ok(runtime), true) = (Handle::try_current(), is_due) else {
            return;
        };
        // Another name has its turn; this one comes to it with a later version.
        let Ok(permit) = Arc::clone(&shared.auto_prune.0).try_acquire_owned() else {
            return;
        };
        let scope = self.clone();
        let name = name.clone();
        runtime.spawn(async move {
            match scope.prune_at_most(&name, &retention, MOST, None).await {
                Ok(_) => {}
                // It may name keys, which are not for everyone who reads a log.
                Err(error) => {
                    tracing::warn!(
                        "old versions could not be pruned; run `persist prune` to see why"
                    );
                    tracing::debug!(%error, "retention failed");
                }
            }
            drop(permit);
        });
    }
}
