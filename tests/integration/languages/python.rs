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
