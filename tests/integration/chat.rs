//! `persist chat`: a conversation with an agent.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use persist_tests::{guest, install_script, persist, run_ok, tempdir, text};

/// Starts `persist chat`, whose input and outputs are pipes.
fn started(dir: &Path, options: &[&str], args: &[&str]) -> Child {
    persist(dir)
        .arg("chat")
        .args(options)
        .args(["--agent", "bot"])
        .arg(guest("test_guest"))
        .arg("--")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts")
}

/// Sends lines to `persist chat`, and returns its output and error output.
fn chat(dir: &Path, options: &[&str], args: &[&str], lines: &str) -> (String, String) {
    let mut child = started(dir, options, args);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(lines.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let stderr = text(&output.stderr).to_owned();
    assert!(output.status.success(), "{stderr}");
    (text(&output.stdout).to_owned(), stderr)
}

#[test]
fn each_line_is_a_run_whose_state_is_kept() {
    let dir = tempdir();
    let (out, _) = chat(
        dir.path(),
        &[],
        &["save", "memory"],
        "one\n\n//two\n/quit\nthree\n",
    );
    assert_eq!(out, "version 1\nversion 2\n");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "/two");
    // The next conversation goes on with it.
    chat(dir.path(), &[], &["save", "memory"], "three");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory@3"]), "three");
}

#[test]
fn undo_takes_back_one_message_after_the_other() {
    let dir = tempdir();
    let lines = "one\ntwo\nthree\n/undo\n/undo\n/history\n";
    let (_, said) = chat(dir.path(), &[], &["save", "memory"], lines);
    assert!(
        said.contains("undone: \"three\"\nundone: \"two\""),
        "{said}"
    );
    assert!(
        said.contains("2  \"two\"  bot/memory@2  (undone)"),
        "{said}"
    );
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "one");
    // The first save is taken back by a deletion.
    let (_, said) = chat(dir.path(), &[], &["save", "other"], "one\n/undo\n/undo\n");
    assert!(said.contains("nothing to undo"), "{said}");
    let listed = run_ok(dir.path(), &["ls", "-q"]);
    assert!(!listed.contains("bot/other"), "{listed}");
    // A message that changed nothing.
    let (_, said) = chat(dir.path(), &[], &["load"], "memory\n/undo\n");
    assert!(said.contains("nothing was changed by \"memory\""), "{said}");
}

#[test]
fn undo_leaves_what_another_process_saved() {
    let dir = tempdir();
    let dir = dir.path();
    let mut child = started(dir, &[], &["save", "memory"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdin.write_all(b"one\n").expect("written");
    let mut answer = [0; 10];
    std::io::Read::read_exact(&mut stdout, &mut answer).expect("an answer");
    let file = dir.join("other");
    fs::write(&file, "of another").expect("written");
    run_ok(dir, &["save", "bot/memory", file.to_str().expect("text")]);
    stdin.write_all(b"/undo\n").expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert!(
        said.contains("another process changed memory since"),
        "{said}"
    );
    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "of another");
}

#[test]
fn an_undo_that_failed_can_be_tried_again() {
    let dir = tempdir();
    let dir = dir.path();
    let mut child = started(dir, &[], &["save", "memory"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    stdin.write_all(b"one\ntwo\n").expect("written");
    for answer in ["version 1", "version 2"] {
        assert_eq!(stdout.next().expect("a line").expect("read"), answer);
    }
    // A disk that fails for a moment.
    let [name, aside] = ["bot/~/memory", "bot/~/aside"].map(|path| dir.join(path));
    fs::rename(&name, &aside)
        .and_then(|()| fs::write(&name, "in the way"))
        .expect("moved");
    stdin.write_all(b"/undo\n").expect("written");
    let said = stderr.next().expect("a line").expect("read");
    assert!(said.starts_with("error: "), "{said}");
    fs::remove_file(&name)
        .and_then(|()| fs::rename(&aside, &name))
        .expect("moved back");
    stdin.write_all(b"/undo\n").expect("written");
    drop(stdin);
    let said: Vec<_> = stderr.map(|line| line.expect("read")).collect();
    assert!(said.contains(&"undone: \"two\"".to_owned()), "{said:?}");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "one");
}

#[test]
fn a_fork_continues_in_a_session_of_its_own() {
    let dir = tempdir();
    let lines = "one\n/fork what-if\ntwo\n/fork what-if\n";
    let (_, said) = chat(dir.path(), &[], &["save", "memory"], lines);
    assert!(said.contains("copied 1 name to session what-if"), "{said}");
    assert!(said.contains("error: session what-if exists"), "{said}");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "one");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/what-if/memory"]), "two");
}

#[test]
fn a_failed_run_does_not_end_the_conversation() {
    let dir = tempdir();
    let (out, said) = chat(dir.path(), &[], &[], "trap\nlimits\n/nonsense\n");
    assert!(said.contains("error: the agent trapped"), "{said}");
    assert!(said.contains("unknown command /nonsense"), "{said}");
    assert!(out.contains("max-inline"), "{out}");
}

#[test]
fn a_host_that_is_killed_while_its_driver_works_loses_and_doubles_no_turn() {
    let dir = tempdir();
    let driver = dir.path().join("driver");
    // Kills the host at the first call, and replies to the second.
    let script = "#!/bin/sh\ncd \"${0%/*}\"\nread request\necho \"$request\" >> calls\n\
        [ -e killed ] && printf hi && exit\ntouch killed\nkill -9 $PPID\n";
    install_script(&driver, script);
    let store = dir.path().join("store");
    let mut killed = persist(&store)
        .args(["chat", "--agent", "bot", "--driver"])
        .arg(&driver)
        .arg(guest("test_guest"))
        .args(["--", "calls", "talk"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("persist starts");
    let mut stdin = killed.stdin.take().expect("a pipe");
    stdin.write_all(b"hello\n").expect("written");
    let status = killed.wait().expect("it ends");
    assert_eq!(status.code(), None, "it was not killed: {status}");

    let option = ["--driver", driver.to_str().expect("text")];
    let (out, _) = chat(&store, &option, &["calls", "talk"], "hello\n");
    assert_eq!(out, "2 hi\n");
    let calls = fs::read_to_string(dir.path().join("calls")).expect("readable");
    let call = r#"{"call":"model","id":"turn-1","messages":["hello"]}"#;
    assert_eq!(calls, format!("{call}\n{call}\n"));
    // The next message is a turn of its own.
    let (out, _) = chat(&store, &option, &["calls", "talk"], "hello\n");
    assert_eq!(out, "4 hi\n");
}

#[test]
fn a_driver_performs_the_calls_of_an_agent() {
    let dir = tempdir();
    let driver = dir.path().join("driver");
    let script = "#!/bin/sh\nread request\nprintf 'heard %s' \"$request\"\n";
    install_script(&driver, script);
    // `echo` answers its arguments: a call first, then the reply that it got.
    let store = dir.path().join("store");
    let call = r#"{"call":"model","id":7,"prompt":"hi"}"#;
    let option = ["--driver", driver.to_str().expect("text")];
    let (out, _) = chat(&store, &option, &["echo"], call);
    assert_eq!(out, format!("reply\n7\nheard {call}\n"));
    let failing = ["--driver", "false"];
    let (out, said) = chat(&store, &failing, &["echo"], call);
    assert_eq!(out, "");
    assert!(said.contains("the driver false failed"), "{said}");
}
