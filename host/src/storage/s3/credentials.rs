//! Whose account it is: found when first needed, kept until they expire, and found anew where they
//! are refused.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region, SharedHttpClient};
use tokio::sync::Mutex;

use super::http::Trust;
use super::keys::check_key;
use super::profiles::{self, Helper, Named};
use super::settings::{Account, Settings};
use super::shared_config::Machine;
use crate::storage::bucket::{innermost, unlogged};
use crate::storage::retry::{Attempt, AttemptError, RetryDecision};
use crate::storage::secret::redact;
use crate::storage::{self, Environment, Error, ErrorKind};

/// A machine that is none of Amazon's does not answer at all where their machines are asked.
const SEARCH: Duration = Duration::from_secs(10);

/// The program of a `credential_process` may ask a person.
const PROCESS: Duration = Duration::from_secs(60);

/// Credentials that expire sooner than this are looked up again.
const EARLY: Duration = Duration::from_secs(5 * 60);

const PLACES: &str = "the environment (AWS_ACCESS_KEY_ID), the profile files (~/.aws/credentials, \
    ~/.aws/config), a web \
     identity (AWS_WEB_IDENTITY_TOKEN_FILE), a container's (AWS_CONTAINER_CREDENTIALS_FULL_URI) \
     and an EC2 machine's";

/// The variables that hold a key.
const VARIABLES: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// Returns the value of a variable; none where it is blank.
fn text<'a>(environment: &'a Environment, name: &str) -> Result<Option<&'a str>, CredentialsError> {
    match environment.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Some(None) => Err(refused(format!("{name} is not UTF-8"))),
    }
}

/// Returns the keys that variables hold; none where one is missing.
fn of_environment(environment: &Environment) -> Result<Option<Credentials>, CredentialsError> {
    let [id, key, token] = VARIABLES.map(|name| {
        let value = text(environment, name)?;
        if let Some(why) = value.and_then(|value| check_key(value).err()) {
            return Err(refused(format!("{name} {why}")));
        }
        Ok(value.map(str::to_owned))
    });
    let (Some(id), Some(key), token) = (id?, key?, token?) else {
        return Ok(None);
    };
    // Keys that need a token are refused without it.
    if token.is_none() && text(environment, "AWS_SECURITY_TOKEN")?.is_some() {
        return Err(refused(
            "AWS_SECURITY_TOKEN is the old name of AWS_SESSION_TOKEN, which is not set; set \
             AWS_SESSION_TOKEN",
        ));
    }
    Ok(Some(Credentials::new(id, key, token, None, "environment")))
}

/// Credentials that were refused before they were used, and why.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A way to credentials that is not built in.
#[derive(Debug)]
struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

fn refused(why: impl Into<String>) -> CredentialsError {
    CredentialsError::invalid_configuration(Refused(why.into()))
}

/// Source of credentials. Its debug output shows none of them.
pub(super) struct Source {
    fixed: Option<Credentials>,
    account: Account,
    /// The profile that is asked, and what it said when this was made.
    profile: Option<(String, Named)>,
    places: Arc<Places>,
    found: Mutex<Option<Credentials>>,
}

/// The places that are asked, and how.
struct Places {
    environment: Environment,
    region: Region,
    use_fips: bool,
    use_dual_stack: bool,
    machine: Machine,
    /// For services of Amazon's.
    client: SharedHttpClient,
    /// For the metadata services.
    direct_client: SharedHttpClient,
}

impl Source {
    /// The source that `settings` names; servers are trusted by `trust`.
    pub(super) fn new(
        settings: &Settings,
        environment: &Environment,
        trust: &Trust,
    ) -> storage::Result<Self> {
        let fixed = match &settings.account {
            Account::Fixed(fixed) => Some(Credentials::new(
                &fixed.access_key_id,
                &fixed.secret_access_key,
                fixed.session_token.clone(),
                None,
                "config",
            )),
            _ => None,
        };
        let shared = &settings.shared;
        Ok(Self {
            fixed,
            account: settings.account.clone(),
            profile: settings.profile.clone(),
            places: Arc::new(Places {
                environment: environment.clone(),
                region: Region::new(settings.region.clone()),
                use_fips: shared.use_fips,
                use_dual_stack: shared.use_dual_stack,
                machine: shared.machine.clone(),
                client: trust.client()?,
                direct_client: trust.direct_client()?,
            }),
            found: Mutex::new(None),
        })
    }

