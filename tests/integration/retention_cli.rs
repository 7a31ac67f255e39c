//! Retention of histories, through the command, on every backend.

use std::process::Command;
use std::time::Duration;

use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::{tempdir, text};

#[test]
fn a_plan_to_prune_names_the_rule_for_each_version() {
    for backend in on_each_backend() {
        for state in ["one", "two", "three"] {
            backend.save("bot/memory", state);
        }
        backend.run_ok(&["pin", "bot/memory@1"]);
        assert!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .trim_end()
                .ends_with("pinned")
        );
        assert!(
            backend
                .run_ok(&["show", "bot/memory@1"])
                .contains("pinned      yes")
        );
        let planned = backend.run_ok(&["prune", "-q", "--dry-run", "--keep-last", "1"]);
        let lines: Vec<_> = planned.lines().collect();
        for (line, why) in lines.iter().zip([
            "newest",
            "newest within the last 1h",
            "newest within the last 1h",
            "would remove 0 of 3 versions of 1 name, 0 B",
        ]) {
            assert!(line.ends_with(why), "{line}");
        }
        let lines = json(&backend.run_ok(&["prune", "bot", "--json", "--keep-last", "1"]));
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (&lines[0]["versions"], &lines[0]["removed"]),
            (&3.into(), &0.into())
        );
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            3
        );

        assert_eq!(
            backend.run_ok(&["unpin", "bot/memory@1"]),
            "unpinned bot/memory@1\n"
        );
        let again = backend.run(&["unpin", "bot/memory@1"]);
        assert!(text(&again.stderr).contains("was not pinned"));
        assert!(again.status.success());
        backend.run_fails(&["pin", "bot/memory@9"], 3);
        backend.run_fails(&["pin", "bot/memory"], 2);
    }
}

#[test]
fn a_purge_asks_spares_who_is_writing_and_can_be_told_not_to() {
    for backend in on_each_backend() {
        for state in ["one", "two"] {
            backend.save("bot/memory", state);
        }
        assert!(
            backend
                .run_fails(&["purge", "bot/memory"], 2)
                .contains("--yes")
        );
        backend.run_fails(&["purge", "bot/nothing", "--yes"], 3);
        backend.run_fails(&["purge", "bot/memory@1", "--yes"], 2);
        let purged = backend.run(&["purge", "bot/memory", "--yes"]);
        let printed = "purged bot/memory: 0 versions removed; bot/memory@3 is a tombstone\n";
        assert_eq!(text(&purged.stdout), printed);
        // What can still be read is no success.
        assert_eq!(purged.status.code(), Some(10));
        assert!(text(&purged.stderr).contains("run `persist purge bot/memory` again"));
        let printed = backend.run_ok(&["purge", "bot/memory", "--yes", "--now"]);
        let wanted = "purged bot/memory: 2 versions removed; bot/memory@3 is a tombstone\n";
        assert_eq!(printed, wanted);
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            1
        );
        backend.save("bot/memory", "new");
        assert_eq!(backend.run_ok(&["ls", "-q"]).lines().count(), 1);
        assert!(backend.run_ok(&["ls", "-q"]).starts_with("bot/memory@4"));
    }
}

/// A prune for which every replaced version is old at once.
fn impatient(backend: &TestStore, args: &[&str]) -> String {
    let mut command = backend.command();
    command
        .env("PERSIST_GRACE", "0s")
        .args(args)
        .arg("--all-hosts-stopped");
    let output = command.output().expect("persist starts");
    let said = text(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {args:?}: {said}",
        backend.name()
    );
    text(&output.stdout).to_owned()
}

#[test]
fn versions_without_a_rule_are_pruned_and_reported() {
    for backend in on_each_backend() {
        for state in ["one", "two", "three", "four"] {
            backend.save("bot/memory", state);
        }
        backend.save("other/memory", "one");
        backend.run_ok(&["pin", "bot/memory@2"]);
        // The times of servers are whole seconds.
        std::thread::sleep(Duration::from_secs(2));
        let args = ["prune", "-q", "--keep-last", "1"];
        let planned = impatient(&backend, &[&args[..], &["--dry-run"]].concat());
        for (line, why) in planned.lines().zip([
            "newest",
            "no rule keeps it",
            "it is pinned",
            "no rule keeps it",
            "newest",
        ]) {
            assert!(line.ends_with(why), "{}: {planned}", backend.name());
        }
        // Without `-q`, which prints nothing on success.
        let pruned = impatient(&backend, &["prune", "--keep-last", "1"]);
        let lines: Vec<_> = pruned.lines().skip(1).collect();
        assert!(lines[0].starts_with("removed  bot/memory@3"), "{pruned}");
        assert!(
            lines[2].starts_with("removed 2 of 5 versions of 2 names"),
            "{pruned}"
        );
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            2
        );
        assert_eq!(backend.run_ok(&["cat", "bot/memory"]), "four");
    }
}

