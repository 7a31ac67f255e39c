//! File systems that cannot do what a store needs, mount points, and stores that a group shares.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use persist_host::snapshot::{Error, SaveOptions, Scope};
use persist_host::storage::{Call, ErrorKind, Local, Watch};
use persist_tests::{
    block_on, install_program, load, persist, persist_without_store, save, scope, tempdir, text,
    version_files,
};

use crate::s3::with_input;

const EPERM: i32 = 1;
const EIO: i32 = 5;
const EXDEV: i32 = 18;
const EINVAL: i32 = 22;
const EISDIR: i32 = 21;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;

const NO_SYNC: &str = "cannot sync a directory, so a save could be lost in a power failure";
const NO_LINK: &str = "can neither link a file nor rename one without replacing another";

/// Answers some calls as a file system does that does not know them.
#[derive(Debug, Default)]
struct Lacking {
    /// Errno for the sync of a directory whose path ends so.
    sync: Option<(&'static str, i32)>,
    link: Option<i32>,
    rename: Option<i32>,
    unnamed: Option<i32>,
}

impl Watch for Lacking {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let errno = match call {
            Call::SyncDir(dir) => {
                let sync = self.sync.filter(|(end, _)| dir.ends_with(end));
                sync.map(|(_, errno)| errno)
            }
            Call::Link(..) => self.link,
            Call::CreateUnnamed(_) => self.unnamed,
            Call::RenameNoReplace(..) => self.rename,
            _ => None,
        };
        errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn allows_unnamed(&self) -> bool {
        true
    }
}

fn on(dir: &Path, lacking: Lacking) -> Scope {
    scope(Arc::new(Local::watched(dir, Arc::new(lacking))))
}

fn refusal(scope: &Scope) -> Error {
    let saved = block_on(scope.save("memory", "x".into(), SaveOptions::default()));
    saved.expect_err("refused")
}

#[test]
fn a_file_system_that_cannot_sync_a_directory_is_refused_before_anything_is_saved() {
    for (errno, kind) in [
        (EINVAL, ErrorKind::Unsupported),
        (EOPNOTSUPP, ErrorKind::Unsupported),
        (ENOSYS, ErrorKind::Unsupported),
        (EIO, ErrorKind::Unavailable),
    ] {
        let dir = tempdir();
        let lacking = || Lacking {
            sync: Some(("", errno)),
            ..Lacking::default()
        };
        let new = dir.path().join("new");
        let there = dir.path().join("there");
        block_on(save(&scope(Arc::new(Local::new(&there))), "old", "kept"));
        for root in [&new, &there] {
            let error = refusal(&on(root, lacking()));
            let said = error.to_string();
            assert!(said.contains(NO_SYNC), "{errno}: {said}");
            assert!(
                matches!(&error, Error::Storage(error) if error.kind() == kind),
                "{error:?}"
            );
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("ext4"), "{errno}: {hint}");
        }
        assert!(!new.join("bot").exists(), "{errno}");
        assert_eq!(version_files(&there).len(), 1, "{errno}");
    }
}

#[test]
fn a_version_whose_name_cannot_be_synced_is_not_acknowledged() {
    let dir = tempdir();
    block_on(save(
        &scope(Arc::new(Local::new(dir.path()))),
        "memory",
        "one",
    ));
    let lacking = Lacking {
        sync: Some(("memory", EINVAL)),
        ..Lacking::default()
    };
    let error = refusal(&on(dir.path(), lacking));
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    assert!(error.to_string().contains(NO_SYNC), "{error}");
}

#[test]
fn a_file_system_without_links_is_used_if_it_renames_without_replacing() {
    for errno in [EPERM, EIO, EXDEV, EINVAL, ENOSYS, EOPNOTSUPP] {
        let dir = tempdir();
        let lacking = Lacking {
            link: Some(errno),
            ..Lacking::default()
        };
        let scope = on(dir.path(), lacking);
        block_on(async {
            save(&scope, "memory", "one").await;
            save(&scope, "memory", "two").await;
            assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
        });
        assert_eq!(version_files(dir.path()).len(), 2, "{errno}");
    }
}

#[test]
fn a_file_system_without_unnamed_files_is_used() {
    for errno in [EOPNOTSUPP, EISDIR, EINVAL, ENOENT] {
        let dir = tempdir();
        let lacking = Lacking {
            unnamed: Some(errno),
            ..Lacking::default()
        };
        let scope = on(dir.path(), lacking);
        block_on(async {
            save(&scope, "memory", "one").await;
            assert_eq!(load(&scope, "memory").await.as_deref(), Some("one"));
        });
        let litter = fs::read_dir(dir.path().join("~/tmp")).expect("readable");
        assert_eq!(litter.count(), 0, "{errno}");
    }
}

