//! Commands on several names: selections, points in time, whole agents and sessions.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use persist_host::snapshot::{Name, SaveOptions, Selection, Store};
use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::terminal::Terminal;
use persist_tests::{block_on, tempdir, text};
use serde_json::Value;

/// Addresses in the lines that a command printed.
fn addresses(lines: &str) -> Vec<String> {
    let address = |line: &Value| line["address"].as_str().map(str::to_owned);
    json(lines).iter().filter_map(address).collect()
}

/// The state of each name, tombstones left out.
fn states(store: &TestStore) -> BTreeMap<String, String> {
    let listed = json(&store.run_ok(&["ls", "--json"]));
    let state = |line: &Value| {
        let (name, _) = line["address"].as_str()?.rsplit_once('@')?;
        Some((name.to_owned(), store.run_ok(&["cat", "--", name])))
    };
    listed.iter().filter_map(state).collect()
}

/// The time at which a version was created.
fn created(store: &TestStore, address: &str) -> String {
    let shown = json(&store.run_ok(&["show", address, "--json"]));
    shown[0]["created_at"].as_str().expect("a time").to_owned()
}

/// Pastes the undo command that a command printed into a shell.
fn paste_undo(store: &TestStore, said: &str) {
    let line = said.lines().find_map(|line| line.strip_prefix("to undo: "));
    let line = line.unwrap_or_else(|| panic!("no undo command: {said}"));
    let persist = store.command();
    let program = std::path::Path::new(persist.get_program());
    let dir = program.parent().expect("a directory");
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", line]).env("PATH", path);
    for (name, value) in persist.get_envs() {
        if let Some(value) = value.filter(|_| name != "PATH") {
            shell.env(name, value);
        }
    }
    let output = shell.output().expect("a shell");
    assert!(
        output.status.success(),
        "{line}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// Agents `bot-1` and `bot-2`, and one that is called otherwise.
fn three_agents(store: &TestStore) {
    for address in [
        "bot-1/memory",
        "bot-1/monday/memory",
        "bot-1/monday/notes",
        "bot-2/memory",
        "other/memory",
    ] {
        store.save(address, address);
    }
}

#[test]
fn check_export_and_copy_are_for_the_names_that_meet_conditions() {
    let store = TestStore::local();
    three_agents(&store);
    let file = tempdir();
    let state = file.path().join("state");
    std::fs::write(&state, "gold").expect("written");
    let state = state.to_str().expect("text");
    for name in ["bot-1/gold", "bot-2/gold"] {
        store.run_ok(&["save", name, state, "--label", "tier=gold"]);
    }
    let gold = ["--label", "tier=gold"];
    let checked = json(&store.run_ok(&[&["check", "--json"], &gold[..]].concat()));
    let summary = checked.last().expect("a summary");
    assert_eq!(
        (&summary["names"], &summary["versions"]),
        (&2.into(), &2.into())
    );
    let limited = store.run_ok(&[&["check", "--json", "bot-1", "-n", "1"], &gold[..]].concat());
    assert_eq!(json(&limited).last().expect("a summary")["names"], 1);
    store.run_fails(&["check", "--label", "tier=none"], 3);

    let archive = file.path().join("gold.tar");
    let archive = archive.to_str().expect("text");
    let exported = json(&store.run_ok(&[&["export", archive, "--json"], &gold[..]].concat()));
    assert_eq!(exported.last().expect("a summary")["names"], 2);

    let from = format!("file://{}", store.path().display());
    let to = format!("file://{}", file.path().join("copy").display());
    store.run_ok(&[&["copy", &from, &to, "--create"], &gold[..]].concat());
    let copied = store.run_ok(&["ls", "--json", "--storage", &to]);
    assert_eq!(addresses(&copied), ["bot-1/gold@1", "bot-2/gold@1"]);
}

#[test]
fn an_error_about_a_missing_version_names_the_nearest() {
    let store = TestStore::local();
    for _ in 0..6 {
        store.save("bot/memory", "x");
    }
    for file in ["9999999996-0000000003.gz", "9999999995-0000000004.gz"] {
        let file = store.path().join("bot/~/memory").join(file);
        std::fs::remove_file(file).expect("removed");
    }
    for (missing, near) in [
        (
            "bot/memory@3",
            "the nearest version is bot/memory@2; the newest is @6",
        ),
        (
            "bot/memory@4",
            "the nearest version is bot/memory@5; the newest is @6",
        ),
        (
            "bot/memory@9",
            "the nearest version is bot/memory@6, the newest",
        ),
    ] {
        for command in [
            &["show", missing][..],
            &["cat", missing],
            &["diff", "bot/memory", missing],
        ] {
            let said = store.run_fails(command, 3);
            let version = &missing[missing.len() - 1..];
            let what = format!("bot/memory has no version {version}");
            assert!(
                said.contains(&what) && said.contains(near),
                "{command:?}: {said}"
            );
        }
    }
}

#[test]
fn one_selection_serves_every_command() {
    for store in on_each_backend() {
        three_agents(&store);
        for (selections, names) in [
            (
                &["bot-*/memory"][..],
                &["bot-1/memory@1", "bot-2/memory@1"][..],
            ),
            (
                &["bot-1/monday/"],
                &["bot-1/monday/memory@1", "bot-1/monday/notes@1"],
            ),
            (&["*/*/memory"], &["bot-1/monday/memory@1"]),
            (
                &["other", "bot-1/mon*/n*"],
                &["bot-1/monday/notes@1", "other/memory@1"],
            ),
            (&["bot-2", "bot-2/memory", "bot-2/m*"], &["bot-2/memory@1"]),
        ] {
            for command in [
                &["ls"][..],
                &["history"],
                &["verify"],
                &["prune", "--dry-run", "--keep-last", "1"],
                &["stats"],
            ] {
                let args = [command, selections, &["--json"]].concat();
                let lines = store.run_ok(&args);
                let lines: Vec<_> = lines
                    .lines()
                    .filter(|line| !line.contains("\"of\":\"agent\""))
                    .collect();
                let mut found = addresses(&lines.join("\n"));
                for address in &mut found {
                    // Statistics are of names.
                    if !address.contains('@') {
                        *address += "@1";
                    }
                }
                found.sort();
                assert_eq!(found, names, "{}: {args:?}", store.name());
            }
            let args = [&["check", "--json"], selections].concat();
            let checked = json(&store.run_ok(&args));
            let summary = checked.last().expect("a summary");
            assert_eq!(summary["versions"], names.len(), "{args:?}");
            let dir = tempdir();
            let tar = dir.path().join("x.tar");
            let tar = tar.to_str().expect("text");
            let args = [&["export", "--json", tar], selections].concat();
            let exported = json(&store.run_ok(&args));
            assert_eq!(exported[0]["versions"], names.len(), "{args:?}");
            let copy = format!("file://{}/copy", dir.path().display());
            let args = [
                &["import", "--json", "--create", "--storage", &copy, tar],
                selections,
            ];
            let imported = json(&store.run_ok(&args.concat()));
            let summary = imported.last().expect("a summary");
            assert_eq!(summary["names"], names.len(), "{args:?}");
        }
    }
}

#[test]
fn a_union_of_selections_has_each_name_once_in_the_order_of_keys() {
    let name = |text: &str| Name::new(text).expect("a name");
    for store in on_each_backend() {
        three_agents(&store);
        let union = Selection::union([
            Selection::Name(name("other"), None, name("memory")),
            Selection::Session(name("bot-1"), Some(name("monday"))),
            Selection::Agent(name("bot-1")),
            Selection::Name(name("bot-1"), None, name("absent")),
        ]);
        block_on(async {
            let opened = Store::new(store.storage());
            let mut walk = opened.walk(&union);
            let mut met = Vec::new();
            while let Some((scope, name)) = walk.next().await.expect("lists") {
                let session = scope.session().map_or("~", Name::as_str);
                met.push(format!("{}/{session}/{name}", scope.agent()));
            }
            // The agent is listed as a whole, so nothing is met that is not there.
            let names = [
                "bot-1/monday/memory",
                "bot-1/monday/notes",
                "bot-1/~/memory",
                "other/~/memory",
            ];
            assert_eq!(met, names, "{}", store.name());
            let nothing = Selection::Matching(Vec::new());
            assert!(opened.walk(&nothing).next().await.expect("lists").is_none());
        });
    }
}

#[test]
fn a_selection_that_matches_nothing_is_not_found_everywhere() {
    for store in on_each_backend() {
        three_agents(&store);
        for (selection, hint) in [
            ("bto-1", "did you mean bot-1?"),
            ("bot-1/memroy", "did you mean bot-1/memory?"),
            ("bot-1/mondya/notes", "did you mean bot-1/monday/notes?"),
            ("bot-1/monday", "for the session, write bot-1/monday/"),
            ("bot-1/nothing-like-it", ""),
            ("nobody-*/memory", "run `persist ls` to list names"),
        ] {
            for command in [
                &["ls"][..],
                &["history"],
                &["check"],
                &["prune", "--dry-run"],
                &["stats"],
                &["export", "-"],
                &["purge", "--dry-run"],
                &["rm", "--dry-run"],
                &["restore", "--at", "now"],
            ] {
                // A list takes what is a name or a session.
                if command == ["ls"] && selection == "bot-1/monday" {
                    continue;
                }
                let args = [command, &[selection]].concat();
                let said = store.run_fails(&args, 3);
                let message = format!("nothing matches {selection} in ");
                assert!(said.contains(&message), "{args:?}: {said}");
                assert!(said.contains(hint), "{args:?}: {said}");
            }
        }
        // One of several is said, too, and nothing is done for the others.
        let said = store.run_fails(&["rm", "--yes", "bot-1", "typo"], 3);
        assert!(said.contains("nothing matches typo"), "{said}");
        let (listed, said) = store.run_ends(&["ls", "-q", "bot-2", "typo"], 3);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        assert!(said.contains("nothing matches typo"), "{said}");
        assert_eq!(states(&store).len(), 5);
    }
}

#[test]
fn a_list_is_filtered_sorted_and_cut() {
    let [store, ..] = on_each_backend();
    let label = |address: &str, label: &str, state: &str| {
        let file = tempdir();
        let file = file.path().join("state");
        std::fs::write(&file, state).expect("writes");
        let file = file.to_str().expect("text");
        store.run_ok(&["save", address, file, "--label", label]);
    };
    label("bot/c", "by=ann", "1");
    label("bot/a", "by=bob", "333");
    label("bot/b", "by=ann", "22");
    label("bot/b", "turn=2", "22");
    let listed = |args: &[&str]| -> Vec<String> {
        addresses(&store.run_ok(&[&["ls", "--json"], args].concat()))
    };
    let history = |args: &[&str]| -> Vec<String> {
        addresses(&store.run_ok(&[&["history", "--json", "bot"], args].concat()))
    };
    assert_eq!(listed(&["--label", "by"]), ["bot/a@1", "bot/c@1"]);
    assert_eq!(listed(&["--label", "by=ann"]), ["bot/c@1"]);
    assert_eq!(history(&["--label", "by=ann"]), ["bot/b@1", "bot/c@1"]);
    assert_eq!(
        listed(&["--sort", "size"]),
        ["bot/a@1", "bot/b@2", "bot/c@1"]
    );
    assert_eq!(
        listed(&["--sort", "time", "-n", "2"]),
        ["bot/b@2", "bot/a@1"]
    );
    assert_eq!(listed(&["--sort", "versions", "-n", "1"]), ["bot/b@2"]);
    assert_eq!(listed(&["--reverse"]), ["bot/c@1", "bot/b@2", "bot/a@1"]);
    assert_eq!(
        history(&["--sort", "time", "--reverse", "-n", "3"]),
        ["bot/c@1", "bot/a@1", "bot/b@1"]
    );
    let first = created(&store, "bot/c@1");
    let third = created(&store, "bot/b@1");
    assert_eq!(history(&["--until", &first]), ["bot/c@1"]);
    assert_eq!(history(&["--since", &third]), ["bot/b@2", "bot/b@1"]);
    store.run_ok(&["pin", "bot/b@1", "bot/a@1"]);
    assert_eq!(listed(&["--pinned"]), ["bot/a@1", "bot/b@2"]);
    assert_eq!(history(&["--pinned"]), ["bot/a@1", "bot/b@1"]);
    let sizes = addresses(&store.run_ok(&["stats", "--json", "--sort", "versions", "-n", "1"]));
    assert_eq!(sizes, ["bot/b", "bot"]);
    store.run_ok(&["rm", "bot/a"]);
    assert_eq!(listed(&["--deleted"]), ["bot/a@2"]);
    for args in [
        &["ls", "--since", "2h"][..],
        &["history", "bot", "--since", "1h ago"],
    ] {
        store.run_ok(args);
    }
    for args in [
        &["ls", "--until", "2026-01-01"][..],
        &["history", "bot", "--label", "by=nobody"],
    ] {
        store.run_fails(args, 3);
    }
    // A list that is full leaves out what follows, and does not say that it does not exist.
    for command in ["ls", "history"] {
        let full = store.run_ok(&[command, "*", "*/*/*", "-n", "1", "--json"]);
        assert_eq!(json(&full).len(), 1, "{command}: {full}");
    }
    // `stats` limits the rows of names and those of agents, and counts everything.
    for sort in [&["--sort", "size"][..], &[]] {
        let args = [&["stats", "--json", "-n", "1"], sort].concat();
        let lines = json(&store.run_ok(&args));
        let of: Vec<_> = lines.iter().map(|line| line["of"].as_str()).collect();
        assert_eq!(of, [Some("name"), Some("agent"), Some("all")]);
        assert!(lines[2]["names"].as_u64() > Some(1), "{lines:?}");
    }
    let said = store.run_fails(&["ls", "--since", "then"], 2);
    assert!(said.contains("2026-11-26T14:05"), "{said}");
}

#[test]
fn every_reading_command_takes_a_point_in_time() {
    for store in on_each_backend() {
        store.save("bot/memory", "one");
        store.save("bot/memory", "two");
        store.save("bot/later", "x");
        let first = &*created(&store, "bot/memory@1");
        let at = |args: &[&str]| store.run_ok(&[args, &["--at", first]].concat());
        assert_eq!(at(&["cat", "bot/memory"]), "one");
        assert_eq!(
            addresses(&at(&["show", "bot/memory", "--json"])),
            ["bot/memory@1"]
        );
        assert_eq!(addresses(&at(&["ls", "bot", "--json"])), ["bot/memory@1"]);
        let diff = json(&at(&["diff", "bot/memory", "--json"]));
        assert_eq!(diff[0]["from"]["address"], "bot/memory@1");
        assert_eq!(diff[0]["to"]["address"], "bot/memory@2");
        at(&["fork", "bot/memory", "bot/copy"]);
        assert_eq!(store.run_ok(&["cat", "bot/copy"]), "one");
        let dir = tempdir();
        let tar = dir.path().join("x.tar");
        let tar = tar.to_str().expect("text");
        let exported = json(&at(&["export", tar, "bot", "--json"]));
        assert_eq!(exported[0]["versions"], 1);
        at(&["restore", "bot/memory"]);
        assert_eq!(store.run_ok(&["cat", "bot/memory"]), "one");
        let said = store.run_fails(&["cat", "bot/later", "--at", first], 3);
        assert!(said.contains("bot/later did not exist at"), "{said}");
        let said = store.run_fails(&["cat", "bot/memory@1", "--at", first], 2);
        assert!(said.contains("@1"), "{said}");
        store.run_ok(&["rm", "bot/memory"]);
        let deleted = &*created(&store, "bot/memory@4");
        let said = store.run_fails(&["cat", "bot/memory", "--at", deleted], 3);
        assert!(said.contains("is a tombstone"), "{said}");
        assert_eq!(addresses(&at(&["ls", "bot", "--json"])), ["bot/memory@1"]);
    }
}

#[test]
fn show_and_diff_take_selections_and_conditions() {
    let store = TestStore::local();
    three_agents(&store);
    store.save("bot-1/memory", "two");
    let file = tempdir();
    let state = file.path().join("state");
    std::fs::write(&state, "gold").expect("written");
    let gold = ["save", "bot-2/memory", state.to_str().expect("text")];
    store.run_ok(&[&gold[..], &["--label", "tier=gold"]].concat());
    let show = |args: &[&str]| addresses(&store.run_ok(&[&["show", "--json"], args].concat()));
    assert_eq!(
        show(&["bot-1/monday/", "bot-2/memory@1"]),
        [
            "bot-1/monday/memory@1",
            "bot-1/monday/notes@1",
            "bot-2/memory@1"
        ]
    );
    assert_eq!(show(&["*", "--label", "tier=gold"]), ["bot-2/memory@2"]);
    assert_eq!(
        show(&["*", "--sort", "time", "-n", "2"]),
        ["bot-2/memory@2", "bot-1/memory@2"]
    );
    let first = &*created(&store, "bot-2/memory@1");
    let then = show(&["bot-1", "bot-2", "--at", first]);
    assert_eq!(then.len(), 4, "{then:?}");
    assert!(then.contains(&"bot-1/memory@1".into()), "{then:?}");
    let shown = store.run_ok(&["show", "bot-1/monday/"]);
    assert_eq!(shown.matches("\n\naddress ").count(), 1, "{shown}");
    let diff = |args: &[&str]| json(&store.run_ok(&[&["diff", "--json"], args].concat()));
    let compared = |lines: &[Value]| -> Vec<[String; 2]> {
        let side = |line: &Value, side: &str| line[side]["address"].to_string();
        let both = |line| ["from", "to"].map(|one| side(line, one).replace('"', ""));
        lines.iter().map(both).collect()
    };
    let pair = |name: &str| [format!("{name}@1"), format!("{name}@2")];
    let changed = [pair("bot-1/memory"), pair("bot-2/memory")];
    assert_eq!(compared(&diff(&["bot-*/memory"])), changed);
    assert_eq!(compared(&diff(&["bot-*", "--at", first])), changed);
    assert_eq!(compared(&diff(&["*", "--label", "tier"])), changed[1..]);
    let said = store.run_ok(&["diff", "bot-*/memory"]);
    assert_eq!(said.matches("\n\nfrom ").count(), 1, "{said}");
    // One name with a condition, too; and a condition that nothing meets.
    for command in ["show", "diff"] {
        store.run_fails(&[command, "bot-1/memory", "--label", "tier"], 3);
        store.run_fails(&[command, "bot-1/memory@1", "--label", "tier"], 2);
        store.run_fails(&[command, "nosuch-*"], 3);
        store.run_fails(&[command, "bot-1", "--at", "2001-01-01"], 3);
    }
    store.run_fails(&["diff", "bot-1", "bot-2/memory"], 2);
}

#[test]
fn check_and_copy_take_a_point_in_time() {
    let store = TestStore::local();
    store.save("bot/memory", "one");
    store.save("bot/gone", "x");
    let first = &*created(&store, "bot/gone@1");
    let dir = tempdir();
    let state = dir.path().join("state");
    std::fs::write(&state, persist_tests::noise(1, 100_000)).expect("written");
    store.run_ok(&["save", "bot/memory", state.to_str().expect("text")]);
    store.save("bot/later", "x");
    store.run_ok(&["rm", "bot/gone"]);
    let to = format!("file://{}", dir.path().join("copy").display());
    let from = format!("file://{}", store.path().display());
    let copy = ["copy", &from, &to, "--at", first];
    let planned = json(&store.run_ok(&[&copy[..], &["--create", "--dry-run", "--json"]].concat()));
    assert_eq!(planned.last().expect("a summary")["copied"], 2);
    store.run_ok(&[&copy[..], &["--create"]].concat());
    let copied = store.run_ok(&["ls", "--json", "--storage", &to]);
    assert_eq!(addresses(&copied), ["bot/gone@1", "bot/memory@1"]);
    // A second time there is nothing to copy, and nothing is called identical.
    let again = json(&store.run_ok(&[&copy[..], &["--read-data", "--json"]].concat()));
    let summary = again.last().expect("a summary");
    assert_eq!(
        (&summary["copied"], &summary["versions"]),
        (&0.into(), &2.into())
    );
    assert_eq!(summary["identical"], false);
    store.run_fails(&["copy", &from, &to, "--at", "2001-01-01"], 3);
    store.run_fails(&[&copy[..], &["--delete"]].concat(), 2);

    // The damage is in a version that was not there then.
    let file = store
        .path()
        .join("bot/~/memory")
        .join(persist_tests::version_file(2));
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes[50_000] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    store.run_ends(&["check", "--read-data"], 6);
    let checked = json(&store.run_ok(&["check", "--at", first, "--read-data", "--json"]));
    let summary = checked.last().expect("a summary");
    for key in ["names", "versions", "read"] {
        assert_eq!(summary[key], 2, "{key}");
    }
    store.run_fails(&["check", "--at", "2001-01-01"], 3);
    let file = store
        .path()
        .join("bot/~/gone")
        .join(persist_tests::version_file(1));
    std::fs::remove_file(file).expect("removed");
    let (printed, _) = store.run_ends(&["check", "--at", first, "--json"], 10);
    let lines = json(&printed);
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["address"]),
        (&"pruned".into(), &"bot/gone".into())
    );
    store.run_ends(&["copy", &from, &to, "--at", first], 6);
}

