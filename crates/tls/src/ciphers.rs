//! Cipher suites by the names that configurations use, which are those of Go and IANA.

use rustls::SupportedCipherSuite;

/// What a configuration restricts a server to. Of TLS 1.3 all suites stay on offer, as in programs written in Go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CipherSuites {
    /// Suites of TLS 1.2; nothing means all that there are.
    allowed: Vec<SupportedCipherSuite>,
    /// Names that mean something, but nothing that is spoken here.
    unsupported: Vec<String>,
}

/// A name that means no cipher suite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cipher suite {0:?} is unknown")]
pub struct UnknownCipherSuite(pub String);

/// Suites that Go knows and that are not spoken here: they encrypt with CBC, RC4 or 3DES, or without forward secrecy.
const WEAK: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

impl CipherSuites {
    /// Reads names separated by commas; an empty text means no restriction.
    ///
    /// # Errors
    /// When a name means nothing.
    pub fn parse(text: &str) -> Result<Self, UnknownCipherSuite> {
        let mut parsed = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // Go has kept two names without their hash.
            let full = match name {
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
                    format!("{name}_SHA256")
                }
                _ => name.to_owned(),
            };
            let known = rustls::crypto::ring::ALL_CIPHER_SUITES.iter().find(|suite| name_of(**suite) == full);
            match known {
                Some(suite) => parsed.allowed.push(*suite),
                None if WEAK.contains(&name) => parsed.unsupported.push(full),
                None => return Err(UnknownCipherSuite(full)),
            }
        }
        Ok(parsed)
    }

    /// The names of suites that were asked for and are never spoken.
    pub fn unsupported(&self) -> &[String] {
        &self.unsupported
    }

    /// Whether something was asked for and none of it can be spoken.
    pub fn leaves_nothing(&self) -> bool {
        self.allowed.is_empty() && !self.unsupported.is_empty()
    }

    /// Of `offered` what is allowed.
    pub(crate) fn restrict(&self, offered: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
        let allowed = |suite: &&SupportedCipherSuite| {
            self.allowed.is_empty() || suite.tls13().is_some() || self.allowed.contains(suite)
        };
        offered.iter().filter(allowed).copied().collect()
    }
}

/// The name of IANA. rustls calls the suites of TLS 1.3 otherwise.
fn name_of(suite: SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn offered(text: &str) -> Vec<String> {
        let suites = CipherSuites::parse(text).unwrap();
        suites.restrict(rustls::crypto::ring::ALL_CIPHER_SUITES).into_iter().map(name_of).collect()
    }

    #[test]
    fn a_list_restricts_tls_1_2_and_leaves_1_3_alone() {
        assert_eq!(offered("").len(), rustls::crypto::ring::ALL_CIPHER_SUITES.len());
        let some = offered("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305");
        assert_eq!(some.iter().filter(|name| name.starts_with("TLS_ECDHE")).count(), 2, "{some:?}");
        assert_eq!(some.len(), 5);
    }

    #[test]
    fn weak_suites_are_told_from_those_that_do_not_exist() {
        let weak = CipherSuites::parse("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap();
        assert_eq!(weak.unsupported(), ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert!(weak.leaves_nothing());
        assert!(!CipherSuites::parse("TLS_AES_128_GCM_SHA256").unwrap().leaves_nothing());
        assert_eq!(CipherSuites::parse("AES"), Err(UnknownCipherSuite("AES".to_owned())));
    }
}
