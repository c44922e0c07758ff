//! The TLS side of a source's connection: authorities, client certificate and the name to expect.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Failure;
use crate::settings::TlsSettings;

/// Makes the configuration of a client from files; blocking.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
            }
        }
        None => {
            // A host without a store of authorities can still reach servers that need none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let trusting_nobody = roots.is_empty();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::stalled(format!("TLS cannot be set up: {error}")))?;
    let builder = if trusting_nobody {
        builder.with_root_certificates(roots)
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Failure::stalled(format!("TLS cannot be set up: {error}")))?;
        let verifier: Arc<dyn ServerCertVerifier> = match &settings.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|_| {
                    Failure::stalled(format!("`tls.server_name` `{name}` is not a host name"))
                })?;
                Arc::new(NamedServerVerifier { name, inner: verifier })
            }
            None => verifier,
        };
        builder.dangerous().with_custom_certificate_verifier(verifier)
    };
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key_path)) => {
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|_| unusable(key_path, "it holds no private key in PEM form"))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|error| unusable(cert, &error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|_| unusable(path, "it cannot be read"))?.collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(unusable(path, "it holds no certificates in PEM form")),
    }
}

/// Files may appear or be completed later, hence not stalled.
fn unusable(path: &Path, reason: &str) -> Failure {
    Failure::transient(format!("the file {} of `tls` is not usable: {reason}", path.display()))
}

/// Expects the certificate of another name than the one in the address.
#[derive(Debug)]
struct NamedServerVerifier {
    name: ServerName<'static>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for NamedServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
