//! Bad input through the command: whatever is wrong, the exit code says of what kind it is, the message says what to do, and
//! nothing that was saved before suffers. What only the library can show is with `disk`, `sandbox` and `versions`.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use persist_host::snapshot::{Error, Expect, SaveOptions};
use persist_host::storage::Local;
use persist_tests::{
    block_on, fails, guest, load, ok, persist, run, save, scope, tempdir, text, version_files,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// What the command says of a failure: to be acted on, so never a panic.
fn refused(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said.to_owned()
}

/// Saves a state through the command.
fn put(dir: &Path, address: &str, state: &[u8]) {
    let input = tempdir();
    let file = input.path().join("state");
    fs::write(&file, state).expect("writes");
    ok(dir, &["save", address, file.to_str().expect("text")]);
}

mod agents {
    use super::*;

    /// Runs a component given as text, which must be refused before anything runs.
    fn refuses(component: &str, hints: &[&str]) {
        let dir = tempdir();
        let file = dir.path().join("agent.wasm");
        fs::write(&file, wat::parse_str(component).expect("valid")).expect("writes");
        let output = run(dir.path(), &["run", file.to_str().expect("text")]);
        let said = refused(&output, 1);
        for hint in hints.iter().chain(&["this is not an agent"]) {
            assert!(said.contains(hint), "{hint:?} is not in: {said}");
        }
    }

    /// A component with a function that answers 7.
    fn exports(name: &str) -> String {
        format!(
            r#"(component
                (core module $m (func (export "f") (result i32) i32.const 7))
                (core instance $i (instantiate $m))
                (func (export "{name}") (result u32) (canon lift (core func $i "f"))))"#
        )
    }

    #[test]
    fn a_run_of_another_type_is_refused() {
        refuses(&exports("run"), &["run", "type", "persist:snapshot/agent"]);
    }

    #[test]
    fn a_component_without_run_is_told_what_to_export() {
        refuses(&exports("start"), &["run", "persist:snapshot/agent"]);
    }

    #[test]
    fn a_program_for_another_host_is_told_what_to_export() {
        let program = r#"(component
            (core module $m (func (export "f") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f (result (result)) (canon lift (core func $i "f")))
            (instance $run (export "run" (func $f)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#;
        refuses(program, &["run", "persist:snapshot/agent"]);
    }

    #[test]
    fn an_import_that_is_not_given_is_named() {
        refuses(
            r#"(component (import "acme:disk/files@1.0.0" (instance (export "open" (func)))))"#,
            &["acme:disk/files@1.0.0"],
        );
        refuses(
            r#"(component (import "wasi:http/types@0.2.0" (instance (export "open" (func)))))"#,
            &["wasi:http/types@0.2.0"],
        );
    }

    #[test]
    fn a_contract_that_this_host_does_not_know_is_named() {
        for (import, hint) in [
            (
                r#""persist:snapshot/store@0.1.0" (instance (export "merge" (func)))"#,
                "merge",
            ),
            (
                r#""persist:snapshot/store@0.1.0" (instance (export "save" (func (param "name" string))))"#,
                "save",
            ),
            (
                r#""persist:snapshot/store@7.0.0" (instance (export "save" (func)))"#,
                "persist:snapshot/store@7.0.0",
            ),
        ] {
            refuses(
                &format!("(component (import {import}))"),
                &["persist:snapshot/store", hint],
            );
        }
    }

    #[test]
    fn a_core_module_that_carries_no_world_is_refused() {
        refuses(
            r#"(module (import "env" "f" (func)))"#,
            &["core module", "env"],
        );
        refuses("(module)", &["run", "persist:snapshot/agent"]);
    }

    #[test]
    fn an_agent_that_was_cut_off_is_refused() {
        let whole = fs::read(guest("test_guest")).expect("readable");
        let dir = tempdir();
        let file = dir.path().join("agent.wasm");
        for len in [4, 7, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..len]).expect("writes");
            let output = run(dir.path(), &["run", file.to_str().expect("text")]);
            let said = refused(&output, 1);
            assert!(said.contains("build it or copy it again"), "{len}: {said}");
        }
    }

    /// Runs a scenario of the test guest.
    fn act(dir: &Path, args: &[&str]) -> Output {
        let guest = guest("test_guest");
        let run_guest = ["run", guest.to_str().expect("text"), "--agent", "bot", "--"];
        run(dir, &[&run_guest, args].concat())
    }

    fn answer(dir: &Path, args: &[&str]) -> String {
        let output = act(dir, args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    #[test]
    fn an_agent_that_traps_keeps_what_it_saved_and_runs_again() {
        let dir = tempdir();
        assert_eq!(answer(dir.path(), &["save", "memory", "one"]), "version 1");
        for scenario in ["trap", "panic", "deep-recursion"] {
            let said = refused(&act(dir.path(), &[scenario]), 9);
            assert!(
                said.contains("the agent trapped") && said.contains("is kept"),
                "{scenario}: {said}"
            );
        }
        assert_eq!(answer(dir.path(), &["load", "memory"]), "1 one");
    }

    #[test]
    fn an_agent_that_exhausts_its_memory_is_told_apart_from_one_that_fails() {
        let dir = tempdir();
        assert_eq!(answer(dir.path(), &["save", "memory", "one"]), "version 1");
        let said = refused(&act(dir.path(), &["big-save", "memory", "1000000000"]), 9);
        assert!(
            said.contains("256 MiB") && said.contains("memory"),
            "{said}"
        );
        let said = refused(&act(dir.path(), &["trap"]), 9);
        assert!(!said.contains("256 MiB"), "{said}");
        assert_eq!(answer(dir.path(), &["load", "memory"]), "1 one");
    }

    #[test]
    fn an_agent_that_dies_between_write_and_finish_leaves_nothing() {
        let dir = tempdir();
        refused(&act(dir.path(), &["trap-mid-write", "log"]), 9);
        assert_eq!(version_files(dir.path()), [] as [PathBuf; 0]);
        assert_eq!(ok(dir.path(), &["ls", "--all"]), "");
        assert_eq!(
            answer(dir.path(), &["stream", "log", "3", "9"]),
            "version 1"
        );
    }

    // That the limit stops it without anyone's help takes the default's 30 seconds: see `sandbox`, where it is lower.
    #[test]
    fn an_agent_that_loops_can_be_killed_and_what_it_saved_is_kept() {
        let dir = tempdir();
        let mut looping = persist(dir.path())
            .arg("run")
            .arg(guest("test_guest"))
            .args([
                "--agent",
                "bot",
                "-v",
                "--",
                "save-and-loop",
                "memory",
                "kept",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .expect("persist starts");
        let mut said = String::new();
        let stderr = looping.stderr.take().expect("piped");
        BufReader::new(stderr).read_line(&mut said).expect("text");
        looping.kill().and_then(|()| looping.wait()).expect("ends");
        assert!(said.starts_with("saved bot/memory@1"), "{said}");
        assert_eq!(answer(dir.path(), &["load", "memory"]), "1 kept");
        assert_eq!(answer(dir.path(), &["save", "memory", "x"]), "version 2");
    }

    #[test]
    fn a_host_that_is_killed_between_write_and_finish_leaves_nothing_that_stays() {
        let dir = tempdir();
        let mut writing = persist(dir.path())
            .arg("run")
            .arg(guest("test_guest"))
            .args(["--agent", "bot", "--", "loop-mid-write", "log", "20"])
            .stderr(Stdio::null())
            .spawn()
            .expect("persist starts");
        let temp = dir.path().join("~/tmp");
        let temporary = || std::fs::read_dir(&temp).map_or(0, |files| files.flatten().count());
        while temporary() == 0 {
            assert_eq!(writing.try_wait().expect("a child"), None, "it loops");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        writing.kill().and_then(|()| writing.wait()).expect("ends");
        assert_eq!(temporary(), 1);
        assert_eq!(version_files(dir.path()), [] as [PathBuf; 0]);
        assert_eq!(ok(dir.path(), &["ls", "--all"]), "");
        assert_eq!(answer(dir.path(), &["save", "log", "x"]), "version 1");
        assert_eq!(temporary(), 0, "the next process sweeps");
    }
}

mod words {
    use super::*;

    #[test]
    fn a_name_that_is_empty_too_long_or_holds_control_characters_is_refused() {
        let dir = tempdir();
        let long = format!("bot/{}", "a".repeat(201));
        let long_encoded = format!("bot/{}", "ä".repeat(34));
        for (address, hint) in [
            ("bot/", "empty"),
            ("/memory", "empty"),
            ("bot//memory", "empty"),
            ("", "agent/name"),
            (long.as_str(), "at most 200"),
            (long_encoded.as_str(), "counts as three"),
            ("bot/a\nb", "U+000A"),
            ("bot/\u{1b}[31mred", "U+001B"),
            ("bot/~00", "U+0000"),
            ("b\u{85}t/memory", "U+0085"),
        ] {
            for command in ["save", "cat", "show", "history", "rm", "restore"] {
                let said = refused(&run(dir.path(), &[command, address]), 2);
                assert!(said.contains(hint), "{command} {address:?}: {said}");
            }
        }
        let longest = format!("bot/{}", "a".repeat(200));
        put(dir.path(), &longest, b"x");
        assert_eq!(ok(dir.path(), &["cat", &longest]), "x");
    }

    #[test]
    fn an_agent_or_session_that_is_no_name_is_refused() {
        let dir = tempdir();
        let guest = guest("test_guest");
        let guest = guest.to_str().expect("text");
        let long = "a".repeat(201);
        for option in ["--agent", "--session"] {
            for (name, hint) in [("", "empty"), ("a\tb", "U+0009"), (&long, "at most 200")] {
                let said = fails(dir.path(), &["run", guest, option, name], 2);
                assert!(said.contains(hint), "{option} {name:?}: {said}");
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_refused_where_a_name_is_wanted() {
        let dir = tempdir();
        let bad = OsStr::from_bytes(b"bot/caf\xe9");
        for command in ["save", "cat", "show", "history", "rm", "restore", "ls"] {
            let output = persist(dir.path()).arg(command).arg(bad).output();
            let said = refused(&output.expect("starts"), 2);
            assert!(said.contains("UTF-8"), "{command}: {said}");
        }
        let output = persist(dir.path())
            .args(["run", "agent.wasm", "--", "say"])
            .arg(bad)
            .output();
        let said = refused(&output.expect("starts"), 2);
        assert!(said.contains("UTF-8"), "{said}");
        assert!(!dir.path().join("bot").exists());
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let dir = tempdir();
        let odd = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
        fs::create_dir(&odd).expect("makes");
        let agent = odd.join(OsStr::from_bytes(b"\xe9.wasm"));
        fs::copy(guest("test_guest"), &agent).expect("copies");
        let store = odd.join("store");

        let unnamed = persist(&store).arg("run").arg(&agent).output();
        let said = refused(&unnamed.expect("starts"), 1);
        assert!(said.contains("--agent"), "{said}");
        let named = persist(&store)
            .arg("run")
            .arg(&agent)
            .args(["--agent", "bot", "--", "save", "memory", "one"])
            .output()
            .expect("starts");
        assert_eq!(text(&named.stdout), "version 1\n");
        assert_eq!(ok(&store, &["cat", "bot/memory"]), "one");
    }

    #[test]
    fn names_that_look_like_paths_stay_in_the_store() {
        let dir = tempdir();
        let store = dir.path().join("store");
        let twins = [
            "../..",
            "bot/..",
            "bot/~2f",
            "bot/~2fetc~2fpasswd",
            "bot/caf\u{e9}",
            "bot/cafe\u{301}",
            "bot/memory",
            "bot/Memory",
        ];
        for address in twins {
            put(&store, address, address.as_bytes());
        }
        for address in twins {
            assert_eq!(ok(&store, &["cat", address]), address);
        }
        assert_eq!(ok(&store, &["ls"]).lines().count(), twins.len());
        assert_eq!(version_files(dir.path()).len(), twins.len());
        let beside = fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(beside, 1, "nothing beside the store");
    }

    #[test]
    fn a_version_that_was_never_made_is_not_found_and_a_number_that_is_none_is_refused() {
        let dir = tempdir();
        put(dir.path(), "bot/memory", b"one");
        for version in [
            "0",
            "2",
            "9999999999",
            "10000000000",
            "18446744073709551615",
        ] {
            let address = format!("bot/memory@{version}");
            for command in ["cat", "show", "restore"] {
                let said = refused(&run(dir.path(), &[command, &address]), 3);
                let hint = format!("no version {version}");
                assert!(said.contains(&hint) && said.contains("history"), "{said}");
            }
            let expect = ["rm", "bot/memory", "--expect", version];
            let said = refused(&run(dir.path(), &expect), 4);
            assert!(said.contains("the newest version is 1"), "{said}");
        }
        for version in ["", "-1", "one", "1.5", "18446744073709551616"] {
            let address = format!("bot/memory@{version}");
            let said = refused(&run(dir.path(), &["cat", &address]), 2);
            assert!(said.contains("not a version number"), "{said}");
        }
        assert_eq!(
            ok(dir.path(), &["history", "bot/memory"]).lines().count(),
            1
        );
    }
}

mod files {
    use super::*;

    /// A store with two versions of `bot/memory`, of which a test replaces the newer.
    struct Pair {
        dir: TempDir,
        states: [Vec<u8>; 2],
    }

    impl Pair {
        fn new() -> Self {
            Self::of([b"one".to_vec(), b"two".to_vec()])
        }

        fn of(states: [Vec<u8>; 2]) -> Self {
            let dir = tempdir();
            for state in &states {
                put(dir.path(), "bot/memory", state);
            }
            Self { dir, states }
        }

        fn path(&self, version: u64) -> PathBuf {
            let file = format!(
                "bot/~/memory/{:010}-{version:010}.gz",
                9_999_999_999 - version
            );
            self.dir.path().join(file)
        }

        fn bytes(&self, version: u64) -> Vec<u8> {
            fs::read(self.path(version)).expect("is there")
        }

        /// Puts `bytes` in place of version 2, which must be refused with a message that names the file, and must stand in
        /// the way of nothing else. Returns what `cat` printed before it met the damage.
        fn refuses(&self, bytes: &[u8], hint: &str) -> Vec<u8> {
            let dir = self.dir.path();
            fs::write(self.path(2), bytes).expect("writes");
            let output = run(dir, &["cat", "bot/memory"]);
            let said = refused(&output, 6);
            let file = "bot/~/memory/9999999997-0000000002.gz";
            assert!(said.contains(file) && said.contains(hint), "{said}");
            refused(&run(dir, &["restore", "bot/memory@2"]), 6);
            let old = run(dir, &["cat", "bot/memory@1"]);
            assert!(old.status.success() && old.stdout == self.states[0]);
            output.stdout
        }

        /// The same, of what can be seen to be damaged before any of it is printed.
        fn refuses_all(&self, bytes: &[u8]) {
            assert_eq!(self.refuses(bytes, "Restore an older version"), b"");
        }

        /// An older version can be brought back, above what cannot be read.
        fn recovers(&self) {
            let dir = self.dir.path();
            let restored = ok(dir, &["restore", "bot/memory@1"]);
            assert!(restored.starts_with("restored bot/memory@3"), "{restored}");
            assert!(run(dir, &["cat", "bot/memory"]).stdout == self.states[0]);
        }
    }

    /// Two states of 2.5 MiB that do not compress: three blocks each, of the same lengths.
    fn long_pair() -> Pair {
        let noise = |mut x: u64| -> Vec<u8> {
            let next = std::iter::repeat_with(|| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            });
            next.take(5 << 19).collect()
        };
        Pair::of([noise(0x9e37_79b9_7f4a_7c15), noise(0x2545_f491_4f6c_dd1d)])
    }

    #[test]
    fn a_file_that_was_cut_off_is_corrupt() {
        let pair = Pair::new();
        let golden = pair.bytes(2);
        for len in [
            1,
            9,
            10,
            20,
            golden.len() / 2,
            golden.len() - 10,
            golden.len() - 1,
        ] {
            pair.refuses_all(&golden[..len]);
        }
        pair.recovers();
    }

    #[test]
    fn a_file_with_more_behind_it_is_corrupt() {
        let pair = Pair::new();
        let golden = pair.bytes(2);
        for more in [&b"\n"[..], &[0; 4096], &pair.bytes(1), &golden] {
            pair.refuses_all(&[&golden, more].concat());
        }
        pair.recovers();
    }

    #[test]
    fn an_empty_file_is_corrupt() {
        let pair = Pair::new();
        pair.refuses_all(b"");
        pair.recovers();
    }

    #[test]
    fn zeros_where_a_disk_lost_what_was_written_are_corrupt() {
        let pair = Pair::new();
        let golden = pair.bytes(2);
        pair.refuses_all(&vec![0; golden.len()]);
        for half in [0..golden.len() / 2, golden.len() / 2..golden.len()] {
            let mut bytes = golden.clone();
            bytes[half].fill(0);
            pair.refuses_all(&bytes);
        }
        pair.recovers();
    }

    #[test]
    fn a_lost_page_of_a_long_state_is_found_before_it_is_printed() {
        let pair = long_pair();
        let mut bytes = pair.bytes(2);
        bytes[(3 << 19)..][..4096].fill(0);
        let printed = pair.refuses(&bytes, "Restore an older version");
        assert!(printed.len() <= 1 << 20 && pair.states[1].starts_with(&printed));
        pair.recovers();
    }

    #[test]
    fn a_file_of_someone_else_is_corrupt() {
        let pair = Pair::new();
        let plain_gzip = Command::new("gzip").args(["-c"]).arg(pair.path(2)).output();
        // The smallest picture there is: one grey point.
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDAT\
            \x78\xda\x63\x60\0\0\0\x02\0\x01\xe5\x27\xde\xfc\0\0\0\0IEND\xae\x42\x60\x82";
        let many_lines = "a line of text\n".repeat(100_000);
        for foreign in [
            &plain_gzip.expect("gzip starts").stdout,
            &png[..],
            b"{\"turns\":[]}\n",
            many_lines.as_bytes(),
        ] {
            pair.refuses_all(foreign);
        }
        pair.recovers();
    }

    #[test]
    fn a_splice_of_two_versions_is_corrupt() {
        let pair = long_pair();
        let (one, two) = (pair.bytes(1), pair.bytes(2));
        let half = one.len() / 2;
        pair.refuses_all(&[&one[..half], &two[half..]].concat());
        pair.refuses_all(&[&two[..half], &one[half..]].concat());
        // One whole state with the trailer of the other.
        let (at_one, at_two) = (member(&one), member(&two));
        assert_eq!(at_one, at_two, "what follows is about equal lengths");
        pair.refuses_all(&[&one[..at_one], &two[at_two..]].concat());
        // A whole trailer, whose first block alone is right.
        let spliced = [&two[..half], &one[half..at_one], &two[at_two..]].concat();
        let printed = pair.refuses(&spliced, "Restore an older version");
        assert!(printed.len() <= 1 << 20 && pair.states[1].starts_with(&printed));
        pair.recovers();
    }

    #[test]
    fn a_later_format_is_left_for_a_later_persist() {
        let pair = Pair::new();
        let golden = pair.bytes(2);
        // The kind and the format lie before the magic and the ten bytes that end every file.
        for (back, value) in [(20, 2_u16), (20, 999), (22, 9)] {
            let mut later = golden.clone();
            let at = later.len() - back;
            later[at..][..2].copy_from_slice(&value.to_le_bytes());
            seal(&mut later);
            assert_eq!(pair.refuses(&later, "Use a newer Persist"), b"");
            let listed = run(pair.dir.path(), &["ls"]);
            assert!(refused(&listed, 6).contains("Use a newer Persist"));
            assert!(pair.bytes(2) == later, "it is left as it is");
        }
        pair.recovers();
    }

    #[test]
    fn a_size_that_a_file_only_claims_is_never_allocated() {
        let pair = Pair::new();
        // An intact trailer that lists so many blocks of one byte each, and says that they hold a MiB each.
        for blocks in [900, 50_000] {
            let claim = claim(&pair.bytes(2), blocks);
            fs::write(pair.path(2), claim).expect("writes");
            for command in [
                "cat bot/memory",
                "restore bot/memory@2",
                "show bot/memory@1",
            ] {
                let limited = format!(
                    "ulimit -v 600000; exec {} {command}",
                    persist(pair.dir.path()).get_program().display()
                );
                let output = Command::new("bash")
                    .args(["-c", &limited])
                    .env("PERSIST_LOCAL_PATH", pair.dir.path())
                    .output()
                    .expect("bash starts");
                let said = text(&output.stderr);
                let code = output.status.code();
                assert!(
                    matches!(
                        (command, code),
                        ("show bot/memory@1", Some(0)) | (_, Some(6 | 8))
                    ),
                    "{command}: {code:?} {said}"
                );
            }
            let scope = scope(Arc::new(Local::new(pair.dir.path())));
            let error = block_on(scope.load("memory", None)).expect_err("a claim");
            assert!(
                matches!(error, Error::Corrupt { .. } | Error::TooLarge { .. }),
                "{error}"
            );
        }
        pair.recovers();
    }

    #[test]
    fn the_key_says_which_version_a_file_is() {
        let pair = Pair::new();
        let dir = pair.dir.path();
        let (one, two) = (pair.bytes(1), pair.bytes(2));
        fs::write(pair.path(1), &two).expect("writes");
        fs::write(pair.path(2), &one).expect("writes");
        for (address, state) in [("bot/memory@1", "two"), ("bot/memory@2", "one")] {
            assert_eq!(ok(dir, &["cat", address]), state);
            let version = address.rsplit('@').next().expect("has one");
            let shown = ok(dir, &["show", address]);
            assert!(shown.contains(&format!("version     {version}")), "{shown}");
        }
        let copy = dir.join("other/~/notes");
        fs::create_dir_all(&copy).expect("makes");
        fs::copy(pair.path(1), copy.join("9999999992-0000000007.gz")).expect("copies");
        assert_eq!(ok(dir, &["cat", "other/notes"]), "two");
        assert!(ok(dir, &["ls", "other"]).starts_with("other/notes@7"));
        put(dir, "other/notes", b"next");
        assert!(ok(dir, &["ls", "other"]).starts_with("other/notes@8"));
    }

    /// Bytes of the footer, with which every file ends: see the page of the format.
    const FOOTER: usize = 86;
    /// Where its payload begins.
    const PAYLOAD: usize = FOOTER - 70;

    /// Where the trailer begins, as the footer says.
    fn member(file: &[u8]) -> usize {
        let at = file.len() - FOOTER + PAYLOAD + 8;
        u64::from_le_bytes(file[at..][..8].try_into().expect("8 bytes")) as usize
    }

    /// Makes the checksum of the trailer fit what it is now.
    fn seal(file: &mut [u8]) {
        let at = file.len() - FOOTER + PAYLOAD + 16;
        let sum = Sha256::new()
            .chain_update(&file[member(file)..at])
            .chain_update(&file[at + 32..])
            .finalize();
        file[at..][..32].copy_from_slice(&sum);
    }

    /// A sealed file of `blocks` bytes of state, which says that it holds as many MiB.
    fn claim(golden: &[u8], blocks: usize) -> Vec<u8> {
        let footer = &golden[golden.len() - FOOTER..];
        let trailer = &golden[member(golden)..golden.len() - FOOTER];
        let len = u32::from_le_bytes(trailer[16..20].try_into().expect("4 bytes")) as usize;
        let metadata = text(&trailer[20..][..len]);
        let size = format!("\"size\":{}", blocks << 20);
        let metadata = metadata.replace("\"size\":3", &size);
        let mut payload = (metadata.len() as u32).to_le_bytes().to_vec();
        payload.extend(metadata.bytes());
        for _ in 0..blocks {
            payload.extend([1, 0, 0, 0]);
            payload.extend([0; 16]);
        }

        let mut file = golden[..10].to_vec();
        file.resize(10 + blocks, 0);
        file.extend(&golden[member(golden) - 10..member(golden)]);
        let at = file.len() as u64;
        for piece in payload.chunks(65_000) {
            let (extra, len) = (piece.len() as u16 + 4, piece.len() as u16);
            file.extend(&trailer[..10]);
            file.extend(extra.to_le_bytes());
            file.extend(b"PT");
            file.extend(len.to_le_bytes());
            file.extend(piece);
            file.extend(&trailer[trailer.len() - 10..]);
        }
        file.extend(footer);
        let (whole, payload) = (file.len() as u64, file.len() - FOOTER + PAYLOAD);
        file[payload..][..8].copy_from_slice(&whole.to_le_bytes());
        file[payload + 8..][..8].copy_from_slice(&at.to_le_bytes());
        seal(&mut file);
        file
    }
}

mod directories {
    use super::*;

    /// `persist` as an account whose rights are checked: root's are not. Where the tests are run by an ordinary account, by
    /// that one.
    struct Account {
        /// The binary lies here too: where it was built, others may have no business.
        dir: TempDir,
        other: bool,
    }

    const NOBODY: u32 = 65534;

    impl Account {
        fn new() -> Self {
            let dir = tempdir();
            let built = persist(dir.path());
            // By another process: while this one has the copy open for writing, a child that another test forks has it, too,
            // and then nobody can execute it.
            let copied = Command::new("cp")
                .arg(built.get_program())
                .arg(dir.path().join("persist"))
                .status();
            assert!(copied.expect("cp starts").success());
            let other = fs::metadata(dir.path()).expect("is there").uid() == 0;
            if other {
                chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
            }
            Self { dir, other }
        }

        fn store(&self) -> PathBuf {
            self.dir.path().join("store")
        }

        fn run(&self, args: &[&str]) -> Output {
            let mut command = Command::new(self.dir.path().join("persist"));
            command
                .args(args)
                .env_clear()
                .env("PERSIST_LOCAL_PATH", self.store())
                .stdin(Stdio::null());
            if self.other {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.output().expect("persist starts")
        }

        /// Sets the rights of the store and of every directory in it.
        fn set_mode(&self, mode: u32) {
            for dir in directories(&self.store()) {
                fs::set_permissions(dir, Permissions::from_mode(mode)).expect("ours");
            }
        }
    }

    /// A directory and those in it, the innermost first.
    fn directories(dir: &Path) -> Vec<PathBuf> {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("ours");
        let entries = fs::read_dir(dir).expect("readable").flatten();
        let mut found: Vec<_> = entries
            .filter(|entry| entry.file_type().expect("a type").is_dir())
            .flat_map(|entry| directories(&entry.path()))
            .collect();
        found.push(dir.to_owned());
        found
    }

    #[test]
    fn a_directory_that_may_only_be_read_is_read_and_a_save_says_so() {
        let account = Account::new();
        assert!(account.run(&["save", "bot/memory"]).status.success());
        account.set_mode(0o500);
        assert!(account.run(&["cat", "bot/memory"]).status.success());
        assert!(account.run(&["ls"]).status.success());
        for args in [
            &["save", "bot/memory"][..],
            &["save", "bot/other"],
            &["save", "new/memory"],
            &["rm", "bot/memory"],
            &["restore", "bot/memory@1"],
        ] {
            let said = refused(&account.run(args), 5);
            let store = account.store();
            assert!(said.contains(store.to_str().expect("text")), "{said}");
            assert!(said.contains("check the permissions"), "{said}");
        }
        account.set_mode(0o700);
        let listed = account.run(&["history", "bot/memory"]);
        assert_eq!(text(&listed.stdout).lines().count(), 1);
    }

    #[test]
    fn a_directory_that_may_not_be_read_is_not_taken_for_an_empty_one() {
        let account = Account::new();
        assert!(account.run(&["save", "bot/memory"]).status.success());
        for mode in [0o000, 0o300] {
            account.set_mode(mode);
            for args in [&["cat", "bot/memory"][..], &["ls"], &["save", "bot/memory"]] {
                let output = account.run(args);
                let said = refused(&output, 5);
                assert!(said.contains("check the permissions"), "{said}");
                assert_eq!(text(&output.stdout), "");
            }
            account.set_mode(0o700);
        }
        assert_eq!(version_files(&account.store()).len(), 1);
    }

    #[test]
    fn a_store_that_vanished_under_a_host_is_made_again() {
        let dir = tempdir();
        let root = dir.path().join("store");
        let host = scope(Arc::new(Local::new(&root)));
        block_on(async {
            save(&host, "memory", "one").await;
            save(&host, "memory", "two").await;
            fs::remove_dir_all(&root).expect("removes");
            assert_eq!(load(&host, "memory").await, None);
            let expects = SaveOptions {
                expect: Expect::Version(2),
                ..SaveOptions::default()
            };
            let lost = host.save("memory", "three".into(), expects).await;
            assert!(
                matches!(lost, Err(Error::Conflict { head: None })),
                "{lost:?}"
            );
            let info = save(&host, "memory", "three").await;
            assert_eq!((info.version, info.parent), (1, None));
        });
        assert_eq!(ok(&root, &["cat", "bot/memory"]), "three");
        put(&root, "bot/memory", b"four");
        block_on(async {
            assert_eq!(load(&host, "memory").await.as_deref(), Some("four"));
            // Only the name's own directory this time: the host goes on from the head that it saw.
            fs::remove_dir_all(root.join("bot/~/memory")).expect("removes");
            assert_eq!(save(&host, "memory", "five").await.version, 3);
        });
        assert_eq!(ok(&root, &["cat", "bot/memory"]), "five");
    }

    #[test]
    fn a_store_may_be_moved_and_linked_to() {
        let dir = tempdir();
        let (root, moved) = (dir.path().join("store"), dir.path().join("larger-disk"));
        let host = scope(Arc::new(Local::new(&root)));
        block_on(async {
            save(&host, "memory", "one").await;
            fs::rename(&root, &moved).expect("renames");
            symlink(&moved, &root).expect("links");
            assert_eq!(load(&host, "memory").await.as_deref(), Some("one"));
            assert_eq!(save(&host, "memory", "two").await.version, 2);
        });
        assert_eq!(ok(&moved, &["cat", "bot/memory"]), "two");
    }

    #[test]
    fn a_link_to_nowhere_is_no_place_for_a_store() {
        let dir = tempdir();
        let root = dir.path().join("store");
        symlink(dir.path().join("gone"), &root).expect("links");
        let said = refused(&run(&root, &["save", "bot/memory", "/dev/null"]), 2);
        assert!(said.contains(root.to_str().expect("text")), "{said}");
        assert!(!dir.path().join("gone").exists());
    }

    #[test]
    fn a_link_in_place_of_the_stores_own_directory_is_not_followed() {
        let (dir, outside) = (tempdir(), tempdir());
        put(dir.path(), "bot/memory", b"one");
        for own in ["~/tmp", "~"] {
            let own = dir.path().join(own);
            fs::remove_dir_all(&own).expect("removes");
            symlink(outside.path(), &own).expect("links");
            let said = refused(&run(dir.path(), &["save", "bot/memory", "/dev/null"]), 1);
            assert!(said.contains("not followed"), "{said}");
            fs::remove_file(&own).expect("removes");
            fs::create_dir(&own).expect("makes");
        }
        let written = fs::read_dir(outside.path()).expect("readable").count();
        assert_eq!(written, 0, "nothing was written outside");
        put(dir.path(), "bot/memory", b"two");
        assert_eq!(ok(dir.path(), &["cat", "bot/memory"]), "two");
    }
}
