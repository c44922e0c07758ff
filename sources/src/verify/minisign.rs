//! Checks signatures of minisign (and of signify-style tools that speak its format), prehashed and legacy ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};

use super::error::{KeyError, SignatureError};
use super::signers::Signer;

/// The longest signature, with its comments.
const LIMIT: usize = 16 * 1024;

/// A public key that may have signed.
#[derive(Clone, Debug)]
pub(crate) struct MinisignKey {
    key: PublicKey,
    id: String,
}

impl MinisignKey {
    /// Reads a key: the line of base64, or the whole of a `.pub` file.
    pub(crate) fn parse(text: &str) -> Result<Self, KeyError> {
        let unreadable = || KeyError(format!("`{}` is not a public key of minisign", shorten(text)));
        let encoded = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with("untrusted comment:"))
            .ok_or_else(unreadable)?;
        let key = PublicKey::from_base64(encoded).map_err(|_| unreadable())?;
        let id = key_id(encoded).ok_or_else(unreadable)?;
        Ok(Self { key, id })
    }
}

/// A signature, not checked yet.
pub(crate) struct MinisignSignature {
    signature: Signature,
    id: String,
}

impl MinisignSignature {
    /// Reads what is in a `.minisig` file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let malformed = |reason: &str| SignatureError::Malformed(format!("minisign: {reason}"));
        if bytes.len() > LIMIT {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not text"))?;
        let signature = Signature::decode(text).map_err(|error| malformed(&error.to_string()))?;
        let id = text.lines().nth(1).and_then(key_id).ok_or_else(|| malformed("it names no key"))?;
        Ok(Self { signature, id })
    }

    /// Checks that one of the keys signed `content`.
    pub(crate) fn verify(&self, content: &[u8], keys: &[MinisignKey]) -> Result<Signer, SignatureError> {
        let key = format!("minisign key {}", self.id);
        let mut known = false;
        for trusted in keys.iter().filter(|trusted| trusted.id == self.id) {
            known = true;
            if trusted.key.verify(content, &self.signature, true).is_ok() {
                return Ok(Signer { principal: self.id.clone(), key });
            }
        }
        Err(if known { SignatureError::Mismatch { key } } else { SignatureError::UnknownKey { key } })
    }
}

/// The id of a key in a key or signature, as minisign shows it.
fn key_id(encoded: &str) -> Option<String> {
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    let id = bytes.get(2..10)?;
    Some(id.iter().rev().map(|byte| format!("{byte:02X}")).collect())
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 64 {
        line.to_owned()
    } else {
        line.chars().take(61).chain("...".chars()).collect()
    }
}
