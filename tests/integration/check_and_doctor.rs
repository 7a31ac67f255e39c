//! Faults of a store, its backend or its account, and how the command reports them.

use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Error, Purge, Retention, Store, StoreOptions};
use persist_host::storage::{
    self, ErrorKind, Key, List, Memory, Page, ReadRange, Storage, StorageConfig,
};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Reply, Seen};
use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::{block_on, gcs, guest, save, scope, tempdir, text, version_file};
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
fn the_doctor_names_the_setting_that_a_server_needs() {
    // Real servers that need these settings are those of providers.
    let has = |seen: &Seen, begin: &str| {
        let mut names = seen.headers.keys();
        names.any(|name| name.as_str().starts_with(begin))
    };
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let doctor = |hint: &str| {
        let mut command = place.command();
        let output = command.arg("doctor").output().expect("persist starts");
        let printed = text(&output.stdout);
        assert!(!output.status.success(), "{printed}");
        assert!(printed.contains(&format!("hint: set {hint}")), "{printed}");
    };
    for (status, code) in [(400, "InvalidArgument"), (501, "NotImplemented")] {
        proxy.rule(move |_, seen| {
            has(seen, "x-amz-checksum-").then(|| Fault::Reply(Reply::s3(status, code)))
        });
        doctor("AWS_REQUEST_CHECKSUM_CALCULATION=when_required");
    }
    proxy.rule(move |_, seen| {
        let is_plain = seen.operation() == "PutObject" && !has(seen, "x-amz-server-side-enc");
        is_plain.then(|| Fault::Reply(Reply::s3(403, "AccessDenied")))
    });
    doctor("PERSIST_S3_ENCRYPTION=AES256");
    proxy.rule(|_, _| None);
    let listed = place.run_ok(&["ls", "--json"]);
    assert!(!listed.contains("probe"), "{listed}");
}

