//! Settings of a bucket that every provider has.

#[cfg(any(feature = "s3", feature = "gcs"))]
use std::ffi::OsString;

use crate::storage::names::check_prefix;
#[cfg(any(feature = "s3", feature = "gcs"))]
use crate::storage::{Error, ErrorKind};
use crate::storage::{Result, Retry};

/// Settings that can work, as far as this can be known without asking.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Scheme of URLs that name a bucket of this provider, such as `s3`.
    pub scheme: &'static str,
    /// Name of the bucket.
    pub bucket: String,
    /// Prefix of all keys: empty, or ending in `/`.
    pub prefix: String,
    /// URL of the server, or none for the provider's own.
    pub endpoint: Option<String>,
    /// Name of the server, for messages.
    pub server: String,
    /// Set if the server is the provider's own. Any other is probed before a store is trusted to
    /// it.
    pub is_own_server: bool,
    /// When a request is sent again.
    pub retry: Retry,
    /// Length of each part of an upload but the last, in bytes: an object of at most one part is
    /// created in one request.
    pub part: usize,
}

impl Settings {
    /// Settings for a server at `endpoint` that is not the provider's own, with parts of 8 MiB.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::storage::ErrorKind::Config) where `prefix` cannot be the
    /// beginning of a key.
    pub fn new(scheme: &'static str, bucket: &str, prefix: &str, endpoint: &str) -> Result<Self> {
        Ok(Self {
            scheme,
            bucket: bucket.into(),
            prefix: directory(prefix)?,
            endpoint: Some(endpoint.into()),
            server: endpoint.into(),
            is_own_server: false,
            retry: Retry::default(),
            part: 8 << 20,
        })
    }

    /// The URL of the location, which leads to it again.
    pub(super) fn location(&self) -> String {
        let location = format!("{}://{}/{}", self.scheme, self.bucket, self.prefix);
        let location = location.trim_end_matches('/');
        match &self.endpoint {
            Some(endpoint) => format!("{location}?endpoint={endpoint}"),
            None => location.into(),
        }
    }
}

/// Returns a prefix as keys begin with it: empty, or ending in `/`.
pub(in crate::storage) fn directory(prefix: &str) -> Result<String> {
    Ok(check_prefix(prefix)?.map_or_else(String::new, |prefix| prefix + "/"))
}

/// A setting that cannot work.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(in crate::storage) fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what)
}

/// Returns the value of a variable. An empty one is as if it were not set.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(in crate::storage) fn variable(name: &str, value: Option<OsString>) -> Result<Option<String>> {
    match value.map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(wrong(format!("{name} is not UTF-8"))),
    }
}

/// An endpoint that is no URL of a server. It may hold a password, so it is not shown.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(in crate::storage) fn not_an_endpoint() -> Error {
    wrong("the endpoint is not the URL of a server")
        .with_hint("write https://host or http://host:port, without user, path and query")
}

/// Refuses an endpoint that would send credentials elsewhere than it looks, or nowhere. `allowed`
/// are the characters beside letters and digits.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(in crate::storage) fn check_endpoint(endpoint: &str, allowed: &[u8]) -> Result<()> {
    let host = endpoint
        .strip_prefix("http://")
        .or_else(|| endpoint.strip_prefix("https://"));
    let good = host.is_some_and(|host| {
        !host.is_empty()
            && !host.starts_with(['/', ':'])
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || allowed.contains(&byte))
    });
    if good { Ok(()) } else { Err(not_an_endpoint()) }
}
