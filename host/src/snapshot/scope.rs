//! Operations of one agent, or of one session of it.

use std::time::Duration;

use bytes::Bytes;

use super::history::Age;
#[cfg(feature = "guest")]
use super::history::Removable;
use super::shared::ScopeRef;
use super::{
    Error, Expect, Expiry, Info, MAX_ENCODED, Name, PruneDecision, Purge, PurgeReport, Reader,
    Result, Retention, SaveOptions, Snapshot, VerifyReport, Version, Writer, check_limit, name,
};

/// View of a store for one agent, or for one session of it: its own names. Clones share the store.
#[derive(Clone, Debug)]
pub struct Scope {
    pub(crate) inner: ScopeRef,
}

impl From<ScopeRef> for Scope {
    fn from(inner: ScopeRef) -> Self {
        Self { inner }
    }
}

impl Scope {
    /// The agent.
    pub fn agent(&self) -> &Name {
        self.inner.agent()
    }

    /// The session; none for what the agent keeps across sessions.
    pub fn session(&self) -> Option<&Name> {
        self.inner.session()
    }

    /// Returns this scope with labels for each version that it creates from now on, beside those
    /// of [`StoreOptions::host_labels`](super::StoreOptions::host_labels), whose rules hold for
    /// them, too: keys begin with `persist.`, and a version whose labels would be too large gets
    /// none of them.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use persist_host::snapshot::{SaveOptions, Store};
    /// # use persist_host::storage::Memory;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let scope = Store::new(Arc::new(Memory::new())).scope("bot", None)?;
    /// let labels = [("persist.request".to_owned(), "42".to_owned())];
    /// let of_request = scope.with_host_labels(labels);
    /// let info = of_request.save("memory", "x".into(), SaveOptions::default()).await?;
    /// assert_eq!(info.labels, [("persist.request".into(), "42".into())]);
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_host_labels(&self, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut scope = self.clone();
        scope.inner.labels = labels.into_iter().collect();
        scope
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
        self.inner.save(&name, state, options).await
    }

    /// Saves as [`Scope::save`] does, with options that were checked before.
    #[cfg(feature = "guest")]
    pub(crate) async fn save_checked(
        &self,
        name: &Name,
        state: Bytes,
        options: SaveOptions,
    ) -> Result<Info> {
        self.inner.save(name, state, options).await
    }

    /// Begins a state that is saved piece by piece.
    ///
    /// # Errors
    /// As [`Scope::save`].
    pub async fn writer(&self, name: &str, options: SaveOptions) -> Result<Writer> {
        let name = Name::new(name)?;
        options.check()?;
        Writer::open(&self.inner, &name, options).await
    }

    /// Opens a writer by [`Writer::open_from_head`], with options that were checked before.
    #[cfg(feature = "guest")]
    pub(crate) async fn writer_from_head(
        &self,
        name: &Name,
        options: SaveOptions,
    ) -> Result<Writer> {
        Writer::open_from_head(&self.inner, name, options).await
    }

    /// Loads the newest version, or version `at`, and verifies every byte of it. None: nothing was
    /// saved, or that version is a tombstone.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no version `at`; [`Error::Corrupt`] where what is stored
    /// is not what was saved; [`Error::TooLarge`] where the state is over the limit of the store;
    /// [`Error::Storage`].
    pub async fn load(&self, name: &str, at: Option<Version>) -> Result<Option<Snapshot>> {
        let max = self.inner.max_state();
        self.inner.load_at_most(&Name::new(name)?, at, max).await
    }

    /// Loads a state as [`Scope::load`] does, but refuses a state of more than `max` bytes before
    /// it is read.
    #[cfg(feature = "guest")]
    pub(crate) async fn load_at_most(
        &self,
        name: &str,
        at: Option<Version>,
        max: u64,
    ) -> Result<Option<Snapshot>> {
        self.inner.load_at_most(&Name::new(name)?, at, max).await
    }

    /// Opens the newest version, or version `at`, for reading in pieces. None: as [`Scope::load`].
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn reader(&self, name: &str, at: Option<Version>) -> Result<Option<Reader>> {
        self.inner.reader(&Name::new(name)?, at).await
    }

