//! Operations on single states by an operator, as real processes, on every backend.

use std::process::Stdio;

use persist_tests::store::{json, on_each_backend};
use persist_tests::terminal::Terminal;
use persist_tests::{guest, persist, tempdir, text};
use serde_json::Value;

#[test]
fn a_bad_save_is_undone_in_one_command_that_says_how_to_undo_it() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "good");
        backend.save("bot/memory", "bad");
        let output = backend.run(&["restore", "bot/memory@1"]);
        assert_eq!(text(&output.stdout), "restored bot/memory@3 (4 B)\n");
        let said = text(&output.stderr);
        assert_eq!(said, "to undo: persist restore bot/memory@2\n");
        assert_eq!(backend.run_ok(&["cat", "bot/memory"]), "good");
        let quiet = backend.run(&["restore", "bot/memory@2", "--quiet"]);
        assert_eq!(text(&quiet.stderr), "");
        assert_eq!(backend.run_ok(&["cat", "bot/memory"]), "bad");
    }
}

#[test]
fn the_printed_undo_command_can_be_pasted_into_a_shell() {
    for backend in on_each_backend() {
        backend.save("bot/$(touch x) it's", "one");
        let rm = backend.run(&["rm", "bot/$(touch x) it's", "--storage", backend.url()]);
        let options = if backend.url().contains('?') {
            format!("--storage '{}'", backend.url())
        } else {
            format!("--storage {}", backend.url())
        };
        assert_eq!(
            text(&rm.stderr),
            format!("to undo: persist restore {options} 'bot/$(touch x) it'\"'s@1\"\n")
        );

        backend.save("bot/from", "state");
        backend.save("bot/to", "old");
        backend.run_ok(&["rm", "bot/to"]);
        let fork = backend.run(&["fork", "bot/from", "bot/to"]);
        assert_eq!(text(&fork.stderr), "to undo: persist rm bot/to\n");
        let deleted = backend.run_fails(&["restore", "bot/to@2"], 3);
        assert!(deleted.contains("is a tombstone"), "{deleted}");
    }
}

