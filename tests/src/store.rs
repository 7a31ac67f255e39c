//! A store for one test, on whichever backend: on a local disk, an S3 server or a GCS server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::proxy::{Proxy, Reply, Seen};
use persist_host::conformance;
use persist_host::snapshot::Scope;
use persist_host::storage::probe::Way;
use persist_host::storage::{Key, ReadRange, Retry, S3Credentials, Storage, StorageConfig};
use persist_servers::{Kind, Server};
use serde_json::Value;
use tempfile::TempDir;

use crate::{block_on, gcs, init, persist_without_store, tempdir, text};

/// One server for each cloud backend.
pub const SERVERS: [Kind; 2] = [Kind::SeaweedFs, Kind::FakeGcs];

/// A store of its own on each backend: on a local disk, on S3 and on GCS.
pub fn on_each_backend() -> [TestStore; 3] {
    [
        TestStore::local(),
        TestStore::on(Kind::SeaweedFs),
        TestStore::on(Kind::FakeGcs),
    ]
}

/// Kind of storage that a store is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A directory.
    Local,
    /// A bucket of an S3 server.
    S3,
    /// A bucket of a GCS server.
    Gcs,
}

/// A store that no other test uses, and the command `persist` on it.
///
/// On a server, it is a prefix in a bucket that all tests share.
///
/// SeaweedFS makes writers of one key wait for seconds, and looks first and writes then where it
/// puts parts together, so that a store refuses it for large states. Stores on it say that it was
/// probed: tests of the probe use [`TestStore::probed`], and no other test lets uploads race there.
/// Stores on GCS are behind a proxy (see [`gcs`]) and say that uploads that race were probed.
#[derive(Clone, Debug)]
pub struct TestStore {
    location: Location,
    /// As on a command line.
    url: String,
    /// Ways of creating objects that are not probed here.
    unprobed: Vec<Way>,
    /// Set once the store is initialized.
    initialized: Arc<OnceLock<()>>,
}

#[derive(Clone, Debug)]
enum Location {
    /// A directory inside one that is removed with the last clone of the value.
    Local(Arc<TempDir>),
    Server(Prefix),
}

/// A prefix in a bucket of a server.
#[derive(Clone, Debug)]
struct Prefix {
    kind: Kind,
    server: &'static Server,
    /// The server's own, or that of a proxy before it.
    endpoint: String,
    bucket: String,
    prefix: String,
}

impl Prefix {
    /// A new prefix on a server that all tests share.
    fn new(kind: Kind) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let server = Server::shared(kind);
        Self {
            kind,
            server,
            endpoint: Self::direct(kind).into(),
            bucket: server.facts().bucket.clone(),
            prefix: format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The endpoint that a store uses unless a test puts a proxy before it.
    fn direct(kind: Kind) -> &'static str {
        match kind {
            Kind::FakeGcs => gcs::conditional().endpoint(),
            kind => Server::shared(kind).endpoint(),
        }
    }

    fn config(&self) -> StorageConfig {
        let mut retry = Retry::default();
        retry.first_wait = Duration::from_millis(2);
        retry.longest_wait = Duration::from_millis(20);
        let bucket = self.bucket.clone();
        if self.kind == Kind::FakeGcs {
            let prefix = self.prefix.clone();
            return StorageConfig {
                gcs_endpoint: Some(self.endpoint.clone()),
                gcs_timeout: Some(Duration::from_secs(15)),
                retry,
                ..StorageConfig::gcs_with_bucket_prefix_and_credentials(bucket, prefix, None)
            };
        }
        let facts = self.server.facts();
        StorageConfig {
            s3_endpoint: Some(self.endpoint.clone()),
            s3_prefix: Some(self.prefix.clone()),
            s3_credentials: Some(S3Credentials::new(
                facts.access_key.clone(),
                facts.secret_key.clone(),
            )),
            retry,
            ..StorageConfig::s3_with_bucket_and_region(bucket, "us-east-1".into())
        }
    }
}

impl TestStore {
    /// A new store on a local disk.
    pub fn local() -> Self {
        let dir = tempdir();
        let url = format!("file://{}", dir.path().join("store").display());
        Self::new(Location::Local(Arc::new(dir)), url, Vec::new())
    }

    /// A new store on a server.
    pub fn on(kind: Kind) -> Self {
        let unprobed = match kind {
            Kind::SeaweedFs => vec![Way::Single, Way::Parts],
            Kind::FakeGcs => vec![Way::Parts],
            Kind::Ministack | Kind::LocalBucket => Vec::new(),
        };
        let store = Self {
            unprobed,
            ..Self::probed(kind)
        };
        store.record_probes();
        store
    }

    /// A new store on a server that is probed in all ways.
    pub fn probed(kind: Kind) -> Self {
        Self::at(Prefix::new(kind))
    }

