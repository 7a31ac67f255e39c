//! Key-value interfaces, through agents on the bindings of other hosts: `wasmcloud-component` for
//! `wasi:keyvalue@0.2.0-draft`, `spin-sdk` for Spin's own interface and its
//! `wasi:keyvalue@0.2.0-draft2`, and the WIT of the standard for the other draft2.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persist_host::conformance::{Fault, Faulty};
use persist_host::guest::{Buckets, Guest, GuestError, Ledger, Limits, Rights};
use persist_host::snapshot::{Retention, SaveOptions, Scope, Store};
use persist_host::storage::{ErrorKind, Local, Memory};
use persist_host::wasm::{Agent, AgentHost, RunError, RunOptions, SnapshotCtx};
use persist_tests::{
    block_on, guest, guest_in, guest_on, host, persist, run_fails, run_ok, scope, tempdir, text,
};

async fn wasmcloud(host: &AgentHost) -> Agent {
    let bytes = std::fs::read(guest("wasmcloud_guest")).expect("readable");
    host.load(&bytes).await.expect("an agent")
}

async fn spin(host: &AgentHost) -> Agent {
    let bytes = std::fs::read(guest_on("wasm32-wasip1", "spin_guest")).expect("readable");
    host.load(&bytes).await.expect("an agent")
}

/// Makes a call, whose words are separated by spaces. Returns the answer, or the reason for none.
async fn call_as(agent: &Agent, ctx: SnapshotCtx, options: RunOptions, words: &str) -> String {
    let options = options.args(words.split(' '));
    match agent.run_with(ctx, &options).await.answer {
        Ok(answer) => answer,
        Err(RunError::Failed(reason)) => format!("error: {reason}"),
        Err(error) => panic!("does not come to its end: {error}"),
    }
}

async fn call(agent: &Agent, scope: &Scope, words: &str) -> String {
    let ctx = SnapshotCtx::new(scope.clone());
    call_as(agent, ctx, RunOptions::default(), words).await
}

fn memory() -> Scope {
    scope(Arc::new(Memory::new()))
}

#[test]
fn a_guest_of_wasmcloud_uses_every_function_of_the_draft() {
    block_on(async {
        let (agent, scope) = (wasmcloud(&host()).await, memory());
        for (words, answer) in [
            ("draft get default a", "none"),
            ("draft exists default a", "false"),
            ("draft delete default a", "deleted"),
            ("draft set default a one", "set"),
            ("draft set default a two", "set"),
            ("draft get default a", "two"),
            ("draft exists default a", "true"),
            ("draft set-many default b=2 c=3", "set"),
            ("draft get-many default a missing c", "a=two none c=3"),
            ("draft keys default", "a b c"),
            ("draft delete default a", "deleted"),
            ("draft get default a", "none"),
            ("draft keys default", "b c"),
            ("draft delete-many default b missing", "deleted"),
            ("draft keys default", "c"),
            (
                "draft increment default n 18446744073709551614",
                "18446744073709551614",
            ),
            ("draft increment default n 1", "18446744073709551615"),
            ("draft get default n", "18446744073709551615"),
        ] {
            assert_eq!(call(&agent, &scope, words).await, answer, "{words}");
        }
        let over = call(&agent, &scope, "draft increment default n 1").await;
        assert!(
            over.starts_with("error: the counter would become"),
            "{over}"
        );
        let text = call(&agent, &scope, "draft increment default c 1").await;
        assert_eq!(text, "4");
        // What the guest saved is a history.
        let versions = scope.versions("a", None, 10).await.expect("versions");
        assert_eq!(versions, [3, 2, 1]);
        let first = scope.load("a", Some(1)).await.expect("loads");
        assert_eq!(&first.expect("a state").state[..], b"one");
    });
}

