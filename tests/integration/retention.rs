//! Retention of a history: versions that are kept, pinned, pruned, purged and verified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::snapshot::{
    Error, Expect, Expiry, KeepReason, LabelRule, Policy, Purge, Retention, SaveOptions, Scope,
    Store, StoreOptions,
};
use persist_host::storage::{
    Entry, ErrorKind, Key, List, Local, Memory, ObjectMeta, Page, Part, ReadRange, Result, Storage,
};
use persist_tests::{block_on, load, on_every_storage, redate, save, scope, tempdir};
use tokio::sync::Semaphore;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Objects in memory, of which version N says that it was made N hours after the clock began, in
/// lists and in its trailer; where the create of one key can be held up, and what is read can be
/// replaced meanwhile.
#[derive(Debug)]
struct Odd {
    memory: Memory,
    /// When the storage's clock began.
    origin: SystemTime,
    /// Hours that the storage's clock shows; none: the real one.
    hours: Option<u64>,
    /// Hours between two versions.
    step: u64,
    /// A version that is said to be of another hour.
    dated: Option<(u64, u64)>,
    /// The hour of all versions above the first.
    flood: Option<u64>,
    /// Other times that trailers say, by version.
    claims: BTreeMap<u64, SystemTime>,
    /// Trailers that were read.
    trailers: AtomicUsize,
    /// The end of a key whose create waits for a permit.
    held: &'static str,
    gate: Semaphore,
    asleep: AtomicBool,
    /// True if the next version that is read in pieces is replaced, and pruned, before the first of
    /// them is read.
    replaces: AtomicBool,
    /// True if a host saves once, right after pins are listed.
    saves: AtomicBool,
}

impl Odd {
    fn new(memory: &Memory) -> Self {
        Self {
            memory: memory.clone(),
            origin: SystemTime::UNIX_EPOCH,
            hours: None,
            step: 1,
            dated: None,
            flood: None,
            claims: BTreeMap::new(),
            trailers: AtomicUsize::new(0),
            held: "nothing is held",
            gate: Semaphore::new(0),
            asleep: AtomicBool::new(false),
            replaces: AtomicBool::new(false),
            saves: AtomicBool::new(false),
        }
    }

    /// Shows `hours` at this moment.
    fn at_hour(memory: &Memory, hours: u64) -> Self {
        let mut storage = Self::new(memory);
        storage.hours = Some(hours);
        storage.origin = SystemTime::now() - HOUR * u32::try_from(hours).expect("small");
        storage
    }

    fn hour(&self, n: u64) -> SystemTime {
        self.origin + HOUR * u32::try_from(n).expect("small")
    }

    /// Returns the hour in which a version was made.
    fn made(&self, version: u64) -> SystemTime {
        self.hour(self.flood.filter(|_| version > 1).unwrap_or(version) * self.step)
    }

    /// Dates the trailer of a version.
    fn redated(&self, version: u64, mut part: Part) -> Part {
        self.trailers.fetch_add(1, Ordering::SeqCst);
        let claimed = self.claims.get(&version).copied();
        let claimed = claimed.unwrap_or_else(|| self.made(version));
        let since = claimed.duration_since(UNIX_EPOCH).expect("since 1970");
        let mut file = part.bytes.to_vec();
        redate(&mut file, u64::try_from(since.as_millis()).expect("small"));
        part.bytes = file.into();
        part
    }
}

/// The version whose file has this name.
fn version_of(name: &str) -> Option<u64> {
    name.strip_suffix(".gz")?.get(11..21)?.parse().ok()
}

#[async_trait]
impl Forward for Odd {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.memory.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if key.as_str().ends_with(self.held) {
            self.asleep.store(true, Ordering::SeqCst);
            self.gate.acquire().await.expect("open").forget();
        }
        self.memory.create(key, body).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let in_pieces = matches!(range, ReadRange::Bounded(_));
        if in_pieces && self.replaces.swap(false, Ordering::SeqCst) {
            save(&scope(Arc::new(self.memory.clone())), "memory", "newer").await;
            self.memory.delete(key).await?;
        }
        let is_suffix = matches!(range, ReadRange::Suffix(_));
        let part = self.memory.read(key, range).await?;
        let version = key
            .as_str()
            .strip_prefix("bot/~/memory/")
            .and_then(version_of);
        Ok(
            match version.filter(|_| is_suffix && self.hours.is_some()) {
                Some(version) if part.start == 0 => self.redated(version, part),
                _ => part,
            },
        )
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let mut page = self.memory.list(list).await?;
        if list.prefix.starts_with("pin-") && self.saves.swap(false, Ordering::SeqCst) {
            save(&scope(Arc::new(self.memory.clone())), "memory", "newer").await;
        }
        let Some(hours) = self.hours.filter(|_| list.meta) else {
            return Ok(page);
        };
        page.now = Some(self.hour(hours));
        for entry in &mut page.entries {
            if let Entry::Object(object) = entry
                && let Some(version) = version_of(&object.name)
                && let Some(ObjectMeta { created, .. }) = &mut object.meta
            {
                let dated = self.dated.filter(|(other, _)| *other == version);
                *created = dated.map_or_else(|| self.made(version), |(_, hour)| self.hour(hour));
            }
        }
        Ok(page)
    }
}

