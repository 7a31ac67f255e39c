//! Initializes a store, and verifies that its backend honours conditional creates and lists
//! consistently.
//!
//! `~/store.json` is created once and says which format and suffix the store has. Before that, the
//! storage must refuse to create an object twice (one that accepts ignores conditions, and would
//! let one save overwrite another), and must list what was just created, at once and in order,
//! since heads are found by listing ([`probe::lists`]). A server that is not Amazon's or Google's
//! must also let one of several writers win that race for one object: it may look whether an object
//! exists, and write it afterwards. That is recorded in the store, and probed once for each server.
//!
//! Probes are small objects, which are removed again. Those of a process that was killed are
//! removed by the next one that makes the store, by each process that meets one where a list costs
//! no request, and by `persist gc`. Another prune removes those of a prune that was killed, once
//! they are an hour old.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::snapshot::clock::{ClockProbe, Moment};
use crate::snapshot::layout::{CLOCK_PREFIX, OWN_DIR, PROBE_PREFIX, STORE_HEADER_NAME, own_key};
use crate::snapshot::shared::{StoreRef, check, header};
use crate::snapshot::{Error, Result};
use crate::storage::probe::{self, Way};
use crate::storage::{Entry, ErrorKind, List, Object, Page, Pager, Storage};

/// A probe takes seconds: what is younger may be another host's at this moment.
pub(crate) const PROBING: Duration = Duration::from_secs(60 * 60);

/// Probes of the dead that are removed at once: far more than there ever are.
pub(crate) const MAX_SWEPT: usize = 1000;

/// Before the first write of a process: makes the store, or checks that it is one that this build
/// may write to, in a storage that keeps its word.
pub(crate) async fn ensure_initialized(store: &StoreRef) -> Result<()> {
    let storage = &store.shared.storage;
    if store.find().await? {
        verify_existing(storage).await
    } else {
        initialize(store).await
    }
}

/// Trusts a store that is there.
async fn verify_existing(storage: &Arc<dyn Storage>) -> Result<()> {
    if storage.supports_conditional_create() {
        sweep(&**storage).await;
        return Ok(());
    }
    // Google limits how often one object may be written, so no key is written by every process.
    if storage.is_providers_own() {
        return Ok(());
    }
    // It may have been copied to where conditions mean nothing.
    create_again(&**storage, STORE_HEADER_NAME, header()).await?;
    if let Some(server) = storage.unknown_server() {
        let probed = probe::ensure_exclusive(storage, &server, Way::Single).await;
        probed.map_err(|error| refusal(&**storage, error))?;
    }
    Ok(())
}

/// Returns the error of a probe. A storage that failed it cannot hold a store.
fn refusal(storage: &dyn Storage, error: crate::storage::Error) -> Error {
    match error.kind() {
        ErrorKind::Unsupported => Error::Unsupported {
            what: error.to_string(),
            object: Some(storage.location()),
            hint: error.hint().map(str::to_owned),
        },
        _ => error.into(),
    }
}

