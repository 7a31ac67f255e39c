//! Directories that are missing, full, read-only or owned by another user.

use super::*;

/// `persist` as an account whose rights are checked: root's are not. Where the tests are run by an
/// ordinary account, by that one.
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
        // By another process: while this one has the copy open for writing, a child that another
        // test forks has it, too, and then it cannot be executed.
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
    for _ in 0..2 {
        let saved = account.run(&["save", "bot/memory", "-", "--create"]);
        assert!(saved.status.success());
    }
    account.set_mode(0o500);
    assert!(account.run(&["cat", "bot/memory"]).status.success());
    assert!(account.run(&["ls"]).status.success());
    for args in [
        &["save", "bot/memory", "-"][..],
        &["save", "bot/other", "-"],
        &["save", "new/memory", "-"],
        &["rm", "bot/memory"],
        &["restore", "bot/memory@1"],
    ] {
        let said = refused(&account.run(args), 5);
        let store = account.store();
        assert!(said.contains(store.to_str().expect("text")), "{said}");
        assert!(said.contains("check the permissions"), "{said}");
    }
    // There is nothing to remove, and nothing fails.
    let unpinned = account.run(&["unpin", "bot/memory@1"]);
    let said = text(&unpinned.stderr);
    assert!(unpinned.status.success(), "{said}");
    assert_eq!(said, "warning: bot/memory@1 was not pinned\n");
    account.set_mode(0o700);
    let listed = account.run(&["history", "-q", "bot/memory"]);
    assert_eq!(text(&listed.stdout).lines().count(), 2);
}

