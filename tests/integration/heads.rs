//! Hosts remember heads, so that a save need not look. What they say is what hosts would say that
//! look each time; and what they remember grows old.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persist_host::snapshot::{
    Error, Expect, Info, Policy, Result, Retention, SaveOptions, Scope, Store, StoreOptions,
};
use persist_host::storage::{Call, Local, Memory, Storage, Watch};
use persist_tests::{block_on, load, noise, on_every_storage, save, scope, tempdir};

/// A host of its own, which remembers for itself.
fn host(storage: &Arc<dyn Storage>) -> Scope {
    scope(Arc::clone(storage))
}

fn expecting(expect: Expect) -> SaveOptions {
    SaveOptions::expecting(expect)
}

/// Counts how often a directory is read.
#[derive(Debug, Default)]
struct Reads(AtomicUsize);

impl Watch for Reads {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if let Call::ReadDir(_) = call {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_save_after_a_look_or_after_our_own_reads_no_directory() {
    let dir = tempdir();
    let reads = Arc::new(Reads::default());
    let watched: Arc<dyn Storage> = Arc::new(Local::watched(dir.path(), reads.clone()));
    block_on(async {
        let scope = host(&watched);
        save(&scope, "memory", "first").await;
        let before = reads.0.load(Ordering::Relaxed);
        for head in (1..13).step_by(2) {
            assert_eq!(save(&scope, "memory", "next").await.version, head + 1);
            let expect = expecting(Expect::Version(head + 1));
            let saved = scope.save("memory", "next".into(), expect).await;
            assert_eq!(saved.expect("saves").version, head + 2);
        }
        assert_eq!(reads.0.load(Ordering::Relaxed), before);
        // A host that was just started looks once, once for the policy, and once for what dead ones
        // left.
        save(&host(&watched), "memory", "next").await;
        assert_eq!(reads.0.load(Ordering::Relaxed), before + 3);
    });
}

/// States of a name, by version from 1; none for a tombstone.
#[derive(Default)]
struct Model(Vec<Option<String>>);

impl Model {
    fn head(&self) -> Option<u64> {
        (!self.0.is_empty()).then_some(self.0.len() as u64)
    }

    fn state(&self) -> Option<&str> {
        self.0.last()?.as_deref()
    }

    fn holds(&self, expect: Expect) -> bool {
        match expect {
            Expect::Any => true,
            Expect::Absent => self.state().is_none(),
            Expect::Version(version) => self.head() == Some(version),
            other => unreachable!("the test does not know {other:?}"),
        }
    }

    /// Compares what a change said with what it must say, and puts it down.
    fn judge(&mut self, said: &Result<Info>, expect: Expect, makes: Option<Option<String>>) {
        let head = self.head();
        match (self.holds(expect), makes) {
            (false, _) => assert!(
                matches!(said, Err(Error::Conflict { head: now }) if *now == head),
                "{expect:?} of {head:?}: {said:?}"
            ),
            (true, None) => assert!(matches!(said, Err(Error::NotFound(_))), "{said:?}"),
            (true, Some(state)) => {
                let info = said.as_ref().expect("it is made");
                assert_eq!(info.version, head.unwrap_or(0) + 1);
                assert_eq!(info.parent, head);
                assert_eq!(info.deleted, state.is_none());
                self.0.push(state);
            }
        }
    }
}

/// Numbers below `below`, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }

