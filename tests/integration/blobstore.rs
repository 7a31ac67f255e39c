//! `wasi:blobstore@0.2.0-draft`, through an agent on the bindings of `wasmcloud-component`.

use std::sync::Arc;

use persist_host::guest::{Buckets, Guest, Ledger, Limits, Rights};
use persist_host::snapshot::{Scope, Store};
use persist_host::storage::{Local, Memory};
use persist_host::wasm::{Agent, AgentHost, RunError, RunOptions, SnapshotCtx};
use persist_tests::{block_on, guest, host, run_ok, scope, tempdir};

async fn agent(host: &AgentHost) -> Agent {
    let bytes = std::fs::read(guest("wasmcloud_guest")).expect("readable");
    host.load(&bytes).await.expect("an agent")
}

/// Makes a call, whose words are separated by spaces. Returns the answer, or the reason for none.
async fn call_as(agent: &Agent, ctx: SnapshotCtx, options: RunOptions, words: &str) -> String {
    let options = options.args(["blob"]).args(words.split(' '));
    match agent.run_with(ctx, &options).await.answer {
        Ok(answer) => answer,
        Err(RunError::Failed(reason)) => format!("error: {reason}"),
        Err(error) => format!("ended: {error}"),
    }
}

async fn call(agent: &Agent, scope: &Scope, words: &str) -> String {
    let ctx = SnapshotCtx::new(scope.clone());
    call_as(agent, ctx, RunOptions::default(), words).await
}

/// Returns the answer of `stream` to these bytes of an object that `write-bytes` made.
fn sum(range: std::ops::Range<u64>) -> String {
    let sum: u64 = range.clone().map(|at| at % 251).sum();
    format!("{} bytes, sum {sum}", range.end - range.start)
}

#[test]
fn a_guest_of_wasmcloud_uses_every_function_of_the_blobstore() {
    block_on(async {
        let (agent, scope) = (agent(&host()).await, scope(Arc::new(Memory::new())));
        for (words, answer) in [
            ("has default a", "false"),
            ("get default a", "error: no such object"),
            ("info default a", "error: no such object"),
            ("delete default a", "deleted"),
            ("write default a one", "written"),
            ("write default a second", "written"),
            ("get default a", "second"),
            ("has default a", "true"),
            ("info default a", "default/a 6 true"),
            ("write-no-stream default empty", "written"),
            ("get default empty", ""),
            ("info default empty", "default/empty 0 true"),
            ("copy default a default b", "done"),
            ("copy default missing default b", "error: no such object"),
            ("get default b", "second"),
            ("move default b default c", "done"),
            ("has default b", "false"),
            ("move default c default c", "done"),
            ("get default c", "second"),
            ("list default 2", "a c | empty"),
            ("list default 100", "a c empty"),
            ("skip default 2", "2 then empty true"),
            ("delete default c empty missing", "deleted"),
            ("list default 100", "a"),
            ("write default 50%/x y", "written"),
            ("list default 100", "50%/x a"),
            ("clear default", "cleared"),
            ("list default 100", ""),
            ("create default", "default"),
            ("has-container default", "true"),
            ("has-container other", "false"),
        ] {
            assert_eq!(call(&agent, &scope, words).await, answer, "{words}");
        }
        // An object is a state with a history.
        let first = scope.load("a", Some(1)).await.expect("loads");
        assert_eq!(&first.expect("a state").state[..], b"one");
        let versions = scope.versions("a", None, 10).await.expect("versions");
        assert_eq!(versions, [3, 2, 1]);
    });
}

#[test]
fn ranges_are_inclusive_and_end_with_the_object() {
    block_on(async {
        let (agent, scope) = (agent(&host()).await, scope(Arc::new(Memory::new())));
        call(&agent, &scope, "write default a 0123456789").await;
        for (range, answer) in [
            ("0 0", "0"),
            ("0 9", "0123456789"),
            ("3 5", "345"),
            ("8 20", "89"),
            ("9 18446744073709551615", "9"),
            ("10 10", ""),
            ("18446744073709551615 18446744073709551615", ""),
            ("5 4", "error: invalid range: it starts at 5 and ends at 4"),
        ] {
            let found = call(&agent, &scope, &format!("get default a {range}")).await;
            assert_eq!(found, answer, "{range}");
        }
        // Over several blocks of the stored file, and pieces of the stream.
        call(&agent, &scope, "write-bytes default large 3000000").await;
        for (start, last) in [
            (0, 2_999_999),
            (1_048_575, 1_048_576),
            (1_000_000, 2_500_000),
        ] {
            let words = format!("stream default large {start} {last}");
            assert_eq!(call(&agent, &scope, &words).await, sum(start..last + 1));
        }
    });
}

