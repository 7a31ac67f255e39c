//! Before the first change of a process: the store is initialized, and its policy is read.

mod init;
mod policy;

pub(crate) use init::{MAX_SWEPT, PROBING, probe_clock};
pub(crate) use policy::policy_name;
pub use policy::{CurrentPolicy, Policy};

use super::Result;
use super::shared::{ScopeRef, StoreRef};

impl StoreRef {
    /// Makes the store where it is missing, and verifies its storage, once for each process.
    pub(crate) async fn ensure_initialized(&self) -> Result<()> {
        let initialized = &self.shared.initialized;
        initialized
            .get_or_try_init(|| init::ensure_initialized(self))
            .await
            .copied()
    }
}

impl ScopeRef {
    /// Prepares a change: makes the store where it is missing, and reads its policy where that is
    /// due. To be called before every change.
    pub(crate) async fn prepare_change(&self) -> Result<()> {
        self.store.ensure_initialized().await?;
        self.store.refresh_policy().await
    }
}