async fn initialize(store: &StoreRef) -> Result<()> {
    let shared = &store.shared.storage;
    let storage = &**shared;
    // Before there is anything that the next host would believe.
    if let Err(refused) = probe(shared).await {
        // Another host that made the store meanwhile removed our probes with all others.
        return match check(storage).await {
            Ok(true) => verify_existing(shared).await,
            _ => Err(refused),
        };
    }
    // Before the store is there: no host uses a store that its maker left without a policy.
    store.write_first_policy().await?;
    match storage
        .create(&own_key(STORE_HEADER_NAME)?, vec![header()])
        .await
    {
        Ok(()) => {}
        // Another host makes it at this moment: what it says is checked as if it had always been
        // there.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if !check(storage).await? {
                let what = "nothing was saved: the storage reports that the store header exists, \
                    and does not return it";
                return Err(Error::unsupported(what)
                    .with_hint("check the server")
                    .at(storage.location()));
            }
            // The host that made it sweeps: many hosts would delete the same objects at once.
            return Ok(());
        }
        // Another process may have created it.
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
            if !check(storage).await? {
                return Err(error.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    sweep(storage).await;
    Ok(())
}

/// Removes probes, now that there is a store: of hosts that died, and of those that will look for
/// the store when they miss them. They cost nothing but space: what fails is left.
async fn sweep(storage: &dyn Storage) {
    let list = List::new(OWN_DIR)
        .with_prefix(PROBE_PREFIX)
        .with_limit(MAX_SWEPT);
    let Ok(page) = storage.list(&list).await else {
        return;
    };
    for entry in page.entries {
        match entry {
            Entry::Object(probe) => {
                if let Ok(key) = own_key(&probe.name) {
                    probe::remove_object(storage, &key).await;
                }
            }
            Entry::Dir(dir) => probe::remove(storage, &format!("{OWN_DIR}/{dir}")).await,
        }
    }
}

/// Verifies that the storage keeps what a store needs. One that is no server is verified by two
/// small objects alone: that it lists them at once and in order, and refuses to create one again.
async fn probe(storage: &Arc<dyn Storage>) -> Result<()> {
    let probed = match storage.unknown_server() {
        Some(server) => probe::ensure_exclusive(storage, &server, Way::Single).await,
        None if storage.supports_conditional_create() => Ok(()),
        None => probe::lists(storage).await,
    };
    probed.map_err(|error| refusal(&**storage, error))?;
    probe_objects(&**storage).await
}

async fn probe_objects(storage: &dyn Storage) -> Result<()> {
    let id = format!("{PROBE_PREFIX}{:032x}", crate::random::u128());
    let names = [format!("{id}-1"), format!("{id}-2")];
    let probe = Bytes::from_static(b"probe\n");
    for name in names.iter().rev() {
        match storage.create(&own_key(name)?, vec![probe.clone()]).await {
            // No other process has the name: an attempt whose answer was lost made it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(crate::storage::Error::of_a_trial)?,
        }
    }
    let listed = list_probes(storage, &id, names.len()).await;
    let refused = create_again(storage, &names[0], probe).await;
    for name in &names {
        probe::remove_object(storage, &own_key(name)?).await;
    }
    refused?;
    let expected: Vec<_> = names.map(Entry::object).into();
    if listed? == expected {
        Ok(())
    } else {
        Err(Error::unsupported(
            "nothing was saved: this storage does not list new objects at once and in order, so \
             the newest version could be missed",
        )
        .with_hint("use another storage")
        .at(storage.location()))
    }
}

/// Lists the objects whose names begin with `id`, one on each page, as far as there are not more
/// than expected.
async fn list_probes(storage: &dyn Storage, id: &str, expected: usize) -> Result<Vec<Entry>> {
    let list = List::new(OWN_DIR).with_prefix(id).with_limit(1);
    let mut pages = Pager::new(storage, list);
    let mut listed = Vec::new();
    while listed.len() <= expected
        && let Some(page) = pages.next().await?
    {
        listed.extend(page.entries);
    }
    Ok(listed)
}

/// Makes an object and looks at the time that the storage gives it.
pub(crate) async fn probe_clock(store: &StoreRef) -> Result<ClockProbe> {
    let storage = &*store.shared.storage;
    let name = format!("{CLOCK_PREFIX}{:032x}", crate::random::u128());
    let key = own_key(&name)?;
    let before = Moment::now();
    let create = || storage.create(&key, vec![Bytes::from_static(b"probe\n")]);
    let mut made = create().await;
    if matches!(&made, Err(error) if error.kind() == ErrorKind::NoSpace) {
        made = create().await;
    }
    match made {
        // The name is no other host's: an attempt whose answer was lost made it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // A full disk must not keep versions from being removed. A list tells the time, too.
        Err(error) if error.kind() == ErrorKind::NoSpace => {
            return list_clock(storage, before).await;
        }
        made => made?,
    }
    let list = List::new(OWN_DIR)
        .with_prefix(CLOCK_PREFIX)
        .with_limit(MAX_SWEPT)
        .with_meta();
    let mut listed = storage.list(&list).await;
    if let Ok(page) = &listed {
        sweep_clocks(storage, page).await;
        if page.more {
            listed = storage.list(&list.with_prefix(&name)).await;
        }
    }
    storage.delete(&key).await?;
    let created = listed?.entries.into_iter().find_map(|entry| match entry {
        Entry::Object(object) if object.name == name => Some(object.meta?.created),
        _ => None,
    });
    let created = created.ok_or_else(|| {
        Error::unsupported(
            "nothing was pruned: the storage does not list a new object at once with its time",
        )
        .at(storage.location())
    })?;
    Ok(ClockProbe { before, created })
}

/// Removes objects that tell the storage's time, of prunes that died: the list of our own shows
/// them. What fails is left.
async fn sweep_clocks(storage: &dyn Storage, page: &Page) {
    for entry in &page.entries {
        if let Entry::Object(Object { name, meta }) = entry
            && let (Some(meta), Some(now)) = (meta, page.now)
            && now.duration_since(meta.created).unwrap_or_default() >= PROBING
            && let Ok(key) = own_key(name)
        {
            let _ = storage.delete(&key).await;
        }
    }
}

/// Takes the time that the storage says with a list.
async fn list_clock(storage: &dyn Storage, before: Moment) -> Result<ClockProbe> {
    let list = List::new(OWN_DIR)
        .with_prefix(STORE_HEADER_NAME)
        .with_limit(1)
        .with_meta();
    let page = storage.list(&list).await?;
    let created = page.now.ok_or_else(|| {
        Error::unsupported("nothing was pruned: the storage does not report its time")
            .at(storage.location())
    })?;
    Ok(ClockProbe { before, created })
}

/// Creates what is there already, which must be refused.
async fn create_again(storage: &dyn Storage, name: &str, body: Bytes) -> Result<()> {
    match storage.create(&own_key(name)?, vec![body]).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.of_a_trial().into()),
        Ok(()) => Err(Error::unsupported(
            "nothing was saved: this storage lets an object be created twice, so one save could \
             overwrite another",
        )
        .with_hint("use a storage that honours conditional creates")
        .at(storage.location())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::conformance::Forward;
    use crate::snapshot::StoreOptions;
    use crate::storage::{Key, Memory};

    /// A bucket on a provider's own server, in memory.
    #[derive(Debug, Default)]
    struct Own {
        memory: Memory,
        creates: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Forward for Own {
        fn inner(&self) -> Arc<dyn Storage> {
            Arc::new(self.memory.clone())
        }

        fn is_providers_own(&self) -> bool {
            true
        }

        async fn create(&self, key: &Key, body: Vec<Bytes>) -> crate::storage::Result<()> {
            let mut named = vec![key.as_str().to_owned()];
            self.creates.lock().expect("no panic").append(&mut named);
            self.memory.create(key, body).await
        }
    }

    #[test]
    fn a_process_writes_no_object_that_all_processes_write() {
        block_on(async {
            let storage = Arc::new(Own::default());
            let open = || StoreRef::new(storage.clone(), StoreOptions::default(), None);
            ensure_initialized(&open()).await.expect("makes the store");
            storage.creates.lock().expect("no panic").clear();
            ensure_initialized(&open()).await.expect("trusts the store");
            let creates = storage.creates.lock().expect("no panic").clone();
            assert_eq!(creates, [""; 0]);
        });
    }

    fn store_in(storage: impl Storage) -> StoreRef {
        StoreRef::new(Arc::new(storage), StoreOptions::default(), None)
    }

    /// A storage in which something happens once, when `store.json` or a probe is made.
    #[derive(Debug, Default)]
    struct Eventful {
        memory: Memory,
        /// True if the answer is lost when `store.json` is made.
        answer_lost: AtomicBool,
        /// True if another host makes the store, and removes all probes, when probes are listed.
        another_is_first: AtomicBool,
        /// An object whose time of creation is this many hours ago.
        left: Option<(&'static str, u32)>,
    }

    #[async_trait]
    impl Forward for Eventful {
        fn inner(&self) -> Arc<dyn Storage> {
            Arc::new(self.memory.clone())
        }

        async fn create(&self, key: &Key, body: Vec<Bytes>) -> crate::storage::Result<()> {
            self.memory.create(key, body).await?;
            if key.as_str().ends_with(STORE_HEADER_NAME)
                && self.answer_lost.swap(false, Ordering::Relaxed)
            {
                Err(crate::storage::Error::new(
                    ErrorKind::OutcomeUnknown,
                    "lost",
                ))
            } else {
                Ok(())
            }
        }

        async fn list(&self, list: &List<'_>) -> crate::storage::Result<Page> {
            if self.another_is_first.swap(false, Ordering::Relaxed) {
                initialize(&store_in(self.memory.clone()))
                    .await
                    .expect("makes it");
            }
            let mut page = self.memory.list(list).await?;
            for entry in &mut page.entries {
                if let Entry::Object(Object {
                    name,
                    meta: Some(meta),
                }) = entry
                    && let Some((_, hours)) = self.left.filter(|left| left.0 == name)
                {
                    meta.created -= PROBING * hours;
                }
            }
            Ok(page)
        }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    async fn leave_probes(memory: &Memory) {
        for name in ["probe-0-1", "probe-0-2"] {
            let key = own_key(name).expect("a key");
            memory.create(&key, Vec::new()).await.expect("creates");
        }
    }

    async fn is_clean(memory: &Memory) -> bool {
        let list = List::new(OWN_DIR).with_limit(10);
        let page = memory.list(&list).await.expect("a page");
        // The store and its policy.
        page.entries == [Entry::object(STORE_HEADER_NAME), Entry::Dir(OWN_DIR.into())]
    }

    #[test]
    fn leftover_probes_are_removed() {
        block_on(async {
            let memory = Memory::new();
            for _ in 0..2 {
                leave_probes(&memory).await;
                let store = store_in(memory.clone());
                ensure_initialized(&store).await.expect("is introduced");
                assert!(is_clean(&memory).await);
            }
        });
    }

    #[test]
    fn a_store_that_was_made_without_an_answer_is_looked_at() {
        block_on(async {
            let storage = Eventful::default();
            storage.answer_lost.store(true, Ordering::Relaxed);
            let memory = storage.memory.clone();
            let store = store_in(storage);
            ensure_initialized(&store).await.expect("is there");
            assert!(is_clean(&memory).await);
        });
    }

    #[test]
    fn a_host_whose_probes_are_removed_trusts_the_store() {
        block_on(async {
            let storage = Eventful::default();
            storage.another_is_first.store(true, Ordering::Relaxed);
            let memory = storage.memory.clone();
            let store = store_in(storage);
            ensure_initialized(&store).await.expect("is there");
            assert!(is_clean(&memory).await);
        });
    }

    #[test]
    fn a_prune_removes_what_a_dead_one_left_to_read_the_clock() {
        block_on(async {
            for (hours, is_left) in [(0, true), (1, false)] {
                let storage = Eventful {
                    left: Some(("clock-0", hours)),
                    ..Eventful::default()
                };
                let memory = storage.memory.clone();
                let left = own_key("clock-0").expect("a key");
                memory.create(&left, Vec::new()).await.expect("creates");
                let store = store_in(storage);
                probe_clock(&store).await.expect("tells the time");
                let list = List::new(OWN_DIR).with_prefix(CLOCK_PREFIX).with_limit(10);
                let page = memory.list(&list).await.expect("a page");
                assert_eq!(page.entries.len(), usize::from(is_left), "{hours}");
            }
        });
    }
}