/// An agent of which each name had another fate since the time that is returned.
fn eventful(store: &TestStore) -> String {
    for address in [
        "bot/changed",
        "bot/deleted",
        "bot/monday/changed",
        "bot/back",
    ] {
        store.save(address, "before");
    }
    store.run_ok(&["rm", "bot/back"]);
    store.save("bot/same", "same");
    let time = created(store, "bot/same");
    store.save("bot/changed", "after");
    store.save("bot/monday/changed", "after");
    store.run_ok(&["rm", "bot/deleted"]);
    store.save("bot/back", "after");
    store.save("bot/new", "new");
    store.save("other/memory", "untouched");
    time
}

#[test]
fn an_agent_is_put_back_to_a_point_in_time_and_the_undo_command_undoes_it() {
    for store in on_each_backend() {
        let time = &*eventful(&store);
        let before = states(&store);
        let planned = store.run_ok(&["restore", "bot", "--at", time, "--dry-run"]);
        assert!(planned.contains("would restore bot/changed@1"), "{planned}");
        assert!(planned.contains("left alone bot/new"), "{planned}");
        assert_eq!(states(&store), before, "a dry run changes nothing");
        let said = store.run_fails(&["restore", "bot", "--at", time], 2);
        assert!(said.contains("add --yes"), "{said}");

        let restored = store.run(&["restore", "bot", "--at", time, "--yes"]);
        let printed = text(&restored.stdout);
        assert!(restored.status.success(), "{}", text(&restored.stderr));
        assert!(printed.contains("left alone bot/back"), "{printed}");
        assert!(
            printed.contains("3 names restored, 1 unchanged"),
            "{printed}"
        );
        let mut then = before.clone();
        for name in ["bot/changed", "bot/deleted", "bot/monday/changed"] {
            then.insert(name.into(), "before".into());
        }
        assert_eq!(states(&store), then, "{}", store.name());
        // Once more, nothing is left to do.
        let again = store.run_ok(&["restore", "bot", "--at", time, "--yes"]);
        assert!(again.contains("0 names restored, 4 unchanged"), "{again}");
        paste_undo(&store, text(&restored.stderr));
        assert_eq!(states(&store), before, "{}", store.name());

        let args = ["restore", "bot", "--at", time, "--yes", "--delete-new"];
        let restored = store.run(&args);
        then.remove("bot/new");
        then.remove("bot/back");
        assert_eq!(states(&store), then, "{}", store.name());
        paste_undo(&store, text(&restored.stderr));
        assert_eq!(states(&store), before, "{}", store.name());
    }
}