#[test]
fn the_doctor_notes_that_unfinished_uploads_cannot_be_listed() {
    let none = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
                </ListMultipartUploadsResult>";
    let other = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    for (answer, is_told) in [
        (Reply::s3(501, "NotImplemented"), true),
        (Reply::s3(404, "NoSuchKey"), true),
        (Reply::new(404, ""), true),
        (Reply::new(200, other), true),
        // MinIO's answer for a prefix that is no object's key.
        (Reply::new(200, none), false),
    ] {
        let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
        let reply = answer.clone();
        proxy.rule(move |_, seen| {
            let is_asked = seen.operation() == "ListMultipartUploads";
            is_asked.then(|| Fault::Reply(reply.clone()))
        });
        let output = place.run(&["doctor"]);
        let printed = text(&output.stdout);
        let note = "note   gc          `persist gc` cannot find unfinished uploads";
        assert!(printed.contains(note), "{answer:?}: {printed}");
        let output = place.run(&["gc"]);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{answer:?}: {said}");
        assert!(said.contains("cannot list them"), "{answer:?}: {said}");
        let printed = place.run_ok(&["check"]);
        // A check changes nothing: it begins no upload to look for.
        let is_noted = printed.contains("unfinished uploads cannot be listed");
        assert_eq!(is_noted, is_told, "{answer:?}: {printed}");
    }
    let (_, place) = TestStore::on(Kind::SeaweedFs).proxied();
    for command in ["doctor", "gc", "check"] {
        let output = place.run(&[command]);
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!printed.contains("unfinished uploads"), "{printed}");
    }
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
        for args in [&["ls", "nobody"][..], &["stats", "nobody"]] {
            backend.run_fails(args, 3);
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

#[test]
fn a_lost_version_is_found_against_another_store() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let backup = dir.path().join("backup");
    let [url, backup_url] = [&store, &backup].map(|path| format!("file://{}", path.display()));
    let run = |args: &[&str]| persist_tests::run_ok(&store, args);
    run(&["init"]);
    for (address, state) in [("bot/memory", "1"), ("bot/memory", "2"), ("bot/gone", "1")] {
        let file = dir.path().join("state");
        std::fs::write(&file, state).expect("writes");
        run(&["save", address, file.to_str().expect("text")]);
    }
    run(&["copy", &url, &backup_url, "--create"]);
    let check = |args: &[&str], code: i32| {
        let args = [&["check", "--json", "--against", &backup_url], args].concat();
        let output = persist_tests::run(&store, &args);
        let said = text(&output.stderr).to_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let mut lines = json(text(&output.stdout));
        let summary = lines.pop().expect("a summary");
        let found = |line: &Value| {
            ["severity", "kind", "address"].map(|key| line[key].as_str().unwrap_or("").to_owned())
        };
        (lines.iter().map(found).collect::<Vec<_>>(), summary)
    };
    let (found, summary) = check(&[], 0);
    assert_eq!((found.len(), &summary["compared"]), (0, &3.into()));

    // What this store alone has is no finding.
    run(&[
        "save",
        "bot/memory",
        "/dev/null",
        "--media-type",
        "text/plain",
    ]);
    let (found, _) = check(&[], 0);
    assert_eq!(found.len(), 0, "{found:?}");
    run(&["restore", "bot/memory@2"]);
    let file = |version: usize| {
        store
            .join("bot/~/memory")
            .join(version_file(version as u64))
    };
    // An old version that the policy keeps, a name, and content that differs.
    std::fs::remove_file(file(1)).expect("removes");
    std::fs::remove_dir_all(store.join("bot/~/gone")).expect("removes");
    let (found, summary) = check(&[], 6);
    assert_eq!(
        found,
        [
            ["damage", "lost", "bot/gone@1"],
            ["warning", "missing", "bot/memory@1"],
        ]
    );
    assert_eq!(
        (&summary["lost"], &summary["missing"]),
        (&1.into(), &1.into())
    );
    let (found, totals) = check(&["--summary"], 6);
    assert_eq!((found.len(), totals), (0, summary));
    // The newest versions are lost; nothing but the other store knows.
    for version in [2, 3, 4] {
        std::fs::remove_file(file(version)).expect("removes");
    }
    let (found, _) = check(&["bot/memory"], 6);
    let lost = ["damage", "lost", "bot/memory@2"].map(String::from);
    assert!(found.contains(&lost), "{found:?}");
    run(&[
        "save",
        "bot/memory",
        "/dev/null",
        "--media-type",
        "text/plain",
    ]);
    let (found, _) = check(&["bot/memory"], 6);
    let differs = ["warning", "differs", "bot/memory@1"].map(String::from);
    assert!(found.contains(&differs), "{found:?}");
    // A store is not compared with itself.
    let args = ["check", "--against", &url];
    persist_tests::run_fails(&store, &args, 2);
}

#[test]
fn what_a_policy_or_a_purge_removed_is_not_called_lost() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let url = format!("file://{}", store.display());
    let backup = format!("file://{}", dir.path().join("backup").display());
    let run = |args: &[&str]| persist_tests::run_ok(&store, args);
    run(&["init"]);
    for state in ["/dev/null", "/etc/hostname", "/dev/null", "/etc/hostname"] {
        for address in ["bot/memory", "bot/purged", "bot/kept"] {
            run(&["save", address, state, "--media-type", "text/plain"]);
        }
    }
    run(&["copy", &url, &backup, "--create"]);
    run(&[
        "policy",
        "set",
        "--keep-last",
        "2",
        "--keep-within",
        "0s",
        "--grace",
        "0s",
    ]);
    let none = [
        "--keep-hourly",
        "0",
        "--keep-daily",
        "0",
        "--keep-weekly",
        "0",
    ];
    run(&[&["policy", "set"][..], &none].concat());
    for version in [1, 2] {
        let file = store.join("bot/~/memory").join(version_file(version));
        std::fs::remove_file(file).expect("removes");
    }
    run(&["purge", "bot/purged", "--yes", "--now"]);
    let check = ["check", "--json", "--against", &backup];
    let lines = json(&run(&check));
    let summary = lines.last().expect("a summary");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&summary["pruned"], &summary["compared"]),
        (&6.into(), &12.into())
    );
    // The policy keeps the two newest, so a prune did not remove one of them.
    let file = store.join("bot/~/kept").join(version_file(3));
    std::fs::remove_file(file).expect("removes");
    let output = persist_tests::run(&store, &check);
    assert_eq!(output.status.code(), Some(10));
    let lines = json(text(&output.stdout));
    assert_eq!(
        (&lines[0]["kind"], &lines[0]["address"]),
        (&"missing".into(), &"bot/kept@3".into())
    );
}

