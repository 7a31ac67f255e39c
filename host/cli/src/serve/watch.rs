//! Looks for changes of a store. Any replica and any other process may make one, so the store is
//! listed from time to time, while a client watches.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use persist_host::snapshot::{self, Name, Selection, Store, Version};
use serde_json::Value;
use tokio::sync::{Notify, broadcast};

use super::version::value;

/// Changes that a slow client may be behind, before it is told that it missed some.
const BEHIND: usize = 1024;

type Heads = HashMap<(Name, Option<Name>, Name), Version>;

/// Findings of the looks so far.
#[derive(Default)]
struct Seen {
    /// None before the first look.
    heads: Option<Heads>,
    /// Clients that were told that they miss no change.
    told: u64,
}

/// A name with a new version.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) agent: Name,
    pub(super) event: &'static str,
    pub(super) value: Value,
}

/// The changes of a store, for all that watch them.
pub(super) struct Changes {
    pub(super) sender: broadcast::Sender<Change>,
    /// Told of each client that begins to watch.
    pub(super) watched: Notify,
    /// Clients that have begun to watch so far.
    pub(super) joined: AtomicU64,
    /// Clients that watch, for each token by its place in the manifest.
    pub(super) of_tokens: Mutex<HashMap<usize, usize>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BEHIND),
            watched: Notify::new(),
            joined: AtomicU64::new(0),
            of_tokens: Mutex::default(),
        }
    }
}

impl Changes {
    /// Looks for changes while a client watches.
    pub(super) async fn watch(&self, store: &Store, pause: Duration) {
        let mut seen = Seen::default();
        loop {
            if self.sender.receiver_count() == 0 {
                seen.heads = None;
                self.watched.notified().await;
            }
            // Without the next looks, clients would wait for changes for ever.
            let looked = AssertUnwindSafe(self.look_once(store, &mut seen));
            if looked.catch_unwind().await.is_err() {
                tracing::error!("a look for changes panicked; this is a bug of Persist");
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn look_once(&self, store: &Store, seen: &mut Seen) {
        let joined = self.joined.load(Ordering::Relaxed);
        match self.look(store, seen.heads.as_ref()).await {
            Ok(heads) => {
                seen.heads = Some(heads);
                // Clients that joined before this look miss no change from here on.
                if joined != seen.told {
                    seen.told = joined;
                    self.ready(joined);
                }
            }
            Err(error) => {
                // The error may name a key, which other readers of the log must not see.
                tracing::warn!("cannot look for changes; the level debug tells why");
                tracing::debug!("cannot look for changes: {error}");
            }
        }
    }

    /// Tells the first `joined` clients that they miss no change from now on.
    fn ready(&self, joined: u64) {
        let Ok(agent) = Name::new("ready") else {
            return;
        };
        let _ = self.sender.send(Change {
            agent,
            event: "ready",
            value: joined.into(),
        });
    }

    async fn look(&self, store: &Store, before: Option<&Heads>) -> snapshot::Result<Heads> {
        let mut heads = Heads::new();
        let mut walk = store.walk(&Selection::All);
        while let Some((scope, name)) = walk.next().await? {
            // One list for a name: a look at the version itself only where it is new.
            let newest = scope.versions(name.as_str(), None, 1).await?;
            let Some(&version) = newest.first() else {
                continue;
            };
            let key = (scope.agent().clone(), scope.session().cloned(), name);
            let known = before.map(|before| before.get(&key).copied());
            let is_new = known.is_some_and(|known| known != Some(version));
            if is_new && let Ok(Some(info)) = scope.stat(key.2.as_str(), Some(version)).await {
                // No one may listen any more.
                let _ = self.sender.send(Change {
                    agent: key.0.clone(),
                    event: if info.deleted { "deleted" } else { "saved" },
                    value: value(&scope, &info),
                });
            }
            heads.insert(key, version);
        }
        Ok(heads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use persist_host::snapshot::StoreOptions;
    use persist_host::storage::Memory;
    use persist_host::telemetry::{Measurement, Recorder};

    use super::*;

    /// Panics at the first measurement.
    #[derive(Debug, Default)]
    struct Faulty(AtomicBool);

    impl Recorder for Faulty {
        fn record(&self, _: &Measurement) {
            assert!(self.0.swap(true, Ordering::Relaxed), "planted");
        }
    }

    #[tokio::test]
    async fn a_look_that_panics_is_repeated() {
        let options = StoreOptions::default();
        let faulty = Arc::new(Faulty::default());
        let store = Store::with_recorder(Arc::new(Memory::new()), options, faulty.clone());
        let changes = Arc::new(Changes::default());
        let mut client = changes.sender.subscribe();
        changes.joined.fetch_add(1, Ordering::Relaxed);
        let watching = Arc::clone(&changes);
        let pause = Duration::from_millis(1);
        let watching = tokio::spawn(async move { watching.watch(&store, pause).await });
        tokio::select! {
            ready = client.recv() => assert_eq!(ready.expect("told").event, "ready"),
            ended = watching => panic!("no one looks any more: {ended:?}"),
        }
        assert!(faulty.0.load(Ordering::Relaxed), "a look has panicked");
    }
}
