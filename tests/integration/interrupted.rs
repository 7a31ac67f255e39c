//! Leftovers of Ctrl-C, and the messages about it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use persist_tests::store::{SERVERS, TestStore};
use persist_tests::terminal::Terminal;
use persist_tests::{guest, noise, persist, run, run_ok, tempdir, text};

use crate::cloud_backends::aborted;

/// Starts a command whose input and output are pipes.
fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
}

/// Waits for its end, which must be that of a process that was interrupted, and returns what it
/// said.
fn interrupted(child: Child) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it ends");
    let said = text(&stderr).to_owned();
    assert_eq!(status.code(), Some(130), "{said}");
    (text(&stdout).to_owned(), said)
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn temporary_files(dir: &Path) -> usize {
    fs::read_dir(dir.join("~/tmp")).map_or(0, |files| files.count())
}

#[test]
fn an_interrupted_save_leaves_nothing() {
    for name in ["INT", "TERM"] {
        let dir = tempdir();
        let mut saving = start(persist(dir.path()).args(["save", "bot/memory"]));
        // Its input does not end: it waits for more.
        let mut stdin = saving.stdin.take().expect("piped");
        stdin.write_all(&noise(1, 20 << 20)).expect("it reads");
        wait_for(|| temporary_files(dir.path()) == 1);
        signal(&saving, name);
        let (_, said) = interrupted(saving);
        assert!(said.contains("nothing was saved"), "{said}");
        assert_eq!(temporary_files(dir.path()), 0);
        assert_eq!(run_ok(dir.path(), &["ls"]), "");
    }
}

#[test]
fn a_save_that_is_interrupted_aborts_its_upload() {
    for place in SERVERS.map(TestStore::on) {
        let (proxy, proxied) = place.proxied();
        let mut saving = start(proxied.command().args(["save", "bot/memory"]));
        let mut stdin = saving.stdin.take().expect("piped");
        stdin.write_all(&noise(1, 20 << 20)).expect("it reads");
        let sent = || {
            let seen = proxy.seen().into_iter();
            let mut parts = seen.filter(|seen| place.sends_part(seen));
            parts.any(|seen| seen.answer.is_some())
        };
        wait_for(sent);
        signal(&saving, "INT");
        let (_, said) = interrupted(saving);
        assert!(said.contains("nothing was saved"), "{said}");
        assert_eq!(aborted(&place, &proxy), 1, "{place:?}");
    }
}

#[test]
fn an_interrupted_agent_keeps_its_acknowledged_saves() {
    let dir = tempdir();
    let agent = guest("test_guest");
    let mut command = persist(dir.path());
    command
        .args(["run", "--json", "--agent", "bot"])
        .arg(&agent);
    command.args(["--", "save-and-loop", "memory", "kept"]);
    let mut running = start(&mut command);
    let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    let saved = lines.next().expect("a line").expect("text");
    assert!(saved.contains("bot/memory@1"), "{saved}");
    signal(&running, "INT");
    let (_, said) = interrupted(running);
    assert!(said.contains("the agent was stopped"), "{said}");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "kept");
}

#[test]
fn an_interrupted_copy_reports_progress_and_can_be_resumed() {
    let dir = tempdir();
    let other = tempdir();
    for n in 0..200 {
        let state = dir.path().join("state");
        fs::write(&state, format!("state {n}")).expect("writes");
        let state = state.to_str().expect("text");
        run_ok(
            &dir.path().join("store"),
            &["save", &format!("bot/{n}"), state],
        );
    }
    let from = format!("file://{}", dir.path().join("store").display());
    let to = format!("file://{}", other.path().display());
    let mut copying = start(persist(dir.path()).args(["copy", "--create", &from, &to]));
    let mut stdout = BufReader::new(copying.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    signal(&copying, "INT");
    // What it prints beside must not stop it.
    let rest = std::thread::spawn(move || stdout.lines().count());
    let (_, said) = interrupted(copying);
    assert!(said.contains("run the command again to continue"), "{said}");
    assert!(
        rest.join().expect("no panic") < 199,
        "it was not interrupted"
    );
    assert_eq!(temporary_files(other.path()), 0);

    let again = run(dir.path(), &["copy", "--create", &from, &to]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(run_ok(other.path(), &["ls", "-q"]).lines().count(), 200);
}

#[test]
fn a_command_that_leaves_nothing_ends_at_once() {
    let dir = tempdir();
    let state = dir.path().join("state");
    fs::write(&state, noise(1, 4 << 20)).expect("writes");
    run_ok(
        dir.path(),
        &["save", "bot/memory", state.to_str().expect("text")],
    );
    // Its output has no reader.
    let mut printing = start(persist(dir.path()).args(["cat", "bot/memory"]));
    let mut stdout = printing.stdout.take().expect("piped");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut stdout, &mut first).expect("a byte");
    // Not INT: a shell that runs the tests in the background has it ignored.
    signal(&printing, "TERM");
    let status = printing.wait().expect("it ends");
    assert_eq!(status.code(), None, "{status}");
}

#[test]
fn a_question_that_is_interrupted_ends_at_once_and_changes_nothing() {
    let dir = tempdir();
    let state = dir.path().join("state");
    fs::write(&state, "one").expect("writes");
    run_ok(
        dir.path(),
        &["save", "bot/memory", state.to_str().expect("text")],
    );
    for (keys, code) in [
        ("\u{3}", 130),
        ("\u{4}", 2),
        ("no\n", 2),
        ("bot/memory\n", 10),
    ] {
        let mut purge = persist(dir.path());
        purge.args(["purge", "bot/memory"]);
        let mut terminal = Terminal::start(&purge);
        terminal.wait_for("Type the name to continue: ");
        if code != 10 {
            let before = run_ok(dir.path(), &["history", "bot/memory", "--json"]);
            assert_eq!(before.lines().count(), 1);
        }
        terminal.press(keys);
        let (ended, shown) = terminal.end();
        assert_eq!(ended, Some(code), "{keys:?}: {shown}");
    }
}
