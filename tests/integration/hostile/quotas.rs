//! Quotas of a scope, whatever the number of its instances, and of all scopes together.

use std::sync::Arc;
use std::time::Duration;

use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::Memory;
use persist_host::wasm::{AgentHost, Limits, RunError, SnapshotCtx};
use persist_tests::{block_on, guest, run_fails, run_ok, save, scope, tempdir, test_guest};

use super::watched::Watched;
use super::{host, play, try_play};

fn with(scope: &Scope, set: impl FnOnce(&mut Limits)) -> SnapshotCtx {
    let mut limits = Limits::default();
    set(&mut limits);
    SnapshotCtx::builder(scope.clone()).limits(limits).build()
}

fn memory() -> Scope {
    scope(Arc::new(Memory::new()))
}

fn host_with(set: impl FnOnce(&mut Limits)) -> AgentHost {
    let mut limits = Limits::default();
    set(&mut limits);
    AgentHost::builder().limits(limits).build().expect("a host")
}

#[test]
fn saves_of_a_minute_are_counted_across_runs() {
    block_on(async {
        let scope = memory();
        let ctx = || with(&scope, |limits| limits.saves_per_minute = 50);
        let first = play(&host(), ctx(), &["flood 1000 save a 1"]).await;
        assert!(
            first[0].ends_with(" then quota-exceeded saves-per-minute 50"),
            "{first:?}"
        );
        // Another run has what this minute gave back since, and no fifty again.
        let second = play(&host(), ctx(), &["flood 40 save a 1"]).await;
        assert!(
            second[0].ends_with(" then quota-exceeded saves-per-minute 50"),
            "{second:?}"
        );
    });
}

#[test]
fn reads_of_a_minute_are_counted_across_runs() {
    block_on(async {
        let scope = memory();
        save(&scope, "a", "x").await;
        let ctx = || with(&scope, |limits| limits.reads_per_minute = 40);
        let ends = " then quota-exceeded reads-per-minute 40";
        let first = play(&host(), ctx(), &["flood 1000 load a"]).await;
        assert!(first[0].ends_with(ends), "{first:?}");
        // Another run has what this minute gave back since, and no forty again.
        for call in ["load a", "stat a", "history a 1", "names a 1", "fork a b"] {
            let line = format!("flood 30 {call}");
            let answers = play(&host(), ctx(), &[&line]).await;
            assert!(answers[0].ends_with(ends), "{call}: {answers:?}");
        }
    });
}

#[test]
fn each_version_of_a_history_is_a_read() {
    block_on(async {
        let scope = memory();
        for _ in 0..20 {
            save(&scope, "a", "x").await;
        }
        let ctx = with(&scope, |limits| limits.reads_per_minute = 30);
        let answers = play(&host(), ctx, &["flood 9 history a 20"]).await;
        assert_eq!(answers, ["2 then quota-exceeded reads-per-minute 30"]);
    });
}

#[test]
fn bytes_read_in_a_minute_are_counted_for_every_way_to_read() {
    block_on(async {
        let storage = Arc::new(Memory::new());
        for line in ["load a", "restore a 1", "fork a b", "stat a", "history a 1"] {
            let scope = scope(Arc::clone(&storage) as _);
            let state = persist_tests::noise(1, 300_000);
            let saved = scope.save("a", state.into(), SaveOptions::default());
            let size = saved.await.expect("saves").stored_size;
            let ctx = with(&scope, |limits| limits.bytes_read_per_minute = size);
            let line = format!("flood 9 {line}");
            let answers = play(&host(), ctx, &[&line]).await;
            let ends = format!(" then quota-exceeded bytes-read-per-minute {size}");
            assert!(answers[0].ends_with(&ends), "{line}: {answers:?}");
        }
    });
}

