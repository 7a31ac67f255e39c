//! Settings that result from a config and the environment together.

use std::ffi::OsString;

use aws_config::profile::ProfileSet;

use super::keys::check_key;
use super::profiles::{self, Named};
use super::shared_config::{SharedConfig, Sources};
use crate::storage::bucket::{self, check_endpoint, directory, not_an_endpoint, variable, wrong};
use crate::storage::names::check_bucket;
use crate::storage::secret::{redact, secret_in};
use crate::storage::{
    Endpoint, Error, ErrorKind, Result, S3Checksums, S3Credentials, S3Encryption, StorageConfig,
};

/// Name of the server if no endpoint is set.
const AMAZON: &str = "Amazon S3";

/// Region if none is set.
const DEFAULT_REGION: &str = "us-east-1";

/// The smallest part, and the most of them: S3 takes 10,000, of at least 5 MiB each but for the
/// last.
const MIN_PART: u64 = 8 << 20;
const PARTS: u64 = 9000;

/// The largest part that S3 takes.
const MAX_PART: u64 = 5 << 30;

/// Refuses a directory bucket, which S3 knows by the end of its name.
fn check_bucket_kind(bucket: &str) -> Result<()> {
    if !bucket.ends_with("--x-s3") {
        return Ok(());
    }
    let what = "a directory bucket (S3 Express One Zone) does not list its keys in order, so the \
        newest version could be missed";
    Err(Error::new(ErrorKind::Config, what).with_hint("use a general purpose bucket"))
}

/// Settings that can work, as far as this can be known without asking.
#[derive(Debug)]
pub(super) struct Settings {
    /// Those that every provider has.
    pub(super) common: bucket::Settings,
    pub(super) region: String,
    pub(super) path_style: bool,
    pub(super) encryption: S3Encryption,
    pub(super) checksums: S3Checksums,
    pub(super) shared: SharedConfig,
    pub(super) account: Account,
    /// The profile that is asked for credentials, if any, and what it says.
    pub(super) profile: Option<(String, Named)>,
}

/// Origin of the keys that may be sent to the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// The config.
    Fixed(S3Credentials),
    /// The variables of the environment alone.
    Environment,
    /// One profile alone.
    Profile,
    /// All places, in the order of Amazon's own tools.
    Chain,
}

