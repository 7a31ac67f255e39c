//! Faults of a store, its backend or its account, and how the command reports them.

use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Error, Purge, Retention, Store, StoreOptions};
use persist_host::storage::{self, ErrorKind, Key, List, Memory, Page, ReadRange, Storage};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Reply};
use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::{block_on, gcs, guest, save, scope, tempdir, text};
use serde_json::Value;

/// Every command that asks something of a store.
const ASKING: [&[&str]; 19] = [
    &["ls"],
    &["history", "bot/memory"],
    &["show", "bot/memory"],
    &["cat", "bot/memory"],
    &["save", "bot/memory", "/dev/null"],
    &["rm", "bot/memory"],
    &["restore", "bot/memory@1"],
    &["fork", "bot/memory", "bot/other"],
    &["diff", "bot/memory"],
    &["verify", "bot/memory"],
    &["check"],
    &["prune"],
    &["pin", "bot/memory@1"],
    &["unpin", "bot/memory@1"],
    &["purge", "bot/memory", "--yes"],
    &["gc"],
    &["export", "-"],
    &["stats"],
    &["doctor"],
];

/// File names of versions 1, 2 and 3 of a name.
const VERSIONS: [&str; 3] = [
    "9999999998-0000000001.gz",
    "9999999997-0000000002.gz",
    "9999999996-0000000003.gz",
];

/// Returns the findings of `check`, as severity, kind and key, in order.
fn findings(backend: &TestStore, args: &[&str], code: i32) -> Vec<[String; 3]> {
    let args = [&["check", "--json"], args].concat();
    let lines = json(&backend.run_ends(&args, code).0);
    let text = |line: &Value, key: &str| line[key].as_str().expect("text").to_owned();
    let of = |line: &Value| ["severity", "kind", "key"].map(|key| text(line, key));
    lines[..lines.len() - 1].iter().map(of).collect()
}

#[test]
fn a_store_that_is_broken_on_purpose_is_told_by_kind_and_severity() {
    for backend in on_each_backend() {
        for state in ["one", "two", "three"] {
            backend.save("bot/memory", state);
        }
        let [one, two, three] = VERSIONS.map(|version| format!("bot/~/memory/{version}"));
        backend.put_object("~/probe-1-2", b"probe\n");
        backend.put_object("bot/~/memory/pin-7", b"");
        assert_eq!(
            findings(&backend, &[], 0),
            [
                ["note", "dangling-pin", "bot/~/memory/pin-7"],
                ["note", "leftover", "~/probe-1-2"],
            ]
        );

        backend.put_object("bot/~/memory/notes.txt", b"hello");
        backend.put_object("bot/README", b"hello");
        backend.put_object("Bot/~/memory/x", b"hello");
        backend.put_object("README", b"hello");
        backend.put_object(
            &format!("bot/~/other/{}", VERSIONS[0]),
            &backend.read_object(&one),
        );
        let kinds = findings(&backend, &[], 6);
        let warnings: Vec<_> = kinds.iter().filter(|found| found[0] == "warning").collect();
        let other = format!("bot/~/other/{}", VERSIONS[0]);
        let expected = [
            ["warning", "foreign", "Bot"],
            ["warning", "foreign", "bot/README"],
            ["warning", "foreign", "bot/~/memory/notes.txt"],
            ["warning", "foreign", "README"],
        ];
        let misplaced = ["damage", "misplaced", other.as_str()].map(String::from);
        assert!(kinds.contains(&misplaced), "{kinds:?}");
        for wanted in &expected {
            assert!(warnings.iter().any(|found| *found == wanted), "{kinds:?}");
        }
        assert_eq!(warnings.len(), expected.len(), "{kinds:?}");

        // A bit in a block, which only a whole read finds, and a file that was cut off.
        let mut flipped = backend.read_object(&two);
        flipped[15] ^= 1;
        backend.delete_object(&two);
        backend.put_object(&two, &flipped);
        findings(&backend, &["bot/memory"], 10);
        let cut = backend.read_object(&three);
        backend.delete_object(&three);
        backend.put_object(&three, &cut[..cut.len() - 1]);
        let damage = |args: &[&str]| {
            let found = findings(&backend, args, 6);
            let damage = found.into_iter().filter(|found| found[0] == "damage");
            damage.map(|found| found[2].clone()).collect::<Vec<_>>()
        };
        assert_eq!(damage(&["bot/memory"]), std::slice::from_ref(&three));
        assert_eq!(damage(&["--read-data"]), [three, two, other.clone()]);
        let said = backend.run_fails(&["verify", "bot/memory@2"], 6);
        assert!(said.contains(VERSIONS[1]), "{said}");
        backend.run_fails(&["verify", "bot/other"], 6);

        backend.delete_object("~/store.json");
        let kinds = findings(&backend, &["bot/other"], 6);
        assert!(kinds.iter().any(|found| found[1] == "missing-store-header"));
    }
}

