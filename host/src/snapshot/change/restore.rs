//! Saves the state of a version that exists again, as the next version of a name.

use crate::snapshot::commit::Commit;
use crate::snapshot::format::{Encoded, copy_of};
use crate::snapshot::history::commit_and_prune;
use crate::snapshot::info::HOST_LABEL;
use crate::snapshot::read::{Object, PrunedReadRetry};
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Expect, Info, Name, Result, Version};

impl ScopeRef {
    /// Saves the state of `version` again as the next version.
    pub(crate) async fn restore(
        &self,
        name: &Name,
        version: Version,
        expect: Expect,
    ) -> Result<Info> {
        let origin = ("restored-from", version.to_string());
        self.copy(name, Some(version), (self, name), expect, origin)
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
        let origin = ("forked-from", name.as_str().to_owned());
        self.copy(name, at, to, expect, origin).await
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
            object => object?,
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
        (label, value): (&str, String),
    ) -> Result<Info> {
        let origin = (format!("{HOST_LABEL}{label}"), value);
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
        let metadata = &object.trailer.metadata;
        let size = metadata.size;
        let max = self.max_state();
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        let own_labels = metadata
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with(HOST_LABEL));
        let mut labels: Vec<_> = own_labels.cloned().collect();
        labels.push(origin.clone());
        let media_type = metadata.media_type.clone();
        Ok(Commit::new(to, new_name, expect, media_type, labels))
    }
}

/// Puts the state of a version into a change, block by block, verified.
async fn copy_state(object: &Object, commit: &mut Commit) -> Result<Encoded> {
    let (head, tail) = object.frame().await?;
    commit.push(vec![head]).await?;
    for block in 0..object.trailer.blocks() {
        commit.push(vec![object.stored_block(block).await?]).await?;
    }
    commit.buffer(vec![tail]);
    Ok(copy_of(&object.trailer))
}
