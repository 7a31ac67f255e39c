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
mod error_response;
mod list;
mod read;
mod settings;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use google_cloud_auth::credentials::Credentials;
use google_cloud_gax::retry_policy::NeverRetry;
use reqwest::{Method, RequestBuilder, Response, redirect};
use tokio::sync::OnceCell;

use super::bucket::{self, BackgroundTasks, MAX_ANSWER, Tail, content_type, innermost, unlogged};
use super::retry::{Attempt, AttemptError, Call, Counts, Retrier, RetryDecision, RetryLoop};
use super::{
    Endpoint, Environment, Error, ErrorKind, Key, List, Page, Part, ReadRange, RecursiveList,
    RecursivePage, Result, Storage, StorageConfig, StorageIdentity, Upload,
};
use credentials::{Account, Source};
use error_response::{ErrorResponse, broken, damaged, fault};
use read::GcsObject;
use settings::{GOOGLE, Settings};
use upload::GcsUpload;

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
#[derive(Clone, Debug)]
pub struct Gcs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    credentials: Arc<Source>,
    /// Of the JSON API.
    http: reqwest::Client,
    /// Made when first needed: that waits.
    crates: OnceCell<google_cloud_storage::client::Storage>,
    retrier: Retrier,
    /// Set once it was said that the server did not confirm the key that it was asked to encrypt
    /// with.
    unencrypted: AtomicBool,
    /// Uploads that are being aborted.
    background: BackgroundTasks,
    /// Set once it is known that one of several resumable uploads that race is acknowledged.
    uploads_probed: OnceCell<()>,
}

/// A call of GCS, as its manual names it.
#[derive(Debug)]
struct Operation {
    name: &'static str,
    /// Permission that the account needs for the operation.
    permission: &'static str,
    /// True if the operation changes what can be seen.
    change: bool,
    /// True if nothing but the bucket can be missing.
    needs_bucket: bool,
}

const INSERT: Operation = Operation {
    name: "objects.insert",
    permission: "storage.objects.create, and to replace storage.objects.delete,",
    change: true,
    needs_bucket: true,
};

const DELETE: Operation = Operation {
    name: "objects.delete",
    permission: "storage.objects.delete",
    change: true,
    needs_bucket: false,
};

const BUCKET: Operation = Operation {
    name: "buckets.get",
    permission: "storage.buckets.get",
    change: false,
    needs_bucket: true,
};

/// Number of bytes that are sent in one request.
const PART: usize = 8 << 20;

