//! Operations of one agent, or of one session of it.

use bytes::Bytes;

use super::commit::Commit;
use super::find::PrunedReadRetry;
use super::format::{Encoded, Encoder};
use super::head_cache::HeadCache;
use super::offload::spawn_cpu;
use super::reader::Object;
use super::{
    Error, Expect, Info, MAX_ENCODED, Name, Reader, Result, SaveOptions, Snapshot, Store,
    VerifyReport, Version, Writer, check_limit, info, layout, name,
};
use crate::storage::{Key, Storage};

/// View of a store for one agent, or for one session of it: its own names. Clones share the store.
#[derive(Clone, Debug)]
pub struct Scope {
    pub(super) store: Store,
    pub(super) agent: Name,
    pub(super) session: Option<Name>,
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
    /// [`Error::Conflict`] where `options.expect` does not hold; [`Error::Invalid`] and
    /// [`Error::TooLarge`] for what cannot be kept; [`Error::UnknownOutcome`] where no answer came;
    /// [`Error::Storage`]. The outcome of a future that is dropped is unknown, too: this holds for
    /// every change.
    pub async fn save(&self, name: &str, state: Bytes, options: SaveOptions) -> Result<Info> {
        let name = Name::new(name)?;
        options.check()?;
        self.save_checked(&name, state, options).await
    }

    /// Saves as [`Scope::save`] does, with options that were checked before.
    pub(crate) async fn save_checked(
        &self,
        name: &Name,
        state: Bytes,
        options: SaveOptions,
    ) -> Result<Info> {
        let size = state.len() as u64;
        let max = self.max_state();
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        self.prepare_change().await?;
        let mut commit = Commit::new(
            self,
            name,
            options.expect,
            options.media_type,
            options.labels,
        );
        commit.check_early().await?;
        let encode = move || Ok(Encoder::encode(&state));
        let (bytes, encoded) = spawn_cpu(size, encode).await?;
        commit.buffer(bytes);
        commit.finish(&encoded).await
    }

    /// Begins a state that is saved piece by piece.
    ///
    /// # Errors
    /// As [`Scope::save`].
    pub async fn writer(&self, name: &str, options: SaveOptions) -> Result<Writer> {
        let name = Name::new(name)?;
        options.check()?;
        Writer::open(self, &name, options).await
    }

    /// Opens a writer as [`Scope::writer`] does, but takes [`Expect::Any`] to mean the head that is
    /// there now: `persist:snapshot` promises this to its guests, since they cannot write again
    /// what they have written. The options were checked before.
    #[cfg(feature = "guest")]
    pub(crate) async fn writer_from_head(
        &self,
        name: &Name,
        mut options: SaveOptions,
    ) -> Result<Writer> {
        if options.expect == Expect::Any {
            let head = self.head(name).await?;
            options.expect = head.map_or(Expect::Absent, |head| Expect::Version(head.version));
        }
        Writer::open(self, name, options).await
    }

    /// Loads the newest version, or version `at`, and verifies every byte of it. None: nothing was
    /// saved, or that version is a tombstone.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no version `at`; [`Error::Corrupt`] where what is stored
    /// is not what was saved; [`Error::TooLarge`] where the state is over the limit of the store;
    /// [`Error::Storage`].
    pub async fn load(&self, name: &str, at: Option<Version>) -> Result<Option<Snapshot>> {
        self.load_at_most(name, at, self.max_state()).await
    }

