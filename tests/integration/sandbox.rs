//! Actions that agents can and cannot do.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persist_host::guest::GuestError;
use persist_host::snapshot::{Scope, Store};
use persist_host::storage::{Local, Memory};
use persist_host::wasm::{
    AgentHost, Limits, RunError, RunOptions, SnapshotCtx, StdStream, live_output,
};
use persist_tests::{block_on, host, load, save, scope, tempdir, test_guest};

/// Runs a scenario of the test guest: its answer, or the reason that it gave.
async fn act(scope: &Scope, args: &[&str]) -> Result<String, String> {
    act_as(SnapshotCtx::new(scope.clone()), args).await
}

async fn act_as(ctx: SnapshotCtx, args: &[&str]) -> Result<String, String> {
    let agent = test_guest(&host()).await;
    match agent.run(ctx, &owned(args)).await.answer {
        Ok(answer) => Ok(answer),
        Err(RunError::Failed(reason)) => Err(reason),
        Err(error) => panic!("does not come to its end: {error}"),
    }
}

async fn fails(host: &AgentHost, scope: &Scope, args: &[&str]) -> RunError {
    let agent = test_guest(host).await;
    let ran = agent
        .run(SnapshotCtx::new(scope.clone()), &owned(args))
        .await;
    ran.answer.expect_err("does not come to its end")
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn local(dir: &Path) -> Scope {
    scope(Arc::new(Local::new(dir)))
}

fn memory() -> Scope {
    scope(Arc::new(Memory::new()))
}

fn yes(text: &str) -> Result<String, String> {
    Ok(text.into())
}

fn no(text: &str) -> Result<String, String> {
    Err(text.into())
}

#[test]
fn an_agent_keeps_what_it_saved_and_nothing_else() {
    let dir = tempdir();
    block_on(async {
        let scope = local(dir.path());
        assert_eq!(act(&scope, &["load", "memory"]).await, yes("none"));
        assert_eq!(
            act(&scope, &["save", "memory", "one"]).await,
            yes("version 1")
        );
        assert_eq!(
            act(&scope, &["save", "memory", "two"]).await,
            yes("version 2")
        );
        assert_eq!(act(&scope, &["load", "memory"]).await, yes("2 two"));
        assert_eq!(act(&scope, &["load", "memory", "1"]).await, yes("1 one"));
        assert_eq!(act(&scope, &["load", "memory", "9"]).await, no("not-found"));
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
    });
}

#[test]
fn an_agent_has_all_of_the_contract() {
    block_on(async {
        let scope = memory();
        for (args, answer) in [
            (
                &["save-expect", "memory", "absent", "one"][..],
                yes("version 1"),
            ),
            (&["save-expect", "memory", "absent", "x"], no("conflict 1")),
            (&["save-expect", "memory", "1", "two"], yes("version 2")),
            (&["save-expect", "memory", "1", "x"], no("conflict 2")),
            (&["save-expect", "other", "3", "x"], no("conflict none")),
            (&["fork", "memory", "draft"], yes("version 1")),
            (&["delete", "memory"], yes("version 3")),
            (&["delete", "memory"], no("not-found")),
            (&["load", "memory"], yes("none")),
            (&["restore", "memory", "1"], yes("version 4")),
            (&["restore", "memory", "3"], no("not-found")),
            (&["load", "memory"], yes("4 one")),
            (&["names", ""], yes("draft\nmemory")),
            (&["names", "d"], yes("draft")),
        ] {
            assert_eq!(act(&scope, args).await, answer, "{args:?}");
        }
        let history = act(&scope, &["history", "memory"])
            .await
            .expect("an answer");
        assert_eq!(history.lines().count(), 4);
    });
}

#[test]
fn streams_of_an_agent_come_back_bit_for_bit() {
    block_on(async {
        let scope = memory();
        assert_eq!(
            act(&scope, &["stream", "log", "100", "65537"]).await,
            yes("version 1")
        );
        let streamed = act(&scope, &["read-stream", "log"])
            .await
            .expect("an answer");
        assert!(streamed.starts_with("size 6553700 sum "), "{streamed}");
        assert_eq!(
            act(&scope, &["big-save", "whole", "6553700"]).await,
            yes("version 1")
        );
        assert_eq!(act(&scope, &["big-load", "whole"]).await, Ok(streamed));
    });
}

#[test]
fn a_writer_without_finish_leaves_nothing() {
    let dir = tempdir();
    block_on(async {
        let scope = local(dir.path());
        save(&scope, "log", "before").await;
        for scenario in ["unfinished", "leaked"] {
            act(&scope, &[scenario, "log"]).await.expect("an answer");
        }
        let error = fails(&host(), &scope, &["trap-mid-write", "log"]).await;
        assert!(matches!(error, RunError::Trapped(_)), "{error}");
        assert_eq!(load(&scope, "log").await.as_deref(), Some("before"));
        assert_eq!(scope.versions("log", None, 9).await.expect("a page"), [1]);
        let temp = std::fs::read_dir(dir.path().join("~/tmp")).expect("readable");
        assert_eq!(temp.count(), 0, "no litter");
    });
}

#[test]
fn a_trap_ends_one_call_and_the_next_one_works() {
    block_on(async {
        let scope = memory();
        for scenario in ["trap", "panic", "deep-recursion"] {
            let error = fails(&host(), &scope, &[scenario]).await;
            assert!(matches!(error, RunError::Trapped(_)), "{scenario}: {error}");
            assert_eq!(
                act(&scope, &["echo", "still here"]).await,
                yes("still here")
            );
        }
    });
}

#[test]
fn an_endless_loop_is_stopped_and_what_it_saved_is_kept() {
    block_on(async {
        let mut limits = Limits::default();
        limits.cpu = Duration::from_millis(200);
        let host = AgentHost::builder().limits(limits).build().expect("a host");
        let scope = memory();
        let error = fails(&host, &scope, &["save-and-loop", "memory", "kept"]).await;
        assert!(matches!(error, RunError::CpuLimit(_)), "{error}");
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("kept"));
    });
}