/// Runs `repair` on a store, and returns its steps as status, action and key, and its summary.
fn repair(store: &std::path::Path, args: &[&str], code: i32) -> (Vec<[String; 3]>, Value) {
    // The store's header may be missing.
    let mut command = persist_tests::persist_without_store(store);
    let output = command.args(["repair", "--json"]).args(args).output();
    let output = output.expect("persist starts");
    let said = text(&output.stderr).to_owned();
    let mut lines = json(text(&output.stdout));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {said}{lines:?}"
    );
    let summary = lines.pop().expect("a summary");
    let of = |line: &Value| {
        ["status", "action", "key"].map(|key| line[key].as_str().expect("text").to_owned())
    };
    let mut steps: Vec<_> = lines.iter().map(of).collect();
    steps.sort();
    (steps, summary)
}

/// A store with two names of two versions each, and a copy of it.
fn store_and_backup(dir: &std::path::Path) -> [std::path::PathBuf; 2] {
    let stores = ["store", "backup"].map(|name| dir.join(name));
    let [url, backup] = [&stores[0], &stores[1]].map(|path| format!("file://{}", path.display()));
    persist_tests::run_ok(&stores[0], &["init"]);
    let file = dir.join("state");
    for address in ["bot/memory", "bot/other"] {
        for seed in [1, 2] {
            std::fs::write(&file, persist_tests::noise(seed, 2_000_000)).expect("writes");
            persist_tests::run_ok(&stores[0], &["save", address, file.to_str().expect("text")]);
        }
    }
    persist_tests::run_ok(&stores[0], &["copy", &url, &backup, "--create"]);
    stores
}

#[test]
fn a_repair_removes_what_is_no_version_and_says_what_it_leaves() {
    let dir = tempdir();
    let [store, _] = store_and_backup(dir.path());
    let name = store.join("bot/~/memory");
    let [three, four, five] = [3, 4, 5].map(|n| format!("bot/~/memory/{}", version_file(n)));
    std::os::unix::fs::symlink("/etc/passwd", store.join(&three)).expect("links");
    std::fs::create_dir(store.join(&four)).expect("makes");
    std::fs::create_dir(store.join(&five)).expect("makes");
    std::fs::write(store.join(&five).join("data"), "of another program").expect("writes");
    std::fs::write(name.join("pin-9"), "").expect("writes");
    std::fs::write(name.join("notes.txt"), "of an operator").expect("writes");
    std::fs::remove_file(store.join("~/store.json")).expect("removes");
    let notes = "bot/~/memory/notes.txt";
    let row = |status: &str, action: &str, key: &str| [status, action, key].map(String::from);
    let (steps, summary) = repair(&store, &[], 6);
    assert_eq!(
        steps,
        [
            row("planned", "create-header", "~/store.json"),
            row("planned", "remove", &four),
            row("planned", "remove", &three),
            row("planned", "unpin", "bot/~/memory/pin-9"),
            row("unmendable", "none", &five),
            row("unmendable", "none", notes),
        ]
    );
    assert_eq!(
        (&summary["planned"], &summary["done"]),
        (&4.into(), &0.into())
    );
    assert!(store.join(&three).is_symlink() && store.join(&four).is_dir());

    let (steps, summary) = repair(&store, &["--yes"], 6);
    let done = steps.iter().filter(|step| step[0] == "done");
    assert_eq!(done.count(), 4, "{steps:?}");
    assert_eq!(
        (&summary["done"], &summary["unmendable"]),
        (&4.into(), &2.into())
    );
    assert!(!store.join(&three).is_symlink() && !store.join(&four).exists());
    assert!(name.join("notes.txt").exists() && store.join(&five).join("data").exists());
    std::fs::remove_dir_all(store.join(&five)).expect("removes");
    repair(&store, &["--yes"], 10);
    let (steps, _) = repair(&store, &["--yes", "--remove-foreign"], 0);
    assert_eq!(steps, [row("done", "remove", notes)]);
    let (steps, _) = repair(&store, &[], 0);
    assert_eq!(steps.len(), 0, "{steps:?}");
    persist_tests::run_ok(&store, &["check", "--read-data"]);
    persist_tests::run_ok(&store, &["save", "bot/memory", "/etc/hostname"]);
}