#[test]
fn an_unreadable_entry_hides_no_other() {
    let [local, ..] = on_each_backend();
    let dir = local.url().trim_start_matches("file://").to_owned();
    for agent in ["aa", "bb", "cc", "dd", "ee"] {
        local.save(&format!("{agent}/memory"), "one");
    }
    let file = |agent: &str| format!("{dir}/{agent}/~/memory/{}", VERSIONS[0]);
    for agent in ["bb", "cc"] {
        std::fs::remove_file(file(agent)).expect("removed");
    }
    std::os::unix::fs::symlink("/etc/passwd", file("bb")).expect("linked");
    let fifo = std::process::Command::new("mkfifo")
        .arg(file("cc"))
        .status();
    assert!(fifo.expect("mkfifo is there").success());
    let found = findings(&local, &[], 6);
    let damaged: Vec<_> = found.iter().filter(|found| found[0] == "damage").collect();
    assert_eq!(damaged.len(), 2, "{found:?}");
    let (listed, said) = local.run_ends(&["ls"], 6);
    for agent in ["aa", "dd", "ee"] {
        assert!(listed.contains(&format!("{agent}/memory@1")), "{listed}");
    }
    assert!(
        said.contains("bb/memory") && said.contains("cc/memory"),
        "{said}"
    );
    assert!(said.contains("not a regular file"), "{said}");
    let archive = tempdir();
    let tar = archive.path().join("all.tar");
    local.run_fails(&["export", tar.to_str().expect("text")], 6);
    assert!(tar.exists());
}

#[test]
fn an_object_in_the_wrong_place_is_damage() {
    // Made in the store of a name with three versions, at this key, which held what is removed
    // first.
    let version = |n: usize| format!("bot/~/memory/{}", VERSIONS[n]);
    let cases = [
        ("directory", version(2), version(2)),
        ("directory", version(0), version(0)),
        (
            "directory",
            "bot/~/memory/9999999995-0000000004.gz".into(),
            "-".into(),
        ),
        ("full directory", version(1), version(1)),
        ("link", version(1), version(1)),
        ("pipe", version(1), version(1)),
        (
            "directory",
            "bot/~/memory/pin-2".into(),
            "bot/~/memory/pin-2".into(),
        ),
        (
            "full directory",
            "bot/~/memory/pin-2".into(),
            "bot/~/memory/pin-2".into(),
        ),
        (
            "pipe",
            "bot/~/memory/pin-2".into(),
            "bot/~/memory/pin-2".into(),
        ),
        ("file", "bot/~/memory".into(), "bot/~/memory".into()),
        ("link", "bot/~/memory".into(), "bot/~/memory".into()),
        ("file", "bot/~".into(), "bot/~".into()),
        ("file", "bot/monday".into(), "-".into()),
        ("file", "bot".into(), "bot".into()),
        ("link", "bot".into(), "bot".into()),
        ("file", "~/tmp".into(), "~/tmp".into()),
        ("directory", "~/store.json".into(), "~/store.json".into()),
    ];
    for (what, key, removed) in cases {
        let [local, ..] = on_each_backend();
        for state in ["one", "two", "three"] {
            local.save("bot/memory", state);
        }
        local.run_ok(&["pin", "bot/memory@2"]);
        local.save("other/memory", "one");
        let root = local.path();
        let removed = root.join(&removed);
        if removed.is_dir() {
            std::fs::remove_dir_all(&removed).expect("removed");
        } else if removed.exists() {
            std::fs::remove_file(&removed).expect("removed");
        }
        let path = root.join(&key);
        match what {
            "directory" => std::fs::create_dir(&path).expect("made"),
            "full directory" => {
                std::fs::create_dir(&path).expect("made");
                std::fs::write(path.join("x"), "x").expect("written");
            }
            "link" => std::os::unix::fs::symlink("/etc", &path).expect("linked"),
            "pipe" => {
                let made = std::process::Command::new("mkfifo").arg(&path).status();
                assert!(made.expect("mkfifo is there").success());
            }
            _ => std::fs::write(&path, "x").expect("written"),
        }
        let found = findings(&local, &[], 6);
        let wanted = ["damage", "in-the-way", key.as_str()].map(String::from);
        assert!(found.contains(&wanted), "{what} at {key}: {found:?}");
        // The rest was looked at.
        let checked = local.run(&["check", "other", "--json"]);
        let checked = json(text(&checked.stdout));
        assert_eq!(
            checked.last().expect("a summary")["versions"],
            1,
            "{what} at {key}"
        );
    }
}

