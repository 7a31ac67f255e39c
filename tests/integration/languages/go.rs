//! Tests of things that Go's runtime makes hard.

use super::*;

/// The memory of WASI's adapter was once handed to the host as room for a result: a load of about
/// 64 KiB, the size of its stack, came back wrong.
#[test]
fn structs_times_and_maps_have_functions_of_their_own_in_go() {
    block_on(in_each(&["go"], "scenarios", async |language, agent| {
        let told = "[{a 1} {b 2}] map[a:1 b:2] application/json true {[<milk>]} unreadable: \
            version 1 of plan is not what this agent reads";
        let scope = memory();
        let answer = act(agent, &scope, &["json-info", "plan"]).await;
        let answer = answer.expect("an answer");
        assert!(answer.starts_with(told), "{language}: {answer}");
        let state = load(&scope, "plan").await;
        assert_eq!(state.as_deref(), Some(r#"{"todo":["<milk>"]}"#));
    }));
}

#[test]
fn a_state_as_large_as_what_the_adapter_keeps_loads_as_it_was_saved() {
    block_on(in_each(&["go"], "scenarios", async |language, agent| {
        let script = [
            (&["load-sizes", "a", "60", "130"][..], yes("loads 2880")),
            (&["stream", "b", "10", "1048576"], yes("version 1")),
            (&["read-all", "b"], yes("size 10485760")),
        ];
        check(language, agent, &memory(), &script).await;
    }));
}
