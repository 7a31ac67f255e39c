//! Profiles of `~/.aws`: which server each belongs to, and whether its keys can be used.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aws_config::profile::{Profile, ProfileSet};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::property::PropertiesKey;
use aws_types::os_shim_internal::{Env, Fs};

use super::keys::check_key;
use crate::storage::secret::redact;
use crate::storage::{Environment, Error, ErrorKind, Result};

/// The longest chain of `source_profile` that is followed.
const MAX_CHAIN: usize = 16;

/// The profile that is used where none is named.
pub(super) const DEFAULT: &str = "default";

/// Names of the keys of a profile beside those of endpoint, region and credentials; `s3.` begins
/// those that are nested below `s3`.
const KEYS: [&str; 14] = [
    "auth_scheme_preference",
    "ca_bundle",
    "ec2_instance_profile_name",
    "ec2_metadata_service_endpoint",
    "ec2_metadata_service_endpoint_mode",
    "ignore_configured_endpoint_urls",
    "request_checksum_calculation",
    "s3.addressing_style",
    "s3.signature_version",
    "s3.use_accelerate_endpoint",
    "s3.use_dualstack_endpoint",
    "sdk_ua_app_id",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
];

/// The profile files: the variable that names each, and its default below the home directory.
const FILES: [(EnvConfigFileKind, &str, &str); 2] = [
    (EnvConfigFileKind::Config, "AWS_CONFIG_FILE", ".aws/config"),
    (
        EnvConfigFileKind::Credentials,
        "AWS_SHARED_CREDENTIALS_FILE",
        ".aws/credentials",
    ),
];

/// Reads the profile files that an environment names, or those of its home directory.
///
/// # Errors
/// [`ErrorKind::Config`] where a file that a variable names cannot be read. One that is absent
/// counts as empty.
pub(super) fn files(environment: &Environment) -> Result<EnvConfigFiles> {
    let home = environment.get("HOME").map(PathBuf::from);
    let mut files = EnvConfigFiles::builder();
    for (kind, variable, default) in FILES {
        let (path, is_named) = match (environment.get(variable), &home) {
            (Some(path), home) => (Some(expand(Path::new(path), home.as_deref())), true),
            (None, Some(home)) => (Some(home.join(default)), false),
            (None, None) => (None, false),
        };
        let content = match path.map(std::fs::read) {
            Some(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Err(error)) if is_named && error.kind() != io::ErrorKind::NotFound => {
                let what = format!("the file of {variable} cannot be read: {}", error.kind());
                return Err(Error::new(ErrorKind::Config, what).with_hint(format!(
                    "correct {variable}, or the permissions of the file"
                )));
            }
            // A home that is another account's is usual in containers.
            Some(Err(_)) | None => String::new(),
        };
        files = files.with_contents(kind, content);
    }
    Ok(files.build())
}

/// Expands a `~/` at the beginning of a path.
fn expand(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.into(),
    }
}

/// Reads the profiles of an environment.
///
/// # Errors
/// [`ErrorKind::Config`] where the files cannot be understood.
pub(super) fn load(environment: &Environment) -> Result<ProfileSet> {
    parse(&files(environment)?)
}

/// Parses the profile files.
fn parse(files: &EnvConfigFiles) -> Result<ProfileSet> {
    let fs = Fs::real();
    let env = Env::real();
    // The SDK reads without waiting, and logs names of profiles.
    let loaded =
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            let loading = pin!(aws_config::profile::load(&fs, &env, files, None));
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

/// Another program that provides the keys of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    /// Single sign-on, whose token `aws sso login` gets.
    SingleSignOn,
    /// The program of `credential_process`.
    Process,
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
    /// Set if its keys come from single sign-on or a program.
    pub(super) helper: Option<Helper>,
    /// Set if Amazon's STS or single sign-on is asked for its keys.
    pub(super) asks_service: bool,
    /// The way to its keys that is not built in, if they come by one.
    pub(super) unsupported: Option<&'static str>,
    /// Values of [`KEYS`].
    pub(super) settings: BTreeMap<&'static str, String>,
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
            helper: chain(profiles, profile).find_map(helper),
            asks_service: chain(profiles, profile)
                .any(|profile| takes_role(profile) || helper(profile) == Some(SSO)),
            unsupported: chain(profiles, profile).find_map(unsupported),
            settings: KEYS
                .iter()
                .filter_map(|key| Some((*key, setting(profile, key)?)))
                .collect(),
        }
    }
}

const SSO: Helper = Helper::SingleSignOn;

