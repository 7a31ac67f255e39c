//! What a config and the environment say together.

use std::ffi::OsString;

use crate::storage::config::{check_bucket, check_prefix};
use crate::storage::{Error, ErrorKind, Result, Retry, S3Credentials, S3Encryption, StorageConfig};

/// Where nobody says a region.
const DEFAULT_REGION: &str = "us-east-1";

/// The smallest part, and the most of them: S3 takes 10,000, of at least 5 MiB each but for the last.
const MIN_PART: u64 = 8 << 20;
const PARTS: u64 = 9000;

/// The largest part that S3 takes.
const MAX_PART: u64 = 5 << 30;

/// Settings that can work, as far as this can be known without asking.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) bucket: String,
    pub(super) region: String,
    /// What keys begin with: empty, or ending in `/`.
    pub(super) prefix: String,
    pub(super) endpoint: Option<String>,
    pub(super) path_style: bool,
    pub(super) encryption: S3Encryption,
    pub(super) credentials: Option<S3Credentials>,
    /// The only profile to find them in.
    pub(super) profile: Option<String>,
    pub(super) retry: Retry,
    /// Length of each part of an upload but the last, in bytes.
    pub(super) part: usize,
}

impl Settings {
    /// The settings of `config`, with what `env` has where it says nothing.
    pub(super) fn new(
        config: &StorageConfig,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let env = |name: &str| match env(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
            Some(Err(_)) => Err(wrong(format!("{name} is not UTF-8"))),
        };
        let bucket = match &config.s3_bucket {
            Some(bucket) => bucket.clone(),
            None => env("AWS_S3_BUCKET")?.ok_or_else(|| {
                wrong(
                    "no bucket for snapshots; set AWS_S3_BUCKET, or name it in s3://bucket/prefix",
                )
            })?,
        };
        check_bucket(&bucket)?;
        let region = match &config.s3_region {
            Some(region) => region.clone(),
            None => env("AWS_REGION")?.unwrap_or_else(|| DEFAULT_REGION.into()),
        };
        check_region(&region)?;
        let prefix = check_prefix(config.s3_prefix.as_deref().unwrap_or_default())?;
        let endpoint = match &config.s3_endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None => env("AWS_ENDPOINT_URL_S3")?.or(env("AWS_ENDPOINT_URL")?),
        };
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint)?;
        }
        let encryption = match &config.s3_encryption {
            S3Encryption::Bucket => {
                env("PERSIST_S3_KMS_KEY")?.map_or(S3Encryption::Bucket, S3Encryption::Kms)
            }
            said => said.clone(),
        };
        config.retry.check()?;
        Ok(Self {
            bucket,
            region,
            prefix: prefix.map_or_else(String::new, |prefix| prefix + "/"),
            path_style: config.s3_path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            encryption,
            credentials: config.s3_credentials.clone(),
            profile: config.s3_profile.clone(),
            retry: config.retry,
            part: part(config.max_object.unwrap_or_default())?,
        })
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// A region becomes part of a host's name.
fn check_region(region: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=40).contains(&region.len()) && region.bytes().all(plain) {
        true => Ok(()),
        false => Err(wrong(format!(
            "{region:?} is not a region; they look like us-east-1"
        ))),
    }
}

/// Refuses what would send credentials elsewhere than it looks, or nowhere.
fn check_endpoint(endpoint: &str) -> Result<()> {
    let host = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"));
    let good = host.is_some_and(|host| {
        !host.is_empty()
            && !host.starts_with(['/', ':'])
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte))
    });
    match good {
        true => Ok(()),
        // It may hold a password, so it is not shown.
        false => Err(wrong(
            "the endpoint is not the URL of a server; write https://host or http://host:port, without user or query",
        )),
    }
}

fn part(max_object: u64) -> Result<usize> {
    let part = max_object.div_ceil(PARTS).max(MIN_PART);
    usize::try_from(part)
        .ok()
        .filter(|_| part <= MAX_PART)
        .ok_or_else(|| wrong(format!("max_object is {max_object}, more than S3 takes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: &StorageConfig, env: &[(&str, &str)]) -> Result<Settings> {
        Settings::new(config, |name| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn bucket() -> StorageConfig {
        StorageConfig::s3_with_bucket("my-bucket".into())
    }

    #[test]
    fn the_region_is_that_of_the_config_then_of_the_environment_then_us_east_1() {
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
    fn the_bucket_is_that_of_the_config_then_of_the_environment_and_never_guessed() {
        let env = [("AWS_S3_BUCKET", "other-bucket")];
        assert_eq!(resolve(&bucket(), &env).expect("good").bucket, "my-bucket");
        let none = StorageConfig {
            s3_bucket: None,
            ..bucket()
        };
        assert_eq!(resolve(&none, &env).expect("good").bucket, "other-bucket");
        let error = resolve(&none, &[]).expect_err("no bucket");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("AWS_S3_BUCKET"), "{error}");
    }

    #[test]
    fn an_endpoint_of_ones_own_means_path_style_unless_said_otherwise() {
        let env = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")];
        let settings = resolve(&bucket(), &env).expect("good");
        assert!(settings.path_style && settings.endpoint.is_some());
        let virtual_hosts = StorageConfig {
            s3_path_style: Some(false),
            ..bucket()
        };
        assert!(!resolve(&virtual_hosts, &env).expect("good").path_style);
        assert!(!resolve(&bucket(), &[]).expect("good").path_style);
        let own = [env[0], ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9001")];
        let settings = resolve(&bucket(), &own).expect("good");
        assert_eq!(settings.endpoint.as_deref(), Some("http://127.0.0.1:9001"));
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_asked() {
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
