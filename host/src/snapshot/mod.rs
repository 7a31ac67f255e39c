//! What the bytes mean: versions of an agent's state, with their history and integrity.
//!
//! A [`Store`] is everything in one storage; a [`Scope`] is what one agent, or one session of it, sees of it.
//! A save never overwrites: version N of a name is one immutable object, made by one exclusive create.
//!
//! ```
//! # use std::sync::Arc;
//! use persist_host::snapshot::{SaveOptions, Store};
//! use persist_host::storage::StorageConfig;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Store::new(StorageConfig::local(dir.path()).build()?);
//! let scope = store.scope("weather-bot", None)?;
//! scope.save("memory", "rain in Oslo".into(), SaveOptions::default()).await?;
//!
//! let snapshot = scope.load("memory", None).await?.expect("it was saved");
//! assert_eq!(&snapshot.state[..], b"rain in Oslo");
//! assert_eq!(snapshot.info.version, 1);
//! # Ok::<(), persist_host::snapshot::Error>(())
//! # }).unwrap();
//! ```

mod adapter;
mod ahead;
mod check;
mod clock;
mod commit;
mod compute;
mod error;
mod format;
mod gc;
mod heads;
mod info;
mod introduce;
mod name;
mod reader;
mod retention;
mod stored;
mod tend;
mod usage;
mod version;
mod walk;
mod writer;

pub use adapter::{Adapter, StateStream};
pub use check::{Checked, Finding, FindingKind, ReadData, Severity};
pub use error::{Error, Result};
pub use info::{Expect, Info, MAX_LABEL_BYTES, SaveOptions, Snapshot};
pub use name::{MAX_ENCODED, Name};
pub use reader::{Reader, Verified};
pub use retention::{Fate, Keep, Purge, Purged, Retention};
pub use stored::{Copied, Stored};
pub use usage::Usage;
pub use version::{MAX_VERSION, Version};
pub use walk::{Heads, NameHead, Past, Selection, Walk};
pub use writer::Writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::storage::{Entry, Key, List, Storage};
use clock::Moment;
use commit::Change;
use compute::compute;
use format::{Encoded, Encoder, Trailer};
use heads::{Head, Remembered, Seen};
use reader::Object;

/// The segment where a session's name would be, for what belongs to no session.
const NO_SESSION: &str = "~";

/// How often a read starts again because what it was about to read was pruned.
const MAX_REREADS: usize = 10;

