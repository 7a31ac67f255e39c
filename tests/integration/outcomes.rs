//! Messages when the storage's answer is unclear, and storages that are refused.

use std::sync::Arc;
use std::time::Duration;

use persist_host::conformance::{Fault, Faulty};
use persist_host::snapshot::{Error, Expect, SaveOptions, Scope, Store, StoreOptions};
use persist_host::storage::{ErrorKind, Key, Memory, ReadRange, Storage};
use persist_tests::{block_on, load, noise, save, scope};

fn faulty() -> Arc<Faulty> {
    Arc::new(Faulty::new(Arc::new(Memory::new())))
}

/// A scope on a store that is there, so that a fault meets a save.
async fn scope_in(storage: Arc<Faulty>) -> Scope {
    let scope = scope(storage);
    save(&scope, "first", "makes the store").await;
    scope
}

/// The bytes that another host would put at version 1 of `memory`.
async fn foreign() -> Vec<bytes::Bytes> {
    let memory = Memory::new();
    save(&scope(Arc::new(memory.clone())), "memory", "theirs").await;
    let key = Key::new("bot/~/memory/9999999998-0000000001.gz").expect("a key");
    let part = memory
        .read(&key, ReadRange::Suffix(u64::MAX))
        .await
        .expect("is there");
    vec![part.bytes]
}

#[test]
fn a_save_whose_reply_was_lost_is_recognised_as_done() {
    block_on(async {
        for fault in [Fault::ReplyLost, Fault::OwnRetry] {
            let storage = faulty();
            let scope = scope_in(storage.clone()).await;
            storage.plan(fault.clone());
            assert_eq!(save(&scope, "memory", "mine").await.version, 1);
            assert_eq!(
                scope.versions("memory", None, 9).await.expect("a page"),
                [1],
                "{fault:?}"
            );
        }
    });
}

#[test]
fn a_save_that_may_still_arrive_is_an_unknown_outcome() {
    block_on(async {
        let storage = faulty();
        let scope = scope_in(storage.clone()).await;
        storage.plan(Fault::RequestLost);
        let unknown = scope
            .save("memory", "mine".into(), SaveOptions::default())
            .await;
        assert!(
            matches!(unknown, Err(Error::UnknownOutcome { version: 1, .. })),
            "{unknown:?}"
        );
    });
}

#[test]
fn a_visible_save_that_may_not_survive_is_an_unknown_outcome() {
    block_on(async {
        let storage = faulty();
        let scope = scope_in(storage.clone()).await;
        storage.plan(Fault::NotDurable);
        let unknown = scope
            .save("memory", "mine".into(), SaveOptions::default())
            .await;
        assert!(
            matches!(unknown, Err(Error::UnknownOutcome { version: 1, .. })),
            "{unknown:?}"
        );
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("mine"));
    });
}

#[test]
fn an_unanswered_save_that_another_overtook_tries_the_next_version() {
    block_on(async {
        let storage = faulty();
        let scope = scope_in(storage.clone()).await;
        storage.plan(Fault::LostToAnother(foreign().await));
        assert_eq!(save(&scope, "memory", "mine").await.version, 2);

        let storage = faulty();
        let scope = scope_in(storage.clone()).await;
        storage.plan(Fault::LostToAnother(foreign().await));
        let options = SaveOptions::expecting(Expect::Absent);
        let lost = scope.save("memory", "mine".into(), options).await;
        assert!(
            matches!(lost, Err(Error::Conflict { head: Some(1) })),
            "{lost:?}"
        );
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("theirs"));
    });
}

#[test]
fn a_long_stream_whose_reply_was_lost_is_judged_as_a_save_is() {
    block_on(async {
        let noise = noise(1, 10 << 20);
        let storage = faulty();
        let scope = scope_in(storage.clone()).await;
        let stream = async || {
            let mut writer = scope.writer("log", SaveOptions::default()).await?;
            writer.write(&noise).await?;
            writer.finish().await
        };
        storage.plan(Fault::ReplyLost);
        assert_eq!(stream().await.expect("recognised").version, 1);
        storage.plan(Fault::RequestLost);
        let unknown = stream().await;
        assert!(
            matches!(unknown, Err(Error::UnknownOutcome { version: 2, .. })),
            "{unknown:?}"
        );
        storage.plan(Fault::Fails(ErrorKind::NoSpace));
        let full = stream().await;
        assert!(
            matches!(&full, Err(Error::Storage(e)) if e.kind() == ErrorKind::NoSpace),
            "{full:?}"
        );
    });
}

