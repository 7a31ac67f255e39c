//! Agents in every language that has an SDK: each keeps the same promises, and all of them one
//! memory.

mod build;
mod c;
mod conversation;
#[cfg(unix)]
mod doubles;
mod go;
mod js;
mod python;

use std::collections::HashMap;
use std::sync::Arc;

use persist_host::snapshot::Scope;
use persist_host::storage::{Local, Memory};
use persist_host::wasm::{Agent, Limits, RunError, SnapshotCtx};
use persist_tests::{block_on, guest, guest_in, host, load, save, scope, tempdir};
use tokio::sync::Mutex;

const LANGUAGES: [&str; 5] = ["rust", "c", "go", "js", "python"];
/// Those whose agents print, and know random numbers, too. Rust's have no WASI, and JavaScript's
/// engine has no use for all of it.
const WITH_WASI: [&str; 3] = ["c", "go", "python"];

type Answer = Result<String, String>;

/// Makes a claim about the agent `name` in each of `languages` that can be built here.
async fn in_each(languages: &[&str], name: &str, claim: impl AsyncFn(&str, &Agent)) {
    for language in languages {
        if let Some(agent) = agent(language, name).await {
            claim(language, &agent).await;
        }
    }
}

/// An agent, compiled once for all tests of this process: Python's takes seconds.
async fn agent(language: &str, name: &str) -> Option<Agent> {
    static AGENTS: Mutex<Option<HashMap<String, Agent>>> = Mutex::const_new(None);
    let file = match (language, name) {
        ("rust", "scenarios") => guest("test_guest"),
        ("rust", name) => guest(name),
        (language, name) => guest_in(language, name)?,
    };
    let mut agents = AGENTS.lock().await;
    let agents = agents.get_or_insert_default();
    let key = format!("{language}/{name}");
    if let Some(agent) = agents.get(&key) {
        return Some(agent.clone());
    }
    let bytes = std::fs::read(file).expect("readable");
    let agent = host().load(&bytes).await.expect("an agent");
    agents.insert(key, agent.clone());
    Some(agent)
}

async fn act(agent: &Agent, scope: &Scope, args: &[&str]) -> Answer {
    act_as(agent, SnapshotCtx::new(scope.clone()), args).await
}

async fn act_as(agent: &Agent, ctx: SnapshotCtx, args: &[&str]) -> Answer {
    let ran = agent.run(ctx, &owned(args)).await;
    match ran.answer {
        Ok(answer) => Ok(answer),
        Err(RunError::Failed(reason)) => Err(reason),
        Err(error) => {
            let said = String::from_utf8_lossy(&ran.stderr);
            panic!("{args:?} does not come to its end: {error}\n{said}")
        }
    }
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn memory() -> Scope {
    scope(Arc::new(Memory::new()))
}

fn yes(text: &str) -> Answer {
    Ok(text.into())
}

fn no(text: &str) -> Answer {
    Err(text.into())
}

/// Runs scenarios one after the other in a scope, and compares their answers.
async fn check(language: &str, agent: &Agent, scope: &Scope, script: &[(&[&str], Answer)]) {
    for (args, answer) in script {
        assert_eq!(
            &act(agent, scope, args).await,
            answer,
            "{language}: {args:?}"
        );
    }
}

/// Calls of every kind, one after the other in an empty store, and their answers.
fn contract_script() -> Vec<(&'static [&'static str], Answer)> {
    vec![
        (&["load", "memory"] as &[_], yes("none")),
        (&["stat", "memory"], yes("none")),
        (
            &["save-expect", "memory", "absent", "one"],
            yes("version 1"),
        ),
        (&["save-expect", "memory", "absent", "x"], no("conflict 1")),
        (&["save-expect", "memory", "1", "two"], yes("version 2")),
        (&["save-expect", "memory", "1", "x"], no("conflict 2")),
        (&["save-expect", "other", "3", "x"], no("conflict none")),
        (&["save-expect", "memory", "any", "3"], yes("version 3")),
        (&["load", "memory"], yes("3 3")),
        (&["load", "memory", "1"], yes("1 one")),
        (&["load", "memory", "9"], no("not-found")),
        (&["fork", "memory", "draft", "2"], yes("version 1")),
        (&["load", "draft"], yes("1 two")),
        (&["delete", "memory", "2"], no("conflict 3")),
        (&["delete", "memory"], yes("version 4")),
        (&["delete", "memory"], no("not-found")),
        (&["load", "memory"], yes("none")),
        (&["restore", "memory", "1", "2"], no("conflict 4")),
        (&["restore", "memory", "1"], yes("version 5")),
        (&["restore", "memory", "4"], no("not-found")),
        (&["stream-expect", "memory", "5", "6"], yes("version 6")),
        (&["stream-expect", "memory", "5", "x"], no("conflict 6")),
        (&["stream-beside-save", "memory"], no("conflict 7")),
        (&["names", ""], yes("draft\nmemory")),
        (&["names", "d"], yes("draft")),
        (&["echo"], yes("")),
        (&["echo", "a", "", "ü 😀"], yes("a\n\nü 😀")),
    ]
}