    /// Loads a state as [`Scope::load`] does, but refuses a state of more than `max` bytes before
    /// it is read.
    pub(crate) async fn load_at_most(
        &self,
        name: &str,
        at: Option<Version>,
        max: u64,
    ) -> Result<Option<Snapshot>> {
        let name = Name::new(name)?;
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(&name, at).await? else {
                return Ok(None);
            };
            if object.trailer.is_tombstone() {
                object.frame().await?;
                return Ok(None);
            }
            let size = object.trailer.metadata.size;
            if size > max {
                return Err(Error::TooLarge { size, max });
            }
            match object.load(&name, version).await {
                Err(error) if rereads.is_due(&error) => {}
                loaded => return loaded.map(Some),
            }
        }
    }

    /// Opens the newest version, or version `at`, for reading in pieces. None: as [`Scope::load`].
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn reader(&self, name: &str, at: Option<Version>) -> Result<Option<Reader>> {
        let name = Name::new(name)?;
        let Some((version, object)) = self.open(&name, at).await? else {
            return Ok(None);
        };
        if object.trailer.is_tombstone() {
            object.frame().await?;
            return Ok(None);
        }
        Ok(Some(Reader::new(object, name.as_str(), version)))
    }

    /// Returns the information about the newest version, or about version `at`, tombstones too.
    /// Returns `None` if nothing was saved.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn stat(&self, name: &str, at: Option<Version>) -> Result<Option<Info>> {
        let name = Name::new(name)?;
        let object = self.open(&name, at).await?;
        Ok(object.map(|(version, object)| object.trailer.info(name.as_str(), version)))
    }

    /// Reads the newest version, or version `at`, and verifies every byte of it, in bounded memory.
    /// None: as [`Scope::load`], but a tombstone is verified, too.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn verify(&self, name: &str, at: Option<Version>) -> Result<Option<VerifyReport>> {
        let name = Name::new(name)?;
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(&name, at).await? else {
                return Ok(None);
            };
            match object.verify(&name, version).await {
                Err(error) if rereads.is_due(&error) => {}
                verified => return verified.map(Some),
            }
        }
    }

    /// Numbers of the versions below `before`, or of all, newest first, tombstones too; only an
    /// empty page is the end.
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

    /// Returns the information about the versions below `before`, or about all, newest first,
    /// tombstones too; only an empty page is the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `limit` is 0; [`Error::Corrupt`] where one cannot be read, with its
    /// key; [`Error::Storage`].
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

    /// Names that begin with `prefix`, deleted ones too, after `after`; only an empty page is the
    /// end.
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

    /// Makes a tombstone the next version. [`Scope::restore`] undoes it until old versions are
    /// pruned.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to delete; then as [`Scope::save`].
    pub async fn delete(&self, name: &str, expect: Expect) -> Result<Info> {
        let name = Name::new(name)?;
        let mut commit = Commit::new(self, &name, expect, None, Vec::new());
        // What is known may be out of date, and deleting nothing must write nothing.
        let head = self.head(&name).await?;
        commit.check_early().await?;
        let Some(head) = head else {
            return Err(self.missing(&name, None));
        };
        // A head that cannot be read, for whatever reason, must not keep its name from being
        // deleted.
        if let Ok(trailer) = self.trailer(&name, head.version).await
            && trailer.is_tombstone()
        {
            return Err(self.deleted_already(&name, head.version));
        }
        self.prepare_change().await?;
        let (bytes, tombstone) = Encoded::tombstone();
        commit.buffer(bytes);
        commit.finish(&tombstone).await
    }

    /// Saves the state of `version` again as the next version.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or it is a tombstone; [`Error::Corrupt`]
    /// where it fails verification; then as [`Scope::save`].
    pub async fn restore(&self, name: &str, version: Version, expect: Expect) -> Result<Info> {
        let name = Name::new(name)?;
        let origin = ("restored-from", version.to_string());
        self.copy(&name, Some(version), (self, &name), expect, origin)
            .await
    }

    /// Saves the newest state of `name`, or that of version `at`, as the next version of
    /// `new_name`.
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
        let name = Name::new(name)?;
        let new_name = Name::new(new_name)?;
        let origin = ("forked-from", name.as_str().to_owned());
        self.copy(&name, at, (self, &new_name), expect, origin)
            .await
    }

    /// Saves the state of a misplaced version, the newest or version `at`, as the next version of
    /// the name where its file lies. Returns the new version, and the address that the file was
    /// saved at, which is also kept as the label `persist.adopted-from`. The file itself stays
    /// where it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the version is in its place; then as [`Scope::restore`].
    pub async fn adopt(
        &self,
        name: &str,
        at: Option<Version>,
        expect: Expect,
    ) -> Result<(Info, String)> {
        let name = Name::new(name)?;
        let head = self.head(&name).await?.map(|head| head.version);
        let version = at.or(head).ok_or_else(|| self.missing(&name, at))?;
        let object = match self.object_of_any(&name, version).await {
            Err(error) if error.is_missing_object() => return Err(self.missing(&name, at)),
            object => object?,
        };
        if object.check_place(self, &name, version).is_ok() {
            let what = format!("nothing to adopt: version {version} of {name} is not misplaced");
            return Err(Error::Invalid(what));
        }
        object.frame().await?;
        if object.trailer.is_tombstone() {
            return Err(self.deleted(&name, version));
        }
        self.prepare_change().await?;
        let saved_as = object.saved_as();
        let origin = (
            format!("{}adopted-from", info::HOST_LABEL),
            saved_as.clone(),
        );
        let mut commit = self.change_of(&object, (self, &name), expect, &origin)?;
        commit.check_early().await?;
        let encoded = object.copy(&mut commit).await?;
        Ok((commit.finish(&encoded).await?, saved_as))
    }

    pub(super) async fn copy(
        &self,
        name: &Name,
        at: Option<Version>,
        (to, new_name): (&Self, &Name),
        expect: Expect,
        (label, value): (&str, String),
    ) -> Result<Info> {
        let origin = (format!("{}{label}", info::HOST_LABEL), value);
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(name, at).await? else {
                return Err(self.missing(name, at));
            };
            if object.trailer.is_tombstone() {
                object.frame().await?;
                return Err(self.deleted(name, version));
            }
            to.prepare_change().await?;
            let mut commit = self.change_of(&object, (to, new_name), expect, &origin)?;
            commit.check_early().await?;
            match object.copy(&mut commit).await {
                Err(error) if rereads.is_due(&error) => {}
                encoded => return commit.finish(&encoded?).await,
            }
        }
    }

    /// The change that saves this state as the next version of another name.
    pub(super) fn change_of(
        &self,
        object: &Object,
        (to, new_name): (&Self, &Name),
        expect: Expect,
        origin: &(String, String),
    ) -> Result<Commit> {
        let metadata = &object.trailer.metadata;
        let size = metadata.size;
        let max = self.max_state();
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        let own_labels = metadata
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with(info::HOST_LABEL));
        let mut labels: Vec<_> = own_labels.cloned().collect();
        labels.push(origin.clone());
        let media_type = metadata.media_type.clone();
        Ok(Commit::new(to, new_name, expect, media_type, labels))
    }

    pub(crate) fn key(&self, name: &Name, version: Version) -> Result<Key> {
        let dir = self.dir_of(name);
        Ok(Key::new(format!(
            "{dir}/{}",
            layout::version_segment(version)
        ))?)
    }

    /// The directory of a name's versions.
    pub(super) fn dir_of(&self, name: &Name) -> String {
        layout::name_dir(&self.agent, self.session.as_ref(), name)
    }

    pub(super) fn dir(&self) -> String {
        layout::scope_dir(&self.agent, self.session.as_ref())
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.store.shared.storage
    }

    pub(super) fn heads(&self) -> &HeadCache {
        &self.store.shared.heads
    }

    pub(crate) fn max_state(&self) -> u64 {
        self.store.shared.options.max_state
    }

    /// Prepares a change: makes the store where it is missing, and reads its policy where that is
    /// due.
    pub(crate) async fn prepare_change(&self) -> Result<()> {
        self.ensure_initialized().await?;
        self.store.refresh_policy().await
    }

    pub(super) async fn ensure_initialized(&self) -> Result<()> {
        self.store.ensure_initialized().await
    }

    /// Returns whether this is the scope of the store's own names.
    pub(super) fn is_reserved(&self) -> bool {
        self.agent == Name::reserved()
    }
}