#[test]
fn one_component_may_import_two_dialects() {
    block_on(async {
        let (agent, scope) = (wasmcloud(&host()).await, memory());
        for (words, answer) in [
            ("draft set default a 5", "set"),
            ("draft2 increment default a -7", "-2"),
            ("draft2 get-many default a b", "a=-2 none"),
            ("draft2 keys default", "a"),
            ("draft2 swap default a 9", "swapped"),
            ("draft get default a", "9"),
        ] {
            assert_eq!(call(&agent, &scope, words).await, answer, "{words}");
        }
        call(&agent, &scope, "draft2 swap default n -2").await;
        let negative = call(&agent, &scope, "draft increment default n 1").await;
        assert!(negative.contains("not a counter"), "{negative}");
    });
}

#[test]
fn a_guest_of_spin_uses_its_own_interface_and_its_shape_of_draft2() {
    block_on(async {
        let (agent, scope) = (spin(&host()).await, memory());
        for (words, answer) in [
            ("spin get default a", "none"),
            ("spin set default a one", "set"),
            ("spin set default b two", "set"),
            ("spin get default a", "one"),
            ("spin exists default a", "true"),
            ("spin delete default b", "deleted"),
            ("spin delete default b", "deleted"),
            ("spin keys default", "a"),
            ("spin get other a", "error: no such store"),
            ("spin open-many default 5000", "error: store table full"),
            ("draft2 get-many default a b", "a=one b=none"),
            ("draft2 increment default n -3", "-3"),
        ] {
            assert_eq!(call(&agent, &scope, words).await, answer, "{words}");
        }
    });
}

/// Guests in JavaScript and Python are made with the WIT in spin-sdk, and no SDK of Persist.
#[test]
fn guests_of_spin_in_other_languages_leave_a_history() {
    let words = [
        ("spin set default a one", "set"),
        ("spin set default a two", "set"),
        ("spin set default b 5", "set"),
        ("spin get default a", "two"),
        ("spin get default c", "none"),
        ("spin exists default a", "true"),
        ("spin get other a", "error: no such store"),
        ("draft2 increment default b -7", "-2"),
        ("draft2 swap default b 9", "swapped"),
        ("draft2 get-many default a b c", "a=two b=9 c=none"),
        ("draft2 increment default a 1", "error: the value is not a"),
        ("spin delete default b", "deleted"),
        ("spin keys default", "a"),
    ];
    for language in ["js", "python"] {
        let Some(file) = guest_in(language, "spin_words") else {
            continue;
        };
        let dir = tempdir();
        persist(dir.path()); // Makes the store.
        block_on(async {
            let bytes = std::fs::read(&file).expect("readable");
            let agent = host().load(&bytes).await.expect("an agent");
            let store = Store::new(Arc::new(Local::new(dir.path())));
            let scope = store.scope("bot", None).expect("a scope");
            for (words, expected) in words {
                let answer = call(&agent, &scope, words).await;
                assert!(answer.starts_with(expected), "{language} {words}: {answer}");
            }
            run_ok(dir.path(), &["restore", "bot/a@1"]);
            run_ok(dir.path(), &["restore", "bot/b@3"]);
            let restored = call(&agent, &scope, "draft2 get-many default a b").await;
            assert_eq!(restored, "a=one b=9", "{language}");
        });
        let history = run_ok(dir.path(), &["history", "bot/b"]);
        assert_eq!(history.lines().count(), 1 + 5, "{language}: {history}");
        assert!(history.contains("deleted"), "{language}: {history}");
        let diff = run_ok_or_differs(dir.path(), &["diff", "bot/a@1", "bot/a@2"]);
        assert!(diff.contains("-one") && diff.contains("+two"), "{diff}");
    }
}

#[test]
fn a_swap_notices_a_value_that_was_changed_and_changed_back() {
    block_on(async {
        let (agent, scope) = (spin(&host()).await, memory());
        call(&agent, &scope, "spin set default a one").await;
        call(&agent, &scope, "spin set default gone one").await;
        call(&agent, &scope, "spin delete default gone").await;
        for (key, value) in [("a", "two"), ("gone", "three"), ("never-saved", "four")] {
            let words = format!("draft2 swap-late default {key} {value}");
            let swapped = call(&agent, &scope, &words).await;
            assert_eq!(swapped, "swapped after a conflict", "{key}");
            let now = call(&agent, &scope, &format!("spin get default {key}")).await;
            assert_eq!(now, value);
        }
    });
}