/// Returns the value of a key; of `s3.KEY`, that of a key that is nested below `s3`.
fn setting(profile: &Profile, key: &str) -> Option<String> {
    let value = match key.split_once('.') {
        None => profile.get(key)?,
        Some((section, key)) => {
            let lines = profile.get(section)?.lines();
            let mut pairs = lines.filter_map(|line| line.split_once('='));
            pairs.find(|(name, _)| name.trim() == key)?.1
        }
    };
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn takes_role(profile: &Profile) -> bool {
    profile.get("role_arn").is_some()
}

/// Returns the program that provides the keys of one profile. The SDK asks for a role first.
fn helper(profile: &Profile) -> Option<Helper> {
    let has = |key| profile.get(key).is_some();
    if takes_role(profile) {
        None
    } else if ["sso_account_id", "sso_session", "sso_start_url"]
        .into_iter()
        .any(has)
    {
        Some(SSO)
    } else if has("credential_process") {
        Some(Helper::Process)
    } else {
        None
    }
}

/// Returns the way to the keys of one profile that is not built in.
fn unsupported(profile: &Profile) -> Option<&'static str> {
    let has = |key| profile.get(key).is_some();
    if takes_role(profile) && has("mfa_serial") {
        return Some("needs an MFA code to take its role (mfa_serial)");
    }
    let comes_first = takes_role(profile) || helper(profile) == Some(SSO);
    (has("login_session") && !comes_first).then_some("uses `aws login` (login_session)")
}

/// Returns the profiles that the keys of a profile come from, the profile itself first.
fn chain<'a>(profiles: &'a ProfileSet, profile: &'a Profile) -> impl Iterator<Item = &'a Profile> {
    let next = move |profile: &&'a Profile| {
        let source = profile
            .get("source_profile")
            .filter(|_| takes_role(profile))?;
        if source == profile.name() {
            return None;
        }
        // The SDK says which profile is missing.
        profiles.get_profile(source)
    };
    std::iter::successors(Some(profile), next).take(MAX_CHAIN)
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
    for (depth, profile) in chain(profiles, profile).enumerate() {
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
        let other = service(profiles, profile, "sts").or_else(|| profile.get("endpoint_url"));
        if other.is_some() && (takes_role(profile) || depth > 0) {
            return Some(format!(
                "the AWS profile {name:?} names an endpoint_url, and its keys would be sent to \
                 Amazon's STS to take a role; \
                 take the role with another tool and set AWS_ACCESS_KEY_ID, or name the endpoint \
                 in a profile without role_arn"
            ));
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Parses the content of a config file.
    pub(in crate::storage::s3) fn parse(config: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder()
            .with_contents(EnvConfigFileKind::Config, config)
            .build();
        super::parse(&files).expect("profiles")
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

    #[test]
    fn the_way_to_the_keys_of_a_profile_is_found_through_its_chain() {
        let profiles = parse(
            "
[profile sso]
sso_session = ours
sso_account_id = 1
[profile process]
credential_process = /bin/true
[profile login]
login_session = arn:aws:iam::1:user/x
[profile role-of-sso]
role_arn = arn:aws:iam::1:role/x
source_profile = sso
[profile mfa]
role_arn = arn:aws:iam::1:role/x
source_profile = process
mfa_serial = arn:aws:iam::1:mfa/x
[profile role-of-login]
role_arn = arn:aws:iam::1:role/x
source_profile = login
[profile plain]
s3 =
  addressing_style = path
  max_concurrent_requests = 3
",
        );
        let find = |name| Named::find(&profiles, name);
        for (name, helper, asks_service) in [
            ("sso", Some(SSO), true),
            ("role-of-sso", Some(SSO), true),
            ("process", Some(Helper::Process), false),
            ("mfa", Some(Helper::Process), true),
            ("plain", None, false),
        ] {
            let found = find(name);
            assert_eq!(
                (found.helper, found.asks_service),
                (helper, asks_service),
                "{name}"
            );
        }
        let unsupported = |name| find(name).unsupported.unwrap_or_default();
        assert!(unsupported("mfa").contains("mfa_serial"));
        for name in ["login", "role-of-login"] {
            assert!(unsupported(name).contains("login_session"), "{name}");
        }
        for name in ["sso", "process", "plain"] {
            assert_eq!(unsupported(name), "", "{name}");
        }
        let settings = find("plain").settings;
        assert_eq!(settings["s3.addressing_style"], "path");
        assert_eq!(settings.len(), 1, "{settings:?}");
    }

    #[test]
    fn the_profile_files_are_those_of_the_environment() {
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, region: &str| {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            let content = format!("[default]\nregion = {region}\n");
            std::fs::write(&path, content).expect("written");
        };
        write(".aws/config", "of-home");
        write("other", "of-variable");
        let region = |variables: &[(&str, &str)]| {
            let home = home.path().to_str().expect("UTF-8");
            let environment = std::iter::once(("HOME", home)).chain(variables.iter().copied());
            let profiles = load(&environment.collect()).expect("profiles");
            Named::find(&profiles, DEFAULT).region
        };
        assert_eq!(region(&[]).as_deref(), Some("of-home"));
        let other = region(&[("AWS_CONFIG_FILE", "~/other")]);
        assert_eq!(other.as_deref(), Some("of-variable"));
        assert_eq!(region(&[("AWS_CONFIG_FILE", "/nonexistent")]), None);
        let directory = home.path().to_str().expect("UTF-8");
        let unreadable = Environment::from_iter([("AWS_CONFIG_FILE", directory)]);
        let error = load(&unreadable).expect_err("a directory");
        assert!(error.to_string().contains("AWS_CONFIG_FILE"), "{error}");
    }
}
