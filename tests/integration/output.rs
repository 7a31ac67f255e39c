//! Output for people: tables, totals, quiet runs, colours and times.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::leases::lease_and_die;
use persist_tests::store::json;
use persist_tests::terminal::Terminal;
use persist_tests::{persist, persist_without_store, run, run_ok, tempdir, text, version_files};
use serde_json::Value;

const LONG: &str = "support/chat-20261031-3-with-a-long-session-id/conversation-history";

fn save(dir: &Path, address: &str, state: &[u8], more: &[&str]) {
    let input = tempdir();
    let file = input.path().join("input");
    fs::write(&file, state).expect("writes");
    let file = file.to_str().expect("text");
    run_ok(dir, &[&["save", address, file], more].concat());
}

/// Runs `persist` on a terminal of so many columns. Returns what it shows.
fn on_terminal(dir: &Path, columns: usize, words: &str, env: &[(&str, &str)]) -> String {
    let (code, shown) = ends_on_terminal(dir, columns, words, env);
    assert_eq!(code, Some(0), "{shown}");
    shown
}

/// Runs `persist` on a terminal of so many columns. Returns its exit code and what it shows.
fn ends_on_terminal(
    dir: &Path,
    columns: usize,
    words: &str,
    env: &[(&str, &str)],
) -> (Option<i32>, String) {
    let command = persist(dir);
    let program = command.get_program().to_str().expect("text");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("stty cols {columns}; exec {program} {words}"),
    ]);
    for (name, value) in command.get_envs() {
        shell.env(name, value.expect("no variable is removed"));
    }
    shell.envs(env.iter().copied());
    let (code, shown) = Terminal::start(&shell).end();
    (code, shown.replace("\r\n", "\n"))
}

fn without_colours(shown: &str) -> String {
    let mut plain = String::new();
    let mut rest = shown;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').expect("the end of a colour").1;
    }
    plain + rest
}

#[test]
fn addresses_are_shortened_on_a_narrow_terminal_only() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, LONG, b"one", &["--label", "turn=1"]);
    save(
        dir,
        "bot/日本語のとても長い名前のメモリとその他の記憶",
        b"two",
        &[],
    );
    let piped = run_ok(dir, &["ls"]);
    assert!(piped.contains(&format!("{LONG}@1")), "{piped}");
    let wide = on_terminal(dir, 200, "ls --color never", &[]);
    assert_eq!(wide, piped);
    let narrow = on_terminal(dir, 80, "ls --color never", &[]);
    for line in narrow.lines() {
        assert!(unicode_width::UnicodeWidthStr::width(line) <= 80, "{line}");
    }
    let row = narrow.lines().find(|line| line.starts_with("support"));
    let address = row.and_then(|row| row.split_whitespace().next());
    let address = address.expect("the row");
    assert!(address.contains('…') && address.ends_with("@1"), "{narrow}");
    for line in piped.lines() {
        assert_eq!(line.trim_end(), line);
    }
}

#[test]
fn findings_of_a_check_are_a_table_on_a_terminal_and_lose_nothing() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, LONG, b"one", &[]);
    save(dir, "bot/memory", b"two", &[]);
    let files = version_files(dir);
    let long = files
        .iter()
        .find(|file| file.to_string_lossy().contains("conversation"));
    let long = long.expect("the version");
    let moved = dir.join("support/moved");
    fs::rename(
        long.parent().and_then(Path::parent).expect("a session"),
        &moved,
    )
    .expect("moves");
    fs::write(dir.join("bot/~/memory/notes.txt"), "").expect("writes");
    let piped = run(dir, &["check"]);
    let piped = text(&piped.stdout).to_owned();
    let key = piped.split(['(', ')']).nth(1).expect("a key");
    for columns in [80, 200] {
        let (code, shown) = ends_on_terminal(dir, columns, "check --color never", &[]);
        assert_eq!(code, Some(6), "{shown}");
        let header = shown.lines().next().expect("a header");
        for title in ["SEVERITY", "KIND", "ADDRESS", "FINDING"] {
            assert!(header.contains(title), "{shown}");
        }
        for line in shown.lines().filter(|line| !line.starts_with("checked ")) {
            let width = unicode_width::UnicodeWidthStr::width(line);
            assert!(width <= columns, "{columns}: {shown}");
        }
        let start = header.find("FINDING").expect("the title");
        let finding = |line: &str| line.chars().skip(start).collect::<String>();
        let findings: String = shown.lines().map(finding).collect();
        assert!(findings.contains(key), "{columns}: {shown}");
        assert!(
            shown.contains("misplaced") && shown.contains("foreign"),
            "{shown}"
        );
    }
}

