//! Options of a store.

use std::time::Duration;

use crate::snapshot::Retention;
#[cfg(doc)]
use crate::snapshot::{Error, Policy};

/// The grace period of a store unless another one was chosen.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(60 * 60);

/// How a store is used by this process.
///
/// ```
/// use persist_host::snapshot::StoreOptions;
///
/// let mut options = StoreOptions::default();
/// options.max_state = 1 << 20;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Bytes of one state. A larger one that is there already is not loaded either. 16 GiB: far
    /// more than an agent's memory.
    pub max_state: u64,
    /// Grace period of the [`Policy`] of a store that this process makes; one hour.
    /// A store that is there has its own, which is followed.
    pub grace: Duration,
    /// Retention rules of the [`Policy`] of a store that this process makes; none:
    /// every version is kept. A store that is there has its own, which are followed.
    pub retention: Option<Retention>,
    /// Makes the store at the first change where there is none; true. False: a place without a
    /// store is an [`Error::NoStore`], for reads too.
    pub create: bool,
    /// Removes old versions by the store's policy beside saves, which neither wait for it nor fail
    /// because of it; true.
    pub auto_prune: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_state: 16 << 30,
            grace: DEFAULT_GRACE,
            retention: Some(Retention::default()),
            create: true,
            auto_prune: true,
        }
    }
}
