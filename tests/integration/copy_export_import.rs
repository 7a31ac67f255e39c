//! Stores that move: copied between backends, exported and imported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::snapshot::{CopyOptions, CopyOutcome, Error, SaveOptions, Store};
use persist_host::storage::{self, Key, Memory, Storage};

use persist_servers::Kind;
use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::{block_on, noise, scope, tempdir, text, version_file, version_files};
use serde_json::Value;

/// A command that reaches all of these backends.
fn everywhere(backends: &[TestStore]) -> Command {
    let mut command = backends[0].command();
    command.env_remove("PERSIST_LOCAL_PATH");
    for backend in backends {
        let of_one = backend.command();
        let envs = of_one
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?)));
        command.envs(envs);
    }
    command.env_remove("PERSIST_STORAGE");
    command.env_remove("PERSIST_LOCAL_PATH");
    command
}

fn copy(backends: &[TestStore], args: &[&str], code: i32) -> (Vec<Value>, String) {
    let mut command = everywhere(backends);
    let output = command
        .args(["copy", "--create", "--json"])
        .args(args)
        .output();
    let output = output.expect("persist starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    (json(text(&output.stdout)), said.to_owned())
}

/// Versions of several names, agents and sessions; a deletion, a pin, and one of many parts.
fn fill(backend: &TestStore) {
    for state in ["one", "two", "three"] {
        backend.save("bot/memory", state);
    }
    backend.save("bot/monday/memory", "monday");
    backend.save("Other Bot/Notes~2f2026", "strange");
    backend.save_bytes("bot/big", &noise(3, 9 << 20));
    backend.run_ok(&["pin", "bot/memory@1"]);
    backend.run_ok(&["rm", "bot/monday/memory"]);
}

/// All that can be seen of a store, but for where it is.
fn seen(backend: &TestStore) -> Vec<String> {
    let mut seen = Vec::new();
    for head in json(&backend.run_ok(&["ls", "--all", "--json"])) {
        let address = head["address"].as_str().expect("text");
        let name = address.split_once('@').expect("a version").0;
        seen.extend(
            backend
                .run_ok(&["history", name, "--json"])
                .lines()
                .map(Into::into),
        );
    }
    seen
}

#[test]
fn a_store_goes_round_all_backends_and_comes_back_the_same() {
    let stores = on_each_backend();
    let home = tempdir();
    let home_url = format!("file://{}", home.path().join("back").display());
    let [local, s3, gcs] = &stores;
    fill(local);
    let mut digests = Vec::new();
    for (from, to) in [
        (local.url(), s3.url()),
        (s3.url(), gcs.url()),
        (gcs.url(), &home_url),
    ] {
        let (lines, _) = copy(&stores, &[from, to], 0);
        let first = lines.last().expect("a summary");
        assert_eq!(first["identical"], true);
        assert_eq!(
            (&first["names"], &first["versions"]),
            (&4.into(), &7.into())
        );
        assert_eq!(first["copied"], 7);
        digests.push(first["digest"].clone());
        // Again, it copies nothing, and says what it compared.
        for (option, by_trailer, identical) in [(None, 7, false), (Some("--read-data"), 0, true)] {
            let args: Vec<_> = [from, to].into_iter().chain(option).collect();
            let (lines, _) = copy(&stores, &args, 0);
            let again = lines.last().expect("a summary");
            assert_eq!(again["copied"], 0);
            assert_eq!(again["digest"], first["digest"]);
            assert_eq!(again["compared_by_trailer"], by_trailer);
            assert_eq!(again["identical"], identical);
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    for backend in [s3, gcs] {
        assert_eq!(seen(backend), seen(local), "{}", backend.name());
    }
    // On a disk it can be seen that every byte is the same, and nothing else is there.
    let original = local.url().trim_start_matches("file://");
    assert_eq!(files(&home.path().join("back")), files(Path::new(original)));
}

/// Every object of a local store, but for what only one of them can have.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("readable").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                dirs.push(entry.path())
            } else {
                let path = entry.path();
                let key = path
                    .strip_prefix(root)
                    .expect("below")
                    .display()
                    .to_string();
                // Each store has a policy of its own.
                if !key.starts_with("~/~/") {
                    files.push((key, fs::read(path).expect("readable")));
                }
            }
        }
    }
    files.sort();
    files
}