#[test]
fn numbers_of_a_table_end_below_each_other() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, LONG, b"one", &[]);
    save(dir, "bot/big", &vec![b'x'; 300_000], &[]);
    let listed = run_ok(dir, &["ls"]);
    let lines: Vec<_> = listed.lines().collect();
    let ends = |word: &str, line: &str| line.find(word).map(|at| at + word.len());
    let title = ends("SIZE", lines[0]);
    assert!(title.is_some());
    assert_eq!(ends("293.0 KiB", lines[1]), title, "{listed}");
    assert_eq!(ends("  3 B", lines[2]), title, "{listed}");
}

#[test]
fn people_see_local_times_and_programs_see_utc() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", b"one", &[]);
    let listed = |json: bool| {
        let mut ls = persist(dir);
        ls.env("TZ", "XYZ-5:30").arg("ls");
        if json {
            ls.arg("--json");
        }
        text(&ls.output().expect("persist starts").stdout).to_owned()
    };
    let local = listed(false);
    assert!(local.contains("+05:30"), "{local}");
    let utc = json(&listed(true)).remove(0);
    let utc = utc["created_at"].as_str().expect("a time").to_owned();
    assert!(utc.ends_with('Z'), "{utc}");
    let minute = |time: &str| {
        let number = |at: usize| time[at..at + 2].parse::<u32>().expect("a number");
        number(11) * 60 + number(14)
    };
    let local = local
        .split_whitespace()
        .find(|word| word.contains("+05:30"));
    let ahead = minute(local.expect("a time")) + 24 * 60 - minute(&utc);
    assert_eq!(ahead % (24 * 60), 5 * 60 + 30);
}

#[test]
fn each_table_names_the_time_that_it_shows() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", b"one", &[]);
    // A file that was copied is as young as the copy; its version is not.
    let before = json(&run_ok(dir, &["ls", "--json"])).remove(0);
    let file = &version_files(dir)[0];
    let bytes = fs::read(file).expect("reads");
    fs::remove_file(file)
        .and_then(|()| fs::write(file, bytes))
        .expect("copied");
    let history = run_ok(dir, &["history", "bot/memory"]);
    let plan = run_ok(dir, &["prune", "--dry-run"]);
    assert!(history.contains("CREATED") && !history.contains("STORED"));
    assert!(plan.contains("STORED") && !plan.contains("CREATED"));
    let after = json(&run_ok(dir, &["history", "bot/memory", "--json"])).remove(0);
    assert_eq!(before["created_at"], after["created_at"]);
    let planned = json(&run_ok(dir, &["prune", "--dry-run", "--json"])).remove(0);
    assert!(planned["stored_at"].as_str() > before["created_at"].as_str());
    assert!(planned.get("created_at").is_none());
}

/// The commands whose result is what they print. All others print nothing with `-q`.
const SHOW: [&str; 12] = [
    "cat",
    "completions",
    "diff",
    "history",
    "leases",
    "ls",
    "man",
    "policy",
    "settings",
    "show",
    "stats",
    "token",
];