#[test]
fn every_language_has_all_of_the_contract() {
    let script = contract_script();
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        check(language, agent, &scope, &script).await;
        let history = act(agent, &scope, &["history", "memory"]).await;
        let kinds: Vec<String> = history
            .expect("an answer")
            .lines()
            .map(|line| line.split(' ').take(5).collect::<Vec<_>>().join(" "))
            .collect();
        let known = [
            "version 7 parent 6 saved",
            "version 6 parent 5 saved",
            "version 5 parent 4 saved",
            "version 4 parent 3 deleted",
            "version 3 parent 2 saved",
            "version 2 parent 1 saved",
            "version 1 parent none saved",
        ];
        assert_eq!(kinds, known, "{language}");
    }));
}

#[test]
fn version_information_is_the_same_in_every_language() {
    let described = "version 1 parent none saved size 5 \
        sha256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 \
        media-type text/plain; charset=utf-8 labels a=1,ü=ö name odd/../name ~ 😀";
    let name = "odd/../name ~ 😀";
    let media_type = "text/plain; charset=utf-8";
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        let saved = &["save-labels", name, "hello", media_type, "a=1", "ü=ö"];
        let plain = &["save-labels", "plain", "", "-"];
        check(
            language,
            agent,
            &scope,
            &[
                (saved, yes("version 1")),
                (&["stat", name], yes(described)),
                (plain, yes("version 1")),
                (&["load", "plain"], yes("1 ")),
            ],
        )
        .await;
        let info = scope.stat(name, None).await.expect("answers");
        assert_eq!(info.expect("saved").name, name, "{language}");
    }));
}

#[test]
fn names_that_break_a_rule_are_refused_in_words_and_others_are_only_names() {
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        for name in ["", "a\nb", &"n".repeat(201)] {
            let told = act(agent, &scope, &["save", name, "x"]).await;
            let told = told.expect_err("refused");
            assert!(told.starts_with("invalid "), "{language}: {told}");
        }
        for name in ["..", "/etc/passwd", ".hidden", "a b", "~", "ü"] {
            let saved = act(agent, &scope, &["save", name, "x"]).await;
            assert_eq!(saved, yes("version 1"), "{language}: {name}");
            assert_eq!(load(&scope, name).await.as_deref(), Some("x"));
        }
    }));
}

#[test]
fn zero_bytes_are_a_state_in_every_language() {
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        check(
            language,
            agent,
            &scope,
            &[
                (&["save", "empty", ""], yes("version 1")),
                (&["load", "empty"], yes("1 ")),
                (&["stream-mib", "streamed", "0"], yes("version 1")),
                (&["copy", "streamed", "copied"], yes("version 1")),
                (&["read-at", "copied", "0", "10"], yes("")),
                (&["copy", "nothing", "copied"], yes("none")),
            ],
        )
        .await;
        assert_eq!(load(&scope, "copied").await.as_deref(), Some(""));
    }));
}

