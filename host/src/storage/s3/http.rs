//! HTTP clients for requests to S3, and to the services that provide credentials.

use std::path::Path;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::storage::bucket::wrong;
use crate::storage::{Error, Result};

/// Certificates of the authorities that servers are trusted by.
#[derive(Clone, Debug)]
pub(super) struct Trust(TrustStore);

impl Trust {
    /// Returns the certificates of this machine.
    pub(super) fn of_machine() -> Self {
        Self(TrustStore::default())
    }

    /// Reads the certificates of a file in PEM, which replace those of this machine. `name` is the
    /// setting that names the file.
    pub(super) fn of_file(name: &str, path: &Path) -> Result<Self> {
        let refuse = |why: String| -> Error {
            wrong(format!("{name}: {} {why}", path.display()))
                .with_hint("name a file that has the certificate of the CA in PEM")
        };
        let pem = std::fs::read(path)
            .map_err(|error| refuse(format!("cannot be read: {}", error.kind())))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.ok().map(|certificate| roots.add(certificate));
            // The client takes all of the file or none.
            if !matches!(added, Some(Ok(()))) {
                return Err(refuse("contains an invalid certificate".into()));
            }
        }
        if roots.is_empty() {
            return Err(refuse("contains no certificate".into()));
        }
        let store = TrustStore::empty().with_pem_certificate(pem);
        Ok(Self(store))
    }

    /// Returns a client whose requests go through the proxy that the environment names.
    pub(super) fn client(&self) -> Result<SharedHttpClient> {
        self.client_through(ProxyConfig::from_env)
    }

    /// Returns a client that uses no proxy. The metadata services of a machine or a container
    /// answer each caller with the credentials of that caller, which must not be the proxy.
    pub(super) fn direct_client(&self) -> Result<SharedHttpClient> {
        self.client_through(ProxyConfig::disabled)
    }

    /// Returns a client that is set up as the SDK sets up its own.
    fn client_through(
        &self,
        proxy: impl Fn() -> ProxyConfig + Send + Sync + 'static,
    ) -> Result<SharedHttpClient> {
        let tls = TlsContext::builder().with_trust_store(self.0.clone());
        let tls = tls.build().map_err(|error| wrong(error.to_string()))?;
        Ok(
            Builder::new().build_with_connector_fn(move |settings, components| {
                let mut connector = ConnectorBuilder::default()
                    .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                    .tls_context(tls.clone());
                connector.set_connector_settings(settings.cloned());
                if let Some(components) = components {
                    connector.set_sleep_impl(components.sleep_impl());
                }
                connector.set_proxy_config(Some(proxy()));
                connector.build()
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_the_name_of_its_setting() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        let refused = |hint: &str| {
            let error = Trust::of_file("AWS_CA_BUNDLE", &path).expect_err(hint);
            let said = error.to_string();
            assert!(
                said.contains("AWS_CA_BUNDLE") && said.contains(hint),
                "{said}"
            );
        };
        refused("cannot be read");
        for (content, hint) in [
            ("", "contains no certificate"),
            ("no PEM", "contains no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "contains an invalid certificate",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "contains an invalid certificate",
            ),
        ] {
            std::fs::write(&path, content).expect("written");
            refused(hint);
        }
    }
}