#[test]
fn a_run_that_takes_too_long_is_stopped() {
    block_on(async {
        let mut limits = Limits::default();
        limits.wall_clock = Duration::from_millis(200);
        let host = AgentHost::builder().limits(limits).build().expect("a host");
        let error = fails(&host, &memory(), &["loop"]).await;
        assert!(matches!(error, RunError::WallClockLimit(_)), "{error}");
    });
}

#[test]
fn an_agent_gets_no_more_memory_than_it_may_have() {
    block_on(async {
        let mut limits = Limits::default();
        limits.memory = 32 << 20;
        let host = AgentHost::builder().limits(limits).build().expect("a host");
        let agent = test_guest(&host).await;
        let ran = agent
            .run(SnapshotCtx::new(memory()), &owned(&["grow"]))
            .await;
        let answer = ran.answer.expect("an answer");
        let mib: u64 = answer
            .strip_prefix("refused after ")
            .and_then(|rest| rest.strip_suffix(" MiB"))
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert!((20..=32).contains(&mib), "{answer}");
    });
}

#[test]
fn a_guest_over_a_limit_is_told_which_one() {
    block_on(async {
        let scope = memory();
        let mut limits = Limits::default();
        limits.inline_size = 1000;
        limits.chunk = 100;
        limits.state_size = 5000;
        limits.page = 2;
        let ctx = || {
            SnapshotCtx::builder(scope.clone())
                .limits(limits.clone())
                .build()
        };
        for (args, answer) in [
            (&["big-save", "a", "1000"][..], yes("version 1")),
            (&["big-save", "a", "1001"], no("too-large 1001")),
            (&["stream", "b", "5", "1000"], yes("version 1")),
            (&["big-load", "b"], no("too-large 5000")),
            (&["raw-write", "b", "101"], no("quota-exceeded chunk 100")),
            (
                &["stream", "b", "6", "1000"],
                no("quota-exceeded state-size 5000"),
            ),
            (
                &["many-writers", "c", "9"],
                yes("opened 4 quota-exceeded open-writers 4"),
            ),
            (
                &["many-readers", "a", "99"],
                yes("opened 16 quota-exceeded open-readers 16"),
            ),
        ] {
            assert_eq!(act_as(ctx(), args).await, answer, "{args:?}");
        }
        let page = act_as(ctx(), &["names", "", "100"])
            .await
            .expect("an answer");
        assert_eq!(page, "a\nb");
    });
}

#[test]
fn a_writer_expects_the_head_that_it_found_when_it_was_opened() {
    block_on(async {
        let scope = memory();
        let ctx = SnapshotCtx::builder(scope.clone());
        // The guest's own save, between open and finish.
        let conflict = act_as(ctx.build(), &["stream-beside-save", "log"]).await;
        assert_eq!(conflict, no("conflict 1"));
    });
}

