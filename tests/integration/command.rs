//! The `persist` command, as a person or a script sees it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use persist_tests::{
    guest, noise, persist, persist_without_store, run, run_fails, run_ok, tempdir, text,
};
use serde_json::Value;

fn json(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn save(dir: &Path, address: &str, state: &str) {
    let file = dir.join("input");
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&file, state))
        .expect("writes");
    run_ok(dir, &["save", address, file.to_str().expect("text")]);
}

#[test]
fn a_state_can_be_listed_shown_printed_deleted_and_restored() {
    let dir = tempdir();
    let dir = dir.path();
    assert_eq!(run_ok(dir, &["ls"]), "");
    save(dir, "bot/memory", "one");
    save(dir, "bot/memory", "two");
    save(dir, "bot/s1/memory", "session");
    let listed: Vec<_> = json(&run_ok(dir, &["ls", "--json"]));
    let addresses: Vec<_> = listed
        .iter()
        .map(|line| line["address"].as_str().expect("text"))
        .collect();
    assert_eq!(addresses, ["bot/s1/memory@1", "bot/memory@2"]);

    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "two");
    assert_eq!(run_ok(dir, &["cat", "bot/memory@1"]), "one");
    assert_eq!(run_ok(dir, &["cat", "bot/s1/memory"]), "session");
    let shown = run_ok(dir, &["show", "bot/memory"]);
    assert!(
        shown.contains("version     2") && shown.contains("parent      1"),
        "{shown}"
    );
    assert_eq!(
        run_ok(dir, &["history", "-q", "bot/memory"])
            .lines()
            .count(),
        2
    );
    assert_eq!(
        run_ok(dir, &["history", "-q", "bot/memory", "-n", "1"])
            .lines()
            .count(),
        1
    );
    assert_eq!(
        run_ok(dir, &["history", "-q", "bot/memory@2"])
            .lines()
            .count(),
        1
    );

    let removed = run(dir, &["rm", "bot/memory"]);
    assert_eq!(text(&removed.stdout), "deleted bot/memory@3\n");
    assert_eq!(
        text(&removed.stderr),
        "to undo: persist restore bot/memory@2\n"
    );
    let gone = run_fails(dir, &["cat", "bot/memory"], 3);
    assert!(gone.contains("persist restore bot/memory@2"), "{gone}");
    assert_eq!(run_ok(dir, &["ls", "-q"]).lines().count(), 1);
    assert_eq!(run_ok(dir, &["ls", "-q", "--all"]).lines().count(), 2);
    assert_eq!(run_ok(dir, &["ls", "-q", "bot/s1"]).lines().count(), 1);
    run_ok(dir, &["restore", "bot/memory@2"]);
    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "two");
}

#[test]
fn each_kind_of_failure_has_its_exit_code_and_a_message_that_helps() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", "one");
    for (args, code, hint) in [
        (
            &["show", "bot/nothing"][..],
            3,
            "nothing matches bot/nothing in the directory",
        ),
        (&["cat", "bot/memory@7"], 3, "no version 7"),
        (&["history", "nobody/memory"], 3, "nothing matches nobody"),
        (&["rm", "bot/nothing"], 3, "nothing matches bot/nothing"),
        (
            &["rm", "bot/memory", "--expect", "5"],
            4,
            "the newest version is 1",
        ),
        (
            &["save", "bot/memory@1", "-"],
            2,
            "the address has a version, @1",
        ),
        (&["save", "bot/memory", "/no/such/file"], 1, "/no/such/file"),
        (&["restore", "bot/memory"], 2, "bot/memory@1"),
        (&["history", "bot/memory@1"], 3, "no versions below 1"),
        (&["rm", "bot/memory@1"], 2, "the address has a version, @1"),
        (
            &["save", "bot/memory", "--label", "persist.x=1"],
            2,
            "persist.x",
        ),
        (
            &["--storage", "file:///proc/none", "save", "--create", "a/b"],
            2,
            "/proc/none",
        ),
        (&["cat", "memory"], 2, "agent/name"),
        (&["show", "bot/"], 2, "empty"),
        (&["--storage", "ftp://x", "ls"], 2, "file:///absolute/path"),
        (&["--storage", "/tmp", "ls"], 2, "file:///tmp"),
        (&["run", "/no/such/agent.wasm"], 1, "/no/such/agent.wasm"),
    ] {
        let said = run_fails(dir, args, code);
        assert!(said.contains(hint), "{args:?}: {said}");
    }
    let file = dir.join("bot/~/memory/9999999998-0000000001.gz");
    let mut bytes = fs::read(&file).expect("is there");
    bytes[15] ^= 1;
    fs::write(&file, bytes).expect("writes");
    let said = run_fails(dir, &["cat", "bot/memory"], 6);
    assert!(
        said.contains("bot/~/memory/9999999998-0000000001.gz"),
        "{said}"
    );
    run_fails(dir, &["history", "no/such/name"], 3);
}