fn nothing() -> Retention {
    Retention::nothing()
}

/// A scope on a store with a short grace.
fn impatient(storage: Arc<dyn Storage>) -> Scope {
    let mut options = StoreOptions::default();
    options.grace = Duration::ZERO;
    let store = Store::with_options(storage, options);
    store.scope("bot", None).expect("a name")
}

async fn versions(scope: &Scope) -> Vec<u64> {
    let page = scope.versions("memory", None, 1000).await;
    page.expect("a page")
}

#[test]
fn recent_heads_are_not_pruned() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        for text in ["a", "b", "c"] {
            save(&scope, "memory", text).await;
        }
        let fates = scope.prune("memory", &nothing()).await.expect("prunes");
        let keeps: Vec<_> = fates.iter().map(|fate| fate.keep).collect();
        assert_eq!(
            keeps,
            [
                Some(KeepReason::Head),
                Some(KeepReason::Recent),
                Some(KeepReason::Recent)
            ]
        );
        assert_eq!(versions(&scope).await, [3, 2, 1]);
    });
}

#[test]
fn versions_without_a_rule_are_removed_and_the_head_stays() {
    on_every_storage(async |storage| {
        let scope = impatient(storage);
        for text in ["a", "b", "c", "d"] {
            save(&scope, "memory", text).await;
        }
        // On a disk, times are as coarse as the kernel's clock.
        tokio::time::sleep(Duration::from_millis(50)).await;
        scope.pin("memory", 2).await.expect("pins");
        let planned = scope.plan_prune("memory", &nothing()).await.expect("plans");
        assert_eq!(
            versions(&scope).await,
            [4, 3, 2, 1],
            "a plan changes nothing"
        );
        let fates = scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(fates, planned);
        assert_eq!(versions(&scope).await, [4, 2]);
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("d"));
        let gone = scope.load("memory", Some(1)).await;
        assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");

        scope.unpin("memory", 2).await.expect("unpins");
        scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(versions(&scope).await, [4]);
        assert_eq!(save(&scope, "memory", "e").await.version, 5);
    });
}

#[test]
fn each_rule_keeps_what_it_says() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in 1..=60 {
            save(&plain, "memory", &text.to_string()).await;
        }
        let mut storage = Odd::new(&memory);
        storage.hours = Some(61);
        let scope = scope(Arc::new(storage));
        scope.pin("memory", 7).await.expect("pins");
        let mut retention = nothing();
        retention.keep_last = 3;
        retention.keep_within = 4 * HOUR;
        retention.keep_hourly = 6;
        retention.keep_daily = 2;
        retention.keep_weekly = 1;
        let fates = scope.plan_prune("memory", &retention).await;
        let kept: Vec<_> = fates
            .expect("plans")
            .iter()
            .filter_map(|fate| Some((fate.version, fate.keep?)))
            .collect();
        // Hours 48 to 60 are one day, 24 to 47 the one before.
        assert_eq!(
            kept,
            [
                (60, KeepReason::Head),
                (59, KeepReason::Recent),
                (58, KeepReason::Last),
                // Version 57 was replaced in hour 58, 3 hours ago, and version 56 4 hours ago.
                (57, KeepReason::Within),
                (56, KeepReason::Within),
                (55, KeepReason::Hourly),
                (47, KeepReason::Daily),
                (7, KeepReason::Pinned),
            ]
        );
    });
}

#[test]
fn a_long_upload_is_as_young_as_what_came_after_it() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in 1..=5 {
            save(&plain, "memory", &text.to_string()).await;
        }
        let mut storage = Odd::at_hour(&memory, 6);
        // Version 4 was made between hours 3 and 5, whatever the server says of its upload.
        storage.dated = Some((4, 0));
        let scope = scope(Arc::new(storage));
        scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(versions(&scope).await, [5, 4]);
    });
}