#[test]
fn a_reader_counts_what_it_takes_from_the_storage() {
    block_on(async {
        let scope = memory();
        let state = persist_tests::noise(1, 4 << 20);
        let options = SaveOptions::default();
        scope.save("a", state.into(), options).await.expect("saves");
        let ctx = |max: u64| with(&scope, |limits| limits.bytes_read_per_minute = max);
        // One byte of each block takes the whole block; one that was read already takes nothing.
        let lines = ["reader r a", "read r 0 1", "read r 9 1", "read r 3145728 1"];
        let answers = play(&host(), ctx(1 << 20), &lines).await;
        assert_eq!(answers[3], "quota-exceeded bytes-read-per-minute 1048576");
        assert!(!answers[2].starts_with("quota"), "{answers:?}");
    });
}

#[test]
fn versions_at_rest_are_counted_and_a_deletion_is_always_possible() {
    block_on(async {
        let scope = memory();
        // What was there before counts, too.
        save(&scope, "before", "x").await;
        let ctx = with(&scope, |limits| limits.versions_at_rest = 5);
        let lines = [
            "flood 9 save a 1",
            "open w a",
            "fork a b",
            "restore a 1",
            "delete a",
            "delete before",
            "save a 1",
            "load before",
        ];
        let full = "quota-exceeded versions-at-rest 5";
        let first = format!("4 then {full}");
        let expected = [
            &*first,
            full,
            full,
            full,
            "version 5",
            "version 2",
            full,
            "none",
        ];
        assert_eq!(play(&host(), ctx, &lines).await, expected);
    });
}

#[test]
fn bytes_at_rest_are_counted_while_they_are_written() {
    block_on(async {
        let scope = memory();
        let ctx = with(&scope, |limits| limits.bytes_at_rest = 100_000);
        let full = "quota-exceeded bytes-at-rest 100000";
        // What it takes compressed is known when it is saved; until then, room is kept for all of
        // it.
        let lines = [
            "save a 60000",
            "save a 99999",
            "open w log",
            "write w 60000",
            "open v log",
            "write v 60000",
            "save b 60000",
            "abandon w",
            "save b 60000",
            "delete a",
        ];
        let expected = [
            "version 1",
            full,
            "open",
            "written",
            "open",
            full,
            full,
            "abandoned",
            "version 1",
            "version 2",
        ];
        assert_eq!(play(&host(), ctx, &lines).await, expected);
    });
}

#[test]
fn calls_of_one_scope_at_once_are_refused_and_of_all_wait() {
    block_on(async {
        let storage = Watched::closed();
        let store = Store::new(Arc::clone(&storage) as _);
        let host = host_with(|limits| limits.host_calls = 2);
        let run = |agent: &str| {
            let scope = store.scope(agent, None).expect("a name");
            let ctx = with(&scope, |limits| limits.calls_in_flight = 1);
            let host = host.clone();
            tokio::spawn(async move { play(&host, ctx, &["load a"]).await })
        };
        let first = run("one");
        storage.until_waiting(1).await;
        // Its own ceiling, before the host is asked for anything.
        assert_eq!(
            run("one").await.expect("no panic"),
            ["quota-exceeded calls-in-flight 1"]
        );
        let others: Vec<_> = ["two", "three", "four", "five"].map(run).into();
        storage.until_waiting(2).await;
        storage.open();
        assert_eq!(first.await.expect("no panic"), ["none"]);
        for other in others {
            assert_eq!(other.await.expect("no panic"), ["none"]);
        }
        assert_eq!(storage.most_waiting(), 2);
    });
}

#[test]
fn runs_at_once_are_as_many_as_the_host_allows() {
    block_on(async {
        let storage = Watched::closed();
        let store = Store::new(Arc::clone(&storage) as _);
        let host = host_with(|limits| limits.runs = 2);
        let runs: Vec<_> = (0..6)
            .map(|n| {
                let scope = store.scope(&format!("bot-{n}"), None).expect("a name");
                let host = host.clone();
                tokio::spawn(async move { play(&host, SnapshotCtx::new(scope), &["load a"]).await })
            })
            .collect();
        storage.until_waiting(2).await;
        storage.open();
        for run in runs {
            assert_eq!(run.await.expect("no panic"), ["none"]);
        }
        assert_eq!(storage.most_waiting(), 2);
    });
}

