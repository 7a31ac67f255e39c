//! Tests that are specific to Python.

use super::*;

#[test]
fn python_answers_and_errors_are_reported_as_text() {
    let script = [
        (
            &["tell", "async"][..],
            no("an agent's function is not async"),
        ),
        (
            &["tell", "decorate-async"],
            no("TypeError: an agent's function is not async"),
        ),
        (&["tell", "number"], yes("42")),
        (&["tell", "surrogate"], yes("a\u{fffd}b")),
        (&["tell", "raise-surrogate"], no("a\u{fffd}b")),
        (&["tell", "raise-value"], no("ValueError: no luck")),
        (&["tell", "raise-wordless"], no("Wordless")),
        (&["tell", "raise-invalid"], no("invalid argument: no luck")),
        (&["write-items", "a"], yes("[12, 12, 2] 26")),
    ];
    block_on(in_each(
        &["python"],
        "scenarios",
        async |language, agent| {
            check(language, agent, &memory(), &script).await;
        },
    ));
}

#[test]
fn the_traceback_of_a_mistake_in_python_is_printed() {
    block_on(in_each(&["python"], "scenarios", async |_, agent| {
        let run = async |args: &[&str]| agent.run(SnapshotCtx::new(memory()), &owned(args)).await;
        let mistake = run(&["tell", "mistake"]).await;
        let said = String::from_utf8_lossy(&mistake.stderr).into_owned();
        let told = mistake.answer.expect_err("a mistake");
        assert!(told.to_string().contains("KeyError: 'memory'"), "{told}");
        assert!(said.starts_with("Traceback"), "{said}");
        assert!(said.contains("in tell\n"), "{said}");
        assert!(!said.contains("persist_guest"), "{said}");

        // An error in the agent's own words, and one of the store's.
        for args in [&["error", "no luck"][..], &["load-uncaught", "nothing"]] {
            let meant = run(args).await;
            assert!(meant.answer.is_err());
            assert_eq!(&meant.stderr[..], b"", "{args:?}");
        }
    }));
}

#[test]
fn a_dataclass_of_python_is_updated_and_another_state_is_left_as_it_is() {
    block_on(in_each(
        &["python"],
        "scenarios",
        async |language, agent| {
            let scope = memory();
            let script = [
                (&["update-dataclass", "talk", "a"][..], yes("a:0.5")),
                (&["update-dataclass", "talk", "b"], yes("a:0.5 b:1")),
            ];
            check(language, agent, &scope, &script).await;
            let state = load(&scope, "talk").await.expect("saved");
            let expected = concat!(
                r#"{"turns":[{"text":"a","speaker":null},{"text":"b","speaker":null}],"#,
                r#""seen":{"a":0.5,"b":1.0}}"#
            );
            assert_eq!(state, expected);
            for foreign in [r#"{"turns":[],"mood":1}"#, r#"{"turns":[1]}"#, "{"] {
                save(&scope, "talk", foreign).await;
                let told = act(agent, &scope, &["update-dataclass", "talk", "c"]).await;
                let told = told.expect_err("it is no Talk");
                assert!(told.starts_with("unreadable"), "{told}");
                assert_eq!(load(&scope, "talk").await.as_deref(), Some(foreign));
            }
        },
    ));
}

#[test]
fn lines_of_a_reader_of_python_are_buffered() {
    block_on(in_each(
        &["python"],
        "scenarios",
        async |language, agent| {
            let told = "20000 lines, few calls True, 19999, line 0";
            let script = [(&["read-lines", "log", "20000"][..], yes(told))];
            check(language, agent, &memory(), &script).await;
        },
    ));
}

#[test]
fn a_writer_of_python_that_lost_a_piece_commits_nothing() {
    block_on(in_each(
        &["python"],
        "scenarios",
        async |language, agent| {
            let scope = memory();
            let script = [
                (&["lost-piece", "log"][..], yes("refused and closed")),
                (&["load", "log"], yes("none")),
            ];
            check(language, agent, &scope, &script).await;
        },
    ));
}