/// Mode of a write: it says if an object may exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Replace,
}

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
        let env = |name: &str| environment.get(name).map(ToOwned::to_owned);
        let settings = Settings::new(config, env)?;
        let http = reqwest::Client::builder()
            // 308 is an answer, and credentials go nowhere else.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("persist/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                let what = format!("cannot create an HTTP client: {}", innermost(&error));
                let hint = "if CA certificates are missing, set SSL_CERT_FILE to a file with them";
                Error::new(ErrorKind::Config, what).with_hint(hint)
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                credentials: Arc::new(Source::new(settings.account.clone())),
                http,
                crates: OnceCell::new(),
                retrier: Retrier::new(settings.retry),
                settings,
                unencrypted: AtomicBool::new(false),
                background: BackgroundTasks::default(),
                uploads_probed: OnceCell::new(),
            }),
        })
    }

    /// Returns the counts of what was sent since this was made, by all clones.
    pub fn counts(&self) -> Counts {
        self.shared.retrier.counts()
    }

    /// Returns true if the bucket is known to exist: a check before the first save, which no call
    /// needs. Returns false if the account may not ask (`storage.buckets.get`), which is no
    /// failure.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is no such bucket; [`ErrorKind::Unauthenticated`]; others
    /// as for any call.
    pub async fn bucket_is_there(&self) -> Result<bool> {
        let url = self.url("/storage/v1/b/", "?fields=name");
        let ask = || async { self.send(&BUCKET, self.request(Method::GET, &url)).await };
        match self.call(&BUCKET, "", 0, ask).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The key in the bucket.
    fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.settings().prefix)
    }

    /// The URL of the bucket, below `path`, with `rest` after it.
    fn url(&self, path: &str, rest: &str) -> String {
        let Settings {
            endpoint, bucket, ..
        } = self.settings();
        format!("{endpoint}{path}{bucket}{rest}")
    }

    /// The URL of an object.
    fn object_url(&self, full: &str, query: &str) -> String {
        self.url("/storage/v1/b/", &format!("/o/{}{query}", encode(full)))
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.shared.http.request(method, url)
    }

    /// Begins a call about `key` that sends `body` bytes.
    fn begin<'a>(&'a self, operation: &Operation, key: &'a str, body: usize) -> RetryLoop<'a> {
        self.shared.retrier.begin(Call {
            name: operation.name,
            key,
            change: operation.change,
            body,
            server: &self.settings().endpoint,
        })
    }

    /// Makes an attempt, and looks for other credentials where these are refused.
    async fn attempt<T>(
        &self,
        tries: &mut RetryLoop<'_>,
        send: impl Future<Output = Attempt<T>> + Send,
    ) -> Attempt<T> {
        // So that a call that has none says so, and says that nothing was sent.
        self.shared.credentials.headers().await?;
        match tries.attempt(send).await {
            Err(mut fault) if fault.next == RetryDecision::RefreshCredentials => {
                fault.next = if self.shared.credentials.renew().await {
                    RetryDecision::RetryOnce
                } else {
                    RetryDecision::Stop
                };
                if fault.error.kind() == ErrorKind::Unauthenticated
                    && let Some(hint) = self.no_credentials_hint()
                {
                    fault.error = fault.error.with_hint(hint);
                }
                Err(fault)
            }
            answer => answer,
        }
    }

    /// Says why no credentials were sent, where none were.
    fn no_credentials_hint(&self) -> Option<String> {
        let settings = self.settings();
        let endpoint = Endpoint::parse(&settings.endpoint)?;
        (settings.account == Account::Anonymous).then(|| {
            format!(
                "no credentials are bound to {endpoint}, so none were sent; to bind some, write \
                 gcs_credentials = \"FILE\" under [endpoints.\"{endpoint}\"] in persist.toml"
            )
        })
    }

    /// Makes a call, as often as it takes.
    async fn call<T, F>(
        &self,
        operation: &Operation,
        key: &str,
        body: usize,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        let (answer, _) = self.call_change(operation, key, body, send).await?;
        Ok(answer)
    }

    /// Makes a call as [`Gcs::call`] does. Returns true beside the answer where an attempt before
    /// had none.
    async fn call_change<T, F>(
        &self,
        operation: &Operation,
        key: &str,
        body: usize,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<(T, bool)>
    where
        F: Future<Output = Attempt<T>> + Send,
    {
        let mut tries = self.begin(operation, key, body);
        loop {
            match self.attempt(&mut tries, send()).await {
                Ok(answer) => return Ok((answer, tries.is_unclear())),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// Sends a request of the JSON API, and returns an answer that says yes.
    async fn send(&self, operation: &Operation, request: RequestBuilder) -> Attempt<Response> {
        match self.answer(operation, request).await? {
            (response, None) => Ok(response),
            (_, Some(refusal)) => Err(refusal.fault(operation)),
        }
    }

    /// Sends a request of the JSON API. Its answer, and why it is not yes.
    async fn answer(
        &self,
        operation: &Operation,
        request: RequestBuilder,
    ) -> Attempt<(Response, Option<ErrorResponse>)> {
        let headers = self.shared.credentials.headers().await?;
        let mut response = unlogged(request.headers(headers).send())
            .await
            .map_err(|error| broken(operation, &error))?;
        if response.status().is_success() {
            return Ok((response, None));
        }
        let body = small(&mut response).await;
        let status = response.status().as_u16();
        let refusal = ErrorResponse::new(status, response.headers(), &body);
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
            let provider = credentials::Provider(Arc::clone(&self.shared.credentials));
            let mut builder = google_cloud_storage::client::Storage::builder()
                .with_credentials(Credentials::from(provider))
                .with_retry_policy(NeverRetry)
                .with_grpc_subchannel_count(1_usize);
            let endpoint = &self.settings().endpoint;
            if endpoint != GOOGLE {
                builder = builder.with_endpoint(endpoint);
            }
            builder.build().await
        };
        let built = unlogged(self.shared.crates.get_or_try_init(build)).await;
        built.map_err(|error| {
            let what = format!("cannot create a client for GCS: {}", innermost(&error));
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        })
    }

    /// Makes an object in one request.
    async fn put(&self, key: &Key, body: Bytes, mode: Mode) -> Result<()> {
        let full = &self.full(key);
        let body = &body;
        let put = || self.insert(full, body.clone(), mode);
        let ((), unclear) = self.call_change(&INSERT, full, body.len(), put).await?;
        if unclear && mode == Mode::Create {
            bucket::confirm(self, key, &Tail::of(body)).await?;
        }
        Ok(())
    }

    async fn insert(&self, full: &str, body: Bytes, mode: Mode) -> Attempt<()> {
        let settings = self.settings();
        let bucket = format!("projects/_/buckets/{}", settings.bucket);
        let mut insert = self
            .crates()
            .await?
            .write_object(bucket, full, body)
            .set_content_type(content_type(full))
            .with_resumable_upload_threshold(usize::MAX);
        if mode == Mode::Create {
            insert = insert.set_if_generation_match(0);
        }
        if let Some(key) = &settings.kms_key {
            insert = insert.set_kms_key(key);
        }
        match unlogged(insert.send_buffered()).await {
            // GCS names the generation that it made.
            Ok(object) if object.generation <= 0 => {
                let error = bucket::another_service(INSERT.name, "GCS");
                Err(AttemptError::unclear(error))
            }
            Ok(object) => {
                self.check_encryption(&object.kms_key);
                Ok(())
            }
            Err(error) => match damaged(&error) {
                Some(generation) => Err(self.discard(&INSERT, full, generation).await),
                None => Err(fault(&INSERT, &error)),
            },
        }
    }

    /// Removes an object that was made of other bytes than were sent, before it is read as ours.
    async fn discard(&self, operation: &Operation, full: &str, generation: i64) -> AttemptError {
        let what = format!(
            "{}: GCS stored different bytes than were sent",
            operation.name
        );
        let error = Error::new(ErrorKind::Unavailable, what);
        let url = self.object_url(full, &format!("?ifGenerationMatch={generation}"));
        match self.send(&DELETE, self.request(Method::DELETE, &url)).await {
            Ok(_) => AttemptError::new(RetryDecision::Backoff(None), error),
            Err(_) => AttemptError {
                next: RetryDecision::Stop,
                ..AttemptError::unclear(error)
            },
        }
    }

    /// Some servers take the key and ignore it.
    fn check_encryption(&self, confirmed: &str) {
        let Some(asked) = &self.settings().kms_key else {
            return;
        };
        // GCS says which version of the key it used.
        let rest = confirmed.strip_prefix(asked.as_str());
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && !self.shared.unencrypted.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("the server does not confirm the requested encryption key");
        }
    }

    fn begin_upload(&self, key: &Key, mode: Mode) -> Box<GcsUpload> {
        Box::new(GcsUpload::new(self, key, mode))
    }
}

#[async_trait]
impl Storage for Gcs {
    fn location(&self) -> String {
        let settings = self.settings();
        let endpoint = Some(settings.endpoint.as_str()).filter(|endpoint| *endpoint != GOOGLE);
        bucket::location("gs", &settings.bucket, &settings.prefix, endpoint)
    }

    fn identity(&self) -> StorageIdentity {
        let settings = self.settings();
        let endpoint = Some(settings.endpoint.as_str());
        StorageIdentity::bucket(endpoint, "", &settings.bucket, &settings.prefix)
    }

    fn unknown_server(&self) -> Option<String> {
        let endpoint = &self.settings().endpoint;
        let is_google = Endpoint::parse(endpoint).is_some_and(|endpoint| endpoint.is_google());
        (!is_google).then(|| endpoint.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if body.iter().map(Bytes::len).sum::<usize>() <= PART {
            return self.put(key, bucket::join(body), Mode::Create).await;
        }
        let mut upload = self.begin_upload(key, Mode::Create);
        for piece in body {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(self.begin_upload(key, Mode::Create))
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        Ok(Box::new(GcsUpload::in_parts(self, key, body).await?))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(self.begin_upload(key, Mode::Replace))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let gcs = self.clone();
        let full = self.full(key);
        bucket::read::read(&GcsObject { gcs, full }, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        list::page(self, list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        list::recursive_page(self, list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let full = &self.full(key);
        let url = &self.object_url(full, "");
        let delete = || async move {
            let request = self.request(Method::DELETE, url);
            let (mut response, refusal) = self.answer(&DELETE, request).await?;
            match refusal {
                // It is removed already.
                Some(refusal) if refusal.status == 404 => Ok(()),
                Some(refusal) => Err(refusal.fault(&DELETE)),
                None if small(&mut response).await.is_empty() => Ok(()),
                None => {
                    let error = bucket::another_service(DELETE.name, "GCS");
                    Err(AttemptError::unclear(error))
                }
            }
        };
        self.call(&DELETE, full, 0, delete).await
    }

    async fn wait_idle(&self) {
        self.shared.background.wait_idle().await;
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
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into())
        } else {
            encoded += &format!("%{byte:02X}")
        }
    }
    encoded
}