/// Entries asked for where a page showed nothing of ours: what others put there must not cost a list for each.
const WIDE_PAGE: usize = 1000;

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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    storage: Arc<dyn Storage>,
    options: StoreOptions,
    /// Set once this process has seen that the storage keeps its word.
    introduced: OnceCell<()>,
    tending: tend::Tending,
    heads: Remembered,
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
    /// [`Error::Invalid`] where one of them is not a name.
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
    /// [`Error::Storage`].
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
    /// [`Error::Storage`].
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
    async fn names_of(
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
    async fn check_empty(&self) -> Result<()> {
        match self.shared.introduced.initialized() {
            true => Ok(()),
            false => introduce::check(&*self.shared.storage).await.map(drop),
        }
    }

    /// Names of directories; a page that holds nothing of ours is passed over, since an empty one means the end.
    async fn dirs(
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

/// What one agent, or one session of it, sees of a store: its own names. Clones share the store.
#[derive(Clone, Debug)]
pub struct Scope {
    store: Store,
    agent: Name,
    session: Option<Name>,
}

impl Scope {
    /// The agent.
    pub fn agent(&self) -> &Name {
        &self.agent
    }

    /// The session; none for what the agent keeps across sessions.
    pub fn session(&self) -> Option<&Name> {
        self.session.as_ref()
    }

    /// Saves `state` as the next version of `name`. Zero bytes are a state.
    ///
    /// # Errors
    /// [`Error::Conflict`] where `options.expect` does not hold; [`Error::Invalid`] and [`Error::TooLarge`] for
    /// what cannot be kept; [`Error::UnknownOutcome`] where no answer came; [`Error::Storage`]. The outcome of a future that is
    /// dropped is unknown, too: this holds for every change.
    pub async fn save(&self, name: &str, state: Bytes, options: SaveOptions) -> Result<Info> {
        let name = Name::new(name)?;
        options.check()?;
        let (size, max) = (state.len() as u64, self.max_state());
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        self.introduce().await?;
        let mut change = Change::new(
            self,
            &name,
            options.expect,
            options.media_type,
            options.labels,
        );
        change.check_early().await?;
        let encode = move || Ok(Encoder::encode(&state));
        let (bytes, encoded) = compute(size, encode).await?;
        change.keep(bytes);
        change.finish(&encoded).await
    }

    /// Begins a state that is saved piece by piece.
    ///
    /// # Errors
    /// As [`Scope::save`].
    pub async fn writer(&self, name: &str, options: SaveOptions) -> Result<Writer> {
        Writer::open(self, &Name::new(name)?, options).await
    }

    /// As [`Scope::writer`], where [`Expect::Any`] means the head that is there now: what `persist:snapshot` promises its
    /// guests, since they cannot write again what they have written.
    #[cfg(feature = "wasm")]
    pub(crate) async fn writer_from_head(
        &self,
        name: &str,
        mut options: SaveOptions,
    ) -> Result<Writer> {
        let name = Name::new(name)?;
        if options.expect == Expect::Any {
            let head = self.head(&name).await?;
            options.expect = head.map_or(Expect::Absent, |head| Expect::Version(head.version));
        }
        Writer::open(self, &name, options).await
    }

    /// Loads the newest version, or version `at`, and verifies every byte of it. None: nothing was saved, or
    /// that version is a tombstone.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no version `at`; [`Error::Corrupt`] where what is stored is not what
    /// was saved; [`Error::TooLarge`] where the state is over the limit of the store; [`Error::Storage`].
    pub async fn load(&self, name: &str, at: Option<Version>) -> Result<Option<Snapshot>> {
        self.load_at_most(name, at, self.max_state()).await
    }

    /// As [`Scope::load`], where a state of more than `max` bytes is refused before it is read.
    pub(crate) async fn load_at_most(
        &self,
        name: &str,
        at: Option<Version>,
        max: u64,
    ) -> Result<Option<Snapshot>> {
        let name = Name::new(name)?;
        match self.open(&name, at).await? {
            Some((version, object)) if !object.trailer.is_tombstone() => {
                match object.trailer.metadata.size {
                    size if size > max => Err(Error::TooLarge { size, max }),
                    _ => object.load(&name, version).await.map(Some),
                }
            }
            Some((_, tombstone)) => {
                tombstone.frame().await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Opens the newest version, or version `at`, for reading in pieces. None: as [`Scope::load`].
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn reader(&self, name: &str, at: Option<Version>) -> Result<Option<Reader>> {
        let name = Name::new(name)?;
        let object = self.open(&name, at).await?;
        Ok(object
            .filter(|(_, object)| !object.trailer.is_tombstone())
            .map(|(version, object)| Reader::new(object, name.as_str(), version)))
    }

    /// What is known of the newest version, or of version `at`, tombstones too. None: nothing was saved.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn stat(&self, name: &str, at: Option<Version>) -> Result<Option<Info>> {
        let name = Name::new(name)?;
        let object = self.open(&name, at).await?;
        Ok(object.map(|(version, object)| object.trailer.info(name.as_str(), version)))
    }

    /// Reads the newest version, or version `at`, and verifies every byte of it, in bounded memory. None: as [`Scope::load`],
    /// but a tombstone is verified, too.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn verify(&self, name: &str, at: Option<Version>) -> Result<Option<Verified>> {
        let name = Name::new(name)?;
        let Some((version, object)) = self.open(&name, at).await? else {
            return Ok(None);
        };
        let verified = object.verify(self, &name, version).await?;
        Ok(Some(verified))
    }

    /// Numbers of the versions below `before`, or of all, newest first, tombstones too; only an empty page is
    /// the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `limit` is 0; [`Error::Storage`].
    pub async fn versions(
        &self,
        name: &str,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Vec<Version>> {
        self.versions_of(&Name::new(name)?, before, limit).await
    }

    /// What is known of the versions below `before`, or of all, newest first, tombstones too; only an empty page
    /// is the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `limit` is 0; [`Error::Corrupt`] where one cannot be read, with its key;
    /// [`Error::Storage`].
    pub async fn history(
        &self,
        name: &str,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Vec<Info>> {
        let name = Name::new(name)?;
        let mut before = before;
        loop {
            let versions = self.versions_of(&name, before, limit).await?;
            let mut page = Vec::with_capacity(versions.len());
            for version in &versions {
                match self.trailer(&name, *version).await {
                    Ok(trailer) => page.push(trailer.info(name.as_str(), *version)),
                    // Pruned since it was listed.
                    Err(error) if error.is_missing_object() => {}
                    Err(error) => return Err(error),
                }
            }
            if !page.is_empty() || versions.is_empty() {
                return Ok(page);
            }
            before = versions.last().copied();
        }
    }

    /// Names that begin with `prefix`, deleted ones too, after `after`; only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `limit` is 0, or `after` is not a name; [`Error::Storage`].
    pub async fn names(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Name>> {
        check_limit(limit)?;
        if prefix.len() > MAX_ENCODED {
            return Ok(Vec::new());
        }
        let after = after.map(Name::new).transpose()?;
        let after = after.as_ref().map(Name::encoded);
        let prefix = name::encode(prefix);
        self.store
            .names_of(&self.dir(), &prefix, after, limit)
            .await
    }

    /// Makes a tombstone the next version. [`Scope::restore`] undoes it until old versions are pruned.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to delete; then as [`Scope::save`].
    pub async fn delete(&self, name: &str, expect: Expect) -> Result<Info> {
        let name = Name::new(name)?;
        let mut change = Change::new(self, &name, expect, None, Vec::new());
        // What is known may be out of date, and deleting nothing must write nothing.
        let head = self.head(&name).await?;
        change.check_early().await?;
        let Some(head) = head else {
            return Err(self.missing(&name, None));
        };
        // A head that cannot be read, for whatever reason, must not keep its name from being deleted.
        if let Ok(trailer) = self.trailer(&name, head.version).await
            && trailer.is_tombstone()
        {
            return Err(self.missing(&name, None));
        }
        self.introduce().await?;
        let (bytes, tombstone) = Encoded::tombstone();
        change.keep(bytes);
        change.finish(&tombstone).await
    }

    /// Saves the state of `version` again as the next version.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or it is a tombstone; [`Error::Corrupt`] where it
    /// fails verification; then as [`Scope::save`].
    pub async fn restore(&self, name: &str, version: Version, expect: Expect) -> Result<Info> {
        let name = Name::new(name)?;
        let origin = ("restored-from", version.to_string());
        self.copy(&name, Some(version), (self, &name), expect, origin)
            .await
    }

    /// Saves the newest state of `name`, or that of version `at`, as the next version of `new_name`.
    ///
    /// # Errors
    /// As [`Scope::restore`].
    pub async fn fork(
        &self,
        name: &str,
        at: Option<Version>,
        new_name: &str,
        expect: Expect,
    ) -> Result<Info> {
        let (name, new_name) = (Name::new(name)?, Name::new(new_name)?);
        let origin = ("forked-from", name.as_str().to_owned());
        self.copy(&name, at, (self, &new_name), expect, origin)
            .await
    }

    async fn copy(
        &self,
        name: &Name,
        at: Option<Version>,
        (to, new_name): (&Self, &Name),
        expect: Expect,
        (label, value): (&str, String),
    ) -> Result<Info> {
        let object = self.open(name, at).await?;
        let Some((_, object)) = object.filter(|(_, object)| !object.trailer.is_tombstone()) else {
            return Err(self.missing(name, at));
        };
        to.introduce().await?;
        let metadata = &object.trailer.metadata;
        let (size, max) = (metadata.size, self.max_state());
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        let own_labels = metadata
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with(info::HOST_LABEL));
        let mut labels: Vec<_> = own_labels.cloned().collect();
        labels.push((format!("{}{label}", info::HOST_LABEL), value));
        let media_type = metadata.media_type.clone();
        let mut change = Change::new(to, new_name, expect, media_type, labels);
        change.check_early().await?;
        let encoded = object.copy(&mut change).await?;
        change.finish(&encoded).await
    }

    /// The newest version of a name: one list of one key, at any length of history.
    pub(crate) async fn head(&self, name: &Name) -> Result<Option<Head>> {
        Ok(self.look_up(name).await?.head)
    }

    /// The same, and when it was so. The next change need not look.
    pub(crate) async fn look_up(&self, name: &Name) -> Result<Seen> {
        let since = Moment::now();
        let newest = self.versions_of(name, None, 1).await?;
        let head = newest.first().map(|&version| Head::of(version));
        let seen = Seen { head, since };
        self.heads().found(&self.dir_of(name), &seen);
        Ok(seen)
    }

    async fn versions_of(
        &self,
        name: &Name,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Vec<Version>> {
        check_limit(limit)?;
        let dir = self.dir_of(name);
        let mut after = match before {
            None => None,
            Some(0 | 1) => return Ok(Vec::new()),
            Some(before) => Some(Entry::object(version::segment(before.min(MAX_VERSION)))),
        };
        // No version is above the highest: "below it or all" is then the same list from the beginning.
        if before.is_some_and(|before| before > MAX_VERSION) {
            after = None;
        }
        let mut at_once = limit;
        loop {
            let list = List {
                dir: &dir,
                prefix: "",
                after,
                limit: at_once,
                facts: false,
            };
            let page = self.storage().list(&list).await?;
            after = page.entries.last().cloned();
            let versions: Vec<_> = page
                .entries
                .iter()
                .filter_map(|entry| match entry {
                    Entry::Object(object) => version::parse(&object.name),
                    Entry::Dir(_) => None,
                })
                .collect();
            if versions.is_empty() && page.more {
                at_once = limit.max(WIDE_PAGE);
                continue;
            }
            if versions.is_empty() {
                self.store.check_empty().await?;
            }
            return Ok(versions.into_iter().take(limit).collect());
        }
    }

    pub(crate) async fn trailer(&self, name: &Name, version: Version) -> Result<Trailer> {
        Ok(self.object(name, version).await?.trailer)
    }

    async fn object(&self, name: &Name, version: Version) -> Result<Object> {
        Object::open(&self.store.shared.storage, &self.key(name, version)?).await
    }

    /// The newest version or version `at`, with its trailer verified. None: nothing was saved.
    async fn open(&self, name: &Name, at: Option<Version>) -> Result<Option<(Version, Object)>> {
        if let Some(version) = at {
            if !(1..=MAX_VERSION).contains(&version) {
                return Err(self.missing(name, at));
            }
            return match self.object(name, version).await {
                Ok(object) => Ok(Some((version, object))),
                Err(error) if error.is_missing_object() => {
                    self.store.check_empty().await?;
                    Err(self.missing(name, at))
                }
                Err(error) => Err(error),
            };
        }
        for _ in 0..MAX_REREADS {
            let Some(head) = self.head(name).await? else {
                return Ok(None);
            };
            match self.object(name, head.version).await {
                Ok(object) => return Ok(Some((head.version, object))),
                // It is not the head any more, and was pruned: there is a newer one.
                Err(error) if error.is_missing_object() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::corrupt(format!(
            "the newest version of {name} is listed and cannot be found"
        )))
    }

    fn missing(&self, name: &Name, at: Option<Version>) -> Error {
        let agent = match &self.session {
            Some(session) => format!("{} in session {session}", self.agent),
            None => self.agent.to_string(),
        };
        Error::NotFound(match at {
            Some(version) => format!("{name} of {agent} has no version {version}"),
            None => format!("nothing is saved as {name} by {agent}"),
        })
    }

    pub(crate) fn key(&self, name: &Name, version: Version) -> Result<Key> {
        let dir = self.dir_of(name);
        Ok(Key::new(format!("{dir}/{}", version::segment(version)))?)
    }

    /// The directory of a name's versions.
    fn dir_of(&self, name: &Name) -> String {
        format!("{}/{}", self.dir(), name.encoded())
    }

    fn dir(&self) -> String {
        let session = session_segment(self.session.as_ref());
        format!("{}/{session}", self.agent.encoded())
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.store.shared.storage
    }

    fn heads(&self) -> &Remembered {
        &self.store.shared.heads
    }

    pub(crate) fn max_state(&self) -> u64 {
        self.store.shared.options.max_state
    }

    fn grace(&self) -> Duration {
        self.store.shared.options.grace
    }

    /// Before the first write of this process.
    pub(crate) async fn introduce(&self) -> Result<()> {
        let introduced = &self.store.shared.introduced;
        introduced
            .get_or_try_init(|| introduce::before_writing(self.storage()))
            .await
            .copied()
    }
}

fn check_limit(limit: usize) -> Result<()> {
    match limit {
        0 => Err(Error::Invalid(
            "a limit is 0; a page has at least one item".into(),
        )),
        _ => Ok(()),
    }
}

fn session_segment(session: Option<&Name>) -> &str {
    session.map_or(NO_SESSION, Name::encoded)
}
