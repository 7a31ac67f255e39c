//! Hosts that an agent may call, and headers that the host adds to its requests.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use super::address::is_public;

/// Hosts that an agent may send HTTP requests to, and headers that the host adds. The default
/// allows no request.
///
/// A host is written as `[SCHEME://]HOST[:PORT]`:
///
/// - HOST is a name (`api.example.com`), all names below one (`*.example.com`), an address, or a
///   network (`10.0.0.0/8`).
/// - Without SCHEME, requests must use https; `localhost` and loopback addresses may use http, too.
/// - Without PORT, the port is the scheme's: 443 or 80.
///
/// A name reaches public addresses only. A name that resolves to a private, loopback or link-local
/// address is refused, unless a rule names that address or network, too; `localhost` reaches
/// loopback addresses.
///
/// ```
/// use persist_host::wasm::HttpPolicy;
///
/// let policy = HttpPolicy::default()
///     .allow("api.example.com")?
///     .allow("http://localhost:11434")?
///     .header("api.example.com", "authorization", "Bearer TOKEN")?;
/// # Ok::<(), persist_host::wasm::HttpPolicyError>(())
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct HttpPolicy {
    allowed: Vec<HostRule>,
    headers: Vec<(HostRule, HeaderName, HeaderValue)>,
}

/// Why a host or a header was not added to an [`HttpPolicy`]. It never shows a header's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpPolicyError {
    /// The text is no host.
    #[error("{text:?} is not [http://|https://]HOST[:PORT]: {why}")]
    Host {
        /// The text.
        text: String,
        /// Description of what is wrong.
        why: &'static str,
    },
    /// The name is no name of a header, or one that connections need.
    #[error("{0:?} is not the name of a header that can be added")]
    HeaderName(String),
    /// The header's value has a byte that no header may have.
    #[error("the value of the header {0} has a line break or another control character")]
    HeaderValue(String),
    /// No rule allows the host that a header is for.
    #[error(
        "the header {header} is for {host}, and no request there is allowed: the scheme, host and \
         port must be those of an allowed host"
    )]
    NotAllowed {
        /// The name of the header.
        header: String,
        /// The host.
        host: String,
    },
}

/// One host of a policy, with its scheme and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostRule {
    text: String,
    scheme: Option<Scheme>,
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Name(String),
    Below(String),
    Net(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) host: TargetHost,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetHost {
    Name(String),
    Address(IpAddr),
}

impl HttpPolicy {
    /// Allows requests to a host.
    ///
    /// # Errors
    /// [`HttpPolicyError::Host`].
    pub fn allow(mut self, host: &str) -> Result<Self, HttpPolicyError> {
        self.allowed.push(HostRule::parse(host)?);
        Ok(self)
    }

    /// Adds a header to each request to a host, in place of the agent's own header of that name.
    /// The agent never sees the value. It is sent only to a host that [`allow`](Self::allow) allows
    /// as well.
    ///
    /// # Errors
    /// [`HttpPolicyError`].
    pub fn header(mut self, host: &str, name: &str, value: &str) -> Result<Self, HttpPolicyError> {
        let rule = HostRule::parse(host)?;
        let header = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(|name| !is_of_connection(name))
            .ok_or_else(|| HttpPolicyError::HeaderName(name.into()))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| HttpPolicyError::HeaderValue(header.to_string()))?;
        value.set_sensitive(true);
        if !self.allowed.iter().any(|allowed| allowed.overlaps(&rule)) {
            return Err(HttpPolicyError::NotAllowed {
                header: header.to_string(),
                host: host.into(),
            });
        }
        self.headers.push((rule, header, value));
        Ok(self)
    }

    pub(super) fn allows(&self, target: &Target) -> bool {
        self.allowed.iter().any(|rule| rule.matches(target))
    }

    /// Returns true if an allowed request may connect to `address`, which its host stands for.
    pub(super) fn allows_address(&self, target: &Target, address: IpAddr) -> bool {
        let named = |rule: &HostRule| match &rule.host {
            HostPattern::Net(net) => net.contains(&address) && rule.fits(target, Some(address)),
            HostPattern::Name(_) | HostPattern::Below(_) => false,
        };
        is_public(address)
            || (target.is_localhost() && address.is_loopback())
            || self.allowed.iter().any(named)
    }

    /// Sets the headers for `target`.
    pub(super) fn add_headers(&self, target: &Target, headers: &mut HeaderMap) {
        for (_, name, value) in self
            .headers
            .iter()
            .filter(|(rule, ..)| rule.matches(target))
        {
            headers.insert(name, value.clone());
        }
    }
}