#[test]
fn quiet_commands_print_nothing_on_success() {
    let dir = tempdir();
    let store = &dir.path().join("store");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let url = |name: &str| format!("file://{}", path(name));
    let [archive, fresh] = ["archive.tar", "fresh"].map(path);
    let [one, two, three] = ["store", "two", "three"].map(url);
    let agent = persist_tests::guest("chat_memory");
    let agent = agent.to_str().expect("text");
    let mut tested = BTreeSet::new();
    let mut quiet = |args: &[&str]| {
        let mut command = if args[0] == "init" {
            persist_without_store(store)
        } else {
            persist(store)
        };
        let output = command.args(args).arg("-q").output();
        let output = output.expect("persist starts");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert_eq!(text(&output.stderr), "", "{args:?}");
        let is_set = [Some(&"set"), Some(&"break")].contains(&args.get(1));
        let is_result = (SHOW.contains(&args[0]) && !is_set) || args.contains(&"--dry-run");
        let is_empty = output.stdout.is_empty();
        // An agent's answer is its own.
        assert!(
            args[0] == "run" || is_empty != is_result,
            "{args:?}: {}",
            text(&output.stdout)
        );
        tested.insert(args[0].to_owned());
    };
    quiet(&["init"]);
    quiet(&["new", "--lang", "js", &fresh]);
    quiet(&["upgrade-sdk", &fresh]);
    for _ in 0..3 {
        quiet(&["save", "bot/notes", agent]);
    }
    quiet(&["fork", "bot/notes", "bot/copy"]);
    quiet(&["ls"]);
    quiet(&["history", "bot/notes"]);
    quiet(&["show", "bot/notes"]);
    quiet(&["cat", "bot/notes"]);
    quiet(&["diff", "bot/notes", "bot/copy"]);
    quiet(&["stats"]);
    quiet(&["pin", "bot/notes@1"]);
    quiet(&["unpin", "bot/notes@1"]);
    quiet(&["rm", "bot/notes"]);
    quiet(&["restore", "bot/notes@1"]);
    quiet(&["verify", "bot/notes"]);
    quiet(&["check", "--read-data"]);
    quiet(&["copy", &one, &two, "--create"]);
    quiet(&["copy", &one, &two]);
    quiet(&["export", &archive]);
    quiet(&["import", &archive, "--storage", &three, "--create"]);
    quiet(&["prune", "--dry-run"]);
    quiet(&["prune"]);
    quiet(&["policy"]);
    quiet(&["policy", "set", "--keep-last", "2", "--keep-within", "0s"]);
    quiet(&["prune", "--keep-last", "1"]);
    quiet(&["repair", "bot", "--adopt"]);
    quiet(&["gc"]);
    lease_and_die(store, "bot", None);
    quiet(&["leases"]);
    quiet(&["leases", "break", "bot"]);
    quiet(&["doctor", "--read-only"]);
    quiet(&["settings"]);
    quiet(&["mv", "bot/copy", "bot/moved", "--dry-run"]);
    quiet(&["mv", "bot/copy", "bot/moved"]);
    quiet(&["purge", "bot", "--dry-run"]);
    quiet(&["purge", "bot/moved", "--yes", "--now"]);
    quiet(&["run", agent, "--agent", "bot", "--", "say", "hello"]);
    quiet(&["chat", agent, "--agent", "bot"]);
    let manifest = path("agents.toml");
    let entry = format!("[[agents]]\nname = \"bot\"\ncomponent = \"{agent}\"\n");
    fs::write(&manifest, entry).expect("written");
    quiet(&["serve", "--manifest", &manifest, "--check"]);
    quiet(&["token", "new"]);
    quiet(&["completions", "bash"]);
    quiet(&["man"]);
    let help = run_ok(store, &["help"]);
    let (_, commands) = help.split_once("Commands:\n").expect("commands");
    let commands = commands.split("\n\n").next().expect("commands").lines();
    let commands = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let mut commands: BTreeSet<_> = commands.map(str::to_owned).collect();
    commands.remove("help");
    // Its toolchain prints.
    commands.remove("build");
    // It goes on until it is interrupted.
    commands.remove("dev");
    assert_eq!(tested, commands);
}

#[test]
fn quiet_commands_report_damage_on_standard_error() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", &vec![7; 10_000], &[]);
    let file = &version_files(dir)[0];
    let mut bytes = fs::read(file).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(file, bytes).expect("writes");
    let output = run(dir, &["check", "-q"]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(
        said.contains("damage") && said.contains("bot/memory@1"),
        "{said}"
    );
    assert!(said.contains("\nerror: "), "{said}");
    let output = run(dir, &["ls", "-q"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).starts_with("error: bot/memory"));
    // A backend that cannot be used is a problem, too.
    let doctor = ["doctor", "-q", "--storage", "file:///proc/persist"];
    let output = run(dir, &doctor);
    assert_eq!(text(&output.stdout), "");
    assert!(!output.status.success() && text(&output.stderr).contains("wrong"));
}

