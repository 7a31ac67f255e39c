//! Connections to checked addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::policy::{HttpPolicy, Scheme, Target, TargetHost};

/// Roots of trust of this machine, read at the first request that needs them.
#[derive(Debug, Default)]
pub(crate) struct TlsConfig(OnceLock<Result<Arc<ClientConfig>, String>>);

impl TlsConfig {
    fn connector(&self) -> Result<TlsConnector, Error> {
        let config = self.0.get_or_init(load).clone();
        config
            .map(TlsConnector::from)
            .map_err(|why| Error::InternalError(Some(why)))
    }
}

fn load() -> Result<Arc<ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this machine has no certificates of authorities; install ca-certificates, or \
             set SSL_CERT_FILE"
                .into(),
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the first address of the target's host that the policy allows and that answers.
pub(super) async fn connect(
    target: &Target,
    policy: &HttpPolicy,
    tls: &TlsConfig,
) -> Result<Box<dyn Stream>, Error> {
    let tcp = connect_tcp(target, policy).await?;
    if target.scheme == Scheme::Http {
        return Ok(Box::new(tcp));
    }
    let name = match &target.host {
        TargetHost::Name(name) => ServerName::try_from(name.clone()),
        TargetHost::Address(address) => Ok(ServerName::from(*address)),
    };
    let name = name.map_err(|_| Error::HttpRequestUriInvalid)?;
    let stream = tls.connector()?.connect(name, tcp).await;
    Ok(Box::new(stream.map_err(tls_error)?))
}

async fn connect_tcp(target: &Target, policy: &HttpPolicy) -> Result<TcpStream, Error> {
    let mut prohibited = false;
    let mut failed = None;
    for address in addresses(target).await? {
        if !policy.allows_address(target, address) {
            prohibited = true;
            continue;
        }
        match TcpStream::connect(SocketAddr::new(address, target.port)).await {
            Ok(stream) => {
                // A request is sent whole; waiting for more of it gains nothing.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => failed = Some(error),
        }
    }
    Err(match failed {
        Some(error) => connect_error(&error),
        None if prohibited => Error::DestinationIpProhibited,
        None => Error::DestinationNotFound,
    })
}

async fn addresses(target: &Target) -> Result<Vec<IpAddr>, Error> {
    match &target.host {
        TargetHost::Address(address) => Ok(vec![*address]),
        TargetHost::Name(name) => {
            let found = lookup_host((name.as_str(), target.port)).await;
            let found = found.map_err(|_| Error::DnsError {
                rcode: None,
                info_code: None,
            })?;
            Ok(found.map(|address| address.ip()).collect())
        }
    }
}

fn connect_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Error::DestinationIpUnroutable
        }
        _ => Error::DestinationUnavailable,
    }
}

fn tls_error(error: io::Error) -> Error {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}