#[test]
fn a_recent_version_keeps_all_newer_ones() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in 1..=5 {
            save(&plain, "memory", &text.to_string()).await;
        }
        let mut storage = Odd::at_hour(&memory, 8);
        // A disk dates a file by its last change, which may be another than its making.
        storage.dated = Some((3, 8));
        let scope = scope(Arc::new(storage));
        scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(versions(&scope).await, [5, 4, 3, 2]);
    });
}

#[test]
fn a_version_dated_in_the_future_is_new() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in 1..=3 {
            save(&plain, "memory", &text.to_string()).await;
        }
        let storage = Odd::at_hour(&memory, 0);
        let scope = scope(Arc::new(storage));
        scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(versions(&scope).await, [3, 2, 1]);
    });
}

/// A storage with this many versions, made hourly, the last of them hours ago, of which some claim
/// in their trailers that they are a number of minutes old.
async fn claiming(count: u64, claims: &[(u64, i64)]) -> Odd {
    let memory = Memory::new();
    let plain = scope(Arc::new(memory.clone()));
    for text in 1..=count {
        save(&plain, "memory", &text.to_string()).await;
    }
    let mut storage = Odd::at_hour(&memory, count + 50);
    let now = SystemTime::now();
    let claims = claims.iter().map(|&(version, minutes)| {
        let age = Duration::from_secs(60 * minutes.unsigned_abs());
        let claimed = if minutes < 0 { now + age } else { now - age };
        (version, claimed)
    });
    storage.claims = claims.collect();
    storage
}

#[test]
fn a_version_is_no_older_than_its_trailer_says() {
    const YEAR: i64 = 365 * 24 * 60;
    block_on(async {
        for (claims, left) in [
            (&[][..], &[5][..]),
            // The storage's clock was behind when these were made.
            (&[(5, 0), (4, 0), (3, 0)], &[5, 4, 3, 2]),
            (&[(5, 59)], &[5, 4]),
            (&[(5, 61)], &[5]),
            // What an old trailer shows is believed.
            (&[(3, 0)], &[5]),
            // Clocks of hosts that are ahead.
            (&[(5, -30)], &[5, 4]),
            (&[(5, -62)], &[5]),
            (&[(5, -YEAR), (4, -YEAR), (3, -YEAR), (2, -YEAR)], &[5]),
        ] {
            let storage = claiming(5, claims).await;
            let scope = scope(Arc::new(storage));
            let planned = scope.plan_prune("memory", &nothing()).await.expect("plans");
            let fates = scope.prune("memory", &nothing()).await.expect("prunes");
            assert_eq!(fates, planned, "{claims:?}");
            assert_eq!(versions(&scope).await, left, "{claims:?}");
        }
    });
}

#[test]
fn a_trailer_that_cannot_be_read_proves_no_age() {
    block_on(async {
        let storage = claiming(5, &[]).await;
        let key = Key::new("bot/~/memory/9999999994-0000000005.gz").expect("a key");
        let mut upload = storage.memory.replace(&key).await.expect("begins");
        upload.write("no snapshot".into()).await.expect("writes");
        upload.finish().await.expect("is there");
        let scope = scope(Arc::new(storage));
        scope.prune("memory", &nothing()).await.expect("prunes");
        assert_eq!(versions(&scope).await, [5, 4]);
    });
}

#[test]
fn a_prune_reads_one_trailer_where_clocks_agree_and_few_where_they_do_not() {
    block_on(async {
        for (young, trailers) in [(0, 1..=1), (150, 2..=9)] {
            let claims: Vec<_> = (201 - young..=200).map(|version| (version, 0)).collect();
            let storage = Arc::new(claiming(200, &claims).await);
            let scope = scope(storage.clone());
            scope.prune("memory", &nothing()).await.expect("prunes");
            let left = u64::try_from(versions(&scope).await.len()).expect("few");
            assert_eq!(left, young + 1);
            let read = storage.trailers.load(Ordering::SeqCst);
            assert!(trailers.contains(&read), "{read}");
        }
    });
}

#[test]
fn a_version_old_only_by_the_storages_clock_is_kept() {
    block_on(async {
        let storage = claiming(5, &[(5, 120), (4, 180)]).await;
        let scope = scope(Arc::new(storage));
        let mut rules = nothing();
        rules.keep_within = 24 * HOUR;
        let fates = scope.prune("memory", &rules).await.expect("prunes");
        let keeps: Vec<_> = fates.iter().map(|fate| fate.keep).collect();
        let within = Some(KeepReason::Within);
        assert_eq!(keeps, [Some(KeepReason::Head), within, within, None, None]);
    });
}

