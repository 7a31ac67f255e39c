//! Keeps requests to metadata services off the proxy of the environment: a proxy would answer with
//! the account of its own machine, or with nothing.

use std::env;

/// The metadata services of AWS, Google and Azure: link-local addresses, and names.
const SERVICES: &str = "169.254.0.0/16,fd00:ec2::254,fd00:ec2::23,fd20:ce::254,\
    metadata.google.internal,metadata";

const PROXIES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
];

/// Variables that name another place of a metadata service.
const PLACES: [&str; 3] = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "GCE_METADATA_HOST",
];

/// Adds the metadata services to `NO_PROXY`, where a proxy is set. The SDKs have clients of their
/// own for these services, and the variable is what all of them read.
///
/// To be called before the process has a second thread.
pub(crate) fn exempt_metadata_services() {
    if let Some((name, value)) = exemption(|name| env::var(name).ok()) {
        // SAFETY: the process has one thread yet. No SDK takes a proxy for these clients in another
        // way.
        unsafe {
            env::set_var(name, value);
        }
    }
}

/// Returns the variable to set, and its value.
fn exemption(get: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty());
    PROXIES.iter().find_map(|name| set(name))?;
    // The first that is set counts, an empty one too.
    let name = ["NO_PROXY", "no_proxy"]
        .into_iter()
        .find(|name| get(name).is_some())
        .unwrap_or("NO_PROXY");
    let mut hosts: Vec<_> = set(name).into_iter().collect();
    hosts.push(SERVICES.into());
    hosts.extend(PLACES.iter().filter_map(|name| host(&set(name)?)));
    Some((name, hosts.join(",")))
}

/// Returns the host of a URL, or of `HOST:PORT`.
fn host(place: &str) -> Option<String> {
    let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next()?,
        None => authority.split(':').next()?,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    (!host.is_empty() && host.chars().all(is_host)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Option<(&'static str, String)> {
        exemption(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn metadata_services_are_added_to_what_no_proxy_has() {
        let proxy = ("https_proxy", "http://proxy.test:3128");
        assert_eq!(with(&[("NO_PROXY", "a.test")]), None, "there is no proxy");
        assert_eq!(with(&[("HTTP_PROXY", "")]), None);
        assert_eq!(with(&[proxy]), Some(("NO_PROXY", SERVICES.into())));
        let added = format!("a.test,{SERVICES}");
        assert_eq!(
            with(&[proxy, ("no_proxy", "a.test")]),
            Some(("no_proxy", added))
        );
        let both = [proxy, ("NO_PROXY", ""), ("no_proxy", "a.test")];
        assert_eq!(with(&both), Some(("NO_PROXY", SERVICES.into())));
        let places = [
            proxy,
            ("GCE_METADATA_HOST", "10.0.0.1:80"),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "http://[fd00::1]:90/x",
            ),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://imds.test/"),
        ];
        let (_, value) = with(&places).expect("a value");
        assert!(value.ends_with(",fd00::1,imds.test,10.0.0.1"), "{value}");
    }
}