#[test]
fn only_a_finished_value_makes_an_object() {
    let dir = tempdir();
    block_on(async {
        let scope = scope(Arc::new(Local::new(dir.path())));
        let agent = agent(&host()).await;
        call(&agent, &scope, "write default a kept").await;
        for name in ["a", "new"] {
            // Large enough that a part of it is sent before the end.
            let dropped = call(&agent, &scope, &format!("drop default {name} 12000000")).await;
            assert_eq!(dropped, "dropped");
            let ended = call(&agent, &scope, &format!("trap default {name} 12000000")).await;
            assert!(ended.starts_with("ended: "), "{ended}");
            // The interface says that this traps.
            let ended = call(&agent, &scope, &format!("finish-open default {name}")).await;
            assert!(ended.starts_with("ended: "), "{ended}");
        }
        assert_eq!(call(&agent, &scope, "get default a").await, "kept");
        assert_eq!(call(&agent, &scope, "list default 10").await, "a");
        let versions = scope.versions("a", None, 10).await.expect("versions");
        assert_eq!(versions, [1]);
        let nothing = scope.versions("new", None, 10).await.expect("versions");
        assert!(nothing.is_empty(), "{nothing:?}");
    });
}

#[test]
fn a_value_may_get_its_container_after_its_first_bytes() {
    block_on(async {
        let (agent, scope) = (agent(&host()).await, scope(Arc::new(Memory::new())));
        let written = call(&agent, &scope, "write-late default a 65536").await;
        assert_eq!(written, "written");
        let read = call(&agent, &scope, "stream default a 0 65535").await;
        assert_eq!(read, sum(0..65536));
        let refused = call(&agent, &scope, "write-late default b 65537").await;
        assert!(
            refused.starts_with("error: ") && refused.contains("call write-data before the rest"),
            "{refused}"
        );
        let refused = call(&agent, &scope, "finish-alone default").await;
        assert!(
            refused.contains("call write-data before finish"),
            "{refused}"
        );
        let refused = call(&agent, &scope, "write-twice default b").await;
        assert!(refused.contains("given to a container before"), "{refused}");
        assert_eq!(call(&agent, &scope, "list default 10").await, "a");
    });
}

#[test]
fn an_open_stream_keeps_the_object_that_it_began_with() {
    block_on(async {
        let (agent, scope) = (agent(&host()).await, scope(Arc::new(Memory::new())));
        call(&agent, &scope, "write-bytes default a 3000000").await;
        let read = call(&agent, &scope, "stream-replaced default a other").await;
        assert_eq!(read, sum(0..3_000_000));
        assert_eq!(call(&agent, &scope, "has default a").await, "false");
    });
}

#[test]
fn containers_are_the_buckets_that_the_host_allows() {
    block_on(async {
        let store = Store::new(Arc::new(Memory::new()));
        let own = store.scope("bot", Some("s1")).expect("names");
        let shared = store.scope("shared", None).expect("names");
        let agent = agent(&host()).await;
        let call = async |words: &str| {
            let read_only = SnapshotCtx::builder(shared.clone()).rights(Rights::read_only());
            let options = RunOptions::default()
                .bucket("photos", "photos/")
                .bucket_of("shared", SnapshotCtx::new(shared.clone()), "")
                .bucket_of("readable", read_only.build(), "");
            call_as(&agent, SnapshotCtx::new(own.clone()), options, words).await
        };
        assert_eq!(call("write photos a own").await, "written");
        assert_eq!(call("copy photos a shared b").await, "done");
        assert_eq!(call("get readable b").await, "own");
        let denied = "error: access denied";
        assert_eq!(call("write readable b x").await, denied);
        assert_eq!(call("copy photos a readable b").await, denied);
        // Nothing is lost where the first one cannot be deleted.
        assert_eq!(call("move readable b photos c").await, denied);
        assert_eq!(call("get shared b").await, "own");
        assert_eq!(call("list default 10").await, "photos/a photos/c");
        for words in ["create secrets", "get secrets a", "copy photos a secrets a"] {
            let refused = call(words).await;
            assert!(
                refused.starts_with("error: no such container"),
                "{words}: {refused}"
            );
        }
        assert_eq!(call("delete-container photos").await, "deleted");
        assert_eq!(call("list default 10").await, "");
        assert_eq!(call("list shared 10").await, "b");
    });
}

