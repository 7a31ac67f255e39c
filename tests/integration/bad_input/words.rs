//! Names, addresses, options and settings that cannot be meant.

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
    assert_eq!(run_ok(dir.path(), &["cat", &longest]), "x");
}

#[test]
fn an_agent_or_session_that_is_no_name_is_refused() {
    let dir = tempdir();
    let guest = guest("test_guest");
    let guest = guest.to_str().expect("text");
    let long = "a".repeat(201);
    for option in ["--agent", "--session"] {
        for (name, hint) in [("", "empty"), ("a\tb", "U+0009"), (&long, "at most 200")] {
            let said = run_fails(dir.path(), &["run", guest, option, name], 2);
            assert!(said.contains(hint), "{option} {name:?}: {said}");
        }
    }
}

#[test]
fn names_that_are_not_utf8_are_refused() {
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
    assert_eq!(run_ok(&store, &["cat", "bot/memory"]), "one");
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
        assert_eq!(run_ok(&store, &["cat", address]), address);
    }
    assert_eq!(run_ok(&store, &["ls", "-q"]).lines().count(), twins.len());
    assert_eq!(version_files(&store).len(), twins.len());
    let beside = fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(beside, 1, "nothing beside the store");
}

#[test]
fn missing_versions_are_not_found_and_bad_numbers_are_refused() {
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
            assert!(
                said.contains(&hint) && said.contains("the nearest version is bot/memory@1"),
                "{said}"
            );
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
        run_ok(dir.path(), &["history", "-q", "bot/memory"])
            .lines()
            .count(),
        1
    );
}
