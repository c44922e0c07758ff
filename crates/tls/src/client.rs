//! The TLS side of a client: what it trusts, what it presents, and the verification of the server's certificate.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::pem::{Material, PemError, PemText};
use crate::{LowestVersion, provider};

/// How a client verifies and what it offers, its certificates aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientSettings {
    /// The name the server's certificate must bear, instead of the one that was dialled; empty for none.
    pub server_name: String,
    /// Whether any certificate is accepted.
    pub insecure_skip_verify: bool,
    /// The lowest protocol version.
    pub lowest_version: LowestVersion,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
}

/// Verifies as usual, with two differences: another name may be demanded than the one that was dialled, and a
/// certificate that is itself listed as trusted is accepted although it is an authority's, as self-signed
/// certificates mostly are and as programs written in Go accept them.
#[derive(Debug)]
struct Verifier {
    /// Made with the first handshake where the system's certificates are what is trusted: most clients never speak TLS, or
    /// name their authority, and the certificates take 400 KiB.
    standard: OnceLock<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

/// Accepts any certificate; the handshake's signatures are still verified.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

// === impl ClientSettings ===

impl ClientSettings {
    /// The configuration of TLS for new connections. The first handshake that asks for the system's certificates reads them,
    /// which takes some milliseconds.
    ///
    /// # Errors
    /// When a certificate, the key or the name cannot be used.
    pub fn config(&self, material: &Material) -> Result<ClientConfig, PemError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.lowest_version.versions())
            .map_err(|error| PemError::Unusable(error.to_string()))?;

        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure_skip_verify {
            Arc::new(AcceptAnything(provider))
        } else {
            let name = if self.server_name.is_empty() {
                None
            } else {
                Some(ServerName::try_from(self.server_name.clone()).map_err(|_| PemError::Content {
                    origin: "server_name".to_owned(),
                    message: "is no host name".to_owned(),
                })?)
            };
            let standard = OnceLock::new();
            let mut pinned = Vec::new();
            if let Some(authorities) = &material.authorities {
                let (roots, certificates) = given_roots(authorities)?;
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(|error| {
                        PemError::Unusable(format!("the trusted certificates cannot be used: {error}"))
                    })?;
                standard.get_or_init(|| verifier);
                pinned = certificates;
            }
            Arc::new(Verifier { standard, pinned, name, provider })
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);

        let mut config = match (&material.certificate, &material.key) {
            (Some(certificate), Some(key)) => {
                builder.with_client_auth_cert(certificate.certificates()?, key.private_key()?).map_err(
                    |error| PemError::Unusable(format!("certificate and key cannot be used: {error}")),
                )?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            if self.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(config)
    }

    /// A configuration that trusts nobody and presents nothing, for clients that never speak TLS: the system's
    /// certificates are not read for it.
    ///
    /// # Errors
    /// Never in practice: when the provider speaks no version of TLS.
    pub fn plain_text_only() -> Result<ClientConfig, PemError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(LowestVersion::Tls12.versions())
            .map_err(|error| PemError::Unusable(error.to_string()))?;
        Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }
}

fn given_roots(
    authorities: &PemText,
) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), PemError> {
    let certificates = authorities.certificates()?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        return Err(authorities.wrong("holds no certificate that can be trusted"));
    }
    Ok((Arc::new(roots), certificates))
}

/// The system's certificates, read once per process.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "some of the system's certificates cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            tracing::warn!(
                "the system trusts no certificates: set ca_file where servers are reached over TLS"
            );
            return Arc::new(placeholder_roots());
        }
        Arc::new(roots)
    }))
}

/// A verifier cannot be built over an empty store. This store trusts one authority whose key nobody has.
fn placeholder_roots() -> RootCertStore {
    use rustls::pki_types::{Der, TrustAnchor};
    RootCertStore {
        roots: vec![TrustAnchor {
            subject: Der::from_slice(&[]),
            subject_public_key_info: Der::from_slice(&[]),
            name_constraints: None,
        }],
    }
}

// === impl Verifier ===

impl Verifier {
    fn standard(&self) -> Result<&Arc<WebPkiServerVerifier>, rustls::Error> {
        if let Some(standard) = self.standard.get() {
            return Ok(standard);
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(system_roots(), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| {
            rustls::Error::General(format!("the system's certificates cannot be used: {error}"))
        })?;
        Ok(self.standard.get_or_init(|| verifier))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = self.name.as_ref().unwrap_or(server_name);
        match self.standard()?.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            // An authority's certificate as a server's own has no error of its own; its dates were checked before.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

// === impl AcceptAnything ===

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