    /// A new store on a server as it is, without the proxy that makes fake-gcs-server answer as
    /// Google's.
    pub fn bare(kind: Kind) -> Self {
        Self::at(Prefix {
            endpoint: Server::shared(kind).endpoint().into(),
            ..Prefix::new(kind)
        })
    }

    fn at(prefix: Prefix) -> Self {
        let url = prefix.server.url(&prefix.bucket, &prefix.prefix);
        Self::new(Location::Server(prefix), url, Vec::new())
    }

    fn new(location: Location, url: String, unprobed: Vec<Way>) -> Self {
        Self {
            location,
            url,
            unprobed,
            initialized: Arc::default(),
        }
    }

    /// Returns the store with records that its server was probed, for tests of as many stores as
    /// the probes would take most of the time.
    #[must_use]
    pub fn unprobed(mut self) -> Self {
        self.unprobed = vec![Way::Single, Way::Parts];
        self.record_probes();
        self
    }

    /// Returns the store in another bucket of the server.
    #[must_use]
    pub fn with_bucket(&self, bucket: &str) -> Self {
        Self::at(Prefix {
            bucket: bucket.into(),
            ..self.on_server().clone()
        })
    }

    /// Returns the store at another prefix: its own, behind this text.
    #[must_use]
    pub fn below(&self, text: &str) -> Self {
        let prefix = self.on_server().clone();
        let store = Self::at(Prefix {
            prefix: format!("{text}-{}", prefix.prefix),
            ..prefix
        });
        Self {
            unprobed: self.unprobed.clone(),
            ..store
        }
    }

    /// Starts a proxy and returns it with this store, accessed through the proxy.
    pub fn proxied(&self) -> (Proxy, Self) {
        let direct = self.on_server();
        let proxy = Proxy::start(match direct.kind {
            // The shared proxy, or the bare server.
            Kind::FakeGcs => &direct.endpoint,
            _ => direct.server.endpoint(),
        });
        let proxied = self.through(proxy.endpoint());
        (proxy, proxied)
    }

    /// Returns this store, accessed at another endpoint, which leads to the same server.
    #[must_use]
    pub fn through(&self, endpoint: &str) -> Self {
        record_probes(self.storage(), endpoint, &self.unprobed);
        Self {
            location: Location::Server(Prefix {
                endpoint: endpoint.into(),
                ..self.on_server().clone()
            }),
            ..self.clone()
        }
    }

    fn record_probes(&self) {
        record_probes(self.storage(), &self.on_server().endpoint, &self.unprobed);
    }

    fn on_server(&self) -> &Prefix {
        match &self.location {
            Location::Server(prefix) => prefix,
            Location::Local(_) => panic!("a local disk has no server"),
        }
    }

    /// The kind of its storage.
    pub fn backend(&self) -> Backend {
        match &self.location {
            Location::Local(_) => Backend::Local,
            Location::Server(prefix) if prefix.kind == Kind::FakeGcs => Backend::Gcs,
            Location::Server(_) => Backend::S3,
        }
    }