#[test]
fn runs_of_one_scope_leave_places_to_the_others() {
    block_on(async {
        for (runs, of_scope, share) in [(4, 16, 3), (4, 2, 2), (2, 16, 1)] {
            let storage = Watched::closed();
            let store = Store::new(Arc::clone(&storage) as _);
            let host = host_with(|limits| {
                limits.runs = runs;
                limits.runs_of_scope = of_scope;
            });
            let run = |agent: &str| {
                let scope = store.scope(agent, None).expect("a name");
                let host = host.clone();
                tokio::spawn(async move { play(&host, SnapshotCtx::new(scope), &["load a"]).await })
            };
            let many: Vec<_> = (0..8).map(|_| run("many")).collect();
            storage.until_waiting(share).await;
            // It comes last, and has its place all the same.
            let one = run("one");
            storage.until_waiting(share + 1).await;
            assert_eq!(storage.most_waiting(), share + 1, "of {runs}");
            storage.open();
            assert_eq!(one.await.expect("no panic"), ["none"]);
            for run in many {
                assert_eq!(run.await.expect("no panic"), ["none"]);
            }
        }
    });
}

#[test]
fn a_run_waits_for_its_turn_no_longer_than_its_limit() {
    block_on(async {
        let storage = Watched::closed();
        let store = Store::new(Arc::clone(&storage) as _);
        let scope = |agent: &str| store.scope(agent, None).expect("a name");
        let host = host_with(|limits| {
            limits.runs = 1;
            limits.run_wait = Duration::ZERO;
        });
        let first = {
            let host = host.clone();
            let ctx = SnapshotCtx::new(scope("one"));
            tokio::spawn(async move { play(&host, ctx, &["load a"]).await })
        };
        storage.until_waiting(1).await;
        for agent in ["one", "two"] {
            let ran = try_play(&host, SnapshotCtx::new(scope(agent)), &["load a"]).await;
            let error = ran.expect_err("there is no place");
            assert!(matches!(error, RunError::WaitLimit(_)), "{error}");
            assert!(error.to_string().contains("run-wait"), "{error}");
        }
        storage.open();
        assert_eq!(first.await.expect("no panic"), ["none"]);
    });
}

#[test]
fn writers_of_the_host_come_after_those_of_the_guest() {
    block_on(async {
        let storage = Watched::new();
        let store = Store::new(Arc::clone(&storage) as _);
        let host = host_with(|limits| {
            limits.host_writers = 3;
            limits.open_writers = 2;
        });
        let scopes = ["holder", "other"].map(|agent| store.scope(agent, None).expect("a name"));
        for scope in &scopes {
            save(scope, "x", "y").await;
        }
        let [holder, other] = scopes.map(SnapshotCtx::new);
        storage.close();
        let holder = {
            let host = host.clone();
            // Holds two of the three while it waits for the storage.
            let lines = ["open a x", "open b x", "open c x", "load x"];
            tokio::spawn(async move { play(&host, holder, &lines).await })
        };
        storage.until_waiting(1).await;
        let lines = ["open a x", "open b x", "abandon a", "open b x"];
        let answers = play(&host, other.clone(), &lines).await;
        assert_eq!(answers, ["open", "throttled 1000", "abandoned", "open"]);
        storage.open();
        let held = holder.await.expect("no panic");
        assert_eq!(held[..3], ["open", "open", "quota-exceeded open-writers 2"]);
        let answers = play(&host, other, &["open a x", "open b x"]).await;
        assert_eq!(answers, ["open", "open"]);
    });
}

#[test]
fn names_and_labels_may_be_limited_further() {
    block_on(async {
        let ctx = with(&memory(), |limits| {
            limits.name_size = 9;
            limits.label_size = 10;
        });
        let lines = [
            "save a^9 1",
            "save a^10 1",
            "save AAA 1",
            "save AAAA 1",
            "stat a^10",
            "label a k a^9",
            "label a k a^10",
            "label a k a^9000",
        ];
        let name = "quota-exceeded name-size 9";
        let label = "quota-exceeded label-size 10";
        let answers = play(&host(), ctx, &lines).await;
        assert_eq!(
            answers[..7],
            [
                "version 1",
                name,
                "version 1",
                name,
                name,
                "version 1",
                label
            ]
        );
        assert!(answers[7].starts_with("invalid "), "{}", answers[7]);
    });
}