#[test]
fn a_repair_copies_damaged_and_lost_versions_from_another_store() {
    let dir = tempdir();
    let [store, backup] = store_and_backup(dir.path());
    let url = format!("file://{}", backup.display());
    let file = |store: &std::path::Path, name: &str, version: u64| {
        store.join("bot/~").join(name).join(version_file(version))
    };
    let flip = |file: &std::path::Path| {
        let mut bytes = std::fs::read(file).expect("readable");
        bytes[1_000_000] ^= 1;
        std::fs::write(file, bytes).expect("writes");
    };
    let sound = std::fs::read(file(&backup, "memory", 1)).expect("readable");
    flip(&file(&store, "memory", 1));
    // Damaged in both: nothing is replaced.
    flip(&file(&store, "other", 1));
    flip(&file(&backup, "other", 1));
    std::fs::remove_file(file(&store, "other", 2)).expect("removes");
    let (steps, _) = repair(&store, &["--read-data"], 6);
    assert!(
        steps.iter().all(|step| step[0] == "unmendable"),
        "{steps:?}"
    );
    let from = ["--read-data", "--from", &url];
    let (steps, summary) = repair(&store, &from, 6);
    assert_eq!(
        (&summary["planned"], &summary["unmendable"]),
        (&2.into(), &1.into()),
        "{steps:?}"
    );
    let damaged = std::fs::read(file(&store, "other", 1)).expect("readable");
    let (_, summary) = repair(&store, &[&from[..], &["--yes"]].concat(), 6);
    assert_eq!(
        (&summary["done"], &summary["unmendable"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        std::fs::read(file(&store, "memory", 1)).expect("readable"),
        sound
    );
    assert_eq!(
        std::fs::read(file(&store, "other", 1)).expect("readable"),
        damaged
    );
    persist_tests::run_ok(&store, &["verify", "bot/memory@1"]);
    persist_tests::run_ok(&store, &["verify", "bot/other"]);
    // The other store is never repaired.
    persist_tests::run_fails(&backup, &["check", "--read-data"], 6);
}

#[test]
fn a_repair_adopts_the_newest_misplaced_version_that_is_intact_and_says_how_to_undo_it() {
    let dir = tempdir();
    let [store, _] = store_and_backup(dir.path());
    let file =
        |name: &str, version: u64| store.join("bot/~").join(name).join(version_file(version));
    // The two versions of one name are swapped: the newest state lies below.
    let [one, two] = [1, 2].map(|version| file("memory", version));
    let newest = std::fs::read(&two).expect("readable");
    std::fs::rename(&one, dir.path().join("one")).expect("moves");
    std::fs::rename(&two, &one).expect("moves");
    std::fs::rename(dir.path().join("one"), &two).expect("moves");
    // The other is moved, and one of its files is damaged, which the trailer does not show.
    std::fs::rename(store.join("bot/~/other"), store.join("bot/~/moved")).expect("moves");
    let moved = file("moved", 2);
    let sound = std::fs::read(&moved).expect("readable");
    let mut damaged = sound.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(&moved, damaged).expect("writes");
    let (steps, _) = repair(&store, &[], 6);
    let adopted: Vec<_> = steps.iter().filter(|step| step[1] == "adopt").collect();
    let key = |name: &str, version| format!("bot/~/{name}/{}", version_file(version));
    assert_eq!(adopted.len(), 1, "{steps:?}");
    assert_eq!(adopted[0][0], "planned");
    assert_eq!(adopted[0][2], key("memory", 1));
    std::fs::write(&moved, sound).expect("writes");
    let (steps, _) = repair(&store, &[], 6);
    let adopted = steps.iter().filter(|step| step[1] == "adopt");
    assert_eq!(adopted.count(), 2, "{steps:?}");
    let said = persist_tests::run(&store, &["repair"]);
    let said = text(&said.stdout);
    assert!(
        said.contains("as version 3: its file was saved as bot/memory@2"),
        "{said}"
    );
    let (_, summary) = repair(&store, &["--yes"], 6);
    assert_eq!(summary["done"], 2);
    let undo = summary["undo"].as_str().expect("a command");
    assert!(undo.ends_with("bot/memory bot/moved"), "{undo}");
    let state = persist_tests::run(&store, &["cat", "bot/memory"]).stdout;
    assert_eq!(state, persist_tests::noise(2, 2_000_000));
    persist_tests::run_ok(&store, &["verify", "bot/memory", "bot/moved"]);
    // Nothing was removed or overwritten.
    assert_eq!(std::fs::read(&one).expect("readable"), newest);
    // A version that was adopted is not adopted again; --adopt chooses as the plan does.
    let (steps, _) = repair(&store, &["--yes"], 6);
    assert!(
        steps.iter().all(|step| step[0] == "unmendable"),
        "{steps:?}"
    );
    for version in [3, 4] {
        std::fs::remove_file(file("memory", version)).ok();
    }
    let output = persist_tests::run(&store, &["repair", "bot/memory", "--adopt", "--json"]);
    let lines = json(text(&output.stdout));
    assert_eq!(lines[0]["saved_as"], "bot/memory@2", "{lines:?}");
    assert!(
        lines[0]["undo"]
            .as_str()
            .is_some_and(|undo| undo.ends_with("bot/memory"))
    );
}

#[test]
fn two_repairs_at_once_lose_nothing() {
    let dir = tempdir();
    let [store, backup] = store_and_backup(dir.path());
    let url = format!("file://{}", backup.display());
    // A misplaced newest version, an obstacle, and damage.
    let other = store.join("bot/~/other");
    std::fs::rename(&other, store.join("bot/~/moved")).expect("renames");
    let three = store.join("bot/~/memory").join(version_file(3));
    std::os::unix::fs::symlink("/etc/passwd", &three).expect("links");
    let two = store.join("bot/~/memory").join(version_file(2));
    let bytes = std::fs::read(&two).expect("readable");
    std::fs::write(&two, &bytes[1..]).expect("writes");
    let repairs: Vec<_> = (0..2)
        .map(|_| {
            let mut command = persist_tests::persist(&store);
            command.args(["repair", "--yes", "--from", &url]);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("starts")
        })
        .collect();
    for mut repair in repairs {
        // The older version of the moved name cannot be repaired.
        assert_eq!(repair.wait().expect("ends").code(), Some(6));
    }
    assert_eq!(std::fs::read(&two).expect("readable"), bytes);
    for address in ["bot/memory", "bot/moved", "bot/other"] {
        persist_tests::run_ok(&store, &["verify", address]);
    }
    // Adopted once.
    let history = persist_tests::run(&store, &["history", "bot/moved", "--json"]);
    let history = json(text(&history.stdout));
    let adopted = history
        .iter()
        .filter(|line| line["labels"]["persist.adopted-from"].is_string());
    assert_eq!(adopted.count(), 1, "{history:?}");
}

#[test]
fn a_repair_sets_the_permissions_of_files_that_the_account_owns() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |file: &std::path::Path, mode: u32| {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).expect("sets");
    };
    let dir = tempdir();
    let store = dir.path().join("store");
    let storage = StorageConfig::local(&store).build().expect("a storage");
    block_on(async {
        let bot = scope(storage.clone());
        save(&bot, "memory", "one").await;
        let file = format!("bot/~/memory/{}", version_file(1));
        for (key, bad, good) in [(file.as_str(), 0o000, 0o600), ("bot/~", 0o000, 0o700)] {
            mode(&store.join(key), bad);
            let store = Store::new(storage.clone());
            assert!(store.restore_access(key).await.expect("sets"), "{key}");
            let now = std::fs::metadata(dir.path().join("store").join(key)).expect("is there");
            assert_eq!(now.permissions().mode() & 0o777, good, "{key}");
            // Where permissions are not the reason, nothing is done.
            assert!(!store.restore_access(key).await.expect("looks"), "{key}");
        }
    });
}
