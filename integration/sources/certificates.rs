//! An authority of the tests' own, and certificates that are wrong in every usual way.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// What a server shows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    /// What it should.
    Good,
    /// What was good until some years ago.
    Expired,
    /// A good one, of another server.
    OtherName,
    /// One of an authority that nobody trusts.
    UnknownAuthority,
}

/// The authority that agents are told to trust, and one that they are not.
pub(crate) struct Authority {
    trusted: CertifiedIssuer<'static, KeyPair>,
    unknown: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = |name| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        Self { trusted: authority("trusted"), unknown: authority("unknown") }
    }

    /// Its certificate in PEM form.
    pub(crate) fn pem(&self) -> String {
        self.trusted.pem()
    }

    /// A server that shows this at an address.
    pub(crate) fn server(&self, shown: Shown, host: &str) -> Arc<rustls::ServerConfig> {
        let name = if matches!(shown, Shown::OtherName) { "elsewhere.example" } else { host };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if matches!(shown, Shown::Expired) {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let issuer = if matches!(shown, Shown::UnknownAuthority) { &self.unknown } else { &self.trusted };
        let certificate = params.signed_by(&key, issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
