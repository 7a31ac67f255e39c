//! The stores that a command opens.

use std::cell::RefCell;
#[cfg(feature = "serve")]
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{CurrentPolicy, Store, StoreOptions};
use persist_host::storage::StorageConfig;
#[cfg(feature = "serve")]
use persist_host::telemetry::Recorder;

use crate::audit;
use crate::settings::Settings;

/// Lets a command create the store that it saves to.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Create {
    /// Create the store if it does not exist; without --create, only a store in the user's data
    /// directory is created
    #[arg(long)]
    create: bool,
}

impl Create {
    /// The permission.
    pub(crate) const YES: Self = Self { create: true };

    /// Returns true if the store that the settings name may be made.
    #[cfg(feature = "serve")]
    pub(crate) fn is_allowed(self, settings: &Settings) -> bool {
        self.create || settings.is_default_place()
    }
}

/// Opens stores as the settings say, and remembers which.
pub(crate) struct Stores<'a> {
    settings: &'a Settings,
    /// The command that changes the stores; none for one that changes no version.
    via: Option<&'static str>,
    opened: RefCell<Vec<Store>>,
}

impl<'a> Stores<'a> {
    pub(crate) fn new(settings: &'a Settings, via: Option<&'static str>) -> Self {
        Self {
            settings,
            via,
            opened: RefCell::default(),
        }
    }

    /// Opens the store that the settings name. It must be there.
    pub(crate) fn usual(&self) -> Result<Store> {
        self.open(&self.settings.storage()?, self.options()?)
    }

    /// Opens the store that the settings name, and makes it where it is missing and may be made.
    pub(crate) fn making(&self, create: Create) -> Result<Store> {
        let mut options = self.options()?;
        options.create = create.create || self.settings.is_default_place();
        self.open(&self.settings.storage()?, options)
    }

    /// Opens the store that the settings name for a host of agents: it prunes by the store's policy
    /// beside their saves.
    pub(crate) fn host(&self, create: Create) -> Result<Store> {
        self.open(&self.settings.storage()?, self.host_options(create)?)
    }

    fn host_options(&self, create: Create) -> Result<StoreOptions> {
        let mut options = self.settings.store()?;
        options.create = create.create || self.settings.is_default_place();
        options.auto_prune = true;
        Ok(options)
    }

    /// Opens the store that the settings name as [`Stores::host`] does. `recorder` receives its
    /// measurements.
    #[cfg(feature = "serve")]
    pub(crate) fn recorded_host(
        &self,
        create: Create,
        recorder: Arc<dyn Recorder>,
    ) -> Result<Store> {
        let storage = self.settings.build(&self.settings.storage()?)?;
        let store = Store::with_recorder(storage, self.host_options(create)?, recorder);
        self.opened.borrow_mut().push(store.clone());
        Ok(store)
    }

    /// Opens the store of a URL that is an argument. It must be there.
    pub(crate) fn at(&self, url: &str) -> Result<Store> {
        self.open(&self.settings.storage_of(url)?, self.options()?)
    }

    /// Opens the store of a URL to copy into: where it is made, it gets the policy of the one that
    /// it is a copy of.
    pub(crate) fn copy_of(&self, from: &CurrentPolicy, url: &str, create: Create) -> Result<Store> {
        let options = self.options_of_copy(from, create.create)?;
        self.open(&self.settings.storage_of(url)?, options)
    }

    /// Opens the store that the settings name to copy into, as [`Stores::copy_of`] does.
    pub(crate) fn usual_copy_of(&self, from: &CurrentPolicy, create: Create) -> Result<Store> {
        let may_make = create.create || self.settings.is_default_place();
        self.open(
            &self.settings.storage()?,
            self.options_of_copy(from, may_make)?,
        )
    }

    fn options_of_copy(&self, from: &CurrentPolicy, create: bool) -> Result<StoreOptions> {
        let mut options = self.options()?;
        options.create = create;
        if from.version.is_some() {
            options.grace = from.policy.grace;
            options.retention = from.policy.retention.clone();
            options.expire = from.policy.expire.clone();
        }
        Ok(options)
    }

    /// How a command uses a store: the versions that it creates say who created them.
    fn options(&self) -> Result<StoreOptions> {
        let mut options = self.settings.store()?;
        if let (Some(via), true) = (self.via, self.settings.audits()?) {
            options.host_labels = audit::labels(self.settings.environment(), via);
        }
        Ok(options)
    }

    fn open(&self, config: &StorageConfig, options: StoreOptions) -> Result<Store> {
        let store = Store::with_options(self.settings.build(config)?, options);
        self.opened.borrow_mut().push(store.clone());
        Ok(store)
    }

    /// Waits for their background tasks.
    pub(crate) async fn wait_idle(&self) {
        let opened = self.opened.take();
        for store in opened {
            store.wait_idle().await;
        }
    }
}