#[test]
fn growth_is_told_by_name_agent_and_all() {
    for backend in on_each_backend() {
        for address in ["bot/memory", "bot/memory", "bot/s/memory", "other/notes"] {
            backend.save(address, "twelve bytes");
        }
        let lines = json(&backend.run_ok(&["stats", "--json", "--states"]));
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                let text = |key: &str| line[key].as_str().map(str::to_owned);
                (
                    text("of").expect("text"),
                    text("address"),
                    line["versions"].as_u64(),
                    line["states"].as_u64(),
                )
            })
            .collect();
        let line = |of: &str, address: Option<&str>, versions| {
            (
                of.to_owned(),
                address.map(str::to_owned),
                Some(versions),
                Some(12 * versions),
            )
        };
        // In the order of keys.
        let expected = vec![
            line("name", Some("bot/s/memory"), 1),
            line("name", Some("bot/memory"), 2),
            line("agent", Some("bot"), 3),
            line("name", Some("other/notes"), 1),
            line("agent", Some("other"), 1),
            line("all", None, 4),
        ];
        assert_eq!(told, expected, "{}", backend.name());
        let days = lines[0]["days"].as_array().expect("days");
        assert_eq!(days.iter().filter(|day| **day != 0).count(), 1, "{days:?}");
        let shown = backend.run_ok(&["stats", "bot"]);
        assert!(
            shown.contains("= bot, 2 names") && shown.contains('█'),
            "{shown}"
        );
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
    }
}

#[test]
fn commands_prune_nothing_as_a_side_effect() {
    let [local, ..] = on_each_backend();
    let dir = tempdir();
    let file = dir.path().join("state");
    let with_rules = |args: &[&str]| {
        let mut command = local.command();
        command
            .env("PERSIST_GRACE", "0s")
            .env("PERSIST_KEEP_WITHIN", "0s")
            .env("PERSIST_KEEP_LAST", "3")
            .env("PERSIST_KEEP_HOURLY", "0")
            .env("PERSIST_KEEP_DAILY", "0")
            .env("PERSIST_KEEP_WEEKLY", "0")
            .args(args);
        command.output().expect("persist starts")
    };
    let kept = [
        "--keep-within",
        "0s",
        "--keep-last",
        "3",
        "--keep-hourly",
        "0",
    ];
    let kept = [&kept[..], &["--keep-daily", "0", "--keep-weekly", "0"]].concat();
    local.run_ok(&[&["policy", "set", "--grace", "0s"][..], &kept].concat());
    for version in 1..=32 {
        std::fs::write(&file, version.to_string()).expect("writes");
        let saved = with_rules(&["save", "bot/memory", file.to_str().expect("text")]);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
    }
    let restored = with_rules(&["restore", "bot/memory@1"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_eq!(
        local
            .run_ok(&["history", "-q", "bot/memory"])
            .lines()
            .count(),
        33
    );
}

#[test]
fn the_stores_policy_is_shown_changed_and_followed() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "one");
        let shown = backend.run_ok(&["policy"]);
        for row in [
            "version      1",
            "grace        1h",
            "keep-last    20",
            "keep-weekly  52",
        ] {
            assert!(shown.contains(row), "{}: {shown}", backend.name());
        }
        let set = ["policy", "set", "--keep-last", "2", "--grace", "2h"];
        let set = backend.run_ok(&set);
        for row in [
            "version      2",
            "grace        2h",
            "keep-last    2",
            "keep-weekly  52",
        ] {
            assert!(set.contains(row), "{}: {set}", backend.name());
        }
        backend.run_ok(&["policy", "set", "--keep-all"]);
        let json = backend.run_ok(&["policy", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["version"], 3);
        assert_eq!(json["grace_seconds"], 7200.0);
        assert_eq!(json["retention"], serde_json::Value::Null);
        // Nothing is pruned by a policy that keeps everything.
        let mut command = backend.command();
        let refused = command.arg("prune").output().expect("persist starts");
        assert_eq!(refused.status.code(), Some(2));
        let said = text(&refused.stderr);
        assert!(said.contains("keeps every version"), "{said}");
    }
}