    /// Name of the backend, for messages.
    pub fn name(&self) -> &'static str {
        match self.backend() {
            Backend::Local => "local",
            Backend::S3 => "s3",
            Backend::Gcs => "gcs",
        }
    }

    /// The URL of the store on a command line.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory of a store on a local disk.
    pub fn path(&self) -> PathBuf {
        match &self.location {
            Location::Local(dir) => dir.path().join("store"),
            Location::Server(_) => panic!("a server has no path"),
        }
    }

    /// The server.
    pub fn server(&self) -> &'static Server {
        self.on_server().server
    }

    /// The prefix in the bucket.
    pub fn prefix(&self) -> &str {
        &self.on_server().prefix
    }

    /// How a program is told to use it: with the default policy, but no wait between attempts that
    /// a test would notice.
    pub fn config(&self) -> StorageConfig {
        match &self.location {
            Location::Local(_) => StorageConfig::local(self.path()),
            Location::Server(prefix) => prefix.config(),
        }
    }

    /// Returns the configuration for a host that does not wait long for an answer that never comes.
    pub fn impatient(&self) -> StorageConfig {
        const PATIENCE: Duration = Duration::from_secs(2);
        let mut config = self.config();
        config.gcs_timeout = Some(PATIENCE);
        config.retry.attempt = PATIENCE;
        config.retry.stall = PATIENCE;
        config
    }

    /// The storage, opened anew, as by a process that was just started.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.config().build().expect("a storage")
    }

    /// The scope of an agent called `bot`, as a process sees it that was just started.
    pub fn scope(&self) -> Scope {
        crate::scope(self.storage())
    }

    /// The `persist` command here, with nothing else in its environment. The first one initializes
    /// the store.
    pub fn command(&self) -> Command {
        self.initialized.get_or_init(|| {
            init(match &self.location {
                Location::Local(_) => self.storage(),
                // Not through a proxy, which counts what the command sends.
                Location::Server(prefix) => {
                    let mut direct = prefix.clone();
                    direct.endpoint = Prefix::direct(prefix.kind).into();
                    direct.config().build().expect("a storage")
                }
            });
        });
        self.command_without_store()
    }

    /// The `persist` command here, whatever is there.
    pub fn command_without_store(&self) -> Command {
        let Location::Server(prefix) = &self.location else {
            return persist_without_store(&self.path());
        };
        let mut command = persist_without_store(Path::new(""));
        command
            .env_remove("PERSIST_LOCAL_PATH")
            .env("PERSIST_STORAGE", &self.url)
            .envs(prefix.server.environment(&prefix.endpoint));
        command
    }

    /// Runs the command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("persist starts")
    }

    /// Runs the command, which must succeed, and returns its standard output.
    pub fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        let succeeded = output.status.success();
        assert!(succeeded, "{}: {args:?}: {said}{printed}", self.name());
        printed.to_owned()
    }

    /// Runs the command, which must end with this code, and returns its standard output and
    /// standard error.
    pub fn run_ends(&self, args: &[&str], code: i32) -> (String, String) {
        let output = self.run(args);
        let printed = text(&output.stdout);
        let said = text(&output.stderr);
        let ended = output.status.code();
        assert_eq!(ended, Some(code), "{}: {args:?}: {said}", self.name());
        assert!(!said.contains("panicked"), "{said}");
        (printed.to_owned(), said.to_owned())
    }

    /// Runs the command, which must end with this code, and returns its standard error.
    pub fn run_fails(&self, args: &[&str], code: i32) -> String {
        self.run_ends(args, code).1
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
        assert!(saved.success(), "{}: save {address}", self.name());
    }

    /// Creates an object where no command would.
    pub fn put_object(&self, key: &str, body: &[u8]) {
        let key = Key::new(key).expect("a key");
        let body = vec![body.to_vec().into()];
        block_on(self.storage().create(&key, body)).expect("creates");
    }

    /// Reads an object, whole.
    pub fn read_object(&self, key: &str) -> Vec<u8> {
        let key = Key::new(key).expect("a key");
        let part = block_on(self.storage().read(&key, ReadRange::Suffix(1 << 30)));
        part.expect("is there").bytes.to_vec()
    }

    /// Deletes an object.
    pub fn delete_object(&self, key: &str) {
        block_on(self.storage().delete(&Key::new(key).expect("a key"))).expect("deletes");
    }

    /// Returns true if a request reads an object.
    pub fn reads(&self, seen: &Seen) -> bool {
        match self.backend() {
            Backend::Gcs => gcs::operation(seen) == "get",
            _ => seen.operation() == "GetObject",
        }
    }

    /// Returns true if a request sends part of an upload, except an upload that only probes the
    /// server.
    pub fn sends_part(&self, seen: &Seen) -> bool {
        match self.backend() {
            Backend::Gcs => gcs::operation(seen) == "part",
            _ => seen.operation() == "UploadPart" && !is_probe(seen),
        }
    }

    /// Returns true if a request aborts an upload.
    pub fn aborts(&self, seen: &Seen) -> bool {
        match self.backend() {
            Backend::Gcs => gcs::operation(seen) == "cancel",
            _ => seen.operation() == "AbortMultipartUpload" && !is_probe(seen),
        }
    }

    /// An answer of the server that refuses.
    pub fn refusal(&self, status: u16) -> Reply {
        let (code, reason) = match status {
            400 => ("InvalidArgument", "invalid"),
            403 => ("AccessDenied", "forbidden"),
            429 => ("TooManyRequests", "rateLimitExceeded"),
            500 => ("InternalError", "internalError"),
            503 => ("SlowDown", "backendError"),
            status => panic!("what does a server say with {status}?"),
        };
        match self.backend() {
            Backend::Gcs => gcs::refusal(status, reason),
            _ => Reply::s3(status, code),
        }
    }
}

/// Records in a store that a server was probed in these ways, without probing it. It may be called
/// in a runtime.
fn record_probes(storage: Arc<dyn Storage>, server: &str, ways: &[Way]) {
    let server = server.to_owned();
    let ways = ways.to_vec();
    let recorded = std::thread::spawn(move || {
        block_on(async {
            for way in ways {
                let recorded = conformance::record_probe(&*storage, &server, way).await;
                recorded.expect("records");
            }
        });
    });
    recorded.join().expect("no panic");
}

/// Returns true if a request is about an object that only probes the server.
pub fn is_probe(seen: &Seen) -> bool {
    seen.uri.to_string().contains("probe-")
}

/// The lines that `--json` prints.
pub fn json(lines: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(parse).collect()
}
