//! TLS for everything that connects or listens: configurations of rustls from certificates and keys that stand in
//! arguments or in files, and their renewal when those files change.
//!
//! The room lies below the engine, the blocks and the sources, which all speak TLS and may not import each other. It
//! knows no component and no setting by name; it reads files, opens no connection and spawns nothing.
//!
//! Read first: [`Origins`], what is to be read, and [`Watched`], what is kept up to date with it.

mod ciphers;
mod client;
mod pem;
mod server;
mod watched;

use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;

pub use ciphers::{CipherSuites, UnknownCipherSuite};
pub use client::ClientSettings;
pub use pem::{Material, Origin, Origins, PemError};
pub use server::{ClientAuthentication, ServerSettings, ServerTls};
pub use watched::Watched;

/// The lowest protocol version that is spoken. TLS 1.0 and 1.1 never are (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LowestVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl LowestVersion {
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls13 => &FROM_12[..1],
            Self::Tls12 => &FROM_12,
        }
    }
}

/// The provider of all cryptography of TLS in this program.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}