#[test]
fn increments_by_two_hosts_are_all_counted() {
    const TIMES: usize = 20;
    let dir = tempdir();
    block_on(async {
        let hosts: Vec<_> = (0..2)
            .map(|_| {
                // A store of its own, as in another process: no head is shared.
                let scope = scope(Arc::new(Local::new(dir.path())));
                tokio::spawn(async move {
                    let agent = wasmcloud(&host()).await;
                    let words = format!("draft increment-times default visits {TIMES}");
                    let runs = (0..2).map(|_| call(&agent, &scope, &words));
                    futures_util::future::join_all(runs).await
                })
            })
            .collect();
        for host in hosts {
            assert_eq!(host.await.expect("ends"), ["incremented", "incremented"]);
        }
        let scope = scope(Arc::new(Local::new(dir.path())));
        let agent = spin(&host()).await;
        let total = call(&agent, &scope, "spin get default visits").await;
        assert_eq!(total, (4 * TIMES).to_string());
        let head = scope.stat("visits", None).await.expect("a version");
        assert_eq!(head.map(|info| info.version), Some(4 * TIMES as u64));
    });
}

#[test]
fn increments_by_two_processes_are_all_counted() {
    const TIMES: usize = 50;
    let dir = tempdir();
    let file = guest("wasmcloud_guest");
    let times = TIMES.to_string();
    let words = ["draft", "increment-times", "all", "visits", &times];
    persist(dir.path()); // Makes the store.
    // Each process is another agent, and the bucket is shared.
    let processes = ["left", "right"].map(|agent| {
        let mut process = persist(dir.path());
        process
            .args(["run", "--agent", agent, "--shared-bucket", "all=common"])
            .arg(&file)
            .arg("--")
            .args(words)
            .stdout(Stdio::piped());
        process.spawn().expect("persist starts")
    });
    for process in processes {
        let output = process.wait_with_output().expect("ends");
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), "incremented\n");
    }
    let total = run_ok(dir.path(), &["cat", "common/visits"]);
    assert_eq!(total, (2 * TIMES).to_string());
    // No value was counted twice either: each increment is a version.
    let versions = run_ok(dir.path(), &["history", "common/visits"]);
    assert_eq!(versions.lines().count(), 1 + 2 * TIMES);
}

#[test]
fn only_buckets_that_the_host_allows_are_opened() {
    block_on(async {
        let store = Store::new(Arc::new(Memory::new()));
        let own = store.scope("bot", Some("s1")).expect("names");
        let shared = store.scope("shared", None).expect("names");
        let agent = wasmcloud(&host()).await;
        let call = async |words: &str| {
            let read_only = SnapshotCtx::builder(shared.clone()).rights(Rights::read_only());
            let options = RunOptions::default()
                .bucket("cache", "cache/")
                .bucket_of("shared", SnapshotCtx::new(shared.clone()), "")
                .bucket_of("readable", read_only.build(), "");
            call_as(&agent, SnapshotCtx::new(own.clone()), options, words).await
        };
        assert_eq!(call("draft set cache a own").await, "set");
        assert_eq!(call("draft set shared a theirs").await, "set");
        assert_eq!(call("draft get readable a").await, "theirs");
        assert_eq!(call("draft set readable a x").await, "error: access denied");
        assert_eq!(
            call("draft increment readable n 1").await,
            "error: access denied"
        );
        assert_eq!(call("draft get secrets a").await, "error: no such store");
        // The empty name is the default bucket, which is the whole scope.
        assert_eq!(call("draft keys ").await, "cache/a");
        assert_eq!(call("draft keys cache").await, "a");
        let state = own.load("cache/a", None).await.expect("loads");
        assert_eq!(&state.expect("a state").state[..], b"own");
        let state = shared.load("a", None).await.expect("loads");
        assert_eq!(&state.expect("a state").state[..], b"theirs");
    });
}