#[test]
fn a_store_that_a_copy_makes_gets_the_policy_of_its_source() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    local.run_ok(&["policy", "set", "--keep-all", "--grace", "2h"]);
    let other = tempdir();
    let to = format!("file://{}", other.path().join("copy").display());
    local.run_ok(&["copy", "--create", local.url(), &to]);
    let has_it = |url: &str| {
        let policy = local.run_ok(&["policy", "--storage", url]);
        policy.contains("grace        2h") && policy.contains("keep         every version")
    };
    assert!(has_it(&to));

    let archive = other.path().join("agents.tar");
    let archive = archive.to_str().expect("text");
    local.run_ok(&["export", archive]);
    let imported = format!("file://{}", other.path().join("imported").display());
    local.run_ok(&["import", "--create", archive, "--storage", &imported]);
    assert!(has_it(&imported));
    let unpacked = other.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("made");
    let tar = Command::new("tar")
        .args(["xf", archive, "-C"])
        .arg(&unpacked)
        .status();
    assert!(tar.expect("tar starts").success());
    assert!(has_it(&format!("file://{}", unpacked.display())));
    // A store that is there keeps its own.
    local.run_ok(&["policy", "set", "--grace", "3h", "--storage", &imported]);
    local.run_ok(&["import", "--create", archive, "--storage", &imported]);
    let policy = local.run_ok(&["policy", "--storage", &imported]);
    assert!(policy.contains("grace        3h"), "{policy}");
}

#[test]
fn a_policy_that_cannot_be_read_is_left_out_of_an_archive_and_said() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    let key = "~/~/policy/9999999998-0000000001.gz";
    local.delete_object(key);
    local.put_object(key, b"no snapshot");
    let dir = tempdir();
    let archive = dir.path().join("agents.tar");
    let archive = archive.to_str().expect("text");
    let said = local.run_fails(&["export", archive], 6);
    assert!(said.contains("policy was not exported"), "{said}");
    let imported = format!("file://{}", dir.path().join("imported").display());
    local.run_ok(&["import", "--create", archive, "--storage", &imported]);
    assert_eq!(
        local.run_ok(&["cat", "bot/memory", "--storage", &imported]),
        "one"
    );
}

#[test]
fn names_expire_by_the_policy_and_a_dry_run_says_why() {
    // The times of servers have whole seconds: there, nothing is a millisecond old at once.
    let backend = TestStore::local();
    let mut init = backend.command_without_store();
    let init = init.env("PERSIST_GRACE", "0s").arg("init").status();
    assert!(init.expect("persist starts").success());
    for address in [
        "bot/memory",
        "bot/monday/notes",
        "bot/tuesday/notes",
        "ops/log",
    ] {
        backend.save(address, "x");
    }
    backend.run_ok(&["pin", "bot/tuesday/notes@1"]);
    backend.run_fails(&["policy", "set", "--expire-after", "0s"], 2);
    let too_soon = ["policy", "set", "--grace", "1h", "--expire-after", "10m"];
    let said = backend.run_fails(&too_soon, 2);
    assert!(
        said.contains("10m") && said.contains("hint: choose"),
        "{said}"
    );
    backend.run_fails(&["policy", "set", "--expire-after", "bot/a/b=1h"], 2);
    // Nothing expires before a rule is set.
    assert_eq!(json(&backend.run_ok(&["prune", "--json"]))[0]["expired"], 0);
    let rules = ["--expire-after", "1ms", "--expire-after", "ops=never"];
    let args = [&["policy", "set", "--json"], &rules[..]].concat();
    let policy = json(&backend.run_ok(&args));
    let expire = policy[0]["expire"].as_array();
    assert_eq!(expire.map(Vec::len), Some(2), "{policy:?}");
    let shown = backend.run_ok(&["policy"]);
    for row in ["expire-after 1ms", "expire-after ops=never"] {
        assert!(shown.contains(row), "{shown}");
    }
    let plan = backend.run_ok(&["prune", "--dry-run"]);
    let row = |address: &str, why: &str| {
        let mut rows = plan.lines().filter(|line| line.contains(address));
        assert!(
            rows.any(|row| row.contains(why)),
            "{address}, {why}: {plan}"
        );
    };
    row("bot/memory@1", "not saved within 1ms");
    row("bot/monday/notes@1", "not saved within 1ms");
    row("bot/tuesday/notes@1", "a version is pinned");
    let of_ops = plain_rows(&plan, "ops/log@1");
    assert!(
        of_ops.iter().all(|row| !row.starts_with("expire")),
        "{plan}"
    );
    assert!(plan.contains("would expire 2 names"), "{plan}");
    assert_eq!(backend.run_ok(&["ls", "--json"]).lines().count(), 4);
    let lines = json(&backend.run_ok(&["prune", "--json"]));
    let summary = lines.last().expect("a summary");
    assert_eq!(
        (&summary["expired"], &summary["purged"]),
        (&2.into(), &0.into())
    );
    assert_eq!(backend.run_ok(&["ls", "--json"]).lines().count(), 2);
    backend.run_ok(&["restore", "bot/memory@1"]);
    let lines = json(&backend.run_ok(&["prune", "bot/monday/", "--json"]));
    assert_eq!(lines.last().expect("a summary")["purged"], 1);
    let history = backend.run_ok(&["history", "bot/monday/notes", "--json"]);
    assert_eq!(history.lines().count(), 1);
    backend.run_ok(&["policy", "set", "--no-expire"]);
    assert!(!backend.run_ok(&["policy"]).contains("expire-after"));
}