#[test]
fn a_purge_spares_what_trailers_call_young_pinned_or_not() {
    block_on(async {
        let storage = claiming(5, &[(6, 0)]).await;
        let scope = scope(Arc::new(storage));
        scope.pin("memory", 5).await.expect("pins");
        let purged = scope.purge("memory", Purge::AfterGrace).await;
        let purged = purged.expect("purges");
        assert_eq!((purged.removed, purged.kept), (4, 1));
        assert_eq!(versions(&scope).await, [6, 5]);
    });
}

/// The clock of the storage is wrong when the grace period is made shorter, or when its history is
/// read.
#[test]
fn a_shorter_grace_period_is_no_older_than_its_trailer_says() {
    block_on(async {
        for hours_ago in [5, 3] {
            let memory = Memory::new();
            let plain = scope(Arc::new(memory.clone()));
            for text in 1..=4 {
                save(&plain, "memory", &text.to_string()).await;
            }
            let mut policy = Policy::default();
            policy.grace = Duration::ZERO;
            let store = Store::new(Arc::new(memory.clone()));
            let set = store.set_policy(&policy, Expect::Any).await;
            assert_eq!(set.expect("set"), 2);
            // It says that the second policy was made in hour 2, and that this is hour 5.
            let mut storage = Odd::at_hour(&memory, 5);
            storage.origin = SystemTime::now() - hours_ago * HOUR;
            let scope = scope(Arc::new(storage));
            let fates = scope.plan_prune("memory", &nothing()).await.expect("plans");
            let keeps: Vec<_> = fates.iter().map(|fate| fate.keep).collect();
            let recent = Some(KeepReason::Recent);
            assert_eq!(
                keeps,
                [Some(KeepReason::Head), recent, None, None],
                "{hours_ago}"
            );
        }
    });
}

#[test]
fn a_state_that_stood_for_long_is_kept_after_it_is_saved_over() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in 1..=40 {
            save(&plain, "memory", &text.to_string()).await;
        }
        // Version 1 was the newest until hour 1000, 2 hours ago; 39 more followed at once.
        let mut storage = Odd::at_hour(&memory, 1002);
        storage.flood = Some(1000);
        let scope = scope(Arc::new(storage));
        let mut rules = nothing();
        rules.keep_last = 20;
        rules.keep_within = 24 * HOUR;
        let fates = scope.plan_prune("memory", &rules).await.expect("plans");
        let first = fates.last().expect("40 versions");
        assert_eq!((first.version, first.keep), (1, Some(KeepReason::Within)));
        rules.keep_within = HOUR;
        let fates = scope.plan_prune("memory", &rules).await.expect("plans");
        assert_eq!(fates.last().expect("40 versions").keep, None);
        // The default rules keep it as the newest of its hour, day and week.
        rules = Retention::default();
        rules.keep_within = Duration::ZERO;
        scope.prune("memory", &rules).await.expect("prunes");
        let mut left = versions(&scope).await;
        assert_eq!(left.pop(), Some(1));
        assert_eq!(left, (21..=40).rev().collect::<Vec<_>>());
    });
}

#[test]
fn the_newest_version_of_each_week_is_kept_from_monday_on() {
    const WEEK: u64 = 7 * 24;
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        let count = 3 * WEEK;
        for text in 1..=count {
            save(&plain, "memory", &text.to_string()).await;
        }
        // The clock began on Thursday, 1 January 1970.
        let mut storage = Odd::new(&memory);
        storage.hours = Some(count);
        let scope = scope(Arc::new(storage));
        let mut rules = nothing();
        rules.keep_weekly = 2;
        let fates = scope.plan_prune("memory", &rules).await.expect("plans");
        let weekly = fates
            .iter()
            .filter(|fate| fate.keep == Some(KeepReason::Weekly));
        let weekly: Vec<_> = weekly.map(|fate| fate.version).collect();
        // The newest of the last week is the newest of all. The week before ended 3 days before
        // Thursday.
        assert_eq!(weekly, [count - 3 * 24 - 1]);
    });
}