/// Records the files that are made with a name and without one, and the names that are removed.
#[derive(Debug, Default)]
struct Made(std::sync::Mutex<Vec<String>>);

impl Watch for Made {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        let made = match call {
            Call::CreateFile(_) => "named",
            Call::CreateUnnamed(_) => "unnamed",
            Call::Remove(_) => "removed",
            _ => return Ok(()),
        };
        self.0.lock().expect("no panic").push(made.to_owned());
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn allows_unnamed(&self) -> bool {
        true
    }
}

#[test]
fn a_save_makes_one_file_without_a_name_and_removes_nothing() {
    let dir = tempdir();
    let made = Arc::new(Made::default());
    let scope = scope(Arc::new(Local::watched(dir.path(), made.clone())));
    block_on(async {
        save(&scope, "memory", "one").await;
        made.0.lock().expect("no panic").clear();
        save(&scope, "memory", "two").await;
        save(&scope, "other", "three").await;
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
    });
    let made = made.0.lock().expect("no panic");
    assert_eq!(made[..], ["unnamed", "unnamed"]);
}

#[test]
fn a_file_system_that_cannot_name_a_file_safely_is_refused() {
    for (link, rename, is_known) in [
        (EPERM, EINVAL, true),
        (ENOSYS, ENOSYS, true),
        (EOPNOTSUPP, EINVAL, true),
        (EINVAL, EOPNOTSUPP, true),
        (EXDEV, EXDEV, true),
        // Nothing says that the link was not made.
        (EIO, EINVAL, false),
    ] {
        let dir = tempdir();
        block_on(save(
            &scope(Arc::new(Local::new(dir.path()))),
            "old",
            "kept",
        ));
        let lacking = Lacking {
            link: Some(link),
            rename: Some(rename),
            ..Lacking::default()
        };
        let error = refusal(&on(dir.path(), lacking));
        let said = error.to_string();
        assert!(said.contains(NO_LINK), "{link}, {rename}: {said}");
        let is_refused =
            matches!(&error, Error::Storage(error) if error.kind() == ErrorKind::Unsupported);
        let is_unknown = matches!(error, Error::UnknownOutcome { .. });
        assert_eq!((is_refused, is_unknown), (is_known, !is_known), "{error:?}");
        assert_eq!(version_files(dir.path()).len(), 1, "{link}, {rename}");
    }
}

/// A command that runs another one, for which the kernel answers some system calls with an errno.
const REFUSE: &str = r#"
import ctypes, os, platform, struct, sys

NUMBERS = {
    "x86_64": {"fsync": 74, "linkat": 265, "renameat2": 316},
    "aarch64": {"fsync": 82, "linkat": 37, "renameat2": 276},
}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
code = struct.pack("HBBI", LOAD, 0, 0, 0)
for rule in sys.argv[1].split(","):
    call, errno = rule.split("=")
    code += struct.pack("HBBI", EQUAL, 0, 1, NUMBERS[call])
    code += struct.pack("HBBI", RETURN, 0, 0, 0x50000 | int(errno))
code += struct.pack("HBBI", RETURN, 0, 0, 0x7FFF0000)


class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_char_p)]


libc = ctypes.CDLL(None, use_errno=True)
filter = Filter(len(code) // 8, code)
NO_NEW_PRIVILEGES, SECCOMP, FILTER = 38, 22, 2
for args in [(NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SECCOMP, FILTER, ctypes.byref(filter))]:
    if libc.prctl(*args):
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Returns `command` under a kernel that answers system calls as `rules` say: `fsync=22,linkat=5`.
fn refusing(command: &Command, rules: &str) -> Command {
    let mut refusing = Command::new("python3");
    let search = std::env::var_os("PATH").unwrap_or_default();
    refusing.env_clear().env("PATH", search);
    refusing
        .args(["-c", REFUSE, rules])
        .arg(command.get_program());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            refusing.env(name, value);
        }
    }
    refusing
}

#[test]
fn the_command_and_doctor_name_what_a_file_system_lacks() {
    for (rules, sentence) in [
        ("fsync=22", NO_SYNC),
        ("fsync=95", NO_SYNC),
        ("fsync=5", NO_SYNC),
        ("linkat=38,renameat2=22", NO_LINK),
        ("linkat=5,renameat2=22", NO_LINK),
    ] {
        let dir = tempdir();
        let command = persist_without_store(&dir.path().join("store"));
        let mut init = refusing(&command, rules);
        let mut doctor = refusing(&command, rules);
        for command in [init.arg("init"), doctor.arg("doctor")] {
            let output = command.output().expect("python3 starts");
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert!(!output.status.success(), "{rules}: {said}");
            assert!(said.contains(sentence), "{rules}: {said}");
            assert!(said.contains("ext4"), "{rules}: {said}");
        }
        assert!(!dir.path().join("store/~/store.json").exists(), "{rules}");
    }
}

