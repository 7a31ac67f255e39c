//! Which storage to use, as a program, the environment or a URL says it.

use std::env;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::names::{check_bucket, check_gcs_bucket, check_prefix};
use super::secret::{redact, secret_in};
use super::{Environment, Error, ErrorKind, Modes, Result, Retry, parse_mode};

/// A kind of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageBackend {
    /// Files under a directory of this machine.
    #[default]
    Local,
    /// Objects of a bucket on Amazon S3, or on a server that speaks as it does.
    S3,
    /// Objects of a bucket on Google Cloud Storage.
    Gcs,
}

/// Which storage to use, and how. No field needs a feature; [`StorageConfig::build`] does.
///
/// ```
/// use std::path::PathBuf;
/// use persist_host::storage::{StorageBackend, StorageConfig};
///
/// let config = StorageConfig::default_local();
/// // or with custom path
/// let config = StorageConfig {
///     backend: StorageBackend::Local,
///     local_base_path: Some(PathBuf::from("/custom/path/to/snapshots")),
///     ..Default::default()
/// };
///
/// let config = StorageConfig::s3_with_bucket("my-snapshots-bucket".to_string());
/// // or with region
/// let config = StorageConfig::s3_with_bucket_and_region(
///     "my-snapshots-bucket".to_string(),
///     "us-west-2".to_string()
/// );
///
/// // Basic configuration
/// let config = StorageConfig::gcs_with_bucket("my-snapshots-bucket".to_string());
///
/// // With service account credentials
/// let config = StorageConfig::gcs_with_bucket_and_credentials(
///     "my-snapshots-bucket".to_string(),
///     PathBuf::from("/path/to/service-account.json")
/// );
///
/// // With prefix for organization
/// let config = StorageConfig::gcs_with_bucket_prefix_and_credentials(
///     "my-snapshots-bucket".to_string(),
///     "snapshots/production".to_string(),
///     Some(PathBuf::from("/path/to/service-account.json"))
/// );
/// ```
///
/// # Where a setting comes from
/// The field, else the environment, else the default. [`StorageConfig::build`] takes the
/// environment of the process; [`StorageConfig::build_with`] takes an [`Environment`].
///
/// | field | environment | default |
/// |---|---|---|
/// | `local_base_path` | `PERSIST_LOCAL_PATH` | `persist` in the platform's data directory |
/// | `local_file_mode` | `PERSIST_FILE_MODE`, in octal | 0600, less what the umask takes |
/// | `local_dir_mode` | `PERSIST_DIR_MODE`, in octal | 0700, less what the umask takes |
/// | `s3_bucket` | `AWS_S3_BUCKET` | none: it must be said |
/// | `s3_region` | `AWS_REGION`, `AWS_DEFAULT_REGION`, `region` of the profile | `us-east-1` |
/// | `s3_endpoint` | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `endpoint_url` of the profile | Amazon's, of the region |
/// | `s3_allow_http` | `PERSIST_S3_ALLOW_HTTP` | none |
/// | `s3_path_style` | `PERSIST_S3_PATH_STYLE`, `addressing_style` of the profile | yes with an endpoint of one's own, else no |
/// | `s3_profile` | | see below |
/// | `s3_encryption` | `PERSIST_S3_ENCRYPTION`, `PERSIST_S3_KMS_KEY` | the bucket's own |
/// | `s3_checksums` | `AWS_REQUEST_CHECKSUM_CALCULATION`, `request_checksum_calculation` of the profile | with every object |
/// | `s3_credentials` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | see below |
/// | `gcs_bucket` | `PERSIST_GCS_BUCKET`, `GCS_BUCKET` | none: it must be said |
/// | `gcs_prefix` | `PERSIST_GCS_PREFIX` | none |
/// | `gcs_credentials` | `GOOGLE_APPLICATION_CREDENTIALS` | see below |
/// | `gcs_timeout` | `PERSIST_GCS_TIMEOUT`, in seconds | 10 seconds |
/// | `gcs_kms_key` | `PERSIST_GCS_KMS_KEY` | the bucket's own |
/// | `gcs_endpoint` | `STORAGE_EMULATOR_HOST` | Google's |
///
/// # Credentials for S3
/// Credentials that the config does not have are looked for, at the first call, in this order: the
/// environment; the profile files (`~/.aws/credentials` and `~/.aws/config`, `AWS_PROFILE`), with
/// roles that they assume; a web identity (`AWS_WEB_IDENTITY_TOKEN_FILE`, as on EKS); a container's
/// (`AWS_CONTAINER_CREDENTIALS_…_URI`, as on ECS and EKS); those of the EC2 machine. Profiles may
/// use single sign-on and `credential_process`. Not built in: `aws login`, and roles that need an
/// MFA code; `aws configure export-credentials` turns these into environment variables. They are
/// looked up again before they expire, and once where they are refused.
///
/// # Credentials for Google Cloud Storage
/// A file that the config or `GOOGLE_APPLICATION_CREDENTIALS` names: the key of a service account,
/// what `gcloud auth application-default login` writes, a workload identity, or an impersonated
/// account. Else application default credentials: gcloud's own file, then the metadata server of
/// GCE, GKE and Cloud Run. The only scope that is asked for is `devstorage.read_write`.
///
/// # Where credentials are sent
/// Credentials go to Amazon S3 or Google itself, through TLS. Any other endpoint is sent only those
/// that are named together with it:
///
/// | endpoint | AWS keys that it is sent | Google credentials that it is sent |
/// |---|---|---|
/// | a field of the config | `s3_credentials` or `s3_profile` of the same config | `gcs_credentials` of the same config |
/// | of a URL (`endpoint_from_url`) | those of a profile that names this endpoint | none |
/// | of the environment | those of the environment, or of `AWS_PROFILE` | none |
/// | `endpoint_url` of a profile | those of the profile | |
/// | on this machine (loopback) | any | as above |
///
/// Through plain HTTP, AWS keys are sent to loopback and to the server that `s3_allow_http` names,
/// Google's credentials to loopback alone. An S3 endpoint that may be sent no keys is an error of
/// [`StorageConfig::build`]; a Google endpoint is asked without credentials. Redirects are not
/// followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// The kind of storage.
    pub backend: StorageBackend,
    /// The directory of [`StorageBackend::Local`]. None: `PERSIST_LOCAL_PATH`, and where that is
    /// not set, `persist` in the platform's data directory (on Linux `~/.local/share/persist`).
    pub local_base_path: Option<PathBuf>,
    /// Permissions of new files of [`StorageBackend::Local`]; see [`Modes`].
    pub local_file_mode: Option<u32>,
    /// Permissions of new directories of [`StorageBackend::Local`]; see [`Modes`].
    pub local_dir_mode: Option<u32>,
    /// The bucket of [`StorageBackend::S3`].
    pub s3_bucket: Option<String>,
    /// The region of the bucket.
    pub s3_region: Option<String>,
    /// Prefix of all keys in the bucket, without the `/` that follows: segments of
    /// `[A-Za-z0-9._~-]`, joined by `/`. Stores under prefixes of one bucket must not lie within
    /// each other.
    pub s3_prefix: Option<String>,
    /// A server that is not Amazon's, such as `http://127.0.0.1:8333`.
    pub s3_endpoint: Option<String>,
    /// The server, as `host:port`, that may be sent AWS keys through plain HTTP although it is not
    /// on this machine.
    pub s3_allow_http: Option<String>,
    /// Set by [`StorageConfig::from_url`] if the URL names the endpoint. Such an endpoint is sent
    /// no credentials of this config. A program that trusts the endpoint sets this to false.
    pub endpoint_from_url: bool,
    /// True if the bucket is named in the path of a URL instead of in its host.
    pub s3_path_style: Option<bool>,
    /// The profile of `~/.aws` that has the credentials for this storage, and maybe its endpoint;
    /// nothing else is asked for credentials then.
    pub s3_profile: Option<String>,
    /// How the server encrypts what it keeps.
    pub s3_encryption: S3Encryption,
    /// Requests that carry a checksum of the object.
    pub s3_checksums: Option<S3Checksums>,
    /// Credentials for this storage alone.
    pub s3_credentials: Option<S3Credentials>,
    /// The bucket of [`StorageBackend::Gcs`].
    pub gcs_bucket: Option<String>,
    /// Prefix of all keys in the bucket, as in `s3_prefix`. Empty: no prefix, whatever the
    /// environment says.
    pub gcs_prefix: Option<String>,
    /// A file with credentials for this storage alone.
    pub gcs_credentials: Option<PathBuf>,
    /// The longest wait for the answer to one request, in place of `retry.attempt`; not for a whole
    /// stream. A call is sent again within `retry.budget`, and within twice this time.
    pub gcs_timeout: Option<Duration>,
    /// The key of Cloud KMS that objects are encrypted with:
    /// `projects/P/locations/L/keyRings/R/cryptoKeys/K`. The service agent of Cloud Storage needs
    /// `roles/cloudkms.cryptoKeyEncrypterDecrypter` for it.
    pub gcs_kms_key: Option<String>,
    /// A server that is not Google's, such as `http://127.0.0.1:4443`.
    pub gcs_endpoint: Option<String>,
    /// When a call to a server is sent again, and how long is waited for it.
    pub retry: Retry,
    /// The most bytes that one object may have. None: 70 GiB, which is more than a store takes for
    /// a state unless told so. Uploads go in parts of 8 MiB, or of 1/9000 of this where that is
    /// more; memory is five parts for each upload.
    pub max_object: Option<u64>,
}

