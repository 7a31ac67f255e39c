//! Tests of leases on a storage in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::snapshot::{Error, Expect, LeaseState, SaveOptions};
use crate::storage::{List, Memory, Storage as _};

const TERM: Duration = Duration::from_millis(40);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(work)
}

fn options(holder: &str, term: Duration) -> LeaseOptions {
    LeaseOptions {
        term,
        holder: holder.into(),
        ..LeaseOptions::default()
    }
}

fn hour(holder: &str) -> LeaseOptions {
    options(holder, Duration::from_secs(3600))
}

/// Two hosts of one store, each with a memory of its own.
fn hosts() -> (Memory, Store, Store) {
    let memory = Memory::new();
    let store = || Store::new(Arc::new(memory.clone()));
    let (one, other) = (store(), store());
    (memory, one, other)
}

/// Acquires the lease of the agent through `one`, after a save of the host before.
async fn lease_after_a_save(one: &Store, before: &Scope) -> Lease {
    save(before, "first").await.expect("saved");
    one.lease("bot", None, &hour("one")).await.expect("free")
}

async fn save(scope: &Scope, state: &'static str) -> Result<u64> {
    let saved = scope.save(
        "memory",
        Bytes::from_static(state.as_bytes()),
        SaveOptions::default(),
    );
    saved.await.map(|info| info.version)
}

async fn objects(memory: &Memory) -> usize {
    let list = List::new("~/lease/bot/~");
    memory.list(&list).await.expect("a list").entries.len()
}

#[test]
fn a_frozen_lease_refuses_what_was_computed_from_a_later_version_of_another_writer() {
    let expected = [Expect::Any, Expect::Version(2), Expect::Absent];
    for (name, expect) in ["memory", "memory", "later"].into_iter().zip(expected) {
        block_on(async {
            let (_, one, other) = hosts();
            let late = other.scope("bot", None).expect("a scope");
            let lease = lease_after_a_save(&one, &late).await;
            let scope = lease.scope();
            let mut past = scope.past("memory", None, 10).expect("a name");
            let seen = past.next().await.expect("read").expect("a version");
            assert_eq!(seen.0, 1);
            lease.freeze();
            // A save that the holder before had begun comes in between.
            let state = Bytes::from_static(b"late");
            let saved = late.save(name, state.clone(), SaveOptions::default());
            saved.await.expect("saved");
            let loaded = scope.load(name, None).await.expect("loads");
            assert_eq!(loaded.expect("a state").state, state);
            let options = SaveOptions::expecting(expect);
            let refused = scope.save(name, state, options).await;
            let error = refused.expect_err("another writer made the version");
            assert!(matches!(error, Error::LeaseLost { .. }), "{error}");
            assert!(lease.is_lost());
            // It is released all the same.
            lease.release().await.expect("released");
            let next = other.lease("bot", None, &hour("other")).await;
            next.expect("free");
        });
    }
}

#[test]
fn a_frozen_lease_permits_changes_on_what_was_seen_and_on_its_own() {
    block_on(async {
        let (_, one, other) = hosts();
        let before = other.scope("bot", None).expect("a scope");
        let lease = lease_after_a_save(&one, &before).await;
        let scope = lease.scope();
        scope.load("memory", None).await.expect("loads");
        lease.freeze();
        assert_eq!(save(&scope, "second").await.expect("saved"), 2);
        scope.load("memory", None).await.expect("loads");
        assert_eq!(save(&scope, "third").await.expect("saved"), 3);
        let state = Bytes::from_static(b"new");
        let new = scope.save("new", state, SaveOptions::default());
        assert_eq!(new.await.expect("saved").version, 1);
        assert!(!lease.is_lost());
    });
}

#[test]
fn each_way_to_look_at_the_newest_version_counts_before_a_lease_is_frozen() {
    for way in ["load", "stat", "versions", "history", "past"] {
        block_on(async {
            let (_, one, other) = hosts();
            let late = other.scope("bot", None).expect("a scope");
            let lease = lease_after_a_save(&one, &late).await;
            let scope = lease.scope();
            let seen = match way {
                "load" => scope.load("memory", None).await.expect("loads").is_some(),
                "stat" => scope.stat("memory", None).await.expect("read").is_some(),
                "versions" => scope.versions("memory", None, 1).await.expect("listed") == [1],
                "history" => scope.history("memory", None, 1).await.expect("read").len() == 1,
                _ => {
                    let mut past = scope.past("memory", None, 1).expect("a name");
                    past.next().await.expect("read").is_some()
                }
            };
            assert!(seen, "{way}");
            lease.freeze();
            assert_eq!(save(&scope, "second").await.expect(way), 2);
        });
    }
}

