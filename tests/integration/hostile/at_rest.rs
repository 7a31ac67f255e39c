//! Versions at rest of a scope: how they are counted, and what is removed to make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Retention, Scope, Store, StoreOptions};
use persist_host::storage::{List, Memory, Page, RecursiveList, RecursivePage, Result, Storage};
use persist_host::wasm::{Limits, Rights, SnapshotCtx};
use persist_tests::{block_on, save, scope};
use tokio::sync::Semaphore;

use super::{host, play, try_play};

/// Objects in memory, of which recursive lists wait until they may go on.
#[derive(Debug)]
struct SlowToList {
    inner: Memory,
    gate: Semaphore,
    lists: AtomicUsize,
    recursive_lists: AtomicUsize,
}

impl SlowToList {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Memory::new(),
            gate: Semaphore::new(0),
            lists: AtomicUsize::new(0),
            recursive_lists: AtomicUsize::new(0),
        })
    }

    fn open(&self) {
        self.gate.add_permits(1000);
    }

    async fn until_listed(&self, times: usize) {
        while self.recursive_lists.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Forward for SlowToList {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.inner.clone())
    }

    fn location(&self) -> String {
        "memory that is slow to list".into()
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        self.recursive_lists.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("never closed").forget();
        self.inner.list_recursive(list).await
    }
}

fn with(scope: &Scope, set: impl FnOnce(&mut Limits)) -> SnapshotCtx {
    let mut limits = Limits::default();
    set(&mut limits);
    SnapshotCtx::builder(scope.clone()).limits(limits).build()
}

#[test]
fn usage_of_many_names_takes_one_list() {
    let storage = SlowToList::new();
    storage.open();
    block_on(async {
        let store = Store::new(Arc::clone(&storage) as _);
        let scope = store.scope("bot", None).expect("a name");
        let session = store.scope("bot", Some("session")).expect("a name");
        save(&session, "of a session", "x").await;
        let mut bytes = 0;
        for n in 0..300 {
            for _ in 0..2 {
                bytes += save(&scope, &format!("name-{n}"), "x").await.stored_size;
            }
        }
        scope.pin("name-1", 1).await.expect("pins");
        storage.lists.store(0, Ordering::SeqCst);
        let usage = scope.usage().await.expect("lists");
        assert_eq!(
            (usage.names, usage.versions, usage.bytes),
            (300, 600, bytes)
        );
        assert_eq!(storage.recursive_lists.load(Ordering::SeqCst), 1);
        assert_eq!(storage.lists.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn counting_usage_outlives_the_run_that_began_it() {
    let storage = SlowToList::new();
    block_on(async {
        let scope = scope(Arc::clone(&storage) as _);
        let ctx = SnapshotCtx::new(scope);
        let stopped = {
            let ctx = ctx.clone();
            tokio::spawn(async move { try_play(&host(), ctx, &["save a 1"]).await.map(drop) })
        };
        storage.until_listed(1).await;
        stopped.abort();
        assert!(
            stopped.await.is_err(),
            "the run was stopped while it waited"
        );
        storage.open();
        let answers = play(&host(), ctx, &["save a 1", "save b 1"]).await;
        assert_eq!(answers, ["version 1", "version 1"]);
        let looks = storage.recursive_lists.load(Ordering::SeqCst);
        assert_eq!(looks, 1, "the second run has what the first began");
    });
}

#[test]
fn stored_names_are_limited_and_existing_names_keep_working() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        save(&scope, "before", "x").await;
        let ctx = with(&scope, |limits| limits.names_at_rest = 3);
        let full = "quota-exceeded names-at-rest 3";
        let lines = [
            "save a 1",
            "save b 1",
            "save c 1",
            "open w c",
            "fork a c",
            "save a 1",
            "delete b",
            "save c 1",
            "save b 1",
            "open w a",
            "write w 1",
            "finish w",
        ];
        let expected = [
            "version 1",
            "version 1",
            full,
            full,
            full,
            "version 2",
            "version 2",
            full,
            "version 3",
            "open",
            "written",
            "version 3",
        ];
        assert_eq!(play(&host(), ctx, &lines).await, expected);
    });
}

#[test]
fn names_that_are_made_at_the_same_time_are_counted_once_each() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        let ctx = with(&scope, |limits| limits.names_at_rest = 5);
        let runs = (0..4).map(|run| {
            let ctx = ctx.clone();
            let line = format!("flood 4 save {run}-# 1");
            tokio::spawn(async move { play(&host(), ctx, &[&line]).await })
        });
        for run in runs.collect::<Vec<_>>() {
            run.await.expect("no panic");
        }
        assert_eq!(scope.usage().await.expect("lists").names, 5);
    });
}