#[test]
fn a_directory_that_may_not_be_read_is_not_taken_for_an_empty_one() {
    let account = Account::new();
    let saved = account.run(&["save", "bot/memory", "-", "--create"]);
    assert!(saved.status.success());
    for mode in [0o000, 0o300] {
        account.set_mode(mode);
        for args in [
            &["cat", "bot/memory"][..],
            &["ls"],
            &["save", "bot/memory", "-"],
        ] {
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
fn a_store_that_vanished_under_a_host_is_an_error_until_a_restart() {
    let dir = tempdir();
    let root = dir.path().join("store");
    let host = scope(Arc::new(Local::new(&root)));
    block_on(async {
        save(&host, "memory", "one").await;
        save(&host, "memory", "two").await;
        fs::remove_dir_all(&root).expect("removes");
        let loaded = host.load("memory", None).await;
        assert!(matches!(loaded, Err(Error::Storage(_))), "{loaded:?}");
        let saved = host.save("memory", "three".into(), SaveOptions::default());
        let saved = saved.await;
        assert!(matches!(saved, Err(Error::Storage(_))), "{saved:?}");
        assert!(!root.exists());
        let restarted = scope(Arc::new(Local::new(&root)));
        assert_eq!(save(&restarted, "memory", "three").await.version, 1);
    });
    assert_eq!(run_ok(&root, &["cat", "bot/memory"]), "three");
}

#[test]
fn a_host_goes_on_from_its_head_where_a_names_directory_vanished() {
    let dir = tempdir();
    let host = scope(Arc::new(Local::new(dir.path())));
    block_on(async {
        save(&host, "memory", "one").await;
        save(&host, "memory", "two").await;
        fs::remove_dir_all(dir.path().join("bot/~/memory")).expect("removes");
        assert_eq!(save(&host, "memory", "three").await.version, 3);
    });
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "three");
}

#[test]
fn a_store_may_be_moved_and_linked_to() {
    let dir = tempdir();
    let root = dir.path().join("store");
    let moved = dir.path().join("larger-disk");
    let host = scope(Arc::new(Local::new(&root)));
    block_on(async {
        save(&host, "memory", "one").await;
        fs::rename(&root, &moved).expect("renames");
        symlink(&moved, &root).expect("links");
        assert_eq!(load(&host, "memory").await.as_deref(), Some("one"));
        assert_eq!(save(&host, "memory", "two").await.version, 2);
    });
    assert_eq!(run_ok(&moved, &["cat", "bot/memory"]), "two");
}

#[test]
fn a_link_to_nowhere_is_no_place_for_a_store() {
    let dir = tempdir();
    let root = dir.path().join("store");
    symlink(dir.path().join("gone"), &root).expect("links");
    let said = refused(
        &run(&root, &["save", "--create", "bot/memory", "/dev/null"]),
        2,
    );
    assert!(said.contains(root.to_str().expect("text")), "{said}");
    assert!(!dir.path().join("gone").exists());
}

#[test]
fn a_link_in_place_of_the_stores_own_directory_is_not_followed() {
    let dir = tempdir();
    let outside = tempdir();
    put(dir.path(), "bot/memory", b"one");
    for own in ["~/tmp", "~"] {
        let own = dir.path().join(own);
        fs::remove_dir_all(&own).expect("removes");
        symlink(outside.path(), &own).expect("links");
        let said = refused(&run(dir.path(), &["save", "bot/memory", "/dev/null"]), 6);
        assert!(said.contains("not followed"), "{said}");
        fs::remove_file(&own).expect("removes");
        fs::create_dir(&own).expect("makes");
    }
    let written = fs::read_dir(outside.path()).expect("readable").count();
    assert_eq!(written, 0, "nothing was written outside");
    put(dir.path(), "bot/memory", b"two");
    assert_eq!(run_ok(dir.path(), &["cat", "bot/memory"]), "two");
}

#[test]
fn check_tells_permission_from_damage_and_goes_on() {
    let place = Account::new();
    let store = place.store();
    let save = |address: &str| {
        let file = place.dir.path().join("state");
        fs::write(&file, "x").expect("writes");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("ours");
        let output = place.run(&["save", "--create", address, file.to_str().expect("text")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    for address in [
        "aa/memory",
        "mm/memory",
        "mm/other",
        "mm/monday/notes",
        "zz/memory",
    ] {
        save(address);
    }
    let version = "mm/~/memory/9999999998-0000000001.gz";
    for (closed, listed) in [
        (version, 4),
        ("mm/~/memory", 4),
        ("mm/~", 3),
        ("mm", 2),
        ("mm/monday", 4),
    ] {
        let path = store.join(closed);
        let mode = fs::metadata(&path).expect("is there").permissions();
        fs::set_permissions(&path, Permissions::from_mode(0o0)).expect("ours");
        let checked = place.run(&["check", "--json"]);
        let printed = text(&checked.stdout).to_owned();
        let said = refused(&checked, 5);
        let finding = printed
            .lines()
            .find(|line| line.contains("permission-denied"));
        let finding = finding.unwrap_or_else(|| panic!("{closed}: {printed}{said}"));
        assert!(
            finding.contains(&format!("\"key\":\"{closed}\"")),
            "{finding}"
        );
        assert!(finding.contains(&path.display().to_string()), "{finding}");
        assert!(printed.contains("\"damaged\":0"), "{printed}");
        let listing = place.run(&["ls", "-q"]);
        let said = text(&listing.stderr);
        assert_eq!(
            text(&listing.stdout).lines().count(),
            listed,
            "{closed}: {said}"
        );
        assert_ne!(listing.status.code(), Some(0), "{closed}");
        // A copy leaves it out, and says so.
        let to = format!(
            "file://{}",
            place.dir.path().join("copy").join(closed).display()
        );
        let from = format!("file://{}", store.display());
        let copied = place.run(&["copy", "--create", &from, &to]);
        let said = refused(&copied, 5);
        assert!(said.contains("ermission denied"), "{closed}: {said}");
        let copied = text(&copied.stdout);
        assert!(
            copied.contains("aa/memory") && copied.contains("zz/memory"),
            "{copied}"
        );
        fs::set_permissions(&path, mode).expect("ours");
    }
}