impl fmt::Debug for HttpPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed: Vec<_> = self.allowed.iter().map(|rule| &rule.text).collect();
        let headers = self.headers.iter();
        let headers: Vec<_> = headers.map(|(rule, name, _)| (&rule.text, name)).collect();
        f.debug_struct("HttpPolicy")
            .field("allowed", &allowed)
            .field("headers", &headers)
            .finish()
    }
}

/// Headers that belong to the connection, which the host makes itself.
fn is_of_connection(name: &HeaderName) -> bool {
    wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
        || *name == http::header::CONTENT_LENGTH
}

impl HostRule {
    fn parse(text: &str) -> Result<Self, HttpPolicyError> {
        let wrong = |why| HttpPolicyError::Host {
            text: text.into(),
            why,
        };
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(wrong("the scheme is http or https")),
        };
        if let Some(net) = network(rest) {
            return Ok(Self {
                text: text.into(),
                scheme,
                host: HostPattern::Net(net),
                port: None,
            });
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("write the host alone, without a path or an account"));
        }
        // Colons in brackets are those of an address.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (
                    host,
                    Some(port.ok_or_else(|| wrong("the port is a number from 1 to 65535"))?),
                )
            }
            _ => (rest, None),
        };
        let host = host.to_ascii_lowercase();
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = if let Some(net) = network(address.unwrap_or(&host)) {
            HostPattern::Net(net)
        } else if let Some(domain) = host.strip_prefix("*.") {
            HostPattern::Below(name(domain).map_err(wrong)?)
        } else {
            HostPattern::Name(name(&host).map_err(wrong)?)
        };
        Ok(Self {
            text: text.into(),
            scheme,
            host,
            port,
        })
    }

    fn matches(&self, target: &Target) -> bool {
        let address = match (&self.host, &target.host) {
            (HostPattern::Name(allowed), TargetHost::Name(name)) if allowed == name => None,
            (HostPattern::Below(domain), TargetHost::Name(name))
                if name
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')) =>
            {
                None
            }
            (HostPattern::Net(net), TargetHost::Address(address)) if net.contains(address) => {
                Some(*address)
            }
            _ => return false,
        };
        self.fits(target, address)
    }

    /// Returns true if the rule's scheme and port fit those of `target`.
    fn fits(&self, target: &Target, address: Option<IpAddr>) -> bool {
        let is_local = target.is_localhost() || address.is_some_and(|it| it.is_loopback());
        let scheme = match self.scheme {
            Some(scheme) => target.scheme == scheme,
            None => target.scheme == Scheme::Https || is_local,
        };
        scheme && target.port == self.port.unwrap_or(target.scheme.port())
    }

    /// Returns true if some request may match both rules.
    fn overlaps(&self, other: &Self) -> bool {
        let hosts = match (&self.host, &other.host) {
            (HostPattern::Name(one), HostPattern::Name(other)) => one == other,
            (HostPattern::Net(one), HostPattern::Net(other)) => {
                one.contains(other) || other.contains(one)
            }
            (HostPattern::Below(one), HostPattern::Below(other)) => {
                one.ends_with(other.as_str()) || other.ends_with(one.as_str())
            }
            (HostPattern::Below(domain), HostPattern::Name(name))
            | (HostPattern::Name(name), HostPattern::Below(domain)) => {
                name.ends_with(&format!(".{domain}"))
            }
            _ => false,
        };
        let others = other.ways();
        hosts && self.ways().iter().any(|way| others.contains(way))
    }

    /// Returns the schemes, each with its port, that the rule allows.
    fn ways(&self) -> Vec<(Scheme, u16)> {
        let is_local = match &self.host {
            HostPattern::Name(name) | HostPattern::Below(name) => is_localhost(name),
            HostPattern::Net(net) => net.addr().is_loopback(),
        };
        let schemes = match self.scheme {
            Some(scheme) => vec![scheme],
            None if is_local => vec![Scheme::Https, Scheme::Http],
            None => vec![Scheme::Https],
        };
        let way = |scheme: Scheme| (scheme, self.port.unwrap_or(scheme.port()));
        schemes.into_iter().map(way).collect()
    }
}