/// Returns the byte at offset `i` of the data that the scenarios generate.
fn byte_at(i: u64) -> u8 {
    (i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8
}

#[test]
fn streams_of_64_mib_work_in_every_language() {
    const MIB: usize = 1 << 20;
    let mut expected = (0..4096)
        .map(byte_at)
        .collect::<Vec<_>>()
        .repeat(64 * MIB / 4096);
    for piece in 0..64 {
        expected[piece * MIB] = piece as u8;
    }
    // A byte that happens to be a letter.
    let at = 5 * MIB + 103;
    let letter = char::from(expected[at]).to_string();
    let at = at.to_string();
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        check(
            language,
            agent,
            &scope,
            &[
                (&["stream-mib", "big", "64"], yes("version 1")),
                (&["copy", "big", "copied"], yes("version 1")),
                (&["read-at", "copied", &at, "1"], yes(&letter)),
                (&["read-at", "copied", "67108864", "8"], yes("")),
                (&["read-at", "copied", "67108865", "8"], yes("")),
                (&["stream", "uneven", "3", "65537"], yes("version 1")),
                (&["big-save", "whole", "196611"], yes("version 1")),
            ],
        )
        .await;
        let copied = scope.load("copied", None).await.expect("loads");
        assert!(copied.expect("saved").state == expected, "{language}");
        let state = async |name| {
            let loaded = scope.load(name, None).await.expect("loads");
            loaded.expect("saved").state
        };
        let whole: Vec<u8> = (0..196_611).map(byte_at).collect();
        assert!(state("whole").await == whole, "{language}");
        assert!(state("uneven").await == whole, "{language}");
    }));
}

#[test]
fn a_writer_that_is_not_finished_leaves_nothing_in_any_language() {
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let dir = tempdir();
        let scope = scope(Arc::new(Local::new(dir.path())));
        save(&scope, "log", "before").await;
        for scenario in ["unfinished", "leaked"] {
            let answer = act(agent, &scope, &[scenario, "log"]).await;
            assert_eq!(answer, yes(scenario), "{language}");
        }
        for scenario in ["trap-mid-write", "trap"] {
            let ctx = SnapshotCtx::new(scope.clone());
            let ran = agent.run(ctx, &owned(&[scenario, "log"])).await;
            let error = ran.answer.expect_err("it traps");
            assert!(
                matches!(error, RunError::Trapped(_) | RunError::Exited),
                "{language}: {scenario}: {error}"
            );
        }
        assert_eq!(load(&scope, "log").await.as_deref(), Some("before"));
        assert_eq!(scope.versions("log", None, 9).await.expect("a page"), [1]);
        let temp = std::fs::read_dir(dir.path().join("~/tmp")).expect("readable");
        assert_eq!(temp.count(), 0, "{language}: no litter");
    }));
}

#[test]
fn a_state_above_the_inline_limit_is_too_large_at_any_size() {
    let script = [
        (&["zeros-save", "a", "16777216"][..], yes("version 1")),
        (&["zeros-save", "a", "16777217"], no("too-large 16777217")),
        (&["zeros-save", "a", "18874368"], no("too-large 18874368")),
        (&["zeros-save", "a", "104857600"], no("too-large 104857600")),
    ];
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
    }));
}

#[test]
fn texts_that_no_call_carries_are_refused_in_words() {
    let languages = ["rust", "c", "go"];
    block_on(in_each(&languages, "scenarios", async |language, agent| {
        let answer = act(agent, &memory(), &["huge-texts"]).await;
        assert_eq!(answer, yes("all refused"), "{language}");
    }));
}

#[test]
fn the_head_of_a_name_is_what_a_save_can_expect_in_every_language() {
    let script = [
        (&["head", "a"][..], yes("absent")),
        (&["save-at-head", "a", "one"], yes("version 1")),
        (&["head", "a"], yes("1")),
        (&["save-at-head", "a", "two"], yes("version 2")),
        (&["delete", "a"], yes("version 3")),
        (&["head", "a"], yes("3")),
        (&["save-at-head", "a", "four"], yes("version 4")),
    ];
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
    }));
}