#[test]
fn rights_and_limits_hold_for_buckets() {
    block_on(async {
        let (agent, scope) = (wasmcloud(&host()).await, memory());
        let call = async |rights: Rights, limit: (&str, &str), words: &str| {
            let mut limits = Limits::default();
            limits.set(limit.0, limit.1).expect("a limit");
            let ctx = SnapshotCtx::builder(scope.clone())
                .rights(rights)
                // A limit of one call must not use up what the next one has.
                .ledger(&Ledger::new(&limits))
                .limits(limits);
            call_as(&agent, ctx.build(), RunOptions::default(), words).await
        };
        let any = ("page", "100");
        let all = Rights::all;
        call(all(), any, "draft set default notes/a 1").await;
        call(all(), any, "draft set default other 1").await;
        let mut rights = all();
        rights.list = false;
        let denied = "error: access denied";
        assert_eq!(
            call(rights.clone(), any, "draft keys default").await,
            denied
        );
        rights.delete = false;
        assert_eq!(
            call(rights, any, "draft delete default other").await,
            denied
        );
        let notes = all().under("notes/");
        assert_eq!(
            call(notes.clone(), any, "draft keys default").await,
            "notes/a"
        );
        assert_eq!(call(notes, any, "draft get default other").await, denied);
        for (limit, words, told) in [
            (
                ("inline-size", "1000"),
                "draft set-bytes default big 1001",
                "too large",
            ),
            (
                ("inline-size", "1"),
                "draft get-many default notes/a other",
                "too large",
            ),
            (
                ("state-size", "1"),
                "draft set default a 22",
                "`state-size` is 1",
            ),
            (
                ("saves-per-minute", "0"),
                "draft increment default n 1",
                "`saves-per-minute` is 0",
            ),
            (
                ("reads-per-minute", "0"),
                "draft keys default",
                "`reads-per-minute` is 0",
            ),
            (
                ("names-at-rest", "2"),
                "draft set default third 1",
                "`names-at-rest` is 2",
            ),
            (
                ("name-size", "5"),
                "draft set default abcdef 1",
                "`name-size` is 5",
            ),
        ] {
            let answer = call(all(), limit, words).await;
            assert!(
                answer.starts_with("error: ") && answer.contains(told),
                "{words}: {answer}"
            );
        }
        let long = format!("draft set default {} x", "k".repeat(201));
        let answer = call(all(), any, &long).await;
        assert!(
            answer.contains("key too long: a key of 201 bytes"),
            "{answer}"
        );
    });
}

#[test]
fn lists_have_pages_and_no_deleted_keys() {
    block_on(async {
        let (agent, scope) = (wasmcloud(&host()).await, memory());
        let mut limits = Limits::default();
        limits.page = 2;
        let call = async |words: &str| {
            let ctx = SnapshotCtx::builder(scope.clone()).limits(limits.clone());
            call_as(&agent, ctx.build(), RunOptions::default(), words).await
        };
        call("draft set-many default a=1 b=1 c=1 d=1 e=1 f=1 g=1").await;
        // A whole page of deleted keys is no end of the list.
        call("draft delete-many default a c d e").await;
        assert_eq!(call("draft keys default").await, "b f g");
        assert_eq!(call("draft2 keys default").await, "b f g");
        // A cursor of draft2 is a place, and good in another run.
        assert_eq!(call("draft2 keys-at default b").await, "f");
        for words in ["draft keys-at default 1", "draft2 keys-at default \u{7}"] {
            let answer = call(words).await;
            assert!(
                answer.starts_with("error: invalid cursor"),
                "{words}: {answer}"
            );
        }
        // Names that no key has are not listed; those of any program that a key has are.
        for name in ["50%", "from-elsewhere"] {
            let saved = scope.save(name, "x".into(), SaveOptions::default()).await;
            saved.expect("saved");
        }
        assert_eq!(call("draft keys default").await, "b f from-elsewhere g");
    });
}

