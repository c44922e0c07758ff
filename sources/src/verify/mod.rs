//! Who signed something: signatures of SSH, OpenPGP and minisign over bytes, checked against keys that the operator of
//! the host trusts. Nothing in here knows Git or HTTP: those say which bytes, which signature and which keys.
//!
//! Validity is judged by the time it is now, never by a date in what was signed: that one the signer chooses.

mod allowed_signers;
mod detached;
mod error;
mod key_file;
mod minisign;
mod openpgp;
mod openpgp_key;
mod patterns;
mod policy;
mod signers;
mod ssh;

pub use self::detached::{DetachedKeys, verify_detached};
pub use self::error::{KeyError, SignatureError};
pub(crate) use self::policy::TrustPolicy;
pub use self::signers::Signer;

/// Parsers of what signers and servers send, for the fuzzer; not part of the interface.
#[doc(hidden)]
pub mod signature_format {
    use super::SignatureError;
    use super::allowed_signers::AllowedSigners;
    use super::minisign::MinisignSignature;
    use super::openpgp::{Keyring, OpenPgpSignature};
    use super::ssh::SshSignature;

    /// Whether the text is an `allowed_signers` file.
    #[must_use]
    pub fn is_allowed_signers(text: &str) -> bool {
        AllowedSigners::parse(text, &jiff::tz::TimeZone::UTC).is_ok()
    }

    /// Reads an armored SSH signature.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_ssh(bytes: &[u8]) -> Result<(), SignatureError> {
        SshSignature::parse(bytes).map(drop)
    }

    /// Reads an armored OpenPGP signature.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_openpgp(bytes: &[u8]) -> Result<(), SignatureError> {
        OpenPgpSignature::parse(bytes).map(drop)
    }

    /// Whether the bytes are a file of OpenPGP keys.
    #[must_use]
    pub fn is_keyring(bytes: &[u8]) -> bool {
        Keyring::parse(bytes).is_ok()
    }

    /// Reads a minisign signature.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_minisign(bytes: &[u8]) -> Result<(), SignatureError> {
        MinisignSignature::parse(bytes).map(drop)
    }
}