#[test]
fn a_storage_whose_clock_is_wrong_prunes_nothing() {
    block_on(async {
        for (hours_ahead, is_ahead) in [(2, true), (2, false)] {
            let memory = Memory::new();
            let plain = scope(Arc::new(memory.clone()));
            for text in 1..=3 {
                save(&plain, "memory", &text.to_string()).await;
            }
            let mut storage = Odd::at_hour(&memory, 10);
            let shift = HOUR * hours_ahead;
            storage.origin = if is_ahead {
                storage.origin + shift
            } else {
                storage.origin - shift
            };
            let scope = scope(Arc::new(storage));
            let pruned = scope.prune("memory", &nothing()).await;
            assert!(
                matches!(&pruned, Err(Error::Unsupported { what, .. }) if what.contains("clock")),
                "{pruned:?}"
            );
            let purged = scope.purge("memory", Purge::AfterGrace).await;
            assert!(
                matches!(&purged, Err(Error::Unsupported { what, .. }) if what.contains("clock")),
                "{purged:?}"
            );
            for version in 1..=3 {
                let loaded = scope.load("memory", Some(version)).await;
                assert!(loaded.expect("loads").is_some(), "{version}");
            }
        }
    });
}

#[test]
fn a_pin_of_what_is_not_there_is_refused_and_leaves_nothing() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        save(&scope, "memory", "a").await;
        for version in [0, 2, u64::MAX] {
            let pinned = scope.pin("memory", version).await;
            assert!(matches!(pinned, Err(Error::NotFound(_))), "{pinned:?}");
        }
        assert!(scope.pins("memory").await.expect("pins").is_empty());
        scope.pin("memory", 1).await.expect("pins");
        scope.pin("memory", 1).await.expect("twice is once");
        assert_eq!(scope.pins("memory").await.expect("pins"), [1]);
    });
}

#[test]
fn a_purge_leaves_a_tombstone_and_numbering_goes_on() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let purged = scope.purge("memory", Purge::Now).await;
        assert!(matches!(purged, Err(Error::NotFound(_))), "{purged:?}");
        for text in ["a", "b", "c"] {
            save(&scope, "memory", text).await;
        }
        scope.pin("memory", 1).await.expect("pins");
        let waiting = scope
            .purge("memory", Purge::AfterGrace)
            .await
            .expect("purges");
        assert_eq!(
            (waiting.tombstone, waiting.removed, waiting.kept),
            (Some(4), 0, 3)
        );
        let purged = scope.purge("memory", Purge::Now).await.expect("purges");
        assert_eq!(
            (purged.tombstone, purged.removed, purged.kept),
            (Some(4), 3, 0)
        );
        assert_eq!(versions(&scope).await, [4]);
        assert!(scope.pins("memory").await.expect("pins").is_empty());
        assert_eq!(load(&scope, "memory").await, None);
        assert_eq!(save(&scope, "memory", "d").await.version, 5);
    });
}

/// A writer looks up the head, sleeps, and creates the version after it, while others purge, save,
/// and purge again.
async fn sleep_through_two_purges(purge: Purge) -> (persist_host::snapshot::Result<u64>, Scope) {
    let memory = Memory::new();
    let others = scope(Arc::new(memory.clone()));
    save(&others, "memory", "1").await;
    let mut storage = Odd::new(&memory);
    storage.held = "-0000000002.gz";
    let storage = Arc::new(storage);
    let sleeper = scope(storage.clone());
    let slow = tokio::spawn(async move {
        let saved = sleeper.save("memory", "mine".into(), SaveOptions::default());
        saved.await.map(|info| info.version)
    });
    while !storage.asleep.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    others.purge("memory", purge).await.expect("purges");
    save(&others, "memory", "3").await;
    others.purge("memory", purge).await.expect("purges");
    storage.gate.add_permits(1);
    (slow.await.expect("no panic"), others)
}

#[test]
fn a_save_that_slept_through_purges_is_not_lost() {
    block_on(async {
        let (saved, others) = sleep_through_two_purges(Purge::AfterGrace).await;
        // Version 2, a tombstone, is still there: so the sleeper's save took the next number.
        assert_eq!(saved.expect("saved"), 5);
        assert_eq!(load(&others, "memory").await.as_deref(), Some("mine"));
    });
}

/// Shows why [`Purge::Now`] is for names without writers, and the grace period is the default.
#[test]
fn a_purge_that_does_not_wait_can_lose_a_save_that_slept() {
    block_on(async {
        let (saved, others) = sleep_through_two_purges(Purge::Now).await;
        assert_eq!(saved.expect("acknowledged"), 2);
        assert_eq!(load(&others, "memory").await, None, "below a tombstone");
    });
}