#[test]
fn keys_that_are_no_names_are_kept_and_come_back() {
    block_on(async {
        let scope = memory();
        let bucket = Buckets::new(Guest::new(scope.clone()))
            .open("")
            .expect("open");
        let keys = ["", "%", "100%", "a\nb", "tab\t", "Ключ/1", "..", "\u{85}"];
        for key in keys {
            bucket.set(key, key.to_owned().into()).await.expect("set");
        }
        for key in keys {
            let value = bucket.get(key).await.expect("get").expect("a value");
            assert_eq!(value, key.as_bytes(), "{key:?}");
        }
        let mut listed = bucket.all_keys().await.expect("keys");
        let mut expected = keys.map(str::to_owned);
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        let state = scope.load("a%0ab", None).await.expect("loads");
        assert_eq!(&state.expect("a state").state[..], b"a\nb");
    });
}

#[test]
fn old_values_of_a_bucket_are_pruned_as_old_versions_are() {
    block_on(async {
        let scope = memory();
        let bucket = Buckets::new(Guest::new(scope.clone()))
            .open("")
            .expect("open");
        for _ in 0..5 {
            bucket.increment_u64("n", 1).await.expect("incremented");
        }
        let mut retention = Retention::default();
        (retention.keep_within, retention.keep_last) = (Duration::ZERO, 2);
        (
            retention.keep_hourly,
            retention.keep_daily,
            retention.keep_weekly,
        ) = (0, 0, 0);
        let pruned = scope.prune_with_hosts_stopped("n", &retention, Duration::ZERO);
        pruned.await.expect("pruned");
        let versions = scope.versions("n", None, 10).await.expect("versions");
        assert_eq!(versions, [5, 4]);
        assert_eq!(bucket.increment_u64("n", 1).await, Ok(6));
    });
}

