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
mod auto_prune;
mod check;
mod clock;
mod commit;
mod error;
mod find;
mod format;
mod gc;
mod head_cache;
mod info;
pub mod layout;
mod name;
mod offload;
mod ordered_tasks;
mod policy;
mod raw_copy;
mod reader;
mod retention;
mod scope;
mod store;
mod store_init;
mod usage;
mod version;
mod walk;
mod writer;

pub use adapter::{Adapter, AdapterOptions, StateStream};
pub use check::{CheckSummary, Finding, FindingKind, ReadData, Severity};
pub use error::{Error, Result};
pub use gc::GcOptions;
pub use info::{Expect, Info, MAX_LABEL_BYTES, SaveOptions, Snapshot};
pub use name::{MAX_ENCODED, Name};
pub use policy::{CurrentPolicy, Policy};
pub use raw_copy::{CopyOptions, CopyOutcome, RawVersion};
#[cfg(feature = "guest")]
pub(crate) use reader::stat_cost;
pub use reader::{Reader, VerifyReport};
pub use retention::{KeepReason, PruneDecision, Purge, PurgeReport, Retention};
pub use scope::Scope;
pub use store::{Store, StoreOptions};
pub use usage::Usage;
pub use version::{MAX_VERSION, Version};
pub use walk::{HeadEntry, HeadStream, Selection, VersionStream, Walk};
pub use writer::Writer;
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
