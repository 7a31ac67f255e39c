//! Settings that result from a config and the environment together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::credentials::Account;
use crate::storage::bucket::{self, check_endpoint, directory, not_an_endpoint, variable, wrong};
use crate::storage::names::check_gcs_bucket;
use crate::storage::secret::{redact, secret_in};
use crate::storage::{Endpoint, Result, Retry, StorageConfig};

/// Google's own.
pub(super) const GOOGLE: &str = "https://storage.googleapis.com";

/// Number of bytes that are sent in one request.
const PART: usize = 8 << 20;

/// The largest object that GCS takes.
const MAX_OBJECT: u64 = 5 << 40;

/// Settings that can work, as far as this can be known without asking.
#[derive(Debug)]
pub(super) struct Settings {
    /// Those that every provider has. `server` is the URL of the server, without a `/` at its end.
    pub(super) common: bucket::Settings,
    pub(super) account: Account,
    pub(super) kms_key: Option<String>,
}

impl Settings {
    /// The settings of `config`, with what `env` has where it says nothing.
    pub(super) fn new(
        config: &StorageConfig,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let path = |name: &str| env(name).filter(|value| !value.is_empty());
        let env = |name: &str| variable(name, env(name));
        let bucket = match &config.gcs_bucket {
            Some(bucket) => bucket.clone(),
            None => env("PERSIST_GCS_BUCKET")?
                .or(env("GCS_BUCKET")?)
                .ok_or_else(|| {
                    wrong("no bucket for snapshots")
                        .with_hint("set PERSIST_GCS_BUCKET, or write gs://bucket/prefix")
                })?,
        };
        check_gcs_bucket(&bucket)?;
        let prefix = match &config.gcs_prefix {
            Some(prefix) => directory(prefix)?,
            None => directory(&env("PERSIST_GCS_PREFIX")?.unwrap_or_default())
                .map_err(|error| error.about("PERSIST_GCS_PREFIX"))?,
        };
        let emulator = match config.gcs_endpoint {
            Some(_) => None,
            None => env("STORAGE_EMULATOR_HOST")?,
        };
        let is_emulator = emulator.is_some();
        let server = endpoint(config.gcs_endpoint.clone().or(emulator))?;
        let timeout = match config.gcs_timeout {
            Some(timeout) if timeout.is_zero() => return Err(wrong("gcs_timeout is zero")),
            Some(timeout) => Some(timeout),
            None => env("PERSIST_GCS_TIMEOUT")?
                .map(|text| seconds(&text))
                .transpose()?,
        };
        let kms_key = match &config.gcs_kms_key {
            Some(key) => Some(key.clone()),
            None => env("PERSIST_GCS_KMS_KEY")?,
        };
        if let Some(key) = &kms_key {
            check_kms_key(key)?;
        }
        if config.max_object.is_some_and(|most| most > MAX_OBJECT) {
            return Err(wrong("max_object is more than the maximum of GCS, 5 TiB"));
        }
        let account = if is_emulator {
            Account::Anonymous
        } else {
            account(config, &server, path("GOOGLE_APPLICATION_CREDENTIALS"))?
        };
        if let Some(host) = path("GCE_METADATA_HOST").filter(|_| account == Account::Default) {
            let host = host
                .to_str()
                .and_then(|host| Endpoint::parse(&format!("http://{host}")));
            host.ok_or_else(|| wrong("GCE_METADATA_HOST is not HOST or HOST:PORT"))?;
        }
        if server == GOOGLE {
            refuse_unsupported(env)?;
        }
        let is_own_server = Endpoint::parse(&server).is_some_and(|server| server.is_google());
        Ok(Self {
            account,
            kms_key,
            common: bucket::Settings {
                scheme: "gs",
                bucket,
                prefix,
                endpoint: Some(server.clone()).filter(|server| server != GOOGLE),
                server,
                is_own_server,
                retry: retry(config.retry, timeout)?,
                part: PART,
            },
        })
    }
}

