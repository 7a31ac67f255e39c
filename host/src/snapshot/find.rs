//! Which version is the newest, and what lies under a number.

use super::clock::Moment;
use super::format::Trailer;
use super::head_cache::{Head, HeadObservation};
use super::reader::Object;
use super::{
    Error, MAX_REREADS, MAX_VERSION, Name, Result, Scope, Version, WIDE_PAGE, check_limit, layout,
};
use crate::storage::{Entry, List, Pager};

/// The newest version is read once more where it was pruned while it was read: there is a newer
/// one, since longer than the grace.
#[derive(Debug)]
pub(super) struct PrunedReadRetry {
    left: usize,
}

impl PrunedReadRetry {
    /// Of version `at` there is no other.
    pub(super) fn of(at: Option<Version>) -> Self {
        let left = if at.is_none() { MAX_REREADS } else { 0 };
        Self { left }
    }

    /// Returns true if the caller must read once more after this error.
    pub(super) fn is_due(&mut self, error: &Error) -> bool {
        let is_due = matches!(error, Error::NotFound(_)) && self.left > 0;
        self.left -= usize::from(is_due);
        is_due
    }
}

impl Scope {
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

    pub(super) async fn versions_of(
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

    pub(crate) async fn trailer(&self, name: &Name, version: Version) -> Result<Trailer> {
        Ok(self.object(name, version).await?.trailer)
    }

    /// Opens the file of a version, and verifies that it was saved as this version.
    pub(super) async fn object(&self, name: &Name, version: Version) -> Result<Object> {
        let object = self.object_of_any(name, version).await?;
        object.check_place(self, name, version)?;
        Ok(object)
    }

    /// Opens the file that lies at the key of a version, whatever it was saved as.
    pub(super) async fn object_of_any(&self, name: &Name, version: Version) -> Result<Object> {
        Object::open(&self.store.shared.storage, &self.key(name, version)?).await
    }

    /// The newest version or version `at`, with its trailer verified. None: nothing was saved.
    pub(super) async fn open(
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
            "the newest version of {name} is listed but cannot be read"
        )))
    }

    /// Returns true if an error concerns one version alone: the storage answers, but does not
    /// return what it lists.
    pub(super) async fn is_of_one_version(&self, name: &Name, error: &Error) -> bool {
        matches!(error, Error::Storage(_)) && self.versions_of(name, None, 1).await.is_ok()
    }

    /// For what needs a state and finds a tombstone.
    pub(super) fn deleted(&self, name: &Name, version: Version) -> Error {
        let agent = self.described();
        Error::NotFound(format!(
            "version {version} of {name} of {agent} is a tombstone"
        ))
    }

    /// For a deletion of what is deleted already.
    pub(super) fn deleted_already(&self, name: &Name, version: Version) -> Error {
        let agent = self.described();
        Error::NotFound(format!(
            "{name} of {agent} is already deleted, by version {version}; older versions may exist"
        ))
    }

    /// The agent, and its session, for people.
    fn described(&self) -> String {
        match &self.session {
            Some(session) => format!("{} in session {session}", self.agent),
            None => self.agent.to_string(),
        }
    }

    pub(super) fn missing(&self, name: &Name, at: Option<Version>) -> Error {
        let agent = self.described();
        Error::NotFound(match at {
            Some(version) => format!("{name} of {agent} has no version {version}"),
            None => format!("nothing is saved as {name} by {agent}"),
        })
    }
}
