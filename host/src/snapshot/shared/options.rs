//! Options of a store.

use std::time::Duration;

use crate::snapshot::{Compression, ExpireRule, Retention};
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
    /// Expiry of the [`Policy`] of a store that this process makes; none.
    pub expire: Vec<ExpireRule>,
    /// Makes the store at the first change where there is none; true. False: a place without a
    /// store is an [`Error::NoStore`], for reads too.
    pub create: bool,
    /// Labels that each version gets that this process creates, beside those of its caller; none.
    /// Their keys begin with `persist.`, such as `persist.by`. A version whose labels would be too
    /// large with them gets none of them. A copied version is not created here.
    pub host_labels: Vec<(String, String)>,
    /// Removes old versions by the store's policy beside saves, which neither wait for it nor fail
    /// because of it; true.
    pub auto_prune: bool,
    /// Compression of the states that this process saves. States that are there load whatever it
    /// is, and copies of versions keep theirs.
    pub compression: Compression,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_state: 16 << 30,
            grace: DEFAULT_GRACE,
            retention: Some(Retention::default()),
            expire: Vec::new(),
            create: true,
            host_labels: Vec::new(),
            auto_prune: true,
            compression: Compression::default(),
        }
    }
}