    /// Makes sure that there are some, so that a call that has none says so.
    pub(super) async fn ready(&self) -> Attempt<()> {
        match self.get().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Looks them up anew. Whether others were found than those that were refused.
    pub(super) async fn renew(&self) -> bool {
        if self.fixed.is_some() {
            return false;
        }
        let mut found = self.found.lock().await;
        match self.search().await {
            Ok(new) => {
                let others = found.as_ref() != Some(&new);
                *found = Some(new);
                others
            }
            Err(_) => false,
        }
    }

    async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Some(fixed) = &self.fixed {
            return Ok(fixed.clone());
        }
        let mut found = self.found.lock().await;
        if let Some(kept) = found.as_ref().filter(|kept| lasts(kept, EARLY)) {
            return Ok(kept.clone());
        }
        match (self.search().await, &*found) {
            (Ok(new), _) => Ok(found.insert(new).clone()),
            (Err(_), Some(old)) if lasts(old, Duration::ZERO) => Ok(old.clone()),
            (Err(error), _) => Err(error),
        }
    }

    /// Looks in the places that are allowed for this endpoint.
    async fn search(&self) -> Result<Credentials, CredentialsError> {
        if let Some((name, said)) = &self.profile {
            let says = profiles::load(&self.places.environment);
            let says = says.map(|profiles| Named::find(&profiles, name));
            let says = says.map_err(|error| refused(error.to_string()))?;
            if says.endpoint != said.endpoint {
                return Err(refused(format!(
                    "the AWS profile {name:?} has another endpoint than when this process \
                     started; restart it"
                )));
            }
            if let Some(problem) = says.problem {
                return Err(refused(problem));
            }
            if let Some(why) = says.unsupported {
                return Err(CredentialsError::invalid_configuration(Unsupported(
                    format!(
                        "the AWS profile {:?} {why}, which is not built in",
                        redact(name)
                    ),
                )));
            }
        }
        let profile = self.profile.as_ref().map(|profile| profile.0.clone());
        let places = Arc::clone(&self.places);
        let account = self.account.clone();
        let search = async move { places.look(&account, profile).await };
        let limit = match self.helper() {
            Some(Helper::Process) => PROCESS,
            _ => SEARCH,
        };
        // In a task of its own, so that a server's odd answer cannot end the caller's.
        let mut task = tokio::spawn(unlogged(search));
        let found = match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(found)) => found?,
            Ok(Err(_)) => return Err(refused("the search for AWS credentials failed")),
            Err(_) => {
                task.abort();
                return Err(CredentialsError::provider_timed_out(limit));
            }
        };
        for (what, key) in [
            ("access key ID", Some(found.access_key_id())),
            ("secret access key", Some(found.secret_access_key())),
            ("session token", found.session_token()),
        ] {
            if let Some(why) = key.and_then(|key| check_key(key).err()) {
                return Err(refused(format!(
                    "the {what} of the AWS credentials that were found {why}"
                )));
            }
        }
        Ok(found)
    }

    /// Returns the program that provides the keys of the profile.
    fn helper(&self) -> Option<Helper> {
        self.profile.as_ref()?.1.helper
    }

    /// The search has retries of its own, where it asks a server: no call is sent again for it.
    fn fault(&self, error: &CredentialsError) -> AttemptError {
        let (mut what, mut hint) = match (&self.account, &self.profile) {
            (Account::Profile, Some((profile, _))) => (
                format!(
                    "no AWS credentials in the profile {profile:?} (~/.aws/credentials, \
                     ~/.aws/config)"
                ),
                "create the profile with `aws configure --profile`, or name another one",
            ),
            (Account::Environment, _) => (
                "no AWS credentials in the environment".into(),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ),
            _ => (
                format!("no AWS credentials in {PLACES}"),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            ),
        };
        let cause = innermost(error);
        match error {
            _ if let Some((name, said)) = &self.profile
                && !said.is_there
                && (self.account == Account::Profile || name != profiles::DEFAULT) =>
            {
                what = format!(
                    "the AWS profile {name:?} is not in ~/.aws/config or ~/.aws/credentials"
                );
                hint = "correct AWS_PROFILE or the URL, or create the profile with `aws configure \
                        --profile`";
            }
            CredentialsError::CredentialsNotLoaded(_) => {}
            CredentialsError::ProviderTimedOut(_) => {
                what += &match self.helper() {
                    Some(Helper::Process) => {
                        format!(": the program of credential_process did not end in {PROCESS:?}")
                    }
                    _ => format!(", the last of which did not respond in {SEARCH:?}"),
                };
            }
            _ if cause.is::<Refused>() => {
                what = cause.to_string();
                hint = "correct the credentials";
            }
            _ if cause.is::<Unsupported>() => {
                what = cause.to_string();
                hint = "run `eval \"$(aws configure export-credentials --format env)\"` first, \
                    with --profile for another profile";
            }
            _ if let Some(helper) = self.helper() => {
                // A program may write anything.
                let cause = cause.to_string();
                what = format!("{what}: {}", redact(&cause));
                hint = match helper {
                    Helper::SingleSignOn => {
                        "run `aws sso login`, with --profile for another profile"
                    }
                    Helper::Process => {
                        "correct the program that credential_process names in ~/.aws/config"
                    }
                };
            }
            _ => what = format!("{what}: {cause}"),
        }
        let error = Error::new(ErrorKind::Unauthenticated, what).with_hint(hint);
        AttemptError::new(RetryDecision::Stop, error)
    }
}