/// Returns true for a name that stands for this machine (RFC 6761).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// An address or a network.
fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    address.or_else(|| text.parse::<IpNet>().ok())
}

/// Checks a host's name.
fn name(host: &str) -> Result<String, &'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.is_ascii() {
        return Err("write an international name in its ASCII form, which begins with xn--");
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    if host.is_empty() || host.len() > 253 || !host.split('.').all(is_label) {
        return Err("the host is a name, *.NAME, an address or a network");
    }
    Ok(host.into())
}

impl Scheme {
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Target {
    /// Reads where a request goes; none where its URI has no usable host.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = match uri.scheme_str()? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority = uri.authority()?;
        // The host would be what stands behind the account.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match literal.unwrap_or(&host).parse() {
            Ok(address) => TargetHost::Address(address),
            Err(_) => TargetHost::Name(name(&host).ok()?),
        };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // What stands behind the host is no port.
            None if authority.as_str().len() != authority.host().len() => return None,
            None => scheme.port(),
        };
        Some(Self { scheme, host, port })
    }

    /// Returns true if the host is a name of this machine.
    fn is_localhost(&self) -> bool {
        match &self.host {
            TargetHost::Name(name) => is_localhost(name),
            TargetHost::Address(_) => false,
        }
    }
}

/// Writes the text that allows the target.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Http {
            f.write_str("http://")?;
        }
        match &self.host {
            TargetHost::Name(name) => f.write_str(name)?,
            TargetHost::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            TargetHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if self.port != self.scheme.port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Option<Target> {
        Target::of(&url.parse().ok()?)
    }

    fn policy(hosts: &[&str]) -> HttpPolicy {
        let none = HttpPolicy::default();
        let allow = |policy: HttpPolicy, host: &&str| policy.allow(host).expect("a host");
        hosts.iter().fold(none, allow)
    }

    #[test]
    fn a_rule_allows_its_host_scheme_and_port() {
        for (rule, url, allowed) in [
            ("api.example.com", "https://api.example.com/v1", true),
            ("api.example.com", "https://API.Example.com./v1", true),
            ("api.example.com", "https://api.example.com:443/", true),
            ("api.example.com", "http://api.example.com/", false),
            ("api.example.com", "https://api.example.com:8443/", false),
            ("api.example.com", "https://example.com/", false),
            (
                "api.example.com",
                "https://api.example.com.evil.net/",
                false,
            ),
            ("api.example.com", "https://xapi.example.com/", false),
            (
                "api.example.com:8443",
                "https://api.example.com:8443/",
                true,
            ),
            ("api.example.com:8443", "https://api.example.com/", false),
            ("http://api.example.com", "http://api.example.com/", true),
            ("http://api.example.com", "https://api.example.com/", false),
            ("https://localhost:1", "http://localhost:1/", false),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://notexample.com/", false),
            ("localhost:11434", "http://localhost:11434/", true),
            ("127.0.0.1:80", "http://127.0.0.1/", true),
            ("127.0.0.1:80", "http://127.1/", false),
            ("127.0.0.1:80", "http://localhost/", false),
            ("[::1]:80", "http://[::1]/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", false),
            ("http://10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
        ] {
            let target = target(url).expect(url);
            assert_eq!(policy(&[rule]).allows(&target), allowed, "{rule} {url}");
            assert!(!HttpPolicy::default().allows(&target), "{url}");
        }
    }

    #[test]
    fn a_url_whose_host_can_be_misread_has_no_target() {
        for url in [
            "https://api.example.com@evil.net/",
            "https://api.example.com:/",
            "https://api.example.com:99999/",
            "https://a..b/",
            "ftp://api.example.com/",
        ] {
            assert_eq!(target(url), None, "{url}");
        }
    }

    #[test]
    fn a_name_reaches_private_addresses_only_if_they_are_named() {
        let private = "10.0.0.5".parse().expect("an address");
        let loopback = "127.0.0.1".parse().expect("an address");
        let public = "1.1.1.1".parse().expect("an address");
        let corp = target("https://intranet.corp/").expect("a target");
        let by_name = policy(&["intranet.corp"]);
        assert!(by_name.allows_address(&corp, public));
        assert!(!by_name.allows_address(&corp, private));
        assert!(!by_name.allows_address(&corp, loopback));
        let by_net = policy(&["intranet.corp", "10.0.0.0/8"]);
        assert!(by_net.allows_address(&corp, private));
        assert!(!by_net.allows_address(&corp, loopback));
        // A rule for one port of an address is no rule for another.
        let by_port = policy(&["intranet.corp", "10.0.0.5:8443"]);
        assert!(!by_port.allows_address(&corp, private));
        let local = target("http://localhost:1/").expect("a target");
        assert!(policy(&["localhost:1"]).allows_address(&local, loopback));
        assert!(!policy(&["localhost:1"]).allows_address(&local, private));
    }

    #[test]
    fn a_header_is_sent_to_its_host_and_shown_nowhere() {
        let policy = policy(&["api.example.com", "other.example.com"])
            .header("api.example.com", "Authorization", "Bearer s3cr3t")
            .expect("a header");
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("of the agent"));
        policy.add_headers(
            &target("https://other.example.com/").expect("one"),
            &mut headers,
        );
        assert_eq!(headers["authorization"], "of the agent");
        policy.add_headers(
            &target("https://api.example.com/").expect("one"),
            &mut headers,
        );
        assert_eq!(headers["authorization"], "Bearer s3cr3t");
        assert!(!format!("{policy:?} {headers:?}").contains("s3cr3t"));
    }

    #[test]
    fn what_is_no_host_or_header_is_refused() {
        for host in [
            "",
            "*",
            "*.",
            "a b",
            "ftp://a",
            "https://a/path",
            "me@a",
            "a:0",
            "a:99999",
            "a:http",
            "m\u{fc}ller.de",
            "10.0.0.0/33",
        ] {
            assert!(HttpPolicy::default().allow(host).is_err(), "{host}");
        }
        let one = || policy(&["a.net"]);
        assert!(one().header("a.net", "host", "b.net").is_err());
        assert!(one().header("a.net", "content-length", "1").is_err());
        assert!(one().header("a.net", "x y", "1").is_err());
        assert!(one().header("b.net", "x", "1").is_err());
        // A header that no request would carry.
        for (allowed, host) in [
            ("a.net:8443", "a.net"),
            ("a.net", "a.net:8443"),
            ("http://a.net", "a.net"),
            ("a.net", "http://a.net"),
            ("http://10.0.0.0/8", "10.0.0.5"),
            ("localhost:1", "localhost"),
        ] {
            let added = policy(&[allowed]).header(host, "x", "1");
            assert!(added.is_err(), "{allowed} {host}");
        }
        for (allowed, host) in [
            ("a.net:8443", "https://a.net:8443"),
            ("*.net:443", "a.net"),
            ("http://localhost:1", "localhost:1"),
            ("http://10.0.0.0/8", "http://10.0.0.5"),
        ] {
            let added = policy(&[allowed]).header(host, "x", "1");
            assert!(added.is_ok(), "{allowed} {host}");
        }
        let error = one()
            .header("a.net", "x", "s3cr3t\nx")
            .expect_err("refused");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }

    #[test]
    fn a_target_is_shown_as_it_is_allowed() {
        for (url, shown) in [
            ("https://api.example.com/v1", "api.example.com"),
            ("https://api.example.com:8443/", "api.example.com:8443"),
            ("http://10.0.0.5:8000/", "http://10.0.0.5:8000"),
            ("http://[::1]/", "http://[::1]"),
        ] {
            let target = target(url).expect(url);
            assert_eq!(target.to_string(), shown);
            assert!(policy(&[shown]).allows(&target), "{shown}");
        }
    }
}