#[test]
fn in_a_bucket_nothing_is_in_the_place_of_something_else() {
    // SeaweedFS keeps directories, as a disk does.
    let [_, _, gcs] = on_each_backend();
    gcs.save("bot/memory", "one");
    gcs.put_object("bot/notes", b"hello");
    gcs.put_object("bot/~/memory/9999999997-0000000002.gz/x", b"hello");
    let found = findings(&gcs, &[], 10);
    assert!(found.iter().all(|found| found[1] == "foreign"), "{found:?}");
    gcs.save("bot/memory", "two");
    assert_eq!(gcs.run_ok(&["cat", "bot/memory"]), "two");
}

#[test]
fn leftovers_of_an_archive_are_a_note() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    local.put_object("manifest.jsonl", b"{}");
    let found = findings(&local, &[], 0);
    assert_eq!(found, [["note", "leftover", "manifest.jsonl"]]);
}

#[test]
fn a_store_of_a_later_format_is_refused_by_every_command() {
    for backend in on_each_backend() {
        let later = br#"{"format":2,"suffix":".zz"}"#;
        backend.put_object("~/store.json", later);
        for args in ASKING {
            let (printed, said) = backend.run_ends(args, 6);
            let told = printed + &said;
            assert!(told.contains("format 2"), "{args:?}: {told}");
        }
    }
}

#[test]
fn two_operators_at_once_are_told_who_was_first() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "one");
        backend.save("bot/memory", "two");
        let restore = || {
            let mut command = backend.command();
            command.args(["restore", "bot/memory@1", "--expect", "2"]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("persist starts")
        };
        let mut both = [restore(), restore()];
        let mut codes = both
            .each_mut()
            .map(|one| one.wait().expect("it ends").code());
        codes.sort();
        assert_eq!(codes, [Some(0), Some(4)], "{}", backend.name());
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            3
        );
    }
}

