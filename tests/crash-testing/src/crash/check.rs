//! Check that the real code finds in a crash state what it acknowledged, and can continue from
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::{Adapter, Error, Expect, SaveOptions, Scope, Version};
use persist_host::storage::{Local, Storage};

use super::scenario::Story;
use super::trace::Op;
use crate::steps::{Deed, OWN_KEY, runtime, scope};

/// Claims that must hold for one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// Versions that may be there, and their states: whatever was begun.
    states: BTreeMap<Version, Option<Bytes>>,
    /// Versions whose making was acknowledged.
    acknowledged: BTreeSet<Version>,
    /// Versions that are gone.
    gone: BTreeSet<Version>,
    /// Versions that were being removed, ascending; and the tombstone that a purge makes first.
    going: Vec<(Vec<Version>, Option<Version>)>,
    pinned: BTreeSet<Version>,
}

/// Claims that must hold for a store, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    names: BTreeMap<&'static str, Claim>,
    /// Marks that were passed: all that is claimed follows from these.
    pub(super) marks: usize,
    /// The states that may be at the key of one's own; none: nothing.
    own: Vec<Option<Bytes>>,
}

impl Claims {
    /// After the first `len` operations of `story`.
    pub(super) fn at(story: &Story, ops: &[Op]) -> Self {
        let mut claims = Self {
            names: BTreeMap::new(),
            marks: 0,
            own: vec![None],
        };
        for op in ops {
            claims.marks += usize::from(matches!(op, Op::Begin(_) | Op::End(_)));
            match op {
                Op::Begin(step) => claims.begin(&story.deeds[*step]),
                Op::End(step) => claims.end(&story.deeds[*step]),
                _ => {}
            }
        }
        claims
    }

    fn of(&mut self, name: &'static str) -> &mut Claim {
        self.names.entry(name).or_default()
    }

    fn begin(&mut self, deed: &Deed) {
        match deed {
            Deed::Made(name, version, state) => {
                self.of(name).states.insert(*version, state.clone());
            }
            Deed::Removed(name, versions, tombstone) => {
                let claim = self.of(name);
                claim
                    .states
                    .extend(tombstone.map(|version| (version, None)));
                claim.pinned.retain(|version| !versions.contains(version));
                claim.going.push((versions.clone(), *tombstone));
            }
            Deed::Put(state) => self.own.push(Some(state.clone())),
            Deed::Pinned(..) | Deed::Lost => {}
        }
    }

    fn end(&mut self, deed: &Deed) {
        match deed {
            Deed::Made(name, version, _) => {
                self.of(name).acknowledged.insert(*version);
            }
            Deed::Removed(name, versions, tombstone) => {
                let claim = self.of(name);
                claim.acknowledged.extend(tombstone);
                claim.gone.extend(versions);
                claim.going.retain(|(going, _)| going != versions);
            }
            Deed::Put(state) => self.own = vec![Some(state.clone())],
            Deed::Pinned(name, version) => {
                self.of(name).pinned.insert(*version);
            }
            Deed::Lost => {}
        }
    }

    /// Looks with the real code at what is under `base`, and goes on with it. None: all holds.
    pub(super) fn broken_in(&self, base: &Path) -> Result<Option<String>> {
        let storage: Arc<dyn Storage> = Arc::new(Local::new(base.join("store")));
        let scope = scope(Arc::clone(&storage));
        let looked = runtime()?.block_on(async {
            self.look(&scope, &storage).await?;
            self.go_on(&scope, &storage).await
        });
        // The runtime is gone, and with it what it did beside.
        let litter = std::fs::read_dir(base.join("store/~/tmp")).map_or(0, Iterator::count);
        Ok(match looked {
            Err(broken) => Some(broken),
            Ok(()) if litter > 0 => Some(format!("{litter} temporary files stay for ever")),
            Ok(()) => None,
        })
    }

    async fn look(&self, scope: &Scope, storage: &Arc<dyn Storage>) -> Result<(), String> {
        for (name, claim) in &self.names {
            let there = claim.look(name, scope).await;
            there.map_err(|broken| format!("{name}: {broken}"))?;
        }
        let own = match Adapter::new(Arc::clone(storage)).load(OWN_KEY).await {
            Ok(state) => Some(state),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(format!("the state at one's own key is unreadable: {error}")),
        };
        if self.own.contains(&own) {
            Ok(())
        } else {
            Err(format!(
                "the state at one's own key is none that it may be: {:?} bytes",
                own.map(|own| own.len())
            ))
        }
    }