#[test]
fn a_name_whose_past_is_pruned_is_left_alone_and_said() {
    let [store, ..] = on_each_backend();
    store.save("bot/old", "one");
    store.save("bot/kept", "one");
    let time = created(&store, "bot/kept@1");
    store.save("bot/old", "two");
    store.save("bot/old", "three");
    store.save("bot/kept", "two");
    let pruned = [
        "prune",
        "bot/old",
        "--keep-last",
        "1",
        "--all-hosts-stopped",
    ];
    let mut prune = store.command();
    let prune = prune.args(pruned).env("PERSIST_GRACE", "0s");
    let prune = prune.output().expect("persist starts");
    assert!(prune.status.success(), "{}", text(&prune.stderr));
    let args = ["restore", "bot", "--at", &time, "--yes", "--delete-new"];
    let (printed, _) = store.run_ends(&args, 10);
    assert!(printed.contains("left alone bot/old"), "{printed}");
    assert!(printed.contains("pruned"), "{printed}");
    assert_eq!(store.run_ok(&["cat", "bot/old"]), "three");
    assert_eq!(store.run_ok(&["cat", "bot/kept"]), "one");
}

#[test]
fn a_name_that_is_saved_meanwhile_is_not_overwritten() {
    let [store, ..] = on_each_backend();
    for (name, state) in [
        ("bot/a", "one"),
        ("bot/b", "one"),
        ("bot/a", "two"),
        ("bot/b", "two"),
    ] {
        store.save(name, state);
    }
    let time = created(&store, "bot/b@1");
    for args in [
        &["restore", "bot", "--at", &time][..],
        &["rm", "bot"],
        &["mv", "bot", "helper"],
    ] {
        let mut command = store.command();
        command.args(args);
        let mut terminal = Terminal::start(&command);
        terminal.wait_for("[y/N]");
        store.save("bot/a", "meanwhile");
        terminal.press("y\n");
        let (code, shown) = terminal.end();
        if args[0] == "mv" {
            // What was saved before the copy began is moved, too.
            assert_eq!(code, Some(0), "{shown}");
            assert_eq!(store.run_ok(&["cat", "helper/a"]), "meanwhile");
            continue;
        }
        assert_eq!(code, Some(4), "{args:?}: {shown}");
        assert!(shown.contains("bot/a: conflict"), "{args:?}: {shown}");
        assert_eq!(store.run_ok(&["cat", "bot/a"]), "meanwhile", "{args:?}");
        if args[0] == "rm" {
            store.run_fails(&["cat", "bot/b"], 3);
            store.run_ok(&["restore", "bot/b@1"]);
        } else {
            assert_eq!(store.run_ok(&["cat", "bot/b"]), "one");
        }
    }
}

