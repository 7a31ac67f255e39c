//! Credentials that the file of settings binds to endpoints.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use persist_host::storage::{Environment, S3Credentials, StorageConfig, redact, secret_in};

use super::path::in_dir;

use crate::error::Usage;

/// The credentials that one endpoint may be sent: a table `[endpoints."host:port"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// The server as `host:port`, or `host` where the port is the usual one.
    pub(crate) host: String,
    /// The profile of `~/.aws` that has its keys.
    profile: Option<String>,
    /// Takes its keys from the environment.
    is_environment: bool,
    /// Allows AWS keys to be sent there through plain HTTP.
    allow_http: bool,
    gcs_credentials: Option<PathBuf>,
}

impl Binding {
    /// Parses the table `endpoints`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(super) fn parse(endpoints: toml::Value) -> Result<Vec<Self>, String> {
        let toml::Value::Table(endpoints) = endpoints else {
            return Err("endpoints is not a table, as in [endpoints.\"host:port\"]".into());
        };
        let bindings = endpoints.into_iter().map(|(host, values)| {
            let place = format!("endpoints.{:?}", redact(&host));
            if let Some(kind) = secret_in(&host) {
                return Err(format!(
                    "{place} contains {kind} instead of host:port (not shown)"
                ));
            }
            if host.contains("://") || host.contains(['/', '@', ' ']) {
                return Err(format!(
                    "{place} is not host:port without scheme, path and user"
                ));
            }
            let toml::Value::Table(values) = values else {
                return Err(format!("{place} is not a table"));
            };
            let mut binding = Self {
                host,
                ..Self::default()
            };
            for (key, value) in values {
                binding
                    .set(&key, value)
                    .map_err(|why| format!("{place}: {why}"))?;
            }
            Ok(binding)
        });
        bindings.collect()
    }

    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        let text = value.as_str().map(str::to_owned);
        if let Some(kind) = text.as_deref().and_then(secret_in) {
            let key = redact(key);
            return Err(format!(
                "{key} contains {kind}, which does not belong there (not shown)"
            ));
        }
        match (key, text, value) {
            ("profile", Some(text), _) => self.profile = Some(text),
            ("gcs_credentials", Some(text), _) => self.gcs_credentials = Some(text.into()),
            ("credential_source", Some(text), _) if text == "environment" => {
                self.is_environment = true;
            }
            ("credential_source", ..) => {
                return Err("credential_source is not \"environment\", the only value".into());
            }
            ("allow_http", _, toml::Value::Boolean(allow)) => self.allow_http = allow,
            ("allow_http", ..) => return Err("allow_http is neither true nor false".into()),
            ("profile" | "gcs_credentials", ..) => return Err(format!("{key} is not a string")),
            (key, ..) => {
                let key = redact(key);
                return Err(format!(
                    "{key:?} is not a key of an endpoint: the keys are profile, credential_source, \
                     allow_http and gcs_credentials"
                ));
            }
        }
        if self.profile.is_some() && self.is_environment {
            return Err("profile and credential_source exclude each other".into());
        }
        Ok(())
    }

    /// Resolves paths of a file in `dir`.
    pub(super) fn resolve(&mut self, dir: &Path) -> Result<()> {
        if let Some(path) = &self.gcs_credentials {
            self.gcs_credentials = Some(in_dir(dir, path, "gcs_credentials")?);
        }
        Ok(())
    }

    /// Says of a config what it may send to `endpoint`.
    pub(super) fn bind_s3(
        &self,
        config: &mut StorageConfig,
        endpoint: Option<String>,
        environment: &Environment,
    ) -> Result<()> {
        if self.allow_http {
            let more = config.s3_allow_http.take().map(|more| format!(",{more}"));
            config.s3_allow_http = Some(self.host.clone() + &more.unwrap_or_default());
        }
        let said = config.s3_profile.as_deref();
        if let (Some(said), Some(bound)) = (said, &self.profile)
            && said != bound
        {
            return Err(Usage::new(format!(
                "the URL names another profile than {bound:?}, which persist.toml binds to {}",
                self.host
            ))
            .into());
        }
        if let Some(profile) = &self.profile {
            config.s3_profile = Some(profile.clone());
        } else if self.is_environment && said.is_none() {
            config.s3_credentials = Some(keys_of(environment)?);
        } else {
            return Ok(());
        }
        config.s3_endpoint = endpoint;
        config.endpoint_from_url = false;
        Ok(())
    }

    /// Says of a config what it may send to `endpoint`. Returns whether there is something.
    pub(super) fn bind_gcs(&self, config: &mut StorageConfig, endpoint: Option<String>) -> bool {
        let Some(credentials) = &self.gcs_credentials else {
            return false;
        };
        config.gcs_credentials = Some(credentials.clone());
        config.gcs_endpoint = endpoint;
        config.endpoint_from_url = false;
        true
    }

    /// Shows it on one line.
    pub(crate) fn shown(&self) -> String {
        let mut parts = Vec::new();
        if let Some(profile) = &self.profile {
            parts.push(format!("profile={profile}"));
        }
        if self.is_environment {
            parts.push("credential_source=environment".into());
        }
        if self.allow_http {
            parts.push("allow_http=true".into());
        }
        if let Some(path) = &self.gcs_credentials {
            parts.push(format!("gcs_credentials={}", path.display()));
        }
        parts.join(" ")
    }
}

/// Returns the AWS keys of an environment.
fn keys_of(environment: &Environment) -> Result<S3Credentials> {
    let value = |name| match environment.get(name).map(OsStr::to_str) {
        Some(None) => Err(Usage::new(format!("{name} is not UTF-8"))),
        value => Ok(value.flatten().map(str::to_owned)),
    };
    let needed = |name| {
        value(name)?.ok_or_else(|| {
            Usage::new(format!(
                "{name} is not set, but persist.toml binds it to the endpoint"
            ))
        })
    };
    let credentials = S3Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?,
        needed("AWS_SECRET_ACCESS_KEY")?,
    );
    Ok(credentials.with_session_token(value("AWS_SESSION_TOKEN")?))
}
