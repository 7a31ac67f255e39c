//! The agents that remember a conversation: one memory for all of them.

use super::*;

const CONVERSATION: [&str; 10] = [
    "Ann: Is the harbour open?",
    "Bo: From nine: not before.",
    "They wait.",
    "Ann: \"Quotes\", \\ and a tab\t.",
    "Bo: Grüße, 世界, 😀!",
    "",
    "Ann: : odd",
    "Ann: Then to the harbour!",
    "Bo: {\"turns\":[]}",
    "They leave.",
];

#[test]
fn a_conversation_is_handed_from_language_to_language() {
    block_on(async {
        let scope = memory();
        let mut known = 0;
        for language in ["python", "rust", "go", "c", "js"] {
            let Some(agent) = agent(language, "chat_memory").await else {
                continue;
            };
            let mut args = vec!["follow"];
            args.extend(&CONVERSATION[..known + 2]);
            let answer = act(&agent, &scope, &args).await;
            let expected = format!("remembered {known} turns, added 2");
            assert_eq!(answer, yes(&expected), "{language}");
            known += 2;
        }
        let turns: Vec<_> = CONVERSATION[..known]
            .iter()
            .map(|line| match line.split_once(": ") {
                Some((speaker, text)) => serde_json::json!({ "speaker": speaker, "text": text }),
                None => serde_json::json!({ "text": line }),
            })
            .collect();
        let state = load(&scope, "memory").await.expect("saved");
        let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
        assert_eq!(state, serde_json::json!({ "turns": turns }));
        let versions = scope.versions("memory", None, 100).await.expect("a page");
        assert_eq!(versions.len(), known, "a version for each turn");
    });
}

#[test]
fn the_agents_that_remember_a_conversation_answer_alike_in_every_language() {
    let another = "this is another conversation: in turn 2 I remember \"We wait\", it says \"No\"";
    let unreadable = "unreadable: version 7 of memory is not what this agent reads";
    block_on(in_each(
        &LANGUAGES,
        "chat_memory",
        async |language, agent| {
            let scope = memory();
            check(
                language,
                agent,
                &scope,
                &[
                    (&["recall"], yes("I remember 0 turns.")),
                    (
                        &["say", "The harbour is closed"],
                        yes("turn 1: that is new to me"),
                    ),
                    (
                        &["say", "We wait", "Harbour or station?"],
                        yes("turn 2: that is new to me\n\
                             turn 3: you spoke of \"harbour\" before, in turn 1"),
                    ),
                    (
                        &["recall", "HARBOUR"],
                        yes("I remember 3 turns.\nturn 1: The harbour is closed\n\
                             turn 3: Harbour or station?"),
                    ),
                    (&["follow", "The harbour is closed", "No"], no(another)),
                    (
                        &["say", "Nach Köln—Hüte, КОРАБЛИ", "HÜTE", "корабли!"],
                        yes("turn 4: that is new to me\n\
                             turn 5: you spoke of \"hüte\" before, in turn 4\n\
                             turn 6: you spoke of \"корабли\" before, in turn 4"),
                    ),
                    (
                        &["recall", "KÖLN"],
                        yes("I remember 6 turns.\nturn 4: Nach Köln—Hüte, КОРАБЛИ"),
                    ),
                ],
            )
            .await;
            let head = scope.stat("memory", None).await.expect("answers");
            let head = head.expect("saved");
            assert_eq!(head.labels, [("turn".into(), "6".into())], "{language}");
            let all = act(agent, &scope, &["recall", ""]).await;
            let all = all.expect("an answer");
            assert_eq!(all.lines().count(), 7, "{language}: {all}");
            assert_eq!(head.media_type.as_deref(), Some("application/json"));

            // From a later agent, which knows more.
            save(&scope, "memory", r#"{"turns":[],"mood":"good"}"#).await;
            let told = act(agent, &scope, &["say", "x"]).await;
            let told = told.expect_err("refused");
            assert!(told.starts_with(unreadable), "{language}: {told}");
            let usage = act(agent, &scope, &["forget"]).await.expect_err("refused");
            assert!(usage.starts_with("usage: say TEXT…"), "{language}: {usage}");
        },
    ));
}