#[test]
fn a_file_is_as_young_as_its_name() {
    let dir = tempdir();
    block_on(async {
        let local = Local::new(dir.path());
        let key = Key::new("a/b").expect("a key");
        let mut upload = local.upload(&key).await.expect("begins");
        upload
            .write("written long before".into())
            .await
            .expect("writes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let named = SystemTime::now();
        upload.finish().await.expect("finishes");
        let list = List::new("a").with_limit(10).with_meta();
        let page = local.list(&list).await.expect("a page");
        let [Entry::Object(object)] = &page.entries[..] else {
            panic!("{page:?}");
        };
        let meta = object.meta.expect("asked for");
        assert_eq!(meta.size, 19);
        // The kernel stamps files with a clock that ticks every few milliseconds.
        let tick = Duration::from_millis(50);
        assert!(meta.created + tick > named, "{meta:?} {named:?}");
        assert!(meta.created <= page.now.expect("asked for"));
    });
}

#[test]
fn verify_reads_every_byte_and_refuses_a_misplaced_version() {
    let dir = tempdir();
    block_on(async {
        let scope = scope(Arc::new(Local::new(dir.path())));
        // More than one batch of blocks.
        let state = persist_tests::noise(1, 6 << 20);
        let saved = scope.save("memory", state.into(), SaveOptions::default());
        let info = saved.await.expect("saves");
        let verified = scope.verify("memory", None).await.expect("verifies");
        let verified = verified.expect("is there");
        assert_eq!(verified.info, info);
        assert_eq!(scope.verify("other", None).await.expect("verifies"), None);

        let names = dir.path().join("bot/~");
        std::fs::create_dir(names.join("copied")).expect("made");
        let file = "9999999998-0000000001.gz";
        std::fs::copy(
            names.join("memory").join(file),
            names.join("copied").join(file),
        )
        .expect("copied");
        let copied = scope.verify("copied", None).await;
        let Err(Error::Misplaced { saved_as, .. }) = copied else {
            panic!("{copied:?}");
        };
        assert_eq!(saved_as, "bot/memory@1");

        let path = names.join("memory").join(file);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[3 << 20] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        let verified = scope.verify("memory", None).await;
        assert!(
            matches!(verified, Err(Error::Corrupt { .. })),
            "{verified:?}"
        );

        scope.delete("copied", Expect::Any).await.expect("deletes");
        let verified = scope.verify("copied", None).await.expect("verifies");
        assert!(verified.expect("is there").info.deleted);
    });
}

/// A scope on whose store retention keeps two versions.
fn tended(storage: Arc<dyn Storage>) -> (Store, Scope) {
    let mut options = StoreOptions::default();
    options.grace = Duration::ZERO;
    let mut two = nothing();
    two.keep_last = 2;
    options.retention = Some(two);
    let store = Store::with_options(storage, options);
    let scope = store.scope("bot", None).expect("a name");
    (store, scope)
}

#[test]
fn retention_runs_by_itself_after_some_of_the_saves() {
    on_every_storage(async |storage| {
        let (store, scope) = tended(storage);
        for text in 1..=15 {
            save(&scope, "memory", &text.to_string()).await;
        }
        store.wait_idle().await;
        assert_eq!(versions(&scope).await.len(), 15, "it is not yet due");
        // On a disk, times are as coarse as the kernel's clock.
        tokio::time::sleep(Duration::from_millis(50)).await;
        save(&scope, "memory", "16").await;
        // It has begun, and is waited for.
        store.wait_idle().await;
        let left = versions(&scope).await;
        assert!(left == [16, 15] || left == [16, 15, 14], "{left:?}");
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("16"));
    });
}

#[test]
fn retention_that_fails_fails_no_save() {
    block_on(async {
        let faulty = Arc::new(NeverDeletes(Memory::new()));
        let (store, scope) = tended(faulty);
        for version in 1..=40 {
            let info = save(&scope, "memory", "x").await;
            assert_eq!(info.version, version);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        store.wait_idle().await;
        assert_eq!(versions(&scope).await.len(), 40);
    });
}

/// A scope in which version 1 of `memory` is pruned as soon as any of it is read.
async fn replaced_while_it_is_read() -> Scope {
    let memory = Memory::new();
    let large = persist_tests::noise(1, 3 << 20).into();
    let honest = scope(Arc::new(memory.clone()));
    let saved = honest.save("memory", large, SaveOptions::default()).await;
    assert_eq!(saved.expect("saves").version, 1);
    let odd = Odd {
        replaces: AtomicBool::new(true),
        ..Odd::new(&memory)
    };
    scope(Arc::new(odd))
}

#[test]
fn a_head_pruned_during_a_read_is_replaced_by_the_new_head() {
    block_on(async {
        let scope = replaced_while_it_is_read().await;
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("newer"));

        let scope = replaced_while_it_is_read().await;
        let verified = scope.verify("memory", None).await.expect("verifies");
        assert_eq!(verified.map(|verified| verified.info.version), Some(2));

        let scope = replaced_while_it_is_read().await;
        let forked = scope.fork("memory", None, "copy", Expect::Any).await;
        assert_eq!(forked.expect("forks").version, 1);
        assert_eq!(load(&scope, "copy").await.as_deref(), Some("newer"));
    });
}