/// How S3 encrypts what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum S3Encryption {
    /// Encryption as the bucket is set up; Amazon's are encrypted with keys of S3 unless told
    /// otherwise.
    #[default]
    Bucket,
    /// With keys of S3 (SSE-S3, AES-256).
    S3,
    /// With a key of KMS (SSE-KMS) and a bucket key: an id, an alias or an ARN. The account needs
    /// `kms:GenerateDataKey` and `kms:Decrypt` for it.
    Kms(String),
}

impl S3Encryption {
    /// Key of KMS that Amazon has for S3 in each account.
    const DEFAULT_KEY: &str = "alias/aws/s3";

    /// Returns the encryption that settings name: `AES256` or `aws:kms`, as Amazon calls them, and
    /// a key of KMS.
    ///
    /// ```
    /// use persist_host::storage::S3Encryption;
    ///
    /// assert_eq!(S3Encryption::parse(Some("AES256"), None)?, S3Encryption::S3);
    /// let key = S3Encryption::parse(None, Some("alias/agents"))?;
    /// assert_eq!(key, S3Encryption::Kms("alias/agents".into()));
    /// # Ok::<(), persist_host::storage::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where they name no encryption, or two.
    pub fn parse(algorithm: Option<&str>, kms_key: Option<&str>) -> Result<Self> {
        let algorithm = algorithm.map(str::trim);
        let refuse = |what: String, hint| Err(Error::new(ErrorKind::Config, what).with_hint(hint));
        match (algorithm, kms_key) {
            (_, Some("AES256" | "aws:kms")) => refuse(
                "the KMS key is the name of an encryption".into(),
                "set PERSIST_S3_ENCRYPTION=AES256 (s3_encryption in persist.toml) instead",
            ),
            (None, None) => Ok(Self::Bucket),
            (None | Some("aws:kms"), Some(key)) => Ok(Self::Kms(key.into())),
            (Some("aws:kms"), None) => Ok(Self::Kms(Self::DEFAULT_KEY.into())),
            (Some("AES256"), None) => Ok(Self::S3),
            (Some("AES256"), Some(_)) => refuse(
                "the encryption AES256 uses no KMS key, but one is set".into(),
                "unset PERSIST_S3_KMS_KEY, or set PERSIST_S3_ENCRYPTION=aws:kms",
            ),
            (Some(other), _) => refuse(
                format!("{:?} is not an encryption of S3", redact(other)),
                "use AES256 or aws:kms",
            ),
        }
    }
}

