//! Whose account it is: found when first needed, kept until it expires, and found anew where it is
//! refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag, anonymous, external_account,
    impersonated, mds, service_account, user_account,
};
use google_cloud_auth::errors::CredentialsError;
use http::{Extensions, HeaderMap};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::storage::bucket::{innermost, unlogged};
use crate::storage::retry::{Attempt, AttemptError, RetryDecision};
use crate::storage::{Environment, Error, ErrorKind};

/// A machine that is none of Google's does not answer at all where their machines are asked.
const SEARCH: Duration = Duration::from_secs(8);

/// Waits before each request to the metadata server: that of a cluster may start after its pods.
const WAITS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// The narrowest scope that can make, read, list and delete objects.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// Directory of gcloud below the home of the account, and its file of application default
/// credentials.
const GCLOUD: &str = ".config/gcloud";
const WELL_KNOWN: &str = "application_default_credentials.json";

/// Source of the account's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Requests carry no credentials.
    Anonymous,
    /// Of any of the kinds that Google's tools write.
    File(PathBuf),
    /// gcloud's file, then the metadata server.
    Default,
}

/// Source of credentials. Its debug output shows none of them.
pub(super) struct Source {
    account: Account,
    /// gcloud's own file.
    well_known: Option<PathBuf>,
    /// The project that is billed for requests.
    quota_project: Option<String>,
    /// False where the environment forbids to ask the metadata server.
    asks_machine: bool,
    found: Mutex<Option<Credentials>>,
}

impl Source {
    pub(super) fn new(account: Account, environment: &Environment) -> Self {
        Self {
            account,
            well_known: well_known(environment),
            quota_project: quota_project(environment),
            asks_machine: environment
                .get("NO_GCE_CHECK")
                .is_none_or(|value| value != "true"),
            found: Mutex::new(None),
        }
    }

    /// Returns the headers with the credentials that a request carries.
    pub(super) async fn headers(&self) -> Attempt<HeaderMap> {
        let credentials = self.get().await?;
        headers(&credentials).await
    }

    /// Looks them up anew. Whether others were found than those that were refused.
    pub(super) async fn renew(&self) -> bool {
        if self.account == Account::Anonymous {
            return false;
        }
        let refused = self.headers().await.ok();
        let Ok(new) = self.find().await else {
            return false;
        };
        let Ok(fresh) = headers(&new).await else {
            return false;
        };
        *self.found.lock().await = Some(new);
        refused != Some(fresh)
    }

    async fn get(&self) -> Attempt<Credentials> {
        let mut found = self.found.lock().await;
        match &*found {
            Some(kept) => Ok(kept.clone()),
            None => Ok(found.insert(self.find().await?).clone()),
        }
    }

    async fn find(&self) -> Attempt<Credentials> {
        let built = match &self.account {
            Account::Anonymous => return Ok(anonymous::Builder::new().build()),
            Account::File(path) => of_file(&known(path).await?, self.quota_project.as_deref()),
            Account::Default => match self.well_known.as_deref().filter(|path| path.exists()) {
                Some(path) => of_file(&known(path).await?, self.quota_project.as_deref()),
                None if self.asks_machine => {
                    return of_machine(self.quota_project.as_deref()).await;
                }
                None => {
                    let what = "no Google credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, \
                                gcloud has none, and NO_GCE_CHECK forbids to ask the metadata \
                                server";
                    let error = unauthenticated(what.into());
                    return Err(AttemptError::new(RetryDecision::Stop, error));
                }
            },
        };
        built.map_err(|error| {
            let what = format!("invalid Google credentials: {}", innermost(&error));
            AttemptError::new(RetryDecision::Stop, unauthenticated(what))
        })
    }
}

/// Returns the place of gcloud's own file.
fn well_known(environment: &Environment) -> Option<PathBuf> {
    let dir = match environment.get("CLOUDSDK_CONFIG") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(environment.get("HOME")?).join(GCLOUD),
    };
    Some(dir.join(WELL_KNOWN))
}

