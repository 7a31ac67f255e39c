//! Servers that settings name, and which of them may be sent credentials.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A server, as the URL of an endpoint names it.
///
/// ```
/// use persist_host::storage::Endpoint;
///
/// let endpoint = Endpoint::parse("https://minio.example").expect("a server");
/// assert_eq!(endpoint.to_string(), "minio.example:443");
/// assert!(endpoint.is_encrypted() && !endpoint.is_loopback());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    is_encrypted: bool,
    /// In lower case, an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Parses `https://host`, `http://host:port` and what follows such a URL; none where it names
    /// no server.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_encrypted = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let default = if is_encrypted { 443 } else { 80 };
        let (host, port) = match rest[..end].rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (&rest[..end], default),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_plain = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_address = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        let good = !host.is_empty() && (is_plain || is_address);
        good.then_some(Self {
            is_encrypted,
            host,
            port,
        })
    }

    /// Returns whether it is spoken to through TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns whether it is on this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || address.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
            || address.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback())
    }

    /// Returns whether it is Amazon S3 itself, through TLS. Other hosts below `amazonaws.com`
    /// belong to customers.
    pub fn is_amazon(&self) -> bool {
        let host = self.host.strip_suffix(".cn").unwrap_or(&self.host);
        let Some(host) = host.strip_suffix(".amazonaws.com") else {
            return false;
        };
        let labels: Vec<_> = host.split('.').collect();
        let service = |label: &str| label == "s3" || label.starts_with("s3-");
        self.is_encrypted
            && match labels.as_slice() {
                [first] => service(first),
                [first, "dualstack"] => service(first),
                [first, region] | [first, "dualstack", region] => {
                    service(first) && is_region(region)
                }
                [
                    "bucket" | "accesspoint" | "control",
                    id,
                    "s3",
                    region,
                    "vpce",
                ] => id.starts_with("vpce-") && is_region(region),
                _ => false,
            }
    }

    /// Returns whether it is Google's own, through TLS.
    pub fn is_google(&self) -> bool {
        self.is_encrypted && self.host.ends_with(".googleapis.com")
    }

    /// Returns whether `name`, as `host:port`, or `host` where the port is the usual one, names it.
    pub fn is_named(&self, name: &str) -> bool {
        let name = name.trim().to_ascii_lowercase();
        let default = if self.is_encrypted { 443 } else { 80 };
        name == self.to_string() || (self.port == default && name == self.host)
    }
}

/// Shows `host:port`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Returns whether a label looks like `eu-west-1`.
fn is_region(label: &str) -> bool {
    let words: Vec<_> = label.split('-').collect();
    let Some((number, words)) = words.split_last() else {
        return false;
    };
    words.len() >= 2
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && words
            .iter()
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Endpoint {
        Endpoint::parse(url).expect(url)
    }

    #[test]
    fn only_hosts_of_amazon_s3_are_amazons() {
        for own in [
            "https://s3.amazonaws.com",
            "https://s3.eu-west-1.amazonaws.com/",
            "https://S3.EU-WEST-1.amazonaws.com.:443",
            "https://s3-us-west-2.amazonaws.com",
            "https://s3-fips.us-gov-west-1.amazonaws.com",
            "https://s3.dualstack.eu-west-1.amazonaws.com",
            "https://s3.cn-north-1.amazonaws.com.cn",
            "https://bucket.vpce-0a1b-2c3d.s3.us-east-1.vpce.amazonaws.com",
        ] {
            assert!(parse(own).is_amazon(), "{own}");
        }
        for other in [
            "http://s3.amazonaws.com",
            "https://s3.amazonaws.com.evil.example",
            "https://evilamazonaws.com",
            "https://s3.evil-amazonaws.com",
            "https://ec2-1-2-3-4.eu-west-1.compute.amazonaws.com",
            "https://s3-12345.us-east-1.elb.amazonaws.com",
            "https://s3.us-east-1.elb.amazonaws.com",
            "https://a1.execute-api.us-east-1.amazonaws.com",
            "https://vpce-1.vpce-svc-2.us-east-1.vpce.amazonaws.com",
            "https://storage.googleapis.com",
        ] {
            assert!(!parse(other).is_amazon(), "{other}");
        }
    }

    #[test]
    fn only_hosts_of_google_are_googles() {
        for own in [
            "https://storage.googleapis.com",
            "https://storage.europe-west3.rep.googleapis.com/",
        ] {
            assert!(parse(own).is_google(), "{own}");
        }
        for other in [
            "http://storage.googleapis.com",
            "https://storage.googleapis.com.evil.example",
            "https://evilgoogleapis.com",
            "https://127.0.0.1/storage.googleapis.com",
        ] {
            assert!(!parse(other).is_google(), "{other}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for own in [
            "http://localhost:9000",
            "http://LOCALHOST",
            "https://127.0.0.1:1",
            "http://127.255.0.1",
            "http://[::1]:9000",
        ] {
            assert!(parse(own).is_loopback(), "{own}");
        }
        for other in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://0.0.0.0",
            "http://10.0.0.1",
            "http://[2001:db8::1]",
        ] {
            assert!(!parse(other).is_loopback(), "{other}");
        }
    }

    #[test]
    fn a_name_is_compared_with_its_port() {
        assert!(parse("http://minio:9000").is_named("MinIO:9000"));
        assert!(parse("https://minio").is_named("minio"));
        assert!(parse("https://minio").is_named("minio:443"));
        assert!(!parse("http://minio:9000").is_named("minio"));
        assert!(!parse("http://minio").is_named("minio:443"));
        for bad in [
            "",
            "minio:9000",
            "ftp://minio",
            "http://",
            "http://a b",
            "http://u@h",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }
}