#[test]
fn text_of_agents_cannot_imitate_output_lines() {
    for backend in on_each_backend() {
        let file = tempdir();
        let state = file.path().join("state");
        std::fs::write(&state, "x").expect("writes");
        let state = state.to_str().expect("text");
        let label = "k=v\nbank/memory@9\t4.0 KiB\u{202e}";
        let turned = "bot/a\u{202e}b";
        backend.run_ok(&[
            "save",
            turned,
            state,
            "--label",
            label,
            "--media-type",
            "a/b\nc",
        ]);
        let listed = backend.run_ok(&["ls", "-q"]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        assert!(!listed.contains('\u{202e}'), "{listed}");
        let address = listed.split(' ').next().expect("an address");
        let shown = backend.run_ok(&["show", address]);
        assert!(shown.contains("media type  a/b\\nc\n"), "{shown}");
        assert!(
            shown.contains("label       k=v\\nbank/memory@9\\t4.0 KiB\\u{202e}"),
            "{shown}"
        );
    }
}

#[test]
fn a_closed_output_pipe_changes_no_result() {
    let [local, ..] = on_each_backend();
    for n in 0..40 {
        local.save(&format!("bot/{n}"), "one");
        local.save(&format!("bot/{n}"), "two");
    }
    local.put_object("bot/README", b"foreign");
    let closed = |args: &[&str]| {
        let mut command = local.command();
        // What goes by without a grace goes at once.
        command.env("PERSIST_GRACE", "0s").args(args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("persist starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("it ends");
        (ended.status.code(), text(&ended.stderr).to_owned())
    };
    assert_eq!(closed(&["ls"]).0, Some(0));
    assert_eq!(closed(&["check"]).0, Some(10));
    let (code, said) = closed(&["export", "-"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("before the archive was complete"), "{said}");
    let other = tempdir();
    let to = format!("file://{}", other.path().display());
    assert_eq!(closed(&["copy", "--create", local.url(), &to]).0, Some(0));
    assert_eq!(
        closed(&["prune", "--keep-last", "1", "--all-hosts-stopped"]).0,
        Some(0)
    );
    for n in 0..40 {
        let history = local.run_ok(&["history", "-q", &format!("bot/{n}")]);
        assert_eq!(history.lines().count(), 1, "{history}");
        let copied = persist_tests::run_ok(other.path(), &["history", "-q", &format!("bot/{n}")]);
        assert_eq!(copied.lines().count(), 2, "{copied}");
    }
}

#[test]
fn a_list_takes_an_address_and_shows_its_row() {
    for backend in on_each_backend() {
        for address in [
            "bot/memory",
            "bot/memory",
            "bot/monday/notes",
            "bot/both/x",
            "bot/both",
        ] {
            backend.save(address, "one");
        }
        let listed = |what: &str| -> Vec<String> {
            let lines = json(&backend.run_ok(&["ls", what, "--json"]));
            let address = |line: &Value| line["address"].as_str().expect("text").to_owned();
            lines.iter().map(address).collect()
        };
        for (what, rows) in [
            ("bot/memory", &["bot/memory@2"][..]),
            ("bot/memory@1", &["bot/memory@1"]),
            ("bot/monday", &["bot/monday/notes@1"]),
            ("bot/monday/", &["bot/monday/notes@1"]),
            ("bot/monday/notes", &["bot/monday/notes@1"]),
            ("bot/both", &["bot/both@1", "bot/both/x@1"]),
            ("bot/both/", &["bot/both/x@1"]),
            ("bot/~/", &["bot/both@1", "bot/memory@2"]),
        ] {
            assert_eq!(listed(what), rows, "{}: {what}", backend.name());
        }
        backend.run_ok(&["rm", "bot/memory"]);
        assert_eq!(listed("bot/memory"), ["bot/memory@3"]);
        assert!(
            backend
                .run_fails(&["ls", "bot/memory@9"], 3)
                .contains("version 9")
        );
        assert!(
            backend
                .run_fails(&["ls", "bot/monday/typo"], 3)
                .contains("bot/monday/typo")
        );
    }
}

#[test]
fn a_session_that_is_asked_for_as_a_name_is_hinted_at() {
    for backend in on_each_backend() {
        backend.save("bot/monday/memory", "one");
        for args in [
            &["check", "bot/monday"][..],
            &["prune", "bot/monday"],
            &["export", "-", "bot/monday"],
        ] {
            let said = backend.run_fails(args, 3);
            assert!(
                said.contains("for the session, write bot/monday/"),
                "{args:?}: {said}"
            );
        }
        let said = backend.run(&["stats", "bot/monday"]).stderr;
        let said = text(&said);
        assert!(
            said.contains("for the session, write bot/monday/"),
            "{said}"
        );
    }
}

#[test]
fn a_list_of_names_says_nothing_of_pins() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    local.run_ok(&["pin", "bot/memory@1"]);
    let listed = local.run_ok(&["ls", "--json"]);
    assert!(!listed.contains("\"pinned\""), "{listed}");
    let history = local.run_ok(&["history", "bot/memory", "--json"]);
    assert!(history.contains("\"pinned\":true"), "{history}");
}

#[test]
fn a_fork_begins_a_history_of_its_own_in_any_agent_or_session() {
    for backend in on_each_backend() {
        backend.save("bot/monday/memory", "one");
        backend.save("bot/monday/memory", "two");
        let fork = backend.run(&["fork", "bot/monday/memory@1", "other/memory"]);
        assert_eq!(text(&fork.stdout), "forked other/memory@1 (3 B)\n");
        assert_eq!(text(&fork.stderr), "to undo: persist rm other/memory\n");
        assert_eq!(backend.run_ok(&["cat", "other/memory"]), "one");
        backend.run_fails(
            &[
                "fork",
                "bot/monday/memory",
                "other/memory",
                "--expect",
                "absent",
            ],
            4,
        );
        let fork = backend.run(&["fork", "bot/monday/memory", "other/memory"]);
        let undo = "to undo: persist restore other/memory@1\n";
        assert_eq!(text(&fork.stderr), undo);
        assert_eq!(backend.run_ok(&["cat", "other/memory"]), "two");
        backend.run_fails(&["fork", "bot/memory", "bot/copy"], 3);
        backend.run_fails(&["fork", "bot/monday/memory", "bot/copy@1"], 2);
    }
}

#[test]
fn a_difference_is_shown_as_people_read_it() {
    for backend in on_each_backend() {
        backend.save("bot/json", r#"{"b":1,"a":[1,2]}"#);
        backend.save("bot/json", r#"{"b":1,"a":[1,3]}"#);
        let shown = backend.run_ok(&["diff", "bot/json"]);
        for line in ["differs, as JSON", "-    2\n", "+    3\n"] {
            assert!(shown.contains(line), "{line:?}: {shown}");
        }
        let lines = json(&backend.run_ok(&["diff", "bot/json@1", "bot/json@2", "--json"]));
        assert_eq!(lines[0]["same"], false);
        assert_eq!(lines[0]["to"]["address"], "bot/json@2");
        assert!(
            backend
                .run_ok(&["diff", "bot/json", "bot/json"])
                .contains("the same")
        );

        backend.save("bot/numbers", r#"{"balance":12345678901234567890123}"#);
        backend.save("bot/numbers", r#"{"balance":12345678901234567890124}"#);
        let shown = backend.run_ok(&["diff", "bot/numbers"]);
        assert!(
            shown.contains("+{\"balance\":12345678901234567890124}"),
            "{shown}"
        );

        backend.save("bot/text", "one\ntwo\n\u{1b}[2J\n");
        backend.save("bot/text", "one\n2\n\u{1b}[2J\n");
        let shown = backend.run_ok(&["diff", "bot/text"]);
        assert!(shown.contains("-two\n+2\n"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");

        backend.save_bytes("bot/bytes", &[1, 2, 0, 255]);
        backend.save_bytes("bot/bytes", &[1, 2, 3, 255]);
        let shown = backend.run_ok(&["diff", "bot/bytes"]);
        assert!(shown.contains("differs from byte 2 on"), "{shown}");
        assert!(
            backend
                .run_fails(&["diff", "bot/json@1"], 3)
                .contains("before")
        );
        backend.run_fails(&["diff", "bot/nothing"], 3);
    }
}

#[test]
fn an_intact_store_verifies_and_checks() {
    for backend in on_each_backend() {
        backend.run_ok(&["check"]);
        backend.save("bot/memory", "one");
        backend.save("bot/s/memory", "two");
        backend.run_fails(&["check", "nobody"], 3);
        backend.run_fails(&["prune", "bot/nothing"], 3);
        backend.run_ok(&["prune"]);
        backend.run_ok(&["pin", "bot/memory@1"]);
        backend.run_ok(&["rm", "bot/s/memory"]);
        let verified = backend.run_ok(&["verify", "bot/memory"]);
        assert!(verified.starts_with("verified bot/memory@1: 3 B of state"));
        backend.run_fails(&["verify", "bot/memory@2"], 3);
        backend.run_fails(&["verify", "bot/nothing"], 3);
        for (args, versions, read) in [
            (&["check", "--json"][..], 3, 0),
            (&["check", "--json", "--read-data"], 3, 3),
            (&["check", "--json", "--sample", "100%"], 3, 3),
            (&["check", "--json", "bot/s/"], 2, 0),
            (&["check", "--json", "bot/memory"], 1, 0),
        ] {
            let lines = json(&backend.run_ok(args));
            assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
            assert_eq!(lines[0]["versions"], versions, "{args:?}");
            assert_eq!(lines[0]["read"], read, "{args:?}");
            assert_eq!(lines[0]["findings"], 0, "{args:?}");
        }
    }
}

#[test]
fn shells_and_manuals_know_every_command() {
    let [local, ..] = on_each_backend();
    let commands = ["prune", "copy", "doctor", "restore"];
    for (shell, line) in [
        ("bash", &["persist "][..]),
        ("zsh", &["persist", ""]),
        ("fish", &["persist", ""]),
    ] {
        let script = local.run_ok(&["completions", shell]);
        // The script asks the command, with this variable and the words of the line.
        let asks = format!("_PERSIST_COMPLETE={shell} persist -- ");
        assert!(script.contains(&asks), "{script}");
        let mut command = local.command();
        let command = command.env("_PERSIST_COMPLETE", shell).arg("--").args(line);
        let output = command.output().expect("persist starts");
        let proposed = text(&output.stdout);
        assert!(
            commands.iter().all(|command| proposed.contains(command)),
            "{shell}: {proposed}"
        );
    }
    assert!(local.run_ok(&["man"]).contains(".TH persist 1"));
    let dir = tempdir();
    local.run_ok(&["man", "--dir", dir.path().to_str().expect("text")]);
    for command in commands {
        let page = dir.path().join(format!("persist-{command}.1"));
        let page = std::fs::read_to_string(page).expect("a page");
        assert!(page.contains(".SH \"EXAMPLES\"\n.nf\n"), "{page}");
    }
    // Each exit code has a line of its own.
    let page = local.run_ok(&["man"]);
    let (_, codes) = page
        .split_once(".SH \"EXIT STATUS\"\n.nf\n")
        .expect("a section");
    for code in ["  9", " 10", "130"] {
        assert!(codes.lines().any(|line| line.starts_with(code)), "{codes}");
    }
    assert!(!page.contains("EXTRA"), "{page}");
}

#[test]
fn help_is_found_however_it_is_asked_for() {
    let [local, ..] = on_each_backend();
    let whole = local.run_ok(&["help"]);
    for args in [&["help", "--help"][..], &["help", "-h"], &["--help"]] {
        assert_eq!(local.run_ok(args), whole, "{args:?}");
    }
    assert!(
        local
            .run_ok(&["help", "ls", "--help"])
            .contains("persist ls bot/memory")
    );
    let said = local.run_fails(&["ls", "--sort"], 2);
    assert!(!said.contains("similar"), "{said}");
    let said = local.run_fails(&["ls", "--storge"], 2);
    assert!(said.contains("'--storage'"), "{said}");
}

#[test]
fn a_table_has_a_header_and_columns_as_wide_as_their_content() {
    let [local, ..] = on_each_backend();
    let long = "an-agent-of-a-long-name/chat-20261031-3/history";
    local.save_bytes(long, &[b'x'; 2000]);
    local.save("b/m", "one");
    local.run_ok(&["pin", "b/m@1"]);
    for (args, title, quiet_lines) in [
        (&["ls"][..], "ADDRESS", 2),
        (&["history", "b/m"], "ADDRESS", 1),
        (&["stats"], "NAME", 5),
        (&["prune", "--dry-run"], "ACTION", 3),
    ] {
        let shown = local.run_ok(args);
        assert!(shown.starts_with(title), "{args:?}: {shown}");
        let quiet = local.run_ok(&[args, &["-q"]].concat());
        assert_eq!(quiet.lines().count(), quiet_lines, "{args:?}: {quiet}");
        assert_eq!(shown.lines().count(), quiet_lines + 1, "{args:?}: {shown}");
    }
    let listed = local.run_ok(&["ls"]);
    let lines: Vec<_> = listed.lines().collect();
    let end = lines[0].find("SIZE").expect("a column") + "SIZE".len();
    assert!(lines[1][..end].ends_with("2.0 KiB"), "{listed}");
    assert!(lines[2][..end].ends_with("  3 B"), "{listed}");
    local.run_fails(&["ls", "nobody"], 3);
}

#[test]
fn a_state_is_printed_bit_for_bit_and_shown_plainly_on_a_terminal() {
    let [local, ..] = on_each_backend();
    let hostile = "title \u{1b}]0;owned\u{7} clip \u{1b}]52;c;AAAA\u{7}\u{9b}2J \u{202e}日本\n";
    local.save("bot/memory", hostile);
    assert_eq!(local.run_ok(&["cat", "bot/memory"]), hostile);
    let mut cat = local.command();
    cat.args(["cat", "bot/memory"]);
    let (code, shown) = Terminal::start(&cat).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        !shown.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']),
        "{shown:?}"
    );
    assert!(
        shown.contains("\\u{1b}]52;c;AAAA") && shown.contains("日本"),
        "{shown:?}"
    );
}

#[test]
fn json_escapes_what_cannot_be_seen() {
    let [local, ..] = on_each_backend();
    let file = tempdir();
    let state = file.path().join("state");
    std::fs::write(&state, "x").expect("writes");
    let state = state.to_str().expect("text");
    let label = "a\u{9b}2J=b\u{202e}\u{3164}";
    local.run_ok(&[
        "save",
        "bot/memory",
        state,
        "--label",
        label,
        "--media-type",
        "x/\u{85}",
    ]);
    for args in [
        &["ls"][..],
        &["show", "bot/memory"],
        &["history", "bot/memory"],
    ] {
        let printed = local.run_ok(&[args, &["--json"]].concat());
        assert!(printed.is_ascii(), "{printed:?}");
        let info = &json(&printed)[0];
        assert!(info["labels"]["a\u{9b}2J"].is_string(), "{printed}");
        assert_eq!(info["media_type"], "x/\u{85}");
    }
}

#[test]
fn a_difference_takes_little_memory() {
    let [local, ..] = on_each_backend();
    // A value a line would be 600 MiB: each number has 120 spaces before it, twice.
    for last in ["1", "2"] {
        let numbers = "1,".repeat(2_000_000);
        let open = "[".repeat(120);
        let close = "]".repeat(120);
        local.save("bot/deep", &format!("{open}{numbers}{last}{close}"));
    }
    let script = "ulimit -v 1200000; exec $persist diff bot/deep";
    let mut bash = std::process::Command::new("bash");
    let command = local.command();
    bash.args(["-c", script])
        .env("persist", command.get_program());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            bash.env(name, value);
        }
    }
    let output = bash.output().expect("bash starts");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(text(&output.stdout).contains("differs, as text"), "{said}");
}

#[test]
fn changes_by_the_command_tell_who_made_them_and_how() {
    let dir = tempdir();
    let run = |user: &str, audit: &str, args: &[&str]| {
        let mut command = persist(dir.path());
        command
            .env("USER", user)
            .env("PERSIST_AUDIT", audit)
            .args(args);
        let output = command.output().expect("persist starts");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout).to_owned()
    };
    let save = ["save", "bot/memory", "/etc/hostname"];
    run("ann", "on", &save);
    run("bob", "on", &["rm", "bot/memory"]);
    run("eve", "on", &["restore", "bot/memory@1"]);
    run("bob", "on", &["fork", "bot/memory@1", "bot/copy"]);
    run("ann", "off", &save);
    let labels = |address: &str| {
        let shown = run("ann", "on", &["show", address, "--json"]);
        json(&shown)[0]["labels"].clone()
    };
    for (address, user, via) in [
        ("bot/memory@1", "ann@", "persist save"),
        ("bot/memory@2", "bob@", "persist rm"),
        ("bot/memory@3", "eve@", "persist restore"),
        ("bot/copy@1", "bob@", "persist fork"),
    ] {
        let labels = labels(address);
        let by = labels["persist.by"].as_str().expect("text");
        assert!(by.starts_with(user), "{labels}");
        assert_eq!(labels["persist.via"], via);
    }
    assert_eq!(labels("bot/memory@4"), serde_json::json!({}));
    let changes = run("ann", "on", &["history", "bot/memory", "--changes"]);
    let lines: Vec<_> = changes.lines().collect();
    assert!(
        lines[0].contains("BY") && lines[0].contains("VIA"),
        "{changes}"
    );
    assert!(
        lines[2].contains("eve@") && lines[2].contains("persist restore"),
        "{changes}"
    );
    assert!(
        lines[1].contains('-') && !lines[1].contains("ann@"),
        "{changes}"
    );

    // They never keep a save from being made, and are not set by hand.
    let large = format!("big={}", "x".repeat(8 * 1024 - 3));
    run("ann", "on", &[&save[..], &["--label", &large]].concat());
    let kept = labels("bot/memory@5");
    assert_eq!(kept.as_object().map(serde_json::Map::len), Some(1));
    let forged = [&save[..], &["--label", "persist.by=eve"]].concat();
    persist_tests::run_fails(dir.path(), &forged, 2);
    // Neither a purge nor a policy forgets them; an agent's own saves have none.
    run("ann", "on", &["purge", "bot/copy", "--yes", "--now"]);
    assert_eq!(labels("bot/copy@2")["persist.via"], "persist purge");
    let agent = guest("chat_memory");
    run(
        "ann",
        "on",
        &[
            "run",
            agent.to_str().expect("text"),
            "--agent",
            "chat",
            "--",
            "say",
            "x",
        ],
    );
    let history = run("ann", "on", &["ls", "chat", "--json"]);
    let saved = json(&history);
    assert!(
        !saved.is_empty() && saved[0]["labels"]["persist.by"].is_null(),
        "{history}"
    );
    // A move changes no label of those who saved, and records who moved.
    run("bob", "on", &["fork", "bot/memory@1", "bot/third"]);
    run("eve", "on", &["mv", "bot/third", "bot/moved"]);
    let moved = labels("bot/moved@1");
    assert!(
        moved["persist.by"]
            .as_str()
            .expect("text")
            .starts_with("bob@"),
        "{moved}"
    );
    assert_eq!(moved["persist.via"], "persist fork");
    assert!(
        moved["persist.moved-by"]
            .as_str()
            .expect("text")
            .starts_with("eve@"),
        "{moved}"
    );
    assert_eq!(moved["persist.moved-via"], "persist mv");
    let changes = run("ann", "on", &["history", "bot/moved", "--changes"]);
    let told = changes.contains("bob@") && changes.contains("persist fork, moved by eve@");
    assert!(told, "{changes}");
    run("eve", "on", &["mv", "bot/memory", "bot/other"]);
    assert!(
        labels("bot/other@2")["persist.by"]
            .as_str()
            .expect("text")
            .starts_with("bob@")
    );
    let unknown = labels("bot/other@4");
    assert!(unknown["persist.by"].is_null(), "{unknown}");
}
