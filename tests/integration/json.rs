//! `--json`: what the commands print is what docs/src/json.md describes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use persist_tests::backends::json;
use persist_tests::{guest, persist, tempdir, text};
use serde_json::Value;

/// Adds the keys of an object to a set, and those of objects within. The keys of `labels` are the
/// agent's own.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                if key != "labels" {
                    keys(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// Words in backticks on the page.
fn documented() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/json.md");
    let page = fs::read_to_string(page).expect("the page");
    let words = page.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

#[test]
fn every_key_that_is_printed_is_documented() {
    let dir = tempdir();
    let store = dir.path();
    let archive = dir.path().join("archive.tar");
    let archive = archive.to_str().expect("text");
    let copy = format!("file://{}", dir.path().join("copy").display());
    let agent = guest("chat_memory");
    let agent = agent.to_str().expect("text");
    let mut found = BTreeSet::new();
    let mut located = 0;
    let commands: [&[&str]; 29] = [
        &["run", agent, "--agent", "bot", "--", "say", "hello"],
        &["save", "bot/notes", "--label", "turn=1", agent],
        &[
            "save",
            "bot/monday/notes",
            "--media-type",
            "text/plain",
            agent,
        ],
        &["fork", "bot/notes", "bot/copy"],
        &["pin", "bot/notes@1"],
        &["ls"],
        &["history", "bot/notes"],
        &["show", "bot/notes"],
        &["verify", "bot/notes"],
        &["unpin", "bot/notes@1"],
        &["rm", "bot/notes"],
        &["restore", "bot/notes@1"],
        &["restore", "bot/notes@3"],
        &["diff", "bot/notes@1", "bot/copy"],
        &["stats", "--states"],
        &["prune", "--keep-last", "1", "--dry-run"],
        &["prune", "--keep-last", "1"],
        &["policy"],
        &["policy", "set", "--keep-last", "30"],
        &["check", "--read-data"],
        &["gc", "--dry-run"],
        &["gc"],
        &["export", archive],
        &["import", archive, "--storage", &copy, "--create"],
        &["doctor"],
        &["settings"],
        &["init"],
        &["purge", "bot/copy", "--yes", "--now"],
        &["cat", "bot/nothing"],
    ];
    for args in commands {
        let output = persist(store).arg("--json").args(args).output();
        let output = output.expect("persist starts");
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        let errors: String = said.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(
            output.status.success(),
            errors.is_empty(),
            "{args:?}: {said}"
        );
        for line in json(printed).iter().chain(&json(&errors)) {
            keys(line, &mut found);
            let address = line["address"].as_str().unwrap_or_default();
            if address.contains('/') && line["of"].is_null() {
                located += 1;
                assert_eq!(line["agent"], "bot", "{line}");
                assert!(line["name"].is_string(), "{line}");
                assert!(line.get("session").is_some(), "{line}");
                assert!(line.get("version").is_some(), "{line}");
            }
            if let Some(time) = line["created_at"].as_str() {
                assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            }
        }
    }
    assert!(located > 20, "{located}");
    let documented = documented();
    let missing: Vec<_> = found.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/src/json.md: {missing:?}");
}

#[test]
fn a_failure_is_an_object_on_standard_error() {
    let dir = tempdir();
    let missing = ["show", "bot/notes", "--json"];
    let output = persist(dir.path())
        .args(["save", "bot/other", "-"])
        .output();
    assert!(output.expect("persist starts").status.success());
    let output = persist(dir.path()).args(missing).output();
    let output = output.expect("persist starts");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let error = &json(text(&output.stderr))[0]["error"];
    assert_eq!(error["code"], "not_found");
    assert_eq!(error["message"], "not found: nothing is saved as bot/notes");
    assert_eq!(error["hint"], "run `persist ls` to list names");
}
