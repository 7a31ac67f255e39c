//! Shared parts of the tests: stores, agents and the command.

pub mod gcs;
pub mod http_server;
pub mod proxy;
pub mod store;
pub mod terminal;
mod version_key;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use persist_host::snapshot::{Info, SaveOptions, Scope, Store};
use persist_host::storage::{Local, Memory, Storage};
use persist_host::wasm::{Agent, AgentHost};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub use version_key::version_file;

/// Runs a test that waits.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

/// Runs a test on every backend that needs no server.
pub fn on_every_storage<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Storage>) -> F) {
    let dir = tempfile::tempdir().expect("a directory");
    block_on(async {
        test(Arc::new(Memory::new())).await;
        test(Arc::new(Local::new(dir.path().join("store")))).await;
    });
}

/// The scope of an agent called `bot`, in a store of its own.
pub fn scope(storage: Arc<dyn Storage>) -> Scope {
    Store::new(storage).scope("bot", None).expect("a name")
}

/// Saves a text.
pub async fn save(scope: &Scope, name: &str, text: &str) -> Info {
    let state = text.to_owned().into();
    scope
        .save(name, state, SaveOptions::default())
        .await
        .expect("saves")
}

/// Puts another creation time, in milliseconds since 1970 UTC, into the trailer of a whole file of
/// a version. Nothing moves.
pub fn redate(file: &mut [u8], created_at: u64) {
    const FIELD: &[u8] = b"\"created_at\":";
    const WIDTH: usize = "1780000000000".len();
    // The footer is a member of 86 bytes, of which the first 16 are its header.
    let Some(footer) = file.len().checked_sub(86 - 16) else {
        return;
    };
    let member = u64::from_le_bytes(file[footer + 8..][..8].try_into().expect("8 bytes"));
    let trailer = &mut file[usize::try_from(member).expect("small")..];
    let found = trailer.windows(FIELD.len()).position(|at| at == FIELD);
    let at = found.expect("a creation time") + FIELD.len();
    trailer[at..at + WIDTH].copy_from_slice(format!("{created_at:WIDTH$}").as_bytes());
    let sum = trailer.len() - 86 + 16 + 16;
    let sha256 = Sha256::new()
        .chain_update(&trailer[..sum])
        .chain_update(&trailer[sum + 32..])
        .finalize();
    trailer[sum..sum + 32].copy_from_slice(&sha256);
}

/// Copies a program to where it is run from.
///
/// Another process writes the copy. What this one has open for writing is inherited by each child
/// that another test starts at that moment, and until that child runs its own program, the system
/// refuses to run the copy (`ETXTBSY`).
pub fn install_program(program: impl AsRef<Path>, path: &Path) {
    let parent = path.parent().expect("a directory");
    std::fs::create_dir_all(parent).expect("created");
    let mut install = Command::new("install");
    let install = install.args(["-m", "755"]).arg(program.as_ref()).arg(path);
    assert!(install.status().expect("install starts").success());
}

/// Writes a script to where it is run from, as [`install_program`] does.
pub fn install_script(path: &Path, script: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("created");
    file.write_all(script.as_bytes()).expect("written");
    install_program(file.path(), path);
}

/// Loads a text; none where nothing is saved.
pub async fn load(scope: &Scope, name: &str) -> Option<String> {
    let snapshot = scope.load(name, None).await.expect("loads")?;
    Some(String::from_utf8(snapshot.state.to_vec()).expect("text"))
}

/// The directory that cargo builds into.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("this binary has a path");
    let deps = test.parent().expect("in target/debug/deps");
    deps.parent().expect("in target/debug").to_owned()
}

/// Makes a store where there is none, as an operator does before anything is saved. What is wrong
/// with the storage is told by the command.
pub fn init(storage: Arc<dyn Storage>) {
    let made = std::thread::spawn(move || block_on(Store::new(storage).init()));
    let _ = made.join().expect("no panic");
}

/// The `persist` command on the store in `dir`, which is made if it is missing, with nothing else
/// in its environment.
pub fn persist(dir: &Path) -> Command {
    if !dir.as_os_str().is_empty() && !dir.join("~/store.json").exists() {
        init(Arc::new(Local::new(dir)));
    }
    persist_without_store(dir)
}

/// The file of a program of this workspace.
pub fn program(name: &str) -> PathBuf {
    let binary = target().join(name);
    assert!(
        binary.exists(),
        "{} is missing: run `cargo xtask test`",
        binary.display()
    );
    binary
}

/// The file of a host of another project that `cargo xtask guests` builds.
pub fn other_host(name: &str) -> PathBuf {
    let targets = target().parent().expect("target").to_owned();
    let file = targets.join("hosts/debug").join(name);
    assert!(
        file.exists(),
        "{} is missing: run `cargo xtask test`",
        file.display()
    );
    file
}

