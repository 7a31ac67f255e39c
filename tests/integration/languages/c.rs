//! Tests that are specific to C.

use super::*;

#[test]
fn an_error_that_c_went_on_from_is_not_why_it_fails() {
    block_on(in_each(&["c"], "scenarios", async |language, agent| {
        let script = [(&["fail-later", "a"][..], no("the agent gave no reason"))];
        check(language, agent, &memory(), &script).await;
    }));
}

#[test]
fn an_expectation_of_no_kind_is_refused_in_c() {
    block_on(in_each(&["c"], "scenarios", async |language, agent| {
        let refused = yes("invalid invalid invalid invalid invalid");
        let scope = memory();
        let script = [
            (&["save", "a", "one"][..], yes("version 1")),
            (&["expect-nonsense", "a"], refused),
        ];
        check(language, agent, &scope, &script).await;
        assert_eq!(scope.versions("a", None, 9).await.expect("a page"), [1]);
    }));
}
