//! Changes that callers ask for: each prepares the store, commits a version, and lets old versions
//! be pruned.

mod expire;
mod purge;
mod restore;
mod save;
mod writer;

pub use expire::Expiry;
pub use purge::{Purge, PurgeReport};
pub use writer::Writer;
