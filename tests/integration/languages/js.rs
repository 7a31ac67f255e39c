//! Tests that are specific to JavaScript.

use super::*;

#[test]
fn the_clock_works_in_javascript() {
    block_on(in_each(&["js"], "scenarios", async |_, agent| {
        let answer = act(agent, &memory(), &["clock"]).await.expect("an answer");
        let words: Vec<_> = answer.split(' ').collect();
        let ["clock", seconds, year, "true"] = words[..] else {
            panic!("{answer}")
        };
        // 2026 has begun: this was written in it.
        assert!(seconds.parse::<u64>().expect("seconds") > 1_767_225_600);
        assert!(year.parse::<u32>().expect("a year") >= 2026);
    }));
}

#[test]
fn javascript_answers_and_errors_are_reported_as_text() {
    let script = [
        (
            &["tell", "async"][..],
            no("an agent's function is not async"),
        ),
        (&["tell", "object"], yes(r#"{"a":[1,"ü"]}"#)),
        (&["tell", "bytes"], yes("aü\u{fffd}")),
        (&["tell", "number"], yes("42")),
        (&["tell", "nothing"], yes("")),
        (&["tell", "surrogate"], yes("a\u{fffd}b")),
        (&["tell", "throw-surrogate"], no("a\u{fffd}b")),
        (&["tell", "throw-object"], no(r#"{"code":5}"#)),
        (&["tell", "throw-nothing"], no("the agent gave no reason")),
        (&["tell", "throw-own"], no("no luck")),
    ];
    block_on(in_each(&["js"], "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
        let told = act(agent, &memory(), &["tell", "mistake"]).await;
        let told = told.expect_err("a mistake");
        let (words, place) = told.split_once('\n').expect("a stack");
        let expected = "TypeError: cannot read property 'memory' of undefined";
        assert_eq!(words, expected);
        assert!(place.contains("scenarios.js:"), "{told}");
    }));
}

#[test]
fn random_numbers_of_javascript_differ_in_every_run() {
    block_on(in_each(&["js"], "scenarios", async |_, agent| {
        let mut first = act(agent, &memory(), &["random"]).await.expect("an answer");
        let second = act(agent, &memory(), &["random"]).await.expect("an answer");
        for answer in [&first, &second] {
            let words: Vec<_> = answer.split(' ').collect();
            let ["true", _, uuid, "2"] = words[..] else {
                panic!("{answer}")
            };
            assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4', "{answer}");
        }
        first.truncate(12);
        assert!(!second.starts_with(&first), "{second}");
    }));
}

#[test]
fn the_console_of_javascript_prints_to_the_error_output() {
    block_on(in_each(&["js"], "scenarios", async |_, agent| {
        let ctx = SnapshotCtx::new(memory());
        let ran = agent.run(ctx, &owned(&["print", "ü"])).await;
        assert_eq!(ran.answer.expect("an answer"), "printed");
        let printed = String::from_utf8_lossy(&ran.stderr);
        let expected = format!(
            "out ü {{\"a\":1}} 5 undefined\nno luck\n{}\n",
            "é".repeat(5000)
        );
        assert_eq!(printed, expected);
    }));
}

#[test]
fn text_that_is_streamed_in_javascript_keeps_its_characters() {
    let script = [
        (&["text-stream", "log"][..], yes("text true lines 4 true")),
        (
            &["coding"],
            yes(
                "true \u{fffd} \u{fffd} \u{fffd}\u{fffd} \u{fffd}\u{fffd}\u{fffd} \
                 \u{fffd}\u{fffd}\u{fffd} a\u{fffd}(é",
            ),
        ),
        (
            &["promise"],
            no("a promise is not awaited in an agent: its callbacks would never be called"),
        ),
    ];
    block_on(in_each(&["js"], "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
    }));
}

#[test]
fn the_types_of_javascript_name_the_library_that_they_need() {
    // Else a project whose own target is older than `Disposable` does not compile.
    let types = include_str!("../../../guest-sdk/js/src/index.d.ts");
    let reference = r#"/// <reference lib="esnext.disposable" />"#;
    assert_eq!(types.lines().next(), Some(reference));
}

#[test]
fn the_types_of_javascript_declare_the_globals_that_the_sdk_adds() {
    let runtime = include_str!("../../../guest-sdk/js/src/runtime.js");
    let types = include_str!("../../../guest-sdk/js/src/globals.d.ts");
    let added = |line: &str| {
        Some(
            line.strip_prefix("globalThis.")?
                .split_once(' ')?
                .0
                .to_owned(),
        )
    };
    let added: Vec<String> = runtime.lines().filter_map(added).collect();
    assert_eq!(added, ["crypto", "console"]);
    for name in &added {
        assert!(types.contains(&format!("declare const {name}: ")), "{name}");
    }
    let console = runtime.lines().find(|line| line.contains("console ??="));
    let methods = console.expect("a console").split(": print").map(|part| {
        let name = part.rsplit([' ', '{']).next();
        name.unwrap_or_default().to_owned()
    });
    let methods: Vec<_> = methods
        .filter(|name| name.chars().all(char::is_alphabetic))
        .collect();
    assert!(methods.len() >= 6, "{methods:?}");
    let declared = ["getRandomValues", "randomUUID"].map(|name| format!("  {name}"));
    let quoted = methods.iter().map(|name| format!("\"{name}\""));
    for name in quoted.chain(declared) {
        assert!(types.contains(&name), "{name}");
    }
}

#[test]
fn a_run_of_javascript_that_awaits_a_promise_is_refused_in_words() {
    let awaited = || {
        no(
            "a promise was awaited in an agent: what follows the await never ran. Use functions \
            that are not async",
        )
    };
    let called = || no("a promise is not awaited in an agent: its callbacks would never be called");
    let script = [
        (&["await", "a", "function"][..], awaited()),
        (&["await", "a", "caught"], awaited()),
        (&["await", "a", "loop"], awaited()),
        (&["await", "a", "all"], called()),
        (&["await", "a", "then"], called()),
        (&["head", "a"], yes("absent")),
        // Without an await there is nothing that would not run.
        (&["await", "a", "none"], yes("saved absent")),
    ];
    block_on(in_each(&["js"], "scenarios", async |language, agent| {
        check(language, agent, &memory(), &script).await;
    }));
}