#[test]
fn the_doctor_tries_everything_and_leaves_nothing() {
    for backend in on_each_backend() {
        let exam = |args: &[&str]| {
            let output = backend.run(&[&["doctor", "--json"], args].concat());
            let lines = json(text(&output.stdout)).into_iter();
            let lines: Vec<_> = lines.filter(|line| line["event"] == "check").collect();
            let wrong: Vec<_> = lines
                .iter()
                .filter(|line| line["status"] == "wrong")
                .collect();
            // SeaweedFS looks first and writes then where it puts parts together: two uploads win
            // now and then, and it is told.
            let known = |line: &&&Value| backend.name() == "s3" && line["check"] == "uploads";
            assert!(
                wrong.iter().all(|line| known(&line)),
                "{}: {wrong:?}",
                backend.name()
            );
            assert_eq!(
                output.status.success(),
                wrong.is_empty(),
                "{}",
                backend.name()
            );
            lines
        };
        let what = |lines: &[Value]| {
            let ok = lines.iter().filter(|line| line["status"] == "ok");
            ok.map(|line| line["check"].as_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        };
        let found = what(&exam(&[]));
        for wanted in [
            "storage",
            "reach",
            "format",
            "clock",
            "save",
            "load",
            "conditions",
            "delete",
        ] {
            assert!(
                found.iter().any(|what| what == wanted),
                "{}: {wanted}: {found:?}",
                backend.name()
            );
        }
        assert!(
            !what(&exam(&["--read-only"]))
                .iter()
                .any(|what| what == "save")
        );
        backend.save("bot/memory", "one");
        exam(&[]);
        assert_eq!(findings(&backend, &[], 0), [] as [[String; 3]; 0]);
        assert_eq!(backend.run_ok(&["ls", "-q"]).lines().count(), 1);
    }
}

#[test]
fn the_doctor_says_what_is_wrong_with_a_storage_that_is_not_there() {
    let [local, s3, gcs] = on_each_backend();
    let dir = tempdir();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("writes");
    let url = format!("file://{}", file.display());
    for (backend, url, code) in [
        (&local, url.as_str(), 1),
        (&s3, "s3://no-such-bucket", 2),
        (&gcs, "gs://no-such-bucket", 2),
        (&s3, "s3://no-such-bucket?endpoint=http://127.0.0.1:1", 1),
    ] {
        let output = backend.run(&["doctor", "--storage", url]);
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{url}: {printed}");
        assert!(printed.contains("wrong  reach"), "{url}: {printed}");
        let said = text(&output.stderr);
        assert!(
            said.contains("doctor found problems: reach"),
            "{url}: {said}"
        );
    }
}

#[test]
fn the_doctor_tells_a_refusal_from_a_storage_that_lacks_something() {
    // It checks no signatures, which cover the conditions that its proxy takes away.
    let (proxy, place) = TestStore::on(Kind::Ministack).proxied();
    let doctor = |hint: &str, code: i32| {
        let output = place
            .command()
            .arg("doctor")
            .output()
            .expect("persist starts");
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{printed}{said}");
        assert!(said.contains(hint), "{said}");
    };
    proxy.rule(|_, _| Some(Fault::IgnoreConditions));
    doctor("problems: conditions", 6);
    proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    doctor("problems: reach", 5);
}

#[test]
fn probes_that_a_retention_policy_keeps_are_a_note_of_doctor() {
    let (proxy, place) = TestStore::on(Kind::FakeGcs).proxied();
    proxy.rule(|_, seen| {
        let refusal = gcs::refusal(403, "retentionPolicyNotMet");
        (gcs::operation(seen) == "delete").then_some(Fault::Reply(refusal))
    });
    let printed = place.run_ok(&["doctor"]);
    assert!(
        printed.contains("a retention policy or a hold"),
        "{printed}"
    );
    proxy.rule(|_, seen| {
        let refusal = gcs::refusal(403, "forbidden");
        (gcs::operation(seen) == "delete").then_some(Fault::Reply(refusal))
    });
    let (printed, said) = place.run_ends(&["doctor"], 5);
    assert!(said.contains("problems: delete"), "{printed}{said}");
}

#[test]
fn every_command_reports_a_missing_name() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "one");
        for args in [
            &["show", "nobody/memory"][..],
            &["history", "bot/monday/memory"],
            &["cat", "bot/nothing"],
            &["rm", "bot/nothing"],
            &["restore", "bot/memory@9"],
            &["fork", "bot/nothing", "bot/copy"],
            &["diff", "bot/memory", "bot/nothing"],
            &["verify", "nobody/memory"],
            &["pin", "bot/memory@2"],
            &["purge", "nobody/memory", "--yes"],
            &["export", "-", "nobody"],
            &["check", "nobody"],
            &["prune", "bot/nothing"],
        ] {
            backend.run_fails(args, 3);
        }
        // An empty list is a list.
        for args in [&["ls", "nobody"][..], &["stats", "nobody"]] {
            backend.run_ok(args);
        }
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            1
        );
    }
}

