//! Purging: removes every version of a name below a tombstone.

use std::collections::BTreeSet;

use crate::snapshot::format::{Encoded, TrailerFields};
use crate::snapshot::history::{Age, AgeLimits};
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{
    Error, Expect, KeepReason, MAX_REREADS, MAX_VERSION, Name, PruneDecision, Result, Retention,
    Version, clock,
};
use crate::storage::ErrorKind;

/// Choice of whether a purge waits for the grace period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// Purge that spares each version that was the newest within the grace period; a later purge
    /// removes it.
    #[default]
    AfterGrace,
    /// Everything goes at once. Only where no host has written this name within the grace, nor
    /// does: one that goes on from a head that it saw before may have its save acknowledged, below
    /// the newest version.
    Now,
}

/// Result of a purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeReport {
    /// The tombstone that stays, so that numbering goes on. None where the last possible version
    /// was there: there is no number for a tombstone, and numbering begins again once all versions
    /// are removed.
    pub tombstone: Option<Version>,
    /// How many versions were removed.
    pub removed: u64,
    /// How many were the newest within the grace, and stay until a later purge.
    pub kept: u64,
}

impl ScopeRef {
    /// Commits a tombstone, then removes every version below it.
    pub(crate) async fn purge(&self, name: &Name, purge: Purge) -> Result<PurgeReport> {
        let mut purged = PurgeReport::default();
        if self.is_at_the_end(name).await? {
            self.purge_the_end(name, purge, &mut purged).await?;
            return Ok(purged);
        }
        let tombstone = match self.tombstone_for_purge(name).await {
            Err(error) if is_full(&error) => {
                self.tombstone_when_full(name, purge, &mut purged).await?
            }
            tombstone => tombstone?,
        };
        purged.tombstone = Some(tombstone);
        self.purge_below(name, tombstone, purge, &mut purged)
            .await?;
        Ok(purged)
    }

    /// Removes every version below a tombstone that exists. Nothing above it is touched: what was
    /// saved after the tombstone stays, and stays the newest.
    pub(crate) async fn purge_below(
        &self,
        name: &Name,
        tombstone: Version,
        purge: Purge,
        purged: &mut PurgeReport,
    ) -> Result<()> {
        let fates = self.purge_fates(name, purge).await?;
        let below = fates.iter().rev().filter(|fate| fate.version < tombstone);
        for &PruneDecision { version, keep, .. } in below {
            if purge == Purge::AfterGrace && keep == Some(KeepReason::Recent) {
                purged.kept += 1;
                continue;
            }
            self.purge_version(name, version, purged).await?;
        }
        Ok(())
    }

    async fn purge_version(
        &self,
        name: &Name,
        version: Version,
        to: &mut PurgeReport,
    ) -> Result<()> {
        self.storage().delete(&self.key(name, version)?).await?;
        self.storage().delete(&self.pin_key(name, version)?).await?;
        to.removed += 1;
        Ok(())
    }

    /// Removes versions until there is room for a tombstone, and commits it. The newest version is
    /// the last to go: as long as it is there, numbering goes on from it.
    async fn tombstone_when_full(
        &self,
        name: &Name,
        purge: Purge,
        purged: &mut PurgeReport,
    ) -> Result<Version> {
        let fates = self.purge_fates(name, purge).await?;
        let spared = |fate: &PruneDecision| {
            purge == Purge::AfterGrace && fate.keep == Some(KeepReason::Recent)
        };
        let old = fates.iter().skip(1).rev().filter(|fate| !spared(fate));
        for fate in old {
            self.purge_version(name, fate.version, purged).await?;
        }
        match self.tombstone_for_purge(name).await {
            Err(error) if is_full(&error) && purge == Purge::Now => {}
            tombstone => return tombstone,
        }
        let Some(head) = self.head(name).await? else {
            return Err(self.missing(name, None));
        };
        // The caller says that no host writes this name: none sees that its head is gone for a
        // moment.
        self.purge_version(name, head.version, purged).await?;
        self.heads().mark_uncertain(&self.dir_of(name));
        self.create_tombstone(name, head.version).await
    }

    /// Creates a tombstone above a version that may be gone.
    async fn create_tombstone(&self, name: &Name, below: Version) -> Result<Version> {
        let version = below + 1;
        let labels = self.host_labels(&[], None);
        let (mut file, encoded) = Encoded::tombstone();
        let (trailer, _) = encoded.build_trailer(&TrailerFields {
            agent: self.agent().as_str(),
            session: self.session().map(Name::as_str),
            name: name.as_str(),
            version,
            parent: Some(below),
            parent_sha256: None,
            created_at: clock::unix_millis(),
            media_type: None,
            labels: &labels,
            nonce: &format!("{:032x}", crate::random::u128()),
        });
        file.push(trailer);
        self.storage()
            .create(&self.key(name, version)?, file)
            .await?;
        Ok(version)
    }

    /// Returns true where the newest version has the last possible number: no tombstone can be
    /// above it.
    async fn is_at_the_end(&self, name: &Name) -> Result<bool> {
        let head = self.head(name).await?;
        Ok(head.is_some_and(|head| head.version == MAX_VERSION))
    }

    /// Removes every version of a name whose numbers are used up. A host that looked at the head
    /// before the last version was made has forgotten it when that is older than the grace, so that
    /// none goes on from it.
    async fn purge_the_end(
        &self,
        name: &Name,
        purge: Purge,
        purged: &mut PurgeReport,
    ) -> Result<()> {
        let (versions, listed) = self.listed(name).await?;
        if let (Purge::AfterGrace, Some((newest, meta))) = (purge, versions.first()) {
            let grace = self.store.prune_grace().await?;
            let now = clock::list_time(listed, self.store.storage_time(grace).await?, grace)?;
            let age = now.duration_since(meta.created).unwrap_or_default();
            let limits = AgeLimits {
                min: grace,
                ahead: grace,
            };
            if age <= grace || !self.is_older_by_trailer(name, *newest, now, limits).await? {
                purged.kept = versions.len() as u64;
                return Ok(());
            }
        }
        self.prepare_change().await?;
        // The newest version goes last: until then, nothing can be saved below it.
        for &(version, _) in versions.iter().rev() {
            self.purge_version(name, version, purged).await?;
        }
        self.heads().mark_uncertain(&self.dir_of(name));
        Ok(())
    }

    /// Decides about each version for a purge, which no rule and no pin stops.
    async fn purge_fates(&self, name: &Name, purge: Purge) -> Result<Vec<PruneDecision>> {
        let age = match purge {
            Purge::AfterGrace => Age::Checked(None),
            Purge::Now => Age::Unchecked,
        };
        let (versions, ages) = self.versions_and_ages(name, age).await?;
        self.decide(
            name,
            versions,
            ages,
            &Retention::nothing(),
            &BTreeSet::new(),
        )
        .await
    }

    /// The tombstone that everything is removed below: a new one, or the newest version where that
    /// is one already.
    async fn tombstone_for_purge(&self, name: &Name) -> Result<Version> {
        let mut head = None;
        for _ in 0..MAX_REREADS {
            match self.delete(name, Expect::Any).await {
                Ok(info) => return Ok(info.version),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            let Some(info) = self.stat(name, None).await? else {
                return Err(self.missing(name, None));
            };
            if info.deleted {
                return Ok(info.version);
            }
            // Another writer saved meanwhile.
            head = Some(info.version);
        }
        Err(Error::Conflict { head })
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.kind() == ErrorKind::NoSpace)
}