/// Refuses settings of Google's own tools that ask for another server or connection than the usual
/// one.
fn refuse_unsupported(env: impl Fn(&str) -> Result<Option<String>>) -> Result<()> {
    if let Some(domain) = env("GOOGLE_CLOUD_UNIVERSE_DOMAIN")?
        && domain != "googleapis.com"
    {
        return Err(
            wrong("GOOGLE_CLOUD_UNIVERSE_DOMAIN names another cloud than Google's").with_hint(
                "set gcs_endpoint to the storage server of that cloud, or unset the variable",
            ),
        );
    }
    if env("GOOGLE_API_USE_CLIENT_CERTIFICATE")?.is_some_and(|value| value == "true") {
        return Err(wrong(
            "GOOGLE_API_USE_CLIENT_CERTIFICATE is set, and client certificates are not supported",
        )
        .with_hint(
            "unset it; if your organization demands client certificates, use a network \
                    that it exempts",
        ));
    }
    Ok(())
}

/// Binds an account to an endpoint, as the documentation of [`StorageConfig`] says.
fn account(config: &StorageConfig, endpoint: &str, file: Option<OsString>) -> Result<Account> {
    let named = config.gcs_credentials.as_deref();
    if let Some(file) = named {
        check_file("gcs_credentials", file)?;
    }
    let server = Endpoint::parse(endpoint).ok_or_else(not_an_endpoint)?;
    if server.is_google() {
        let Some(named) = named else {
            let file = file.map(PathBuf::from);
            if let Some(file) = &file {
                check_file("GOOGLE_APPLICATION_CREDENTIALS", file)?;
            }
            return Ok(file.map_or(Account::Default, Account::File));
        };
        return Ok(Account::File(named.into()));
    }
    let Some(named) = named else {
        return Ok(Account::Anonymous);
    };
    if config.endpoint_from_url {
        return Err(wrong(format!(
            "the credentials of the config are not sent to {server}: a URL names this endpoint"
        ))
        .with_hint(
            "set gcs_endpoint and gcs_credentials on the same config, and \
            endpoint_from_url to false",
        ));
    }
    if server.is_encrypted() || server.is_loopback() {
        Ok(Account::File(named.into()))
    } else {
        Err(wrong(format!(
            "no token is sent to {server}: it uses plain HTTP, where others could read the token"
        ))
        .with_hint("use https://, or name no credentials for this endpoint"))
    }
}

/// Refuses the content of a key file where its path belongs, and a path that ends in a line break.
fn check_file(name: &str, file: &Path) -> Result<()> {
    let text = file.to_string_lossy();
    if let Some(kind) = secret_in(&text) {
        return Err(wrong(format!(
            "{name} contains {kind} instead of a path (not shown)"
        ))
        .with_hint(
            "write the content to a file that only this account can read, and name that file",
        ));
    }
    if text.chars().any(char::is_control) {
        Err(wrong(format!("{name} contains a control character")))
    } else {
        Ok(())
    }
}

/// The policy with a time for each request, and time to send one again.
fn retry(mut retry: Retry, timeout: Option<Duration>) -> Result<Retry> {
    if let Some(timeout) = timeout {
        retry.attempt = timeout;
        if !retry.budget.is_zero() {
            retry.budget = retry.budget.max(timeout.saturating_mul(2));
        }
    }
    retry.check()?;
    Ok(retry)
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text
        .trim()
        .parse::<u64>()
        .ok()
        .filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        wrong(format!(
            "PERSIST_GCS_TIMEOUT is {:?}, not a number of seconds of at least 1",
            redact(text)
        ))
    })
}

/// The key becomes part of a URL, and is sent only to Google.
fn check_kms_key(key: &str) -> Result<()> {
    let names: Vec<_> = key.split('/').collect();
    match names.as_slice() {
        [
            "projects",
            p,
            "locations",
            l,
            "keyRings",
            r,
            "cryptoKeys",
            k,
        ] if [p, l, r, k].iter().all(|name| !name.is_empty())
            && secret_in(key).is_none()
            && !key.contains(char::is_control) =>
        {
            Ok(())
        }
        _ => Err(wrong(
            "PERSIST_GCS_KMS_KEY is not projects/P/locations/L/keyRings/R/cryptoKeys/K",
        )),
    }
}

