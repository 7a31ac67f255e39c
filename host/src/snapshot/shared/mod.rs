//! State that all handles of a store share in this process, and the keys of a scope.
//!
//! [`StoreRef`] and [`ScopeRef`] are what the rooms of this module work on. The public
//! [`Store`](super::Store) and [`Scope`](super::Scope) wrap them.

mod head_cache;
mod header;
mod lease;
mod options;
mod policy_cache;

pub(crate) use head_cache::{Head, HeadCache, HeadObservation};
pub(crate) use header::{check, header};
pub use lease::LeaseState;
pub(crate) use lease::{
    HeldLease, LeaseRecord, Observations, ObservedLease, Origin, described_scope,
};
pub(crate) use options::DEFAULT_GRACE;
pub use options::StoreOptions;
pub(crate) use policy_cache::{CachedPruneGrace, MAX_GRACE, PolicyCache};

use std::sync::Arc;

use tokio::sync::{OnceCell, Semaphore};

use super::clock::StorageClock;
use super::info::HOST_LABEL;
use super::{Error, MAX_LABEL_BYTES, Name, Result, Version, layout};
use crate::storage::{Key, Recorded, Storage};
use crate::telemetry::{Recorder, Telemetry};

/// A store as this process uses it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct StoreRef {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: StoreOptions,
    /// Set once this process has verified the storage.
    pub(crate) initialized: OnceCell<()>,
    /// Held while old versions are removed automatically.
    pub(crate) auto_prune: Arc<Semaphore>,
    pub(crate) heads: HeadCache,
    pub(crate) policy: Arc<PolicyCache>,
    pub(crate) clock: StorageClock,
    pub(crate) leases: Observations,
    pub(crate) telemetry: Telemetry,
}

/// A scope: the names of one agent, or of one session of it, in a store.
#[derive(Clone, Debug)]
pub(crate) struct ScopeRef {
    pub(crate) store: StoreRef,
    pub(crate) agent: Name,
    pub(crate) session: Option<Name>,
    /// The lease that changes are made under.
    pub(crate) lease: Option<Arc<HeldLease>>,
    /// Labels of versions that this handle creates, beside those of the store's options.
    pub(crate) labels: Arc<[(String, String)]>,
}

impl ScopeRef {
    /// Returns the host's own labels for a version that has these, where there is room for them.
    pub(crate) fn host_labels(
        &self,
        labels: &[(String, String)],
        media_type: Option<&str>,
    ) -> Vec<(String, String)> {
        let of_store = &self.store.shared.options.host_labels;
        let own = || self.labels.iter().chain(of_store);
        let all = labels.iter().chain(own());
        let bytes: usize = all.map(|(key, value)| key.len() + value.len()).sum();
        let is_taken = |own: &str| labels.iter().any(|(key, _)| key == own);
        if bytes + media_type.map_or(0, str::len) > MAX_LABEL_BYTES {
            return Vec::new();
        }
        own().filter(|(key, _)| !is_taken(key)).cloned().collect()
    }

    /// Returns the labels of a version that is moved here: its own, among them those of the host
    /// that created it, `origin`, and this host's as `persist.moved-by` for `persist.by`. Where
    /// there is no room for all, those of the hosts are left out.
    pub(crate) fn labels_of_moved(
        &self,
        labels: &[(String, String)],
        origin: (String, String),
        media_type: Option<&str>,
    ) -> Vec<(String, String)> {
        let moved = format!("{HOST_LABEL}moved-");
        let is_of_move = |key: &str| key == origin.0 || key.starts_with(&moved);
        let mut kept: Vec<_> = labels
            .iter()
            .filter(|(key, _)| !is_of_move(key))
            .cloned()
            .collect();
        kept.push(origin.clone());
        let own = self.store.shared.options.host_labels.iter();
        let own = own.filter_map(|(key, value)| {
            let key = key.strip_prefix(HOST_LABEL)?;
            Some((format!("{moved}{key}"), value.clone()))
        });
        let mut all = kept.clone();
        all.extend(own);
        let fits = |labels: &[(String, String)]| {
            let bytes: usize = labels.iter().map(|(k, v)| k.len() + v.len()).sum();
            bytes + media_type.map_or(0, str::len) <= MAX_LABEL_BYTES
        };
        if fits(&all) {
            return all;
        }
        if !fits(&kept) {
            kept.retain(|(key, _)| !key.starts_with(HOST_LABEL) || *key == origin.0);
        }
        kept
    }
}