/// Requests to S3 that carry a checksum of the object. Loads verify every state by checksums of
/// their own, whatever is set here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum S3Checksums {
    /// Every request with a body (CRC32): S3 refuses what was damaged on its way.
    #[default]
    WhenSupported,
    /// Only requests that S3 refuses without one, none of which Persist sends. For servers that
    /// refuse checksums.
    WhenRequired,
}

impl S3Checksums {
    /// Parses `when_supported` or `when_required`, as Amazon calls them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is another text.
    pub fn parse(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "when_supported" => Ok(Self::WhenSupported),
            "when_required" => Ok(Self::WhenRequired),
            _ => {
                let what = format!("{:?} is not when_supported or when_required", redact(text));
                Err(Error::new(ErrorKind::Config, what))
            }
        }
    }
}

/// Credentials of an AWS account. Its `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct S3Credentials {
    /// Access key ID, as in `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// Secret access key, as in `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// Session token, as in `AWS_SESSION_TOKEN`, for credentials that expire.
    pub session_token: Option<String>,
}

impl S3Credentials {
    /// Credentials that do not expire.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }

    /// Adds the session token of temporary credentials.
    #[must_use]
    pub fn with_session_token(mut self, session_token: Option<String>) -> Self {
        self.session_token = session_token;
        self
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials { .. }")
    }
}

impl StorageConfig {
    /// The local disk, in the default place.
    pub fn default_local() -> Self {
        Self::default()
    }

