//! Settings of the shared configuration of Amazon's SDKs: variables of the environment, and keys of
//! a profile. `docs/src/s3.md` lists all of them.

use aws_sdk_s3::config::AppName;
use std::path::Path;

use super::http::Trust;
use super::profiles::Named;
use crate::storage::bucket::wrong;
use crate::storage::secret::{redact, secret_in};
use crate::storage::{Result, S3Checksums};

/// A value, and the setting that has it.
#[derive(Clone, Debug)]
struct Value {
    text: String,
    name: String,
}

impl Value {
    /// Returns the error of a value that the setting cannot have.
    fn refuse<T>(&self, expected: &str) -> Result<T> {
        let Self { text, name } = self;
        Err(wrong(format!("{name} is {:?}: {expected}", redact(text))))
    }

    fn is_true(&self) -> Result<bool> {
        match self.text.trim() {
            text if text.eq_ignore_ascii_case("true") => Ok(true),
            text if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => self.refuse("it must be true or false"),
        }
    }
}

/// Sources of a setting: the environment before the profile.
pub(super) struct Sources<'a, E> {
    pub(super) env: E,
    /// Name of the profile.
    pub(super) name: &'a str,
    pub(super) profile: &'a Named,
}

impl<E: Fn(&str) -> Result<Option<String>>> Sources<'_, E> {
    /// Returns the value of a variable, or of a key of the profile. An empty name is no source.
    fn get(&self, variable: &str, keys: &[&'static str]) -> Result<Option<Value>> {
        let found = match (self.env)(variable)? {
            Some(text) => Some((text, variable.to_owned())),
            None => keys.iter().find_map(|key| {
                let text = self.profile.settings.get(*key)?.clone();
                let profile = redact(self.name);
                Some((text, format!("{key} of the AWS profile {profile:?}")))
            }),
        };
        let Some((text, name)) = found else {
            return Ok(None);
        };
        if let Some(kind) = secret_in(&text) {
            return Err(wrong(format!(
                "{name} contains {kind}, which does not belong there (not shown)"
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(wrong(format!("{name} contains a control character")));
        }
        Ok(Some(Value { text, name }))
    }

    fn flag(&self, variable: &str, keys: &[&'static str]) -> Result<Option<Value>> {
        let Some(value) = self.get(variable, keys)? else {
            return Ok(None);
        };
        Ok(value.is_true()?.then_some(value))
    }

    /// Returns true if endpoints of the environment and of profiles are not used.
    pub(super) fn ignores_endpoints(&self) -> Result<bool> {
        let ignores = self.flag(
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            &["ignore_configured_endpoint_urls"],
        )?;
        Ok(ignores.is_some())
    }
}

/// Values of the shared configuration, beside region, endpoint and credentials.
#[derive(Debug)]
pub(super) struct SharedConfig {
    pub(super) use_fips: bool,
    pub(super) use_dual_stack: bool,
    pub(super) use_accelerate: bool,
    /// Set if the bucket is named in the path, or not, rather than as the endpoint needs it.
    pub(super) path_style: Option<bool>,
    pub(super) checksums: Option<S3Checksums>,
    pub(super) app_name: Option<AppName>,
    pub(super) trust: Option<Trust>,
    pub(super) machine: Machine,
}

/// Settings of the metadata service of an EC2 machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) is_disabled: bool,
    pub(super) endpoint: Option<String>,
    /// `IPv4` or `IPv6`.
    pub(super) endpoint_mode: Option<String>,
    /// Name of the instance profile, which the service is asked for otherwise.
    pub(super) instance_profile: Option<String>,
}

impl SharedConfig {
    /// Reads and checks the settings. `endpoint` is the server that requests go to instead of
    /// Amazon's.
    pub(super) fn new<E: Fn(&str) -> Result<Option<String>>>(
        sources: &Sources<'_, E>,
        endpoint: Option<&str>,
    ) -> Result<Self> {
        let fips = sources.flag("AWS_USE_FIPS_ENDPOINT", &["use_fips_endpoint"])?;
        let dual_stack = sources.flag(
            "AWS_USE_DUALSTACK_ENDPOINT",
            &["use_dualstack_endpoint", "s3.use_dualstack_endpoint"],
        )?;
        let accelerate = sources.flag("", &["s3.use_accelerate_endpoint"])?;
        for value in [&fips, &dual_stack, &accelerate].into_iter().flatten() {
            if let Some(endpoint) = endpoint {
                return Err(wrong(format!(
                    "{} asks for an endpoint of Amazon's, but the endpoint is {endpoint}",
                    value.name
                ))
                .with_hint(format!("unset {}, or the endpoint", value.name)));
            }
        }
        if let (Some(fips), Some(accelerate)) = (&fips, &accelerate) {
            return Err(wrong(format!(
                "{} and {} exclude each other: S3 has no such endpoint",
                fips.name, accelerate.name
            ))
            .with_hint(format!("unset {}", accelerate.name)));
        }
        signature(sources)?;
        let path_style = match sources.get("", &["s3.addressing_style"])? {
            None => None,
            Some(value) => match value.text.trim() {
                "auto" => None,
                "path" => Some(true),
                "virtual" => Some(false),
                _ => return value.refuse("it must be auto, path or virtual"),
            },
        };
        let checksums = sources.get(
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            &["request_checksum_calculation"],
        )?;
        let checksums = checksums
            .map(|value| S3Checksums::parse(&value.text).map_err(|error| error.about(&value.name)));
        let app_name = sources.get("AWS_SDK_UA_APP_ID", &["sdk_ua_app_id"])?;
        let app_name = app_name.map(|value| match AppName::new(value.text.clone()) {
            Ok(name) => Ok(name),
            Err(_) => value.refuse("it must have letters, digits and !#$%&'*+-.^_`|~ alone"),
        });
        let trust = sources.get("AWS_CA_BUNDLE", &["ca_bundle"])?;
        let trust = trust.map(|value| Trust::of_file(&value.name, Path::new(&value.text)));
        Ok(Self {
            use_fips: fips.is_some(),
            use_dual_stack: dual_stack.is_some(),
            use_accelerate: accelerate.is_some(),
            path_style,
            checksums: checksums.transpose()?,
            app_name: app_name.transpose()?,
            trust: trust.transpose()?,
            machine: Machine::new(sources)?,
        })
    }
}

impl Machine {
    fn new<E: Fn(&str) -> Result<Option<String>>>(sources: &Sources<'_, E>) -> Result<Self> {
        let text = |variable, key| -> Result<Option<String>> {
            let value = sources.get(variable, &[key])?;
            Ok(value.map(|value| value.text.trim().to_owned()))
        };
        // The SDK takes everything but `true` for `false`.
        let disabled = sources.get("AWS_EC2_METADATA_DISABLED", &[])?;
        Ok(Self {
            is_disabled: disabled
                .is_some_and(|value| value.text.trim().eq_ignore_ascii_case("true")),
            endpoint: text(
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                "ec2_metadata_service_endpoint",
            )?,
            endpoint_mode: text(
                "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                "ec2_metadata_service_endpoint_mode",
            )?,
            instance_profile: text("AWS_EC2_INSTANCE_PROFILE_NAME", "ec2_instance_profile_name")?,
        })
    }
}

/// Refuses settings that demand another signature than SigV4.
fn signature<E: Fn(&str) -> Result<Option<String>>>(sources: &Sources<'_, E>) -> Result<()> {
    if let Some(value) = sources.get("", &["s3.signature_version"])?
        && !["s3v4", "v4"].contains(&value.text.trim())
    {
        return value.refuse("requests are signed with s3v4, the only version that is built in");
    }
    if let Some(value) = sources.get("AWS_AUTH_SCHEME_PREFERENCE", &["auth_scheme_preference"])?
        && !value
            .text
            .split(',')
            .any(|scheme| ["sigv4", "aws.auth#sigv4"].contains(&scheme.trim()))
    {
        return value.refuse("requests are signed with sigv4, the only scheme that is built in");
    }
    Ok(())
}