/// Returns the output of a script in a mount namespace of its own; none where the kernel grants
/// none to this account.
fn with_mounts(script: &str, command: &Command) -> Option<Output> {
    let unshare = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-ec", script]);
        unshare
    };
    let may = unshare("mount -t tmpfs none /sys/kernel").output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("no mount namespaces here: nothing is tested");
        return None;
    }
    let mut inside = unshare(script);
    inside.env("PERSIST", command.get_program());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    Some(inside.output().expect("unshare starts"))
}

/// The directory above is one of sysfs, which cannot sync.
#[test]
fn the_directory_above_a_mount_point_is_not_synced() {
    for store in ["/sys/kernel/debug", "/sys/kernel/debug/new/store"] {
        let command = persist_without_store(Path::new(store));
        let script = "mount -t tmpfs none /sys/kernel/debug
            echo kept | $PERSIST save bot/memory --create
            $PERSIST cat bot/memory";
        let Some(output) = with_mounts(script, &command) else {
            return;
        };
        let said = text(&output.stderr);
        assert!(output.status.success(), "{store}: {said}");
        assert!(text(&output.stdout).ends_with("kept\n"), "{store}: {said}");
    }
}

/// A tmpfs of 1 MiB that is full to its last block.
#[test]
fn prune_and_purge_free_space_on_a_full_disk() {
    let dir = tempdir();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).expect("new");
    let mut command = persist_without_store(&disk.join("store"));
    command.env("DISK", &disk);
    let script = "mount -t tmpfs -o size=1m none $DISK
        fill() { head -c 4000000 /dev/zero >> $DISK/rest || true; free; }
        free() { df --output=avail --block-size=1024 $DISK | tail -n 1; }
        for state in 1 2 3 4; do
            head -c 100000 /dev/urandom | $PERSIST save bot/memory --create --quiet
        done
        echo kept | $PERSIST save bot/notes --quiet
        fill
        echo full | $PERSIST save bot/new && exit 1
        PERSIST_GRACE=0s $PERSIST prune --keep-last 2 --all-hosts-stopped --quiet
        free
        fill
        $PERSIST purge bot/memory --yes --now --quiet
        free
        $PERSIST cat bot/notes
        $PERSIST check --read-data --quiet";
    let Some(output) = with_mounts(script, &command) else {
        return;
    };
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines: Vec<_> = text(&output.stdout).lines().map(str::trim).collect();
    let [full, pruned, full_again, purged, kept] = lines[..] else {
        panic!("{lines:?}: {said}");
    };
    assert_eq!((full, full_again), ("0", "0"), "{said}");
    for freed in [pruned, purged] {
        let kib: u64 = freed.parse().expect("a number");
        assert!(kib >= 190, "{lines:?}: {said}");
    }
    assert_eq!(kept, "kept");
}

/// Records which directories are synced.
#[derive(Debug, Default)]
struct Synced(std::sync::Mutex<Vec<PathBuf>>);

impl Watch for Synced {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if let Call::SyncDir(dir) = call {
            self.0.lock().expect("no panic").push(dir.to_owned());
        }
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_directory_above_a_new_directory_or_an_old_root_is_synced() {
    let dir = tempdir();
    let root = dir.path().join("new/store");
    for above in [dir.path().to_owned(), dir.path().join("new")] {
        let synced = Arc::new(Synced::default());
        let scope = scope(Arc::new(Local::watched(&root, synced.clone())));
        block_on(save(&scope, "memory", "x"));
        let synced = synced.0.lock().expect("no panic");
        assert!(synced.contains(&above), "{above:?}: {synced:?}");
    }
}

/// Modes of everything below a directory, which is not itself among them.
fn modes(dir: &Path) -> Vec<(PathBuf, bool, u32)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("is there");
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                dirs.push(path.clone());
            }
            found.push((path, metadata.is_dir(), mode));
        }
    }
    found
}

#[test]
fn files_and_directories_get_the_modes_of_the_settings_whatever_the_umask_says() {
    // A directory inherits the bit that gives its group to its files.
    for (above, dir_mode, made) in [(0o755, "2770", 0o2770), (0o2755, "0750", 0o2750)] {
        for umask in ["077", "000"] {
            let dir = tempdir();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(above)).expect("mine");
            let mut command = Command::new("sh");
            let persist = persist_without_store(&dir.path().join("a/store"));
            let script = format!("umask {umask}; exec \"$0\" save bot/memory - --create");
            command.arg("-c").arg(script).arg(persist.get_program());
            for (name, value) in persist.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            command.env("PERSIST_FILE_MODE", "0640");
            command.env("PERSIST_DIR_MODE", dir_mode);
            let saved = with_input(&mut command, "shared");
            assert!(saved.status.success(), "{}", text(&saved.stderr));
            let found = modes(dir.path());
            assert!(found.len() > 5, "{found:?}");
            for (path, is_dir, mode) in found {
                let wanted = if is_dir { made } else { 0o640 };
                assert_eq!(mode, wanted, "{umask}: {}: {mode:o}", path.display());
            }
        }
    }
}