#[test]
fn an_account_without_rights_is_told_so_by_every_command() {
    let on_s3 = TestStore::on(Kind::SeaweedFs);
    let on_gcs = TestStore::on(Kind::FakeGcs);
    let (s3_proxy, s3_place) = on_s3.proxied();
    s3_proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    let (gcs_proxy, gcs_place) = on_gcs.proxied();
    gcs_proxy.rule(|_, _| Some(Fault::Reply(gcs::refusal(403, "forbidden"))));
    for args in ASKING {
        for mut command in [s3_place.command(), gcs_place.command()] {
            let output = command.args(args).output().expect("persist starts");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{args:?}: {said}");
        }
    }
}

/// Runs a shell script in which `$persist` is the command on this store.
fn shell(backend: &TestStore, script: &str) -> std::process::Output {
    let persist = backend.command();
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script])
        .env_clear()
        .env("persist", persist.get_program());
    bash.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (key, value) in persist.get_envs() {
        if let Some(value) = value {
            bash.env(key, value);
        }
    }
    bash.output().expect("bash starts")
}

#[test]
fn an_empty_state_is_saved_only_where_it_is_meant() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    // A pipe may be empty; what is closed, or no pipe, may have been forgotten.
    for (script, code) in [
        ("$persist save bot/memory <&-", 2),
        ("$persist save bot/memory </dev/null", 2),
        ("true | $persist save bot/piped", 0),
    ] {
        let output = shell(&local, script);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{script}: {said}");
    }
    let file = tempdir();
    let empty = file.path().join("empty");
    std::fs::write(&empty, "").expect("writes");
    let empty = empty.display();
    let refused = shell(&local, &format!("$persist save bot/memory <{empty}"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("write - to save an empty state"));
    assert_eq!(local.run_ok(&["cat", "bot/memory"]), "one");
    for given in [
        "- </dev/null".to_owned(),
        format!("{empty}"),
        "/dev/null".into(),
    ] {
        let saved = shell(&local, &format!("$persist save bot/memory {given}"));
        assert!(saved.status.success(), "{given}: {}", text(&saved.stderr));
    }
    assert_eq!(local.run_ok(&["cat", "bot/memory"]), "");
}

#[test]
fn restoring_the_newest_version_changes_nothing() {
    for backend in on_each_backend() {
        backend.save("bot/memory", "one");
        backend.save("bot/memory", "two");
        let said = backend.run_ok(&["restore", "bot/memory@2"]);
        assert!(said.contains("is the newest version"), "{said}");
        backend.run_ok(&["restore", "bot/memory@2", "--expect", "2"]);
        backend.run_fails(&["restore", "bot/memory@2", "--expect", "1"], 4);
        assert_eq!(
            backend
                .run_ok(&["history", "-q", "bot/memory"])
                .lines()
                .count(),
            2
        );
        backend.run_ok(&["restore", "bot/memory@1"]);
        assert_eq!(backend.run_ok(&["cat", "bot/memory"]), "one");
    }
}

#[test]
fn deleting_twice_says_that_it_is_deleted_already() {
    let [local, ..] = on_each_backend();
    local.save("bot/memory", "one");
    local.run_ok(&["rm", "bot/memory"]);
    let said = local.run_fails(&["rm", "bot/memory"], 3);
    assert!(said.contains("is already deleted, by version 2"), "{said}");
    assert_eq!(
        local
            .run_ok(&["history", "-q", "bot/memory"])
            .lines()
            .count(),
        2
    );
}

/// A storage with space for a number of bytes.
#[derive(Debug)]
struct Small {
    memory: Memory,
    room: Mutex<u64>,
    /// How far ahead the clock is that lists tell.
    ahead: Duration,
}

impl Small {
    /// Leaves no room but what removals give back.
    fn fill(&self) {
        *self.room() = 0;
    }

    fn room(&self) -> MutexGuard<'_, u64> {
        self.room.lock().expect("no test panicked")
    }
}

