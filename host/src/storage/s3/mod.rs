//! Objects of a bucket on Amazon S3, or on a server that speaks as it does.
//!
//! `create` is a PutObject with `If-None-Match: *`, or a multipart upload whose completion has it:
//! S3 makes the object whole, on several disks, before it answers, and lets one of two callers win.
//! A server without that condition is refused before the first save. Where an attempt had no
//! answer, an acknowledgement of the next one is verified with a GetObject.
//!
//! # Requests
//! | call | requests |
//! |---|---|
//! | `create` of at most one part (8 MiB) | PutObject |
//! | `create` of more, `upload` | CreateMultipartUpload, UploadPart for each part, CompleteMultipartUpload; on a server that is not Amazon's also GetObject, and before the first one of a store some 200 requests, which probe it |
//! | `read` | GetObject; of more than 8 MiB, one for each 8 MiB, four at a time |
//! | `list` | ListObjectsV2 for each 1000 entries |
//! | `delete` | DeleteObject |
//! | `sweep` | ListMultipartUploads for each 1000 uploads, AbortMultipartUpload for each that is removed |
//!
//! There is no HeadObject. Permissions: `s3:GetObject`, `s3:PutObject`, `s3:DeleteObject` on the
//! objects, `s3:ListBucket` on the bucket; `s3:AbortMultipartUpload`, where it is given, cleans up
//! after uploads that failed. `s3:ListBucketMultipartUploads` on the bucket finds those whose
//! process died, and only `sweep` needs it.
//!
//! # What deleting means
//! In a bucket with versioning, S3 keeps what was deleted as a noncurrent version, until a
//! lifecycle rule of the bucket removes it. A store needs no versioning, and no other lifecycle
//! rule than one that aborts incomplete multipart uploads.
//!
//! # Logs
//! What the SDK logs holds headers and bodies, so its calls are made without a subscriber.

mod body;
mod credentials;
mod error_response;
mod list;
mod profiles;
mod read;
mod response_meta;
mod settings;
mod sweep;
mod upload;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::bucket::{self, BackgroundTasks, Tail, content_type, innermost, unlogged};
use super::retry::{Attempt, AttemptError, Call, Counts, Retrier, RetryDecision, RetryLoop};
use super::{
    Endpoint, Environment, Error, ErrorKind, Key, List, Page, Part, ReadRange, RecursiveList,
    RecursivePage, Result, S3Encryption, Storage, StorageConfig, StorageIdentity, Sweep, Swept,
    Upload,
};
use credentials::Source;
use error_response::fault;
use read::S3Object;
use response_meta::ResponseInterceptor;
use settings::Settings;
use upload::S3Upload;

/// Keeps objects in a bucket. Clones share its connections.
#[derive(Clone, Debug)]
pub struct S3 {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    settings: Settings,
    credentials: Arc<Source>,
    retrier: Retrier,
    /// Set once an object was looked at whose encryption was not confirmed when it was made.
    encryption_checked: AtomicBool,
    /// Set once it was said that uploads may not be aborted.
    litter: AtomicBool,
    /// Uploads that are being aborted.
    background: BackgroundTasks,
    /// Set once it is known that one of several uploads in parts that race is acknowledged.
    uploads_probed: OnceCell<()>,
}

/// A call of S3, as its manual names it.
#[derive(Debug)]
struct Operation {
    name: &'static str,
    /// Permission that the account needs for the operation.
    permission: &'static str,
    /// True if the operation changes what can be seen.
    change: bool,
}

const PUT: Operation = Operation {
    name: "PutObject",
    permission: "s3:PutObject on the objects of the bucket",
    change: true,
};

const DELETE: Operation = Operation {
    name: "DeleteObject",
    permission: "s3:DeleteObject on the objects of the bucket",
    change: true,
};

/// Name of the server if no endpoint is set.
const AMAZON: &str = "Amazon S3";

/// Mode of a write: it says if an object may exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Replace,
}

impl Mode {
    /// The value of `If-None-Match`.
    fn condition(self) -> Option<String> {
        (self == Self::Create).then(|| "*".into())
    }
}

impl S3 {
    /// The bucket that `config` names. Nothing is asked yet, nor are credentials looked for.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) where a setting is missing or cannot work.
    pub fn new(config: &StorageConfig) -> Result<Self> {
        Self::with_environment(config, &Environment::current())
    }