#[test]
fn an_agent_or_a_name_can_be_copied_alone() {
    let stores = on_each_backend();
    let [local, s3, _] = &stores;
    fill(local);
    let (lines, _) = copy(&stores, &[local.url(), s3.url(), "bot/memory"], 0);
    assert_eq!(lines.last().expect("a summary")["versions"], 3);
    copy(&stores, &[local.url(), s3.url(), "bot/monday/"], 0);
    let listed = s3.run_ok(&["ls", "-q", "--all"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(s3.run_ok(&["history", "bot/memory"]).contains("pinned"));
    copy(&stores, &[local.url(), s3.url(), "nobody"], 3);
    copy(&stores, &[local.url(), local.url()], 2);
}

#[test]
fn a_copy_never_touches_what_is_there_and_leaves_out_what_is_damaged() {
    let stores = on_each_backend();
    let [local, s3, gcs] = &stores;
    fill(local);
    s3.save("bot/memory", "another one");
    let (lines, said) = copy(&stores, &[local.url(), s3.url()], 4);
    assert!(
        said.contains("bot/memory@1: left unchanged: the destination has a different version 1"),
        "{said}"
    );
    assert_eq!(lines.last().expect("a summary")["complete"], false);
    assert_eq!(lines.last().expect("a summary")["pins_only_in_source"], 1);
    assert_eq!(s3.run_ok(&["cat", "bot/memory@1"]), "another one");
    assert_eq!(s3.run_ok(&["cat", "bot/memory@2"]), "two");

    let key = "bot/~/memory/9999999997-0000000002.gz";
    let mut flipped = local.read_object(key);
    flipped[15] ^= 1;
    local.delete_object(key);
    local.put_object(key, &flipped);
    let (lines, said) = copy(&stores, &[local.url(), gcs.url()], 6);
    assert!(
        said.contains("bot/memory@2") && said.contains("corrupt"),
        "{said}"
    );
    assert_eq!(lines.last().expect("a summary")["versions"], 6);
    assert_eq!(gcs.run_ok(&["cat", "bot/memory"]), "three");
    gcs.run_fails(&["cat", "bot/memory@2"], 3);
}

#[test]
fn a_copy_over_a_store_that_went_on_is_no_proof() {
    let stores = on_each_backend();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let from = &stores[from];
        let to = &stores[to];
        let name = format!("bot/{}-to-{}", from.name(), to.name());
        from.save(&name, "one");
        copy(&stores, &[from.url(), to.url(), &name], 0);
        to.save(&name, "two");
        let (lines, said) = copy(&stores, &[from.url(), to.url(), &name], 4);
        assert!(
            said.contains("only in the destination and is newer"),
            "{said}"
        );
        assert_eq!(lines.last().expect("a summary")["complete"], false);
        assert_eq!(to.run_ok(&["cat", &name]), "two");
        // What is not there is no name that was copied.
        let (_, said) = copy(&stores, &[from.url(), to.url(), "bot/nothing"], 3);
        assert!(said.contains("nothing matches bot/nothing"), "{said}");
    }
}

#[test]
fn a_store_is_neither_copied_onto_itself_nor_into_itself() {
    let dir = tempdir();
    let store = dir.path().join("store");
    fs::create_dir(&store).expect("made");
    std::os::unix::fs::symlink(&store, dir.path().join("link")).expect("made");
    let url = |end: &str| format!("file://{}/{end}", dir.path().display());
    for to in ["store/", "link", "store/../store"] {
        let said = persist_tests::run_fails(&store, &["copy", &url("store"), &url(to)], 2);
        assert!(
            said.contains("are the same store") && said.contains("name two stores"),
            "{to}: {said}"
        );
    }
    for to in ["store/below", "link/below", ""] {
        let said = persist_tests::run_fails(&store, &["copy", &url("store"), &url(to)], 2);
        assert!(said.contains("within the other"), "{to}: {said}");
    }
    let [_, s3, _] = on_each_backend();
    let below = s3.url().replace('?', "/below?");
    let below = if below == s3.url() {
        format!("{below}/below")
    } else {
        below
    };
    let said = s3.run_fails(&["copy", s3.url(), &below], 2);
    assert!(said.contains("within the other"), "{said}");
}

#[test]
fn a_store_moves_between_servers_with_different_accounts() {
    let places = [
        ("old", TestStore::on(Kind::SeaweedFs)),
        ("new", TestStore::on(Kind::Ministack)),
    ];
    let dir = tempdir();
    let credentials = dir.path().join("credentials");
    let mut profiles = String::new();
    for (profile, place) in &places {
        let facts = place.server().facts();
        let key = &facts.access_key;
        let secret = &facts.secret_key;
        profiles +=
            &format!("[{profile}]\naws_access_key_id={key}\naws_secret_access_key={secret}\n");
    }
    fs::write(&credentials, profiles).expect("writes");
    let url = |(profile, place): &(&str, TestStore)| {
        let endpoint = place.server().endpoint();
        format!("{}?endpoint={endpoint}&profile={profile}", place.url())
    };
    let state = dir.path().join("state");
    fs::write(&state, noise(1, 20 << 20)).expect("writes");
    let saved = places[0]
        .1
        .command()
        .args(["save", "bot/memory"])
        .arg(&state)
        .status();
    assert!(saved.expect("persist starts").success());

    let copied = persist_tests::persist(dir.path())
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .env("AWS_CONFIG_FILE", dir.path().join("none"))
        .args(["copy", "--create", &url(&places[0]), &url(&places[1])])
        .output()
        .expect("persist starts");
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    let shown = places[1].1.command().args(["cat", "bot/memory"]).output();
    assert!(shown.expect("persist starts").stdout == noise(1, 20 << 20));
}

#[test]
fn two_copies_at_once_end_with_one_store() {
    let stores = on_each_backend();
    let [local, _, gcs] = &stores;
    fill(local);
    let start = || {
        let mut command = everywhere(&stores);
        command.args(["copy", local.url(), gcs.url()]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("persist starts")
    };
    for copying in [start(), start()] {
        let output = copying.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    assert_eq!(seen(gcs), seen(local));
}

#[test]
fn an_archive_is_a_plain_tar_file_that_goes_back_into_any_store() {
    for backend in on_each_backend() {
        fill(&backend);
        let dir = tempdir();
        let file = dir.path().join("agents.tar");
        let file = file.to_str().expect("text");
        let exported = backend.run_ok(&["export", file]);
        assert!(
            exported.starts_with("exported 7 versions of 4 names"),
            "{exported}"
        );
        assert!(backend.run_fails(&["export", file], 2).contains("exists"));
        assert_eq!(
            fs::read_dir(dir.path()).expect("readable").count(),
            1,
            "only the archive"
        );

        // What tar unpacks is a store.
        let unpacked = dir.path().join("unpacked");
        fs::create_dir(&unpacked).expect("made");
        let tar = |args: &[&str]| {
            let status = Command::new("tar").args(args).status().expect("tar starts");
            assert!(status.success());
        };
        tar(&["xf", file, "-C", unpacked.to_str().expect("text")]);
        let url = format!("file://{}", unpacked.display());
        let cat = |args: &[&str]| backend.run_ok(&[&["--storage", &url], args].concat());
        assert_eq!(cat(&["cat", "bot/memory"]), "three");
        let manifest = fs::read_to_string(unpacked.join("manifest.jsonl")).expect("is there");
        assert_eq!(json(&manifest).len(), 7);

        let url = format!("file://{}", dir.path().join("new").display());
        let import = ["--storage", &url, "import", "--create", file];
        let printed = backend.run_ok(&import);
        assert!(
            printed.contains("identical: 7 versions of 4 names"),
            "{printed}"
        );
        let again = backend.run_ok(&import);
        assert!(
            again.contains("compared by the checksum of the trailer"),
            "{again}"
        );
        assert!(
            again.contains("\ncomplete: 7 versions of 4 names"),
            "{again}"
        );
        let read = backend.run_ok(&[&import[..], &["--read-data"]].concat());
        assert!(read.contains("identical: 7 versions of 4 names"), "{read}");
        let history = |name: &str| {
            let other = backend.run_ok(&["--storage", &url, "history", name, "--json"]);
            assert_eq!(other, backend.run_ok(&["history", name, "--json"]));
        };
        for name in [
            "bot/memory",
            "bot/big",
            "bot/monday/memory",
            "Other Bot/Notes~2f2026",
        ] {
            history(name);
        }
        let piped = backend.run(&["export", "-", "bot/memory"]);
        assert!(piped.status.success());
        assert!(text(&piped.stderr).contains("exported 3 versions of 1 name"));
        let part = dir.path().join("part.tar");
        fs::write(&part, &piped.stdout).expect("writes");
        let part = part.to_str().expect("text");
        let url = format!("file://{}", dir.path().join("part").display());
        let printed = backend.run_ok(&["--storage", &url, "import", "--create", part]);
        assert!(
            printed.contains("identical: 3 versions of 1 name"),
            "{printed}"
        );
    }
}

#[test]
fn an_archive_that_is_cut_off_or_changed_is_refused() {
    let [local, ..] = on_each_backend();
    fill(&local);
    let dir = tempdir();
    let file = dir.path().join("agents.tar");
    let path = file.to_str().expect("text");
    local.run_ok(&["export", path]);
    let whole = fs::read(&file).expect("readable");
    let url = format!("file://{}", dir.path().join("new").display());
    let import = |code| local.run_fails(&["--storage", &url, "import", "--create", path], code);
    for len in [0, 100, 512, 5000, whole.len() / 2, whole.len() - 4096] {
        fs::write(&file, &whole[..len]).expect("writes");
        let said = import(1);
        assert!(said.contains("agents.tar"), "{len}: {said}");
    }
    assert!(
        !dir.path().join("new").exists(),
        "nothing of it was imported"
    );
    // A bit in the middle of the large state.
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&file, &flipped).expect("writes");
    let said = import(6);
    assert!(
        said.contains("bot/big@1") && said.contains("corrupt"),
        "{said}"
    );
    fs::write(&file, "hello").expect("writes");
    import(1);
}

#[test]
fn a_damaged_version_is_left_out_of_an_archive_and_said() {
    let [local, ..] = on_each_backend();
    fill(&local);
    let key = "bot/~/memory/9999999997-0000000002.gz";
    let mut flipped = local.read_object(key);
    flipped[15] ^= 1;
    local.delete_object(key);
    local.put_object(key, &flipped);
    let dir = tempdir();
    let file = dir.path().join("agents.tar");
    let (printed, said) = local.run_ends(&["export", file.to_str().expect("text")], 6);
    assert!(printed.starts_with("exported 6 versions"), "{printed}");
    assert!(said.contains("bot/memory@2 was not exported"), "{said}");
}

#[test]
fn a_copy_that_is_killed_leaves_nothing_partial_and_goes_on() {
    let stores = on_each_backend();
    let [local, s3, gcs] = &stores;
    fill(local);
    for to in [s3, gcs] {
        for millis in [20, 100, 300] {
            let mut command = everywhere(&stores);
            command.args(["copy", local.url(), to.url()]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut copying = command.spawn().expect("persist starts");
            std::thread::sleep(Duration::from_millis(millis));
            // It may have ended before.
            let _ = copying.kill();
            copying.wait().expect("it ends");
            // Where it was killed at once, nothing is there.
            let checked = to.run(&["check", "--read-data"]).status.code();
            assert!(matches!(checked, Some(0 | 3)), "{checked:?}");
        }
        let (lines, _) = copy(&stores, &[local.url(), to.url()], 0);
        assert_eq!(lines.last().expect("a summary")["versions"], 7);
        assert_eq!(seen(to), seen(local), "{}", to.name());
    }
}

/// Flips a bit of a stored file.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("readable");
    bytes[at] ^= 1;
    fs::write(file, bytes).expect("writes");
}

/// Two directories for stores, and the command on them.
struct Disks {
    dir: tempfile::TempDir,
}

impl Disks {
    fn new() -> Self {
        Self { dir: tempdir() }
    }

    fn path(&self, store: &str) -> PathBuf {
        self.dir.path().join(store)
    }

    fn url(&self, store: &str) -> String {
        format!("file://{}", self.path(store).display())
    }

    /// The file of a version; `dir` is the directory of its name.
    fn file(&self, store: &str, dir: &str, version: u64) -> PathBuf {
        self.path(store).join(dir).join(version_file(version))
    }

    fn save(&self, store: &str, address: &str, state: &[u8]) {
        let file = self.path("state");
        fs::write(&file, state).expect("writes");
        let file = file.to_str().expect("text").to_owned();
        persist_tests::run_ok(&self.path(store), &["save", address, &file]);
    }

    /// Copies A to B, and returns the summary and what was said.
    fn copy(&self, options: &[&str], code: i32) -> (Value, String) {
        let from = self.url("A");
        let to = self.url("B");
        let args = [&["copy", "--create", &from, &to, "--json"], options].concat();
        let output = persist_tests::run(&self.path("A"), &args);
        let said = text(&output.stderr).to_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let lines = json(text(&output.stdout));
        (lines.last().cloned().unwrap_or_default(), said)
    }
}

#[test]
fn a_flipped_byte_on_either_side_is_not_called_identical() {
    for (damaged, sound) in [("B", "A"), ("A", "B")] {
        let disks = Disks::new();
        disks.save("A", "bot/big", &noise(1, 3_000_000));
        disks.copy(&[], 0);
        flip(&version_files(&disks.path(damaged))[0], 1_500_000);
        let (summary, _) = disks.copy(&[], 0);
        assert_eq!(summary["identical"], false);
        assert_eq!(summary["compared_by_trailer"], 1);
        let (summary, said) = disks.copy(&["--read-data"], 6);
        assert_eq!(summary["complete"], false);
        assert!(
            said.contains("bot/big@1") && said.contains("corrupt"),
            "{said}"
        );
        assert_eq!(
            said.contains("in the destination"),
            damaged == "B",
            "{said}"
        );
        let checked = persist_tests::run(&disks.path(sound), &["check", "--read-data"]);
        assert!(checked.status.success());
    }
}

#[test]
fn import_compares_what_is_there_as_it_says() {
    let disks = Disks::new();
    disks.save("A", "bot/big", &noise(1, 3_000_000));
    let archive = disks.path("a.tar");
    let archive = archive.to_str().expect("text");
    persist_tests::run_ok(&disks.path("A"), &["export", archive]);
    let import = ["import", archive];
    let first = persist_tests::run_ok(&disks.path("B"), &import);
    assert!(
        first.contains("read back and compared byte by byte"),
        "{first}"
    );
    flip(&version_files(&disks.path("B"))[0], 1_500_000);
    let again = persist_tests::run_ok(&disks.path("B"), &import);
    assert!(
        again.contains("compared by the checksum of the trailer"),
        "{again}"
    );
    assert!(!again.contains("identical"), "{again}");
    persist_tests::run_fails(
        &disks.path("B"),
        &[&import[..], &["--read-data"]].concat(),
        6,
    );
}

#[test]
fn a_destination_that_stores_other_bytes_is_found_when_they_are_read_back() {
    #[derive(Debug)]
    struct Rotten(Memory);

    impl Rotten {
        fn rot(key: &Key, body: Vec<Bytes>) -> Vec<Bytes> {
            let mut body = body.concat();
            if key.as_str().starts_with("bot/") {
                // In the last block of the state, which no trailer holds.
                let at = body.len() / 2;
                body[at] ^= 1;
            }
            vec![body.into()]
        }
    }

    #[async_trait]
    impl Forward for Rotten {
        fn inner(&self) -> Arc<dyn Storage> {
            Arc::new(self.0.clone())
        }

        async fn create(&self, key: &Key, body: Vec<Bytes>) -> storage::Result<()> {
            self.0.create(key, Self::rot(key, body)).await
        }
    }

    block_on(async {
        let from = scope(Arc::new(Memory::new()));
        let state = noise(1, 1_000_000);
        let saved = from.save("memory", state.into(), SaveOptions::default());
        saved.await.expect("saves");
        let to = Store::new(Arc::new(Rotten(Memory::new())));
        let mut told = Vec::new();
        let copied = from.copy_to("memory", &to, CopyOptions::default(), |copied| {
            told.push(copied);
        });
        copied.await.expect("goes on");
        let found = matches!(
            &told[..],
            [CopyOutcome::DamagedThere(1, Error::Corrupt { .. })]
        );
        assert!(found, "{told:?}");
    });
}

#[test]
fn surplus_in_the_destination_is_counted() {
    let disks = Disks::new();
    for state in ["1", "2", "3"] {
        disks.save("A", "bot/memory", state.as_bytes());
    }
    persist_tests::run_ok(&disks.path("A"), &["pin", "bot/memory@2"]);
    disks.copy(&[], 0);
    // The source is pruned and unpinned; the destination has other names besides.
    persist_tests::run_ok(&disks.path("A"), &["unpin", "bot/memory@2"]);
    fs::remove_file(
        disks
            .path("A")
            .join("bot/~/memory/9999999998-0000000001.gz"),
    )
    .expect("removes");
    for other in ["aaa/first", "bot/session/other", "zzz/last"] {
        disks.save("B", other, b"x");
    }
    let (summary, _) = disks.copy(&["--read-data"], 0);
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["identical"], false);
    assert_eq!(summary["names_only_in_destination"], 3);
    assert_eq!(summary["versions_only_in_destination"], 1);
    assert_eq!(summary["pins_only_in_destination"], 1);
    let from = disks.url("A");
    let to = disks.url("B");
    let printed = persist_tests::run_ok(&disks.path("A"), &["copy", &from, &to]);
    let said = "only in the destination: 3 names, 1 version, 1 pin";
    assert!(printed.contains(said), "{printed}");
}

/// Puts something that is no file in the place of one.
fn replace(file: &Path, by: &str) {
    fs::remove_file(file).expect("removes");
    match by {
        "link" => std::os::unix::fs::symlink("/etc/passwd", file).expect("links"),
        "pipe" => {
            let made = Command::new("mkfifo").arg(file).status();
            assert!(made.expect("mkfifo is there").success());
        }
        "directory" => fs::create_dir(file).expect("makes"),
        _ => {
            fs::create_dir(file).expect("makes");
            fs::write(file.join("x"), "x").expect("writes");
        }
    }
}

#[test]
fn a_bad_entry_is_left_out_of_a_copy_and_all_others_are_copied() {
    for by in ["link", "pipe", "directory", "full directory"] {
        for damaged in ["A", "B"] {
            let disks = Disks::new();
            for name in ["aa/memory", "mm/memory", "zz/memory"] {
                for state in ["one", "two"] {
                    disks.save("A", name, state.as_bytes());
                }
            }
            if damaged == "B" {
                disks.save("B", "mm/memory", b"x");
            }
            let file = disks
                .path(damaged)
                .join("mm/~/memory/9999999998-0000000001.gz");
            replace(&file, by);
            for _ in 0..2 {
                let (_, said) = disks.copy(&[], 6);
                let named = said.contains("mm/memory@1") && said.contains("not a regular file");
                assert!(named, "{by} in {damaged}: {said}");
                assert!(!said.contains("another writer"), "{said}");
                assert_eq!(
                    said.contains("in the destination"),
                    damaged == "B",
                    "{said}"
                );
            }
            for name in ["aa/memory", "mm/memory", "zz/memory"] {
                assert_eq!(
                    persist_tests::run_ok(&disks.path("B"), &["cat", name]),
                    "two"
                );
            }
            // When it is gone, a copy does what is left.
            if file.is_dir() && !file.is_symlink() {
                fs::remove_dir_all(&file).expect("removes")
            } else {
                fs::remove_file(&file).expect("removes")
            }
            let (summary, _) = disks.copy(&[], 0);
            assert_eq!(summary["complete"], true);
        }
    }
}

/// Saves a version with this number in A. What is the newest is told by the names of the files
/// alone.
fn save_as(disks: &Disks, address: &str, version: u64) {
    let (agent, name) = address.split_once('/').expect("an address");
    let dir = disks.path("A").join(agent).join("~").join(name);
    fs::create_dir_all(&dir).expect("makes");
    let before = version - 1;
    let file = version_file(before);
    fs::write(dir.join(&file), "").expect("writes");
    disks.save("A", address, b"state");
    fs::remove_file(dir.join(file)).expect("removes");
}

#[test]
fn a_number_far_above_the_destination_is_not_copied_unless_asked_for() {
    let disks = Disks::new();
    let highest = [1_000_002, 9_000_000_001, 9_999_999_999];
    for version in highest {
        save_as(&disks, "bot/memory", version);
    }
    save_as(&disks, "bot/fresh", 5_000_000);
    disks.save("B", "bot/memory", b"good");
    let (summary, said) = disks.copy(&[], 8);
    assert_eq!(summary["skipped"], 3);
    for version in highest {
        assert!(
            said.contains(&format!("bot/memory@{version}: not copied: its number")),
            "{said}"
        );
    }
    assert_eq!(
        persist_tests::run_ok(&disks.path("B"), &["cat", "bot/memory"]),
        "good"
    );
    disks.save("B", "bot/memory", b"goes on");
    // A history that was pruned may begin with any number that leaves room.
    persist_tests::run_ok(&disks.path("B"), &["cat", "bot/fresh"]);
    let (summary, _) = disks.copy(&["--any-version"], 0);
    assert_eq!(summary["complete"], true);
}

#[test]
fn an_archive_that_was_unpacked_and_packed_again_is_taken() {
    let disks = Disks::new();
    for state in ["one", "two"] {
        disks.save("A", "bot/memory", state.as_bytes());
    }
    let archive = disks.path("a.tar");
    persist_tests::run_ok(
        &disks.path("A"),
        &["export", archive.to_str().expect("text")],
    );
    fs::create_dir(disks.path("My Backup")).expect("makes");
    let tar = |args: &[&str]| {
        let tar = Command::new("tar")
            .current_dir(disks.dir.path())
            .args(args)
            .status();
        assert!(tar.expect("tar starts").success(), "{args:?}");
    };
    tar(&["xf", "a.tar", "-C", "My Backup"]);
    for (n, pack) in [
        &["-C", "My Backup", "."][..],
        &["-C", "My Backup", "~", "bot", "manifest.jsonl"],
        &["My Backup"],
        &["./My Backup"],
        &["--format=pax", "-C", "My Backup", "."],
        &["--format=v7", "-C", "My Backup", "."],
    ]
    .into_iter()
    .enumerate()
    {
        tar(&[&["cf", "b.tar"], pack].concat());
        let store = disks.path(&format!("into {n}"));
        let file = disks.path("b.tar");
        let printed = persist_tests::run_ok(&store, &["import", file.to_str().expect("text")]);
        assert!(
            printed.contains("identical: 2 versions of 1 name"),
            "{pack:?}: {printed}"
        );
    }
    // A store that was packed is told from an archive that was cut off.
    for (pack, hint) in [
        (&["-C", "A", "."][..], "unpack it into an empty directory"),
        (&["A"], "unpack it into an empty directory"),
        (&["state"], "not written by `persist export`"),
    ] {
        tar(&[&["cf", "c.tar"], pack].concat());
        let file = disks.path("c.tar");
        let said = persist_tests::run_fails(
            &disks.path("into"),
            &["import", file.to_str().expect("text")],
            1,
        );
        assert!(said.contains(hint), "{pack:?}: {said}");
    }
}

#[test]
fn a_compressed_archive_is_named_with_the_program_that_decompresses_it() {
    let disks = Disks::new();
    disks.save("A", "bot/memory", b"one");
    let archive = disks.path("a.tar");
    persist_tests::run_ok(
        &disks.path("A"),
        &["export", archive.to_str().expect("text")],
    );
    let compressed = Command::new("gzip").arg(&archive).status();
    assert!(compressed.expect("gzip starts").success());
    // What the files of other programs begin with.
    for (file, start) in [
        ("a.tar.zst", &b"\x28\xb5\x2f\xfd\x04"[..]),
        ("a.tar.xz", b"\xfd7zXZ\0\0\x04"),
        ("a.tar.bz2", b"BZh91AY"),
    ] {
        fs::write(disks.path(file), start).expect("writes");
    }
    for (file, program) in [
        ("a.tar.gz", "gzip"),
        ("a.tar.zst", "zstd"),
        ("a.tar.xz", "xz"),
        ("a.tar.bz2", "bzip2"),
    ] {
        let file = disks.path(file);
        let into = disks.path("into");
        let said = persist_tests::run_fails(&into, &["import", file.to_str().expect("text")], 1);
        for part in [
            format!("is compressed with {program}"),
            format!("hint: decompress it first: `{program} -d`"),
        ] {
            assert!(said.contains(&part), "{said}");
        }
    }
}

#[test]
fn a_hostile_archive_costs_little_memory() {
    let dir = tempdir();
    let header = |path: &str, size: u64, kind: u8| {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        // Twelve bytes hold any length where the first bit is set.
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar  \0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let three = 3_u64 << 30;
    /// Name, claimed size and type of an entry.
    type Claim = (&'static str, u64, u8);
    let entries: [(&str, &[Claim]); 7] = [
        (
            "long name",
            &[("././@LongLink", three, b'L'), ("x", 0, b'0')],
        ),
        (
            "long link",
            &[("././@LongLink", three, b'K'), ("x", 0, b'0')],
        ),
        ("pax", &[("x", three, b'x'), ("x", 0, b'0')]),
        ("global pax", &[("x", three, b'g'), ("x", 0, b'0')]),
        ("manifest", &[("manifest.jsonl", three, b'0')]),
        ("sparse", &[("manifest.jsonl", three, b'S')]),
        (
            "huge",
            &[("bot/~/memory/9999999998-0000000001.gz", u64::MAX, b'0')],
        ),
    ];
    for (what, entries) in entries {
        let path = dir.path().join("bomb.tar");
        let file = fs::File::create(&path).expect("makes");
        let mut at = 0;
        for (path, size, kind) in entries {
            std::os::unix::fs::FileExt::write_all_at(&file, &header(path, *size, *kind), at)
                .expect("writes");
            at = (at + 512).saturating_add(*size).min(1 << 40);
        }
        // A sparse file: it is as long as it says, and takes some kilobytes.
        file.set_len(at.next_multiple_of(512) + 1024).expect("set");
        let binary = persist_tests::persist(dir.path());
        let script = format!(
            "ulimit -v 600000; exec {} import --create {}",
            binary.get_program().display(),
            path.display()
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("PERSIST_LOCAL_PATH", dir.path().join("store"))
            .output()
            .expect("bash starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(
            said.contains("bomb.tar") && said.len() < 2000,
            "{what}: {said}"
        );
        assert!(!dir.path().join("store").exists(), "{what}");
    }
}

#[test]
fn an_archive_is_not_written_under_the_name_of_a_compressed_file() {
    let disks = Disks::new();
    disks.save("A", "bot/memory", b"one");
    for name in [
        "a.tar.gz",
        "a.tgz",
        "a.TAR.ZST",
        "a.tar.xz",
        "a.bz2",
        "a.zip",
    ] {
        let file = disks.path(name);
        let said = persist_tests::run_fails(
            &disks.path("A"),
            &["export", file.to_str().expect("text")],
            2,
        );
        assert!(said.contains("persist export - |"), "{said}");
        assert!(!file.exists());
    }
}

/// Runs the command with the two stores of `disks` as arguments, and returns its lines.
fn run_on(disks: &Disks, args: &[&str], code: i32) -> (Vec<Value>, String) {
    let mut command = persist_tests::persist(&disks.path("A"));
    let output = command.arg("--json").args(args).stdin(Stdio::null());
    let output = output.output().expect("persist starts");
    let said = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    (json(text(&output.stdout)), said)
}

#[test]
fn a_dry_run_of_a_copy_tells_what_a_copy_would_do_and_changes_nothing() {
    let disks = Disks::new();
    for state in ["1", "2"] {
        disks.save("A", "bot/memory", state.as_bytes());
    }
    persist_tests::run_ok(&disks.path("A"), &["pin", "bot/memory@2"]);
    let (summary, _) = disks.copy(&["--dry-run"], 0);
    assert_eq!(summary["dry_run"], true);
    assert_eq!(
        (&summary["copied"], &summary["versions"]),
        (&2.into(), &0.into())
    );
    assert_eq!(
        (&summary["complete"], &summary["identical"]),
        (&false.into(), &false.into())
    );
    assert!(!disks.path("B").exists(), "a dry run made a store");

    disks.copy(&[], 0);
    disks.save("A", "bot/memory", b"3");
    persist_tests::run_ok(&disks.path("A"), &["pin", "bot/memory@3"]);
    let before = files(&disks.path("B"));
    let a = disks.url("A");
    let b = disks.url("B");
    let (lines, _) = run_on(&disks, &["copy", &a, &b, "--dry-run"], 0);
    assert_eq!(lines[0]["copied"], 1);
    assert_eq!(lines[0]["pins_missing"], Value::from(vec![3]));
    assert_eq!(files(&disks.path("B")), before);
    let (summary, _) = disks.copy(&[], 0);
    assert_eq!(summary["copied"], 1);
    let (summary, _) = disks.copy(&["--dry-run"], 0);
    assert_eq!(summary["complete"], true);

    // It ends with the code that the copy would end with.
    disks.save("B", "bot/memory", b"another fourth");
    disks.copy(&["--dry-run"], 4);
    disks.save("A", "bot/memory", b"fourth");
    let (_, said) = disks.copy(&["--dry-run"], 4);
    assert!(said.contains("different version 4"), "{said}");
}

#[test]
fn a_mirror_removes_what_the_source_does_not_have() {
    for backend in on_each_backend() {
        let disks = Disks::new();
        let from = disks.url("A");
        for state in ["1", "2", "3"] {
            disks.save("A", "bot/memory", state.as_bytes());
        }
        persist_tests::run_ok(&disks.path("A"), &["pin", "bot/memory@2"]);
        let run = |args: &[&str], code: i32| {
            let args = [&["copy", &from, backend.url()][..], args, &["--json"]].concat();
            let output = backend.run(&args);
            let said = text(&output.stderr).to_owned();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
            (json(text(&output.stdout)), said)
        };
        run(&["--create"], 0);
        // The source is pruned and unpinned; the destination has other names besides.
        persist_tests::run_ok(&disks.path("A"), &["unpin", "bot/memory@2"]);
        fs::remove_file(disks.file("A", "bot/~/memory", 1)).expect("removes");
        backend.save("aaa/first", "x");
        backend.save("zzz/last", "x");
        backend.run_ok(&["pin", "zzz/last@1"]);

        let (lines, _) = run(&["--delete", "--dry-run"], 0);
        let removed = lines.iter().filter(|line| line["event"] == "removed");
        assert_eq!(removed.count(), 3, "{lines:?}");
        assert!(backend.run_ok(&["ls"]).contains("aaa/first"));
        let (_, said) = run(&["--delete"], 2);
        assert!(said.contains("without confirmation"), "{said}");
        assert!(backend.run_ok(&["ls"]).contains("aaa/first"));
        let (lines, _) = run(&["--delete", "--yes"], 0);
        let summary = lines.last().expect("a summary");
        assert_eq!(summary["removed_names"], 2, "{summary}");
        assert_eq!(summary["removed_versions"], 3);
        let (lines, _) = run(&["--delete", "--yes", "--read-data"], 0);
        assert_eq!(lines.last().expect("a summary")["identical"], true);
        assert_eq!(backend.run_ok(&["ls", "--json"]).lines().count(), 1);
        assert_eq!(
            backend
                .run_ok(&["history", "bot/memory", "--json"])
                .lines()
                .count(),
            2
        );
        backend.run_ok(&["check", "--read-data"]);
    }
}

#[test]
fn a_mirror_removes_nothing_that_is_newer_unless_told_to() {
    let disks = Disks::new();
    disks.save("A", "bot/memory", b"1");
    disks.copy(&[], 0);
    disks.save("B", "bot/memory", b"2");
    disks.save("B", "bot/other", b"1");
    let (summary, said) = disks.copy(&["--delete", "--yes"], 4);
    assert_eq!(summary["removed_versions"], 0);
    assert!(said.contains("bot/memory@2"), "{said}");
    assert!(said.contains("nothing is removed"), "{said}");
    assert_eq!(
        persist_tests::run_ok(&disks.path("B"), &["cat", "bot/memory"]),
        "2"
    );
    let from = disks.url("A");
    let to = disks.url("B");
    let args = ["copy", &from, &to, "--delete", "--delete-newer", "--yes"];
    let (lines, _) = run_on(&disks, &args, 0);
    let newer: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "removed")
        .collect();
    assert_eq!(newer.len(), 2, "{lines:?}");
    assert_eq!(newer[0]["newer_than_source"], Value::from(vec![2]));
    assert_eq!(
        persist_tests::run_ok(&disks.path("B"), &["cat", "bot/memory"]),
        "1"
    );
}

#[test]
fn a_mirror_of_an_empty_or_another_store_is_refused() {
    let disks = Disks::new();
    disks.save("B", "bot/memory", b"1");
    let from = disks.url("A");
    let to = disks.url("B");
    let mirror = ["copy", &from, &to, "--delete", "--yes"];
    let missing = disks.url("missing");
    run_on(&disks, &["copy", &missing, &to, "--delete", "--yes"], 3);
    let (_, said) = run_on(&disks, &mirror, 2);
    assert!(said.contains("would remove everything"), "{said}");
    disks.save("A", "other/memory", b"1");
    let (_, said) = run_on(&disks, &mirror, 2);
    assert!(said.contains("would remove everything"), "{said}");
    // Refused before anything was copied.
    let listed = persist_tests::run_ok(&disks.path("B"), &["ls"]);
    assert!(
        listed.contains("bot/memory") && !listed.contains("other"),
        "{listed}"
    );
}

#[test]
fn a_mirror_removes_nothing_after_a_version_that_could_not_be_copied() {
    let disks = Disks::new();
    for state in ["1", "2"] {
        disks.save("A", "bot/memory", state.as_bytes());
    }
    disks.copy(&[], 0);
    disks.save("B", "bot/other", b"1");
    disks.save("A", "bot/big", &noise(1, 3_000_000));
    flip(&disks.file("A", "bot/~/big", 1), 1_500_000);
    let (_, said) = disks.copy(&["--delete", "--yes"], 6);
    assert!(said.contains("nothing is removed"), "{said}");
    assert_eq!(
        persist_tests::run_ok(&disks.path("B"), &["cat", "bot/other"]),
        "1"
    );
}

#[test]
fn a_copy_repairs_damaged_versions_of_the_destination() {
    let disks = Disks::new();
    for address in ["bot/big", "bot/cut"] {
        for seed in [1, 2] {
            disks.save("A", address, &noise(seed, 3_000_000));
        }
    }
    disks.copy(&[], 0);
    let sound = files(&disks.path("B"));
    // One has a damaged block, one was cut off, one is gone.
    let big = disks.file("B", "bot/~/big", 1);
    flip(&big, 1_500_000);
    let cut = disks.file("B", "bot/~/cut", 2);
    let whole = fs::read(&cut).expect("readable");
    fs::write(&cut, &whole[..whole.len() - 1]).expect("writes");
    fs::remove_file(disks.file("B", "bot/~/cut", 1)).expect("removes");
    let damaged = files(&disks.path("B"));
    disks.copy(&["--read-data", "--dry-run"], 6);
    let (summary, _) = disks.copy(&["--repair", "--dry-run"], 0);
    assert_eq!(
        (&summary["repaired"], &summary["copied"]),
        (&2.into(), &1.into())
    );
    assert_eq!(files(&disks.path("B")), damaged);
    let (summary, _) = disks.copy(&["--repair"], 0);
    assert_eq!(
        (&summary["repaired"], &summary["copied"]),
        (&2.into(), &1.into())
    );
    assert_eq!(summary["identical"], true);
    assert_eq!(files(&disks.path("B")), sound);
    persist_tests::run_ok(&disks.path("B"), &["check", "--read-data"]);

    // What is damaged in the source replaces nothing, and nothing is repaired there.
    flip(&disks.file("A", "bot/~/big", 1), 1_400_000);
    flip(&big, 1_500_000);
    let [a, b] = ["A", "B"].map(|store| files(&disks.path(store)));
    let (summary, said) = disks.copy(&["--repair"], 6);
    assert_eq!(summary["repaired"], 0);
    assert!(said.contains("bot/big@1"), "{said}");
    assert_eq!([a, b], ["A", "B"].map(|store| files(&disks.path(store))));
}

#[test]
fn a_copy_repairs_neither_another_version_nor_one_of_a_later_format() {
    let disks = Disks::new();
    disks.save("A", "bot/memory", b"one");
    disks.save("B", "bot/memory", b"another one");
    disks.save("B", "bot/other", b"other");
    let before = files(&disks.path("B"));
    let (_, said) = disks.copy(&["--repair"], 4);
    assert!(said.contains("different version 1"), "{said}");
    assert_eq!(files(&disks.path("B")), before);
    // A file that was saved as another version may be the last copy of that version.
    let other = disks.file("B", "bot/~/other", 1);
    fs::copy(other, disks.file("B", "bot/~/memory", 1)).expect("copies");
    let before = files(&disks.path("B"));
    let (_, said) = disks.copy(&["--repair"], 6);
    assert!(said.contains("misplaced"), "{said}");
    assert_eq!(files(&disks.path("B")), before);
}