impl StoreRef {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: StoreOptions,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> Self {
        let telemetry = Telemetry::new(storage.backend(), recorder);
        let storage = Arc::new(Recorded::new(storage, telemetry.clone()));
        let policy = Arc::new(PolicyCache::default());
        Self {
            shared: Arc::new(Shared {
                storage,
                heads: HeadCache::new(Arc::clone(&policy)),
                policy,
                clock: StorageClock::default(),
                leases: Observations::default(),
                telemetry,
                options,
                initialized: OnceCell::new(),
                auto_prune: Arc::new(Semaphore::new(1)),
            }),
        }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.shared.storage
    }

    pub(crate) fn scope(&self, agent: &Name, session: Option<Name>) -> ScopeRef {
        ScopeRef {
            store: self.clone(),
            agent: agent.clone(),
            session,
            lease: None,
            labels: Arc::default(),
        }
    }

    /// Verifies before "nothing is there" is reported: a store of a later format may keep its
    /// versions where this build does not look. A process that has initialized the store knows.
    pub(crate) async fn check_empty(&self) -> Result<()> {
        if self.shared.initialized.initialized() {
            Ok(())
        } else {
            self.find().await.map(drop)
        }
    }

    /// Returns true if a store exists.
    ///
    /// # Errors
    /// Errors of [`Store::require`](super::Store::require).
    pub(crate) async fn find(&self) -> Result<bool> {
        let is_there = check(self.storage()).await?;
        if is_there || self.shared.options.create {
            return Ok(is_there);
        }
        Err(Error::NoStore {
            location: self.storage().location(),
        })
    }
}

impl ScopeRef {
    pub(crate) fn agent(&self) -> &Name {
        &self.agent
    }

    pub(crate) fn session(&self) -> Option<&Name> {
        self.session.as_ref()
    }

    pub(crate) fn key(&self, name: &Name, version: Version) -> Result<Key> {
        let dir = self.dir_of(name);
        Ok(Key::new(format!(
            "{dir}/{}",
            layout::version_segment(version)
        ))?)
    }

    /// Returns the key of the pin of a version.
    pub(crate) fn pin_key(&self, name: &Name, version: Version) -> Result<Key> {
        let dir = self.dir_of(name);
        Ok(Key::new(format!("{dir}/{}", layout::pin_segment(version)))?)
    }

    /// The directory of a name's versions.
    pub(crate) fn dir_of(&self, name: &Name) -> String {
        layout::name_dir(&self.agent, self.session.as_ref(), name)
    }

    pub(crate) fn dir(&self) -> String {
        layout::scope_dir(&self.agent, self.session.as_ref())
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.store.shared.storage
    }

    pub(crate) fn heads(&self) -> &HeadCache {
        &self.store.shared.heads
    }

    pub(crate) fn max_state(&self) -> u64 {
        self.store.shared.options.max_state
    }

    /// Returns whether this is the scope of the store's own names.
    pub(crate) fn is_reserved(&self) -> bool {
        self.agent == Name::reserved()
    }

    /// For what needs a state and finds a tombstone.
    pub(crate) fn deleted(&self, name: &Name, version: Version) -> Error {
        let agent = self.described();
        Error::NotFound(format!(
            "version {version} of {name} of {agent} is a tombstone"
        ))
    }

    /// For a deletion of what is deleted already.
    pub(crate) fn deleted_already(&self, name: &Name, version: Version) -> Error {
        let agent = self.described();
        Error::NotFound(format!(
            "{name} of {agent} is already deleted, by version {version}; older versions may exist"
        ))
    }

    /// Takes note of the newest version of a name, 0 for none, where changes are made under a
    /// lease.
    pub(crate) fn observe_head(&self, name: &Name, version: Version) {
        if let Some(lease) = &self.lease {
            lease.observe(name, version, Origin::Read);
        }
    }

    /// Takes note of a version that was created, where changes are made under a lease.
    pub(crate) fn observe_created(&self, name: &Name, version: Version) {
        if let Some(lease) = &self.lease {
            lease.observe(name, version, Origin::Created);
        }
    }

    /// The agent, and its session, for people.
    fn described(&self) -> String {
        match &self.session {
            Some(session) => format!("{} in session {session}", self.agent),
            None => self.agent.to_string(),
        }
    }

    pub(crate) fn missing(&self, name: &Name, at: Option<Version>) -> Error {
        let agent = self.described();
        Error::NotFound(match at {
            Some(version) => format!("{name} of {agent} has no version {version}"),
            None => format!("nothing is saved as {name} by {agent}"),
        })
    }
}