impl Settings {
    /// The settings of `config`, with what `env` has where it says nothing.
    pub(super) fn new(
        config: &StorageConfig,
        env: impl Fn(&str) -> Option<OsString>,
        profiles: impl FnOnce() -> Result<ProfileSet>,
    ) -> Result<Self> {
        let env = |name: &str| variable(name, env(name));
        // The SDK reads these, and says what they hold where they are wrong.
        for name in [
            "AWS_CONFIG_FILE",
            "AWS_PROFILE",
            "AWS_ROLE_ARN",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ] {
            check_plain(name, env(name)?.as_deref())?;
        }
        let bucket = match &config.s3_bucket {
            Some(bucket) => bucket.clone(),
            None => env("AWS_S3_BUCKET")?.ok_or_else(|| {
                wrong("no bucket for snapshots")
                    .with_hint("set AWS_S3_BUCKET, or write s3://bucket/prefix")
            })?,
        };
        check_bucket(&bucket)?;
        check_bucket_kind(&bucket)?;
        let prefix = directory(config.s3_prefix.as_deref().unwrap_or_default())?;
        let encryption = match &config.s3_encryption {
            S3Encryption::Bucket => {
                let algorithm = env("PERSIST_S3_ENCRYPTION")?;
                let key = env("PERSIST_S3_KMS_KEY")?;
                S3Encryption::parse(algorithm.as_deref(), key.as_deref())?
            }
            said => said.clone(),
        };
        if let S3Encryption::Kms(key) = &encryption {
            check_plain("PERSIST_S3_KMS_KEY", Some(key))?;
        }
        // The AWS CLI would use another profile than Persist does.
        if env("AWS_DEFAULT_PROFILE")?.is_some()
            && env("AWS_ACCESS_KEY_ID")?.is_none()
            && env("AWS_PROFILE")?.is_none()
            && config.s3_profile.is_none()
            && config.s3_credentials.is_none()
        {
            return Err(
                wrong("AWS_DEFAULT_PROFILE is set, which only the AWS CLI reads")
                    .with_hint("set AWS_PROFILE instead, and unset AWS_DEFAULT_PROFILE"),
            );
        }
        let resolved = Resolved::new(config, env, profiles)?;
        let shared = resolved.shared;
        let mut region = config.s3_region.clone();
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            region = region.or(env(name)?);
        }
        let region = region
            .or(resolved.region.clone())
            .unwrap_or_else(|| DEFAULT_REGION.into());
        check_region(&region, resolved.endpoint.is_some())?;
        let endpoint = resolved.endpoint;
        let path_style = match config.s3_path_style {
            None => flag("PERSIST_S3_PATH_STYLE", env("PERSIST_S3_PATH_STYLE")?)?,
            said => said,
        };
        let path_style = path_style.or(shared.path_style);
        if path_style == Some(true) && shared.use_accelerate {
            return Err(wrong(
                "use_accelerate_endpoint needs the bucket in the name of the host, but path style \
                 is set",
            )
            .with_hint("set PERSIST_S3_PATH_STYLE=false, or unset use_accelerate_endpoint"));
        }
        config.retry.check()?;
        let server = endpoint.clone().unwrap_or_else(|| AMAZON.into());
        let parsed = endpoint.as_deref().and_then(Endpoint::parse);
        Ok(Self {
            region,
            path_style: path_style.unwrap_or(endpoint.is_some()),
            encryption,
            checksums: config.s3_checksums.or(shared.checksums).unwrap_or_default(),
            shared,
            account: resolved.account,
            profile: resolved.profile,
            common: bucket::Settings {
                scheme: "s3",
                bucket,
                prefix,
                is_own_server: parsed.is_none_or(|endpoint| endpoint.is_amazon()),
                endpoint,
                server,
                retry: config.retry,
                part: part(config.max_object.unwrap_or_default())?,
            },
        })
    }
}

/// Parses `true` or `false`; `name` is the setting.
fn flag(name: &str, value: Option<String>) -> Result<Option<bool>> {
    match value.as_deref().map(str::trim) {
        None => Ok(None),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(other) => Err(wrong(format!(
            "{name} is {:?}, not true or false",
            redact(other)
        ))),
    }
}

/// Refuses a value that holds a secret or a control character; `name` is the setting.
fn check_plain(name: &str, value: Option<&str>) -> Result<()> {
    let Some(value) = value else {
        return Ok(());
    };
    if let Some(kind) = secret_in(value) {
        return Err(wrong(format!(
            "{name} contains {kind}, which does not belong there (not shown)"
        )));
    }
    if value.chars().any(char::is_control) {
        Err(wrong(format!("{name} contains a control character")))
    } else {
        Ok(())
    }
}

/// An endpoint, and the credentials that it may be sent.
struct Resolved {
    shared: SharedConfig,
    endpoint: Option<String>,
    account: Account,
    profile: Option<(String, Named)>,
    region: Option<String>,
}

/// Origin of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    Config,
    Url,
    Environment,
    Profile,
}