/// A scope whose names have a number of versions each, in a store with this policy and no grace.
async fn full_scope(names: &[&str], count: u64, retention: Option<Retention>) -> Scope {
    let mut options = StoreOptions::default();
    options.grace = Duration::ZERO;
    options.retention = retention;
    let store = Store::with_options(Arc::new(Memory::new()), options);
    let scope = store.scope("bot", None).expect("a name");
    for name in names {
        for _ in 0..count {
            save(&scope, name, "x").await;
        }
    }
    scope
}

/// Keeps a number of versions, and all of the last day.
fn some_and_a_day(keep_last: usize) -> Retention {
    let mut retention = Retention::nothing();
    retention.keep_last = keep_last;
    retention.keep_within = Duration::from_secs(24 * 60 * 60);
    retention
}

async fn versions(scope: &Scope, name: &str) -> Vec<u64> {
    let versions = scope.versions(name, None, 1000).await;
    versions.expect("lists")
}

/// A guest that may have this many versions, and has these rights below `public/`.
fn public(scope: &Scope, rights: &str, max: u64) -> SnapshotCtx {
    let rights: Rights = rights.parse().expect("rights");
    let mut limits = Limits::default();
    limits.versions_at_rest = max;
    SnapshotCtx::builder(scope.clone())
        .limits(limits)
        .rights(rights.under("public/"))
        .build()
}

#[test]
fn a_quota_thins_out_what_the_guest_may_delete_and_nothing_else() {
    block_on(async {
        let names = ["public/a", "private"];
        let scope = full_scope(&names, 30, Some(some_and_a_day(23))).await;
        scope.pin("public/a", 2).await.expect("pins");
        let ctx = public(&scope, "save,delete", 60);
        let answers = play(&host(), ctx, &["save public/a 1", "save public/a 1"]).await;
        assert_eq!(answers, ["version 31", "version 32"]);
        assert_eq!(versions(&scope, "private").await.len(), 30);
        let left = versions(&scope, "public/a").await;
        assert!(left.len() < 32, "{left:?}");
        for kept in (8..=32).chain([2]) {
            assert!(left.contains(&kept), "{kept} of {left:?}");
        }
    });
}

#[test]
fn a_quota_removes_no_more_than_a_save_needs_and_some() {
    block_on(async {
        let scope = full_scope(&["public/a"], 30, Some(some_and_a_day(3))).await;
        let ctx = public(&scope, "save,delete", 30);
        assert_eq!(
            play(&host(), ctx, &["save public/a 1"]).await,
            ["version 31"]
        );
        assert_eq!(versions(&scope, "public/a").await.len(), 29);
    });
}

#[test]
fn a_save_is_refused_where_nothing_more_may_go() {
    block_on(async {
        let scope = full_scope(&["public/a"], 30, Some(some_and_a_day(23))).await;
        let ctx = public(&scope, "save,delete", 23);
        let answers = play(&host(), ctx, &["save public/a 1"]).await;
        assert_eq!(answers, ["quota-exceeded versions-at-rest 23"]);
        let newest: Vec<_> = (8..=30).rev().collect();
        assert_eq!(versions(&scope, "public/a").await, newest);
    });
}

#[test]
fn a_quota_keeps_the_newest_twenty_where_the_policy_keeps_fewer() {
    block_on(async {
        let scope = full_scope(&["public/a"], 30, Some(some_and_a_day(1))).await;
        let ctx = public(&scope, "save,delete", 5);
        let answers = play(&host(), ctx, &["save public/a 1"]).await;
        assert_eq!(answers, ["quota-exceeded versions-at-rest 5"]);
        let newest: Vec<_> = (11..=30).rev().collect();
        assert_eq!(versions(&scope, "public/a").await, newest);
    });
}

#[test]
fn a_policy_that_keeps_every_version_is_followed_by_a_quota() {
    block_on(async {
        let scope = full_scope(&["public/a"], 10, None).await;
        let ctx = public(&scope, "save,delete", 10);
        let answers = play(&host(), ctx, &["save public/a 1"]).await;
        assert_eq!(answers, ["quota-exceeded versions-at-rest 10"]);
        assert_eq!(versions(&scope, "public/a").await.len(), 10);
    });
}

#[test]
fn a_quota_removes_only_what_the_guest_may_delete() {
    block_on(async {
        let scope = full_scope(&["public/a", "private"], 10, Some(Retention::nothing())).await;
        for rights in ["save", "load,save,list"] {
            let ctx = public(&scope, rights, 20);
            let answers = play(&host(), ctx, &["save public/a 1"]).await;
            assert_eq!(answers, ["quota-exceeded versions-at-rest 20"]);
            assert_eq!(versions(&scope, "public/a").await.len(), 10);
            assert_eq!(versions(&scope, "private").await.len(), 10);
        }
    });
}
