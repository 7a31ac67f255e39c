//! Clients of one server: Persist and object_store, and what the command `aws` needs to know.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::path::Path as ObjectPath;
use object_store::{
    ClientOptions, HeaderValue, ObjectStore, ObjectStoreExt as _, StaticCredentialProvider,
};
use persist_host::conformance;
use persist_host::snapshot::{Scope, Store};
use persist_host::storage::probe::Way;
use persist_host::storage::{S3Credentials, Storage, StorageConfig};
use persist_servers::{Kind, Server};

use crate::relay::{Relay, Traffic};

/// Prefix of the store in the bucket, beside what object_store and `aws` put there.
const PREFIX: &str = "persist";

const REGION: &str = "us-east-1";

/// A way to a server, and clients that go it. Each has connections of its own.
pub(crate) struct Route {
    pub(crate) round_trip: Duration,
    pub(crate) endpoint: String,
    /// None: the server is asked directly.
    relay: Option<Relay>,
    pub(crate) scope: Scope,
    pub(crate) objects: Arc<dyn ObjectStore>,
}

impl Route {
    pub(crate) async fn open(server: &Server, kind: Kind, round_trip: Duration) -> Result<Self> {
        let relay = if round_trip.is_zero() {
            None
        } else {
            Some(Relay::start(server.endpoint(), round_trip)?)
        };
        let relayed = relay.as_ref().map(Relay::endpoint);
        let endpoint = relayed.unwrap_or_else(|| server.endpoint().to_owned());
        let storage = config(server, kind, &endpoint).build()?;
        record_probes(&*storage, &endpoint).await?;
        Ok(Self {
            round_trip,
            scope: Store::new(storage).scope("bench", None)?,
            objects: objects(server, kind, &endpoint)?,
            relay,
            endpoint,
        })
    }

    /// Connections and requests of the relay so far; none without a relay.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        self.relay.as_ref().map(Relay::traffic)
    }

    /// Returns the bytes that Persist stored of a version, whichever it is.
    pub(crate) async fn stored(&self, name: &str) -> Result<Bytes> {
        let place = ObjectPath::from_iter([PREFIX, "bench"]);
        let mut all = self.objects.list(Some(&place));
        while let Some(found) = all.try_next().await? {
            let is_version = found
                .location
                .filename()
                .is_some_and(|n| n.ends_with(".gz"));
            if is_version && found.location.parts().any(|part| part.as_ref() == name) {
                return Ok(self.objects.get(&found.location).await?.bytes().await?);
            }
        }
        Err(anyhow!("no version of {name} is stored"))
    }
}

fn config(server: &Server, kind: Kind, endpoint: &str) -> StorageConfig {
    let facts = server.facts();
    let bucket = facts.bucket.clone();
    if kind == Kind::FakeGcs {
        return StorageConfig {
            gcs_endpoint: Some(endpoint.to_owned()),
            ..StorageConfig::gcs_with_bucket_prefix_and_credentials(bucket, PREFIX.into(), None)
        };
    }
    StorageConfig {
        s3_endpoint: Some(endpoint.to_owned()),
        s3_prefix: Some(PREFIX.into()),
        s3_credentials: Some(S3Credentials::new(
            facts.access_key.clone(),
            facts.secret_key.clone(),
        )),
        ..StorageConfig::s3_with_bucket_and_region(bucket, REGION.into())
    }
}

/// Records that the server was probed. SeaweedFS looks and then writes where it puts parts
/// together, so a store would refuse it for large states; here each name has one writer. On both
/// servers one of many small creates of a key wins.
async fn record_probes(storage: &dyn Storage, endpoint: &str) -> Result<()> {
    for way in [Way::Single, Way::Parts] {
        conformance::record_probe(storage, endpoint, way).await?;
    }
    Ok(())
}

fn objects(server: &Server, kind: Kind, endpoint: &str) -> Result<Arc<dyn ObjectStore>> {
    let facts = server.facts();
    if kind == Kind::FakeGcs {
        let no_token = GcpCredential {
            bearer: "none".into(),
        };
        let gcs = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&facts.bucket)
            .with_base_url(endpoint)
            // `with_skip_signature` does not count for puts: they ask Google for a token.
            .with_credentials(Arc::new(StaticCredentialProvider::new(no_token)))
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_http_connector(ForEmulator);
        return Ok(Arc::new(gcs.build()?));
    }
    let s3 = AmazonS3Builder::new()
        .with_bucket_name(&facts.bucket)
        .with_endpoint(endpoint)
        .with_region(REGION)
        .with_access_key_id(&facts.access_key)
        .with_secret_access_key(&facts.secret_key)
        .with_allow_http(true);
    Ok(Arc::new(s3.build()?))
}

/// Sends object_store's requests as fake-gcs-server knows them. It has no PUT of the XML API, so
/// a PUT is sent as an upload of the JSON API with the same condition and body: one request for
/// one. The server ignores the condition of such an upload, so a key must be new. It answers the
/// XML API at the name of Google's server only, and without some headers.
#[derive(Debug)]
struct ForEmulator;

impl HttpConnector for ForEmulator {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(EmulatorService(client)))
    }
}

#[derive(Debug)]
struct EmulatorService(HttpClient);

#[async_trait]
impl HttpService for EmulatorService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_put = request.method().as_str() == "PUT";
        if is_put && let Ok(upload) = upload_uri(&request) {
            *request.uri_mut() = upload;
            if let Ok(post) = "POST".parse() {
                *request.method_mut() = post;
            }
        }
        let google = HeaderValue::from_static("storage.googleapis.com");
        request.headers_mut().insert("host", google);
        let response = self.0.execute(request).await?;
        let (mut head, mut body) = response.into_parts();
        for (name, value) in [
            ("etag", "\"none\""),
            ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ] {
            let value = HeaderValue::from_static(value);
            head.headers.entry(name).or_insert(value);
        }
        if is_put && head.status.is_success() {
            // The answer of the XML API has no body, and its connection is used again.
            body.bytes().await?;
            body = Bytes::new().into();
        }
        Ok(HttpResponse::from_parts(head, body))
    }
}

/// Returns the address of an upload in the JSON API that creates what `request` would.
fn upload_uri<T: std::str::FromStr<Err: Into<anyhow::Error>>>(request: &HttpRequest) -> Result<T> {
    let uri = request.uri();
    let host = uri.authority().context("a host")?;
    let mut parts = uri.path().trim_start_matches('/').splitn(2, '/');
    let (bucket, key) = (parts.next(), parts.next());
    let (bucket, key) = (bucket.context("a bucket")?, key.context("a key")?);
    let mut upload =
        format!("http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}");
    if let Some(generation) = request.headers().get("x-goog-if-generation-match") {
        upload += &format!("&ifGenerationMatch={}", generation.to_str()?);
    }
    upload.parse().map_err(Into::into)
}