#[async_trait]
impl Forward for Small {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.memory.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> storage::Result<()> {
        let len = body.iter().map(|piece| piece.len() as u64).sum();
        let Some(rest) = self.room().checked_sub(len) else {
            return Err(storage::Error::new(ErrorKind::NoSpace, "no room"));
        };
        self.memory.create(key, body).await?;
        *self.room() = rest;
        Ok(())
    }

    async fn list(&self, list: &List<'_>) -> storage::Result<Page> {
        let mut page = self.memory.list(list).await?;
        page.now = page.now.map(|now| now + self.ahead);
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> storage::Result<()> {
        let size = self
            .memory
            .read(key, ReadRange::Suffix(0))
            .await
            .map(|part| part.size);
        self.memory.delete(key).await?;
        *self.room() += size.unwrap_or_default();
        Ok(())
    }
}

#[test]
fn purge_makes_room_for_its_tombstone_on_a_full_disk() {
    block_on(async {
        for versions in [1, 3] {
            let small = Arc::new(Small {
                memory: Memory::new(),
                room: Mutex::new(1 << 20),
                ahead: Duration::ZERO,
            });
            let scope = scope(small.clone());
            for state in 0..versions {
                save(&scope, "memory", &state.to_string()).await;
            }
            small.fill();
            let full = |error: &Error| match error {
                Error::Storage(error) => error.kind() == ErrorKind::NoSpace,
                _ => false,
            };
            // Within the grace nothing may go, and nothing goes.
            let waiting = scope.purge("memory", Purge::AfterGrace).await;
            assert!(waiting.is_err_and(|error| full(&error)));
            let there = scope.versions("memory", None, 10).await.expect("lists");
            assert_eq!(there.len(), versions);
            let purged = scope.purge("memory", Purge::Now).await.expect("makes room");
            let tombstone = versions as u64 + 1;
            assert_eq!(purged.tombstone, Some(tombstone));
            assert_eq!(purged.removed, versions as u64);
            let there = scope.versions("memory", None, 10).await.expect("lists");
            assert_eq!(there, [tombstone]);
            *small.room() = 1 << 20;
            assert_eq!(save(&scope, "memory", "next").await.version, tombstone + 1);
        }
    });
}

#[test]
fn a_prune_on_a_full_disk_takes_the_time_from_a_list_and_compares_it() {
    block_on(async {
        let memory = Memory::new();
        let mut options = StoreOptions::default();
        options.grace = Duration::ZERO;
        let store = Store::with_options(Arc::new(memory.clone()), options);
        let plain = store.scope("bot", None).expect("a name");
        for state in ["one", "two", "three"] {
            save(&plain, "memory", state).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        for (hours, left) in [(2, &[3, 2, 1][..]), (0, &[3])] {
            let full = Small {
                memory: memory.clone(),
                room: Mutex::new(0),
                ahead: Duration::from_secs(hours * 60 * 60),
            };
            let scope = scope(Arc::new(full));
            let pruned = scope.prune("memory", &Retention::nothing()).await;
            match pruned {
                Err(Error::Unsupported { what, .. }) => assert!(hours > 0, "{what}"),
                pruned => assert_eq!((hours, pruned.expect("prunes").len()), (0, 3)),
            }
            let there = scope.versions("memory", None, 10).await.expect("lists");
            assert_eq!(there, left);
        }
    });
}

#[test]
fn purge_frees_a_name_whose_numbers_are_used_up() {
    let [local, ..] = on_each_backend();
    let dir = local.path();
    local.save("bot/memory", "one");
    let before = dir.join("bot/~/memory/0000000001-9999999998.gz");
    std::fs::write(&before, "").expect("writes");
    local.save("bot/memory", "last");
    std::fs::remove_file(before).expect("removes");
    for args in [&["rm", "bot/memory"][..], &["restore", "bot/memory@1"]] {
        let said = local.run_fails(args, 6);
        assert!(said.contains("purge it"), "{said}");
    }
    local.run_fails(&["purge", "bot/memory", "--yes"], 10);
    assert_eq!(local.run_ok(&["cat", "bot/memory"]), "last");
    local.run_ok(&["purge", "bot/memory", "--yes", "--now"]);
    local.run_fails(&["history", "bot/memory"], 3);
    local.save("bot/memory", "again");
    assert_eq!(local.run_ok(&["cat", "bot/memory@1"]), "again");
}

/// Every command that asks something of a store, and none that may make one.
const NEEDING: [&[&str]; 24] = [
    &["ls"],
    &["ls", "bot"],
    &["ls", "bot/memory"],
    &["history", "bot/memory"],
    &["show", "bot/memory"],
    &["cat", "bot/memory"],
    &["save", "bot/memory", "/dev/null"],
    &["rm", "bot/memory"],
    &["restore", "bot/memory@1"],
    &["fork", "bot/memory", "bot/other"],
    &["diff", "bot/memory"],
    &["verify", "bot/memory"],
    &["check"],
    &["check", "bot"],
    &["repair", "bot", "--adopt"],
    &["policy"],
    &["policy", "set", "--keep-last", "3"],
    &["prune"],
    &["pin", "bot/memory@1"],
    &["unpin", "bot/memory@1"],
    &["purge", "bot/memory", "--yes"],
    &["gc"],
    &["export", "-"],
    &["stats"],
];

#[test]
fn a_place_without_a_store_is_named_and_no_command_makes_one_unasked() {
    for backend in on_each_backend() {
        let run = |args: &[&str]| {
            let mut command = backend.command_without_store();
            command.args(args).output().expect("persist starts")
        };
        let refused = |args: &[&str]| {
            let output = run(args);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{args:?}: {said}");
            assert!(said.contains("no store in "), "{args:?}: {said}");
            assert!(said.contains("persist init"), "{args:?}: {said}");
        };
        for args in NEEDING {
            refused(args);
        }
        let agent = guest("chat_memory");
        let agent = agent.to_str().expect("text");
        refused(&["run", agent, "--", "say", "hi"]);
        let dir = tempdir();
        let missing = format!("file://{}/missing", dir.path().display());
        let other = format!("file://{}/other", dir.path().display());
        refused(&["copy", &missing, &other, "--create"]);
        let full = dir.path().join("full");
        persist_tests::run_ok(&full, &["save", "bot/memory", "/dev/null"]);
        let full = format!("file://{}", full.display());
        refused(&["copy", &full, &other]);
        let archive = dir.path().join("agents.tar");
        let archive = archive.to_str().expect("text");
        let exported = run(&["export", archive, "--storage", &full]);
        assert!(exported.status.success(), "{}", text(&exported.stderr));
        refused(&["import", archive]);
        let left = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(
            left, 2,
            "the store that was made on purpose, and its archive"
        );

        let imported = run(&["import", archive, "--create"]);
        assert!(imported.status.success(), "{}", text(&imported.stderr));
        let saved = run(&["save", "bot/memory", "/dev/null"]);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
        for (create, args) in [
            (
                "saved",
                &["save", "bot/memory", "/dev/null", "--create"][..],
            ),
            ("ran", &["run", "--create", agent, "--", "say", "hi"]),
            ("copied", &["copy", &full, &other, "--create"]),
        ] {
            let url = format!("file://{}/{create}", dir.path().display());
            let output = run(&[&["--storage", &url], args].concat());
            let said = text(&output.stderr);
            assert!(output.status.success(), "{create}: {said}");
        }
    }
}

#[test]
fn init_makes_a_store_once_and_says_what_it_made() {
    for backend in on_each_backend() {
        let init = |args: &[&str]| {
            let mut command = backend.command_without_store();
            command.arg("init").args(args).env("PERSIST_KEEP_LAST", "7");
            let output = command.output().expect("persist starts");
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout).to_owned()
        };
        let first = init(&[]);
        assert!(first.starts_with("created a store in "), "{first}");
        assert!(first.contains("keep-last    7"), "{first}");
        let again = init(&[]);
        assert!(again.contains("nothing was changed"), "{again}");
        let told = json(&init(&["--json"]));
        assert_eq!(told[0]["created"], false);
        assert_eq!(told[0]["policy"]["version"], 1);
        // An empty store is a store.
        for args in [&["ls"][..], &["stats"], &["prune"], &["gc"], &["check"]] {
            backend.run_ok(args);
        }
    }
}