    /// The local disk, under `path`.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self {
            local_base_path: Some(path.into()),
            ..Self::default()
        }
    }

    /// A bucket on Amazon S3.
    pub fn s3_with_bucket(bucket: String) -> Self {
        Self {
            s3_bucket: Some(bucket),
            ..Self::s3()
        }
    }

    /// A bucket on Amazon S3, in a region.
    pub fn s3_with_bucket_and_region(bucket: String, region: String) -> Self {
        Self {
            s3_region: Some(region),
            ..Self::s3_with_bucket(bucket)
        }
    }

    fn s3() -> Self {
        Self {
            backend: StorageBackend::S3,
            ..Self::default()
        }
    }

    /// A bucket on Google Cloud Storage.
    pub fn gcs_with_bucket(bucket: String) -> Self {
        Self {
            gcs_bucket: Some(bucket),
            ..Self::gcs()
        }
    }

    /// A bucket on Google Cloud Storage, with a file of credentials.
    pub fn gcs_with_bucket_and_credentials(bucket: String, credentials: PathBuf) -> Self {
        Self {
            gcs_credentials: Some(credentials),
            ..Self::gcs_with_bucket(bucket)
        }
    }

    /// A bucket on Google Cloud Storage, with what all keys in it begin with, and maybe a file of
    /// credentials.
    pub fn gcs_with_bucket_prefix_and_credentials(
        bucket: String,
        prefix: String,
        credentials: Option<PathBuf>,
    ) -> Self {
        Self {
            gcs_prefix: Some(prefix),
            gcs_credentials: credentials,
            ..Self::gcs_with_bucket(bucket)
        }
    }

    fn gcs() -> Self {
        Self {
            backend: StorageBackend::Gcs,
            ..Self::default()
        }
    }

    /// Returns the configuration that the environment asks for: `PERSIST_STORAGE` names a backend
    /// (`local`, `s3`, `gcs`) or a URL; the local disk if it is not set.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it names something else.
    pub fn from_env() -> Result<Self> {
        Self::from_environment(&Environment::current())
    }

    /// Returns the configuration that an environment asks for, as [`StorageConfig::from_env`] does
    /// for that of the process.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where `PERSIST_STORAGE` names something else.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let Some(value) = environment.get("PERSIST_STORAGE") else {
            return Ok(Self::default_local());
        };
        match value.to_str() {
            Some("local") => Ok(Self::default_local()),
            Some("s3") => Ok(Self::s3()),
            Some("gcs") => Ok(Self::gcs()),
            Some(text) => Self::from_url(text).map_err(|error| error.about("PERSIST_STORAGE")),
            None => Err(Error::new(
                ErrorKind::Config,
                "PERSIST_STORAGE is not UTF-8",
            )),
        }
    }

    /// The storage that `url` names: `file:///absolute/path`, `s3://bucket/prefix` or
    /// `gs://bucket/prefix`.
    ///
    /// A bucket's URL may say more behind a `?`, joined by `&`: for S3 `endpoint`, `region`,
    /// `profile`, `path_style` (`true` or `false`), `encryption` (`AES256` or `aws:kms`), `kms_key`
    /// and `checksums` (`when_supported` or `when_required`), for Google Cloud Storage `endpoint`.
    /// The rest of its settings come from the
    /// environment. An endpoint that a URL names is sent no credentials that are not bound to it;
    /// see [`StorageConfig`].
    ///
    /// ```
    /// # use persist_host::storage::StorageConfig;
    /// let config = StorageConfig::from_url("file:///var/lib/agents")?;
    /// assert_eq!(config, StorageConfig::local("/var/lib/agents"));
    ///
    /// let config = StorageConfig::from_url("s3://my-snapshots-bucket/production")?;
    /// assert_eq!(config.s3_bucket.as_deref(), Some("my-snapshots-bucket"));
    /// assert_eq!(config.s3_prefix.as_deref(), Some("production"));
    ///
    /// let config = StorageConfig::from_url("s3://snapshots?endpoint=http://127.0.0.1:9000&profile=minio")?;
    /// assert_eq!(config.s3_endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    /// # Ok::<(), persist_host::storage::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is not such a URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let refuse = |why: &str, hint: &str| {
            let what = format!("{:?} {why}", redact(url));
            Err(Error::new(ErrorKind::Config, what).with_hint(hint))
        };
        let place = url.split_once('?').map_or(url, |parts| parts.0);
        if let Some(kind) = secret_in(place) {
            let what = format!("the URL of the storage contains {kind} (not shown)");
            return Err(Error::new(ErrorKind::Config, what).with_hint("remove it from the URL"));
        }
        match url.split_once("://") {
            Some(("file", path))
                if path
                    .split_once('?')
                    .is_some_and(|(_, end)| end.contains('=')) =>
            {
                refuse(
                    "has a parameter, and a directory takes none",
                    "remove the ? and what follows it; write %3f for a ? in a path",
                )
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::local(self::path(path)?)),
            Some(("file", _)) => refuse(
                "has no absolute path",
                "write three slashes, as in file:///var/lib/agents",
            ),
            Some(("s3", "")) => refuse("names no bucket", "write s3://bucket/prefix"),
            Some(("s3", rest)) => {
                let (place, more) = rest.split_once('?').unwrap_or((rest, ""));
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                check_bucket(bucket)?;
                let [
                    s3_endpoint,
                    s3_region,
                    s3_profile,
                    path_style,
                    encryption,
                    kms_key,
                    checksums,
                ] = parameters(
                    more,
                    [
                        "endpoint",
                        "region",
                        "profile",
                        "path_style",
                        "encryption",
                        "kms_key",
                        "checksums",
                    ],
                )?;
                let s3_path_style = match path_style.as_deref() {
                    None => None,
                    Some("true") => Some(true),
                    Some("false") => Some(false),
                    Some(_) => {
                        return refuse(
                            "has a path_style that is not true or false",
                            "write ?path_style=false",
                        );
                    }
                };
                let checksums = checksums.as_deref().map(S3Checksums::parse).transpose();
                let in_url = |error: Error| error.about("the URL of the storage");
                Ok(Self {
                    s3_path_style,
                    s3_encryption: S3Encryption::parse(encryption.as_deref(), kms_key.as_deref())
                        .map_err(in_url)?,
                    s3_checksums: checksums.map_err(in_url)?,
                    s3_prefix: check_prefix(prefix)?,
                    endpoint_from_url: s3_endpoint.is_some(),
                    s3_endpoint,
                    s3_region,
                    s3_profile,
                    ..Self::s3_with_bucket(bucket.into())
                })
            }
            Some(("gs", "")) => refuse("names no bucket", "write gs://bucket/prefix"),
            Some(("gs", rest)) => {
                let (place, more) = rest.split_once('?').unwrap_or((rest, ""));
                let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
                check_gcs_bucket(bucket)?;
                let [gcs_endpoint] = parameters(more, ["endpoint"])?;
                Ok(Self {
                    endpoint_from_url: gcs_endpoint.is_some(),
                    gcs_endpoint,
                    // The URL says it all: a prefix of the environment is another place.
                    gcs_prefix: Some(check_prefix(prefix)?.unwrap_or_default()),
                    ..Self::gcs_with_bucket(bucket.into())
                })
            }
            None if url == "s3" => refuse(
                "names no bucket",
                "write s3://bucket/prefix, or set PERSIST_STORAGE=s3 and AWS_S3_BUCKET",
            ),
            None if url == "gcs" => refuse(
                "names no bucket",
                "write gs://bucket/prefix, or set PERSIST_STORAGE=gcs and PERSIST_GCS_BUCKET",
            ),
            None if url.starts_with('/') => {
                refuse("is a path, not a URL", &format!("write file://{url}"))
            }
            _ => refuse(
                "is not a storage",
                "write file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix",
            ),
        }
    }

    /// Returns the directory of a local storage.
    pub(super) fn local_path(&self, environment: &Environment) -> Result<PathBuf> {
        if let Some(path) = &self.local_base_path
            && !path.as_os_str().is_empty()
        {
            return local_path(path);
        }
        if let Some(path) = environment.get("PERSIST_LOCAL_PATH") {
            return absolute_local_path(Path::new(path))
                .map_err(|error| error.about("PERSIST_LOCAL_PATH"));
        }
        let dir = dirs::data_dir().map(|dir| dir.join("persist"));
        dir.ok_or_else(|| {
            let what = "no directory for snapshots: this account has no home directory";
            Error::new(ErrorKind::Config, what).with_hint("set PERSIST_LOCAL_PATH")
        })
    }
}

