//! Objects of a bucket on Google Cloud Storage.
//!
//! `create` is an upload with `ifGenerationMatch=0`: GCS makes the object whole, on several disks,
//! before it answers, and lets one of two callers win. A server without that condition is refused
//! before the first save. Where an attempt had no answer, an acknowledgement of the next one is
//! verified with an objects.get.
//!
//! # Requests
//! | call | requests |
//! |---|---|
//! | `create` of at most 8 MiB | objects.insert |
//! | `create` of more, `upload` | objects.insert (begins a resumable upload), then one for each 8 MiB; on a server that is not Google's also an objects.get, and before the first one of a store some 150 requests, which probe it |
//! | `read` | objects.get; of more than 8 MiB, one for each 8 MiB, four at a time |
//! | `list` | objects.list for each 1000 entries |
//! | `delete` | objects.delete |
//! | [`Gcs::bucket_is_there`] | buckets.get |
//!
//! Permissions: `storage.objects.create`, `.get`, `.list` and `.delete` on the bucket.
//! `storage.buckets.get` is for [`Gcs::bucket_is_there`] alone, which does without, too.
//!
//! # What the crate does, and what it does not
//! google-cloud-storage makes the objects of one request, with its retries off, and
//! google-cloud-auth makes the credentials of all requests. The rest is asked of the JSON API
//! directly:
//! - Lists and deletions: the crate has them over gRPC only, on which no server but Google's can be
//!   tested.
//! - Resumable uploads: the crate runs all requests of one in a loop of its own, which has no time
//!   limit for an attempt and does not say which request stayed unanswered. That is the difference
//!   between *not done* and *unknown*.
//! - Reads: the crate hands on no `Content-Range`, and so no size where a server leaves out a
//!   header of Google's own.
//!
//! # What deleting means
//! GCS keeps what was deleted as long as the bucket's soft delete or versioning says. A store needs
//! neither, and no lifecycle rule other than one that aborts incomplete multipart uploads. A
//! resumable upload that was not completed is forgotten within a week.

mod credentials;
mod driver;
mod error_response;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::Credentials;
use google_cloud_gax::retry_policy::NeverRetry;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, redirect};
use tokio::sync::OnceCell;

use super::bucket::{
    Attempt, AttemptError, Bucket, ErrorResponse, MAX_ANSWER, RetryDecision, Stored, innermost,
    unlogged,
};
use super::{Endpoint, Environment, Error, ErrorKind, Result, StorageConfig};
use credentials::{Account, Source};
use error_response::Operation;
use settings::Settings;

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Keeps objects in a bucket. Clones share its connections.
///
/// ```no_run
/// # async fn large() -> Result<(), Box<dyn std::error::Error>> {
/// use persist_host::snapshot::Adapter;
/// use persist_host::storage::StorageConfig;
/// use tokio::fs::File;
///
/// let config = StorageConfig::gcs_with_bucket("my-snapshots-bucket".to_string());
/// let gcs_adapter = Adapter::new(config.build()?);
/// let file = File::open("large_snapshot.json").await?;
/// gcs_adapter.save_stream(file, "agent1/large_snapshot.json.gz").await?;
///
/// // Stream reading
/// let stream = gcs_adapter.load_stream("agent1/large_snapshot.json.gz").await?;
/// # Ok(())
/// # }
/// ```
pub type Gcs = Bucket<GcsDriver>;

impl Gcs {
    /// The bucket that `config` names. Nothing is asked yet, nor are credentials looked for.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting is missing or cannot work.
    pub fn new(config: &StorageConfig) -> Result<Self> {
        Self::with_environment(config, &Environment::current())
    }

    /// Returns the storage of `config`, completed from `environment`.
    pub(super) fn with_environment(
        config: &StorageConfig,
        environment: &Environment,
    ) -> Result<Self> {
        Ok(Self::with_driver(GcsDriver::new(config, environment)?))
    }

    /// Returns true if the bucket is known to exist: a check before the first save, which no call
    /// needs. Returns false if the account may not ask (`storage.buckets.get`), which is no
    /// failure.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is no such bucket; [`ErrorKind::Unauthenticated`]; others
    /// as for any call.
    pub async fn bucket_is_there(&self) -> Result<bool> {
        let driver = self.driver();
        let url = driver.url("/storage/v1/b/", "?fields=name");
        let ask = || async {
            let request = driver.request(Method::GET, &url);
            driver.send(Operation::BUCKET, request).await
        };
        match self.ask(Operation::BUCKET.name, ask).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The requests of GCS.
#[derive(Debug)]
pub struct GcsDriver {
    settings: Settings,
    credentials: Arc<Source>,
    /// Of the JSON API.
    http: reqwest::Client,
    /// Made when first needed: that waits.
    crates: OnceCell<google_cloud_storage::client::Storage>,
}

impl GcsDriver {
    fn new(config: &StorageConfig, environment: &Environment) -> Result<Self> {
        let env = |name: &str| environment.get(name).map(ToOwned::to_owned);
        let settings = Settings::new(config, env)?;
        let http = reqwest::Client::builder()
            // 308 is an answer, and credentials go nowhere else.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .user_agent(concat!("persist/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let what = format!("cannot create an HTTP client: {}", innermost(&error));
                let hint = "if CA certificates are missing, set SSL_CERT_FILE to a file with them";
                Error::new(ErrorKind::Config, what).with_hint(hint)
            })?;
        Ok(Self {
            credentials: Arc::new(Source::new(settings.account.clone(), environment)),
            http,
            crates: OnceCell::new(),
            settings,
        })
    }