#[test]
fn a_question_is_answered_with_yes_or_changes_nothing() {
    let [store, ..] = on_each_backend();
    three_agents(&store);
    for answer in ["\n", "n\n", "bot-1\n"] {
        let mut command = store.command();
        command.args(["rm", "bot-1"]);
        let mut terminal = Terminal::start(&command);
        terminal.wait_for("[y/N]");
        terminal.press(answer);
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(2), "{shown}");
        assert!(shown.contains("delete bot-1/monday/notes"), "{shown}");
    }
    assert_eq!(states(&store).len(), 5);
    store.run_fails(&["rm", "bot-1", "--expect", "1", "--yes"], 2);
    store.run_fails(&["restore", "bot-1", "--delete-new"], 2);
    let said = store.run_fails(&["restore", "bot-1"], 2);
    assert!(said.contains("--at"), "{said}");
    let said = store.run_fails(&["fork", "bot-1", "bot-3/memory"], 2);
    assert!(said.contains("not of the same form"), "{said}");
    let said = store.run_fails(&["mv", "bot-1", "bot-1", "--yes"], 2);
    assert!(said.contains("the same"), "{said}");
}

#[test]
fn an_agent_and_a_session_are_deleted_and_the_undo_command_undoes_it() {
    for store in on_each_backend() {
        three_agents(&store);
        let before = states(&store);
        for (selection, left) in [("bot-1", 2), ("bot-1/monday/", 3), ("bot-*/memory", 3)] {
            let deleted = store.run(&["rm", selection, "--yes"]);
            assert!(deleted.status.success(), "{}", text(&deleted.stderr));
            assert_eq!(states(&store).len(), left, "{selection}");
            paste_undo(&store, text(&deleted.stderr));
            assert_eq!(states(&store), before, "{}: {selection}", store.name());
        }
        let output = json(&store.run_ok(&["rm", "bot-2", "other", "--yes", "--json"]));
        let summary = output.last().expect("a summary");
        assert_eq!(summary["changed"], 2);
        let undo = summary["undo"].as_str().expect("a command");
        paste_undo(&store, &format!("to undo: {undo}"));
        assert_eq!(states(&store), before);
    }
}