impl StorageConfig {
    /// Returns the permissions that a local storage gives to what it makes.
    pub(super) fn local_modes(&self, environment: &Environment) -> Result<Modes> {
        let mode = |field: Option<u32>, variable: &str| match environment.get(variable) {
            Some(text) if field.is_none() => {
                let mode = parse_mode(&text.to_string_lossy());
                mode.map(Some).map_err(|error| error.about(variable))
            }
            _ => Ok(field),
        };
        Modes::new(
            mode(self.local_file_mode, "PERSIST_FILE_MODE")?,
            mode(self.local_dir_mode, "PERSIST_DIR_MODE")?,
        )
    }
}

/// Returns a directory for snapshots with `~/` expanded.
///
/// # Errors
/// [`ErrorKind::Config`] where it cannot be meant: it holds a secret, a control
/// character, or a variable that only a shell expands.
pub fn local_path(path: &Path) -> Result<PathBuf> {
    let wrong = |why: String| Error::new(ErrorKind::Config, why);
    let whole = |why: String| Err(wrong(why).with_hint("write the whole path"));
    let shown = path.to_string_lossy();
    if let Some(kind) = secret_in(&shown) {
        return Err(wrong(format!(
            "the directory for snapshots is {kind} (not shown)"
        )));
    }
    if shown.chars().any(char::is_control) {
        return Err(wrong(format!(
            "the directory for snapshots, {shown:?}, contains a control character"
        )));
    }
    let is_variable = |part: &str| {
        let name = part
            .strip_prefix('$')
            .map(|name| name.trim_matches(['{', '}']));
        name.is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    if path
        .components()
        .any(|part| is_variable(&part.as_os_str().to_string_lossy()))
    {
        return Err(wrong(format!(
            "the directory for snapshots, {shown:?}, contains a variable, which is not expanded"
        ))
        .with_hint("write the whole path, or start it with ~/"));
    }
    let mut parts = path.components();
    match parts.next() {
        Some(Component::Normal(first)) if first == "~" => match dirs::home_dir() {
            Some(home) => Ok(home.join(parts.as_path())),
            None => whole(format!("{shown:?}: this account has no home directory")),
        },
        Some(Component::Normal(first)) if first.to_string_lossy().starts_with('~') => {
            whole(format!("{shown:?} is not expanded: only ~/ is"))
        }
        _ => Ok(path.into()),
    }
}

/// Returns a directory for snapshots as [`local_path`] does, and refuses a relative one, which
/// would be another directory wherever the program is started.
///
/// # Errors
/// [`ErrorKind::Config`] where it is relative, or as for [`local_path`].
pub fn absolute_local_path(path: &Path) -> Result<PathBuf> {
    let path = local_path(path)?;
    if path.is_absolute() {
        return Ok(path);
    }
    let here = env::current_dir().unwrap_or_default().join(&path);
    let what = format!("{:?} is a relative path", path.display().to_string());
    let hint = format!(
        "write the whole path, such as {:?}",
        here.display().to_string()
    );
    Err(Error::new(ErrorKind::Config, what).with_hint(hint))
}

const CREDENTIALS_HINT: &str = "set GOOGLE_APPLICATION_CREDENTIALS or, for an endpoint other than \
    Google's, gcs_credentials under [endpoints.\"host:port\"] in persist.toml";

/// Letters in which a misspelled parameter of a URL differs from a known one, at most.
#[cfg(feature = "bucket")]
const MISSPELLED: usize = 2;

/// Returns the parameter that another word is a misspelling of. `-` and capital letters do not
/// count.
#[cfg(feature = "bucket")]
fn near_parameter<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let most = MISSPELLED.min(name.chars().count() / 3);
    let near = known
        .iter()
        .map(|known| (strsim::osa_distance(&name, known), *known));
    let near = near.filter(|(letters, _)| *letters <= most).min();
    near.map(|(_, known)| known)
}

