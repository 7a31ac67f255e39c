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

#[cfg(doc)]
use crate::snapshot::Scope;
use crate::snapshot::commit::Commit;
use crate::snapshot::format::Encoded;
use crate::snapshot::shared::{ScopeRef, StoreRef};
use crate::snapshot::{Info, Name, Result, Version};

/// After the versions with these numbers a name is looked at: two lists for sixteen saves.
const EVERY: Version = 16;

/// Versions that are removed in one go.
const MOST: usize = 1000;

impl StoreRef {
    /// Waits for automatic pruning and for background tasks of the storage.
    pub(crate) async fn wait_idle(&self) {
        // It is never closed.
        let _ = self.shared.auto_prune.acquire().await;
        self.shared.storage.wait_idle().await;
    }
}

impl ScopeRef {
    /// After `version` of `name` was acknowledged.
    fn auto_prune(&self, name: &Name, version: Version) {
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
        let Ok(permit) = Arc::clone(&shared.auto_prune).try_acquire_owned() else {
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

/// Commits a change, and begins automatic pruning of its name where that is due.
pub(crate) async fn commit_and_prune(mut commit: Commit, encoded: &Encoded) -> Result<Info> {
    let info = commit.finish(encoded).await?;
    commit.scope().auto_prune(commit.name(), info.version);
    Ok(info)
}
