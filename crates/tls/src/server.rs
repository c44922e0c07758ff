//! The TLS side of a server: what it presents, which clients it lets in, and that new connections see changed files.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use crate::ciphers::CipherSuites;
use crate::pem::{Material, Origins, PemError, PemText};
use crate::watched::Watched;
use crate::{LowestVersion, provider};

/// Which certificates a server wants of its clients. The names are those of Go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `NoClientCert`: none is asked for.
    #[default]
    None,
    /// `RequestClientCert`: one is asked for, and nothing is made of it.
    Request,
    /// `RequireAnyClientCert`: there must be one, by whomever it was issued.
    RequireAny,
    /// `VerifyClientCertIfGiven`: there may be one, issued by an authority that is trusted.
    VerifyIfGiven,
    /// `RequireAndVerifyClientCert`: there must be one, issued by an authority that is trusted.
    RequireAndVerify,
}

/// What a server offers and demands, its certificates aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSettings {
    /// Which certificates are wanted of clients.
    pub client_authentication: ClientAuthentication,
    /// The lowest protocol version.
    pub lowest_version: LowestVersion,
    /// Which cipher suites of TLS 1.2 are offered.
    pub cipher_suites: CipherSuites,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
}

/// The TLS of one server. New handshakes see what its files hold; connections that exist stay.
pub struct ServerTls(Watched<ServerConfig>);

/// Lets clients present any certificate whose key they have.
#[derive(Debug)]
struct AnyClient {
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

// === impl ClientAuthentication ===

impl ClientAuthentication {
    /// The one that a configuration means; nothing where the name is unknown. Empty means `NoClientCert`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" | "NoClientCert" => Self::None,
            "RequestClientCert" => Self::Request,
            "RequireAnyClientCert" => Self::RequireAny,
            "VerifyClientCertIfGiven" => Self::VerifyIfGiven,
            "RequireAndVerifyClientCert" => Self::RequireAndVerify,
            _ => return None,
        })
    }

    /// Whether clients are verified, for which authorities are needed.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

// === impl ServerSettings ===

impl ServerSettings {
    /// The configuration of TLS for new connections.
    ///
    /// # Errors
    /// When a certificate or the key is missing or cannot be used.
    pub fn config(&self, material: &Material) -> Result<ServerConfig, PemError> {
        let missing = |what: &str| PemError::Unusable(format!("{what} is not set"));
        let certificate = material.certificate.as_ref().ok_or_else(|| missing("the server's certificate"))?;
        let key = material.key.as_ref().ok_or_else(|| missing("the server's key"))?;

        let mut restricted = (*provider()).clone();
        restricted.cipher_suites = self.cipher_suites.restrict(&restricted.cipher_suites);
        let provider = Arc::new(restricted);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.lowest_version.versions())
            .map_err(|error| PemError::Unusable(error.to_string()))?;
        let any = |mandatory| Arc::new(AnyClient { mandatory, provider: Arc::clone(&provider) });
        let authorities =
            || material.authorities.as_ref().ok_or_else(|| missing("who issues client certificates"));
        let builder = match self.client_authentication {
            ClientAuthentication::None => builder.with_no_client_auth(),
            ClientAuthentication::Request => builder.with_client_cert_verifier(any(false)),
            ClientAuthentication::RequireAny => builder.with_client_cert_verifier(any(true)),
            ClientAuthentication::VerifyIfGiven => {
                builder.with_client_cert_verifier(verifier(authorities()?, &provider, false)?)
            }
            ClientAuthentication::RequireAndVerify => {
                builder.with_client_cert_verifier(verifier(authorities()?, &provider, true)?)
            }
        };
        let mut config = builder
            .with_single_cert(certificate.certificates()?, key.private_key()?)
            .map_err(|error| PemError::Unusable(format!("certificate and key cannot be used: {error}")))?;
        config.alpn_protocols =
            if self.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(config)
    }
}

fn verifier(
    authorities: &PemText,
    provider: &Arc<CryptoProvider>,
    mandatory: bool,
) -> Result<Arc<dyn ClientCertVerifier>, PemError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(authorities.certificates()?);
    if usable == 0 {
        return Err(authorities.wrong("holds no certificate that can be trusted"));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    builder
        .build()
        .map_err(|error| PemError::Unusable(format!("the authorities of clients cannot be used: {error}")))
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the certificates and the key.
    ///
    /// # Errors
    /// When one of them cannot be read or used.
    pub async fn new(origins: Origins, settings: ServerSettings) -> Result<Self, PemError> {
        Watched::new(origins, move |material| settings.config(material)).await.map(Self)
    }

    /// The configuration for a handshake that begins now.
    pub async fn current(&self) -> Arc<ServerConfig> {
        self.0.current().await
    }

    /// Why changed files are not in use.
    pub fn problem(&self) -> Option<String> {
        self.0.problem()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl AnyClient ===

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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