/// A host that cannot use a bucket lists the known parameters and suggests none.
#[cfg(not(feature = "bucket"))]
fn near_parameter<'a>(_: &str, _: &[&'a str]) -> Option<&'a str> {
    None
}

/// Parses the text behind the `?` of a URL and returns the values in the order of `known`.
fn parameters<const N: usize>(text: &str, known: [&str; N]) -> Result<[Option<String>; N]> {
    let refuse = |what: String| Err(Error::new(ErrorKind::Config, what));
    let mut values = [const { None }; N];
    for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some(at) = known.iter().position(|known| *known == name) else {
            let names = known.join(", ");
            if name == "credentials" {
                let what = "credentials= in a URL is not supported: a URL must not decide which \
                    key is sent where";
                return Err(Error::new(ErrorKind::Config, what).with_hint(CREDENTIALS_HINT));
            }
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            let shown = match secret_in(name) {
                None if name.len() <= 40 && name.bytes().all(is_plain) => name,
                _ => "(not shown)",
            };
            let error = Error::new(
                ErrorKind::Config,
                format!(
                    "{shown:?} is not a parameter of a bucket URL: the parameters are {names}, \
                     each with = and a value"
                ),
            );
            return Err(match near_parameter(name, &known) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error,
            });
        };
        let value = String::from_utf8(percent_decode(value)?);
        if let Some(kind) = value.as_deref().ok().and_then(secret_in) {
            return refuse(format!(
                "{name} in the URL of the storage contains {kind} (not shown)"
            ));
        }
        match value {
            Ok(value) if !value.is_empty() && values[at].is_none() => values[at] = Some(value),
            _ => {
                return refuse(format!(
                    "{name} in the URL of the storage does not have one value, as in ?{name}=VALUE"
                ));
            }
        }
    }
    Ok(values)
}

/// The path of a URL.
fn path(encoded: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;

    Ok(std::ffi::OsString::from_vec(percent_decode(encoded)?).into())
}