#[test]
fn an_interrupted_change_prints_the_command_that_undoes_it() {
    let [store, ..] = on_each_backend();
    let scope = Store::new(store.storage());
    let scope = scope.scope("bot", None).expect("a scope");
    store.command();
    block_on(async {
        for n in 0..200 {
            let name = n.to_string();
            let saved = scope.save(&name, "state".into(), SaveOptions::default());
            saved.await.expect("saves");
        }
    });
    let names = |store: &TestStore| store.run_ok(&["ls", "-q"]).lines().count();
    let mut command = store.command();
    command.args(["rm", "bot", "--yes"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut deleting = command.spawn().expect("persist starts");
    let mut stdout = BufReader::new(deleting.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert!(line.starts_with("deleted bot/"), "{line}");
    let pid = deleting.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status();
    assert!(killed.expect("kill starts").success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    let output = deleting.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let left = names(&store);
    assert!(left > 0 && left < 200, "{left} names are left: {rest}");
    paste_undo(&store, said);
    assert_eq!(names(&store), 200);
}

#[test]
fn an_empty_name_in_a_script_does_not_select_an_agent() {
    let [store, ..] = on_each_backend();
    three_agents(&store);
    for args in [
        &["rm", "bot-1/", "--yes"][..],
        &["purge", "bot-1/", "--yes"],
        &["restore", "bot-1/", "--at", "now", "--yes"],
        &["mv", "bot-1/", "x", "--yes"],
        &["rm", "bot-1//memory", "--yes"],
        &["rm", "", "--yes"],
    ] {
        store.run_fails(args, 2);
    }
    assert_eq!(states(&store).len(), 5);
    assert_eq!(store.run_ok(&["ls", "-q", "bot-1/"]).lines().count(), 3);
}

#[test]
fn conditions_select_what_a_command_changes() {
    let [store, ..] = on_each_backend();
    three_agents(&store);
    let save = |address: &str, label: &str| {
        let mut command = store.command();
        command.args(["save", address, "--label", label, "/etc/hostname"]);
        assert!(command.status().expect("persist starts").success());
    };
    save("bot-1/memory", "by=hand");
    save("bot-2/memory", "by=hand");
    save("bot-2/notes", "by=machine");
    let pins = |selection: &str| {
        let pinned = store.run(&["history", selection, "--pinned", "--json"]);
        addresses(text(&pinned.stdout))
    };

    // Pins: by time, by condition, and several at once.
    store.run_ok(&["pin", "bot-*/memory", "other", "--at", "now"]);
    assert_eq!(
        pins("*"),
        ["bot-1/memory@2", "bot-2/memory@2", "other/memory@1"]
    );
    store.run_ok(&["unpin", "*", "--label", "by=hand", "--reverse", "-n", "1"]);
    assert_eq!(pins("*"), ["bot-1/memory@2", "other/memory@1"]);
    store.run_ok(&["unpin", "*", "--pinned"]);
    assert!(pins("*").is_empty());
    for (args, code) in [
        (&["pin", "bot-1"][..], 2),
        (&["pin", "bot-1/memory@1", "--at", "now"], 2),
        (&["pin", "bot-1/memory@1", "--label", "by"], 2),
        (&["unpin", "bot-1", "--pinned"], 3),
    ] {
        store.run_fails(args, code);
    }

    // Changes of names: by their newest versions.
    let planned =
        |args: &[&str]| addresses(&store.run_ok(&[args, &["--dry-run", "--json"]].concat()));
    let by_hand = ["bot-1/memory", "bot-2/memory"];
    for args in [
        &["rm", "bot-*", "--label", "by=hand"][..],
        &["purge", "bot-1", "bot-2", "--label", "by=hand"],
    ] {
        assert_eq!(planned(args), by_hand, "{args:?}");
    }
    let moved = ["mv", "bot-2", "bot-3", "--label", "by=machine"];
    assert_eq!(planned(&moved), ["bot-3/notes"]);
    let forked = ["fork", "bot-2", "bot-3", "--sort", "size", "-n", "1"];
    assert_eq!(planned(&forked).len(), 1);
    store.run_ok(&["pin", "bot-1/memory@1"]);
    let pruned = store.run_ok(&["prune", "bot-*", "--dry-run", "--pinned", "--json"]);
    let names: Vec<_> = addresses(&pruned);
    assert_eq!(names, ["bot-1/memory@2", "bot-1/memory@1"]);
    let said = store.run_fails(&["rm", "bot-*", "--deleted", "--yes"], 3);
    assert!(
        said.contains("nothing matches bot-* with these options in"),
        "{said}"
    );
    assert!(said.contains("hint: remove an option"), "{said}");

    store.run_ok(&["rm", "*", "--label", "by", "--yes"]);
    let left: Vec<_> = states(&store).into_keys().collect();
    assert_eq!(
        left,
        ["bot-1/monday/memory", "bot-1/monday/notes", "other/memory"]
    );
    store.run_ok(&["purge", "bot-*", "--deleted", "--yes", "--now"]);
    let all = addresses(&store.run_ok(&["history", "bot-*/memory", "--json"]));
    assert_eq!(all, ["bot-1/memory@3", "bot-2/memory@3"]);
}

#[test]
fn a_missing_or_deleted_name_is_said_with_what_to_do() {
    let [store, ..] = on_each_backend();
    three_agents(&store);
    for command in ["cat", "show", "rm"] {
        for (address, hint) in [
            ("bot-1/memroy", "did you mean bot-1/memory?"),
            ("bot-1/monday", "for the session, write bot-1/monday/"),
        ] {
            let said = store.run_fails(&[command, address], 3);
            let what = format!("nothing matches {address} in the ");
            assert!(said.contains(&what), "{command}: {said}");
            assert!(said.contains(hint), "{command}: {said}");
        }
    }
    for command in ["cat", "show", "ls", "pin", "restore"] {
        let said = store.run_fails(&[command, "bot-1/memroy@1"], 3);
        assert!(
            said.contains("nothing matches bot-1/memroy in the "),
            "{command}: {said}"
        );
        assert!(
            said.contains("did you mean bot-1/memory?"),
            "{command}: {said}"
        );
    }
    store.run_ok(&["rm", "other", "--yes"]);
    let said = store.run_fails(&["rm", "other/memory"], 3);
    assert!(said.contains("persist restore other/memory@1"), "{said}");
    let said = store.run_fails(&["ls", "other"], 3);
    assert!(said.contains("nothing matches other in"), "{said}");
    assert!(said.contains("--all"), "{said}");
}

#[test]
fn an_agent_and_a_session_are_purged() {
    for store in on_each_backend() {
        three_agents(&store);
        let planned = store.run_ok(&["purge", "bot-1", "--dry-run"]);
        assert_eq!(planned.lines().count(), 3, "{planned}");
        let said = store.run_fails(&["purge", "bot-1"], 2);
        assert!(said.contains("3 names with 3 versions"), "{said}");
        let before = states(&store);
        assert_eq!(before.len(), 5);
        store.run_ok(&["purge", "bot-1/monday/", "--yes", "--now"]);
        assert_eq!(states(&store).len(), 3);
        store.run_ok(&["purge", "bot-*", "--yes", "--now"]);
        assert_eq!(states(&store).len(), 1);
        let history = store.run_ok(&["history", "bot-1", "-q"]);
        assert_eq!(history.lines().count(), 3, "tombstones are left: {history}");
    }
}

#[test]
fn an_agent_is_forked_with_its_origin_and_the_undo_command_undoes_it() {
    for store in on_each_backend() {
        three_agents(&store);
        store.save("bot-1/memory", "two");
        let before = states(&store);
        let forked = store.run(&["fork", "bot-1", "test", "--yes"]);
        assert!(forked.status.success(), "{}", text(&forked.stderr));
        assert_eq!(store.run_ok(&["cat", "test/memory"]), "two");
        let shown = json(&store.run_ok(&["show", "test/monday/notes", "--json"]));
        let origin = &shown[0]["labels"]["persist.forked-from"];
        assert_eq!(origin, "bot-1/monday/notes@1");
        // Names that have a state are not overwritten, and nothing else is changed.
        let said = store.run_fails(&["fork", "bot-2", "test", "--yes"], 4);
        assert!(said.contains("test/memory has a state"), "{said}");
        paste_undo(&store, text(&forked.stderr));
        assert_eq!(states(&store), before);

        let time = created(&store, "other/memory");
        store.run_ok(&["fork", "bot-1", "past", "--at", &time, "--yes"]);
        assert_eq!(store.run_ok(&["cat", "past/memory"]), "bot-1/memory");
        let args = ["fork", "bot-2", "past", "--expect", "any", "--yes"];
        let overwritten = store.run(&args);
        assert_eq!(store.run_ok(&["cat", "past/memory"]), "bot-2/memory");
        paste_undo(&store, text(&overwritten.stderr));
        assert_eq!(store.run_ok(&["cat", "past/memory"]), "bot-1/memory");
        store.run_ok(&["fork", "bot-1/monday/", "bot-1/tuesday/", "--yes"]);
        let tuesday = addresses(&store.run_ok(&["ls", "bot-1/tuesday/", "--json"]));
        assert_eq!(tuesday, ["bot-1/tuesday/memory@1", "bot-1/tuesday/notes@1"]);
    }
}

#[test]
fn a_rename_keeps_history_times_labels_and_pins() {
    for store in on_each_backend() {
        store.save("bot/memory", "one");
        store.save("bot/memory", "two");
        store.run_ok(&["rm", "bot/memory"]);
        store.save("bot/memory", "four");
        store.save("bot/monday/notes", "notes");
        store.save("bot/gone", "gone");
        store.run_ok(&["rm", "bot/gone"]);
        store.run_ok(&["pin", "bot/memory@2"]);
        let before = states(&store);
        let history = |agent: &str| -> Vec<[Value; 4]> {
            let name = format!("{agent}/memory");
            let lines = json(&store.run_ok(&["history", &name, "--json"]));
            let keys = ["created_at", "sha256", "deleted", "pinned"];
            let row = |line: &Value| keys.map(|key| line[key].clone());
            lines.iter().map(row).collect()
        };
        let old = history("bot");
        let moved = store.run(&["mv", "bot", "helper", "--yes"]);
        let printed = text(&moved.stdout);
        assert!(moved.status.success(), "{}", text(&moved.stderr));
        assert!(
            printed.contains("moved bot/memory@4 to helper/memory@4"),
            "{printed}"
        );
        assert!(printed.contains("left alone bot/gone"), "{printed}");
        assert_eq!(history("helper"), old, "{}", store.name());
        let shown = json(&store.run_ok(&["show", "helper/memory@2", "--json"]));
        let origin = &shown[0]["labels"]["persist.forked-from"];
        assert_eq!(origin, "bot/memory@2");
        let now: Vec<_> = states(&store).into_keys().collect();
        assert_eq!(now, ["helper/memory", "helper/monday/notes"]);
        store.run_ok(&["check", "--read-data"]);
        paste_undo(&store, text(&moved.stderr));
        assert_eq!(states(&store), before, "{}", store.name());

        store.run_ok(&["mv", "bot/memory", "bot/tuesday/memory"]);
        assert_eq!(store.run_ok(&["cat", "bot/tuesday/memory"]), "four");
        let said = store.run_fails(&["mv", "bot/monday/notes", "bot/tuesday/memory"], 4);
        assert!(said.contains("has a state"), "{said}");
    }
}

#[test]
fn misplaced_versions_have_one_line_for_each_name() {
    let [store, ..] = on_each_backend();
    for _ in 0..5 {
        store.save("bot/memory", "state");
    }
    let dir = store.path().join("bot/~");
    std::fs::rename(dir.join("memory"), dir.join("moved")).expect("renamed");
    let (printed, _) = store.run_ends(&["check"], 6);
    let lines: Vec<_> = printed
        .lines()
        .filter(|line| line.contains("misplaced"))
        .collect();
    assert_eq!(lines.len(), 1, "{printed}");
    assert!(lines[0].contains("bot/moved (5 versions"), "{printed}");
    let (printed, _) = store.run_ends(&["check", "--json"], 6);
    let lines = json(&printed);
    let misplaced = lines.iter().filter(|line| line["kind"] == "misplaced");
    assert_eq!(misplaced.count(), 5, "each version for programs");
}
