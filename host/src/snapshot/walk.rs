//! The names of a store, or of a part of it, one after the other, in bounded memory.

use std::collections::VecDeque;

use super::ordered_tasks::OrderedTasks;
use super::{Error, Info, Name, Result, Scope, Store, Version};

/// Names, or versions, asked for at once.
const PAGE: usize = 1000;

/// Versions that are looked at together.
const AT_ONCE: usize = 16;

/// Which names of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All of them.
    #[default]
    All,
    /// Those of an agent and of all its sessions.
    Agent(Name),
    /// Those of one session of an agent; none: those that belong to no session.
    Session(Name, Option<Name>),
    /// One name of an agent, perhaps of one of its sessions.
    Name(Name, Option<Name>, Name),
}

/// Goes through names in the order of their keys. What is saved meanwhile may be met or not.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::snapshot::{SaveOptions, Selection, Store};
/// # use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = Store::new(Arc::new(Memory::new()));
/// # store.scope("bot", None)?.save("memory", "x".into(), SaveOptions::default()).await?;
/// let mut walk = store.walk(&Selection::All);
/// while let Some((scope, name)) = walk.next().await? {
///     println!("{} saved {name}", scope.agent());
/// }
/// # Ok::<(), persist_host::snapshot::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Walk {
    store: Store,
    agents: Level<Name>,
    agent: Option<Name>,
    sessions: Level<Option<Name>>,
    scope: Option<Scope>,
    names: Level<Name>,
}

/// The newest version of each name. Made by [`Store::heads`].
#[derive(Debug)]
pub struct HeadStream {
    walk: Walk,
    looks: OrderedTasks<Option<HeadEntry>>,
    more: bool,
}

/// A name, and its newest version: [`Scope::stat`].
#[derive(Debug)]
#[non_exhaustive]
pub struct HeadEntry {
    /// The scope of the name.
    pub scope: Scope,
    /// The name.
    pub name: Name,
    /// Information about its newest version. An error concerns that version: it is damaged, of a
    /// later format, or cannot be read.
    pub info: Result<Info>,
}

/// The versions of a name, newest first. Made by [`Scope::past`].
#[derive(Debug)]
pub struct VersionStream {
    scope: Scope,
    name: Name,
    versions: VecDeque<Version>,
    before: Option<Version>,
    looks: OrderedTasks<Option<(Version, Result<Info>)>>,
    /// How many are still to be looked at; 0 at the end.
    left: usize,
}

/// Entries on one level of a store, a page at a time.
#[derive(Debug)]
struct Level<T> {
    page: VecDeque<T>,
    /// The last one of the pages so far.
    last: Option<T>,
    /// True if there may be another page.
    more: bool,
}

impl Store {
    /// Goes through the names of `selection`. A single name is met whether anything is saved under
    /// it or not.
    pub fn walk(&self, selection: &Selection) -> Walk {
        let mut walk = Walk {
            store: self.clone(),
            agents: Level::default(),
            agent: None,
            sessions: Level::default(),
            scope: None,
            names: Level::default(),
        };
        let (agent, session, name) = match selection.clone() {
            Selection::All => {
                walk.agents = Level::all();
                return walk;
            }
            Selection::Agent(agent) => {
                walk.agents = Level::only(agent);
                return walk;
            }
            Selection::Session(agent, session) => (agent, session, None),
            Selection::Name(agent, session, name) => (agent, session, Some(name)),
        };
        walk.scope = Some(self.inner.scope(&agent, session).into());
        walk.names = name.map_or_else(Level::all, Level::only);
        walk
    }
}

impl Walk {
    /// The next name, and the scope that it is in; none after the last. After an error, it goes on
    /// behind the directory that could not be listed.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where the store is of a later
    /// format.
    pub async fn next(&mut self) -> Result<Option<(Scope, Name)>> {
        loop {
            if let Some(scope) = &self.scope {
                let page = async |after: Option<&Name>| {
                    scope.names("", after.map(Name::as_str), PAGE).await
                };
                match self.names.next(page).await {
                    Ok(Some(name)) => return Ok(Some((scope.clone(), name))),
                    Ok(None) => {}
                    Err(error) => {
                        self.scope = None;
                        return Err(error);
                    }
                }
            }
            if let Some(agent) = &self.agent {
                let page = async |after: Option<&Option<Name>>| {
                    let after = after.map(Option::as_ref);
                    self.store.sessions(agent, after, PAGE).await
                };
                match self.sessions.next(page).await {
                    Ok(Some(session)) => {
                        self.scope = Some(self.store.inner.scope(agent, session).into());
                        self.names = Level::all();
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.scope = None;
                        self.agent = None;
                        return Err(error);
                    }
                }
            }
            let page = async |after: Option<&Name>| self.store.agents(after, PAGE).await;
            let agent = match self.agents.next(page).await {
                Ok(Some(agent)) => agent,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.agents = Level::default();
                    self.agent = None;
                    self.scope = None;
                    return Err(error);
                }
            };
            self.scope = None;
            self.agent = Some(agent);
            self.sessions = Level::all();
        }
    }
}