#[test]
fn a_damaged_version_does_not_hide_the_others() {
    let dir = tempdir();
    let dir = dir.path();
    for state in ["one", "two", "three"] {
        save(dir, "bot/memory", state);
    }
    save(dir, "bot/other", "fine");
    fs::write(dir.join("bot/~/memory/9999999996-0000000003.gz"), "").expect("writes");
    let history = run(dir, &["history", "-q", "bot/memory"]);
    assert_eq!(history.status.code(), Some(6));
    assert_eq!(text(&history.stdout).lines().count(), 2);
    assert!(text(&history.stderr).contains("bot/memory@3"));
    let listed = run(dir, &["ls"]);
    assert_eq!(listed.status.code(), Some(6));
    assert!(text(&listed.stdout).contains("bot/other@1"));
}

#[test]
fn strange_names_can_be_typed_as_they_are_printed() {
    let dir = tempdir();
    let dir = dir.path();
    for address in [
        "Bot A/Notes~2f2026",
        "bot/me~40home",
        "bot/~2e.",
        "ä/é",
        "bot/~7e",
    ] {
        save(dir, address, address);
        assert_eq!(run_ok(dir, &["cat", address]), address);
    }
    for line in json(&run_ok(dir, &["ls", "--json"])) {
        let address = line["address"].as_str().expect("text");
        assert!(!run_ok(dir, &["cat", address]).is_empty());
    }
}

#[test]
fn an_empty_list_says_where_it_looked() {
    let dir = tempdir();
    save(dir.path(), "bot/memory", "one");
    let said = |args: &[&str]| {
        let output = run(dir.path(), args);
        assert!(output.status.code() == Some(3) && output.stdout.is_empty());
        text(&output.stderr).to_owned()
    };
    let here = dir.path().to_str().expect("text").to_owned();
    assert!(said(&["ls", "nobody"]).contains(&here));
    assert!(said(&["ls", "bot/typo"]).contains("nothing matches bot/typo"));
    assert!(said(&["ls", "bot/memory/"]).contains("bot/memory is a name"));
}

#[test]
fn sessions_are_listed_whatever_their_names() {
    let dir = tempdir();
    for address in [
        "bot/memory",
        "bot/Upper/memory",
        "bot/lower/memory",
        "bot/~7e/memory",
    ] {
        save(dir.path(), address, "x");
    }
    assert_eq!(run_ok(dir.path(), &["ls", "-q"]).lines().count(), 4);
    assert_eq!(run_ok(dir.path(), &["ls", "-q", "bot"]).lines().count(), 4);
}

#[test]
fn a_closed_standard_error_is_no_failure() {
    let dir = tempdir();
    let dir = dir.path();
    for state in ["one", "two"] {
        save(dir, "bot/memory", state);
    }
    let status = |command: &mut Command| command.status().expect("persist starts").code();
    let full = || File::create("/dev/full").expect("is there");
    assert_eq!(
        status(persist(dir).args(["rm", "bot/memory"]).stderr(full())),
        Some(0)
    );
    assert_eq!(
        status(persist(dir).args(["cat", "bot/none"]).stderr(full())),
        Some(3)
    );
    let saved = persist(dir)
        .args(["restore", "bot/memory@1"])
        .stdout(full())
        .output()
        .expect("starts");
    assert_eq!(saved.status.code(), Some(1));
    let said = text(&saved.stderr);
    assert!(said.contains("bot/memory@4 is restored"), "{said}");
}

#[test]
fn an_output_that_is_full_is_not_taken_for_the_storage() {
    let dir = tempdir();
    let dir = dir.path();
    let agent = guest("chat_memory");
    let agent = agent.to_str().expect("text");
    save(dir, "bot/memory", "one");
    for args in [
        &["cat", "bot/memory"][..],
        &["ls"],
        &["history", "bot/memory"],
        &["show", "bot/memory", "--json"],
        &["stats"],
        &["export", "-"],
        &["settings"],
        &["completions", "bash"],
        &["man"],
        &["run", agent, "--", "say", "hi"],
    ] {
        let full = File::create("/dev/full").expect("is there");
        let output = persist(dir).args(args).stdout(full).output();
        let output = output.expect("persist starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{args:?}: {said}");
        assert!(said.contains("standard output"), "{args:?}: {said}");
    }
}

