//! Everything in one storage, and how a process uses it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::clock::StorageClock;
use super::head_cache::HeadCache;
use super::policy::{DEFAULT_GRACE, PolicyCache};
use super::{
    Error, Name, Result, Retention, Scope, WIDE_PAGE, auto_prune, check_limit, layout, store_init,
};
use crate::storage::{Entry, List, Pager, Storage, StorageIdentity};

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
    /// Grace period of the [`Policy`](super::Policy) of a store that this process makes; one hour.
    /// A store that is there has its own, which is followed.
    pub grace: Duration,
    /// Retention rules of the [`Policy`](super::Policy) of a store that this process makes; none:
    /// every version is kept. A store that is there has its own, which are followed.
    pub retention: Option<Retention>,
    /// Makes the store at the first change where there is none; true. False: a place without a
    /// store is an [`Error::NoStore`](super::Error::NoStore), for reads too.
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

/// Everything in one storage. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: StoreOptions,
    /// Set once this process has seen that the storage keeps its word.
    pub(super) introduced: OnceCell<()>,
    pub(super) auto_prune: auto_prune::AutoPrune,
    pub(super) heads: HeadCache,
    pub(super) policy: Arc<PolicyCache>,
    pub(super) clock: StorageClock,
}

impl Store {
    /// The store in `storage`. Nothing is read or made before it is used.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self::with_options(storage, StoreOptions::default())
    }

    /// Returns the store in `storage`, with options.
    pub fn with_options(storage: Arc<dyn Storage>, options: StoreOptions) -> Self {
        let policy = Arc::new(PolicyCache::default());
        Self {
            shared: Arc::new(Shared {
                storage,
                heads: HeadCache::new(Arc::clone(&policy)),
                policy,
                clock: StorageClock::default(),
                options,
                introduced: OnceCell::new(),
                auto_prune: auto_prune::AutoPrune::default(),
            }),
        }
    }

    /// Returns the location of this store, for messages to the operator.
    pub fn location(&self) -> String {
        self.shared.storage.location()
    }

    /// Returns the identity of the storage of this store.
    pub fn identity(&self) -> StorageIdentity {
        self.shared.storage.identity()
    }

    /// Returns the scope of `agent`: its own names, or those of one of its sessions.
    ///
    /// # Errors
    /// [`Error::Invalid`](super::Error::Invalid) where one of them is not a name.
    pub fn scope(&self, agent: &str, session: Option<&str>) -> Result<Scope> {
        Ok(Scope {
            store: self.clone(),
            agent: Name::new(agent)?,
            session: session.map(Name::new).transpose()?,
        })
    }

    /// Agents that saved something, by name, after `after`; only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Storage`](super::Error::Storage).
    pub async fn agents(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>> {
        let dirs = self.dirs("", "", after.map(Name::encoded), limit).await?;
        Ok(dirs
            .iter()
            .filter_map(|dir| Name::from_encoded(dir))
            .collect())
    }

    /// Sessions of an agent, after `after`; None among them stands for what belongs to no session.
    /// Only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Storage`](super::Error::Storage).
    pub async fn sessions(
        &self,
        agent: &Name,
        after: Option<Option<&Name>>,
        limit: usize,
    ) -> Result<Vec<Option<Name>>> {
        check_limit(limit)?;
        let mut after = after.map(|session| layout::session_segment(session).to_owned());
        loop {
            let dirs = self
                .dirs(agent.encoded(), "", after.as_deref(), limit)
                .await?;
            let sessions: Vec<_> = dirs
                .iter()
                .filter_map(|dir| match dir.as_str() {
                    layout::NO_SESSION => Some(None),
                    dir => Name::from_encoded(dir).map(Some),
                })
                .collect();
            if !sessions.is_empty() || dirs.is_empty() {
                return Ok(sessions);
            }
            after = dirs.into_iter().next_back();
        }
    }

    /// Names that directories stand for.
    pub(super) async fn names_of(
        &self,
        dir: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Name>> {
        check_limit(limit)?;
        let mut after = after.map(str::to_owned);
        loop {
            let dirs = self.dirs(dir, prefix, after.as_deref(), limit).await?;
            let names: Vec<_> = dirs
                .iter()
                .filter_map(|dir| Name::from_encoded(dir))
                .collect();
            if !names.is_empty() || dirs.is_empty() {
                return Ok(names);
            }
            after = dirs.into_iter().next_back();
        }
    }

    /// Before "nothing is there" is said: a store of a later format may keep its versions where
    /// this build does not look. Once a process was introduced, it knows.
    pub(super) async fn check_empty(&self) -> Result<()> {
        if self.shared.introduced.initialized() {
            Ok(())
        } else {
            self.find().await.map(drop)
        }
    }

    /// Makes the store, with the policy of the options, unless it is there. Returns true where it
    /// was not.
    ///
    /// Every change does so by itself, if [`StoreOptions::create`] lets it.
    ///
    /// # Errors
    /// [`Error::Unsupported`](super::Error::Unsupported) where the storage does not do what a store
    /// needs, or the store is of a later format; [`Error::NoStore`](super::Error::NoStore) as
    /// [`Store::require`]; [`Error::Storage`](super::Error::Storage).
    pub async fn init(&self) -> Result<bool> {
        let is_there = self.find().await?;
        self.ensure_initialized().await?;
        Ok(!is_there)
    }

    /// Refuses a place without a store, unless [`StoreOptions::create`] lets this process make one.
    ///
    /// # Errors
    /// [`Error::NoStore`](super::Error::NoStore); [`Error::Unsupported`](super::Error::Unsupported)
    /// where the store is of a later format; [`Error::Corrupt`](super::Error::Corrupt);
    /// [`Error::Storage`](super::Error::Storage).
    pub async fn require(&self) -> Result<()> {
        self.find().await.map(drop)
    }

    /// Returns whether a store is there.
    ///
    /// # Errors
    /// Errors of [`Store::require`].
    pub(super) async fn find(&self) -> Result<bool> {
        let is_there = store_init::check(&*self.shared.storage).await?;
        if is_there || self.shared.options.create {
            return Ok(is_there);
        }
        Err(Error::NoStore {
            location: self.location(),
        })
    }

    /// Makes the store where it is missing, and checks that its storage can be trusted. To be
    /// called before every change.
    pub(super) async fn ensure_initialized(&self) -> Result<()> {
        let introduced = &self.shared.introduced;
        introduced
            .get_or_try_init(|| store_init::ensure_initialized(self))
            .await
            .copied()
    }

    /// Names of directories; a page that holds nothing of ours is passed over, since an empty one
    /// means the end.
    pub(super) async fn dirs(
        &self,
        dir: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let list = List::new(dir)
            .with_prefix(prefix)
            .with_after(after.map(|name| Entry::Dir(name.into())))
            .with_limit(limit);
        let mut pages = Pager::new(&*self.shared.storage, list);
        while let Some(page) = pages.next().await? {
            let dirs = page.entries.into_iter().filter_map(|entry| match entry {
                Entry::Dir(name) if !(dir.is_empty() && name == layout::OWN_DIR) => Some(name),
                _ => None,
            });
            let dirs: Vec<_> = dirs.take(limit).collect();
            if !dirs.is_empty() {
                return Ok(dirs);
            }
            pages.widen(WIDE_PAGE);
        }
        self.check_empty().await?;
        Ok(Vec::new())
    }
}
