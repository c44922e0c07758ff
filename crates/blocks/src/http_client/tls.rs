//! The TLS side of a client: what it trusts, what it presents, and the verification of the server's certificate.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::arguments::{TlsConfigBlock, TlsVersion};
use crate::pem::{PemError, PemText};

/// What a `tls_config` block names, read at one moment. Equal means that nothing has changed since.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TlsMaterial {
    authorities: Option<PemText>,
    certificate: Option<PemText>,
    key: Option<PemText>,
}

/// Verifies as usual, with two differences: another name may be demanded than the one that was dialled, and a
/// certificate that is itself listed as trusted is accepted although it is an authority's, as self-signed
/// certificates mostly are and as programs written in Go accept them.
#[derive(Debug)]
struct Verifier {
    standard: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    name: Option<ServerName<'static>>,
}

/// Accepts any certificate; the handshake's signatures are still verified.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

/// The provider of all TLS in this program.
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// The protocol versions from `lowest` up. TLS 1.0 and 1.1 are never spoken (RFC 8996).
pub(crate) fn protocol_versions(lowest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match lowest {
        TlsVersion::Tls13 => &FROM_12[..1],
        TlsVersion::Unset | TlsVersion::Tls10 | TlsVersion::Tls11 | TlsVersion::Tls12 => &FROM_12,
    }
}

// === impl TlsMaterial ===

impl TlsMaterial {
    pub(super) async fn load(block: &TlsConfigBlock) -> Result<Self, PemError> {
        Ok(Self {
            authorities: PemText::load("ca_pem", &block.ca_pem, &block.ca_file).await?,
            certificate: PemText::load("cert_pem", &block.cert_pem, &block.cert_file).await?,
            key: PemText::load("key_pem", block.key_pem.expose(), &block.key_file).await?,
        })
    }

    /// The configuration of TLS for new connections. Blocks for some milliseconds where the system's certificates
    /// have not been read yet.
    pub(super) fn client_config(
        &self,
        block: &TlsConfigBlock,
        http2: bool,
    ) -> Result<ClientConfig, PemError> {
        let provider = crypto_provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(protocol_versions(block.min_version))
            .map_err(|error| PemError::Unusable(error.to_string()))?;

        let verifier: Arc<dyn ServerCertVerifier> = if block.insecure_skip_verify {
            Arc::new(AcceptAnything(provider))
        } else {
            let name = if block.server_name.is_empty() {
                None
            } else {
                Some(ServerName::try_from(block.server_name.clone()).map_err(|_| PemError::Content {
                    origin: "server_name".to_owned(),
                    message: "is no host name".to_owned(),
                })?)
            };
            let (roots, pinned) = self.roots()?;
            let standard =
                WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| {
                    PemError::Unusable(format!("the trusted certificates cannot be used: {error}"))
                })?;
            Arc::new(Verifier { standard, pinned, name })
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);

        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                builder.with_client_auth_cert(certificate.certificates()?, key.private_key()?).map_err(
                    |error| PemError::Unusable(format!("certificate and key cannot be used: {error}")),
                )?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(config)
    }

    fn roots(&self) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), PemError> {
        let Some(authorities) = &self.authorities else {
            return Ok((system_roots(), Vec::new()));
        };
        let certificates = authorities.certificates()?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(authorities.wrong("holds no certificate that can be trusted"));
        }
        Ok((Arc::new(roots), certificates))
    }
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
        match self.standard.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
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
        self.standard.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.standard.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.standard.supported_verify_schemes()
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