/// Google's where nothing is said. `host:port` is `http://host:port`, as Google's other clients
/// read it.
fn endpoint(said: Option<String>) -> Result<String> {
    let Some(said) = said else {
        return Ok(GOOGLE.into());
    };
    let url = if said.contains("://") {
        said
    } else {
        format!("http://{said}")
    };
    let url = url.trim_end_matches('/');
    check_endpoint(url, b".-_:[]")?;
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Error, ErrorKind};

    fn resolve(config: &StorageConfig, env: &[(&str, &str)]) -> Result<Settings> {
        Settings::new(config, |name| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn bucket() -> StorageConfig {
        StorageConfig::gcs_with_bucket("my-bucket".into())
    }

    #[test]
    fn the_bucket_comes_from_config_then_environment() {
        let none = StorageConfig {
            gcs_bucket: None,
            ..bucket()
        };
        let both = [("GCS_BUCKET", "second"), ("PERSIST_GCS_BUCKET", "first")];
        let found = |config: &StorageConfig, env: &[(&str, &str)]| {
            resolve(config, env).expect("good").common.bucket
        };
        assert_eq!(found(&bucket(), &both), "my-bucket");
        assert_eq!(found(&none, &both), "first");
        assert_eq!(found(&none, &both[..1]), "second");
        let error = resolve(&none, &[]).expect_err("no bucket");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("PERSIST_GCS_BUCKET"), "{error}: {hint}");
    }

    #[test]
    fn the_prefix_of_the_environment_is_for_configs_that_say_none() {
        let env = [("PERSIST_GCS_PREFIX", "a/b/")];
        assert_eq!(
            resolve(&bucket(), &env).expect("good").common.prefix,
            "a/b/"
        );
        let url = StorageConfig::from_url("gs://my-bucket").expect("good");
        assert_eq!(resolve(&url, &env).expect("good").common.prefix, "");
        let own = StorageConfig::gcs_with_bucket_prefix_and_credentials(
            "my-bucket".into(),
            "own".into(),
            None,
        );
        assert_eq!(resolve(&own, &env).expect("good").common.prefix, "own/");
    }

    #[test]
    fn the_timeout_bounds_one_request_and_leaves_time_for_another() {
        let timeout = |env: &[(&str, &str)]| resolve(&bucket(), env).expect("good").common.retry;
        assert_eq!(timeout(&[]), Retry::default());
        let long = timeout(&[("PERSIST_GCS_TIMEOUT", "100")]);
        assert_eq!(long.attempt, Duration::from_secs(100));
        assert_eq!(long.budget, Duration::from_secs(200));
        for bad in ["0", "-1", "soon", "1.5", "30s"] {
            let error = resolve(&bucket(), &[("PERSIST_GCS_TIMEOUT", bad)]).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("PERSIST_GCS_TIMEOUT"), "{error}");
        }
    }

    #[test]
    fn credentials_come_from_config_then_environment_then_defaults() {
        let env = [("GOOGLE_APPLICATION_CREDENTIALS", "/env.json")];
        let account = |config: &StorageConfig, env: &[(&str, &str)]| {
            resolve(config, env).expect("good").account
        };
        let named =
            StorageConfig::gcs_with_bucket_and_credentials("my-bucket".into(), "/own.json".into());
        assert_eq!(account(&named, &env), Account::File("/own.json".into()));
        assert_eq!(account(&bucket(), &env), Account::File("/env.json".into()));
        assert_eq!(account(&bucket(), &[]), Account::Default);
        for host in [
            "127.0.0.1:4443",
            "https://127.0.0.1:4443",
            "https://gcs.example",
        ] {
            let emulator = [env[0], ("STORAGE_EMULATOR_HOST", host)];
            assert_eq!(account(&bucket(), &emulator), Account::Anonymous, "{host}");
            assert_eq!(account(&named, &emulator), Account::Anonymous, "{host}");
        }
    }

    #[test]
    fn an_endpoint_gets_the_credentials_that_are_named_with_it_and_no_others() {
        let env = [("GOOGLE_APPLICATION_CREDENTIALS", "/env.json")];
        let at = |endpoint: &str, named: bool| StorageConfig {
            gcs_endpoint: Some(endpoint.into()),
            gcs_credentials: named.then(|| "/own.json".into()),
            ..bucket()
        };
        let account = |config: &StorageConfig| Ok::<_, Error>(resolve(config, &env)?.account);
        let own = Account::File("/own.json".into());
        for host in [
            "http://gcs.example",
            "https://gcs.example",
            "https://127.0.0.1:1",
        ] {
            assert_eq!(account(&at(host, false)).expect(host), Account::Anonymous);
        }
        for host in [
            "https://gcs.example",
            "http://127.0.0.1:1",
            "https://storage.googleapis.com",
        ] {
            assert_eq!(account(&at(host, true)).expect(host), own);
        }
        account(&at("http://gcs.example", true)).expect_err("others could read the token");
        account(&at("http://storage.googleapis.com", true)).expect_err("plain HTTP");
        let mut url = at("https://gcs.example", true);
        url.endpoint_from_url = true;
        account(&url).expect_err("the URL names the endpoint");
        url.gcs_endpoint = Some("https://storage.googleapis.com".into());
        assert_eq!(account(&url).expect("Google's own"), own);
    }

    #[test]
    fn the_content_of_a_key_file_is_no_path() {
        for content in [
            "{\"type\": \"service_account\", \"private_key\": \"PLANTED\"}",
            "/key.json\n",
        ] {
            let env = [("GOOGLE_APPLICATION_CREDENTIALS", content)];
            let error = resolve(&bucket(), &env).expect_err(content);
            let said = error.to_string();
            assert!(said.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{said}");
            assert!(!said.contains("PLANTED"), "{said}");
        }
    }

    #[test]
    fn an_emulator_may_be_named_with_or_without_a_scheme() {
        let found = |env: &str| {
            let env = [("STORAGE_EMULATOR_HOST", env)];
            resolve(&bucket(), &env).expect("good").common.server
        };
        assert_eq!(found("127.0.0.1:4443"), "http://127.0.0.1:4443");
        assert_eq!(found("http://127.0.0.1:4443/"), "http://127.0.0.1:4443");
        assert_eq!(found("https://example.org"), "https://example.org");
        assert_eq!(resolve(&bucket(), &[]).expect("good").common.server, GOOGLE);
    }

    #[test]
    fn settings_of_google_that_are_not_supported_are_refused_by_name() {
        for (name, value) in [
            ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "apis.example"),
            ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true"),
        ] {
            let error = resolve(&bucket(), &[(name, value)]).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(name), "{error}");
            // They say nothing about an emulator.
            let emulator = [(name, value), ("STORAGE_EMULATOR_HOST", "127.0.0.1:1")];
            resolve(&bucket(), &emulator).expect(name);
        }
        let usual = [
            ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "googleapis.com"),
            ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "false"),
        ];
        resolve(&bucket(), &usual).expect("the usual values");
    }

    #[test]
    fn an_invalid_configuration_is_refused_before_any_request() {
        let config = |change: fn(&mut StorageConfig)| {
            let mut config = bucket();
            change(&mut config);
            config
        };
        for bad in [
            config(|config| config.gcs_bucket = Some("my/bucket".into())),
            config(|config| config.gcs_prefix = Some("/absolute".into())),
            config(|config| config.gcs_timeout = Some(Duration::ZERO)),
            config(|config| config.gcs_kms_key = Some("alias/secret".into())),
            config(|config| config.gcs_endpoint = Some("http://user:secret@host".into())),
            config(|config| config.gcs_endpoint = Some("ftp://host".into())),
            config(|config| config.max_object = Some(u64::MAX)),
        ] {
            let error = resolve(&bad, &[]).expect_err("it cannot work");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
