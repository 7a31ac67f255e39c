//! Comparison of a store with another one that has the same versions, such as a backup.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use persist_host::snapshot::{
    CopyOptions, CopyOutcome, CurrentPolicy, Error, Info, Name, Scope, Store, Version,
};

/// Versions of one name that differ between a store and another one.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Versions of the other store that were compared.
    pub(super) compared: u64,
    /// Versions of the other store that are newer than every version of this store, ascending.
    pub(super) lost: Vec<Info>,
    /// Older versions of the other store that this store does not have, although its policy keeps
    /// them.
    pub(super) missing: Vec<Info>,
    /// Versions of the other store that this store does not have, and that its policy or a purge
    /// removes.
    pub(super) pruned: u64,
    /// Versions that both stores have, with different content.
    pub(super) differing: Vec<Version>,
    /// Versions of the other store that cannot be read there.
    pub(super) unread: Vec<(Version, Error)>,
    /// Why nothing could be compared.
    pub(super) unlisted: Option<Error>,
}

/// Compares a name of the other store with the same name of this store: numbers and trailers.
pub(super) async fn compare(
    other: &Scope,
    name: &Name,
    store: &Store,
    policy: &CurrentPolicy,
) -> Result<Comparison> {
    let mut options = CopyOptions::default();
    options.dry_run = true;
    options.any_version = true;
    let mut found = Comparison::default();
    let mut absent = Vec::new();
    let mut times = BTreeMap::new();
    let mut here = Vec::new();
    let copying = other.copy_to(name.as_str(), store, options, |outcome| match outcome {
        CopyOutcome::Missing(info) => {
            times.insert(info.version, info.clone());
            absent.push(info);
        }
        CopyOutcome::Same { info, .. } => {
            found.compared += 1;
            here.push(info.version);
            times.insert(info.version, info);
        }
        CopyOutcome::Conflict(version) => {
            found.compared += 1;
            here.push(version);
            found.differing.push(version);
        }
        CopyOutcome::OnlyThere(version) | CopyOutcome::DamagedThere(version, _) => {
            here.push(version);
        }
        CopyOutcome::Damaged(version, error) => found.unread.push((version, error)),
        CopyOutcome::Unlisted(error) | CopyOutcome::UnlistedThere(error) => {
            found.unlisted = Some(error);
        }
        _ => {}
    });
    copying.await?;
    found.compared += absent.len() as u64;
    if absent.is_empty() || found.unlisted.is_some() {
        return Ok(found);
    }
    here.sort_unstable();
    let newest = here.last().copied();
    let (lost, older): (Vec<_>, Vec<_>) = absent
        .into_iter()
        .partition(|info| newest.is_none_or(|newest| info.version > newest));
    found.lost = lost;
    if older.is_empty() {
        return Ok(found);
    }
    let session = other.session().map(Name::as_str);
    let scope = store.scope(other.agent().as_str(), session)?;
    // What both stores do not have cannot be told from what was never saved.
    for &version in &here {
        if !times.contains_key(&version)
            && let Ok(Some(info)) = scope.stat(name.as_str(), Some(version)).await
        {
            times.insert(version, info);
        }
    }
    // A purge removes everything below its tombstone.
    let purged_below = here
        .first()
        .and_then(|lowest| times.get(lowest))
        .filter(|info| info.deleted)
        .map(|info| info.version);
    let mut kept = BTreeMap::new();
    if let Some(retention) = &policy.policy.retention {
        let newest_first = times.values().rev();
        let versions: Vec<_> = newest_first.map(|info| (info, created(info))).collect();
        let rules = retention.decide(&versions, policy.policy.grace, SystemTime::now());
        kept.extend(versions.iter().map(|(info, _)| info.version).zip(rules));
    }
    let pins = scope.pins(name.as_str()).await?;
    for info in older {
        let version = info.version;
        let is_purged = purged_below.is_some_and(|tombstone| version < tombstone);
        // Without rules, only an operator prunes: it cannot be told what.
        let is_kept = kept.get(&version).is_none_or(Option::is_some);
        if pins.contains(&version) || (is_kept && !is_purged) {
            found.missing.push(info);
        } else {
            found.pruned += 1;
        }
    }
    Ok(found)
}

fn created(info: &Info) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(info.created_at)
}