    /// Returns the storage of `config`, completed from `environment`.
    pub(super) fn with_environment(
        config: &StorageConfig,
        environment: &Environment,
    ) -> Result<Self> {
        let env = |name: &str| environment.get(name).map(ToOwned::to_owned);
        let settings = Settings::new(config, env, profiles::load)?;
        check_certificates(settings.endpoint.as_deref(), environment)?;
        let region = Region::new(settings.region.clone());
        let credentials = Arc::new(Source::new(&settings, region.clone()));
        let mut sdk = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region)
            .credentials_provider(credentials::Provider(Arc::clone(&credentials)))
            // They are kept by us, who know when they were refused.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Part of an object has no checksum, and some servers send that of the whole. We verify
            // what we read ourselves.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(settings.path_style)
            .interceptor(body::LimitAnswers);
        sdk.set_endpoint_url(settings.endpoint.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                client: Client::from_conf(sdk.build()),
                credentials,
                retrier: Retrier::new(settings.retry),
                settings,
                encryption_checked: AtomicBool::new(false),
                litter: AtomicBool::new(false),
                background: BackgroundTasks::default(),
                uploads_probed: OnceCell::new(),
            }),
        })
    }

    /// Returns the counts of what was sent since this was made, by all clones.
    pub fn counts(&self) -> Counts {
        self.shared.retrier.counts()
    }

    fn client(&self) -> &Client {
        &self.shared.client
    }

    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The key in the bucket.
    fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.settings().prefix)
    }

    /// Begins a call about `key` that sends `body` bytes.
    fn begin<'a>(&'a self, operation: &Operation, key: &'a str, body: usize) -> RetryLoop<'a> {
        self.shared.retrier.begin(Call {
            name: operation.name,
            key,
            change: operation.change,
            body,
            server: self.settings().endpoint.as_deref().unwrap_or(AMAZON),
        })
    }

    /// Makes an attempt, with credentials.
    async fn attempt<T>(
        &self,
        tries: &mut RetryLoop<'_>,
        send: impl Future<Output = Attempt<T>> + Send,
    ) -> Attempt<T> {
        self.shared.credentials.ready().await?;
        match tries.attempt(send).await {
            Err(mut fault) if fault.next == RetryDecision::RefreshCredentials => {
                fault.next = if self.shared.credentials.renew().await {
                    RetryDecision::RetryOnce
                } else {
                    RetryDecision::Stop
                };
                Err(fault)
            }
            answer => answer,
        }
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

    /// Makes a call as [`S3::call`] does. Returns true beside the answer where an attempt before
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

    /// Makes an object in one request.
    async fn put(&self, key: &Key, body: Bytes, mode: Mode) -> Result<()> {
        let full = &self.full(key);
        let body = &body;
        let put = || async move {
            let (encryption, kms_key) = self.encryption();
            let put = self
                .client()
                .put_object()
                .bucket(&self.settings().bucket)
                .key(full)
                .set_if_none_match(mode.condition())
                .content_type(content_type(full))
                .set_bucket_key_enabled(kms_key.is_some().then_some(true))
                .set_server_side_encryption(encryption)
                .set_ssekms_key_id(kms_key)
                .body(ByteStream::from(body.clone()));
            let answer = unlogged(put.send())
                .await
                .map_err(|error| fault(&PUT, &error))?;
            require_e_tag(&PUT, answer.e_tag.as_deref())?;
            Ok(answer.server_side_encryption)
        };
        let (encryption, unclear) = self.call_change(&PUT, full, body.len(), put).await?;
        if unclear && mode == Mode::Create {
            bucket::confirm(self, key, &Tail::of(body)).await?;
        }
        self.check_encryption(full, encryption).await;
        Ok(())
    }

    async fn begin_upload(&self, key: &Key, mode: Mode) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::new(self, key, mode)))
    }

    /// Returns the encryption to ask for, and the key of KMS.
    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings().encryption {
            S3Encryption::Bucket => (None, None),
            S3Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
            S3Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), Some(key.clone())),
        }
    }

    /// Some servers take the header and ignore it. Others say nothing when an object is made, as
    /// SeaweedFS of one that comes in parts, and tell of its encryption when it is read: so that is
    /// looked at, once, before an operator is alarmed.
    async fn check_encryption(&self, full: &str, confirmed: Option<ServerSideEncryption>) {
        let (asked, _) = self.encryption();
        if asked.is_none()
            || asked == confirmed
            || self.shared.encryption_checked.swap(true, Ordering::Relaxed)
        {
            return;
        }
        match read::encryption(self, full).await {
            Ok(found) if found == asked => {}
            Ok(_) => {
                tracing::warn!("the server does not encrypt objects as requested");
            }
            Err(error) => {
                tracing::debug!(key = full, %error, "the encryption of an object is not known");
                tracing::warn!("the server does not confirm the requested encryption");
            }
        }
    }
}

