//! Stores that move: copied between backends, exported and imported.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use persist_servers::Kind;
use persist_tests::backends::{Backend, backends, json};
use persist_tests::s3::Place;
use persist_tests::{noise, tempdir, text};
use serde_json::Value;

/// A command that reaches all of these backends.
fn everywhere(backends: &[Backend]) -> Command {
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

fn copy(backends: &[Backend], args: &[&str], code: i32) -> (Vec<Value>, String) {
    let mut command = everywhere(backends);
    let output = command.arg("copy").args(args).arg("--json").output();
    let output = output.expect("persist starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    (json(text(&output.stdout)), said.to_owned())
}

/// Versions of several names, agents and sessions; a deletion, a pin, and one of many parts.
fn fill(backend: &Backend) {
    for state in ["one", "two", "three"] {
        backend.save("bot/memory", state);
    }
    backend.save("bot/monday/memory", "monday");
    backend.save("Other Bot/Notes~2f2026", "strange");
    backend.save_bytes("bot/big", &noise(3, 9 << 20));
    backend.ok(&["pin", "bot/memory@1"]);
    backend.ok(&["rm", "bot/monday/memory"]);
}

/// All that can be seen of a store, but for where it is.
fn seen(backend: &Backend) -> Vec<String> {
    let mut seen = Vec::new();
    for head in json(&backend.ok(&["ls", "--all", "--json"])) {
        let address = head["address"].as_str().expect("text");
        let name = address.split_once('@').expect("a version").0;
        seen.extend(
            backend
                .ok(&["history", name, "--json"])
                .lines()
                .map(Into::into),
        );
    }
    seen
}

#[test]
fn a_store_goes_round_all_backends_and_comes_back_the_same() {
    let stores = backends();
    let home = tempdir();
    let home_url = format!("file://{}", home.path().join("back").display());
    let [local, s3, gcs] = &stores;
    fill(local);
    let mut digests = Vec::new();
    for (from, to) in [
        (&local.url, &s3.url),
        (&s3.url, &gcs.url),
        (&gcs.url, &home_url),
    ] {
        let (lines, _) = copy(&stores, &[from, to], 0);
        let proof = lines.last().expect("a proof");
        assert_eq!(proof["proven"], true);
        assert_eq!(
            (&proof["names"], &proof["versions"]),
            (&4.into(), &7.into())
        );
        assert_eq!(proof["copied"], 7);
        digests.push(proof["digest"].clone());
        // Again, it does nothing, and proves the same.
        let (lines, _) = copy(&stores, &[from, to], 0);
        let again = lines.last().expect("a proof");
        assert_eq!(
            (&again["copied"], &again["digest"]),
            (&0.into(), &proof["digest"])
        );
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    for backend in [s3, gcs] {
        assert_eq!(seen(backend), seen(local), "{}", backend.name);
    }
    // On a disk it can be seen that every byte is the same, and nothing else is there.
    let original = local.url.trim_start_matches("file://");
    assert_eq!(files(&home.path().join("back")), files(Path::new(original)));
}

/// Every object of a local store, but for what only one of them can have.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("readable").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let path = entry.path();
                    let key = path
                        .strip_prefix(root)
                        .expect("below")
                        .display()
                        .to_string();
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
    let stores = backends();
    let [local, s3, _] = &stores;
    fill(local);
    let (lines, _) = copy(&stores, &[&local.url, &s3.url, "bot/memory"], 0);
    assert_eq!(lines.last().expect("a proof")["versions"], 3);
    copy(&stores, &[&local.url, &s3.url, "bot/monday/"], 0);
    let listed = s3.ok(&["ls", "--all"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(s3.ok(&["history", "bot/memory"]).contains("pinned"));
    copy(&stores, &[&local.url, &s3.url, "nobody"], 3);
    copy(&stores, &[&local.url, &local.url], 2);
}

#[test]
fn a_copy_never_touches_what_is_there_and_leaves_out_what_is_damaged() {
    let stores = backends();
    let [local, s3, gcs] = &stores;
    fill(local);
    s3.save("bot/memory", "another one");
    let (lines, said) = copy(&stores, &[&local.url, &s3.url], 4);
    assert!(
        said.contains("bot/memory@1 is another version over there"),
        "{said}"
    );
    assert_eq!(lines.last().expect("a proof")["proven"], false);
    assert_eq!(s3.ok(&["cat", "bot/memory@1"]), "another one");
    assert_eq!(s3.ok(&["cat", "bot/memory@2"]), "two");

    let key = "bot/~/memory/9999999997-0000000002.gz";
    let mut flipped = local.take(key);
    flipped[15] ^= 1;
    local.remove(key);
    local.put(key, &flipped);
    let (lines, said) = copy(&stores, &[&local.url, &gcs.url], 6);
    assert!(
        said.contains("bot/memory@2") && said.contains("corrupt"),
        "{said}"
    );
    assert_eq!(lines.last().expect("a proof")["versions"], 6);
    assert_eq!(gcs.ok(&["cat", "bot/memory"]), "three");
    gcs.fails(&["cat", "bot/memory@2"], 3);
}

#[test]
fn a_copy_over_a_store_that_went_on_is_no_proof() {
    let stores = backends();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (from, to) = (&stores[from], &stores[to]);
        let name = format!("bot/{}-to-{}", from.name, to.name);
        from.save(&name, "one");
        copy(&stores, &[&from.url, &to.url, &name], 0);
        to.save(&name, "two");
        let (lines, said) = copy(&stores, &[&from.url, &to.url, &name], 4);
        assert!(said.contains("only over there, and newer"), "{said}");
        assert_eq!(lines.last().expect("a proof")["proven"], false);
        assert_eq!(to.ok(&["cat", &name]), "two");
        // What is not there is no name that was copied.
        let (_, said) = copy(&stores, &[&from.url, &to.url, "bot/nothing"], 3);
        assert!(said.contains("nothing of this is saved"), "{said}");
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
        let said = persist_tests::fails(&store, &["copy", &url("store"), &url(to)], 2);
        assert!(said.contains("needs two stores"), "{to}: {said}");
    }
    for to in ["store/below", "link/below", ""] {
        let said = persist_tests::fails(&store, &["copy", &url("store"), &url(to)], 2);
        assert!(said.contains("within the other"), "{to}: {said}");
    }
    let [_, s3, _] = backends();
    let below = s3.url.replace('?', "/below?");
    let below = if below == s3.url {
        format!("{below}/below")
    } else {
        below
    };
    let said = s3.fails(&["copy", &s3.url, &below], 2);
    assert!(said.contains("within the other"), "{said}");
}

#[test]
fn a_store_moves_between_two_servers_of_which_each_has_an_account_of_its_own() {
    let places = [
        ("old", Place::on(Kind::SeaweedFs)),
        ("new", Place::on(Kind::Ministack)),
    ];
    let dir = tempdir();
    let credentials = dir.path().join("credentials");
    let mut profiles = String::new();
    for (profile, place) in &places {
        let facts = place.server().facts();
        let (key, secret) = (&facts.access_key, &facts.secret_key);
        profiles +=
            &format!("[{profile}]\naws_access_key_id={key}\naws_secret_access_key={secret}\n");
    }
    fs::write(&credentials, profiles).expect("writes");
    let url = |(profile, place): &(&str, Place)| {
        let endpoint = place.server().endpoint();
        format!("{}?endpoint={endpoint}&profile={profile}", place.url())
    };
    let state = dir.path().join("state");
    fs::write(&state, noise(1, 20 << 20)).expect("writes");
    let saved = places[0]
        .1
        .persist()
        .args(["save", "bot/memory"])
        .arg(&state)
        .status();
    assert!(saved.expect("persist starts").success());

    let copied = persist_tests::persist(dir.path())
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .env("AWS_CONFIG_FILE", dir.path().join("none"))
        .args(["copy", &url(&places[0]), &url(&places[1])])
        .output()
        .expect("persist starts");
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    let shown = places[1].1.persist().args(["cat", "bot/memory"]).output();
    assert!(shown.expect("persist starts").stdout == noise(1, 20 << 20));
}

#[test]
fn two_copies_at_once_end_with_one_store() {
    let stores = backends();
    let [local, _, gcs] = &stores;
    fill(local);
    let start = || {
        let mut command = everywhere(&stores);
        command.args(["copy", &local.url, &gcs.url]);
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
    for backend in backends() {
        fill(&backend);
        let dir = tempdir();
        let file = dir.path().join("agents.tar");
        let file = file.to_str().expect("text");
        let exported = backend.ok(&["export", file]);
        assert!(
            exported.starts_with("exported 7 versions of 4 names"),
            "{exported}"
        );
        assert!(
            backend
                .fails(&["export", file], 2)
                .contains("is there already")
        );
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
        let cat = |args: &[&str]| backend.ok(&[&["--storage", &url], args].concat());
        assert_eq!(cat(&["cat", "bot/memory"]), "three");
        let manifest = fs::read_to_string(unpacked.join("manifest.jsonl")).expect("is there");
        assert_eq!(json(&manifest).len(), 7);

        let url = format!("file://{}", dir.path().join("new").display());
        let import = ["--storage", &url, "import", file];
        let printed = backend.ok(&import);
        assert!(
            printed.contains("proof: 7 versions of 4 names"),
            "{printed}"
        );
        assert!(backend.ok(&import).contains("copied 0 versions"));
        let history = |name: &str| {
            let other = backend.ok(&["--storage", &url, "history", name, "--json"]);
            assert_eq!(other, backend.ok(&["history", name, "--json"]));
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
        let printed = backend.ok(&["--storage", &url, "import", part]);
        assert!(printed.contains("proof: 3 versions of 1 name"), "{printed}");
    }
}

#[test]
fn an_archive_that_is_cut_off_or_changed_is_refused() {
    let [local, ..] = backends();
    fill(&local);
    let dir = tempdir();
    let file = dir.path().join("agents.tar");
    let path = file.to_str().expect("text");
    local.ok(&["export", path]);
    let whole = fs::read(&file).expect("readable");
    let url = format!("file://{}", dir.path().join("new").display());
    let import = |code| local.fails(&["--storage", &url, "import", path], code);
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
    let [local, ..] = backends();
    fill(&local);
    let key = "bot/~/memory/9999999997-0000000002.gz";
    let mut flipped = local.take(key);
    flipped[15] ^= 1;
    local.remove(key);
    local.put(key, &flipped);
    let dir = tempdir();
    let file = dir.path().join("agents.tar");
    let (printed, said) = local.ends(&["export", file.to_str().expect("text")], 6);
    assert!(printed.starts_with("exported 6 versions"), "{printed}");
    assert!(said.contains("bot/memory@2 is left out"), "{said}");
}

#[test]
fn a_copy_that_is_killed_leaves_nothing_partial_and_goes_on() {
    let stores = backends();
    let [local, s3, gcs] = &stores;
    fill(local);
    for to in [s3, gcs] {
        for millis in [20, 100, 300] {
            let mut command = everywhere(&stores);
            command.args(["copy", &local.url, &to.url]);
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
        let (lines, _) = copy(&stores, &[&local.url, &to.url], 0);
        assert_eq!(lines.last().expect("a proof")["versions"], 7);
        assert_eq!(seen(to), seen(local), "{}", to.name);
    }
}