impl Resolved {
    /// Binds credentials to an endpoint, as the documentation of [`StorageConfig`] says.
    fn new(
        config: &StorageConfig,
        env: impl Fn(&str) -> Result<Option<String>>,
        profiles: impl FnOnce() -> Result<ProfileSet>,
    ) -> Result<Self> {
        let by_config = if config.endpoint_from_url {
            NamedBy::Url
        } else {
            NamedBy::Config
        };
        let said = config.s3_endpoint.clone().map(|said| (said, by_config));
        // One that is not UTF-8 is refused later, by name.
        let has = |name| match env(name) {
            Ok(value) => value.is_some_and(|value| !value.trim().is_empty()),
            Err(_) => true,
        };
        let has_keys =
            config.s3_profile.is_none() && has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY");
        let env_profile = env("AWS_PROFILE")?;
        let name = config.s3_profile.clone().or(env_profile.clone());
        if let Some(name) = &config.s3_profile {
            check_plain("the profile", Some(name))?;
        }
        let name = name.unwrap_or_else(|| profiles::DEFAULT.into());
        let needs_no_keys = has_keys || config.s3_credentials.is_some();
        let profiles = match profiles() {
            Ok(profiles) => profiles,
            // Nothing in them is needed.
            Err(_) if needs_no_keys && env_profile.is_none() => ProfileSet::default(),
            Err(error) => return Err(error),
        };
        let profile = Named::find(&profiles, &name);
        let sources = Sources {
            env: &env,
            name: &name,
            profile: &profile,
        };
        let ignores = sources.ignores_endpoints()?;
        let variable = match env("AWS_ENDPOINT_URL_S3")?.or(env("AWS_ENDPOINT_URL")?) {
            Some(url) if !ignores => Some((url, NamedBy::Environment)),
            _ => None,
        };
        if let Some(fixed) = &config.s3_credentials {
            check_credentials(fixed)?;
            let named = said.or(variable);
            let endpoint = named.as_ref().map(|named| named.0.clone());
            let this = Self {
                shared: SharedConfig::new(&sources, endpoint.as_deref())?,
                endpoint,
                account: Account::Fixed(fixed.clone()),
                profile: None,
                region: profile.region.clone(),
            };
            let bound = matches!(named, Some((_, NamedBy::Config)));
            return this.checked(
                config,
                &env,
                bound,
                "set s3_endpoint and s3_credentials on the same config",
            );
        }
        let of_profile = profile
            .endpoint
            .clone()
            .filter(|_| !ignores)
            .map(|said| (said, NamedBy::Profile));
        // A profile that the config names goes before the environment.
        let other = match config.s3_profile {
            Some(_) => of_profile.clone().or(variable),
            None => variable.or(of_profile.clone()),
        };
        let named = said.or(other);
        let endpoint = named.as_ref().map(|named| named.0.clone());
        let shared = SharedConfig::new(&sources, endpoint.as_deref())?;
        let by = named.map(|named| named.1);
        let region = profile.region.clone();
        let target = endpoint.as_deref().map(parse).transpose()?;
        let own = of_profile.map(|(own, _)| {
            let own =
                parse(&own).map_err(|error| error.about(&format!("the AWS profile {name:?}")));
            own.map(|own| Some(own) == target)
        });
        // Whether the profile names the endpoint itself, or none, or another one.
        let own = own.transpose()?;
        let (account, bound, advice) = if has_keys {
            let bound = match by {
                Some(NamedBy::Environment) => true,
                // AWS_PROFILE and the keys are named together.
                Some(NamedBy::Profile) => env_profile.is_some(),
                _ => false,
            };
            let advice = "set AWS_ENDPOINT_URL_S3 to it beside AWS_ACCESS_KEY_ID, or bind it in \
                          persist.toml: credential_source = \"environment\" under";
            (Account::Environment, bound, advice)
        } else {
            let bound = own == Some(true)
                || match by {
                    // The config names both.
                    Some(NamedBy::Config) => config.s3_profile.is_some(),
                    Some(NamedBy::Environment) => {
                        config.s3_profile.is_none() && env_profile.is_some() && own.is_none()
                    }
                    _ => false,
                };
            let advice = "set endpoint_url in the profile that has its keys, or bind it in \
                          persist.toml: profile = \"NAME\" under";
            (Account::Profile, bound, advice)
        };
        let is_here = target.as_ref().is_none_or(Endpoint::is_amazon);
        let is_loopback = target.as_ref().is_some_and(Endpoint::is_loopback);
        let uses_profile = !has_keys;
        if uses_profile && let Some(problem) = profile.problem.clone() {
            return Err(wrong(problem).with_hint("correct ~/.aws/config"));
        }
        if ignores && uses_profile {
            check_ignored(&env, &profile)?;
        }
        if is_here && uses_profile && own == Some(false) {
            return Err(wrong(format!(
                "the AWS profile {name:?} names another endpoint_url than the endpoint that is \
                 set, so its keys are not sent to Amazon"
            ))
            .with_hint("use another profile, or leave the endpoint to the profile"));
        }
        let account = match account {
            // All places are asked, as nothing else can be meant.
            Account::Profile if (is_here || is_loopback) && config.s3_profile.is_none() => {
                Account::Chain
            }
            account => account,
        };
        let this = Self {
            shared,
            endpoint,
            account,
            profile: uses_profile.then_some((name, profile)),
            region,
        };
        this.checked(config, &env, bound, advice)
    }

