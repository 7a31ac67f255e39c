//! Which version is the newest, and what lies under a number.

use crate::snapshot::clock::Moment;
use crate::snapshot::format::Trailer;
use crate::snapshot::shared::{Head, HeadObservation, ScopeRef, StoreRef};

use super::object::Object;
use crate::snapshot::{
    Error, MAX_REREADS, MAX_VERSION, Name, Result, Version, WIDE_PAGE, check_limit, layout,
};
use crate::storage::{Entry, ErrorKind, List, ObjectMeta, Pager};

/// The newest version is read once more where it was pruned while it was read: there is a newer
/// one, since longer than the grace.
#[derive(Debug)]
pub(crate) struct PrunedReadRetry {
    left: usize,
}

impl PrunedReadRetry {
    /// Of version `at` there is no other.
    pub(crate) fn of(at: Option<Version>) -> Self {
        let left = if at.is_none() { MAX_REREADS } else { 0 };
        Self { left }
    }

    /// Returns true if the caller must read once more after this error.
    pub(crate) fn is_due(&mut self, error: &Error) -> bool {
        let is_due = matches!(error, Error::NotFound(_)) && self.left > 0;
        self.left -= usize::from(is_due);
        is_due
    }
}

impl ScopeRef {
    /// The newest version of a name: one list of one key, at any length of history.
    pub(crate) async fn head(&self, name: &Name) -> Result<Option<Head>> {
        Ok(self.look_up(name).await?.head)
    }

    /// Returns the newest version of a name, and when it was the newest. The next change needs no
    /// lookup.
    pub(crate) async fn look_up(&self, name: &Name) -> Result<HeadObservation> {
        let since = Moment::now();
        let newest = self.versions_of(name, None, 1).await?;
        let head = newest.first().map(|&version| Head::of(version));
        let seen = HeadObservation { head, since };
        self.heads().record_listed(&self.dir_of(name), &seen);
        Ok(seen)
    }

    pub(crate) async fn versions_of(
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
            Some(before) => Some(Entry::object(layout::version_segment(
                before.min(MAX_VERSION),
            ))),
        };
        // No version is above the highest: "below it or all" is then the same list from the
        // beginning.
        if before.is_some_and(|before| before > MAX_VERSION) {
            after = None;
        }
        let list = List::new(&dir).with_after(after).with_limit(limit);
        let mut pages = Pager::new(self.storage(), list);
        while let Some(page) = pages.next().await? {
            let versions = page.entries.iter().filter_map(|entry| match entry {
                Entry::Object(object) => layout::parse_version(&object.name),
                Entry::Dir(_) => None,
            });
            let versions: Vec<_> = versions.take(limit).collect();
            if !versions.is_empty() {
                return Ok(versions);
            }
            pages.widen(WIDE_PAGE);
        }
        self.store.check_empty().await?;
        Ok(Vec::new())
    }

    /// Returns versions as [`Self::versions_of`] does, to a caller that has then seen the newest
    /// one of the name.
    pub(crate) async fn observed_versions_of(
        &self,
        name: &Name,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Vec<Version>> {
        let versions = self.versions_of(name, before, limit).await?;
        if let (None, Some(head)) = (before, versions.first()) {
            self.observe_head(name, *head);
        }
        Ok(versions)
    }

    pub(crate) async fn trailer(&self, name: &Name, version: Version) -> Result<Trailer> {
        Ok(self.object(name, version).await?.trailer)
    }

    /// Opens the file of a version, and verifies that it was saved as this version.
    pub(crate) async fn object(&self, name: &Name, version: Version) -> Result<Object> {
        let object = self.object_of_any(name, version).await?;
        object.check_place(self, name, version)?;
        Ok(object)
    }

    /// Opens the file that lies at the key of a version, whatever it was saved as.
    pub(crate) async fn object_of_any(&self, name: &Name, version: Version) -> Result<Object> {
        Object::open(&self.store.shared.storage, &self.key(name, version)?).await
    }

    /// The newest version or version `at`, with its trailer verified. None: nothing was saved.
    pub(crate) async fn open(
        &self,
        name: &Name,
        at: Option<Version>,
    ) -> Result<Option<(Version, Object)>> {
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
                self.observe_head(name, 0);
                return Ok(None);
            };
            match self.object(name, head.version).await {
                Ok(object) => {
                    self.observe_head(name, head.version);
                    return Ok(Some((head.version, object)));
                }
                // It is not the head any more, and was pruned: there is a newer one.
                Err(error) if error.is_missing_object() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::corrupt(format!(
            "the newest version of {name} is listed but cannot be read"
        )))
    }

    /// Returns true if an error concerns one version alone: the storage answers, but does not
    /// return what it lists.
    pub(crate) async fn is_of_one_version(&self, name: &Name, error: &Error) -> bool {
        matches!(error, Error::Storage(_)) && self.versions_of(name, None, 1).await.is_ok()
    }
}

impl StoreRef {
    /// Returns true where `error` is of one object or directory alone: the store still lists what
    /// it has.
    pub(crate) async fn is_of_one_place(&self, error: &Error) -> bool {
        let Error::Storage(error) = error else {
            return error.is_of_file();
        };
        if [ErrorKind::NoSpace, ErrorKind::NotDurable].contains(&error.kind()) {
            return false;
        }
        let list = List::new("").with_limit(1);
        self.storage().list(&list).await.is_ok()
    }

    /// Names that directories stand for.
    pub(crate) async fn names_of(
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

    /// Names of directories; a page that holds nothing of ours is passed over, since an empty one
    /// means the end.
    pub(crate) async fn dirs(
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
        let mut pages = Pager::new(self.storage(), list);
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

/// Returns the versions among the entries of a list that was asked for their times.
pub(crate) fn versions_in(entries: Vec<Entry>) -> Result<Vec<(Version, ObjectMeta)>> {
    let mut versions = Vec::new();
    for entry in entries {
        if let Entry::Object(object) = entry
            && let Some(version) = layout::parse_version(&object.name)
        {
            versions.push((version, object.meta.ok_or_else(no_times)?));
        }
    }
    Ok(versions)
}

/// Returns the error of a storage whose lists have no times.
pub(crate) fn no_times() -> Error {
    Error::unsupported(
        "this storage does not report when objects were created, so nothing can be pruned by age",
    )
}