#[test]
fn a_guest_never_learns_where_its_host_keeps_things() {
    let dir = tempdir();
    block_on(async {
        let scope = local(dir.path());
        save(&scope, "memory", "one").await;
        let root = dir.path().to_str().expect("text");
        for store_json in ["junk", r#"{"format":2,"suffix":".gz","created_by":"x"}"#] {
            std::fs::write(dir.path().join("~/store.json"), store_json).expect("writes");
            // A store of its own: what a process has seen it does not look at again.
            let told = act(&local(dir.path()), &["save", "memory", "x"])
                .await
                .expect_err("refused");
            assert!(
                !told.contains(root) && !told.contains("store.json"),
                "{told}"
            );
        }
        let file = dir.path().join("bot/~/memory/9999999998-0000000001.gz");
        std::fs::write(file, "junk").expect("writes");
        let told = act(&local(dir.path()), &["load", "memory"])
            .await
            .expect_err("corrupt");
        assert!(
            told.starts_with("corrupt ") && !told.contains("9999999998"),
            "{told}"
        );
    });
}

#[test]
fn a_component_that_wants_too_many_instances_or_bytes_is_refused() {
    block_on(async {
        let instances = "(core instance (instantiate $m))".repeat(101);
        let greedy = wat::parse_str(format!(
            r#"(component (core module $m (memory 0)) {instances}
                (core module $run
                    (memory (export "memory") 1)
                    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
                    (func (export "run") (param i32 i32) (result i32) i32.const 0))
                (core instance $i (instantiate $run))
                (func (export "run") (param "args" (list string))
                    (result (result string (error string)))
                    (canon lift (core func $i "run") (memory (core memory $i "memory"))
                        (realloc (core func $i "realloc")))))"#
        ));
        let agent = host()
            .load(&greedy.expect("valid"))
            .await
            .expect("an agent");
        let ran = agent.run(SnapshotCtx::new(memory()), &[]).await;
        assert!(
            matches!(&ran.answer, Err(RunError::Trapped(text)) if text.contains("limit")),
            "{ran:?}"
        );

        let mut limits = Limits::default();
        limits.component = 1000;
        let host = AgentHost::builder().limits(limits).build().expect("a host");
        let refused = host.load(&[0; 1001]).await.map(drop).expect_err("refused");
        assert!(refused.to_string().contains("1001 bytes"), "{refused}");
    });
}

/// The custom section of a core module in which wit-bindgen keeps its world, as a whole section.
fn world_section(module: &[u8]) -> &[u8] {
    let mut rest = &module[8..];
    while let [id, tail @ ..] = rest {
        let len_bytes = tail
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .expect("a length")
            + 1;
        let len = tail[..len_bytes]
            .iter()
            .rev()
            .fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        let (section, after) = rest.split_at(1 + len_bytes + len);
        let is_world = section.windows(14).any(|name| name == b"component-type");
        if *id == 0 && is_world {
            return section;
        }
        rest = after;
    }
    panic!("the test guest carries its world");
}

#[test]
fn a_preview1_reactor_with_its_world_is_an_agent() {
    let guest = std::fs::read(persist_tests::guest("test_guest")).expect("readable");
    let mut reactor = wat::parse_str(include_str!("../wat/preview1.wat")).expect("valid");
    reactor.extend_from_slice(world_section(&guest));
    block_on(async {
        let agent = host().load(&reactor).await.expect("an agent");
        let ran = agent.run(SnapshotCtx::new(memory()), &[]).await;
        assert_eq!(ran.answer.expect("an answer"), "done");
        assert_eq!(&ran.stdout[..], b"hello\n");
    });
}

#[test]
fn output_before_a_trap_is_kept() {
    // Prints "oh no" to standard error with WASI, and traps.
    let dying =
        wat::parse_str(include_str!("../../host/testdata/print_and_trap.wat")).expect("valid");
    block_on(async {
        let agent = host().load(&dying).await.expect("an agent");
        let ran = agent.run(SnapshotCtx::new(memory()), &[]).await;
        assert!(matches!(ran.answer, Err(RunError::Trapped(_))), "{ran:?}");
        assert_eq!(&ran.stderr[..], b"oh no\n");
    });
}

