//! Profiles of `~/.aws`: which server each belongs to, and whether its keys can be used.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aws_config::profile::{Profile, ProfileSet};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_runtime::env_config::property::PropertiesKey;
use aws_types::os_shim_internal::{Env, Fs};

use super::keys::check_key;
use crate::storage::secret::redact;
use crate::storage::{Error, ErrorKind, Result};

/// The longest chain of `source_profile` that is followed.
const MAX_CHAIN: usize = 16;

/// Settings of a profile whose keys come from another program.
const HELPERS: [&str; 5] = [
    "credential_process",
    "login_session",
    "sso_account_id",
    "sso_session",
    "sso_start_url",
];

/// The profile that is used where none is named.
pub(super) const DEFAULT: &str = "default";

/// Reads the profile files as the SDK reads them.
///
/// # Errors
/// [`ErrorKind::Config`] where they cannot be understood.
pub(super) fn load() -> Result<ProfileSet> {
    let fs = Fs::real();
    let env = Env::real();
    let files = EnvConfigFiles::default();
    // The SDK reads files without waiting, and logs what is in the variables that name them.
    let loaded =
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            let loading = pin!(aws_config::profile::load(&fs, &env, &files, None));
            match loading.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(loaded) => loaded.map_err(|error| error.to_string()),
                Poll::Pending => Err("timed out".into()),
            }
        });
    loaded.map_err(|error| {
        let what = format!("the AWS profile files cannot be read: {}", redact(&error));
        Error::new(ErrorKind::Config, what).with_hint(
            "correct the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name",
        )
    })
}

/// Settings of a profile beside its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// The server for S3.
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    /// The reason that forbids the use of its keys, if any.
    pub(super) problem: Option<String>,
    /// Set if the files have it.
    pub(super) is_there: bool,
    /// Set if its keys come from single sign-on or a program, which are not built in.
    pub(super) needs_helper: bool,
}

impl Named {
    /// Looks up the profile `name`. One that is not there says nothing.
    pub(super) fn find(profiles: &ProfileSet, name: &str) -> Self {
        let Some(profile) = profiles.get_profile(name) else {
            return Self::default();
        };
        let value = |key| profile.get(key).filter(|value| !value.is_empty());
        Self {
            endpoint: service(profiles, profile, "s3")
                .or_else(|| value("endpoint_url"))
                .map(str::to_owned),
            region: value("region").map(str::to_owned),
            problem: problem(profiles, profile),
            is_there: true,
            needs_helper: HELPERS.iter().any(|key| profile.get(key).is_some()),
        }
    }
}

/// Returns the endpoint that the `services` section of a profile names for one service.
fn service<'a>(profiles: &'a ProfileSet, profile: &'a Profile, service: &str) -> Option<&'a str> {
    let key = PropertiesKey::builder()
        .section_key("services")
        .section_name(profile.get("services")?)
        .property_name(service)
        .sub_property_name("endpoint_url")
        .build();
    let endpoint = profiles.other_sections().get(&key.ok()?)?;
    Some(endpoint.as_str()).filter(|endpoint| !endpoint.is_empty())
}

/// Follows the profiles that the keys of a profile come from, and returns what forbids their use:
/// Amazon's STS is asked for a role with keys that may belong to another server.
fn problem(profiles: &ProfileSet, profile: &Profile) -> Option<String> {
    let mut profile = profile;
    for depth in 0..MAX_CHAIN {
        let name = redact(profile.name()).into_owned();
        for key in [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ] {
            if let Some(why) = profile.get(key).and_then(|value| check_key(value).err()) {
                return Some(format!("{key} of the AWS profile {name:?} {why}"));
            }
        }
        let takes_role = profile.get("role_arn").is_some();
        let other = service(profiles, profile, "sts").or_else(|| profile.get("endpoint_url"));
        if other.is_some() && (takes_role || depth > 0) {
            return Some(format!(
                "the AWS profile {name:?} names an endpoint_url, and its keys would be sent to \
                 Amazon's STS to take a role; \
                 take the role with another tool and set AWS_ACCESS_KEY_ID, or name the endpoint \
                 in a profile without role_arn"
            ));
        }
        let source = profile.get("source_profile").filter(|_| takes_role)?;
        if source == profile.name() {
            return None;
        }
        // The SDK says which profile is missing.
        profile = profiles.get_profile(source)?;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use aws_runtime::env_config::file::EnvConfigFileKind;

    /// Parses the content of a config file.
    pub(in crate::storage::s3) fn parse(config: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder()
            .with_contents(EnvConfigFileKind::Config, config)
            .build();
        let fs = Fs::real();
        let env = Env::real();
        let loading = pin!(aws_config::profile::load(&fs, &env, &files, None));
        match loading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(loaded) => loaded.expect("profiles"),
            Poll::Pending => panic!("nothing is waited for"),
        }
    }

    const CONFIG: &str = "
[default]
region = eu-west-1
[profile minio]
endpoint_url = https://minio.example
[profile services]
services = ours
endpoint_url = https://general.example
[services ours]
s3 =
  endpoint_url = https://s3.example
[profile role-of-minio]
role_arn = arn:aws:iam::1:role/x
source_profile = minio
[profile role-and-endpoint]
role_arn = arn:aws:iam::1:role/x
source_profile = default
endpoint_url = https://minio.example
[profile role-for-s3]
role_arn = arn:aws:iam::1:role/x
source_profile = default
services = ours
[profile loop]
role_arn = arn:aws:iam::1:role/x
source_profile = loop
[profile bad]
aws_access_key_id = AKIA\u{1}
";

    #[test]
    fn a_profile_names_its_endpoint_by_itself_or_through_services() {
        let profiles = parse(CONFIG);
        let endpoint = |name| Named::find(&profiles, name).endpoint;
        assert_eq!(endpoint("default"), None);
        assert_eq!(endpoint("nosuch"), None);
        assert_eq!(endpoint("minio").as_deref(), Some("https://minio.example"));
        assert_eq!(endpoint("services").as_deref(), Some("https://s3.example"));
        let region = Named::find(&profiles, "default").region;
        assert_eq!(region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn keys_of_another_server_are_not_used_to_take_a_role_at_amazon() {
        let profiles = parse(CONFIG);
        let problem = |name| Named::find(&profiles, name).problem;
        for bad in ["role-of-minio", "role-and-endpoint", "bad"] {
            assert!(problem(bad).is_some(), "{bad}");
        }
        for good in ["default", "minio", "services", "role-for-s3", "loop"] {
            assert_eq!(problem(good), None, "{good}");
        }
        assert_eq!(
            Named::find(&profiles, "role-for-s3").endpoint.as_deref(),
            Some("https://s3.example")
        );
    }
}