#[test]
fn a_numbered_version_pruned_during_a_read_is_not_found() {
    block_on(async {
        let scope = replaced_while_it_is_read().await;
        let loaded = scope.load("memory", Some(1)).await;
        assert!(matches!(loaded, Err(Error::NotFound(_))), "{loaded:?}");

        let scope = replaced_while_it_is_read().await;
        let restored = scope.restore("memory", 1, Expect::Any).await;
        assert!(matches!(restored, Err(Error::NotFound(_))), "{restored:?}");
    });
}

/// Objects in memory, of which none may be removed but for those that try the storage.
#[derive(Debug)]
struct NeverDeletes(Memory);

#[async_trait]
impl Forward for NeverDeletes {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        if key.as_str().ends_with(".gz") {
            Err(persist_host::storage::Error::new(
                ErrorKind::Denied,
                "as planned",
            ))
        } else {
            self.0.delete(key).await
        }
    }
}

#[test]
fn the_newest_version_of_each_month_and_year_is_kept() {
    block_on(async {
        // One version for each 10 days, of which the last is from 3 October 1971.
        const TEN_DAYS: u64 = 10 * 24;
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        let count = 64;
        for text in 1..=count {
            save(&plain, "memory", &text.to_string()).await;
        }
        let mut storage = Odd::new(&memory);
        storage.hours = Some(count * TEN_DAYS + 48);
        storage.step = TEN_DAYS;
        let scope = scope(Arc::new(storage));
        let kept = async |rules: &Retention, why| {
            let fates = scope.plan_prune("memory", rules).await.expect("plans");
            let kept = fates.iter().filter(|fate| fate.keep == Some(why));
            kept.map(|fate| fate.version).collect::<Vec<_>>()
        };
        let mut rules = nothing();
        rules.keep_monthly = 3;
        // The newest of October is the newest of all. Then 23 September and 24 August.
        assert_eq!(kept(&rules, KeepReason::Monthly).await, [63, 60]);
        rules.keep_monthly = 0;
        rules.keep_yearly = 5;
        // 27 December 1970.
        assert_eq!(kept(&rules, KeepReason::Yearly).await, [36]);
    });
}

#[test]
fn versions_with_a_label_are_kept() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for (key, value) in [
            ("release", "1"),
            ("turn", "1"),
            ("kind", "audit"),
            ("kind", "x"),
        ] {
            let options = SaveOptions::default().with_label(key, value);
            let saved = plain.save("memory", value.to_owned().into(), options);
            saved.await.expect("saves");
        }
        save(&plain, "memory", "newest").await;
        let scope = scope(Arc::new(Odd::at_hour(&memory, 100)));
        let mut rules = nothing();
        rules.keep_labels = vec![
            LabelRule::new("release", None),
            LabelRule::new("kind", Some("audit".into())),
        ];
        let fates = scope.prune("memory", &rules).await.expect("prunes");
        let labelled = fates
            .iter()
            .filter(|fate| fate.keep == Some(KeepReason::Labelled));
        let labelled: Vec<_> = labelled.map(|fate| fate.version).collect();
        assert_eq!(labelled, [3, 1]);
        assert_eq!(versions(&scope).await, [5, 3, 1]);
        // A version whose labels cannot be read stays.
        let key = Key::new(format!("bot/~/memory/{}", persist_tests::version_file(3)));
        let key = key.expect("a key");
        memory.delete(&key).await.expect("deletes");
        let damaged = vec![Bytes::from_static(b"damaged")];
        memory.create(&key, damaged).await.expect("creates");
        let plain = impatient(Arc::new(memory.clone()));
        let fates = plain.plan_prune("memory", &rules).await.expect("plans");
        assert!(fates.iter().all(|fate| fate.keep.is_some()), "{fates:?}");
    });
}