#[test]
fn a_lease_is_held_by_one_host_until_it_is_released() {
    block_on(async {
        let (memory, one, other) = hosts();
        let lease = one.lease("bot", None, &hour("one")).await.expect("free");
        let refused = other.lease("bot", None, &hour("other")).await;
        let error = refused.expect_err("held").to_string();
        assert!(
            error.starts_with("agent bot is leased by one until 2"),
            "{error}"
        );
        // Sessions and other agents have leases of their own.
        for (agent, session) in [("bot", Some("monday")), ("other", None)] {
            let lease = other.lease(agent, session, &hour("other")).await;
            lease.expect("free").release().await.expect("released");
        }
        for _ in 0..5 {
            lease.renew().await.expect("renewed");
        }
        assert_eq!(objects(&memory).await, 2, "the first and the newest");
        lease.release().await.expect("released");
        assert_eq!(objects(&memory).await, 1);
        let lease = other
            .lease("bot", None, &hour("other"))
            .await
            .expect("free");
        assert!(lease.number() > 5, "numbers go on");
    });
}

#[test]
fn a_lease_that_is_not_renewed_is_taken_over_and_its_holder_cannot_commit() {
    block_on(async {
        let (_, one, other) = hosts();
        let old = one
            .lease("bot", None, &options("one", TERM))
            .await
            .expect("free");
        let first = old.scope();
        assert_eq!(save(&first, "a").await.expect("saved"), 1);
        assert!(other.lease("bot", None, &hour("other")).await.is_err());
        tokio::time::sleep(2 * TERM).await;
        let new = other
            .lease("bot", None, &hour("other"))
            .await
            .expect("expired");
        let second = new.scope();
        assert!(second.load("memory", None).await.expect("loaded").is_some());
        assert_eq!(save(&second, "b").await.expect("saved"), 2);
        for _ in 0..2 {
            let late = save(&first, "c").await;
            assert!(matches!(late, Err(Error::LeaseLost { .. })), "{late:?}");
            // Neither does it go on from what the new holder saved.
            first.load("memory", None).await.expect("loaded");
        }
        let renewed = old.renew().await;
        assert!(
            matches!(renewed, Err(Error::LeaseLost { .. })),
            "{renewed:?}"
        );
        assert_eq!(save(&second, "d").await.expect("saved"), 3);
    });
}

#[test]
fn a_holder_that_no_clock_warns_cannot_commit_after_the_new_holder() {
    block_on(async {
        for loads in [false, true] {
            let (_, one, other) = hosts();
            // An operator's break stands for a clock that jumps: to its holder, the lease is good.
            let old = one.lease("bot", None, &hour("one")).await.expect("free");
            let first = old.scope();
            if loads {
                first.load("memory", None).await.expect("loaded");
            }
            other
                .scope("bot", None)
                .expect("a scope")
                .break_lease("op")
                .await
                .expect("broken");
            let new = other
                .lease("bot", None, &hour("other"))
                .await
                .expect("free");
            assert_eq!(save(&new.scope(), "b").await.expect("saved"), 1);
            assert!(!old.remaining().is_zero());
            let late = save(&first, "c").await;
            assert!(matches!(late, Err(Error::LeaseLost { .. })), "{late:?}");
            let mut writer = first.writer("memory", SaveOptions::default()).await;
            assert!(matches!(writer.as_mut(), Err(Error::LeaseLost { .. })));
        }
    });
}

#[test]
fn a_change_under_a_lease_is_made_on_what_its_holder_saw() {
    block_on(async {
        let (_, one, other) = hosts();
        let operator = other.scope("bot", None).expect("a scope");
        assert_eq!(save(&operator, "a").await.expect("saved"), 1);
        let lease = one.lease("bot", None, &hour("one")).await.expect("free");
        let scope = lease.scope();
        scope.load("memory", None).await.expect("loaded");
        assert_eq!(save(&operator, "b").await.expect("saved"), 2);
        let late = save(&scope, "c").await;
        assert!(
            matches!(late, Err(Error::Conflict { head: Some(2) })),
            "{late:?}"
        );
        let writer = scope.writer("memory", SaveOptions::default()).await;
        let streamed = writer.expect("a writer").finish().await;
        assert!(
            matches!(streamed, Err(Error::Conflict { head: Some(2) })),
            "{streamed:?}"
        );
        let deleted = scope.delete("memory", Expect::Any).await;
        assert!(
            matches!(deleted, Err(Error::Conflict { head: Some(2) })),
            "{deleted:?}"
        );
        scope.load("memory", None).await.expect("loaded");
        assert_eq!(save(&scope, "c").await.expect("saved"), 3);
        assert_eq!(save(&scope, "d").await.expect("saved"), 4);
        // What the caller expects holds as it does without a lease.
        let absent = SaveOptions::expecting(Expect::Absent);
        let saved = scope.save("memory", "e".into(), absent).await;
        assert!(matches!(saved, Err(Error::Conflict { .. })), "{saved:?}");
        let fourth = SaveOptions::expecting(Expect::Version(4));
        scope
            .save("memory", "e".into(), fourth)
            .await
            .expect("saved");
    });
}

