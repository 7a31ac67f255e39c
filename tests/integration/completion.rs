//! Completion in bash, zsh and fish: of what a store holds, by pressing Tab.

use std::path::Path;
use std::process::Command;

use persist_tests::terminal::Terminal;
use persist_tests::{has_program, persist, run_ok, tempdir};

fn store(dir: &Path) {
    let file = dir.join("state");
    for (address, state) in [
        ("bot/memory", "first-of-memory"),
        ("bot/memory", "second-of-memory"),
        ("bot/my notes", "state-of-my-notes"),
        ("bot/monday/plans", "state-of-plans"),
        ("other/it's $(touch made) *", "state-of-hostile"),
    ] {
        std::fs::write(&file, format!("{state}\n")).expect("writes");
        run_ok(dir, &["save", address, file.to_str().expect("text")]);
    }
}

/// Starts a shell in which `persist` is completed, and presses keys. The state that each `cat`
/// prints shows that the completed line was run.
fn completes(shell: &str, args: &[&str], setup: &str) {
    if !has_program(shell) {
        return;
    }
    let dir = tempdir();
    let dir = dir.path();
    store(dir);
    let command = persist(dir);
    let program = Path::new(command.get_program());
    let path = std::env::var("PATH").expect("a path");
    let path = format!(
        "{}:{path}",
        program.parent().expect("a directory").display()
    );
    let mut interactive = Command::new(shell);
    interactive
        .args(args)
        .env("PATH", path)
        .env("HOME", dir)
        .env("PERSIST_LOCAL_PATH", dir);
    let mut terminal = Terminal::start(&interactive);
    terminal.press(setup);
    terminal.press("echo re''ady\n");
    terminal.wait_for("ready");
    for (keys, shown) in [
        // A command, an agent, a name.
        ("persist ca\tbot/me\t\n", "second-of-memory"),
        // A version, by its number.
        ("persist cat bot/memory@1\t\n", "first-of-memory"),
        // A session, and the name in it.
        ("persist cat bot/mon\tpl\t\n", "state-of-plans"),
        // A name that is two words.
        ("persist cat bot/my\t\n", "state-of-my-notes"),
        // A name that a shell would run.
        ("persist cat oth\tit\t\n", "state-of-hostile"),
        // A value of an option.
        (
            "persist completions --color nev\tzsh | head -n 1\n",
            "#compdef persist",
        ),
    ] {
        terminal.press(keys);
        terminal.wait_for(shown);
    }
    assert!(!dir.join("made").exists() && !Path::new("made").exists());
    terminal.kill();
}

#[test]
fn bash_completes_what_a_store_holds() {
    let setup = "source <(persist completions bash)\n";
    completes("bash", &["--norc", "--noprofile", "-i"], setup);
}

#[test]
fn zsh_completes_what_a_store_holds() {
    let setup = "autoload -Uz compinit && compinit -u -D\nsource <(persist completions zsh)\n";
    completes("zsh", &["-f", "-i"], setup);
}

#[test]
fn fish_completes_what_a_store_holds() {
    let setup = "persist completions fish | source\n";
    completes("fish", &["--no-config", "-i"], setup);
}

/// Asks for completions as fish does.
fn asked(dir: &Path, words: &[&str]) -> Vec<String> {
    let output = persist(dir)
        .env("_PERSIST_COMPLETE", "fish")
        .args(["--", "persist"])
        .args(words)
        .output()
        .expect("persist starts");
    assert!(output.status.success());
    assert_eq!(output.stderr, b"", "{words:?}");
    let found = String::from_utf8(output.stdout).expect("text");
    let values = found.lines().filter_map(|line| line.split('\t').next());
    values.map(str::to_owned).collect()
}

#[test]
fn values_of_options_and_arguments_are_proposed() {
    let dir = tempdir();
    let dir = dir.path();
    store(dir);
    for (words, wanted) in [
        (&["ls", "bo"][..], &["bot", "bot/"][..]),
        (&["cat", "bo"], &["bot/"]),
        (
            &["cat", "bot/m"],
            &["bot/memory", "bot/my notes", "bot/monday/"],
        ),
        (&["cat", "bot/memory@"], &["bot/memory@2", "bot/memory@1"]),
        (&["check", "bot/memory@"], &[]),
        (&["cat", "bot/monday/"], &["bot/monday/plans"]),
        (&["repair", "bot/memory@2"], &["bot/memory@2"]),
        (&["run", "--agent", "oth"], &["other"]),
        (&["run", "--agent", "bot", "--session", ""], &["monday"]),
        (&["run", "--rights", "load,sa"], &["load,save"]),
        (&["run", "--limit", "memo"], &["memory=", "memories="]),
        (&["save", "--expect", "ab"], &["absent"]),
        (&["prune", "--keep-within", "30"], &["30d"]),
        (&["prune", "--keep-last", "5"], &["5", "50"]),
        (&["ls", "--color", "a"], &["auto", "always"]),
        (&["ls", "--storage", "s"], &["s3://"]),
        (&["import", "archive.tar", "bo"], &[]),
    ] {
        assert_eq!(asked(dir, words), wanted, "{words:?}");
    }
    let elsewhere = tempdir();
    let url = format!("file://{}", dir.display());
    let copied = asked(elsewhere.path(), &["copy", &url, "s3://bucket", "oth"]);
    assert_eq!(copied, ["other", "other/"]);
    let named = asked(elsewhere.path(), &["--storage", &url, "cat", "oth"]);
    assert_eq!(named, ["other/"]);
}

/// Proposes and says nothing. The test would hang if the command waited for the server.
#[test]
fn a_store_that_does_not_answer_is_not_waited_for() {
    let dir = tempdir();
    // A server that accepts connections and says nothing.
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("an address");
    let output = persist(dir.path())
        .env("AWS_ENDPOINT_URL_S3", format!("http://{address}"))
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("_PERSIST_COMPLETE", "fish")
        .args(["--", "persist", "--storage", "s3://bucket", "cat", "b"])
        .output()
        .expect("persist starts");
    assert!(output.status.success());
    assert_eq!([output.stdout, output.stderr].concat(), b"");
    server.set_nonblocking(true).expect("a setting");
    server.accept().expect("the server was asked");
    let wrong = ["--storage", "file:///no/such/store", "cat", "b"];
    assert_eq!(asked(dir.path(), &wrong), [""; 0]);
    assert_eq!(asked(dir.path(), &["cat", "bot/~zz/"]), [""; 0]);
}