#[test]
fn output_is_read_while_the_run_continues() {
    block_on(async {
        let scope = memory();
        let guest = std::fs::read(persist_tests::guest("wasi_guest")).expect("readable");
        let agent = host().load(&guest).await.expect("an agent");
        let (output, mut reader) = live_output();
        // Prints "one", waits for a version of `go`, and prints "two".
        let args = ["print", "go", "out:6f6e65", "err:74776f"];
        let options = RunOptions::default().args(args).output(output);
        let ctx = SnapshotCtx::new(scope.clone());
        let running = tokio::spawn(async move { agent.run_with(ctx, &options).await });
        let (stream, bytes) = reader.next().await.expect("output");
        assert_eq!((stream, &bytes[..]), (StdStream::Stdout, &b"one"[..]));
        assert!(!running.is_finished(), "it waits");
        save(&scope, "go", "go").await;
        let (stream, bytes) = reader.next().await.expect("output");
        assert_eq!((stream, &bytes[..]), (StdStream::Stderr, &b"two"[..]));
        assert_eq!(reader.next().await, None);
        let ran = running.await.expect("no panic");
        assert_eq!(ran.answer.expect("an answer"), "printed");
        assert_eq!(
            (&ran.stdout[..], &ran.stderr[..]),
            (&b"one"[..], &b"two"[..])
        );
    });
}

#[test]
fn a_list_far_over_the_limit_is_a_trap_and_not_host_memory() {
    block_on(async {
        let mut limits = Limits::default();
        limits.inline_size = 1000;
        let ctx = SnapshotCtx::builder(memory()).limits(limits).build();
        let agent = test_guest(&host()).await;
        let ran = agent
            .run(ctx, &owned(&["raw-save", "a", "100000000"]))
            .await;
        assert!(matches!(ran.answer, Err(RunError::Trapped(_))), "{ran:?}");
    });
}

#[test]
fn names_of_a_guest_stay_in_its_scope() {
    block_on(async {
        let store = Store::new(Arc::new(Memory::new()));
        let bot = store.scope("bot", None);
        let other = store.scope("other", None);
        let bot = bot.expect("a name");
        let other = other.expect("a name");
        save(&other, "memory", "secret").await;
        for name in [
            "../other/~/memory",
            "/other/~/memory",
            "other/memory",
            "~",
            "..",
            "\u{202e}",
        ] {
            assert_eq!(act(&bot, &["load", name]).await, yes("none"), "{name:?}");
            assert_eq!(
                act(&bot, &["save", name, "mine"]).await,
                yes("version 1"),
                "{name:?}"
            );
        }
        for name in ["", "a\0b", "a\nb"] {
            let refused = act(&bot, &["save", name, "x"]).await.expect_err("refused");
            assert!(refused.starts_with("invalid "), "{refused}");
        }
        assert_eq!(load(&other, "memory").await.as_deref(), Some("secret"));
        assert_eq!(other.names("", None, 10).await.expect("a page").len(), 1);
    });
}

#[test]
fn the_embedder_hears_of_a_change_before_the_guest_does() {
    block_on(async {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let ctx = SnapshotCtx::builder(memory())
            .on_change(move |info| {
                let mut heard = record.lock().expect("no panic");
                heard.push((info.name.clone(), info.version, info.deleted));
            })
            .build();
        act_as(ctx.clone(), &["save", "memory", "one"])
            .await
            .expect("saves");
        act_as(ctx.clone(), &["delete", "memory"])
            .await
            .expect("deletes");
        act_as(ctx, &["load", "memory"]).await.expect("loads");
        let heard = heard.lock().expect("no panic");
        let memory = || "memory".to_owned();
        assert_eq!(*heard, [(memory(), 1, false), (memory(), 2, true)]);
    });
}

#[test]
fn the_embedder_hears_of_each_call_that_fails() {
    block_on(async {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let ctx = SnapshotCtx::builder(memory())
            .on_error(move |error| record.lock().expect("no panic").push(error.clone()))
            .build();
        act_as(ctx.clone(), &["save", "memory", "one"])
            .await
            .expect("saves");
        act_as(ctx.clone(), &["delete", "missing"])
            .await
            .expect_err("nothing to delete");
        act_as(ctx, &["load", ""]).await.expect_err("no name");
        let heard = heard.lock().expect("no panic");
        assert_eq!(heard[0], GuestError::NotFound);
        assert!(matches!(heard[1], GuestError::Invalid(_)), "{heard:?}");
        assert_eq!(heard.len(), 2, "{heard:?}");
    });
}

