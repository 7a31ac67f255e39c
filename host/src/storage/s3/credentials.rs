//! Whose account it is: found when first needed, kept until they expire, and found anew where they are refused.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region};
use tokio::sync::Mutex;

use super::settings::Settings;
use super::{innermost, unlogged};
use crate::storage::retry::{Attempt, Fault, Next};
use crate::storage::{Error, ErrorKind};

/// A machine that is none of Amazon's does not answer at all where their machines are asked.
const SEARCH: Duration = Duration::from_secs(10);

/// Credentials that expire sooner than this are looked up again.
const EARLY: Duration = Duration::from_secs(5 * 60);

const PLACES: &str = "the environment (AWS_ACCESS_KEY_ID), the profile files (~/.aws/credentials, ~/.aws/config), a web \
     identity (AWS_WEB_IDENTITY_TOKEN_FILE), a container's (AWS_CONTAINER_CREDENTIALS_FULL_URI) and an EC2 machine's";

/// Where credentials come from. Shows none of them.
pub(super) struct Source {
    fixed: Option<Credentials>,
    /// The only place to look, where one is named.
    profile: Option<String>,
    region: Region,
    found: Mutex<Option<Credentials>>,
}

impl Source {
    pub(super) fn new(settings: &Settings, region: Region) -> Self {
        let fixed = settings.credentials.as_ref();
        let fixed = fixed.map(|fixed| {
            Credentials::new(
                &fixed.access_key_id,
                &fixed.secret_access_key,
                fixed.session_token.clone(),
                None,
                "config",
            )
        });
        Self {
            fixed,
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

    /// A chain of its own each time: the SDK's remembers what the profile files said when it was made.
    async fn search(&self) -> Result<Credentials, CredentialsError> {
        let search = async {
            let region = self.region.clone();
            match &self.profile {
                Some(profile) => {
                    let config = ProviderConfig::default().with_region(Some(region));
                    let profile = ProfileFileCredentialsProvider::builder().profile_name(profile);
                    profile
                        .configure(&config)
                        .build()
                        .provide_credentials()
                        .await
                }
                None => {
                    let chain = DefaultCredentialsChain::builder().region(region);
                    chain.build().await.provide_credentials().await
                }
            }
        };
        match tokio::time::timeout(SEARCH, unlogged(search)).await {
            Ok(found) => found,
            Err(_) => Err(CredentialsError::provider_timed_out(SEARCH)),
        }
    }

    /// The search has retries of its own, where it asks a server: no call is sent again for it.
    fn fault(&self, error: &CredentialsError) -> Fault {
        let (mut what, hint) = match &self.profile {
            Some(profile) => (
                format!(
                    "no AWS credentials in the profile {profile} (~/.aws/credentials, ~/.aws/config)"
                ),
                "make the profile with `aws configure --profile`, or name another one",
            ),
            None => (
                format!("no AWS credentials in {PLACES}"),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            ),
        };
        match error {
            CredentialsError::CredentialsNotLoaded(_) => {}
            CredentialsError::ProviderTimedOut(_) => {
                what += &format!(", the last of which did not answer in {SEARCH:?}");
            }
            error => what = format!("{what}: {}", innermost(error)),
        }
        let error = Error::new(ErrorKind::Unauthenticated, what).with_hint(hint);
        Fault::new(Next::GiveUp, error)
    }
}

fn lasts(credentials: &Credentials, time: Duration) -> bool {
    match credentials.expiry() {
        Some(expiry) => expiry > SystemTime::now() + time,
        None => true,
    }
}

/// What the SDK asks at each call.
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
