//! Versions that runs with an `Idempotency-Key` saved.
//!
//! The key is in a label, which only a read of a version tells. An agent may save thousands of
//! versions a day, so each is read once: a process remembers the keys that it found, and up to
//! which version of a name it looked. The next request lists the names, and reads what is new.
//! Versions never change, and a number is not used twice, so this finds what reading all of them
//! again would find.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use persist_host::snapshot::{self, Info, Name, Scope, Version};

use super::problem::Result;
use super::queue::{Key, ScopeKey, other_body};

/// Label with the hash of the key of the request whose run saved a version.
const KEY_LABEL: &str = "persist.idempotency-key";

/// Label with the hash of the body of that request.
const BODY_LABEL: &str = "persist.request-sha256";

/// Age up to which versions are looked at for the key of a request.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Names of a page.
const PAGE: usize = 1000;

/// Names whose newest version is looked up together.
const AT_ONCE: usize = 16;

/// Names and versions that are remembered, at most. Each takes some hundred bytes.
const MAX_REMEMBERED: usize = 100_000;

/// Versions with keys that this process has found.
#[derive(Default)]
pub(super) struct KeyedVersions(Mutex<Remembered>);

/// Findings for each scope. Those of scopes that had no request for long are forgotten: when the
/// recent half is full, it becomes the older half, and what was the older half is dropped.
#[derive(Default)]
struct Remembered {
    recent: HashMap<ScopeKey, Findings>,
    /// Entries of all findings in `recent`.
    size: usize,
    older: HashMap<ScopeKey, Findings>,
}

/// Findings of the looks at one scope.
#[derive(Default)]
struct Findings {
    /// For each name, the version up to which all that are not too old were read.
    read: HashMap<Name, Version>,
    /// Versions with a label of a key, by its value.
    keyed: HashMap<String, Vec<Keyed>>,
}

/// A version with the label of a key.
#[derive(PartialEq)]
struct Keyed {
    name: Name,
    version: Version,
    created_at: u64,
}

/// Returns the labels of the versions that the run of a request saves.
pub(super) fn labels(key: Key) -> [(String, String); 2] {
    [
        (KEY_LABEL.to_owned(), hex::encode(key.hash)),
        (BODY_LABEL.to_owned(), hex::encode(key.body)),
    ]
}

impl KeyedVersions {
    /// Returns the versions that the run of an earlier request with this key saved. No other look
    /// at the same scope may be under way: it would begin anew.
    ///
    /// A version that cannot be read does not tell its labels, and is passed over.
    pub(super) async fn of(&self, scope: &Scope, key: Key) -> Result<Vec<Info>> {
        let oldest = oldest();
        let place = (scope.agent().clone(), scope.session().cloned());
        let mut findings = self.remembered().take(&place);
        let looked = findings.look(scope, oldest).await;
        // What was read before an error need not be read again.
        let found = match looked {
            Ok(()) => findings.versions_of(scope, key).await,
            Err(error) => Err(error.into()),
        };
        self.remembered().put(place, findings);
        found
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn take(&mut self, place: &ScopeKey) -> Findings {
        if let Some(findings) = self.recent.remove(place) {
            self.size -= findings.size();
            return findings;
        }
        self.older.remove(place).unwrap_or_default()
    }

    fn put(&mut self, place: ScopeKey, findings: Findings) {
        let size = findings.size();
        if size > MAX_REMEMBERED / 2 {
            return;
        }
        if self.size + size > MAX_REMEMBERED / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.size = 0;
        }
        self.size += size;
        if let Some(replaced) = self.recent.insert(place, findings) {
            self.size -= replaced.size();
        }
    }
}

impl Findings {
    /// Returns the number of its entries.
    fn size(&self) -> usize {
        let keyed: usize = self.keyed.values().map(Vec::len).sum();
        1 + self.read.len() + keyed
    }

