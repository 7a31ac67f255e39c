//! `examples/zeroclaw-backend`: the plugin host of ZeroClaw, unmodified, with the state of its
//! plugins in a store.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use persist_host::wasm::componentize;
use persist_host::wasmtime::{Config, Engine};
use persist_tests::{guest, other_host, persist, run_ok, tempdir};

/// The host, and what its plugin answers.
struct Host {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Host {
    /// Starts a host with a plugin and a store in `dir`.
    fn start(dir: &Path, limits: &[&str]) -> Self {
        add_plugin(dir, r#"["state_read", "state_write"]"#);
        Self::start_as_is(dir, limits)
    }

    fn start_as_is(dir: &Path, limits: &[&str]) -> Self {
        let store = dir.join("store");
        persist(&store); // Makes the store.
        let mut process = Command::new(other_host("zeroclaw-backend"))
            .arg(dir.join("plugins"))
            .arg(store)
            .args(limits)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let answers = process.stdout.take().expect("a pipe");
        Self {
            process,
            answers: BufReader::new(answers).lines(),
        }
    }

    fn send(&mut self, args: &str) {
        let input = self.process.stdin.as_mut().expect("a pipe");
        writeln!(input, "{{{args}}}").expect("written");
    }

    fn receive(&mut self) -> Option<String> {
        let answer = self.answers.next()?.expect("read");
        let answer = answer.strip_prefix("notebook: ").expect("its name");
        Some(answer.to_owned())
    }

    /// Calls the plugin with the arguments inside of a JSON object.
    fn call(&mut self, args: &str) -> String {
        self.send(args);
        self.receive().expect("an answer")
    }

    fn get(&mut self, key: &str) -> String {
        self.call(&format!(r#""call": "get", "key": "{key}""#))
    }

    fn put(&mut self, key: &str, value: &str, expected: Option<u64>) -> String {
        let expected = expected.map_or("null".into(), |revision| revision.to_string());
        self.call(&format!(
            r#""call": "put", "key": "{key}", "value": "{value}", "expected": {expected}"#
        ))
    }

    fn delete(&mut self, key: &str, expected: u64) -> String {
        self.call(&format!(
            r#""call": "delete", "key": "{key}", "expected": {expected}"#
        ))
    }

    /// Kills the host, and returns the answers that it had printed.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
        std::iter::from_fn(|| self.receive()).collect()
    }
}

/// The plugin, compiled as ZeroClaw's engine expects it: the host of the tests has no compiler.
fn plugin() -> &'static [u8] {
    static PLUGIN: OnceLock<Vec<u8>> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let module = fs::read(guest("zeroclaw_notebook")).expect("readable");
        let mut config = Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).expect("an engine");
        let component = componentize(&engine, module).expect("a component");
        engine.precompile_component(&component).expect("compiled")
    })
}

fn add_plugin(dir: &Path, permissions: &str) {
    let folder = dir.join("plugins/notebook");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("notebook.wasm"), plugin()).expect("written");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/zeroclaw-backend");
    let manifest = fs::read_to_string(root.join("plugin/manifest.toml")).expect("readable");
    let requested = r#"["state_read", "state_write"]"#;
    assert!(manifest.contains(requested), "{manifest}");
    let manifest = manifest.replace(requested, permissions);
    fs::write(folder.join("manifest.toml"), manifest).expect("written");
}

/// Returns the file of a version of the plugin's key.
fn file(dir: &Path, key: &str) -> PathBuf {
    let name = dir.join("store/notebook/tool.notebook").join(key);
    let mut files: Vec<_> = fs::read_dir(name).expect("a folder").collect();
    files.pop().expect("a file").expect("an entry").path()
}

