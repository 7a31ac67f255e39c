//! Whose account it is: found when first needed, kept until they expire, and found anew where they
//! are refused.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region};
use tokio::sync::Mutex;

use super::keys::check_key;
use super::profiles::{self, Named};
use super::settings::{Account, Settings};
use crate::storage::bucket::{innermost, unlogged};
use crate::storage::retry::{Attempt, AttemptError, RetryDecision};
use crate::storage::{Error, ErrorKind};

/// A machine that is none of Amazon's does not answer at all where their machines are asked.
const SEARCH: Duration = Duration::from_secs(10);

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

/// Refuses variables that hold what cannot be a key.
fn check_variables() -> Result<(), String> {
    for name in VARIABLES {
        let Some(value) = env::var_os(name) else {
            continue;
        };
        match value.to_str() {
            // As if it were not set.
            Some(value) if value.trim().is_empty() => {}
            Some(value) => check_key(value).map_err(|why| format!("{name} {why}"))?,
            None => return Err(format!("{name} is not UTF-8")),
        }
    }
    Ok(())
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

fn refused(why: impl Into<String>) -> CredentialsError {
    CredentialsError::invalid_configuration(Refused(why.into()))
}

/// Source of credentials. Its debug output shows none of them.
pub(super) struct Source {
    fixed: Option<Credentials>,
    account: Account,
    /// The profile that is asked, and what it said when this was made.
    profile: Option<(String, Named)>,
    region: Region,
    found: Mutex<Option<Credentials>>,
}

impl Source {
    pub(super) fn new(settings: &Settings, region: Region) -> Self {
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
        Self {
            fixed,
            account: settings.account.clone(),
            profile: settings.profile.clone(),
            region,
            found: Mutex::new(None),
        }
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

    /// Looks in the places that are allowed for this endpoint, each time anew: the SDK's chain
    /// remembers what the profile files said when it was made.
    async fn search(&self) -> Result<Credentials, CredentialsError> {
        if self.account != Account::Profile {
            check_variables().map_err(refused)?;
        }
        if let Some((name, said)) = &self.profile {
            let says = profiles::load().map(|profiles| Named::find(&profiles, name));
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
        }
        let profile = self.profile.as_ref().map(|profile| profile.0.clone());
        let search = look(self.account.clone(), profile, self.region.clone());
        // In a task of its own, so that a server's odd answer cannot end the caller's.
        let mut task = tokio::spawn(unlogged(search));
        let found = match tokio::time::timeout(SEARCH, &mut task).await {
            Ok(Ok(found)) => found?,
            Ok(Err(_)) => return Err(refused("the search for AWS credentials failed")),
            Err(_) => {
                task.abort();
                return Err(CredentialsError::provider_timed_out(SEARCH));
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
                what += &format!(", the last of which did not respond in {SEARCH:?}");
            }
            _ if cause.is::<Refused>() => {
                what = cause.to_string();
                hint = "correct the credentials";
            }
            _ if self
                .profile
                .as_ref()
                .is_some_and(|(_, said)| said.needs_helper) =>
            {
                what = format!(
                    "{what}: the profile uses single sign-on or a program, which is not built in"
                );
                hint = "run `eval \"$(aws configure export-credentials --format env)\"` first, \
                    with --profile for another profile";
            }
            _ => what = format!("{what}: {cause}"),
        }
        let error = Error::new(ErrorKind::Unauthenticated, what).with_hint(hint);
        AttemptError::new(RetryDecision::Stop, error)
    }
}

/// Asks the places of `account` for credentials.
async fn look(
    account: Account,
    profile: Option<String>,
    region: Region,
) -> Result<Credentials, CredentialsError> {
    match (account, profile) {
        (Account::Environment, _) => {
            let environment = EnvironmentVariableCredentialsProvider::new();
            environment.provide_credentials().await
        }
        (Account::Profile, Some(profile)) => {
            let config = ProviderConfig::default().with_region(Some(region));
            let profile = ProfileFileCredentialsProvider::builder().profile_name(profile);
            let profile = profile.configure(&config).build();
            profile.provide_credentials().await
        }
        _ => {
            let chain = DefaultCredentialsChain::builder().region(region);
            chain.build().await.provide_credentials().await
        }
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