#[test]
fn rights_and_limits_hold_for_objects() {
    block_on(async {
        let (agent, scope) = (agent(&host()).await, scope(Arc::new(Memory::new())));
        let call = async |rights: Rights, limit: (&str, &str), words: &str| {
            let mut limits = Limits::default();
            limits.set(limit.0, limit.1).expect("a limit");
            let ctx = SnapshotCtx::builder(scope.clone())
                .rights(rights)
                .ledger(&Ledger::new(&limits))
                .limits(limits);
            call_as(&agent, ctx.build(), RunOptions::default(), words).await
        };
        let any = ("page", "100");
        call(Rights::all(), any, "write default a 0123456789").await;
        let mut rights = Rights::all();
        rights.list = false;
        let denied = "error: access denied";
        assert_eq!(call(rights.clone(), any, "list default 10").await, denied);
        assert_eq!(call(rights, any, "clear default").await, denied);
        let notes = Rights::all().under("notes/");
        assert_eq!(call(notes.clone(), any, "get default a").await, denied);
        assert_eq!(call(notes, any, "list default 10").await, "");
        for (limit, words, told) in [
            (
                ("inline-size", "9"),
                "get default a",
                "consume it as a stream",
            ),
            (
                ("open-readers", "4"),
                "open-many default a 5",
                "`open-readers` is 4",
            ),
            (
                ("open-writers", "0"),
                "write default b x",
                "`open-writers` is 0",
            ),
            (
                ("state-size", "70000"),
                "write-bytes default b 70001",
                "`state-size` is 70000",
            ),
            (
                ("saves-per-minute", "0"),
                "write default b x",
                "`saves-per-minute` is 0",
            ),
            (
                ("reads-per-minute", "0"),
                "list default 10",
                "`reads-per-minute` is 0",
            ),
            (
                ("names-at-rest", "1"),
                "write default b x",
                "`names-at-rest` is 1",
            ),
        ] {
            let answer = call(Rights::all(), limit, words).await;
            assert!(
                answer.starts_with("error: ") && answer.contains(told),
                "{words}: {answer}"
            );
        }
        // A range that fits may be read at once, and a stream has pieces of any limit.
        let range = call(Rights::all(), ("inline-size", "9"), "get default a 1 9").await;
        assert_eq!(range, "123456789");
        let pieces = call(
            Rights::all(),
            ("chunk", "1000"),
            "write-bytes default c 70000",
        )
        .await;
        assert_eq!(pieces, "written");
        let read = call(Rights::all(), ("chunk", "1000"), "stream default c 0 69999").await;
        assert_eq!(read, sum(0..70_000));
    });
}

#[test]
fn names_in_a_container_are_read_to_their_end() {
    block_on(async {
        let scope = scope(Arc::new(Memory::new()));
        let mut limits = Limits::default();
        limits.page = 2;
        let guest = Guest::builder(scope).limits(limits).build();
        let bucket = Buckets::new(guest).open("").expect("open");
        for key in ["a", "b", "c", "d", "e"] {
            bucket.set(key, key.into()).await.expect("set");
        }
        bucket.delete("c").await.expect("deleted");
        let mut names = bucket.object_names().expect("may list");
        let first = names.next(3).await.expect("names");
        assert_eq!(first, (vec!["a".into(), "b".into(), "d".into()], false));
        assert_eq!(names.next(0).await, Ok((vec![], false)));
        assert_eq!(names.next(1).await, Ok((vec!["e".into()], true)));
        assert_eq!(names.next(1).await, Ok((vec![], true)));
    });
}

#[test]
fn the_command_shows_and_restores_objects() {
    let dir = tempdir();
    let dir = dir.path();
    let run = |words: &[&str]| {
        let guest = guest("wasmcloud_guest");
        let start = ["run", "--agent", "bot", "--bucket", "photos=photos/"];
        let path = guest.to_str().expect("UTF-8");
        run_ok(dir, &[&start[..], &[path, "--", "blob"], words].concat())
    };
    run(&["write", "photos", "cat", "first"]);
    run(&["write", "photos", "cat", "second"]);
    assert_eq!(run_ok(dir, &["cat", "bot/photos~2fcat"]), "second");
    run_ok(dir, &["restore", "bot/photos~2fcat@1"]);
    assert!(run(&["get", "photos", "cat"]).contains("first"));
}
