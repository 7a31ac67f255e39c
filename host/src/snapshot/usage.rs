//! What a scope takes of its storage.

#[cfg(feature = "wasm")]
use std::sync::Arc;

use super::{Name, Result, Scope, version};
use crate::storage::{Entry, List, Page};

/// Entries that are looked at together.
const PAGE: usize = 1000;

/// What the versions of a scope take of the storage, tombstones too. Pins, which are empty, are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Names that have at least one version.
    pub names: u64,
    /// Versions of all of them.
    pub versions: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Scope {
    /// Counts what this scope takes of its storage: a list for each thousand names, and one for each thousand versions of a name.
    /// What is saved meanwhile may be counted or not.
    ///
    /// # Errors
    /// [`Error::Storage`](super::Error::Storage).
    pub async fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut after = None;
        loop {
            let page = self.list_page(&self.dir(), after, false).await?;
            after = page.entries.last().cloned();
            for entry in page.entries {
                if let Entry::Dir(dir) = entry
                    && let Some(name) = Name::from_encoded(&dir)
                {
                    self.add_usage(&name, &mut usage).await?;
                }
            }
            if !page.more {
                return Ok(usage);
            }
        }
    }

    async fn add_usage(&self, name: &Name, usage: &mut Usage) -> Result<()> {
        let mut after = None;
        let before = usage.versions;
        loop {
            let page = self.list_page(&self.dir_of(name), after, true).await?;
            after = page.entries.last().cloned();
            for entry in page.entries {
                if let Entry::Object(object) = entry
                    && version::parse(&object.name).is_some()
                {
                    usage.versions += 1;
                    usage.bytes += object.facts.map_or(0, |facts| facts.size);
                }
            }
            if !page.more {
                usage.names += u64::from(usage.versions > before);
                return Ok(());
            }
        }
    }

    async fn list_page(&self, dir: &str, after: Option<Entry>, facts: bool) -> Result<Page> {
        let list = List {
            dir,
            prefix: "",
            after,
            limit: PAGE,
            facts,
        };
        Ok(self.storage().list(&list).await?)
    }

    /// Which store this is a scope of: the same for all that share one, as long as one of them lives.
    #[cfg(feature = "wasm")]
    pub(crate) fn store_id(&self) -> usize {
        Arc::as_ptr(&self.store.shared).addr()
    }
}
