//! Expiry: deletes a name that was not saved for a long time, and later purges it.
//!
//! Only saves count. A load leaves no trace in a store: reading must not need the right to write.
//!
//! An expiry races with saves, and never undoes one: its tombstone is created only as the next
//! version after the head that was found to be old. A save that comes first makes that a conflict;
//! one that comes later is the next version, and the name exists again. A purge of what expired
//! creates nothing: it removes versions below the tombstone that is there, so that a save above it
//! stays the newest version.

use std::time::Duration;

use crate::snapshot::commit::Commit;
use crate::snapshot::format::Encoded;
use crate::snapshot::history::{Age, AgeLimits, commit_and_prune};
use crate::snapshot::info::HOST_LABEL;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Expect, Name, Purge, PurgeReport, Result, Retention, Version};

/// Label of a tombstone that an expiry created, with the time after the last save.
const EXPIRED_AFTER: &str = "expired-after";

/// Outcome of an expiry of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// Nothing is to be done: the name was saved lately, does not exist, was deleted by another
    /// change, or has only its tombstone left.
    None,
    /// The name is old enough, and a pin protects one of its versions.
    Pinned,
    /// The name is old enough, and a rule of [`Retention::keep_labels`] keeps one of its versions.
    Labelled,
    /// The name is old enough, and its newest version cannot be read.
    Unreadable,
    /// The name was saved, or deleted, by another host at the same time.
    Conflict,
    /// The name is deleted, or would be: the version that was the newest, and the tombstone.
    Expired(Version, Option<Version>),
    /// The versions below the tombstone of an expiry are removed, or would be: the tombstone, and
    /// how many versions.
    Purged(Version, u64),
}

impl ScopeRef {
    /// Expires a name, as [`Scope::expire`](crate::snapshot::Scope::expire) does.
    pub(crate) async fn expire(
        &self,
        name: &Name,
        after: Duration,
        retention: &Retention,
        dry_run: bool,
    ) -> Result<Expiry> {
        let age = if dry_run {
            Age::Planned(None)
        } else {
            Age::Checked(None)
        };
        let (versions, ages) = self.versions_and_ages(name, age).await?;
        let Some((head, meta)) = versions.first() else {
            return Ok(Expiry::None);
        };
        let head = *head;
        let after = after.max(ages.grace);
        // What is from the future is new.
        if ages.now.duration_since(meta.created).unwrap_or_default() <= after {
            return Ok(Expiry::None);
        }
        let trailer = match self.trailer(name, head).await {
            Ok(trailer) => trailer,
            Err(error) if error.is_missing_object() => return Ok(Expiry::Conflict),
            Err(error) if error.is_of_file() => return Ok(Expiry::Unreadable),
            Err(error) if self.is_of_one_version(name, &error).await => {
                return Ok(Expiry::Unreadable);
            }
            Err(error) => return Err(error),
        };
        let limits = AgeLimits {
            min: after,
            ahead: ages.grace,
        };
        if !self
            .is_older_by_trailer(name, head, ages.now, limits)
            .await?
        {
            return Ok(Expiry::None);
        }
        let label = format!("{HOST_LABEL}{EXPIRED_AFTER}");
        if trailer.is_tombstone() {
            let is_own = trailer.metadata.labels.iter().any(|(key, _)| *key == label);
            if !is_own || versions.len() == 1 {
                return Ok(Expiry::None);
            }
        }
        if !self.pinned(name).await?.is_empty() {
            return Ok(Expiry::Pinned);
        }
        for (version, _) in &versions {
            if self.is_labelled(name, *version, retention).await? {
                return Ok(Expiry::Labelled);
            }
        }
        if trailer.is_tombstone() {
            let mut removed = versions.len() as u64 - 1;
            if !dry_run {
                self.prepare_change().await?;
                let mut purged = PurgeReport::default();
                // No tombstone is created: it would undo a save that came meanwhile.
                self.purge_below(name, head, Purge::AfterGrace, &mut purged)
                    .await?;
                removed = purged.removed;
            }
            return Ok(Expiry::Purged(head, removed));
        }
        if dry_run {
            return Ok(Expiry::Expired(head, None));
        }
        self.prepare_change().await?;
        let labels = vec![(label, format!("{}s", after.as_secs()))];
        // The head that is old, and no other, is replaced.
        let mut commit = Commit::new(self, name, Expect::Version(head), None, labels);
        let (bytes, tombstone) = Encoded::tombstone();
        commit.buffer(bytes);
        match commit_and_prune(commit, &tombstone).await {
            Ok(info) => Ok(Expiry::Expired(head, Some(info.version))),
            Err(Error::Conflict { .. }) => Ok(Expiry::Conflict),
            Err(error) => Err(error),
        }
    }
}