#[test]
fn a_writer_that_slept_is_acknowledged_only_if_it_is_the_head() {
    const GRACE: Duration = Duration::from_millis(200);
    block_on(async {
        let storage = faulty();
        let mut options = StoreOptions::default();
        options.grace = GRACE;
        let sleeper = Store::with_options(storage.clone(), options)
            .scope("bot", None)
            .expect("a name");
        save(&sleeper, "memory", "before").await;

        storage.plan(Fault::AnsweredLate(GRACE));
        assert_eq!(save(&sleeper, "memory", "alone").await.version, 2);

        // Long enough for the other save, on the slowest machine.
        storage.plan(Fault::AnsweredLate(15 * GRACE));
        let late = tokio::spawn(async move {
            let options = SaveOptions::default();
            sleeper.save("memory", "late".into(), options).await
        });
        let other = scope(storage);
        while other.versions("memory", None, 1).await.expect("a page") != [3] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        save(&other, "memory", "meanwhile").await;
        let late = late.await.expect("no panic");
        assert!(
            matches!(late, Err(Error::UnknownOutcome { version: 3, .. })),
            "{late:?}"
        );
    });
}

#[test]
fn an_error_keeps_its_kind_and_changes_nothing() {
    block_on(async {
        for kind in [
            ErrorKind::NoSpace,
            ErrorKind::Denied,
            ErrorKind::Throttled,
            ErrorKind::Timeout,
        ] {
            let storage = faulty();
            let scope = scope(storage.clone());
            storage.plan(Fault::Fails(kind));
            let failed = scope
                .save("memory", "mine".into(), SaveOptions::default())
                .await;
            assert!(
                matches!(&failed, Err(Error::Storage(error)) if error.kind() == kind),
                "{failed:?}"
            );
            assert_eq!(load(&scope, "memory").await, None);
            assert_eq!(save(&scope, "memory", "next").await.version, 1);
        }
    });
}

async fn refused(storage: Faulty, why: &str) {
    let scope = scope(Arc::new(storage));
    let error = scope
        .save("memory", "x".into(), SaveOptions::default())
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, Error::Unsupported { what, .. } if what.contains(why)),
        "{error}"
    );
    // It does not become better by being asked again, by this process or the next.
    let again = scope
        .save("memory", "x".into(), SaveOptions::default())
        .await;
    assert!(matches!(again, Err(Error::Unsupported { .. })), "{again:?}");
}

#[test]
fn a_storage_that_ignores_conditions_is_refused_before_the_first_save() {
    let mut storage = Faulty::new(Arc::new(Memory::new()));
    storage.ignores_conditions = true;
    block_on(refused(storage, "created twice"));
}

#[test]
fn a_store_that_was_copied_to_where_conditions_are_ignored_is_refused() {
    block_on(async {
        let memory = Memory::new();
        save(&scope(Arc::new(memory.clone())), "memory", "x").await;
        let mut storage = Faulty::new(Arc::new(memory));
        storage.ignores_conditions = true;
        refused(storage, "created twice").await;
    });
}

#[test]
fn a_storage_with_delayed_lists_is_refused_before_a_save() {
    let mut storage = Faulty::new(Arc::new(Memory::new()));
    storage.lists_nothing = true;
    block_on(refused(storage, "in the order of their keys"));
}

#[test]
fn a_store_of_a_later_format_is_refused_and_never_empty() {
    block_on(async {
        let memory = Memory::new();
        let later = r#"{"format":2,"shards":7}"#;
        let key = Key::new("~/store.json").expect("a key");
        memory
            .create(&key, vec![later.into()])
            .await
            .expect("creates");
        let scope = scope(Arc::new(memory));
        for at in [None, Some(1)] {
            let loaded = scope.load("memory", at).await;
            assert!(
                matches!(loaded, Err(Error::Unsupported { .. })),
                "{loaded:?}"
            );
        }
        let history = scope.history("memory", None, 10).await;
        assert!(
            matches!(history, Err(Error::Unsupported { .. })),
            "{history:?}"
        );
        let names = scope.names("", None, 10).await;
        assert!(matches!(names, Err(Error::Unsupported { .. })), "{names:?}");
        let saved = scope
            .save("memory", "x".into(), SaveOptions::default())
            .await;
        assert!(matches!(saved, Err(Error::Unsupported { .. })), "{saved:?}");
    });
}

#[test]
fn a_store_is_introduced_once_and_leaves_no_probes() {
    block_on(async {
        let memory = Memory::new();
        for _ in 0..3 {
            let store = Store::new(Arc::new(memory.clone()));
            save(&store.scope("bot", None).expect("a name"), "memory", "x").await;
        }
        let list = persist_host::storage::List::new("~").with_limit(10);
        let page = memory.list(&list).await.expect("a page");
        let names: Vec<_> = page.entries.iter().map(|entry| entry.name()).collect();
        assert_eq!(names, ["store.json", "~"], "the store, and its policy");
    });
}