#[test]
fn output_may_end_early() {
    let dir = tempdir();
    save(dir.path(), "bot/big", &"line\n".repeat(1_000_000));
    let command = persist(dir.path());
    let pipe = format!(
        "{} cat bot/big | head -n 1; exit ${{PIPESTATUS[0]}}",
        command.get_program().display()
    );
    let output = Command::new("bash")
        .args(["-c", &pipe])
        .env("PERSIST_LOCAL_PATH", dir.path())
        .output()
        .expect("bash starts");
    assert_eq!(text(&output.stdout), "line\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn nothing_needs_to_be_configured() {
    let home = tempdir();
    let mut command = persist_without_store(home.path());
    command
        .env_remove("PERSIST_LOCAL_PATH")
        .env("HOME", home.path());
    let file = home.path().join("input");
    fs::write(&file, "x").expect("writes");
    let status = command
        .args(["save", "bot/memory"])
        .arg(&file)
        .status()
        .expect("persist starts");
    assert!(status.success());
    let stored = home
        .path()
        .join(".local/share/persist/bot/~/memory/9999999998-0000000001.gz");
    assert!(stored.exists());
}

#[test]
fn the_environment_chooses_the_storage() {
    let dir = tempdir();
    let other = tempdir();
    let url = format!("file://{}", other.path().display());
    save(other.path(), "bot/memory", "there");
    let cat = |storage: &str| {
        let mut command = persist(dir.path());
        command
            .env("PERSIST_STORAGE", storage)
            .env("AWS_S3_BUCKET", "never")
            .env("GCS_BUCKET", "chosen");
        command
            .args(["cat", "bot/memory"])
            .output()
            .expect("persist starts")
    };
    assert_eq!(text(&cat(&url).stdout), "there");
    assert_eq!(cat("local").status.code(), Some(3));
    let refused = cat("s4://bucket");
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("PERSIST_STORAGE"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn an_agent_runs_from_the_command_line_and_remembers() {
    let dir = tempdir();
    let dir = dir.path();
    let agent = guest("chat_memory");
    let agent = agent.to_str().expect("text");
    run_ok(dir, &["run", agent, "--", "say", "I live in Oslo"]);
    run_ok(dir, &["run", agent, "--", "say", "and I like rain"]);
    let recalled = run_ok(dir, &["run", agent, "--", "recall", "Oslo"]);
    assert!(recalled.contains("I live in Oslo"), "{recalled}");
    assert!(run_ok(dir, &["ls", "-q"]).starts_with("chat_memory/memory@2"));
    let said = run(dir, &["run", agent, "-v", "--", "say", "hi"]).stderr;
    assert!(
        text(&said).starts_with("saved chat_memory/memory@3 ("),
        "{}",
        text(&said)
    );

    let session = [
        "run",
        agent,
        "--agent",
        "me",
        "--session",
        "s",
        "--json",
        "--",
        "say",
        "hi",
    ];
    let events = json(&run_ok(dir, &session));
    assert_eq!(events[0]["event"], "saved");
    assert_eq!(events[0]["address"], "me/s/memory@1");
    assert_eq!(events[0]["version"], 1);
    assert_eq!(events[0]["session"], "s");
    assert!(events[0]["labels"]["turn"].is_string());
    assert_eq!(events[1]["event"], "answer");
    assert!(run_ok(dir, &["cat", "me/s/memory"]).contains("hi"));

    let said = run_fails(dir, &["run", agent, "--", "dance"], 9);
    assert!(said.contains("the agent answered with an error"), "{said}");
    let failed = run(dir, &["run", agent, "--json", "--", "dance"]);
    assert_eq!(failed.status.code(), Some(9));
    assert_eq!(json(text(&failed.stdout))[0]["event"], "error");
    let not_an_agent = dir.join("chat.txt");
    fs::write(&not_an_agent, "hello").expect("writes");
    let said = run_fails(dir, &["run", not_an_agent.to_str().expect("text")], 1);
    assert!(said.contains("not an agent"), "{said}");
}

#[test]
fn a_pipe_that_loses_a_race_is_told_that_it_cannot_be_read_again() {
    let dir = tempdir();
    let state = noise(3, 10 << 20);
    let mut save = persist(dir.path());
    save.args(["save", "bot/memory", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut save = save.spawn().expect("persist starts");
    let mut input = save.stdin.take().expect("piped");
    // All but what the pipe holds was read, so it is on its way to the version after this one.
    input.write_all(&state).expect("is read");
    fs::write(dir.path().join("other"), "other").expect("written");
    let other = dir.path().join("other");
    run_ok(
        dir.path(),
        &["save", "bot/memory", other.to_str().expect("text")],
    );
    drop(input);
    let output = save.wait_with_output().expect("ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("another save of this name came first"),
        "{said}"
    );
    assert!(said.contains("run the command again"), "{said}");
}
