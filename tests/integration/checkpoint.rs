//! A long computation whose host is killed over and over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use persist_tests::{guest, persist, run_ok, tempdir, text};
use serde_json::Value;

const NUMBERS: u64 = 60_000;
const EVERY: u64 = 500;

fn command(store: &Path) -> Command {
    let mut command = persist(store);
    command.arg("run").arg(guest("checkpoint")).arg("--json");
    command.args(["--", &NUMBERS.to_string(), &EVERY.to_string()]);
    command
}

/// How far a save says that the computation is; none for another event.
fn done(line: &str) -> Option<u64> {
    // A killed host may leave half a line.
    let event: Value = serde_json::from_str(line).ok()?;
    let label = event["labels"]["done"].as_str()?;
    Some(label.parse().expect("a number"))
}

/// Kills a run after a number of checkpoints. Returns the first and the last one it reported.
fn killed_after(checkpoints: usize, store: &Path) -> (u64, u64) {
    let mut run: Child = command(store)
        .stdout(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let lines = BufReader::new(run.stdout.take().expect("piped")).lines();
    let mut seen = lines.map_while(Result::ok).filter_map(|line| done(&line));
    let first = seen.next().expect("a checkpoint");
    let mut last = first;
    for _ in 1..checkpoints {
        last = seen.next().expect("another checkpoint");
    }
    run.kill().expect("killed");
    // What was said before the kill, and not read yet.
    last = seen.last().unwrap_or(last);
    run.wait().expect("it ended");
    (first, last)
}

#[test]
fn a_computation_that_is_killed_again_and_again_ends_with_the_same_result() {
    let whole = tempdir();
    let output = command(whole.path()).output().expect("persist starts");
    let answer_of = |stdout: &[u8]| {
        let line = text(stdout).lines().last().expect("an answer").to_owned();
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        answer["answer"].as_str().expect("an answer").to_owned()
    };
    let answer = answer_of(&output.stdout);
    assert!(answer.starts_with("up to 60000, the longest"), "{answer}");

    let store = tempdir();
    let mut acknowledged = 0;
    for kill in 0..10 {
        let (first, last) = killed_after(1 + kill * 5 % 7, store.path());
        // It goes on after the last checkpoint that was acknowledged, or after one that was saved
        // while its host died.
        let next = [acknowledged + EVERY, acknowledged + 2 * EVERY];
        assert!(
            next.contains(&first),
            "{acknowledged} was acknowledged, {first} came next"
        );
        acknowledged = last;
    }
    assert!(acknowledged < NUMBERS, "it was killed before its end");
    let output = command(store.path()).output().expect("persist starts");
    assert_eq!(answer_of(&output.stdout), answer);
    let history = run_ok(
        store.path(),
        &["history", "-q", "checkpoint/progress", "--limit", "1000"],
    );
    assert_eq!(history.lines().count() as u64, NUMBERS / EVERY);
}