#[test]
fn a_file_that_is_not_an_agent_is_refused_with_the_reason() {
    block_on(async {
        let core = wat::parse_str(r#"(module (import "env" "f" (func)))"#).expect("valid");
        let wants_files = wat::parse_str(
            r#"(component (import "acme:disk/files@1.0.0" (instance (export "open" (func)))))"#,
        );
        let no_run = wat::parse_str("(component)").expect("valid");
        for (bytes, why) in [
            (&b""[..], "WebAssembly"),
            (b"#!/bin/sh", "WebAssembly"),
            (&core, "core module"),
            (&wants_files.expect("valid"), "acme:disk/files@1.0.0"),
            (&no_run, "run"),
        ] {
            let refused = host().load(bytes).await.map(drop).expect_err("refused");
            assert!(
                matches!(&refused, RunError::NotAnAgent(text) if text.contains(why)),
                "{refused}"
            );
        }
    });
}

#[test]
fn runs_at_once_do_not_disturb_each_other() {
    block_on(async {
        let scope = memory();
        let agent = test_guest(&host()).await;
        let runs: Vec<_> = (0..8)
            .map(|n| {
                let agent = agent.clone();
                let ctx = SnapshotCtx::new(scope.clone());
                let args = match n % 2 {
                    0 => owned(&["save", "memory", "x"]),
                    _ => owned(&["trap-mid-write", "memory"]),
                };
                tokio::spawn(async move { agent.run(ctx, &args).await })
            })
            .collect();
        for (n, run) in runs.into_iter().enumerate() {
            assert_eq!(run.await.expect("no panic").answer.is_ok(), n % 2 == 0);
        }
        assert_eq!(
            scope.versions("memory", None, 99).await.expect("a page"),
            [4, 3, 2, 1]
        );
    });
}

/// Returns an agent that answers whether it found its memory as it begins, and then writes that
/// many bytes of it. `first` is written before it looks.
fn writes_memory(written: usize, first: u8) -> Vec<u8> {
    let text = format!(
        r#"(component
  (core module $module
    (memory (export "memory") 96)
    (data (i32.const 600) "clean")
    (data (i32.const 616) "dirty")
    (data (i32.const 4096) "image of {written}")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func (export "run") (param i32 i32) (result i32)
      (local $at i32) (local $found i64)
      (i32.store8 (i32.const 9000) (i32.const {first}))
      (local.set $at (i32.const 8192))
      (loop $next
        (local.set $found (i64.or (local.get $found) (i64.load (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.const 6291456))))
      (i32.store (i32.const 516)
        (select (i32.const 600) (i32.const 616)
          (i32.and (i64.eqz (local.get $found))
            (i32.eq (i32.load8_u (i32.const 4096)) (i32.const 105)))))
      (i32.store (i32.const 520) (i32.const 5))
      (i32.store8 (i32.const 4096) (i32.const 0))
      (memory.fill (i32.const 8192) (i32.const 255) (i32.const {written}))
      (i32.const 512)))
  (core instance $instance (instantiate $module))
  (func (export "run") (param "args" (list string)) (result (result string (error string)))
    (canon lift (core func $instance "run") (memory (core memory $instance "memory"))
      (realloc (core func $instance "realloc")))))"#
    );
    wat::parse_str(text).expect("a component")
}

/// A place in the pool is cleared for the next run: page by page up to a bound, given back above.
#[test]
fn each_run_finds_memory_as_its_agent_begins() {
    block_on(async {
        let host = host();
        let mut agents = Vec::new();
        for written in [0, 4096, 1 << 20, 3 << 20, 5 << 20] {
            let agent = host.load(&writes_memory(written, 0)).await;
            agents.push((written, agent.expect("loads")));
        }
        for round in 0..4 {
            for (written, agent) in &agents {
                let ran = agent.run(SnapshotCtx::new(memory()), &[]).await;
                let answer = ran.answer.expect("an answer");
                assert_eq!(answer, "clean", "{written} in round {round}");
            }
        }
        let soiled = host.load(&writes_memory(0, 1)).await.expect("loads");
        let ran = soiled.run(SnapshotCtx::new(memory()), &[]).await;
        assert_eq!(ran.answer.expect("an answer"), "dirty");
    });
}
