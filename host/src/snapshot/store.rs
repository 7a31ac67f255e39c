//! Everything in one storage, and how a process uses it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::heads::Remembered;
use super::{
    NO_SESSION, Name, Result, Retention, Scope, WIDE_PAGE, check_limit, introduce, session_segment,
    tend,
};
use crate::storage::{Entry, List, Storage};

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
    /// Bytes of one state. A larger one that is there already is not loaded either. 16 GiB: far more than an agent's memory.
    pub max_state: u64,
    /// Pruning spares what is younger than this; one hour. A change that took longer than half of it no longer knows that
    /// the version after its head was never used before, and looks again: so does one that goes on from a head that it has known
    /// for so long. The same for all hosts of a store.
    pub grace: Duration,
    /// What is kept of each name's history; the rest is removed beside saves, which neither wait for it nor fail because of it. None: all is kept,
    /// until someone prunes. Everything younger than 30 days and the newest 20 versions.
    pub retention: Option<Retention>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_state: 16 << 30,
            grace: Duration::from_secs(60 * 60),
            retention: Some(Retention::default()),
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
    pub(super) tending: tend::Tending,
    pub(super) heads: Remembered,
}

impl Store {
    /// The store in `storage`. Nothing is read or made before it is used.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self::with_options(storage, StoreOptions::default())
    }

    /// The same, with options.
    pub fn with_options(storage: Arc<dyn Storage>, options: StoreOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                storage,
                heads: Remembered::new(options.grace),
                options,
                introduced: OnceCell::new(),
                tending: tend::Tending::default(),
            }),
        }
    }

    /// Where this store is, for messages to the operator.
    pub fn location(&self) -> String {
        self.shared.storage.location()
    }

    /// What `agent` sees: its own names, or those of one of its sessions.
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

    /// Sessions of an agent, after `after`; None among them stands for what belongs to no session. Only an empty page is the
    /// end.
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
        let mut after = after.map(|session| session_segment(session).to_owned());
        loop {
            let dirs = self
                .dirs(agent.encoded(), "", after.as_deref(), limit)
                .await?;
            let sessions: Vec<_> = dirs
                .iter()
                .filter_map(|dir| match dir.as_str() {
                    NO_SESSION => Some(None),
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

    /// Before "nothing is there" is said: a store of a later format may keep its versions where this build does not look.
    /// Once a process was introduced, it knows.
    pub(super) async fn check_empty(&self) -> Result<()> {
        match self.shared.introduced.initialized() {
            true => Ok(()),
            false => introduce::check(&*self.shared.storage).await.map(drop),
        }
    }

    /// Names of directories; a page that holds nothing of ours is passed over, since an empty one means the end.
    pub(super) async fn dirs(
        &self,
        dir: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        let mut after = after.map(|name| Entry::Dir(name.into()));
        let mut at_once = limit;
        loop {
            let list = List {
                dir,
                prefix,
                after: after.clone(),
                limit: at_once,
                facts: false,
            };
            let page = self.shared.storage.list(&list).await?;
            after = page.entries.last().cloned();
            let dirs: Vec<_> = page
                .entries
                .into_iter()
                .filter_map(|entry| match entry {
                    Entry::Dir(name) if !(dir.is_empty() && name == NO_SESSION) => Some(name),
                    _ => None,
                })
                .collect();
            if dirs.is_empty() && page.more {
                at_once = limit.max(WIDE_PAGE);
                continue;
            }
            if dirs.is_empty() {
                self.check_empty().await?;
            }
            return Ok(dirs.into_iter().take(limit).collect());
        }
    }
}
