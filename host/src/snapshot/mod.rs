//! Meaning of the bytes: versions of an agent's state, with their history and integrity.
//!
//! A [`Store`] is everything in one storage; a [`Scope`] is what one agent, or one session of it,
//! sees of it. A save never overwrites: version N of a name is one immutable object, made by one
//! exclusive create.
//!
//! ```
//! # use std::sync::Arc;
//! use persist_host::snapshot::{SaveOptions, Store};
//! use persist_host::storage::StorageConfig;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Store::new(StorageConfig::local(dir.path()).build()?);
//! let scope = store.scope("weather-bot", None)?;
//! scope.save("memory", "rain in Oslo".into(), SaveOptions::default()).await?;
//!
//! let snapshot = scope.load("memory", None).await?.expect("it was saved");
//! assert_eq!(&snapshot.state[..], b"rain in Oslo");
//! assert_eq!(snapshot.info.version, 1);
//! # Ok::<(), persist_host::snapshot::Error>(())
//! # }).unwrap();
//! ```

mod adapter;
mod change;
mod clock;
mod commit;
mod compression;
mod error;
mod format;
mod history;
mod info;
pub mod layout;
mod lease;
mod lease_handle;
mod maintenance;
mod name;
mod offload;
mod ordered_tasks;
mod read;
mod retention;
mod scope;
mod setup;
mod shared;
mod store;
mod transfer;
mod version;
mod walk;

pub use adapter::{Adapter, AdapterOptions, StateStream};
pub use change::{Expiry, Purge, PurgeReport, Writer};
pub use compression::Compression;
pub use error::{Error, Result};
pub use info::{Expect, Info, MAX_LABEL_BYTES, SaveOptions, Snapshot};
pub use lease::{LeaseInfo, LeaseOptions};
pub use lease_handle::Lease;
pub use maintenance::{
    CheckSummary, Finding, FindingKind, GcOptions, ReadData, SavedAs, Severity, Usage,
};
pub use name::{MAX_ENCODED, Name};
#[cfg(feature = "guest")]
pub(crate) use read::stat_cost;
pub use read::{Reader, VerifyReport};
pub use retention::{ExpireRule, KeepReason, LabelRule, PruneDecision, Retention};
pub use scope::Scope;
pub use setup::{CurrentPolicy, Policy};
pub use shared::{LeaseState, StoreOptions};
pub use store::Store;
pub use transfer::{CopyOptions, CopyOutcome, RawVersion};
pub use version::{MAX_VERSION, Version};
pub use walk::{
    HeadEntry, HeadStream, Matcher, NamePattern, Predicate, Selection, VersionStream, Walk,
};

/// How often a read starts again because what it was about to read was pruned.
const MAX_REREADS: usize = 10;

/// Entries asked for where a page showed nothing of ours: what others put there must not cost a
/// list for each.
const WIDE_PAGE: usize = 1000;

fn check_limit(limit: usize) -> Result<()> {
    match limit {
        0 => Err(Error::Invalid("a limit is 0; the minimum is 1".into())),
        _ => Ok(()),
    }
}