#[test]
fn a_mode_that_opens_a_store_to_every_account_is_refused() {
    let dir = tempdir();
    for (variable, value) in [("PERSIST_FILE_MODE", "0666"), ("PERSIST_DIR_MODE", "2777")] {
        let mut command = persist(dir.path());
        let output = with_input(command.env(variable, value).args(["save", "a/b"]), "x");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(variable), "{said}");
        assert!(said.contains("lets every account write"), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
    assert_eq!(version_files(dir.path()).len(), 0);
}

const GROUP: u32 = 4_202;

/// An account of a group, which runs the command on one store.
struct Account<'a> {
    uid: u32,
    gid: u32,
    program: &'a Path,
    store: &'a Path,
    shares: bool,
}

impl Account<'_> {
    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(self.program);
        command.env_clear().env("PERSIST_LOCAL_PATH", self.store);
        if self.shares {
            command.env("PERSIST_FILE_MODE", "0660");
            command.env("PERSIST_DIR_MODE", "2770");
        }
        if args[0] == "prune" {
            command.env("PERSIST_GRACE", "0s");
        }
        command.uid(self.uid).gid(self.gid).args(args);
        command.stdin(Stdio::piped());
        with_input(&mut command, input)
    }

    fn ok(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{}: {args:?}: {said}", self.uid);
        text(&output.stdout).to_owned()
    }
}

#[test]
fn an_installed_program_runs_while_other_tests_start_children() {
    let dir = tempdir();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = || {
            while !is_over.load(Relaxed) {
                Command::new("true").status().expect("starts");
            }
        };
        for _ in 0..3 {
            scope.spawn(others);
        }
        // Of 400 copies that this process wrote itself, the system refused to run 18.
        let refused = (0..150).find_map(|number| {
            let program = dir.path().join(format!("program-{number}"));
            install_program("/bin/true", &program);
            Command::new(program).status().err()
        });
        is_over.store(true, Relaxed);
        assert!(refused.is_none(), "{refused:?}");
    });
}

/// Needs the right to run programs as other accounts.
#[test]
fn two_accounts_of_a_group_share_a_store_and_others_have_no_part_in_it() {
    if fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        eprintln!("this account cannot run programs as another one: nothing is tested");
        return;
    }
    let dir = tempdir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    // Directories above that of the build may be closed to others.
    let program = dir.path().join("persist");
    let built = persist_without_store(dir.path());
    install_program(built.get_program(), &program);
    for shares in [true, false] {
        let parent = dir.path().join(format!("shares-{shares}"));
        fs::create_dir(&parent).expect("makes");
        std::os::unix::fs::chown(&parent, Some(4_200), Some(GROUP)).expect("is root");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o2770)).expect("mine");
        let store = parent.join("store");
        let account = |uid, gid| Account {
            uid,
            gid,
            program: &program,
            store: &store,
            shares,
        };
        let (ann, bob) = (account(4_200, GROUP), account(4_201, GROUP));
        let eve = account(4_203, 4_203);
        ann.ok(&["save", "bot/memory", "-", "--create"], "one");
        if !shares {
            let refused = bob.run(&["cat", "bot/memory"], "");
            assert_eq!(refused.status.code(), Some(5), "{}", text(&refused.stderr));
            continue;
        }
        // Bob writes where Ann did, and where nobody did; Ann reads, removes and goes on.
        bob.ok(&["save", "bot/memory"], "two");
        bob.ok(&["save", "other/memory"], "one");
        assert_eq!(ann.ok(&["cat", "bot/memory"], ""), "two");
        ann.ok(&["save", "other/memory"], "two");
        ann.ok(&["save", "bot/memory"], "three");
        for account in [&ann, &bob] {
            assert_eq!(account.ok(&["cat", "bot/memory@1"], ""), "one");
        }
        ann.ok(&["prune", "--keep-last", "1", "--all-hosts-stopped"], "");
        assert_eq!(version_files(&store).len(), 2);
        bob.ok(&["purge", "--yes", "--now", "other/memory"], "");
        ann.ok(&["check", "--read-data"], "");
        ann.ok(&["gc"], "");
        let refused = eve.run(&["cat", "bot/memory"], "");
        assert_eq!(refused.status.code(), Some(5), "{}", text(&refused.stderr));
    }
}
