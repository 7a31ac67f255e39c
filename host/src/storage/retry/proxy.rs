//! The proxy of the environment that requests to a server go through.

use std::env;
use std::fmt;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// URL of a server without an endpoint of its own: Amazon's.
const AMAZON: &str = "https://s3.amazonaws.com";

/// A proxy. Its user name and password are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    address: String,
    variable: &'static str,
}

impl Proxy {
    /// Returns the proxy that the SDKs use for the requests to `server`, if any.
    pub(super) fn of(server: &str) -> Option<Self> {
        Self::find(server, &Matcher::from_env(), |name| env::var(name).is_ok())
    }

    fn find(server: &str, proxies: &Matcher, is_set: impl Fn(&str) -> bool) -> Option<Self> {
        let url = if server.contains("://") {
            server
        } else {
            AMAZON
        };
        let url: Uri = url.parse().ok()?;
        let proxy = proxies.intercept(&url)?;
        let scheme = proxy.uri().scheme_str()?;
        let host = proxy.uri().host()?;
        let port = proxy.uri().port_u16();
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let variables = match url.scheme_str() {
            Some("http") => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
            _ => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        };
        Some(Self {
            address: format!("{scheme}://{host}{port}"),
            variable: variables.into_iter().find(|name| is_set(name))?,
        })
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            address: "http://proxy.test:3128".into(),
            variable: "HTTPS_PROXY",
        }
    }

    /// Returns the variable of the environment that names the proxy.
    pub(super) fn variable(&self) -> &'static str {
        self.variable
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, variable } = self;
        write!(f, "the proxy {address} ({variable})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_its_variable_and_without_its_password() {
        let proxies = Matcher::builder()
            .https("http://user:PLANTED@proxy.test:3128")
            .all("http://other.test:8080/path")
            .no("storage.test,169.254.0.0/16")
            .build();
        let found = |server: &str| {
            let is_set = |name: &str| ["HTTPS_PROXY", "ALL_PROXY"].contains(&name);
            Proxy::find(server, &proxies, is_set).map(|proxy| proxy.to_string())
        };
        let of_tls = "the proxy http://proxy.test:3128 (HTTPS_PROXY)";
        assert_eq!(found("https://gcs.test").as_deref(), Some(of_tls));
        assert_eq!(found("Amazon S3").as_deref(), Some(of_tls));
        let of_plain = "the proxy http://other.test:8080 (ALL_PROXY)";
        assert_eq!(found("http://gcs.test:1/").as_deref(), Some(of_plain));
        assert_eq!(found("https://storage.test"), None);
        assert_eq!(found("http://169.254.169.254"), None);
    }
}