/// Returns the rows of a table that contain an address.
fn plain_rows<'a>(table: &'a str, address: &str) -> Vec<&'a str> {
    table
        .lines()
        .filter(|line| line.contains(address))
        .collect()
}

#[test]
fn a_policy_keeps_by_month_year_and_label() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "1");
    let rules = [
        "--keep-monthly",
        "12",
        "--keep-yearly",
        "3",
        "--keep-label",
        "release",
    ];
    local.run_ok(&[&["policy", "set"], &rules[..]].concat());
    let shown = local.run_ok(&["policy"]);
    for row in [
        "keep-monthly 12",
        "keep-yearly  3",
        "keep-label   release",
        "keep-weekly  52",
    ] {
        assert!(shown.contains(row), "{shown}");
    }
    local.run_ok(&["policy", "set", "--no-keep-label"]);
    assert!(!local.run_ok(&["policy"]).contains("keep-label"));
    let kept = [
        "prune",
        "--dry-run",
        "--keep-label",
        "a=b",
        "--keep-yearly",
        "1",
    ];
    local.run_ok(&kept);
    local.run_fails(&["prune", "--keep-label", "=x"], 2);
}

#[test]
fn a_prune_by_a_shorter_grace_period_than_the_stores_is_refused() {
    let [local, ..] = on_each_backend();
    for state in ["one", "two", "three"] {
        local.save("bot/memory", state);
    }
    let prune = |args: &[&str]| {
        let mut command = local.command();
        command.env("PERSIST_GRACE", "0s").arg("prune").args(args);
        command.output().expect("persist starts")
    };
    let refused = prune(&["--keep-last", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    for part in ["PERSIST_GRACE is 0s", "period of 1h", "--all-hosts-stopped"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(
        local
            .run_ok(&["history", "-q", "bot/memory"])
            .lines()
            .count(),
        3
    );
    let pruned = prune(&["--keep-last", "1", "--all-hosts-stopped"]);
    assert!(pruned.status.success(), "{}", text(&pruned.stderr));
    assert_eq!(
        local
            .run_ok(&["history", "-q", "bot/memory"])
            .lines()
            .count(),
        1
    );
}

#[test]
fn only_unfinished_saves_are_removed() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "one");
        for args in [
            &["gc", "--dry-run"][..],
            &["gc"],
            &["gc", "--older-than", "7d"],
        ] {
            let lines = json(&backend.run_ok(&[args, &["--json"]].concat()));
            assert_eq!(lines[0]["removed"], 0, "{}: {args:?}", backend.name());
        }
        assert!(
            backend
                .run_fails(&["gc", "--older-than", "soon"], 2)
                .contains("soon")
        );
        assert_eq!(backend.run_ok(&["cat", "bot/memory"]), "one");
    }
    // On a disk, what a process that died was writing.
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    let root = local.path();
    std::fs::write(root.join("~/tmp/0123456789abcdef0123456789abcdef"), "left").expect("writes");
    assert_eq!(
        local.run_ok(&["gc"]),
        "removed 0 leftovers, 0 B\n",
        "too young"
    );
    let gc = ["gc", "--older-than", "0s"];
    let planned = local.run_ok(&[&gc[..], &["--dry-run"]].concat());
    assert_eq!(planned, "would remove 1 leftover, 4 B\n");
    assert_eq!(local.run_ok(&gc), "removed 1 leftover, 4 B\n");
    assert_eq!(local.run_ok(&gc), "removed 0 leftovers, 0 B\n");
}