/// Asks the metadata server, and gives up within seconds: a machine that has none is the usual
/// case.
async fn of_machine(quota_project: Option<&str>) -> Attempt<Credentials> {
    let mut machine = mds::Builder::default().with_scopes([SCOPE]);
    if let Some(project) = quota_project {
        machine = machine.with_quota_project_id(project);
    }
    let built = machine.build();
    let credentials = built.map_err(|error| {
        let what = format!("invalid Google credentials: {}", innermost(&error));
        AttemptError::new(RetryDecision::Stop, unauthenticated(what))
    })?;
    let ask = async {
        let mut last = None;
        for wait in WAITS {
            tokio::time::sleep(wait).await;
            match headers(&credentials).await {
                Ok(_) => return None,
                Err(fault) if fault.next == RetryDecision::BackoffBriefly => last = Some(fault),
                Err(fault) => return Some(fault),
            }
        }
        last
    };
    let why = match tokio::time::timeout(SEARCH, ask).await {
        Ok(None) => return Ok(credentials),
        Ok(Some(fault)) => fault.error.to_string(),
        Err(_) => format!("the metadata server did not respond in {SEARCH:?}"),
    };
    tracing::debug!(why, "no Google credentials were found");
    let what = "no Google credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, gcloud has \
                none, and no metadata server of GCE, GKE or Cloud Run responds";
    Err(AttemptError::new(
        RetryDecision::Stop,
        unauthenticated(what.into()),
    ))
}

/// The file is small; its content is in no error.
async fn read(path: &Path) -> Attempt<Value> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(owned)).await;
    let wrong = |what: &str| {
        let what = format!("the credentials file {} {what}", path.display());
        AttemptError::new(RetryDecision::Stop, unauthenticated(what))
    };
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(wrong(&format!("cannot be read: {}", error.kind()))),
        Err(_) => return Err(wrong("cannot be read")),
    };
    serde_json::from_slice(&bytes).map_err(|_| wrong("is not JSON"))
}

/// Reads a file of a kind that can be used.
async fn known(path: &Path) -> Attempt<Value> {
    let json = read(path).await?;
    match refuse_kind(&json) {
        None => Ok(json),
        Some((what, hint)) => {
            let what = format!("the credentials file {} {what}", path.display());
            let error = unauthenticated(what).with_hint(hint);
            Err(AttemptError::new(RetryDecision::Stop, error))
        }
    }
}

/// Returns what is wrong with the kind of a credentials file, and what to do; none for the kinds
/// that are built in.
fn refuse_kind(json: &Value) -> Option<(String, &'static str)> {
    const OTHER: &str = "use the file of a service account, or run `gcloud auth \
        application-default login`";
    let kind = json.get("type").and_then(Value::as_str);
    let is_client = ["installed", "web"]
        .iter()
        .any(|key| json.get(*key).is_some());
    let (what, hint) = match kind {
        Some(
            "authorized_user"
            | "external_account"
            | "impersonated_service_account"
            | "service_account",
        ) => return None,
        Some("gdch_service_account") => (
            "is of an account of Google Distributed Cloud, which is not supported".into(),
            "its object storage speaks the protocol of S3: use s3:// with its keys and endpoint",
        ),
        Some("external_account_authorized_user") => (
            "is of a workforce login in a browser, which is not supported".into(),
            "use a file of the type external_account, or impersonate a service account: `gcloud \
             auth application-default login --impersonate-service-account=ACCOUNT`",
        ),
        None if is_client => (
            "is of an OAuth client, which is no account".into(),
            "run `gcloud auth application-default login --client-id-file=FILE` with it, and set \
             GOOGLE_APPLICATION_CREDENTIALS to the file that this writes",
        ),
        None => ("has no type, so it is no file of credentials".into(), OTHER),
        Some(kind) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let is_word = kind.len() <= 64 && kind.bytes().all(plain);
            let kind = if is_word { kind } else { "(not shown)" };
            (format!("has the unknown type {kind}"), OTHER)
        }
    };
    Some((what, hint))
}

/// Builds what a file says it is. A user's token has the scopes that the user granted: asking for
/// others is refused.
fn of_file(
    json: &Value,
    quota_project: Option<&str>,
) -> Result<Credentials, google_cloud_auth::build_errors::Error> {
    /// Adds the project that is billed, where the environment names one.
    macro_rules! billed {
        ($builder:expr) => {
            match quota_project {
                Some(project) => $builder.with_quota_project_id(project),
                None => $builder,
            }
        };
    }
    let json = json.clone();
    match json.get("type").and_then(Value::as_str) {
        Some("authorized_user") => billed!(user_account::Builder::new(json)).build(),
        Some("external_account") => {
            let account = billed!(external_account::Builder::new(json));
            account.with_scopes([SCOPE]).build()
        }
        Some("impersonated_service_account") => {
            let account = billed!(impersonated::Builder::new(json));
            account.with_scopes([SCOPE]).build()
        }
        _ => {
            let account = billed!(service_account::Builder::new(json));
            let scopes = AccessSpecifier::from_scopes([SCOPE]);
            account.with_access_specifier(scopes).build()
        }
    }
}