#[async_trait]
impl Storage for S3 {
    fn location(&self) -> String {
        let settings = self.settings();
        let endpoint = settings.endpoint.as_deref();
        bucket::location("s3", &settings.bucket, &settings.prefix, endpoint)
    }

    fn identity(&self) -> StorageIdentity {
        let Settings {
            endpoint,
            region,
            bucket,
            prefix,
            ..
        } = self.settings();
        StorageIdentity::bucket(endpoint.as_deref(), region, bucket, prefix)
    }

    fn unknown_server(&self) -> Option<String> {
        let endpoint = self.settings().endpoint.as_deref()?;
        let is_amazon = Endpoint::parse(endpoint).is_some_and(|endpoint| endpoint.is_amazon());
        (!is_amazon).then(|| endpoint.into())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if body.iter().map(Bytes::len).sum::<usize>() <= self.settings().part {
            return self.put(key, bucket::join(body), Mode::Create).await;
        }
        let mut upload = Box::new(S3Upload::new(self, key, Mode::Create));
        for piece in body {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin_upload(key, Mode::Create).await
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::in_parts(self, key, body).await?))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin_upload(key, Mode::Replace).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let s3 = self.clone();
        let full = self.full(key);
        bucket::read::read(&S3Object { s3, full }, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        list::page(self, list).await
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        list::recursive_page(self, list).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let full = &self.full(key);
        let delete = || async move {
            let delete = self
                .client()
                .delete_object()
                .bucket(&self.settings().bucket)
                .key(full);
            let interceptor = ResponseInterceptor::default();
            let delete = delete.customize().interceptor(interceptor.clone());
            match unlogged(delete.send()).await {
                Ok(_) => interceptor.require_empty(&DELETE),
                // S3 answers 204 where nothing is; others say so.
                Err(error) if error_code(&error) == Some("NoSuchKey") => Ok(()),
                Err(error) => Err(fault(&DELETE, &error)),
            }
        };
        self.call(&DELETE, full, 0, delete).await
    }

    /// Uploads below the prefix that were begun so long ago, by any process: S3 does not tell
    /// whether a process is at work.
    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        sweep::sweep(self, sweep).await
    }

    async fn wait_idle(&self) {
        self.shared.background.wait_idle().await;
    }
}

/// Requires the ETag of what S3 says it stored. The login page of a network and an intermediary
/// that answers for S3 have none, and nothing is stored.
///
/// # Errors
/// An unclear attempt where it is missing or empty.
fn require_e_tag(operation: &Operation, e_tag: Option<&str>) -> Attempt<()> {
    if e_tag.is_some_and(|tag| !tag.is_empty()) {
        return Ok(());
    }
    let error = bucket::another_service(operation.name, "S3");
    Err(AttemptError::unclear(error))
}

/// Makes sure that a server can be trusted at all: without a CA certificate, no connection through
/// TLS succeeds, and a debug build of the SDK panics, even where none is needed.
fn check_certificates(endpoint: Option<&str>, environment: &Environment) -> Result<()> {
    static COUNT: OnceLock<usize> = OnceLock::new();
    let is_set = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .any(|name| environment.get(name).is_some());
    let is_needed = endpoint.is_none_or(|endpoint| !endpoint.starts_with("http://"));
    let count = || rustls_native_certs::load_native_certs().certs.len();
    if !(is_set || is_needed) || *COUNT.get_or_init(count) > 0 {
        return Ok(());
    }
    let what = "no CA certificate could be loaded, so no server can be trusted";
    Err(Error::new(ErrorKind::Config, what).with_hint(
        "install ca-certificates, or set SSL_CERT_FILE to a file of CA certificates in PEM",
    ))
}

fn error_code<E, R>(error: &aws_sdk_s3::error::SdkError<E, R>) -> Option<&str>
where
    E: aws_sdk_s3::error::ProvideErrorMetadata,
{
    error.as_service_error()?.code()
}

/// A date as HTTP has them.
fn http_date(text: &str) -> Option<SystemTime> {
    let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
    SystemTime::try_from(date).ok()
}