/// Returns an agent, written by hand, that saves `hello` as `greeting` in the default bucket. It
/// imports an interface with a resource, a function that opens one, and the cases of its errors.
fn agent_by_hand(import: &str, resource: &str, open: &str, cases: &str) -> Vec<u8> {
    let parameter = if open == "open" {
        "identifier"
    } else {
        "label"
    };
    let text = format!(
        r#"(component
        (import "{import}" (instance $kv
            (export "{resource}" (type $b (sub resource)))
            (type $e_ (variant {cases} (case "other" string)))
            (export "error" (type $e (eq $e_)))
            (export "{open}" (func (param "{parameter}" string)
                (result (result (own $b) (error $e)))))
            (export "[method]{resource}.set" (func (param "self" (borrow $b))
                (param "key" string) (param "value" (list u8)) (result (result (error $e)))))))
        (core module $libc
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (local.tee 0 (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.set $heap (i32.add (local.get 0) (local.get 3)))))
        (core instance $libc (instantiate $libc))
        (core func $open (canon lower (func $kv "{open}")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core func $set (canon lower (func $kv "[method]{resource}.set")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core module $main
            (import "libc" "memory" (memory 1))
            (import "kv" "open" (func $open (param i32 i32 i32)))
            (import "kv" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
            (data (i32.const 16) "greeting")
            (data (i32.const 32) "hello")
            (data (i32.const 48) "default")
            (func (export "run") (param i32 i32) (result i32)
                (call $open (i32.const 48) (i32.const 7) (i32.const 64))
                (if (i32.load8_u (i32.const 64)) (then unreachable))
                (call $set (i32.load (i32.const 68)) (i32.const 16) (i32.const 8)
                    (i32.const 32) (i32.const 5) (i32.const 80))
                (if (i32.load8_u (i32.const 80)) (then unreachable))
                (i32.store (i32.const 132) (i32.const 32))
                (i32.store (i32.const 136) (i32.const 5))
                (i32.const 128)))
        (core instance $main (instantiate $main
            (with "libc" (instance $libc))
            (with "kv" (instance (export "open" (func $open)) (export "set" (func $set))))))
        (func (export "run") (param "args" (list string)) (result (result string (error string)))
            (canon lift (core func $main "run")
                (memory (core memory $libc "memory")) (realloc (core func $libc "realloc")))))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn an_agent_of_each_dialect_needs_no_bindings_and_may_import_a_part() {
    let cases = r#"(case "no-such-store") (case "access-denied")"#;
    let cases_of_spin = format!(r#"(case "store-table-full") {cases}"#);
    let (draft, draft2) = (
        "wasi:keyvalue/store@0.2.0-draft",
        "wasi:keyvalue/store@0.2.0-draft2",
    );
    let spin = "fermyon:spin/key-value@2.0.0";
    block_on(async {
        for agent in [
            agent_by_hand(draft, "bucket", "open", cases),
            agent_by_hand(draft2, "bucket", "open", cases),
            agent_by_hand(spin, "store", "[static]store.open", &cases_of_spin),
        ] {
            let scope = memory();
            let agent = host().load(&agent).await.expect("an agent");
            assert_eq!(call(&agent, &scope, "").await, "hello");
            let saved = scope.load("greeting", None).await.expect("loads");
            assert_eq!(&saved.expect("a state").state[..], b"hello");
        }
        // Errors of one dialect in the interface of another are refused by name.
        let mixed = agent_by_hand(draft2, "bucket", "open", &cases_of_spin);
        let refused = host().load(&mixed).await.expect_err("refused").to_string();
        assert!(refused.contains(draft2), "{refused}");
        assert!(refused.contains("`open`"), "{refused}");
    });
}

/// An import of an interface with one function, and no agent around it: nothing runs.
fn component(import: &str, function: &str) -> Vec<u8> {
    let text = format!("(component (import \"{import}\" (instance {function})))");
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn other_dialects_and_functions_are_refused_by_name() {
    let bucket = "(export \"bucket\" (type $b (sub resource)))";
    let error = "(type $e_ (variant (case \"no-such-store\") (case \"access-denied\")
        (case \"other\" string))) (export \"error\" (type $e (eq $e_)))";
    block_on(async {
        for (import, function, told) in [
            (
                "wasi:keyvalue/eventual@0.1.0",
                "(export \"get\" (func))".to_owned(),
                &["this host supports the interfaces store, atomics and batch"][..],
            ),
            (
                "wasi:keyvalue/watcher@0.2.0-draft2",
                "(export \"on-set\" (func))".to_owned(),
                &["wasi:keyvalue/watcher@0.2.0-draft2"],
            ),
            (
                "wasi:keyvalue/store@0.2.0-draft3",
                "(export \"open\" (func))".to_owned(),
                &["wasi:keyvalue/store@0.2.0-draft3"],
            ),
            (
                "wasi:keyvalue/store@0.2.0-draft",
                format!(
                    "{bucket} {error} (export \"open\" (func (param \"identifier\" string)
                        (param \"create\" bool) (result (result (own $b) (error $e)))))"
                ),
                &["with `open`", "(string,bool)->result<own,variant{"],
            ),
            (
                "wasi:keyvalue/store@0.2.0-draft",
                format!(
                    "{bucket} {error} (export \"[method]bucket.touch\" (func
                        (param \"self\" (borrow $b)) (result (result (error $e)))))"
                ),
                &["with `[method]bucket.touch`", "no such function"],
            ),
            (
                "spin:key-value/key-value@3.0.0",
                "(export \"get-keys\" (func async))".to_owned(),
                &["spin:key-value/key-value@3.0.0 with `get-keys`", "is async"],
            ),
            (
                "wasi:keyvalue/store@0.2.0-draft2",
                "(export \"open\" (func async))".to_owned(),
                &["wasi:keyvalue/store@0.2.0-draft2 with `open`", "is async"],
            ),
        ] {
            let refused = host().load(&component(import, &function)).await;
            let refused = refused.expect_err("refused").to_string();
            for text in [&[import][..], told].concat() {
                assert!(refused.contains(text), "{import}: {refused}");
            }
        }
    });
}

#[test]
fn the_command_shows_and_restores_what_a_guest_of_another_host_saved() {
    let dir = tempdir();
    let file = guest_on("wasm32-wasip1", "spin_guest");
    let file = file.to_str().expect("text");
    let run = |options: &[&str], args: &[&str]| {
        let words = [&["run", "--agent", "bot"], options, &[file, "--"], args].concat();
        run_ok(dir.path(), &words).trim_end().to_owned()
    };
    let buckets = [
        "--bucket",
        "cache=cache/",
        "--shared-bucket",
        "shared=all/common",
    ];
    assert_eq!(run(&[], &["spin", "set", "default", "a", "one"]), "set");
    assert_eq!(run(&[], &["spin", "set", "default", "a", "two"]), "set");
    let history = run_ok(dir.path(), &["history", "bot/a"]);
    assert_eq!(
        history.lines().filter(|line| line.contains(" B ")).count(),
        2,
        "{history}"
    );
    let diff = run_ok_or_differs(dir.path(), &["diff", "bot/a@1", "bot/a@2"]);
    assert!(diff.contains("-one") && diff.contains("+two"), "{diff}");
    run_ok(dir.path(), &["restore", "bot/a@1"]);
    assert_eq!(run(&[], &["spin", "get", "default", "a"]), "one");
    assert_eq!(run(&buckets, &["spin", "set", "cache", "b", "own"]), "set");
    assert_eq!(
        run(&buckets, &["spin", "set", "shared", "b", "theirs"]),
        "set"
    );
    assert_eq!(run_ok(dir.path(), &["cat", "bot/cache~2fb"]), "own");
    assert_eq!(run_ok(dir.path(), &["cat", "all/common/b"]), "theirs");
    for (option, told) in [
        (["--bucket", "cache"], "write NAME=PREFIX"),
        (["--bucket", "=x"], "the name is empty"),
        (["--shared-bucket", "all"], "write NAME=AGENT"),
        (
            ["--shared-bucket", "all=a/b/c"],
            "a scope is agent or agent/session",
        ),
    ] {
        let words = ["run", option[0], option[1], file];
        let refused = run_fails(dir.path(), &words, 2);
        assert!(refused.contains(told), "{refused}");
    }
}

/// Runs a comparison, whose exit code says that there are differences.
fn run_ok_or_differs(dir: &Path, words: &[&str]) -> String {
    let output = persist_tests::persist(dir).args(words).output();
    let output = output.expect("persist starts");
    text(&output.stdout).to_owned()
}

#[test]
fn the_embedder_hears_of_calls_of_buckets_that_fail() {
    block_on(async {
        let storage = Arc::new(Faulty::new(Arc::new(Memory::new())));
        let store = Store::new(storage.clone());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let guest = Guest::builder(store.scope("bot", None).expect("a scope"))
            .on_error(move |error| record.lock().expect("no panic").push(error.clone()))
            .build();
        let heard = || std::mem::take(&mut *heard.lock().expect("no panic"));
        let bucket = Buckets::new(guest).open("").expect("the default bucket");
        bucket.set("x", "one".into()).await.expect("saved");
        storage.plan(Fault::Fails(ErrorKind::Unavailable));
        let refused = bucket.set("x", "two".into()).await;
        refused.expect_err("as planned");
        assert!(matches!(&heard()[..], [GuestError::Unavailable(_)]));
        // The names are listed, and then nothing is answered.
        storage.die_at(1, true);
        bucket.keys(None).await.expect_err("the storage is gone");
        assert!(matches!(&heard()[..], [GuestError::Unavailable(_)]));
    });
}
