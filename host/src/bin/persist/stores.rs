//! The stores that a command opens.

use std::cell::RefCell;

use anyhow::Result;
use persist_host::snapshot::{CurrentPolicy, Store, StoreOptions};
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
        self.open(&self.settings.storage()?, self.settings.store()?)
    }

    /// The one that the settings name, for a host of agents: it prunes by the store's policy beside their saves.
    pub(crate) fn host(&self) -> Result<Store> {
        let mut options = self.settings.store()?;
        options.auto_prune = true;
        self.open(&self.settings.storage()?, options)
    }

    /// The one of a URL that is an argument.
    pub(crate) fn at(&self, url: &str) -> Result<Store> {
        self.open(&self.settings.storage_of(url)?, self.settings.store()?)
    }

    /// Opens the store of a URL to copy into: where it is made, it gets the policy of the one that it is a copy of.
    pub(crate) fn copy_of(&self, from: &CurrentPolicy, url: &str) -> Result<Store> {
        self.open(&self.settings.storage_of(url)?, self.options_of_copy(from)?)
    }

    /// Opens the store that the settings name to copy into, as [`Stores::copy_of`] does.
    pub(crate) fn usual_copy_of(&self, from: &CurrentPolicy) -> Result<Store> {
        self.open(&self.settings.storage()?, self.options_of_copy(from)?)
    }

    fn options_of_copy(&self, from: &CurrentPolicy) -> Result<StoreOptions> {
        let mut options = self.settings.store()?;
        if from.version.is_some() {
            options.grace = from.policy.grace;
            options.retention = from.policy.retention.clone();
        }
        Ok(options)
    }

    fn open(&self, config: &StorageConfig, options: StoreOptions) -> Result<Store> {
        let store = Store::with_options(config.build()?, options);
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