#[test]
fn nothing_that_was_there_is_what_absent_means_under_a_lease() {
    block_on(async {
        let (_, one, other) = hosts();
        let lease = one.lease("bot", None, &hour("one")).await.expect("free");
        let scope = lease.scope();
        assert!(scope.load("memory", None).await.expect("loaded").is_none());
        let operator = other.scope("bot", None).expect("a scope");
        save(&operator, "a").await.expect("saved");
        operator
            .delete("memory", Expect::Any)
            .await
            .expect("deleted");
        let absent = SaveOptions::expecting(Expect::Absent);
        let saved = scope.save("memory", "b".into(), absent).await;
        assert!(
            matches!(saved, Err(Error::Conflict { head: Some(2) })),
            "{saved:?}"
        );
    });
}

#[test]
fn a_host_waits_for_a_lease_within_bounds() {
    block_on(async {
        let (_, one, other) = hosts();
        let lease = one.lease("bot", None, &hour("one")).await.expect("free");
        let mut patient = hour("other");
        patient.wait = TERM;
        let refused = other.lease("bot", None, &patient).await;
        assert!(matches!(refused, Err(Error::Leased { .. })), "{refused:?}");
        patient.wait = Duration::from_secs(3600);
        lease.release().await.expect("released");
        let lease = other.lease("bot", None, &patient).await.expect("released");
        assert_eq!(lease.holder(), "other");
    });
}

#[test]
fn a_lease_is_renewed_in_the_background() {
    block_on(async {
        let (_, one, other) = hosts();
        let mut lease = one
            .lease("bot", None, &options("one", TERM))
            .await
            .expect("free");
        lease.renew_in_background();
        let mut impatient = options("other", TERM);
        impatient.wait = 4 * TERM;
        let refused = other.lease("bot", None, &impatient).await;
        assert!(matches!(refused, Err(Error::Leased { .. })), "{refused:?}");
        drop(lease);
        impatient.wait = Duration::from_secs(3600);
        other
            .lease("bot", None, &impatient)
            .await
            .expect("released");
    });
}

#[test]
fn leases_are_listed_and_broken() {
    block_on(async {
        let (_, one, other) = hosts();
        assert!(one.leases().await.expect("a list").is_empty());
        let lease = one
            .lease("bot", Some("monday"), &hour("one"))
            .await
            .expect("free");
        let free = one.lease("bot", None, &hour("one")).await.expect("free");
        free.release().await.expect("released");
        let leases = other.leases().await.expect("a list");
        let listed: Vec<_> = leases
            .iter()
            .map(|lease| (lease.session.as_ref().map(Name::as_str), lease.state))
            .collect();
        let monday = (Some("monday"), LeaseState::Held);
        assert_eq!(listed, [monday, (None, LeaseState::Released)]);
        let left = leases[0].remaining().expect("it is held");
        assert!(left > Duration::from_secs(5000), "{left:?}");
        let scope = other.scope("bot", Some("monday")).expect("a scope");
        let broken = scope.break_lease("operator").await.expect("broken");
        assert_eq!(broken.map(|lease| lease.holder).as_deref(), Some("one"));
        assert!(
            scope
                .break_lease("operator")
                .await
                .expect("nothing")
                .is_none()
        );
        let error = lease.renew().await.expect_err("lost").to_string();
        let lost = "the lease of session monday of agent bot was lost to operator";
        assert_eq!(error, lost);
        other
            .lease("bot", Some("monday"), &hour("other"))
            .await
            .expect("free");
    });
}

#[test]
fn an_object_that_cannot_be_read_is_a_lease_that_ends() {
    block_on(async {
        let (memory, one, _) = hosts();
        one.init().await.expect("a store");
        let key = "~/lease/bot/~/9999999994-0000000005.json";
        let key = crate::storage::Key::new(key).expect("a key");
        memory
            .create(&key, vec!["{}".into()])
            .await
            .expect("created");
        let error = one
            .lease("bot", None, &hour("one"))
            .await
            .expect_err("held");
        assert!(error.to_string().contains("leased by unknown"), "{error}");
        let scope = one.scope("bot", None).expect("a scope");
        scope.break_lease("operator").await.expect("broken");
        let lease = one.lease("bot", None, &hour("one")).await.expect("free");
        assert_eq!(lease.number(), 7);
    });
}

#[test]
fn options_that_cannot_be_kept_are_refused() {
    block_on(async {
        let (_, one, _) = hosts();
        let long = "x".repeat(201);
        for wrong in [
            options("one", Duration::ZERO),
            options("one", Duration::from_secs(90_000)),
            hour(""),
            hour("a\nb"),
            hour(&long),
        ] {
            let refused = one.lease("bot", None, &wrong).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        one.lease("bot", None, &LeaseOptions::default())
            .await
            .expect("free");
    });
}
