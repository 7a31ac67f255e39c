//! Places on S3 servers, one for each test.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persist_host::snapshot::{Scope, Store};
use persist_host::storage::probe::Way;
use persist_host::storage::{Retry, S3Credentials, Storage, StorageConfig};
use persist_servers::{Kind, Proxy, Server};

use crate::cloud::record_probes;

/// A prefix in a bucket of a server that all tests share.
///
/// SeaweedFS makes writers of one key wait for seconds, and looks first and writes then where it
/// puts parts together, so that a store refuses it for large states. The places on it say that it
/// was probed: tests of the probe use [`Place::probed`], and no other test lets uploads race there.
#[derive(Clone, Debug)]
pub struct Place {
    server: &'static Server,
    /// The server's own, or that of a proxy before it.
    endpoint: String,
    /// The server's own, unless a test made another.
    pub bucket: String,
    /// Not shared with other tests.
    pub prefix: String,
    /// Ways of creating objects that are not probed here.
    unprobed: Vec<Way>,
}

impl Place {
    /// A new place on a server.
    pub fn on(kind: Kind) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let server = Server::shared(kind);
        let place = Self {
            server,
            endpoint: server.endpoint().into(),
            bucket: server.facts().bucket.clone(),
            prefix: format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            unprobed: match kind {
                Kind::SeaweedFs => vec![Way::Single, Way::Parts],
                _ => Vec::new(),
            },
        };
        place.record_probes(&place.endpoint);
        place
    }

    /// A new place on a server that is probed in all ways.
    #[must_use]
    pub fn probed(kind: Kind) -> Self {
        let place = Self::on(kind);
        Self {
            prefix: format!("{}-probed", place.prefix),
            unprobed: Vec::new(),
            ..place
        }
    }

    /// Returns the place with records that its server was probed.
    #[must_use]
    pub fn unprobed(mut self) -> Self {
        self.unprobed = vec![Way::Single, Way::Parts];
        self.record_probes(&self.endpoint);
        self
    }

    fn record_probes(&self, server: &str) {
        record_probes(self.storage(), server, &self.unprobed);
    }

    /// Starts a proxy and returns it with this place, accessed through the proxy.
    pub fn proxied(&self) -> (Proxy, Self) {
        let proxy = Proxy::start(self.server.endpoint());
        self.record_probes(proxy.endpoint());
        let place = Self {
            endpoint: proxy.endpoint().into(),
            ..self.clone()
        };
        (proxy, place)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        self.server
    }

    /// How a program is told to use it: with the default policy, but no wait between attempts that
    /// a test would notice.
    pub fn config(&self) -> StorageConfig {
        let mut retry = Retry::default();
        retry.first_wait = Duration::from_millis(2);
        retry.longest_wait = Duration::from_millis(20);
        let facts = self.server.facts();
        StorageConfig {
            s3_endpoint: Some(self.endpoint.clone()),
            s3_prefix: Some(self.prefix.clone()),
            s3_credentials: Some(S3Credentials::new(
                facts.access_key.clone(),
                facts.secret_key.clone(),
            )),
            retry,
            ..StorageConfig::s3_with_bucket_and_region(self.bucket.clone(), "us-east-1".into())
        }
    }

    /// The storage.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.config().build().expect("a storage")
    }

    /// The scope of an agent called `bot`, as a process sees it that was just started.
    pub fn scope(&self) -> Scope {
        Store::new(self.storage())
            .scope("bot", None)
            .expect("a name")
    }

    /// Returns the URL of the place on a command line.
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    /// The `persist` command here, where a store is made if it is missing, with nothing else in its
    /// environment.
    pub fn persist(&self) -> Command {
        // Not through a proxy, which counts what the command sends.
        let direct = Self {
            endpoint: self.server.endpoint().into(),
            ..self.clone()
        };
        crate::init(direct.storage());
        self.persist_without_store()
    }

    /// The `persist` command here, whatever is there.
    pub fn persist_without_store(&self) -> Command {
        let mut command = crate::persist(Path::new(""));
        command
            .env_remove("PERSIST_LOCAL_PATH")
            .env("PERSIST_STORAGE", self.url())
            .envs(self.server.environment(&self.endpoint));
        command
    }
}