/// Returns the project that is billed for requests, where the environment names one that a header
/// can hold.
fn quota_project(environment: &Environment) -> Option<String> {
    let project = environment.get("GOOGLE_CLOUD_QUOTA_PROJECT")?.to_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
    (!project.is_empty() && project.bytes().all(plain)).then(|| project.to_owned())
}

async fn headers(credentials: &Credentials) -> Attempt<HeaderMap> {
    let asked = unlogged(credentials.headers(Extensions::new()));
    match tokio::time::timeout(SEARCH, asked).await {
        Ok(Ok(CacheableResource::New { data, .. })) => Ok(data),
        Ok(Ok(CacheableResource::NotModified)) => Ok(HeaderMap::new()),
        Ok(Err(error)) => Err(fault(&error)),
        Err(_) => {
            let what = format!("no Google credentials in {SEARCH:?}");
            Err(AttemptError::new(
                RetryDecision::Stop,
                unauthenticated(what),
            ))
        }
    }
}

fn fault(error: &CredentialsError) -> AttemptError {
    let next = if error.is_transient() {
        RetryDecision::BackoffBriefly
    } else {
        RetryDecision::Stop
    };
    let what = format!("cannot get Google credentials: {}", innermost(error));
    AttemptError::new(next, unauthenticated(what))
}

fn unauthenticated(what: String) -> Error {
    let hint = "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run \
        `gcloud auth \
                application-default login`";
    Error::new(ErrorKind::Unauthenticated, what).with_hint(hint)
}

/// Credentials provider that the crate asks at each call.
#[derive(Debug)]
pub(super) struct Provider(pub(super) Arc<Source>);

impl CredentialsProvider for Provider {
    async fn headers(
        &self,
        _: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let data = self.0.headers().await.map_err(|fault| {
            let again = fault.next == RetryDecision::BackoffBriefly;
            CredentialsError::from_msg(again, fault.error.to_string())
        })?;
        Ok(CacheableResource::New {
            entity_tag: EntityTag::new(),
            data,
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source { .. }")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn the_file_of_gcloud_is_found_where_its_directory_was_moved_to() {
        let place = |variables: &[(&str, &str)]| {
            well_known(&Environment::from_iter(variables.iter().copied()))
        };
        let home = ("HOME", "/home/me");
        let usual = "/home/me/.config/gcloud/application_default_credentials.json";
        assert_eq!(place(&[home]), Some(usual.into()));
        let moved = "/etc/gcloud/application_default_credentials.json";
        assert_eq!(
            place(&[home, ("CLOUDSDK_CONFIG", "/etc/gcloud")]),
            Some(moved.into())
        );
        assert_eq!(place(&[]), None);
    }

    #[test]
    fn the_metadata_server_is_not_asked_where_that_is_forbidden() {
        let environment = Environment::from_iter([("NO_GCE_CHECK", "true")]);
        let found = block_on(Source::new(Account::Default, &environment).headers());
        let failed = found.expect_err("there is no account");
        assert_eq!(failed.next, RetryDecision::Stop);
        let said = failed.error.to_string();
        assert!(said.contains("NO_GCE_CHECK"), "{said}");
    }

    #[test]
    fn a_kind_of_credentials_is_used_or_refused_by_name() {
        for kind in [
            "authorized_user",
            "external_account",
            "impersonated_service_account",
            "service_account",
        ] {
            assert_eq!(refuse_kind(&json!({ "type": kind })), None, "{kind}");
        }
        for (file, what, hint) in [
            (
                json!({ "type": "gdch_service_account", "private_key": "PLANTED" }),
                "Google Distributed Cloud",
                "s3://",
            ),
            (
                json!({ "type": "external_account_authorized_user" }),
                "workforce",
                "--impersonate-service-account",
            ),
            (
                json!({ "installed": { "client_secret": "PLANTED" } }),
                "OAuth client",
                "--client-id-file",
            ),
            (json!({ "web": {} }), "OAuth client", "--client-id-file"),
            (json!({}), "no type", "gcloud auth"),
            (json!(["PLANTED"]), "no type", "gcloud auth"),
            (
                json!({ "type": "oauth_2" }),
                "unknown type oauth_2",
                "gcloud auth",
            ),
            (
                json!({ "type": "PLANTED KEY" }),
                "unknown type (not shown)",
                "gcloud auth",
            ),
        ] {
            let (said, advice) = refuse_kind(&file).expect("is refused");
            assert!(said.contains(what), "{said}");
            assert!(advice.contains(hint), "{advice}");
            assert!(!said.contains("PLANTED"), "{said}");
        }
    }
}