impl Store {
    /// The newest version of each name of `selection`, deleted ones too, in the order of their
    /// keys. Some are looked at together: what one look costs is waited for once for all of them.
    pub fn heads(&self, selection: &Selection) -> HeadStream {
        HeadStream {
            walk: self.walk(selection),
            looks: OrderedTasks::new(AT_ONCE),
            more: true,
        }
    }
}

impl HeadStream {
    /// The next one; none after the last. A name of which nothing is there any more is passed over.
    /// After an error it goes on, as [`Walk::next`] does.
    ///
    /// # Errors
    /// As [`Walk::next`], and [`Error::Storage`].
    pub async fn next(&mut self) -> Result<Option<HeadEntry>> {
        while self.more {
            let Some((scope, name)) = self.walk.next().await? else {
                self.more = false;
                break;
            };
            if let Some(Some(head)) = self.looks.push(stat_head(scope, name)).await? {
                return Ok(Some(head));
            }
        }
        loop {
            match self.looks.next().await? {
                Some(None) => {}
                Some(head) => return Ok(head),
                None => return Ok(None),
            }
        }
    }
}

async fn stat_head(scope: Scope, name: Name) -> Result<Option<HeadEntry>> {
    let info = stat_one(&scope, &name, None).await?;
    Ok(info.map(|info| HeadEntry { scope, name, info }))
}

/// None: it is not there any more. What is wrong with the storage is not told of one version.
async fn stat_one(scope: &Scope, name: &Name, at: Option<Version>) -> Result<Option<Result<Info>>> {
    match scope.inner.stat(name, at).await {
        Ok(info) => Ok(info.map(Ok)),
        Err(error) if error.is_of_file() => Ok(Some(Err(error))),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) if scope.inner.is_of_one_version(name, &error).await => Ok(Some(Err(error))),
        Err(error) => Err(error),
    }
}

impl Scope {
    /// The versions of `name` below `before`, or all, newest first, tombstones too. As
    /// [`Scope::history`], but a version that cannot be read does not hide the others, and some are
    /// looked at together. At most `limit` are.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `name` is not a name.
    pub fn past(&self, name: &str, before: Option<Version>, limit: usize) -> Result<VersionStream> {
        Ok(VersionStream {
            scope: self.clone(),
            name: Name::new(name)?,
            versions: VecDeque::new(),
            before,
            looks: OrderedTasks::new(AT_ONCE),
            left: limit,
        })
    }
}

impl VersionStream {
    /// Returns the next version and its metadata; none after the oldest. What was pruned since it
    /// was listed is passed over.
    ///
    /// # Errors
    /// Errors of [`HeadStream::next`].
    pub async fn next(&mut self) -> Result<Option<(Version, Result<Info>)>> {
        while let Some(version) = self.version().await? {
            let scope = self.scope.clone();
            let name = self.name.clone();
            let look = async move {
                let info = stat_one(&scope, &name, Some(version)).await?;
                Ok(info.map(|info| (version, info)))
            };
            if let Some(Some(seen)) = self.looks.push(look).await? {
                return Ok(Some(seen));
            }
        }
        loop {
            match self.looks.next().await? {
                Some(None) => {}
                Some(seen) => return Ok(seen),
                None => return Ok(None),
            }
        }
    }

    async fn version(&mut self) -> Result<Option<Version>> {
        if self.versions.is_empty() && self.left > 0 {
            let limit = self.left.min(PAGE);
            let scope = &self.scope.inner;
            let page = scope.versions_of(&self.name, self.before, limit).await?;
            self.versions = page.into();
            self.before = self.versions.back().copied();
            self.left = match self.before {
                Some(_) => self.left - self.versions.len(),
                None => 0,
            };
        }
        Ok(self.versions.pop_front())
    }
}

impl<T: Clone> Level<T> {
    fn all() -> Self {
        Self {
            more: true,
            ..Self::default()
        }
    }

    fn only(one: T) -> Self {
        Self {
            page: [one].into(),
            ..Self::default()
        }
    }

    async fn next(
        &mut self,
        page: impl AsyncFnOnce(Option<&T>) -> Result<Vec<T>>,
    ) -> Result<Option<T>> {
        if self.page.is_empty() && self.more {
            self.page = page(self.last.as_ref()).await?.into();
            self.last = self.page.back().cloned();
            self.more = self.last.is_some();
        }
        Ok(self.page.pop_front())
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            page: VecDeque::new(),
            last: None,
            more: false,
        }
    }
}
