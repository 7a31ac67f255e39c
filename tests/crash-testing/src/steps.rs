//! Steps that are done to a store, and their outcomes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use persist_host::snapshot::{
    Adapter, Error, Expect, Info, Purge, Retention, SaveOptions, Scope, Store, StoreOptions,
    Version,
};
use persist_host::storage::Storage;
use tokio::runtime::{Builder, Runtime};

/// A step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Save(&'static str, usize),
    Stream(&'static str, usize),
    Delete(&'static str),
    Restore(&'static str, Version),
    Fork(&'static str, &'static str),
    Pin(&'static str, Version),
    Prune(&'static str),
    Purge(&'static str),
    /// Puts a state at a key of one's own, over what is there.
    Put(usize),
}

/// Outcome of a step, as the real code answered.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// A version was made; none of a state: a tombstone.
    Made(&'static str, Version, Option<Bytes>),
    Pinned(&'static str, Version),
    /// Versions were removed, ascending; a purge made this tombstone first.
    Removed(&'static str, Vec<Version>, Option<Version>),
    Put(Bytes),
    /// Another worker was first.
    Lost,
}

/// The agent of every scenario.
pub(crate) fn scope(storage: Arc<dyn Storage>) -> Scope {
    let mut options = StoreOptions::default();
    // A prune of the lab does not wait.
    options.grace = Duration::ZERO;
    let store = Store::with_options(storage, options);
    store.scope("bot", None).expect("a name")
}

/// A key of one's own, outside any scope.
pub(crate) const OWN_KEY: &str = "exports/state";

pub(crate) fn nothing() -> Retention {
    Retention::nothing()
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_time().build()?)
}

impl Step {
    /// Does it; `state` makes the state of a length.
    pub(crate) async fn act(
        self,
        scope: &Scope,
        storage: &Arc<dyn Storage>,
        state: impl Fn(usize) -> Bytes,
    ) -> Result<Deed> {
        match self {
            Self::Save(name, len) => {
                let state = state(len);
                let saved = scope
                    .save(name, state.clone(), SaveOptions::default())
                    .await;
                made(name, saved, Some(state))
            }
            Self::Stream(name, len) => {
                let state = state(len);
                let mut writer = scope.writer(name, SaveOptions::default()).await?;
                for piece in state.chunks(1 << 20) {
                    writer.write(piece).await?;
                }
                made(name, writer.finish().await, Some(state))
            }
            Self::Delete(name) => made(name, scope.delete(name, Expect::Any).await, None),
            Self::Restore(name, version) => {
                let state = match scope.load(name, Some(version)).await {
                    Err(Error::NotFound(_)) => return Ok(Deed::Lost),
                    loaded => loaded?.map(|snapshot| snapshot.state),
                };
                made(name, scope.restore(name, version, Expect::Any).await, state)
            }
            Self::Fork(name, new_name) => {
                let state = scope.load(name, None).await?.map(|snapshot| snapshot.state);
                let forked = scope.fork(name, None, new_name, Expect::Any).await;
                made(new_name, forked, state)
            }
            Self::Pin(name, version) => {
                scope.pin(name, version).await?;
                Ok(Deed::Pinned(name, version))
            }
            Self::Prune(name) => {
                // The clock that stamps files ticks every few milliseconds.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let pins = scope.pins(name).await?;
                let fates = scope.prune(name, &nothing()).await?;
                let gone = fates.iter().rev().filter(|fate| fate.keep.is_none());
                let gone: Vec<_> = gone.map(|fate| fate.version).collect();
                if let Some(pinned) = gone.iter().find(|version| pins.contains(version)) {
                    bail!("version {pinned} is pinned, and was pruned");
                }
                Ok(Deed::Removed(name, gone, None))
            }
            Self::Purge(name) => {
                let mut before = scope.versions(name, None, 1000).await?;
                before.reverse();
                let purged = scope.purge(name, Purge::Now).await?;
                before.retain(|&version| Some(version) < purged.tombstone);
                Ok(Deed::Removed(name, before, purged.tombstone))
            }
            Self::Put(len) => {
                let state = state(len);
                let adapter = Adapter::new(Arc::clone(storage));
                adapter.save(&state, OWN_KEY).await?;
                Ok(Deed::Put(state))
            }
        }
    }
}

fn made(
    name: &'static str,
    answer: persist_host::snapshot::Result<Info>,
    state: Option<Bytes>,
) -> Result<Deed> {
    match answer {
        Ok(info) => Ok(Deed::Made(name, info.version, state)),
        Err(Error::Conflict { .. } | Error::NotFound(_)) => Ok(Deed::Lost),
        Err(error) => bail!(error),
    }
}