    /// Reads the versions since the last look that are not older than `oldest`.
    async fn look(&mut self, scope: &Scope, oldest: u64) -> snapshot::Result<()> {
        self.keyed.retain(|_, versions| {
            versions.retain(|one| one.created_at >= oldest);
            !versions.is_empty()
        });
        let mut names = HashMap::new();
        let mut after: Option<Name> = None;
        loop {
            let last = after.as_ref().map(Name::as_str);
            let page = match scope.names("", last, PAGE).await {
                // The first run makes the store.
                Err(snapshot::Error::NoStore { .. }) => return Ok(()),
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            let heads = page.into_iter().map(|name| {
                let scope = scope.clone();
                async move {
                    let newest = scope.versions(name.as_str(), None, 1).await;
                    newest.map(|newest| (name, newest.first().copied()))
                }
            });
            let mut heads = stream::iter(heads).buffered(AT_ONCE);
            while let Some(head) = heads.next().await {
                let (name, head) = head?;
                let Some(head) = head else { continue };
                self.look_at(scope, &name, head, oldest).await?;
                if let Some(&read) = self.read.get(&name) {
                    names.insert(name, read);
                }
            }
        }
        // Without names that are gone.
        self.read = names;
        Ok(())
    }

    /// Reads the versions of a name from its newest, `head`, down to what was read before.
    async fn look_at(
        &mut self,
        scope: &Scope,
        name: &Name,
        head: Version,
        oldest: u64,
    ) -> snapshot::Result<()> {
        // Numbers begin again where files were removed by hand.
        let read = self.read.get(name).filter(|read| **read <= head);
        let read = read.copied().unwrap_or(0);
        let new = usize::try_from(head - read).unwrap_or(usize::MAX);
        if new == 0 {
            return Ok(());
        }
        let mut is_whole = true;
        let mut past = scope.past(name.as_str(), head.checked_add(1), new)?;
        while let Some((version, info)) = past.next().await? {
            if version <= read {
                break;
            }
            let Ok(info) = info else {
                is_whole = false;
                continue;
            };
            if info.created_at < oldest {
                break;
            }
            self.add(name, &info);
        }
        // A version that could not be read is read again at the next look.
        if is_whole {
            self.read.insert(name.clone(), head);
        }
        Ok(())
    }

    fn add(&mut self, name: &Name, info: &Info) {
        let Some(key) = label(info, KEY_LABEL) else {
            return;
        };
        let versions = self.keyed.entry(key.to_owned()).or_default();
        let found = Keyed {
            name: name.clone(),
            version: info.version,
            created_at: info.created_at,
        };
        if !versions.contains(&found) {
            versions.push(found);
        }
    }

    /// Returns the versions with a key, in the order of their creation.
    async fn versions_of(&self, scope: &Scope, key: Key) -> Result<Vec<Info>> {
        let hash = hex::encode(key.hash);
        let body = hex::encode(key.body);
        let mut found = Vec::new();
        for one in self.keyed.get(&hash).into_iter().flatten() {
            let before = one.version.checked_add(1);
            let mut past = scope.past(one.name.as_str(), before, 1)?;
            // Pruned since then, or not readable any more.
            let Some((_, Ok(info))) = past.next().await? else {
                continue;
            };
            // An older version, where this one was pruned.
            if info.version != one.version || label(&info, KEY_LABEL) != Some(hash.as_str()) {
                continue;
            }
            if label(&info, BODY_LABEL) != Some(body.as_str()) {
                return Err(other_body());
            }
            found.push(info);
        }
        found.sort_by_key(|info| info.created_at);
        Ok(found)
    }
}

fn label<'a>(info: &'a Info, key: &str) -> Option<&'a str> {
    let label = info.labels.iter().find(|(label, _)| label == key);
    label.map(|(_, value)| value.as_str())
}