#[test]
fn a_summary_is_the_totals_alone() {
    let dir = tempdir();
    let store = &dir.path().join("store");
    for name in ["a", "b", "c"] {
        for _ in 0..2 {
            save(store, &format!("bot/{name}"), b"some state", &[]);
        }
    }
    run_ok(store, &["rm", "bot/c"]);
    let one = format!("file://{}", store.display());
    let two = format!("file://{}", dir.path().join("two").display());
    for args in [
        &["ls"][..],
        &["history", "bot/a"],
        &["stats"],
        &["check"],
        &["prune", "--dry-run"],
        &["copy", &one, &two, "--create"],
    ] {
        let long = json(&run_ok(store, &[args, &["--json"]].concat()));
        let short = json(&run_ok(store, &[args, &["--json", "--summary"]].concat()));
        assert_eq!(short.len(), 1, "{args:?}");
        let total = |key: &str| short[0][key].as_u64();
        match args[0] {
            "ls" => assert_eq!(total("names"), Some(long.len() as u64)),
            "history" => assert_eq!(total("versions"), Some(long.len() as u64)),
            "copy" => assert_eq!(total("compared_by_trailer"), Some(7)),
            _ => assert_eq!(short.last(), long.last(), "{args:?}"),
        }
        let shown = run_ok(store, &[args, &["--summary"]].concat());
        assert!(!shown.contains("bot/"), "{shown}");
        assert!(!shown.is_empty());
    }
    let all = json(&run_ok(store, &["ls", "--all", "--json", "--summary"])).remove(0);
    assert_eq!((&all["names"], &all["deleted"]), (&3.into(), &1.into()));
    assert_eq!(all["size"], Value::from(20));
}