/// Updates of a name, beside another run, and their answers.
fn update_script(name: &str) -> Vec<(Vec<&str>, Answer)> {
    vec![
        // Nothing is saved without a change.
        (vec!["update", name, "none"], yes("")),
        (vec!["stat", name], yes("none")),
        (vec!["update", name, "one"], yes("one")),
        // Another run saves once, in the midst of the update.
        (vec!["update", name, "two", "once"], yes("one once two")),
        (vec!["head", name], yes("3")),
        (vec!["update", name, "throw"], no("no luck")),
        (vec!["update", name, "none"], yes("one once two")),
        (vec!["head", name], yes("3")),
        // After a tombstone it begins anew.
        (vec!["delete", name], yes("version 4")),
        (vec!["update", name, "five"], yes("five")),
        // It gives up after ten attempts, and has lost nothing of the other run's.
        (vec!["update", name, "never", "x"], no("conflict 15")),
        (
            vec!["update", name, "last"],
            yes("five x x x x x x x x x x last"),
        ),
    ]
}

/// A conversation that asks its driver for calls, in an empty store.
fn calls_script() -> Vec<(Vec<&'static str>, Answer)> {
    fn call(kind: &str, id: u64, messages: &[&str]) -> Answer {
        let messages = serde_json::to_string(messages).expect("JSON");
        yes(&format!(
            r#"{{"call":"{kind}","id":"turn-{id}","messages":{messages}}}"#
        ))
    }
    let model = |id, messages: &[&str]| call("model", id, messages);
    let first = || model(1, &["hello \"ü\""]);
    let second = || model(3, &["hello \"ü\"", "hi", "more"]);
    let nothing = |words| no(&format!("invalid {words}"));
    vec![
        (
            vec!["calls", "talk"],
            nothing("no call is pending; give a message"),
        ),
        (vec!["calls", "talk", "throw"], no("no luck")),
        (vec!["head", "talk"], yes("absent")),
        (vec!["calls", "talk", "hello", "\"ü\""], first()),
        // A run that was killed before its caller heard the call is tried again.
        (vec!["calls", "talk", "hello", "\"ü\""], first()),
        (vec!["calls", "talk"], first()),
        (vec!["head", "talk"], yes("1")),
        (vec!["calls", "talk", "reply", "turn-9", "x"], first()),
        // Another message waits for the reply.
        (vec!["calls", "talk", "more"], first()),
        (vec!["calls", "talk", "more"], first()),
        (vec!["head", "talk"], yes("2")),
        (vec!["calls", "talk", "reply", "turn-1", "hi"], second()),
        (vec!["calls", "talk", "reply", "turn-1", "hi"], second()),
        (vec!["head", "talk"], yes("3")),
        // A turn of two calls.
        (
            vec!["calls", "talk", "reply", "turn-3", "again"],
            call("tool", 4, &["hello \"ü\"", "hi", "more", "again"]),
        ),
        (
            vec!["calls", "talk", "reply", "turn-4", "throw"],
            no("no luck"),
        ),
        (vec!["head", "talk"], yes("4")),
        (
            vec!["calls", "talk", "reply", "turn-4", "done"],
            yes("5 done"),
        ),
        (
            vec!["calls", "talk", "reply", "turn-4", "other"],
            yes("5 done"),
        ),
        (
            vec!["calls", "talk", "reply", "turn-1", "x"],
            nothing("no call turn-1 is pending"),
        ),
        (vec!["head", "talk"], yes("5")),
        (vec!["calls", "talk", "quick"], yes("6 quick")),
        // No driver takes what a model replied for a call.
        (vec!["calls", "replies", "one"], model(1, &["one"])),
        (
            vec!["calls", "replies", "reply", "turn-1", r#"{"call": 1}"#],
            yes(r#"answer: {"call": 1}"#),
        ),
        (
            vec!["calls", "replies", "two"],
            model(3, &["one", r#"{"call": 1}"#, "two"]),
        ),
        (
            vec!["calls", "replies", "reply", "turn-3", r#"{"a": 1}"#],
            yes(r#"{"a": 1}"#),
        ),
        // Another run is first, in the midst of a step.
        (vec!["calls", "raced", "race"], model(1, &["other"])),
        (
            vec!["calls", "raced", "reply", "turn-1", "x"],
            model(3, &["other", "x", "race"]),
        ),
        // After a tombstone it begins anew, with another id.
        (vec!["delete", "raced"], yes("version 4")),
        (vec!["calls", "raced", "quick"], yes("1 quick")),
        (vec!["calls", "raced", "one"], model(6, &["quick", "one"])),
    ]
}

#[test]
fn a_call_of_the_driver_is_neither_lost_nor_doubled_in_any_language() {
    let script = calls_script();
    let script: Vec<_> = script
        .iter()
        .map(|(args, answer)| (args.as_slice(), answer.clone()))
        .collect();
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        check(language, agent, &scope, &script).await;
        // A state of another kind is left as it is.
        for state in [
            "",
            "[]",
            "{}",
            "15:persist-calls-1,",
            "15:persist-calls-1,9:",
        ] {
            let saved = act(agent, &scope, &["save", "other", state]).await;
            let refused = act(agent, &scope, &["calls", "other", "one"]).await;
            refused.expect_err(language);
            let head = act(agent, &scope, &["head", "other"]).await;
            assert_eq!(
                saved,
                head.map(|head| format!("version {head}")),
                "{language}"
            );
        }
    }));
}

#[test]
fn an_update_loses_no_change_of_another_run_in_any_language() {
    let script = update_script("a");
    let script: Vec<_> = script
        .iter()
        .map(|(args, answer)| (args.as_slice(), answer.clone()))
        .collect();
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
    }));
}