    /// Returns the information about the newest version, or about version `at`, tombstones too.
    /// Returns `None` if nothing was saved.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn stat(&self, name: &str, at: Option<Version>) -> Result<Option<Info>> {
        self.inner.stat(&Name::new(name)?, at).await
    }

    /// Reads the newest version, or version `at`, and verifies every byte of it, in bounded memory.
    /// None: as [`Scope::load`], but a tombstone is verified, too.
    ///
    /// # Errors
    /// As [`Scope::load`].
    pub async fn verify(&self, name: &str, at: Option<Version>) -> Result<Option<VerifyReport>> {
        self.inner.verify(&Name::new(name)?, at).await
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
        self.inner
            .observed_versions_of(&Name::new(name)?, before, limit)
            .await
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
        self.inner.history(&Name::new(name)?, before, limit).await
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
        self.inner
            .store
            .names_of(&self.inner.dir(), &prefix, after, limit)
            .await
    }

    /// Makes a tombstone the next version. [`Scope::restore`] undoes it until old versions are
    /// pruned.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to delete; then as [`Scope::save`].
    pub async fn delete(&self, name: &str, expect: Expect) -> Result<Info> {
        self.inner.delete(&Name::new(name)?, expect).await
    }

    /// Saves the state of `version` again as the next version.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or it is a tombstone; [`Error::Corrupt`]
    /// where it fails verification; then as [`Scope::save`].
    pub async fn restore(&self, name: &str, version: Version, expect: Expect) -> Result<Info> {
        self.inner.restore(&Name::new(name)?, version, expect).await
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
        self.fork_to(name, at, self, new_name, expect).await
    }

    /// Saves the newest state of `name`, or that of version `at`, as the next version of `new_name`
    /// in another scope of the same store. The label `persist.forked-from` tells the address and
    /// the version that the state comes from.
    ///
    /// # Errors
    /// As [`Scope::restore`].
    pub async fn fork_to(
        &self,
        name: &str,
        at: Option<Version>,
        to: &Self,
        new_name: &str,
        expect: Expect,
    ) -> Result<Info> {
        let name = Name::new(name)?;
        let new_name = Name::new(new_name)?;
        self.inner
            .fork(&name, at, (&to.inner, &new_name), expect)
            .await
    }

    /// Saves every version of `name` again, the oldest first, as versions of `new_name` in another
    /// scope of the same store, where no state may be saved. Versions keep their times, and
    /// tombstones and pins are copied; version numbers start after the newest there. `each` is told
    /// of each version here, with its copy or with the damage that it was left out for. Returns the
    /// newest version here, and its copy: a rename then deletes `name` if that version is still the
    /// newest.
    ///
    /// # Errors
    /// [`Error::Conflict`] where `new_name` has a state, or gets one meanwhile; then as
    /// [`Scope::restore`] for the newest version. Copies that were made before an error stay.
    pub async fn fork_history_to(
        &self,
        name: &str,
        to: &Self,
        new_name: &str,
        each: impl FnMut(Version, std::result::Result<&Info, Error>),
    ) -> Result<(Version, Info)> {
        let name = Name::new(name)?;
        let new_name = Name::new(new_name)?;
        let to = (&to.inner, &new_name);
        self.inner.fork_history(&name, to, each).await
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
        self.inner.adopt(&Name::new(name)?, at, expect).await
    }

    /// Returns what [`Scope::prune`] would do, newest version first.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where the storage does not tell when its objects
    /// were made.
    pub async fn plan_prune(
        &self,
        name: &str,
        retention: &Retention,
    ) -> Result<Vec<PruneDecision>> {
        self.inner
            .fates(&Name::new(name)?, retention, Age::Planned(None))
            .await
    }

    /// Plans as [`Scope::plan_prune`] does for [`Scope::prune_with_hosts_stopped`].
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn plan_prune_with_hosts_stopped(
        &self,
        name: &str,
        retention: &Retention,
        grace: Duration,
    ) -> Result<Vec<PruneDecision>> {
        self.inner
            .fates(&Name::new(name)?, retention, Age::Planned(Some(grace)))
            .await
    }

    /// Removes the versions that `retention` does not keep, the oldest first, and says what became
    /// of each, newest first. Never the newest version, nor one that is pinned or was the newest
    /// within the grace. What was removed before an error stays removed.
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn prune(&self, name: &str, retention: &Retention) -> Result<Vec<PruneDecision>> {
        self.inner
            .prune_at_most(&Name::new(name)?, retention, usize::MAX, None)
            .await
    }

    /// Prunes as [`Scope::prune`] does, by a grace period that is shorter than that of the store's
    /// policy.
    ///
    /// Only where every host of the store is stopped: one that is at work, or sleeps, may have a
    /// save acknowledged below the newest version, where no load finds it.
    ///
    /// # Errors
    /// As [`Scope::plan_prune`].
    pub async fn prune_with_hosts_stopped(
        &self,
        name: &str,
        retention: &Retention,
        grace: Duration,
    ) -> Result<Vec<PruneDecision>> {
        self.inner
            .prune_at_most(&Name::new(name)?, retention, usize::MAX, Some(grace))
            .await
    }

    /// Deletes `name` if its newest version is older than `after`, by the storage's clock and by
    /// its trailer. A name that an expiry deleted, and that was not saved again within `after`, is
    /// purged. A name with a pin, or with a version that a label rule of `retention` keeps, stays.
    ///
    /// Only saves count: a store does not know of loads. A save at the same time is never undone:
    /// the outcome is then [`Expiry::Conflict`]. With `dry_run`, nothing is changed.
    ///
    /// # Errors
    /// Errors of [`Scope::prune`] and [`Scope::delete`].
    pub async fn expire(
        &self,
        name: &str,
        after: Duration,
        retention: &Retention,
        dry_run: bool,
    ) -> Result<Expiry> {
        let name = Name::new(name)?;
        self.inner.expire(&name, after, retention, dry_run).await
    }

    /// Lists the versions of `name` that may go to make room for more.
    #[cfg(feature = "guest")]
    pub(crate) async fn removable(&self, name: &Name) -> Result<Vec<Removable>> {
        self.inner.removable(name).await
    }

    /// Removes versions that [`Scope::removable`] listed, which are to be ascending.
    #[cfg(feature = "guest")]
    pub(crate) async fn remove(&self, name: &Name, versions: &[Version]) -> Result<()> {
        self.inner.remove(name, versions).await
    }

    /// Commits a tombstone, then removes every version below it, pinned ones too. It cannot be
    /// undone. Numbering goes on.
    ///
    /// On a full storage, versions that are not the newest are removed first, to make room
    /// for the tombstone. If only the newest is left and there is still no room, [`Purge::Now`]
    /// removes that, too, and then commits the tombstone; a process that dies between these two
    /// leaves nothing, and numbering begins again.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing was ever saved; then as [`Scope::delete`] and
    /// [`Scope::prune`].
    pub async fn purge(&self, name: &str, purge: Purge) -> Result<PurgeReport> {
        self.inner.purge(&Name::new(name)?, purge).await
    }

    /// Keeps a version from being pruned.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use persist_host::snapshot::{SaveOptions, Store};
    /// # use persist_host::storage::Memory;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let scope = Store::new(Arc::new(Memory::new())).scope("bot", None)?;
    /// # scope.save("memory", "x".into(), SaveOptions::default()).await?;
    /// scope.pin("memory", 1).await?;
    /// assert_eq!(scope.pins("memory").await?, [1]);
    /// scope.unpin("memory", 1).await?;
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version, or a prune that runs at this moment
    /// removed it; [`Error::Storage`].
    pub async fn pin(&self, name: &str, version: Version) -> Result<()> {
        self.inner.pin(&Name::new(name)?, version).await
    }

    /// Lets a version be pruned again. What is not pinned is no error.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn unpin(&self, name: &str, version: Version) -> Result<()> {
        self.inner.unpin(&Name::new(name)?, version).await
    }

    /// The pinned versions, ascending.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn pins(&self, name: &str) -> Result<Vec<Version>> {
        let pins = self.inner.pinned(&Name::new(name)?).await?;
        Ok(pins.into_iter().collect())
    }

    /// Bytes of one state, at most.
    #[cfg(feature = "guest")]
    pub(crate) fn max_state(&self) -> u64 {
        self.inner.max_state()
    }
}
