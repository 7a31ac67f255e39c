//! `examples/fleet`: turns that are done once, however often a call is repeated.

#[path = "../../examples/fleet/src/turns.rs"]
mod turns;

use std::thread::{scope, sleep};
use std::time::Duration;

use persist_host::snapshot::{LeaseOptions, Store};
use persist_servers::Kind;
use persist_tests::store::TestStore;
use persist_tests::{block_on, host, load, test_guest};

use turns::{Failure, Heads, Turn, Turns};

/// A worker's turns, of a host that waits for the lease of another one.
fn turns_of(place: &TestStore, term: Duration) -> Turns {
    let mut lease = LeaseOptions::default();
    lease.term = term;
    lease.wait = Duration::from_secs(60);
    Turns {
        store: Store::new(place.storage()),
        agent: block_on(test_guest(&host())),
        lease,
    }
}

const TERM: Duration = Duration::from_secs(20);

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_call_that_is_repeated_is_one_turn() {
    let place = TestStore::on(Kind::SeaweedFs);
    let turns = turns_of(&place, TERM);
    block_on(async {
        let args = words(&["update", "memory", "t1"]);
        let heads = turns.heads("bot/monday").await.expect("reads");
        assert_eq!(heads, Heads::new());
        let first = turns.run("bot/monday", "call-1", &heads, &args).await;
        let versions = words(&["memory@1"]);
        let expected = Turn {
            answer: Some("t1".into()),
            versions: versions.clone(),
        };
        assert_eq!(first.expect("runs"), expected);
        // The worker died before Restate had the answer.
        for _ in 0..2 {
            let again = turns.run("bot/monday", "call-1", &heads, &args).await;
            let expected = Turn {
                answer: None,
                versions: versions.clone(),
            };
            assert_eq!(again.expect("found"), expected);
        }
        // Above versions of others, too: those of a second engine, or of an operator.
        let heads_of_second = turns.heads("bot/monday").await.expect("reads");
        assert_eq!(heads_of_second, Heads::from([("memory".into(), 1)]));
        let args = words(&["update", "memory", "t2"]);
        let second = turns.run("bot/monday", "call-2", &heads_of_second, &args);
        assert_eq!(second.await.expect("runs").answer, Some("t1 t2".into()));
        let again = turns.run("bot/monday", "call-1", &heads, &args).await;
        assert_eq!(again.expect("found").versions, versions);
    });
}

#[test]
fn a_call_whose_worker_died_after_its_save_is_found_by_another_worker() {
    let place = TestStore::on(Kind::SeaweedFs);
    let term = Duration::from_millis(200);
    let (dies, other) = (turns_of(&place, term), turns_of(&place, term));
    let args = words(&["save-and-loop", "x", "hello"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let of_dead = args.clone();
    let attempt = async move { dies.run("bot", "call-1", &Heads::new(), &of_dead).await };
    runtime.spawn(attempt);
    let scope = place.scope();
    while block_on(scope.stat("x", None)).expect("reads").is_none() {
        sleep(Duration::from_millis(5));
    }
    // Its lease is not released.
    runtime.shutdown_background();
    let found = block_on(other.run("bot", "call-1", &Heads::new(), &args));
    let expected = Turn {
        answer: None,
        versions: words(&["x@1"]),
    };
    assert_eq!(found.expect("found"), expected);
}

#[test]
fn calls_of_two_engines_on_one_key_are_each_one_turn() {
    const CALLS: usize = 5;
    let place = TestStore::on(Kind::SeaweedFs);
    scope(|scope| {
        for engine in ["a", "b"] {
            let turns = turns_of(&place, TERM);
            scope.spawn(move || {
                for call in 1..=CALLS {
                    let id = format!("{engine}{call}");
                    let args = words(&["update", "memory", &id]);
                    let heads = block_on(turns.heads("bot")).expect("reads");
                    while let Err(failure) = block_on(turns.run("bot", &id, &heads, &args)) {
                        assert!(matches!(failure, Failure::Retry(_)), "{failure:?}");
                    }
                }
            });
        }
    });
    let memory = block_on(load(&place.scope(), "memory")).expect("saved");
    let mut done: Vec<_> = memory.split_whitespace().collect();
    for engine in ["a", "b"] {
        let mine: Vec<_> = done
            .iter()
            .filter(|word| word.starts_with(engine))
            .collect();
        assert!(mine.is_sorted(), "{done:?}");
    }
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), 2 * CALLS, "{done:?}");
    let newest = block_on(place.scope().stat("memory", None)).expect("reads");
    assert_eq!(newest.expect("saved").version, 2 * CALLS as u64);
}

#[test]
fn only_failures_that_may_pass_are_worth_a_retry() {
    let place = TestStore::local();
    let mut turns = turns_of(&place, TERM);
    turns.lease.wait = Duration::ZERO;
    let run = |key: &'static str, args: &[&str]| {
        block_on(turns.run(key, "call-1", &Heads::new(), &words(args)))
    };
    let ended = |failure: Result<Turn, Failure>| match failure {
        Err(Failure::Final(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = ended(run("bot", &["update", "x", "throw"]));
    assert!(why.contains("the agent answered with an error"), "{why}");
    let why = ended(run("", &["echo", "hi"]));
    assert!(why.contains("name"), "{why}");
    let lease = block_on(place.scope().lease(&LeaseOptions::default()));
    let lease = lease.expect("it is free");
    let held = run("bot", &["echo", "hi"]);
    let Err(Failure::Retry(why)) = held else {
        panic!("{held:?}");
    };
    assert!(why.contains("is leased by"), "{why}");
    block_on(lease.release()).expect("released");
    assert_eq!(
        run("bot", &["echo", "hi"]).expect("runs").answer,
        Some("hi".into())
    );
}
