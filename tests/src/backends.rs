//! Stores on all backends, and the command on them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};

use persist_host::storage::{Key, Local, ReadRange, Storage};
use persist_servers::Kind;
use serde_json::Value;
use tempfile::TempDir;

use crate::cloud::Place;
use crate::{block_on, init, persist_without_store, tempdir, text};

/// A store of its own on one backend, and the command on it.
#[derive(Debug)]
pub struct Backend {
    /// Which backend, for messages.
    pub name: &'static str,
    /// URL of the backend on a command line.
    pub url: String,
    /// Storage below the command.
    pub storage: Arc<dyn Storage>,
    access: Access,
    /// Set once the store is made.
    made: OnceLock<()>,
    /// Gone with this value.
    _dir: Option<TempDir>,
}

/// How the command comes to it.
#[derive(Debug)]
enum Access {
    Local(PathBuf),
    Server(Place),
}

/// One of each.
pub fn backends() -> [Backend; 3] {
    let dir = tempdir();
    let path = dir.path().join("store");
    [
        Backend {
            name: "local",
            url: format!("file://{}", path.display()),
            storage: Arc::new(Local::new(&path)),
            access: Access::Local(path),
            made: OnceLock::new(),
            _dir: Some(dir),
        },
        Backend::on("s3", Kind::SeaweedFs),
        Backend::on("gcs", Kind::FakeGcs),
    ]
}

impl Backend {
    fn on(name: &'static str, server: Kind) -> Self {
        let place = Place::on(server);
        Self {
            name,
            url: place.url(),
            storage: place.storage(),
            access: Access::Server(place),
            made: OnceLock::new(),
            _dir: None,
        }
    }

    /// The command, with nothing else in its environment. The first one makes the store.
    pub fn command(&self) -> Command {
        self.made.get_or_init(|| init(Arc::clone(&self.storage)));
        self.command_without_store()
    }

    /// The command, whatever is there.
    pub fn command_without_store(&self) -> Command {
        match &self.access {
            Access::Local(path) => persist_without_store(path),
            Access::Server(place) => place.persist_without_store(),
        }
    }

    /// Runs the command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("persist starts")
    }

    /// Runs the command, which must succeed, and returns its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        let succeeded = output.status.success();
        assert!(succeeded, "{}: {args:?}: {said}{printed}", self.name);
        printed.to_owned()
    }

    /// Runs the command, which must end with this code, and returns its standard output and
    /// standard error.
    pub fn ends(&self, args: &[&str], code: i32) -> (String, String) {
        let output = self.run(args);
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        let ended = output.status.code();
        assert_eq!(ended, Some(code), "{}: {args:?}: {said}", self.name);
        assert!(!said.contains("panicked"), "{said}");
        (printed.to_owned(), said.to_owned())
    }

    /// Runs the command, which must end with this code, and returns its standard error.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        self.ends(args, code).1
    }

    /// Saves a text.
    pub fn save(&self, address: &str, state: &str) {
        self.save_bytes(address, state.as_bytes());
    }

    /// Saves a state through standard input.
    pub fn save_bytes(&self, address: &str, state: &[u8]) {
        let mut command = self.command();
        command.args(["save", address]).stdin(Stdio::piped());
        let command = command.stdout(Stdio::null()).spawn();
        let mut saving = command.expect("persist starts");
        let mut stdin = saving.stdin.take().expect("a pipe");
        stdin.write_all(state).expect("it reads");
        drop(stdin);
        let saved = saving.wait().expect("it ends");
        assert!(saved.success(), "{}: save {address}", self.name);
    }

    /// Puts an object where no command would.
    pub fn put(&self, key: &str, body: &[u8]) {
        let key = Key::new(key).expect("a key");
        let body = vec![body.to_vec().into()];
        block_on(self.storage.create(&key, body)).expect("creates");
    }

    /// An object, whole.
    pub fn take(&self, key: &str) -> Vec<u8> {
        let key = Key::new(key).expect("a key");
        let part = block_on(self.storage.read(&key, ReadRange::Suffix(1 << 30)));
        part.expect("is there").bytes.to_vec()
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        block_on(self.storage.delete(&Key::new(key).expect("a key"))).expect("deletes");
    }
}

/// The lines that `--json` prints.
pub fn json(lines: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(parse).collect()
}