    fn expect(&mut self, head: Option<u64>) -> Expect {
        match self.roll(4) {
            0 => Expect::Absent,
            1 => Expect::Version(head.unwrap_or(1)),
            2 => Expect::Version(1 + self.roll(head.unwrap_or(1) + 1)),
            _ => Expect::Any,
        }
    }
}

/// One change or load by one of the hosts.
async fn act(scope: &Scope, model: &mut Model, dice: &mut Dice, n: u64) {
    let expect = dice.expect(model.head());
    let state = format!("state {n}");
    match dice.roll(6) {
        0 => {
            let deleted = scope.delete("memory", expect).await;
            let makes = model.state().map(|_| None);
            model.judge(&deleted, expect, makes);
        }
        1 => {
            let version = 1 + dice.roll(model.0.len() as u64 + 1);
            let there = model.0.get(version as usize - 1).cloned().flatten();
            let restored = scope.restore("memory", version, expect).await;
            match there {
                Some(state) => model.judge(&restored, expect, Some(Some(state))),
                None => assert!(matches!(restored, Err(Error::NotFound(_))), "{restored:?}"),
            }
        }
        2 => {
            let streamed = async {
                let mut writer = scope.writer("memory", expecting(expect)).await?;
                writer.write(state.as_bytes()).await?;
                writer.finish().await
            };
            model.judge(&streamed.await, expect, Some(Some(state)));
        }
        3 => assert_eq!(load(scope, "memory").await.as_deref(), model.state()),
        _ => {
            let saved = scope.save("memory", state.clone().into(), expecting(expect));
            model.judge(&saved.await, expect, Some(Some(state)));
        }
    }
}

#[test]
fn hosts_that_remember_say_what_hosts_would_that_look_each_time() {
    const ACTS: u64 = 400;
    on_every_storage(async |storage| {
        let hosts = [host(&storage), host(&storage), host(&storage)];
        let mut model = Model::default();
        let mut dice = Dice(7);
        // Each does several things before another comes, or one, as it comes.
        let mut at = 0;
        for n in 0..ACTS {
            if dice.roll(3) == 0 {
                at = dice.roll(3) as usize;
            }
            act(&hosts[at], &mut model, &mut dice, n).await;
        }
        let all = host(&storage).versions("memory", None, 1000).await;
        assert_eq!(all.expect("a page").len(), model.0.len());
        assert!(model.0.len() > 50, "{} changes were made", model.0.len());
    });
}

#[test]
fn large_states_are_sent_after_the_head_was_listed() {
    on_every_storage(async |storage| {
        let ours = host(&storage);
        let other = host(&storage);
        let large = noise(1, 10 << 20);
        save(&ours, "memory", "first").await;
        save(&other, "memory", "second").await;
        // It made version 1, and knows of no other.
        let mut writer = ours
            .writer("memory", SaveOptions::default())
            .await
            .expect("a writer");
        writer.write(&large).await.expect("writes");
        assert_eq!(writer.finish().await.expect("saves").version, 3);
        save(&other, "memory", "fourth").await;
        let saved = ours.save("memory", large.into(), SaveOptions::default());
        assert_eq!(saved.await.expect("saves").version, 5);
    });
}

#[test]
fn a_long_stream_that_was_overtaken_is_a_conflict_and_overwrites_nothing() {
    on_every_storage(async |storage| {
        let ours = host(&storage);
        let other = host(&storage);
        let mut writer = ours
            .writer("memory", SaveOptions::default())
            .await
            .expect("a writer");
        writer.write(&noise(1, 10 << 20)).await.expect("writes");
        save(&other, "memory", "first").await;
        let late = writer.finish().await;
        assert!(
            matches!(late, Err(Error::Conflict { head: Some(1) })),
            "{late:?}"
        );
        assert_eq!(load(&ours, "memory").await.as_deref(), Some("first"));
        assert_eq!(save(&ours, "memory", "second").await.version, 2);
    });
}

/// The grace period of a store whose hosts sleep for longer.
const GRACE: Duration = Duration::from_millis(100);

const HOUR: Duration = Duration::from_secs(3600);

fn with_grace(storage: &Arc<dyn Storage>, grace: Duration) -> Scope {
    let mut options = StoreOptions::default();
    options.grace = grace;
    let store = Store::with_options(Arc::clone(storage), options);
    store.scope("bot", None).expect("a name")
}

/// How the other hosts prune while one sleeps.
#[derive(Clone, Copy)]
enum Prune {
    ByTheStore,
    /// By a grace period of zero, as if no host were there.
    AsIfStopped,
}

/// One host makes the store with grace period `made`, saves, and sleeps for longer than [`GRACE`].
/// Others, whose own setting is `others`, save and prune meanwhile. It saves again. Returns which
/// version that was, and the state that is loaded then.
async fn sleep_over_the_grace(made: Duration, others: Duration, prune: Prune) -> (u64, String) {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let sleeper = with_grace(&storage, made);
    let others = with_grace(&storage, others);
    save(&sleeper, "memory", "before").await;
    for text in ["2", "3", "4"] {
        save(&others, "memory", text).await;
    }
    tokio::time::sleep(2 * GRACE).await;
    let nothing = Retention::nothing();
    let pruned = match prune {
        Prune::ByTheStore => others.prune("memory", &nothing).await,
        Prune::AsIfStopped => {
            others
                .prune_with_hosts_stopped("memory", &nothing, Duration::ZERO)
                .await
        }
    };
    pruned.expect("prunes");
    let saved = save(&sleeper, "memory", "after").await;
    let loaded = load(&others, "memory").await;
    (saved.version, loaded.expect("is saved"))
}

#[test]
fn a_head_that_is_older_than_half_the_grace_is_looked_up_again() {
    let slept = sleep_over_the_grace(GRACE, GRACE, Prune::ByTheStore);
    assert_eq!(block_on(slept), (5, "after".into()));
}

#[test]
fn hosts_follow_the_stores_grace_period_and_not_their_own() {
    for (made, others) in [(HOUR, GRACE), (HOUR, Duration::ZERO), (GRACE, HOUR)] {
        let slept = sleep_over_the_grace(made, others, Prune::ByTheStore);
        assert_eq!(block_on(slept), (5, "after".into()), "{made:?} {others:?}");
    }
}

/// Shows why a prune by a shorter grace period is only for a store whose hosts are stopped.
#[test]
fn a_prune_by_a_shorter_grace_than_the_stores_loses_a_save() {
    let slept = sleep_over_the_grace(HOUR, HOUR, Prune::AsIfStopped);
    assert_eq!(block_on(slept), (2, "4".into()));
}

async fn set_grace(scope: &Scope, storage: &Arc<dyn Storage>, grace: Duration) {
    let mut policy = Policy::default();
    policy.grace = grace;
    let store = Store::new(Arc::clone(storage));
    let set = store.set_policy(&policy, Expect::Any).await;
    set.unwrap_or_else(|error| panic!("{}: {error}", scope.agent()));
}

#[test]
fn a_shorter_grace_period_prunes_by_the_longer_one_at_first() {
    block_on(async {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let sleeper = host(&storage);
        let others = host(&storage);
        save(&sleeper, "memory", "before").await;
        for text in ["2", "3", "4"] {
            save(&others, "memory", text).await;
        }
        set_grace(&others, &storage, Duration::ZERO).await;
        let fresh = host(&storage);
        let nothing = Retention::nothing();
        fresh.prune("memory", &nothing).await.expect("prunes");
        let left = others.versions("memory", None, 9).await;
        assert_eq!(left.expect("a page"), [4, 3, 2, 1]);
        assert_eq!(save(&sleeper, "memory", "after").await.version, 5);
    });
}

#[test]
fn a_longer_grace_period_trusts_no_head_that_was_seen_before_it() {
    block_on(async {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let sleeper = with_grace(&storage, GRACE);
        let others = with_grace(&storage, GRACE);
        save(&sleeper, "memory", "before").await;
        for text in ["2", "3", "4"] {
            save(&others, "memory", text).await;
        }
        tokio::time::sleep(2 * GRACE).await;
        let nothing = Retention::nothing();
        others.prune("memory", &nothing).await.expect("prunes");
        set_grace(&others, &storage, HOUR).await;
        // It reads that the grace period is an hour now, and knows a head of 200 ms ago.
        assert_eq!(save(&sleeper, "memory", "after").await.version, 5);
        assert_eq!(load(&others, "memory").await.as_deref(), Some("after"));
    });
}
