//! Places on servers of object storage, whichever they are: what all backends promise is tested on
//! all.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use persist_host::conformance;
use persist_host::snapshot::Scope;
use persist_host::storage::probe::Way;
use persist_host::storage::{Storage, StorageConfig};
use persist_servers::{Kind, Proxy, Reply, Seen};

use crate::{gcs, s3};

/// Records in a place that a server was probed in these ways, without probing it. It may be called
/// in a runtime.
pub(crate) fn record_probes(storage: Arc<dyn Storage>, server: &str, ways: &[Way]) {
    let server = server.to_owned();
    let ways = ways.to_vec();
    let recorded = std::thread::spawn(move || {
        crate::block_on(async {
            for way in ways {
                let recorded = conformance::record_probe(&*storage, &server, way).await;
                recorded.expect("records");
            }
        });
    });
    recorded.join().expect("no panic");
}

/// One server for each backend.
pub const BACKENDS: [Kind; 2] = [Kind::SeaweedFs, Kind::FakeGcs];

/// A prefix in a bucket of a server that all tests share.
#[derive(Clone, Debug)]
pub enum Place {
    S3(s3::Place),
    Gcs(gcs::Place),
}

impl Place {
    /// A new place on a server.
    pub fn on(kind: Kind) -> Self {
        match kind {
            Kind::FakeGcs => Self::Gcs(gcs::Place::new()),
            kind => Self::S3(s3::Place::on(kind)),
        }
    }

    /// Returns the place with records that its server was probed, for tests of as many places as
    /// the probes would take most of the time.
    #[must_use]
    pub fn unprobed(self) -> Self {
        match self {
            Self::S3(place) => Self::S3(place.unprobed()),
            Self::Gcs(place) => Self::Gcs(place.unprobed()),
        }
    }

    /// Starts a proxy and returns it with this place, accessed through the proxy.
    pub fn proxied(&self) -> (Proxy, Self) {
        match self {
            Self::S3(place) => {
                let (proxy, place) = place.proxied();
                (proxy, Self::S3(place))
            }
            Self::Gcs(place) => {
                let (proxy, place) = place.proxied();
                (proxy, Self::Gcs(place))
            }
        }
    }

    /// How a program is told to use it.
    pub fn config(&self) -> StorageConfig {
        match self {
            Self::S3(place) => place.config(),
            Self::Gcs(place) => place.config(),
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

    /// The storage.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.config().build().expect("a storage")
    }

    /// The scope of an agent called `bot`, as a process sees it that was just started.
    pub fn scope(&self) -> Scope {
        crate::scope(self.storage())
    }

    /// Returns the URL of the place on a command line.
    pub fn url(&self) -> String {
        match self {
            Self::S3(place) => place.url(),
            Self::Gcs(place) => place.url(),
        }
    }

    /// The `persist` command here, where a store is made if it is missing, with nothing else in its
    /// environment.
    pub fn persist(&self) -> Command {
        match self {
            Self::S3(place) => place.persist(),
            Self::Gcs(place) => place.persist(),
        }
    }

    /// The `persist` command here, whatever is there.
    pub fn persist_without_store(&self) -> Command {
        match self {
            Self::S3(place) => place.persist_without_store(),
            Self::Gcs(place) => place.persist_without_store(),
        }
    }

    /// Returns true if a request reads an object.
    pub fn reads(&self, seen: &Seen) -> bool {
        match self {
            Self::S3(_) => seen.operation() == "GetObject",
            Self::Gcs(_) => gcs::operation(seen) == "get",
        }
    }

    /// Returns true if a request sends part of an upload, except an upload that only probes the
    /// server.
    pub fn sends_part(&self, seen: &Seen) -> bool {
        match self {
            Self::S3(_) => seen.operation() == "UploadPart" && !is_trial(seen),
            Self::Gcs(_) => gcs::operation(seen) == "part",
        }
    }

    /// Returns true if a request aborts an upload.
    pub fn aborts(&self, seen: &Seen) -> bool {
        match self {
            Self::S3(_) => seen.operation() == "AbortMultipartUpload" && !is_trial(seen),
            Self::Gcs(_) => gcs::operation(seen) == "cancel",
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
        match self {
            Self::S3(_) => Reply::s3(status, code),
            Self::Gcs(_) => gcs::refusal(status, reason),
        }
    }
}

/// Returns true if a request is about an object that only probes the server.
pub fn is_trial(seen: &Seen) -> bool {
    seen.uri.to_string().contains("probe-")
}