    /// The URL of the bucket, below `path`, with `rest` after it.
    fn url(&self, path: &str, rest: &str) -> String {
        let endpoint = &self.settings.common.server;
        let bucket = &self.settings.common.bucket;
        format!("{endpoint}{path}{bucket}{rest}")
    }

    /// The URL of an object.
    fn object_url(&self, key: &str, query: &str) -> String {
        self.url("/storage/v1/b/", &format!("/o/{}{query}", encode(key)))
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Says why no credentials were sent, where none were.
    fn no_credentials_hint(&self) -> Option<String> {
        let endpoint = Endpoint::parse(&self.settings.common.server)?;
        (self.settings.account == Account::Anonymous).then(|| {
            format!(
                "no credentials are bound to {endpoint}, so none were sent; to bind some, write \
                 gcs_credentials = \"FILE\" under [endpoints.\"{endpoint}\"] in persist.toml"
            )
        })
    }

    /// Returns the error of a response.
    fn refused(&self, operation: Operation, response: &ErrorResponse) -> AttemptError {
        let mut refused = error_response::refused(operation, response);
        if refused.error.kind() == ErrorKind::Unauthenticated
            && let Some(hint) = self.no_credentials_hint()
        {
            refused.error = refused.error.with_hint(hint);
        }
        refused
    }

    /// Sends a request of the JSON API, and returns an answer that says yes.
    async fn send(&self, operation: Operation, request: RequestBuilder) -> Attempt<Response> {
        match self.answer(operation, request).await? {
            (response, None) => Ok(response),
            (_, Some(refusal)) => Err(self.refused(operation, &refusal)),
        }
    }

    /// Sends a request of the JSON API. Its answer, and why it is not yes.
    async fn answer(
        &self,
        operation: Operation,
        request: RequestBuilder,
    ) -> Attempt<(Response, Option<ErrorResponse>)> {
        let headers = self.credentials.headers().await?;
        let mut response = unlogged(request.headers(headers).send())
            .await
            .map_err(|error| error_response::broken_request(operation, &error))?;
        if response.status().is_success() {
            return Ok((response, None));
        }
        let body = small(&mut response).await;
        let status = response.status().as_u16();
        let refusal = error_response::response(status, response.headers(), &body);
        tracing::debug!(
            call = operation.name,
            status,
            said = %String::from_utf8_lossy(&body),
            "GCS refused a call"
        );
        Ok((response, Some(refusal)))
    }

    /// The crate's client.
    async fn crates(&self) -> Attempt<&google_cloud_storage::client::Storage> {
        let build = || async {
            let provider = credentials::Provider(Arc::clone(&self.credentials));
            let mut builder = google_cloud_storage::client::Storage::builder()
                .with_credentials(Credentials::from(provider))
                .with_retry_policy(NeverRetry)
                .with_grpc_subchannel_count(1_usize);
            if let Some(endpoint) = &self.settings.common.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            builder.build().await
        };
        let built = unlogged(self.crates.get_or_try_init(build)).await;
        built.map_err(|error| {
            let what = format!("cannot create a client for GCS: {}", innermost(&error));
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        })
    }

    /// Returns the object that GCS says it made; `confirmed` is the key that encrypts it.
    fn stored(&self, confirmed: &str) -> Stored {
        let Some(asked) = &self.settings.kms_key else {
            return Stored::default();
        };
        // GCS says which version of the key it used.
        let rest = confirmed.strip_prefix(asked.as_str());
        Stored {
            encryption_confirmed: rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// The first of a body that only explains; what cannot be read explains nothing.
async fn small(response: &mut Response) -> Vec<u8> {
    const ENOUGH: usize = 64 << 10;
    let mut body = Vec::new();
    while body.len() < ENOUGH
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body
}

/// Reads a body as a whole, up to [`MAX_ANSWER`].
///
/// # Errors
/// The reason, as the end of a sentence.
async fn whole(mut response: Response) -> std::result::Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return Err(format!("is longer than {} MiB", MAX_ANSWER >> 20)),
            Ok(None) => return Ok(body),
            Err(error) => return Err(format!("was cut short: {}", innermost(&error))),
        }
    }
}

/// A key or a word as it may stand in a URL.
fn encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}