/// Decodes a part of a URL. The crate leaves a `%` without digits as it is; a mistyped URL is
/// refused here.
fn percent_decode(text: &str) -> Result<Vec<u8>> {
    let is_byte = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00")
    };
    if text.split('%').skip(1).all(is_byte) {
        return Ok(percent_encoding::percent_decode_str(text).collect());
    }
    let what = format!(
        "{:?} contains a % without two hexadecimal digits after it",
        redact(text)
    );
    Err(Error::new(ErrorKind::Config, what).with_hint("write %25 for a percent sign"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_no_storage_is_refused_with_what_to_write() {
        for bad in [
            "",
            "file:relative",
            "file://host/x",
            "http://x",
            "/var",
            "s3",
            "file:///a%zz",
            "file:///%00",
            "s3://",
            "s3:///prefix",
            "s3://ab",
            "s3://-bucket",
            "s3://user@bucket",
            "s3://bucket:9000",
            "s3://bucket//",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "s3://bucket/a?x=1",
            "s3://bucket/a%20b",
            "gs://",
            "gs:///prefix",
            "gs://user@bucket",
            "gs://bucket/../b",
            "gcs",
        ] {
            let error = StorageConfig::from_url(bad).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_bucket_may_have_a_prefix_and_a_slash_at_its_end() {
        for (url, prefix) in [
            ("s3://my-bucket", None),
            ("s3://my-bucket/", None),
            ("s3://my-bucket/a", Some("a")),
            ("s3://my-bucket/a/b.c~/", Some("a/b.c~")),
        ] {
            let config = StorageConfig::from_url(url).expect(url);
            assert_eq!(config.s3_prefix.as_deref(), prefix, "{url}");
            assert_eq!(config.s3_bucket.as_deref(), Some("my-bucket"), "{url}");
        }
    }

    #[test]
    fn a_gs_url_says_bucket_and_prefix_and_leaves_nothing_to_the_environment() {
        for (url, prefix) in [("gs://my-bucket", ""), ("gs://my-bucket/a/b/", "a/b")] {
            let config = StorageConfig::from_url(url).expect(url);
            assert_eq!(config.backend, StorageBackend::Gcs);
            assert_eq!(config.gcs_bucket.as_deref(), Some("my-bucket"), "{url}");
            assert_eq!(config.gcs_prefix.as_deref(), Some(prefix), "{url}");
        }
    }

    #[test]
    fn a_url_may_say_which_server_and_which_account() {
        let url =
            "s3://bucket/a?region=eu-west-1&endpoint=http%3A//127.0.0.1:9000&profile=old%20one";
        let config = StorageConfig::from_url(url).expect("good");
        assert_eq!(config.s3_prefix.as_deref(), Some("a"));
        assert_eq!(config.s3_endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(config.s3_region.as_deref(), Some("eu-west-1"));
        assert_eq!(config.s3_profile.as_deref(), Some("old one"));
        assert!(config.endpoint_from_url);
        let url = "gs://bucket?endpoint=http://127.0.0.1:4443";
        let config = StorageConfig::from_url(url).expect("good");
        assert!(config.endpoint_from_url);
        assert_eq!(config.gcs_prefix.as_deref(), Some(""));
        assert_eq!(
            config.gcs_endpoint.as_deref(),
            Some("http://127.0.0.1:4443")
        );
        assert_eq!(config.gcs_credentials, None);
        for (bad, hint) in [
            (
                "gs://bucket?credentials=/key.json",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ),
            ("s3://bucket?endpiont=x", "endpoint, region, profile"),
            ("s3://bucket/p?regoin=x", "did you mean region?"),
            ("s3://bucket?Path-Style=true", "did you mean path_style?"),
            ("s3://bucket?kmskey=x", "did you mean kms_key?"),
            ("gs://bucket?endpiont=x", "did you mean endpoint?"),
            ("file:///store?region=x", "a directory takes none"),
            ("s3://bucket?region", "?region=VALUE"),
            ("s3://bucket?region=", "?region=VALUE"),
            ("s3://bucket?region=a&region=b", "one value"),
            ("s3://bucket?region=%ff", "one value"),
            ("gs://bucket?region=a", "the parameters are endpoint"),
        ] {
            let error = StorageConfig::from_url(bad).expect_err(bad);
            let said = format!("{error}\n{}", error.hint().unwrap_or_default());
            assert!(said.contains(hint), "{bad}: {said}");
        }
        for strange in [
            "s3://bucket?x=1",
            "s3://bucket?prefix=x",
            "gs://bucket?region=a",
        ] {
            let error = StorageConfig::from_url(strange).expect_err(strange);
            assert_eq!(error.hint(), None, "{strange}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let config = StorageConfig {
            s3_credentials: Some(S3Credentials {
                access_key_id: "AKIAPLANTED".into(),
                secret_access_key: "planted-secret".into(),
                session_token: Some("planted-token".into()),
            }),
            ..StorageConfig::s3_with_bucket("bucket".into())
        };
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("planted") && !shown.contains("PLANTED"),
            "{shown}"
        );
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_not_shown() {
        for url in [
            "s3://user:PLANTED@bucket",
            "s3://bucket?X-Amz-Signature=PLANTED",
            "s3://bucket?endpoint=https://user:PLANTED@host",
            "gs://bucket?token=PLANTED",
            "gs://bucket?secret=PLANTED&endpoint=https://host",
            "gs://bucket?credentials={\"private_key\":\"PLANTED\"}",
            "{\"private_key\": \"PLANTED\"}",
            "file:///%7B%22private_key%22%3A%22PLANTED%22%7D",
            "AKIAPLANTED0123456789",
        ] {
            let error = StorageConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("PLANTED"), "{error}");
        }
    }

    #[test]
    fn a_field_goes_before_the_environment_that_is_given() {
        let environment = Environment::from_iter([("PERSIST_LOCAL_PATH", "/of/environment")]);
        let at = |config: StorageConfig| {
            let storage = config.build_with(&environment).expect("a storage");
            storage.location()
        };
        let unset = at(StorageConfig::default_local());
        assert_eq!(unset, "the directory /of/environment");
        let set = at(StorageConfig::local("/of/config"));
        assert_eq!(set, "the directory /of/config");
        for (value, backend) in [
            ("", StorageBackend::Local),
            ("local", StorageBackend::Local),
            ("s3", StorageBackend::S3),
            ("gs://bucket", StorageBackend::Gcs),
        ] {
            let environment = Environment::from_iter([("PERSIST_STORAGE", value)]);
            let config = StorageConfig::from_environment(&environment).expect(value);
            assert_eq!(config.backend, backend, "{value}");
        }
        let wrong = Environment::from_iter([("PERSIST_STORAGE", "disk")]);
        let error = StorageConfig::from_environment(&wrong).expect_err("no storage");
        assert!(error.to_string().contains("PERSIST_STORAGE"), "{error}");
    }

    #[test]
    fn modes_of_a_local_store_come_from_the_config_or_the_environment() {
        let environment =
            Environment::from_iter([("PERSIST_FILE_MODE", "0640"), ("PERSIST_DIR_MODE", "2750")]);
        let config = StorageConfig {
            local_file_mode: Some(0o660),
            ..StorageConfig::default_local()
        };
        let modes = config.local_modes(&environment).expect("good");
        assert_eq!(modes, Modes::new(Some(0o660), Some(0o2750)).expect("good"));
        let private = StorageConfig::default_local().local_modes(&Environment::default());
        assert_eq!(private.expect("good"), Modes::default());
        for value in ["0666", "group", "0060"] {
            let wrong = Environment::from_iter([("PERSIST_FILE_MODE", value)]);
            let built = StorageConfig::local("/store").build_with(&wrong);
            let error = built.expect_err(value);
            assert_eq!(error.kind(), ErrorKind::Config, "{value}");
        }
    }

    #[test]
    fn a_path_that_only_a_shell_understands_is_expanded_or_refused() {
        let home = dirs::home_dir().expect("a home");
        assert_eq!(
            local_path(Path::new("~/a/b")).expect("good"),
            home.join("a/b")
        );
        assert_eq!(local_path(Path::new("~")).expect("good"), home);
        assert_eq!(local_path(Path::new("a")).expect("good"), Path::new("a"));
        for bad in [
            "$HOME/a",
            "/x/${HOME}/a",
            "~user/a",
            "/store\n",
            "/sto\rre",
            "/a\u{1b}[2J",
        ] {
            local_path(Path::new(bad)).expect_err(bad);
        }
        for bad in ["a", "./a", "../a"] {
            let error = absolute_local_path(Path::new(bad)).expect_err(bad);
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("whole path"), "{error}: {hint}");
        }
        for good in ["/a/~/b", "/a$b", "/a/$", "/tmp/a b", "/tmp/é"] {
            let path = Path::new(good);
            assert_eq!(absolute_local_path(path).expect(good), path);
        }
    }

    #[test]
    fn a_percent_sign_needs_the_digits_of_a_byte() {
        for (url, path) in [
            ("file:///a%25b", "/a%b"),
            ("file:///a%2541", "/a%41"),
            ("file:///a%c3%A9", "/a\u{e9}"),
            ("file:///a%2500", "/a%00"),
        ] {
            let config = StorageConfig::from_url(url).expect(url);
            assert_eq!(config, StorageConfig::local(path), "{url}");
        }
        for url in [
            "file:///a%",
            "file:///a%2",
            "file:///a%zz",
            "file:///a%+1",
            "file:///a%2%30",
            "file:///a%00",
            "file:///a%\u{e9}",
        ] {
            let error = StorageConfig::from_url(url).expect_err(url);
            assert!(error.hint().unwrap_or_default().contains("%25"), "{url}");
        }
    }

    #[test]
    fn a_url_may_hold_spaces() {
        assert_eq!(
            StorageConfig::from_url("file:///a%20b").expect("good"),
            StorageConfig::local("/a b")
        );
    }
}