    /// Whatever was found, the next calls work.
    async fn go_on(&self, scope: &Scope, storage: &Arc<dyn Storage>) -> Result<(), String> {
        let names = self
            .names
            .iter()
            .map(|(name, claim)| (*name, claim.clone()));
        for (name, claim) in names.chain([("new", Claim::default())]) {
            let failed = |error| format!("{name}: the next calls fail: {error}");
            let head = scope.versions(name, None, 1).await.map_err(failed)?;
            let state = noise(7, 100);
            let saved = scope
                .save(name, state.clone(), SaveOptions::default())
                .await;
            let version = saved.map_err(failed)?.version;
            let used = claim.acknowledged.last().copied().unwrap_or(0);
            if version != head.first().unwrap_or(&0) + 1 || version <= used {
                return Err(format!(
                    "{name}: version {version} follows {head:?} and {used}"
                ));
            }
            let loaded = scope.load(name, None).await.map_err(failed)?;
            if loaded.map(|snapshot| snapshot.state) != Some(state) {
                return Err(format!("{name}: what was saved next is not what is loaded"));
            }
            scope.delete(name, Expect::Any).await.map_err(failed)?;
            if scope.load(name, None).await.map_err(failed)?.is_some() {
                return Err(format!("{name}: is deleted and loads"));
            }
        }
        let adapter = Adapter::new(Arc::clone(storage));
        let state = noise(8, 100);
        let put = adapter.save(&state, OWN_KEY).await;
        put.map_err(|error| format!("one's own key cannot be replaced: {error}"))?;
        match adapter.load(OWN_KEY).await {
            Ok(loaded) if loaded == state => Ok(()),
            _ => Err("what replaced the state at one's own key does not load".into()),
        }
    }
}

impl Claim {
    async fn look(&self, name: &str, scope: &Scope) -> Result<(), String> {
        let failed = |error| format!("cannot be looked at: {error}");
        let mut there = scope.versions(name, None, 1000).await.map_err(failed)?;
        there.reverse();
        self.compare(&there)?;
        for &version in &there {
            let Some(expected) = self.states.get(&version) else {
                return Err(format!("version {version} was never made"));
            };
            let loaded = scope.load(name, Some(version)).await;
            let loaded = loaded.map_err(|error| format!("version {version} is torn: {error}"))?;
            if loaded.map(|snapshot| snapshot.state) != *expected {
                return Err(format!("version {version} has another state"));
            }
            scope.verify(name, Some(version)).await.map_err(failed)?;
        }
        let history = scope.history(name, None, 1000).await.map_err(failed)?;
        let head = scope.stat(name, None).await.map_err(failed)?;
        if history.len() != there.len() || history.first() != head.as_ref() {
            return Err("history, stat and list disagree".into());
        }
        let listed = scope.names("", None, 100).await.map_err(failed)?;
        if listed.iter().any(|listed| listed.as_str() == name) == there.is_empty() {
            return Err(format!("the names are {listed:?}, the versions {there:?}"));
        }
        let pins = scope.pins(name).await.map_err(failed)?;
        if self.pinned.iter().all(|pin| pins.contains(pin)) {
            Ok(())
        } else {
            Err(format!("pins {:?} became {pins:?}", self.pinned))
        }
    }

    /// Versions that are there, with those that must and those that must not be.
    fn compare(&self, there: &[Version]) -> Result<(), String> {
        let going: BTreeSet<_> = self
            .going
            .iter()
            .flat_map(|(versions, _)| versions)
            .collect();
        for version in &self.acknowledged {
            let may_be_gone = self.gone.contains(version) || going.contains(version);
            if !there.contains(version) && !may_be_gone {
                return Err(format!("version {version} was acknowledged and is lost"));
            }
        }
        if let Some(version) = there.iter().find(|version| self.gone.contains(version)) {
            return Err(format!("version {version} was removed and is back"));
        }
        let newest = self.acknowledged.last();
        if newest > there.last() {
            return Err(format!(
                "the head is {:?}, and {newest:?} was acknowledged",
                there.last()
            ));
        }
        for (versions, tombstone) in &self.going {
            let missing: Vec<_> = versions
                .iter()
                .map(|version| !there.contains(version))
                .collect();
            if missing.is_sorted_by(|a, b| a >= b) {
                if missing.first() == Some(&true)
                    && tombstone.is_some_and(|tombstone| !there.contains(&tombstone))
                {
                    return Err("a purge removed versions before its tombstone was there".into());
                }
                continue;
            }
            return Err(format!(
                "of {versions:?}, not the oldest were removed first: {there:?}"
            ));
        }
        Ok(())
    }
}
