//! `examples/extism-host`: plugins of Extism, which are core modules in another engine.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use persist_tests::{guest, other_host, persist, run_ok, tempdir, text};

/// Runs a host with these limits, and returns the answers of its plugin.
fn answers(dir: &Path, limits: &[&str], lines: &[&str]) -> Vec<String> {
    let store = dir.join("store");
    persist(&store); // Makes the store.
    let plugin = dir.join("notebook.wasm");
    fs::copy(guest("extism_notebook"), &plugin).expect("copied");
    let mut host = Command::new(other_host("extism-host"))
        .args([&plugin, &store])
        .args(limits)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = host.stdin.take().expect("a pipe");
    input
        .write_all((lines.join("\n") + "\n").as_bytes())
        .expect("written");
    drop(input);
    let output = host.wait_with_output().expect("ends");
    assert!(output.status.success());
    text(&output.stdout).lines().map(Into::into).collect()
}

#[test]
fn a_plugin_of_extism_goes_on_with_its_state_in_another_process() {
    let dir = tempdir();
    let dir = dir.path();
    let lines = [
        "load a",
        "save a 0 one",
        "save a 0 x",
        "save a 1 two",
        "count n",
    ];
    let found = answers(dir, &[], &lines);
    assert_eq!(found[0], r#"{"version":null} "#);
    assert_eq!(found[1], r#"{"version":1}"#);
    assert!(
        found[2].starts_with(r#"{"error":"conflict""#),
        "{}",
        found[2]
    );
    assert_eq!(found[3..], [r#"{"version":2}"#, "1"]);
    let found = answers(dir, &[], &["load a", "count n", "save a -1 three"]);
    assert_eq!(found, [r#"{"version":2} two"#, "2", r#"{"version":3}"#]);
    assert_eq!(run_ok(&dir.join("store"), &["cat", "notebook/a@1"]), "one");
}

#[test]
fn limits_hold_for_plugins_of_extism() {
    let dir = tempdir();
    let dir = dir.path();
    // Each call has an instance of its own, and all of them one allowance.
    let lines = [
        "save a -1 01234",
        "save a -1 012345",
        "save b -1 x",
        "save a -1 y",
    ];
    let limits = ["state-size=5", "names-at-rest=1", "saves-per-minute=2"];
    let found = answers(dir, &limits, &lines);
    assert_eq!(found[0], r#"{"version":1}"#);
    assert_eq!(found.len(), 4);
    let reached = ["state-size", "names-at-rest", "saves-per-minute"];
    for (answer, limit) in found[1..].iter().zip(reached) {
        assert!(
            answer.starts_with(r#"{"error":"quota-exceeded""#),
            "{answer}"
        );
        assert!(answer.contains(limit), "{answer}");
    }
    let found = answers(dir, &["inline-size=4"], &["load a", "save a -1 01234"]);
    for answer in found {
        assert!(answer.starts_with(r#"{"error":"too-large""#), "{answer}");
    }
    let found = answers(dir, &[], &["load a\u{7}", "nothing x"]);
    assert!(
        found[0].starts_with(r#"{"error":"invalid""#),
        "{}",
        found[0]
    );
    assert!(found[1].starts_with("failed: "), "{}", found[1]);
}