impl Places {
    /// Asks the places of `account` for credentials, each time anew: the SDK's providers remember
    /// what the profile files said when they were made.
    async fn look(
        &self,
        account: &Account,
        profile: Option<String>,
    ) -> Result<Credentials, CredentialsError> {
        let profile = profile.unwrap_or_else(|| profiles::DEFAULT.into());
        if *account == Account::Profile {
            return self.profile(profile)?.provide_credentials().await;
        }
        if let Some(found) = of_environment(&self.environment)? {
            return Ok(found);
        }
        if *account == Account::Environment {
            let variables = VARIABLES.join(", ");
            return Err(CredentialsError::not_loaded(format!(
                "{variables}: not set"
            )));
        }
        let mut chain = CredentialsProviderChain::first_try("Profile", self.profile(profile)?);
        if let Some(identity) = self.web_identity()? {
            chain = chain.or_else("WebIdentityToken", identity);
        }
        chain = chain.or_else("EcsContainer", self.container());
        if !self.machine.is_disabled {
            chain = chain.or_else("Ec2InstanceMetadata", self.machine()?);
        }
        chain.provide_credentials().await
    }

    /// Returns the settings of requests to services of Amazon's.
    fn config(&self) -> ProviderConfig {
        ProviderConfig::default()
            .with_region(Some(self.region.clone()))
            .with_use_fips(Some(self.use_fips))
            .with_use_dual_stack(Some(self.use_dual_stack))
            .with_http_client(self.client.clone())
    }

    /// Returns the settings of requests to the metadata services.
    fn direct_config(&self) -> ProviderConfig {
        self.config().with_http_client(self.direct_client.clone())
    }

    fn profile(&self, name: String) -> Result<ProfileFileCredentialsProvider, CredentialsError> {
        let files = profiles::files(&self.environment);
        let files = files.map_err(|error| refused(error.to_string()))?;
        let mut profile = ProfileFileCredentialsProvider::builder()
            .profile_name(name)
            .profile_files(files)
            .configure(&self.config())
            .with_custom_provider("EcsContainer", self.container())
            .with_custom_provider("Ec2InstanceMetadata", self.machine()?);
        if let Some(keys) = of_environment(&self.environment)? {
            profile = profile.with_custom_provider("Environment", keys);
        }
        Ok(profile.build())
    }

    fn web_identity(
        &self,
    ) -> Result<Option<WebIdentityTokenCredentialsProvider>, CredentialsError> {
        let file = text(&self.environment, "AWS_WEB_IDENTITY_TOKEN_FILE")?;
        let role = text(&self.environment, "AWS_ROLE_ARN")?;
        let (Some(file), Some(role)) = (file, role) else {
            return Ok(None);
        };
        let session = text(&self.environment, "AWS_ROLE_SESSION_NAME")?;
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let session = session.map_or_else(
            || format!("persist-{}", seconds.unwrap_or_default().as_secs()),
            str::to_owned,
        );
        let identity = WebIdentityTokenCredentialsProvider::builder()
            .configure(&self.config())
            .static_configuration(StaticConfiguration {
                web_identity_token_file: file.into(),
                role_arn: role.into(),
                session_name: session,
            });
        Ok(Some(identity.build()))
    }

    /// Returns the provider of a container's credentials. It reads its variables by itself.
    fn container(&self) -> EcsCredentialsProvider {
        let container = EcsCredentialsProvider::builder();
        container.configure(&self.direct_config()).build()
    }

    /// Returns the provider of the credentials of an EC2 machine.
    fn machine(&self) -> Result<ImdsCredentialsProvider, CredentialsError> {
        let config = self.direct_config();
        let Machine {
            endpoint,
            endpoint_mode,
            instance_profile,
            ..
        } = &self.machine;
        let mut client = imds::Client::builder().configure(&config);
        if let Some(endpoint) = endpoint {
            client = client.endpoint(endpoint).map_err(|_| {
                refused("the setting AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL; correct it")
            })?;
        } else if let Some(mode) = endpoint_mode {
            let mode = mode.parse().map_err(|_| {
                refused(
                    "the setting AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is not IPv4 or IPv6; \
                     correct it",
                )
            })?;
            client = client.endpoint_mode(mode);
        }
        let mut machine = ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(client.build());
        if let Some(profile) = instance_profile {
            machine = machine.profile(profile);
        }
        Ok(machine.build())
    }
}

fn lasts(credentials: &Credentials, time: Duration) -> bool {
    match credentials.expiry() {
        Some(expiry) => expiry > SystemTime::now() + time,
        None => true,
    }
}

/// Credentials provider that the SDK asks at each call.
#[derive(Debug)]
pub(super) struct Provider(pub(super) Arc<Source>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.get())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source { .. }")
    }
}