/// The `persist` command on `dir` as it is.
pub fn persist_without_store(dir: &Path) -> Command {
    let mut command = Command::new(program("persist"));
    command.env_clear().env("PERSIST_LOCAL_PATH", dir);
    // Compiled agents are kept for all tests.
    command.env("XDG_CACHE_HOME", cache());
    // Nor the settings of the user who runs them.
    command.env("XDG_CONFIG_HOME", cache());
    command
}

/// Runs `persist` with `args` on the store in `dir`.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    persist(dir).args(args).output().expect("persist starts")
}

/// Returns the output of a command as text.
pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Runs `persist`, which must succeed, and returns what it printed.
pub fn run_ok(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let stderr = text(&output.stderr);
    assert!(
        output.status.success(),
        "persist {args:?}: {}: {stderr}",
        output.status
    );
    text(&output.stdout).to_owned()
}

/// Runs `persist`, which must fail with `code`, and returns what it said.
pub fn run_fails(dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(dir, args);
    let stderr = text(&output.stderr).to_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "persist {args:?}: {stderr}"
    );
    stderr
}

fn cache() -> PathBuf {
    target().join("test-cache")
}

/// The file of an agent that `cargo xtask guests` builds.
pub fn guest(name: &str) -> PathBuf {
    guest_on("wasm32-unknown-unknown", name)
}

/// The file of an agent that `cargo xtask guests` builds for a target.
pub fn guest_on(triple: &str, name: &str) -> PathBuf {
    let targets = target().parent().expect("target").to_owned();
    let file = targets.join(format!("guests/{triple}/guest/{name}.wasm"));
    assert!(
        file.exists(),
        "{} is missing: run `cargo xtask test`",
        file.display()
    );
    file
}

/// The file of an agent in another language than Rust that `cargo xtask guests` builds; none where
/// it had no toolchain.
///
/// `cargo xtask test` counts the tests that this lets pass. Where `CI` is set, none passes unless
/// `PERSIST_SKIP_LANGUAGES` is 1.
pub fn guest_in(language: &str, name: &str) -> Option<PathBuf> {
    let targets = target().parent().expect("target").to_owned();
    let file = targets.join(format!("guests/languages/{language}/{name}.wasm"));
    if file.exists() {
        return Some(file);
    }
    let is_wanted = std::env::var_os("PERSIST_SKIP_LANGUAGES").is_some_and(|value| value == "1");
    assert!(
        is_wanted || std::env::var_os("CI").is_none(),
        "{} is missing: `cargo xtask guests` says why; PERSIST_SKIP_LANGUAGES=1 skips the test",
        file.display()
    );
    report_skipped(language);
    None
}

/// Returns true if this machine has a program that `cargo xtask test` installs where it can.
///
/// A test that passes without it is counted as those of [`guest_in`] are.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(name).is_file()) {
        return true;
    }
    skip_without(name);
    false
}

/// Lets a test pass without something that `cargo xtask test` installs where it can. Where `CI` is
/// set, the test fails unless `PERSIST_SKIP_LANGUAGES` is 1.
pub fn skip_without(name: &str) {
    let is_wanted = std::env::var_os("PERSIST_SKIP_LANGUAGES").is_some_and(|value| value == "1");
    assert!(
        is_wanted || std::env::var_os("CI").is_none(),
        "{name} is missing: PERSIST_SKIP_LANGUAGES=1 skips the test"
    );
    report_skipped(name);
}

/// Adds this test to the list that `cargo xtask test` prints: cargo hides the output of tests that
/// pass.
fn report_skipped(language: &str) {
    let list = target()
        .parent()
        .expect("target")
        .join("skipped-language-tests");
    let list = OpenOptions::new().create(true).append(true).open(list);
    let thread = std::thread::current();
    let line = format!("{language}\t{}\n", thread.name().unwrap_or("a test"));
    let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
    written.expect("the list of skipped tests can be written");
}

/// Returns the folder where `cargo xtask guests` keeps the toolchains of other languages.
pub fn toolchains() -> PathBuf {
    target().parent().expect("target").join("toolchains")
}

/// A host that keeps compiled agents for all tests.
pub fn host() -> AgentHost {
    static HOST: OnceLock<AgentHost> = OnceLock::new();
    HOST.get_or_init(|| {
        AgentHost::builder()
            .cache(Some(cache()))
            .build()
            .expect("a host")
    })
    .clone()
}

/// The agent whose first argument picks a scenario.
pub async fn test_guest(host: &AgentHost) -> Agent {
    let bytes = std::fs::read(guest("test_guest")).expect("readable");
    host.load(&bytes).await.expect("an agent")
}

/// Bytes that do not compress, the same for the same `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    persist_host::conformance::noise(seed, len).into()
}

/// A directory that is removed with the value.
pub fn tempdir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The files of all versions that agents have under a store's directory.
pub fn version_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    let own = dir.join("~");
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            if entry.path() == own {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                dirs.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "gz") {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}