/// Returns the time before which versions are too old, in milliseconds since 1970.
fn oldest() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let oldest = now.saturating_sub(WINDOW).as_millis();
    u64::try_from(oldest).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use persist_host::snapshot::{SaveOptions, Store, StoreOptions};
    use persist_host::storage::{Local, Memory, Storage};
    use persist_host::telemetry::{Layer, Measurement, Recorder};

    use super::*;

    /// Counts calls of the storage.
    #[derive(Debug, Default)]
    struct Calls(AtomicUsize);

    impl Recorder for Calls {
        fn record(&self, measurement: &Measurement) {
            let is_call = measurement.layer == Layer::Storage;
            self.0.fetch_add(is_call.into(), Ordering::Relaxed);
        }
    }

    struct Fixture {
        scope: Scope,
        calls: Arc<Calls>,
        keyed: KeyedVersions,
    }

    fn key(number: u8) -> Key {
        Key {
            hash: [number; 32],
            body: [0; 32],
        }
    }

    impl Fixture {
        fn new(storage: Arc<dyn Storage>) -> Self {
            let calls = Arc::new(Calls::default());
            let options = StoreOptions::default();
            let store = Store::with_recorder(storage, options, calls.clone());
            Self {
                scope: store.scope("bot", None).expect("a scope"),
                calls,
                keyed: KeyedVersions::default(),
            }
        }

        async fn save(&self, name: &str, of: Option<Key>) -> Info {
            let scope = self.scope.clone();
            let scope = match of {
                Some(key) => scope.with_host_labels(labels(key)),
                None => scope,
            };
            let saved = scope.save(name, "state".into(), SaveOptions::default());
            saved.await.expect("saved")
        }

        /// Returns the addresses of the versions with a key, and the calls of the storage.
        async fn look(&self, key: Key) -> (Vec<(String, Version)>, usize) {
            let before = self.calls.0.load(Ordering::Relaxed);
            let found = self.keyed.of(&self.scope, key).await;
            let found = found.unwrap_or_else(|problem| panic!("{}", problem.detail));
            let calls = self.calls.0.load(Ordering::Relaxed) - before;
            let found = found.into_iter().map(|info| (info.name, info.version));
            (found.collect(), calls)
        }
    }

    #[tokio::test]
    async fn each_version_is_read_once() {
        let fixture = Fixture::new(Arc::new(Memory::new()));
        for number in 0..150 {
            let name = ["a", "b", "c"][number % 3];
            fixture.save(name, (number == 40).then(|| key(40))).await;
        }
        let (found, calls) = fixture.look(key(1)).await;
        assert_eq!(found, []);
        assert!(calls >= 150, "{calls}");
        // Lists of the names and of their end, and of the newest version of each.
        let (found, calls) = fixture.look(key(2)).await;
        assert_eq!(found, []);
        assert!(calls <= 2 + 3, "{calls}");
        // What was found before is found again, with a list and a read of it.
        let (found, calls) = fixture.look(key(40)).await;
        assert_eq!(found, [("b".to_owned(), 14)]);
        assert!(calls <= 2 + 3 + 2, "{calls}");
        // What another process saves is found, and only what is new is read.
        fixture.save("a", Some(key(3))).await;
        fixture.save("a", Some(key(3))).await;
        fixture.save("d", Some(key(3))).await;
        let (mut found, calls) = fixture.look(key(3)).await;
        found.sort();
        let all = [("a", 51), ("a", 52), ("d", 1)];
        assert_eq!(found, all.map(|(name, version)| (name.to_owned(), version)));
        // Of two names, the new versions are listed and read, and then each with the key.
        assert!(calls <= 2 + 4 + 2 + 3 + 2 * 3, "{calls}");
    }

    #[tokio::test]
    async fn another_body_is_refused_also_for_a_remembered_key() {
        let fixture = Fixture::new(Arc::new(Memory::new()));
        fixture.save("a", Some(key(1))).await;
        let other = Key {
            hash: [1; 32],
            body: [9; 32],
        };
        for _ in 0..2 {
            let refused = fixture.keyed.of(&fixture.scope, other).await;
            assert_eq!(refused.expect_err("refused").status.as_u16(), 422);
        }
        assert_eq!(fixture.look(key(1)).await.0, [("a".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn numbers_that_begin_again_are_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut fixture = Fixture::new(Arc::new(Local::new(dir.path())));
        fixture.save("a", None).await;
        fixture.save("a", None).await;
        assert_eq!(fixture.look(key(1)).await.0, []);
        std::fs::remove_dir_all(dir.path().join("bot/~/a")).expect("removed");
        // Another process, which does not remember the newest version.
        let other = Fixture::new(Arc::new(Local::new(dir.path())));
        other.save("a", Some(key(1))).await;
        fixture.scope = other.scope.clone();
        assert_eq!(fixture.look(key(1)).await.0, [("a".to_owned(), 1)]);
    }

    /// Returns the file of the only version of name `a`.
    fn file_of_a(dir: &Path) -> PathBuf {
        let mut files = std::fs::read_dir(dir.join("bot/~/a")).expect("a directory");
        files.next().expect("a file").expect("readable").path()
    }

    #[tokio::test]
    async fn a_version_that_could_not_be_read_is_read_at_the_next_look() {
        let dir = tempfile::tempdir().expect("a directory");
        let fixture = Fixture::new(Arc::new(Local::new(dir.path())));
        fixture.save("a", Some(key(1))).await;
        let file = file_of_a(dir.path());
        let bytes = std::fs::read(&file).expect("readable");
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, "damaged").expect("written");
        fixture.save("a", None).await;
        assert_eq!(fixture.look(key(1)).await.0, []);
        std::fs::write(&file, bytes).expect("written");
        assert_eq!(fixture.look(key(1)).await.0, [("a".to_owned(), 1)]);
    }

    #[test]
    fn scopes_without_requests_are_forgotten_before_others() {
        let place = |number: usize| {
            let agent = Name::new(format!("bot-{number}")).expect("a name");
            (agent, None)
        };
        let findings = |names: usize| Findings {
            read: (0..names)
                .map(|number| (Name::new(format!("name-{number}")).expect("a name"), 1))
                .collect(),
            keyed: HashMap::new(),
        };
        let mut remembered = Remembered::default();
        let names = MAX_REMEMBERED / 10;
        for number in 0..30 {
            remembered.put(place(number), findings(names));
            // The first scope is used all the time.
            let first = remembered.take(&place(0));
            assert_eq!(first.read.len(), names, "after {number}");
            remembered.put(place(0), first);
            let all = remembered.recent.values().chain(remembered.older.values());
            let all: usize = all.map(Findings::size).sum();
            assert!(all <= MAX_REMEMBERED, "{all}");
        }
        assert!(remembered.take(&place(1)).read.is_empty());
        // More than can be remembered is not.
        remembered.put(place(100), findings(MAX_REMEMBERED));
        assert!(remembered.take(&place(100)).read.is_empty());
    }
}
