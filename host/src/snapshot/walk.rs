//! The names of a store, or of a part of it, one after the other, in bounded memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::ordered_tasks::OrderedTasks;
use super::{Error, Info, Name, Result, Scope, Store, Version, layout};

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
    /// Names that match one or more of these patterns. None: no name.
    Matching(Vec<NamePattern>),
}

/// A condition on each part of an address.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::snapshot::{Matcher, Name, NamePattern, SaveOptions, Selection};
/// # use persist_host::snapshot::Store;
/// # use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = Store::new(Arc::new(Memory::new()));
/// # for agent in ["bot-1", "bot-2", "other"] {
/// #     store.scope(agent, None)?.save("memory", "x".into(), SaveOptions::default()).await?;
/// # }
/// let bots = Selection::Matching(vec![NamePattern {
///     agent: Matcher::matching(|agent: &Name| agent.as_str().starts_with("bot-")),
///     session: Matcher::Only(None),
///     name: Matcher::Any,
/// }]);
/// let mut walk = store.walk(&bots);
/// let mut found = 0;
/// while let Some((scope, name)) = walk.next().await? {
///     println!("{} saved {name}", scope.agent());
///     found += 1;
/// }
/// assert_eq!(found, 2);
/// # Ok::<(), persist_host::snapshot::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// Condition on the agent.
    pub agent: Matcher<Name>,
    /// Condition on the session; None stands for what belongs to no session.
    pub session: Matcher<Option<Name>>,
    /// Condition on the name.
    pub name: Matcher<Name>,
}

/// A condition on one part of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher<T> {
    /// Every value.
    Any,
    /// One value. It is not looked for among the others.
    Only(T),
    /// The values that a function accepts.
    Matching(Predicate<T>),
}

/// A function that accepts or rejects a value. Two are equal only if they are clones of each other.
pub struct Predicate<T>(Arc<dyn Fn(&T) -> bool + Send + Sync>);

impl<T> Matcher<T> {
    /// Matches the values that `accepts` returns true for.
    pub fn matching(accepts: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self::Matching(Predicate(Arc::new(accepts)))
    }

    /// Returns true if a value matches.
    pub fn matches(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        match self {
            Self::Any => true,
            Self::Only(one) => one == value,
            Self::Matching(predicate) => predicate.0(value),
        }
    }

    fn only(&self) -> Option<&T> {
        match self {
            Self::Only(one) => Some(one),
            _ => None,
        }
    }
}

impl<T> Clone for Predicate<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Predicate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predicate").finish_non_exhaustive()
    }
}

impl<T> PartialEq for Predicate<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Predicate<T> {}

impl NamePattern {
    /// Returns true if a name of a scope matches.
    pub fn matches(&self, scope: &Scope, name: &Name) -> bool {
        self.agent.matches(scope.agent())
            && self.session.matches(&scope.session().cloned())
            && self.name.matches(name)
    }
}

impl Selection {
    /// Returns the patterns of this selection.
    pub fn into_patterns(self) -> Vec<NamePattern> {
        let (agent, session, name) = match self {
            Self::All => (Matcher::Any, Matcher::Any, Matcher::Any),
            Self::Agent(agent) => (Matcher::Only(agent), Matcher::Any, Matcher::Any),
            Self::Session(agent, session) => {
                (Matcher::Only(agent), Matcher::Only(session), Matcher::Any)
            }
            Self::Name(agent, session, name) => (
                Matcher::Only(agent),
                Matcher::Only(session),
                Matcher::Only(name),
            ),
            Self::Matching(patterns) => return patterns,
        };
        vec![NamePattern {
            agent,
            session,
            name,
        }]
    }

    /// Returns the names of all `selections`, each name once.
    #[must_use]
    pub fn union(selections: impl IntoIterator<Item = Self>) -> Self {
        let mut selections: Vec<_> = selections.into_iter().collect();
        match selections.len() {
            1 => selections.remove(0),
            _ if selections.contains(&Self::All) => Self::All,
            _ => {
                let patterns = selections.into_iter().flat_map(Self::into_patterns);
                Self::Matching(patterns.collect())
            }
        }
    }
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
    patterns: Vec<NamePattern>,
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
        let patterns = selection.clone().into_patterns();
        Walk {
            store: self.clone(),
            agents: Level::of(patterns.iter().map(|pattern| &pattern.agent), Name::encoded),
            patterns,
            agent: None,
            sessions: Level::default(),
            scope: None,
            names: Level::default(),
        }
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
                    Ok(Some(name)) if self.selects(scope, &name) => {
                        return Ok(Some((scope.clone(), name)));
                    }
                    Ok(Some(_)) => continue,
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
                        let of_session = self.patterns.iter().filter(|pattern| {
                            pattern.agent.matches(agent) && pattern.session.matches(&session)
                        });
                        let names = of_session.map(|pattern| &pattern.name);
                        self.names = Level::of(names, Name::encoded);
                        self.scope = Some(self.store.inner.scope(agent, session).into());
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
            let of_agent = self.patterns.iter();
            let of_agent = of_agent.filter(|pattern| pattern.agent.matches(&agent));
            let sessions = of_agent.map(|pattern| &pattern.session);
            self.sessions = Level::of(sessions, |session| {
                layout::session_segment(session.as_ref())
            });
            self.agent = Some(agent);
        }
    }

    fn selects(&self, scope: &Scope, name: &Name) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| pattern.matches(scope, name))
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
            let page = scope.observed_versions_of(&self.name, self.before, limit);
            let page = page.await?;
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
    /// Returns the level of the entries that may match: only named entries, or a list of all.
    /// `segment` returns the segment of an entry's key, by which a storage orders its lists.
    fn of<'a, S: AsRef<str> + 'a>(
        matchers: impl Iterator<Item = &'a Matcher<T>>,
        segment: impl Fn(&'a T) -> S,
    ) -> Self
    where
        T: 'a,
    {
        let only: Option<Vec<_>> = matchers.map(Matcher::only).collect();
        let Some(mut only) = only else {
            return Self {
                more: true,
                ..Self::default()
            };
        };
        let key = |entry: &&'a T| format!("{}/", segment(entry).as_ref());
        only.sort_by_cached_key(key);
        only.dedup_by_key(|entry| key(entry));
        Self {
            page: only.into_iter().cloned().collect(),
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
