//! Saves the state of a version that exists again, as the next version of a name.

use std::sync::Arc;

use crate::snapshot::commit::Commit;
use crate::snapshot::format::{Encoded, copy_of};
use crate::snapshot::history::commit_and_prune;
use crate::snapshot::info::HOST_LABEL;
use crate::snapshot::read::{GROUPS, Object, PrunedReadRetry, ReadAhead};
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Expect, Info, Name, Result, Version, WIDE_PAGE};

impl ScopeRef {
    /// Saves the state of `version` again as the next version.
    pub(crate) async fn restore(
        &self,
        name: &Name,
        version: Version,
        expect: Expect,
    ) -> Result<Info> {
        self.copy(name, Some(version), (self, name), expect, Origin::Restored)
            .await
    }

    /// Saves a state of `name` as the next version of `new_name` in the scope `to`.
    pub(crate) async fn fork(
        &self,
        name: &Name,
        at: Option<Version>,
        to: (&Self, &Name),
        expect: Expect,
    ) -> Result<Info> {
        self.copy(name, at, to, expect, Origin::Forked).await
    }

    /// Saves every version of `name` again, the oldest first, as versions of `new_name`, with their
    /// times, tombstones and pins. Returns the newest version here and its copy.
    pub(crate) async fn fork_history(
        &self,
        name: &Name,
        (to, new_name): (&Self, &Name),
        mut each: impl FnMut(Version, std::result::Result<&Info, Error>),
    ) -> Result<(Version, Info)> {
        let pins = self.pinned(name).await?;
        let mut versions = Vec::new();
        while let page @ [_, ..] = &self
            .versions_of(name, versions.last().copied(), WIDE_PAGE)
            .await?[..]
        {
            versions.extend_from_slice(page);
        }
        let Some(&newest) = versions.first() else {
            return Err(self.missing(name, None));
        };
        let mut expect = Expect::Absent;
        let mut last = None;
        for version in versions.into_iter().rev() {
            let copied = self
                .copy_version(name, version, (to, new_name), expect)
                .await;
            let info = match copied {
                Ok(Some(info)) => info,
                // Nothing was there to be deleted, or the version was pruned meanwhile.
                Ok(None) => continue,
                Err(error) if is_gone(&error) && version != newest => continue,
                // The newest version is what the name is; without it this is no copy.
                Err(error) if error.is_of_file() && version != newest => {
                    each(version, Err(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if pins.contains(&version) {
                to.pin(new_name, info.version).await?;
            }
            each(version, Ok(&info));
            expect = Expect::Version(info.version);
            last = Some(info);
        }
        let last = last.ok_or_else(|| self.missing(name, None))?;
        Ok((newest, last))
    }

    /// Saves one version of `name` again, with its time. None: it is a tombstone with nothing
    /// before it.
    async fn copy_version(
        &self,
        name: &Name,
        version: Version,
        (to, new_name): (&Self, &Name),
        expect: Expect,
    ) -> Result<Option<Info>> {
        let object = self.object(name, version).await?;
        let created_at = object.trailer.metadata.created_at;
        if !object.trailer.is_tombstone() {
            let origin = Origin::Moved(created_at);
            let copy = self.copy(name, Some(version), (to, new_name), expect, origin);
            return copy.await.map(Some);
        }
        if expect == Expect::Absent {
            return Ok(None);
        }
        object.frame().await?;
        to.prepare_change().await?;
        let labels = &object.trailer.metadata.labels;
        let origin = Origin::Moved(created_at).label(version, &object);
        let labels = to.labels_of_moved(labels, origin, None);
        let commit = Commit::with_labels(to, new_name, expect, None, labels);
        let mut commit = commit.created_at(created_at);
        commit.check_early().await?;
        let (bytes, tombstone) = Encoded::tombstone();
        commit.buffer(bytes);
        commit_and_prune(commit, &tombstone).await.map(Some)
    }

    /// Saves the state of a misplaced version as the next version of the name where its file lies.
    pub(crate) async fn adopt(
        &self,
        name: &Name,
        at: Option<Version>,
        expect: Expect,
    ) -> Result<(Info, String)> {
        let head = self.head(name).await?.map(|head| head.version);
        let version = at.or(head).ok_or_else(|| self.missing(name, at))?;
        let object = match self.object_of_any(name, version).await {
            Err(error) if error.is_missing_object() => return Err(self.missing(name, at)),
            object => Arc::new(object?),
        };
        if object.check_place(self, name, version).is_ok() {
            let what = format!("nothing to adopt: version {version} of {name} is not misplaced");
            return Err(Error::Invalid(what));
        }
        object.frame().await?;
        if object.trailer.is_tombstone() {
            return Err(self.deleted(name, version));
        }
        self.prepare_change().await?;
        let saved_as = object.saved_as();
        let origin = (format!("{HOST_LABEL}adopted-from"), saved_as.clone());
        let mut commit = self.change_of(&object, (self, name), expect, &origin)?;
        commit.check_early().await?;
        let encoded = copy_state(&object, &mut commit).await?;
        Ok((commit_and_prune(commit, &encoded).await?, saved_as))
    }

    /// Saves a state again, with a label that tells its origin.
    async fn copy(
        &self,
        name: &Name,
        at: Option<Version>,
        (to, new_name): (&Self, &Name),
        expect: Expect,
        origin: Origin,
    ) -> Result<Info> {
        let mut rereads = PrunedReadRetry::of(at);
        loop {
            let Some((version, object)) = self.open(name, at).await? else {
                return Err(self.missing(name, at));
            };
            if object.trailer.is_tombstone() {
                object.frame().await?;
                return Err(self.deleted(name, version));
            }
            let object = Arc::new(object);
            to.prepare_change().await?;
            let label = origin.label(version, &object);
            let mut commit = match origin {
                Origin::Moved(created_at) => {
                    let metadata = &object.trailer.metadata;
                    let media_type = metadata.media_type.clone();
                    let labels = &metadata.labels;
                    let labels = to.labels_of_moved(labels, label, media_type.as_deref());
                    self.check_size(&object)?;
                    Commit::with_labels(to, new_name, expect, media_type, labels)
                        .created_at(created_at)
                }
                Origin::Restored | Origin::Forked => {
                    self.change_of(&object, (to, new_name), expect, &label)?
                }
            };
            commit.check_early().await?;
            match copy_state(&object, &mut commit).await {
                Err(error) if rereads.is_due(&error) => {}
                encoded => return commit_and_prune(commit, &encoded?).await,
            }
        }
    }

    /// The change that saves this state as the next version of another name.
    fn change_of(
        &self,
        object: &Object,
        (to, new_name): (&Self, &Name),
        expect: Expect,
        origin: &(String, String),
    ) -> Result<Commit> {
        self.check_size(object)?;
        let metadata = &object.trailer.metadata;
        let own_labels = metadata
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with(HOST_LABEL));
        let mut labels: Vec<_> = own_labels.cloned().collect();
        labels.push(origin.clone());
        let media_type = metadata.media_type.clone();
        Ok(Commit::new(to, new_name, expect, media_type, labels))
    }

    /// Refuses a state that is too large to be saved again.
    fn check_size(&self, object: &Object) -> Result<()> {
        let size = object.trailer.metadata.size;
        let max = self.max_state();
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        Ok(())
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::NotFound(_)) || error.is_missing_object()
}

/// Why a state is saved again.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Restored,
    Forked,
    /// The version keeps the time at which it was created.
    Moved(u64),
}

impl Origin {
    /// Returns the label that tells where the state comes from. A fork tells the whole address: it
    /// may be another agent's.
    fn label(self, version: Version, object: &Object) -> (String, String) {
        let (key, value) = match self {
            Self::Restored => ("restored-from", version.to_string()),
            Self::Forked | Self::Moved(_) => ("forked-from", object.saved_as()),
        };
        (format!("{HOST_LABEL}{key}"), value)
    }
}

/// Puts the state of a version into a change as it is stored, verified.
async fn copy_state(object: &Arc<Object>, commit: &mut Commit) -> Result<Encoded> {
    if object.trailer.blocks() == 0 {
        let (head, tail) = object.frame().await?;
        commit.buffer(vec![head, tail]);
    }
    let mut groups = ReadAhead::new(object, 0, GROUPS);
    while let Some((group, bytes)) = groups.next().await? {
        Object::verify_stored(object, group, bytes.clone()).await?;
        commit.push(vec![bytes]).await?;
    }
    Ok(copy_of(&object.trailer))
}
