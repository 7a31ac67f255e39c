//! Runs that end before their time: whatever they held is given back.

use std::sync::Arc;
use std::time::Duration;

use persist_host::snapshot::Scope;
use persist_host::storage::Memory;
use persist_host::wasm::{Agent, Limits, RunError, RunOutput, SnapshotCtx};
use persist_tests::{block_on, save, scope, test_guest};

use super::watched::Watched;
use super::{host, play};

/// Begins an upload of 12 MiB and loops for ever.
const LARGE_WRITER: [&str; 3] = ["loop-mid-write", "log", "12"];

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// All four writers can be opened, and nothing was saved.
async fn all_is_given_back(ctx: SnapshotCtx) {
    let lines = [
        "open a n", "open b n", "open c n", "open d n", "stat log", "stat a",
    ];
    let answers = play(&host(), ctx, &lines).await;
    assert_eq!(answers, ["open", "open", "open", "open", "none", "none"]);
}

#[test]
fn a_run_that_is_cancelled_in_the_midst_of_an_upload_aborts_it() {
    block_on(async {
        let storage = Watched::new();
        let ctx = SnapshotCtx::new(scope(Arc::clone(&storage) as _));
        let agent = test_guest(&host()).await;
        let run = {
            let agent = agent.clone();
            let ctx = ctx.clone();
            tokio::spawn(async move { agent.run(ctx, &owned(&LARGE_WRITER)).await })
        };
        while storage.uploads() == 0 {
            tokio::task::yield_now().await;
        }
        run.abort();
        let ended = run.await;
        // Where it was faster than we were, its CPU time was over.
        assert!(ended.as_ref().is_err_and(|error| error.is_cancelled()) || ended.is_ok());
        assert_eq!(storage.uploads(), 0);
        all_is_given_back(ctx).await;
    });
}

#[test]
fn a_run_that_is_stopped_in_the_midst_of_an_upload_aborts_it() {
    block_on(async {
        let storage = Watched::new();
        let ctx = SnapshotCtx::new(scope(Arc::clone(&storage) as _));
        let ran = test_guest(&host())
            .await
            .run(ctx.clone(), &owned(&LARGE_WRITER))
            .await;
        assert!(matches!(ran.answer, Err(RunError::CpuLimit(_))), "{ran:?}");
        assert_eq!(storage.uploads(), 0);
        all_is_given_back(ctx).await;
    });
}

fn short(scope: &Scope) -> SnapshotCtx {
    let mut limits = Limits::default();
    limits.wall_clock = Duration::from_millis(300);
    SnapshotCtx::builder(scope.clone()).limits(limits).build()
}

#[test]
fn a_run_that_waits_for_its_storage_for_ever_is_stopped() {
    block_on(async {
        let storage = Watched::new();
        let scope = scope(Arc::clone(&storage) as _);
        save(&scope, "x", "y").await;
        storage.close();
        let agent = test_guest(&host()).await;
        for args in [
            &["script", "open w x", "write w 10", "load x"][..],
            &["script", "save x 10"],
            &["script", "reader r x"],
        ] {
            let ran = agent.run(short(&scope), &owned(args)).await;
            assert!(
                matches!(ran.answer, Err(RunError::WallClockLimit(_))),
                "{args:?}: {ran:?}"
            );
        }
        storage.open();
        all_is_given_back(SnapshotCtx::new(scope)).await;
    });
}

#[test]
fn a_guest_that_sleeps_for_ever_is_woken_by_the_wall_clock() {
    block_on(async {
        let text = include_str!("../../hostile/whole_sleeper.wat");
        let agent = host().load(&wat::parse_str(text).expect("valid")).await;
        let ran = agent
            .expect("an agent")
            .run(short(&scope(Watched::new())), &[])
            .await;
        assert!(
            matches!(ran.answer, Err(RunError::WallClockLimit(_))),
            "{ran:?}"
        );
    });
}

async fn run(agent: &Agent, ctx: SnapshotCtx, args: &[&str]) -> RunOutput {
    agent.run(ctx, &owned(args)).await
}

#[test]
fn a_panic_of_the_host_ends_one_run() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        let ctx = SnapshotCtx::builder(scope.clone())
            .on_change(|info| assert_ne!(info.name, "trap", "as planned"))
            .build();
        let agent = test_guest(&host()).await;
        let ran = run(
            &agent,
            ctx.clone(),
            &["script", "open a n", "open b n", "save trap 1"],
        )
        .await;
        assert!(
            matches!(&ran.answer, Err(RunError::Host(why)) if why.contains("as planned")),
            "{ran:?}"
        );
        all_is_given_back(ctx).await;
    });
}

#[test]
fn many_instances_of_one_scope_lose_nothing() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        let agent = test_guest(&host()).await;
        let runs: Vec<_> = (0..8)
            .map(|_| {
                let agent = agent.clone();
                let ctx = SnapshotCtx::new(scope.clone());
                tokio::spawn(async move {
                    run(&agent, ctx, &["script", "flood 10 save shared 100"]).await
                })
            })
            .collect();
        for ended in runs {
            let answer = ended.await.expect("no panic").answer.expect("an answer");
            assert_eq!(answer, "10 then no error");
        }
        let versions = scope.versions("shared", None, 1000).await.expect("a page");
        assert_eq!(versions.len(), 80);
        assert_eq!(scope.usage().await.expect("listed").versions, 80);
    });
}

#[test]
fn a_bomb_that_lies_in_the_store_is_not_unpacked_into_memory() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        let mut writer = scope
            .writer("bomb", Default::default())
            .await
            .expect("a writer");
        let zeros = vec![0; 1 << 20];
        for _ in 0..200 {
            writer.write(&zeros).await.expect("writes");
        }
        let info = writer.finish().await.expect("saved");
        assert!(info.stored_size < info.size / 500, "{info:?}");
        let lines = [
            "load bomb",
            "reader r bomb",
            "read r 209715199 4294967295",
            "fork bomb copy",
        ];
        let answers = play(&host(), SnapshotCtx::new(scope), &lines).await;
        assert_eq!(answers[0], "too-large 209715200");
        assert_eq!(answers[1], "version 1");
        assert!(answers[2].starts_with("size 1 "), "{}", answers[2]);
        assert_eq!(answers[3], "version 1");
    });
}