    /// Refuses to send keys to an endpoint that they are not bound to, or where others could read
    /// them.
    fn checked(
        self,
        config: &StorageConfig,
        env: impl Fn(&str) -> Result<Option<String>>,
        bound: bool,
        advice: &str,
    ) -> Result<Self> {
        let Some(url) = &self.endpoint else {
            return Ok(self);
        };
        let endpoint = parse(url)?;
        if endpoint.is_amazon() || endpoint.is_loopback() {
            return Ok(self);
        }
        if !bound {
            let what =
                format!("no AWS credentials are bound to {endpoint}, so none are sent there");
            let hint = if advice.ends_with("under") {
                format!("{advice} [endpoints.\"{endpoint}\"]")
            } else {
                advice.into()
            };
            return Err(wrong(what).with_hint(hint));
        }
        let allowed = match &config.s3_allow_http {
            Some(allowed) => Some(allowed.clone()),
            None => env("PERSIST_S3_ALLOW_HTTP")?,
        };
        check_plain("PERSIST_S3_ALLOW_HTTP", allowed.as_deref())?;
        let is_allowed = allowed
            .is_some_and(|allowed| allowed.split(',').any(|allowed| endpoint.is_named(allowed)));
        if endpoint.is_encrypted() || is_allowed {
            return Ok(self);
        }
        let what = format!(
            "no AWS key is sent to {endpoint}: it uses plain HTTP, where others can read the \
             access key ID and the session token"
        );
        Err(wrong(what).with_hint(format!(
            "use https://, or where you trust the network, set PERSIST_S3_ALLOW_HTTP={endpoint} \
             (s3_allow_http in persist.toml)"
        )))
    }
}

/// Refuses to ask a service for keys at an endpoint that shall be ignored: the SDK does not ignore
/// it there.
fn check_ignored(env: impl Fn(&str) -> Result<Option<String>>, profile: &Named) -> Result<()> {
    if !profile.asks_service && env("AWS_WEB_IDENTITY_TOKEN_FILE")?.is_none() {
        return Ok(());
    }
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_ENDPOINT_URL_SSO",
        "AWS_ENDPOINT_URL_SSO_OIDC",
    ] {
        if env(name)?.is_some() {
            return Err(wrong(format!(
                "{name} is set and shall be ignored, but the search for credentials would use it"
            ))
            .with_hint(format!("unset {name}")));
        }
    }
    Ok(())
}

/// Parses an endpoint that may be sent credentials.
fn parse(endpoint: &str) -> Result<Endpoint> {
    check_endpoint(endpoint, b".-_:[]/")?;
    Endpoint::parse(endpoint).ok_or_else(not_an_endpoint)
}

fn check_credentials(fixed: &S3Credentials) -> Result<()> {
    for (name, key) in [
        ("access_key_id", Some(&fixed.access_key_id)),
        ("secret_access_key", Some(&fixed.secret_access_key)),
        ("session_token", fixed.session_token.as_ref()),
    ] {
        if let Some(why) = key.and_then(|key| check_key(key).err()) {
            return Err(wrong(format!("{name} of s3_credentials {why}")));
        }
    }
    Ok(())
}

/// A region becomes part of a host's name; other servers than Amazon's have names of their own,
/// such as `RegionOne`.
fn check_region(region: &str, is_elsewhere: bool) -> Result<()> {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || byte == b'-'
            || (is_elsewhere && (byte.is_ascii_uppercase() || byte == b'_'))
    };
    if (1..=40).contains(&region.len()) && region.bytes().all(plain) {
        Ok(())
    } else {
        Err(wrong(format!(
            "{:?} is not a region such as us-east-1",
            redact(region)
        )))
    }
}