#[test]
fn a_name_that_is_not_saved_expires_and_is_purged_later() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        for text in ["1", "2", "3"] {
            save(&plain, "memory", text).await;
        }
        // Version N was made in hour N.
        let at = |hour: u64| scope(Arc::new(Odd::at_hour(&memory, hour)));
        let day = 24 * HOUR;
        let expire = async |hour: u64, dry_run: bool| {
            let expiry = at(hour).expire("memory", day, &nothing(), dry_run).await;
            expiry.expect("looks")
        };
        assert_eq!(expire(3 + 24, false).await, Expiry::None);
        assert_eq!(expire(3 + 26, true).await, Expiry::Expired(3, None));
        assert_eq!(versions(&plain).await, [3, 2, 1]);
        // A pin protects the name.
        plain.pin("memory", 1).await.expect("pins");
        assert_eq!(expire(3 + 26, false).await, Expiry::Pinned);
        plain.unpin("memory", 1).await.expect("unpins");
        assert_eq!(expire(3 + 26, false).await, Expiry::Expired(3, Some(4)));
        let tombstone = plain
            .stat("memory", None)
            .await
            .expect("looks")
            .expect("is there");
        assert!(tombstone.deleted);
        let label = ("persist.expired-after".to_owned(), "86400s".to_owned());
        assert_eq!(tombstone.labels, [label]);
        assert_eq!(expire(4 + 20, false).await, Expiry::None);
        assert_eq!(expire(4 + 26, true).await, Expiry::Purged(4, 3));
        assert_eq!(versions(&plain).await, [4, 3, 2, 1]);
        assert_eq!(expire(4 + 26, false).await, Expiry::Purged(4, 3));
        assert_eq!(versions(&plain).await, [4]);
        assert_eq!(expire(4 + 99, false).await, Expiry::None);
        // A name that an operator deleted is not purged by itself.
        let plain = scope(Arc::new(memory.clone()));
        save(&plain, "memory", "5").await;
        plain.delete("memory", Expect::Any).await.expect("deletes");
        assert_eq!(expire(6 + 99, false).await, Expiry::None);
        assert_eq!(versions(&plain).await, [6, 5, 4]);
    });
}

#[test]
fn a_purge_of_what_expired_does_not_undo_a_save_that_comes_meanwhile() {
    block_on(async {
        let memory = Memory::new();
        save(&scope(Arc::new(memory.clone())), "memory", "old").await;
        let expire = async |hour: u64, saves: bool| {
            let storage = Odd::at_hour(&memory, hour);
            storage.saves.store(saves, Ordering::SeqCst);
            let scope = scope(Arc::new(storage));
            let expiry = scope.expire("memory", 24 * HOUR, &nothing(), false).await;
            expiry.expect("looks")
        };
        assert_eq!(expire(40, false).await, Expiry::Expired(1, Some(2)));
        assert_eq!(expire(80, true).await, Expiry::Purged(2, 1));
        let plain = scope(Arc::new(memory.clone()));
        assert_eq!(load(&plain, "memory").await.as_deref(), Some("newer"));
        assert_eq!(versions(&plain).await, [3, 2]);
    });
}

#[test]
fn a_name_with_a_kept_label_does_not_expire() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        let options = SaveOptions::default().with_label("release", "1");
        plain
            .save("memory", "1".into(), options)
            .await
            .expect("saves");
        save(&plain, "memory", "2").await;
        let mut rules = nothing();
        let at = || scope(Arc::new(Odd::at_hour(&memory, 99)));
        rules.keep_labels = vec![LabelRule::new("release", None)];
        let expiry = at().expire("memory", 24 * HOUR, &rules, false).await;
        assert_eq!(expiry.expect("looks"), Expiry::Labelled);
        rules.keep_labels = vec![LabelRule::new("other", None)];
        let expiry = at().expire("memory", 24 * HOUR, &rules, false).await;
        assert_eq!(expiry.expect("looks"), Expiry::Expired(2, Some(3)));
    });
}

#[test]
fn an_expiry_does_not_undo_a_save_that_comes_first() {
    block_on(async {
        let memory = Memory::new();
        let plain = scope(Arc::new(memory.clone()));
        save(&plain, "memory", "old").await;
        // The tombstone of the expiry waits at its key while a host saves.
        let mut storage = Odd::at_hour(&memory, 99);
        storage.held = "0000000002.gz";
        let storage = Arc::new(storage);
        let expiring = scope(Arc::clone(&storage) as Arc<dyn Storage>);
        let expiry = tokio::spawn(async move {
            expiring
                .expire("memory", 24 * HOUR, &nothing(), false)
                .await
        });
        while !storage.asleep.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        save(&plain, "memory", "new").await;
        storage.gate.add_permits(1);
        let expiry = expiry.await.expect("ends").expect("looks");
        assert_eq!(expiry, Expiry::Conflict);
        let loaded = plain
            .load("memory", None)
            .await
            .expect("loads")
            .expect("a state");
        assert_eq!(&loaded.state[..], b"new");
    });
}
