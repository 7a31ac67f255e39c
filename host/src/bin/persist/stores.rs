//! The stores that a command opens.

use std::cell::RefCell;

use anyhow::Result;
use persist_host::snapshot::Store;
use persist_host::storage::StorageConfig;

use crate::settings::Settings;

/// Opens stores as the settings say, and remembers which.
pub(crate) struct Stores<'a> {
    settings: &'a Settings,
    opened: RefCell<Vec<Store>>,
}

impl<'a> Stores<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            opened: RefCell::default(),
        }
    }

    /// The one that the settings name.
    pub(crate) fn usual(&self) -> Result<Store> {
        self.open(&self.settings.storage()?)
    }

    /// The one of a URL that is an argument.
    pub(crate) fn at(&self, url: &str) -> Result<Store> {
        self.open(&self.settings.storage_of(url)?)
    }

    fn open(&self, config: &StorageConfig) -> Result<Store> {
        let store = Store::with_options(config.build()?, self.settings.store()?);
        self.opened.borrow_mut().push(store.clone());
        Ok(store)
    }

    /// Waits for what they do when nobody waits for it.
    pub(crate) async fn settle(&self) {
        let opened = self.opened.take();
        for store in opened {
            store.settle().await;
        }
    }
}