#[test]
fn a_stack_overflow_saves_nothing_wrong_in_any_language() {
    let known = "what the agent knows";
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        save(&scope, "memory", known).await;
        // Within every stack, at a limit, and far beyond it. In C a level takes 1 KiB: 72 are what
        // fills clang's own 64 KiB and a little of the data beside it.
        for levels in ["72", "100", "500", "1000", "1100", "1000000", "20000000"] {
            let args = owned(&["save-deep", "memory", levels]);
            let ran = agent.run(SnapshotCtx::new(scope.clone()), &args).await;
            let state = load(&scope, "memory").await;
            assert_eq!(state.as_deref(), Some(known), "{language} {levels}");
            let head = scope.stat("memory", None).await.expect("answers");
            let head = head.expect("saved").version;
            match ran.answer {
                Ok(answer) => assert_eq!(answer, format!("version {head}"), "{language} {levels}"),
                Err(error) => {
                    let words = format!("{error}\n{}", String::from_utf8_lossy(&ran.stderr));
                    assert!(
                        words.contains("stack") || words.contains("recursion"),
                        "{language}: {words}"
                    );
                    assert!(levels.len() > 2, "{language}: {words}");
                }
            }
        }
        let saved = scope.versions("memory", None, 9).await.expect("a page");
        assert!(saved.len() < 7, "{language}: 20000000 levels are too many");
    }));
}

#[test]
fn a_limit_that_is_met_is_named_in_every_language() {
    let mut limits = Limits::default();
    limits.inline_size = 1000;
    limits.chunk = 100;
    limits.state_size = 5000;
    limits.page = 2;
    let told = "max-inline 1000\nmax-chunk 100\nmax-state 5000\nmax-name 200\nmax-page 2";
    let script = [
        (&["limits"][..], yes(told)),
        (&["big-save", "a", "1000"], yes("version 1")),
        (&["big-save", "a", "1001"], no("too-large 1001")),
        (&["stream", "b", "5", "1000"], yes("version 1")),
        (&["load", "b"], no("too-large 5000")),
        (&["copy", "b", "c"], yes("version 1")),
        (
            &["stream", "b", "6", "1000"],
            no("quota-exceeded state-size 5000"),
        ),
        (
            &["many-writers", "c", "9"],
            yes("opened 4 quota-exceeded open-writers 4"),
        ),
        // Pages of two.
        (&["names", ""], yes("a\nb\nc")),
    ];
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        let scope = memory();
        let ctx = || {
            SnapshotCtx::builder(scope.clone())
                .limits(limits.clone())
                .build()
        };
        for (args, answer) in &script {
            let found = act_as(agent, ctx(), args).await;
            assert_eq!(&found, answer, "{language}: {args:?}");
        }
    }));
}