#[test]
fn an_agent_that_takes_long_to_compile_is_not_waited_for() {
    block_on(async {
        let mut limits = Limits::default();
        limits.compile_time = Duration::ZERO;
        // Without what was compiled before.
        let host = AgentHost::builder().limits(limits).cache(None).build();
        let bytes = std::fs::read(guest("test_guest")).expect("readable");
        let loaded = host.expect("a host").load(&bytes).await;
        assert!(
            matches!(loaded, Err(RunError::CompileTimeLimit(_))),
            "{loaded:?}"
        );
        // Others run all the while.
        let answers = play(&super::host(), SnapshotCtx::new(memory()), &["save a 1"]).await;
        assert_eq!(answers, ["version 1"]);
    });
}

#[test]
fn a_context_has_the_limits_of_its_host_unless_it_says_otherwise() {
    block_on(async {
        let host = host_with(|limits| {
            limits.inline_size = 10;
            limits.memory = 8 << 20;
        });
        let run = async |ctx: SnapshotCtx, args: &[&str]| {
            let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
            test_guest(&host).await.run(ctx, &args).await.answer
        };
        let told = run(SnapshotCtx::new(memory()), &["big-save", "a", "11"]).await;
        assert!(matches!(told, Err(RunError::Failed(why)) if why == "too-large 11"));
        let more = || with(&memory(), |limits| limits.memory = 24 << 20);
        assert_eq!(
            run(more(), &["big-save", "a", "11"]).await.expect("saves"),
            "version 1"
        );
        let grown = run(more(), &["grow"]).await.expect("answers");
        let mib: u64 = grown
            .split(' ')
            .nth(2)
            .and_then(|mib| mib.parse().ok())
            .expect("a number");
        assert!((9..24).contains(&mib), "{grown}");
    });
}

#[test]
fn the_command_sets_limits_and_rights() {
    let dir = tempdir();
    let file = guest("test_guest");
    let file = file.to_str().expect("text");
    let words = |options: &[&'static str], args: &[&'static str]| {
        [&["run", file, "--agent", "bot"][..], options, &["--"], args].concat()
    };
    let good =
        |options: &[&'static str], args: &[&'static str]| run_ok(dir.path(), &words(options, args));
    let bad = |options: &[&'static str], args: &[&'static str], code: i32| {
        run_fails(dir.path(), &words(options, args), code)
    };
    assert_eq!(
        good(&["--limit", "inline-size=10B"], &["big-save", "a", "10"]),
        "version 1\n"
    );
    let limits = ["--limit", "cpu=5s", "--limit", "inline-size=10"];
    assert!(bad(&limits, &["big-save", "a", "11"], 9).contains("too-large 11"));
    assert!(bad(&["--read-only"], &["save", "a", "x"], 9).contains("denied save"));
    assert!(bad(&["--rights", "save"], &["load", "a"], 9).contains("denied load"));
    assert!(bad(&["--only", "b"], &["load", "a"], 9).contains("denied load"));
    assert!(good(&["--read-only", "--only", "a"], &["names", ""]).contains('a'));
    assert!(bad(&["--limit", "nonsense=1"], &["echo"], 2).contains("inline-size"));
    assert!(bad(&["--limit", "memory=much"], &["echo"], 2).contains("memory"));
    assert!(bad(&["--rights", "fly"], &["echo"], 2).contains("delete"));
}

#[test]
fn the_docs_have_every_limit() {
    let page = include_str!("../../../docs/src/limits.md");
    for limit in Limits::table() {
        let row = format!(
            "| `{}` | {} | {} | {} |",
            limit.name, limit.default, limit.description, limit.when_reached
        );
        assert!(page.contains(&row), "{row}");
    }
}
