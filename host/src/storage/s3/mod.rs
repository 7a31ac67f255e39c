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
mod driver;
mod error_response;
mod http;
mod keys;
mod profiles;
mod response_meta;
mod settings;
mod shared_config;

use std::sync::{Arc, OnceLock};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};

use super::bucket::{Bucket, Request, innermost, unlogged};
use super::{Environment, Error, ErrorKind, Result, S3Checksums, StorageConfig};
use credentials::Source;
use http::Trust;
use settings::Settings;

/// Keeps objects in a bucket on Amazon S3, or on a server that speaks as it does. Clones share its
/// connections.
pub type S3 = Bucket<S3Driver>;

impl S3 {
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
        Ok(Self::with_driver(S3Driver::new(config, environment)?))
    }
}

/// The requests of S3.
#[derive(Debug)]
pub struct S3Driver {
    client: Client,
    settings: Settings,
    credentials: Arc<Source>,
}

impl S3Driver {
    fn new(config: &StorageConfig, environment: &Environment) -> Result<Self> {
        let env = |name: &str| environment.get(name).map(ToOwned::to_owned);
        let settings = Settings::new(config, env, || profiles::load(environment))?;
        let endpoint = settings.common.endpoint.clone();
        let trust = match &settings.shared.trust {
            Some(trust) => trust.clone(),
            None => {
                check_certificates(endpoint.as_deref(), environment)?;
                Trust::of_machine()
            }
        };
        let credentials = Arc::new(Source::new(&settings, environment, &trust)?);
        let shared = &settings.shared;
        let checksums = match settings.checksums {
            S3Checksums::WhenSupported => RequestChecksumCalculation::WhenSupported,
            S3Checksums::WhenRequired => RequestChecksumCalculation::WhenRequired,
        };
        let mut sdk = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(settings.region.clone()))
            .http_client(trust.client()?)
            .credentials_provider(credentials::Provider(Arc::clone(&credentials)))
            // They are kept by us, who know when they were refused.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Part of an object has no checksum, and some servers send that of the whole. We verify
            // what we read ourselves.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .request_checksum_calculation(checksums)
            .force_path_style(settings.path_style)
            .use_fips(shared.use_fips)
            .use_dual_stack(shared.use_dual_stack)
            .accelerate(shared.use_accelerate)
            .interceptor(body::LimitAnswers);
        sdk.set_endpoint_url(endpoint);
        sdk.set_app_name(shared.app_name.clone());
        Ok(Self {
            client: Client::from_conf(sdk.build()),
            settings,
            credentials,
        })
    }

    /// Name of the bucket.
    fn bucket(&self) -> &str {
        &self.settings.common.bucket
    }
}

/// The name of a request, as the manual of S3 has it.
fn name(request: Request) -> &'static str {
    match request {
        Request::Put => "PutObject",
        Request::Begin => "CreateMultipartUpload",
        Request::Part => "UploadPart",
        Request::Complete => "CompleteMultipartUpload",
        Request::Abort => "AbortMultipartUpload",
        Request::Get => "GetObject",
        Request::List => "ListObjectsV2",
        Request::ListUploads => "ListMultipartUploads",
        Request::Delete => "DeleteObject",
    }
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