#[test]
fn error_messages_are_the_same_in_every_language() {
    let words = "not found: never saved, or pruned; the history lists what there is";
    let script = [
        (&["error", "no luck: ü"][..], no("no luck: ü")),
        (&["error", ""], no("the agent gave no reason")),
        (&["load-uncaught", "nothing"], no(words)),
    ];
    block_on(in_each(&LANGUAGES, "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await
    }));
}

#[test]
fn values_outside_the_contract_are_refused_early() {
    block_on(in_each(
        &["js", "python"],
        "scenarios",
        async |language, agent| {
            let scope = memory();
            let answer = act(agent, &scope, &["wrong-arguments"]).await;
            assert_eq!(answer, yes("all refused"), "{language}");
            let names = scope.names("", None, 9).await.expect("a page");
            assert!(names.is_empty(), "{language}: {names:?}");
        },
    ));
}

#[test]
fn a_stream_that_was_closed_refuses_in_words() {
    let languages = ["go", "js", "python"];
    block_on(in_each(&languages, "scenarios", async |language, agent| {
        let answer = act(agent, &memory(), &["closed", "log"]).await;
        assert_eq!(answer, yes("all refused"), "{language}");
    }));
}

#[test]
fn agents_with_wasi_print_and_know_the_time_and_chance() {
    block_on(in_each(&WITH_WASI, "scenarios", async |language, agent| {
        let ctx = || SnapshotCtx::new(memory());
        let ran = agent.run(ctx(), &owned(&["print", "ü"])).await;
        assert_eq!(ran.answer.expect("an answer"), "printed", "{language}");
        assert_eq!(&ran.stdout[..], "out ü\n".as_bytes(), "{language}");
        assert_eq!(&ran.stderr[..], "err ü\n".as_bytes(), "{language}");

        let mut random = Vec::new();
        for _ in 0..3 {
            let answer = act_as(agent, ctx(), &["wasi"]).await.expect("an answer");
            let words: Vec<_> = answer.split(' ').collect();
            let ["clock", clock, "random", number] = words[..] else {
                panic!("{language}: {answer}")
            };
            // 2026 has begun: this was written in it.
            let clock: u64 = clock.parse().expect("seconds");
            assert!(clock > 1_767_225_600, "{language}: {answer}");
            random.push(number.to_owned());
        }
        random.dedup();
        assert!(random.len() > 1, "{language}: {random:?}");
    }));
}

#[test]
fn an_agent_built_for_0_1_0_keeps_running() {
    // Never built again: what was built against a published contract must run for ever.
    let component = include_bytes!("../../fixtures/agent-0.1.0.wasm");
    block_on(async {
        let agent = host().load(component).await.expect("an agent");
        let scope = memory();
        check(
            "kept",
            &agent,
            &scope,
            &[
                (&["save", "memory", "one"], yes("version 1")),
                (&["save-expect", "memory", "1", "two"], yes("version 2")),
                (&["load", "memory"], yes("2 two")),
                (&["load", "memory", "9"], no("not-found")),
                (&["save-expect", "memory", "1", "x"], no("conflict 2")),
                (&["delete", "memory"], yes("version 3")),
                (&["restore", "memory", "1"], yes("version 4")),
                (&["fork", "memory", "draft"], yes("version 1")),
                (&["names", ""], yes("draft\nmemory")),
                (&["stream-mib", "big", "2"], yes("version 1")),
                (&["copy", "big", "copied"], yes("version 1")),
                (&["save", "", "x"], Err(invalid_name())),
            ],
        )
        .await;
        let lines = act(&agent, &scope, &["history", "memory"]).await;
        assert_eq!(lines.expect("an answer").lines().count(), 4);
    });
}

fn invalid_name() -> String {
    "invalid a name is empty; the minimum is one byte".into()
}