fn part(max_object: u64) -> Result<usize> {
    let part = max_object.div_ceil(PARTS).max(MIN_PART);
    usize::try_from(part)
        .ok()
        .filter(|_| part <= MAX_PART)
        .ok_or_else(|| {
            wrong(format!(
                "max_object is {max_object}, more than the maximum of S3"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: &StorageConfig, env: &[(&str, &str)]) -> Result<Settings> {
        resolve_with(config, env, "")
    }

    /// Resolves with the profiles of `file`.
    fn resolve_with(config: &StorageConfig, env: &[(&str, &str)], file: &str) -> Result<Settings> {
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        };
        Settings::new(config, env, || Ok(profiles::tests::parse(file)))
    }

    fn bucket() -> StorageConfig {
        StorageConfig::s3_with_bucket("my-bucket".into())
    }

    #[test]
    fn the_region_comes_from_config_then_environment_then_default() {
        let region = |config: &StorageConfig, env: &[(&str, &str)]| {
            resolve(config, env).expect("it can work").region
        };
        let config =
            StorageConfig::s3_with_bucket_and_region("my-bucket".into(), "us-west-2".into());
        assert_eq!(region(&config, &[("AWS_REGION", "eu-west-1")]), "us-west-2");
        assert_eq!(
            region(&bucket(), &[("AWS_REGION", "eu-west-1")]),
            "eu-west-1"
        );
        assert_eq!(region(&bucket(), &[("AWS_REGION", "")]), "us-east-1");
        assert_eq!(region(&bucket(), &[]), "us-east-1");
    }

    #[test]
    fn the_bucket_comes_from_config_or_environment() {
        let env = [("AWS_S3_BUCKET", "other-bucket")];
        assert_eq!(
            resolve(&bucket(), &env).expect("good").common.bucket,
            "my-bucket"
        );
        let none = StorageConfig {
            s3_bucket: None,
            ..bucket()
        };
        assert_eq!(
            resolve(&none, &env).expect("good").common.bucket,
            "other-bucket"
        );
        let error = resolve(&none, &[]).expect_err("no bucket");
        assert_eq!(error.kind(), ErrorKind::Config);
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("AWS_S3_BUCKET"), "{error}: {hint}");
    }

    #[test]
    fn an_endpoint_of_ones_own_means_path_style_unless_said_otherwise() {
        let env = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")];
        let settings = resolve(&bucket(), &env).expect("good");
        assert!(settings.path_style && settings.common.endpoint.is_some());
        let virtual_hosts = StorageConfig {
            s3_path_style: Some(false),
            ..bucket()
        };
        assert!(!resolve(&virtual_hosts, &env).expect("good").path_style);
        assert!(!resolve(&bucket(), &[]).expect("good").path_style);
        let own = [env[0], ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9001")];
        let settings = resolve(&bucket(), &own).expect("good");
        assert_eq!(
            settings.common.endpoint.as_deref(),
            Some("http://127.0.0.1:9001")
        );
    }

    #[test]
    fn an_invalid_configuration_is_refused_before_any_request() {
        let mut slow = bucket();
        slow.retry.attempt = slow.retry.budget;
        let config = |change: fn(&mut StorageConfig)| {
            let mut config = bucket();
            change(&mut config);
            config
        };
        for bad in [
            slow,
            config(|config| config.s3_bucket = Some("my/bucket".into())),
            config(|config| config.s3_region = Some("us-east-1.evil.example/".into())),
            config(|config| config.s3_region = Some(String::new())),
            config(|config| config.s3_prefix = Some("/absolute".into())),
            config(|config| config.s3_prefix = Some("a".repeat(301))),
            config(|config| config.s3_endpoint = Some("127.0.0.1:9000".into())),
            config(|config| config.s3_endpoint = Some("http://user:secret@host".into())),
            config(|config| config.max_object = Some(u64::MAX)),
        ] {
            let error = resolve(&bad, &[]).expect_err("it cannot work");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn parts_are_as_large_as_the_largest_object_needs() {
        assert_eq!(part(0).expect("good"), 8 << 20);
        assert_eq!(part(16 << 30).expect("good"), 8 << 20);
        let part = part(1 << 40).expect("good") as u64;
        assert!(part * 10_000 > 1 << 40, "{part}");
    }
}