#[test]
fn colours_follow_the_option_the_variables_and_the_terminal() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", b"one", &["--label", "x=\u{1b}[31mred"]);
    run_ok(dir, &["rm", "bot/memory"]);
    let colourful = |args: &[&str], env: &[(&str, &str)]| {
        let output = persist(dir).args(args).envs(env.iter().copied()).output();
        let output = output.expect("persist starts");
        let all = [output.stdout, output.stderr].concat();
        text(&all).contains('\u{1b}')
    };
    for args in [
        &["ls", "--all"][..],
        &["history", "bot/memory"],
        &["show", "bot/nothing"],
        &["show", "--no-such-option"],
        &["doctor", "--read-only"],
        &["settings"],
        &["diff", "bot/memory@1", "bot/nothing"],
        &["--help"],
    ] {
        let always = [args, &["--color", "always"]].concat();
        let never = [args, &["--color=never"]].concat();
        assert!(!colourful(args, &[]), "{args:?}");
        assert!(colourful(&always, &[]), "{args:?}");
        assert!(colourful(&always, &[("NO_COLOR", "1")]), "{args:?}");
        assert!(colourful(args, &[("CLICOLOR_FORCE", "1")]), "{args:?}");
        assert!(!colourful(&never, &[("CLICOLOR_FORCE", "1")]), "{args:?}");
        assert!(!colourful(&[args, &["--json"]].concat(), &[]), "{args:?}");
    }
    assert!(on_terminal(dir, 100, "ls --all", &[]).contains('\u{1b}'));
    let plain = on_terminal(dir, 100, "ls --all", &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    // JSON is for programs.
    assert!(!colourful(
        &["ls", "--all", "--json", "--color", "always"],
        &[]
    ));
}

#[test]
fn only_our_own_texts_are_coloured() {
    let dir = tempdir();
    let dir = dir.path();
    save(
        dir,
        "bot/memory",
        b"\x1b[31m one\n",
        &["--label", "x=\u{1b}[31mred"],
    );
    save(dir, "bot/memory", b"\x1b[31mtwo\n", &[]);
    for args in [
        &["ls"][..],
        &["history", "bot/memory"],
        &["diff", "bot/memory"],
    ] {
        let coloured = run_ok(dir, &[args, &["--color", "always"]].concat());
        let plain = run_ok(dir, args);
        assert_eq!(without_colours(&coloured), plain, "{args:?}");
        assert!(!plain.contains('\u{1b}'));
    }
    let state = run_ok(dir, &["cat", "bot/memory", "--color", "always"]);
    assert_eq!(state, "\u{1b}[31mtwo\n");
}

fn difference(dir: &Path, address: &str) -> (Value, String) {
    let value = json(&run_ok(dir, &["diff", address, "--json"])).remove(0);
    (value, run_ok(dir, &["diff", address]))
}

#[test]
fn a_difference_of_large_states_says_where_and_how_much() {
    let dir = tempdir();
    let dir = dir.path();
    let mut state = persist_tests::noise(1, 6 << 20);
    save(dir, "bot/binary", &state, &[]);
    for at in [5, 1_048_575, 1_048_576, 5_000_000] {
        state[at] ^= 1;
    }
    save(dir, "bot/binary", &state, &[]);
    let (value, shown) = difference(dir, "bot/binary");
    let bytes = &value["bytes"];
    assert_eq!(
        (&bytes["first"], &bytes["last"]),
        (&5.into(), &5_000_000.into())
    );
    assert_eq!(
        (&bytes["changed"], &bytes["ranges"]),
        (&4.into(), &3.into())
    );
    assert_eq!(bytes["same_at_end"], Value::from((6 << 20) - 5_000_001));
    assert_eq!(
        (&value["format"], &value["diff"]),
        (&"binary".into(), &Value::Null)
    );
    assert!(
        shown.contains("differs from byte 5 on: 4 of 6291456 bytes"),
        "{shown}"
    );

    // An insertion: the ends are the same, and all between is at another offset.
    let lines = |extra: &str| {
        let mut text: Vec<_> = (0..600_000).map(|n| format!("line {n}")).collect();
        text.insert(300_000, extra.to_owned());
        text.join("\n").into_bytes()
    };
    save(dir, "bot/text", &lines("old"), &[]);
    save(dir, "bot/text", &lines("another line"), &[]);
    let (value, shown) = difference(dir, "bot/text");
    assert_eq!(value["format"], "text");
    let diff = value["diff"].as_str().expect("a difference");
    assert!(diff.contains("\n-old\n+another line\n"), "{diff}");
    assert!(diff.contains("(from line 300001)"), "{diff}");
    assert!(shown.contains("\n-old\n+another line"), "{shown}");
    assert!(value["bytes"]["same_at_end"].as_u64() > Some(1 << 20));

    // Every line differs.
    let upper = String::from_utf8(lines("x")).expect("text").to_uppercase();
    save(dir, "bot/text", upper.as_bytes(), &[]);
    let (value, shown) = difference(dir, "bot/text");
    assert_eq!(
        (&value["format"], &value["diff"]),
        (&Value::Null, &Value::Null)
    );
    assert!(shown.contains("too much of it to show"), "{shown}");

    save(dir, "bot/growing", b"12345", &[]);
    save(dir, "bot/growing", b"1234567890", &[]);
    let (value, _) = difference(dir, "bot/growing");
    let bytes = &value["bytes"];
    assert_eq!((&bytes["first"], &bytes["last"]), (&5.into(), &9.into()));
    assert_eq!(
        (&bytes["changed"], &bytes["share"]),
        (&5.into(), &0.5.into())
    );
    run_ok(dir, &["rm", "bot/growing"]);
    let (value, _) = difference(dir, "bot/growing");
    assert_eq!(
        (&value["same"], &value["bytes"]),
        (&false.into(), &Value::Null)
    );
}

#[test]
fn a_json_change_names_the_command_that_undoes_it() {
    let dir = tempdir();
    let dir = dir.path();
    save(dir, "bot/memory", b"one", &[]);
    let undo = |args: &[&str]| {
        let output: Output = run(dir, &[args, &["--json"]].concat());
        assert_eq!(text(&output.stderr), "", "{args:?}");
        json(text(&output.stdout))[0]["undo"].clone()
    };
    let two = undo(&["save", "bot/memory", "Cargo.toml"]);
    assert_eq!(two, "persist restore bot/memory@1");
    let words: Vec<_> = two.as_str().expect("text").split(' ').skip(1).collect();
    assert_eq!(undo(&words), "persist restore bot/memory@2");
    assert_eq!(run_ok(dir, &["cat", "bot/memory"]), "one");
    assert_eq!(undo(&["rm", "bot/memory"]), "persist restore bot/memory@3");
    assert_eq!(undo(&["restore", "bot/memory@1"]), "persist rm bot/memory");
    assert_eq!(undo(&["restore", "bot/memory@5"]), Value::Null);
    assert_eq!(
        undo(&["fork", "bot/memory", "bot/copy"]),
        "persist rm bot/copy"
    );
    assert_eq!(undo(&["pin", "bot/copy@1"]), "persist unpin bot/copy@1");
    assert_eq!(undo(&["unpin", "bot/copy@1"]), "persist pin bot/copy@1");
}