#[test]
fn revisions_are_versions_and_conflicts_are_conflicts() {
    let dir = tempdir();
    let dir = dir.path();
    let mut host = Host::start(dir, &[]);
    assert_eq!(host.get("a"), "none");
    assert_eq!(host.put("a", "x", Some(1)), "error: conflict");
    assert_eq!(host.put("a", "x", Some(0)), "error: conflict");
    assert_eq!(host.delete("a", 1), "error: not-found");
    assert_eq!(host.put("a", "one", None), "1");
    assert_eq!(host.put("a", "x", None), "error: conflict");
    assert_eq!(host.put("a", "two", Some(1)), "2");
    assert_eq!(host.put("a", "x", Some(1)), "error: conflict");
    assert_eq!(host.put("a", "x", Some(3)), "error: conflict");
    assert_eq!(host.get("a"), "two at 2");
    assert_eq!(host.delete("a", 1), "error: conflict");
    assert_eq!(host.delete("a", 2), "deleted");
    assert_eq!(host.get("a"), "none");
    // A revision is never used again, and the tombstone between is none.
    for revision in 1..=3 {
        assert_eq!(host.put("a", "x", Some(revision)), "error: conflict");
        assert_eq!(host.delete("a", revision), "error: not-found");
    }
    assert_eq!(host.put("a", "three", None), "4");
    assert_eq!(host.get("a"), "three at 4");
    host.kill();
    // The changes of the plugin are a history.
    let store = dir.join("store");
    let first = run_ok(&store, &["cat", "notebook/tool.notebook/a@1"]);
    assert_eq!(first, "one");
    // Another program is a writer like any other.
    run_ok(&store, &["restore", "notebook/tool.notebook/a@2"]);
    let mut host = Host::start(dir, &[]);
    assert_eq!(host.put("a", "x", Some(4)), "error: conflict");
    assert_eq!(host.get("a"), "two at 5");
    host.kill();
}

#[test]
fn quotas_and_other_errors_keep_their_meaning() {
    let dir = tempdir();
    let dir = dir.path();
    let mut host = Host::start(dir, &["state-size=10", "names-at-rest=2"]);
    assert_eq!(host.put("a", "01234567890", None), "error: quota-exceeded");
    assert_eq!(host.put("a", "0123456789", None), "1");
    assert_eq!(host.put("b", "", None), "1");
    assert_eq!(host.put("c", "", None), "error: quota-exceeded");
    assert_eq!(host.get("b"), " at 1");
    // ZeroClaw refuses the first two itself; the last is a key for it, and too long for a name.
    assert_eq!(host.get("../a"), "error: invalid-key");
    assert_eq!(host.put("", "x", None), "error: invalid-key");
    assert_eq!(host.get(&"K".repeat(128)), "error: invalid-key");
    host.kill();
    let mut host = Host::start(dir, &["inline-size=9"]);
    assert_eq!(
        host.put("a", "0123456789", Some(1)),
        "error: quota-exceeded"
    );
    assert_eq!(host.get("a"), "error: quota-exceeded");
    host.kill();
    let mut host = Host::start(dir, &["saves-per-minute=1"]);
    assert_eq!(host.put("a", "x", Some(1)), "2");
    assert_eq!(host.put("a", "y", Some(2)), "error: quota-exceeded");
    host.kill();
    // A value that fails its check is not given to the plugin.
    let path = file(dir, "b");
    let mut bytes = fs::read(&path).expect("readable");
    bytes.truncate(bytes.len() / 2);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, bytes).expect("written");
    let mut host = Host::start(dir, &[]);
    assert_eq!(host.get("b"), "error: unavailable");
    assert_eq!(host.get("a"), "x at 2");
    host.kill();
    add_plugin(dir, r#"["state_read"]"#);
    let mut host = Host::start_as_is(dir, &[]);
    assert_eq!(host.get("a"), "x at 2");
    assert_eq!(host.put("a", "y", Some(2)), "error: access-denied");
    assert_eq!(host.delete("a", 2), "error: access-denied");
    host.kill();
}

#[test]
fn no_count_is_lost_when_the_host_is_killed_at_any_moment() {
    const KILLS: u64 = 6;
    let dir = tempdir();
    let dir = dir.path();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut host = Host::start(dir, &[]);
        let found = host.get("visits");
        let count = found.split(' ').next().and_then(|text| text.parse().ok());
        let count: u64 = count.unwrap_or(0);
        // The last one may have been saved before the kill and its answer not printed.
        assert!(
            count == acknowledged || count == acknowledged + 1,
            "{found}, and {acknowledged} were acknowledged"
        );
        for _ in 0..200 {
            host.send(r#""call": "count", "key": "visits""#);
        }
        let first = host.receive().expect("an answer");
        assert_eq!(first, (count + 1).to_string());
        // Somewhere in the next saves, at another moment in each run of the test.
        let moment = RandomState::new().hash_one(kill) % 100_000;
        std::thread::sleep(Duration::from_micros(moment));
        let answers = host.kill();
        let last = answers.last().unwrap_or(&first);
        acknowledged = last.parse().expect("a number");
    }
    assert!(acknowledged >= KILLS, "{acknowledged}");
}
