//! Signatures that lie beside what they sign: minisign's, and those of SSH.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use super::allowed_signers::AllowedSigners;
use super::error::{KeyError, SignatureError};
use super::key_file;
use super::minisign::{MinisignKey, MinisignSignature};
use super::signers::{Signer, Signers};
use super::ssh::{self, SshSignature};
use crate::settings::SignatureSettings;
use crate::snapshot::hexadecimal;

/// What a signature of SSH beside a file is for, as `ssh-keygen -Y sign -n file` has it.
const NAMESPACE: &str = "file";

/// The keys that may have signed a document.
#[derive(Clone, Debug)]
pub struct DetachedKeys {
    minisign: Vec<MinisignKey>,
    ssh: Option<AllowedSigners>,
    digest: String,
}

impl DetachedKeys {
    /// Reads the keys that the settings name. Reads a file, and blocks for that.
    ///
    /// # Errors
    /// A key or the file of keys cannot be read, or there is no key at all.
    pub fn load(settings: &SignatureSettings) -> Result<Self, KeyError> {
        let mut digest = Sha256::new();
        let minisign: Vec<MinisignKey> =
            settings.minisign.iter().map(|key| MinisignKey::parse(key)).collect::<Result<_, _>>()?;
        for key in &settings.minisign {
            digest.update((key.len() as u64).to_be_bytes());
            digest.update(key);
        }
        let mut ssh = None;
        if let Some(path) = &settings.ssh {
            let content = key_file::read(path)?;
            digest.update(b"ssh");
            digest.update(&content);
            ssh = Some(AllowedSigners::read(path, &content, &TimeZone::system())?);
        }
        if minisign.is_empty() && ssh.as_ref().is_none_or(|allowed| allowed.lines.is_empty()) {
            return Err(KeyError("`signature` names no key that could have signed".to_owned()));
        }
        Ok(Self { minisign, ssh, digest: hexadecimal(&digest.finalize()) })
    }

    /// Identifies the keys: with another digest, what was verified before has to be verified anew.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Checks that one of `keys` signed `content`, with what is in a `.minisig` or `.sig` file. Of SSH's signatures those
/// for the namespace `file` count, by keys that are valid at the time `now`.
///
/// # Errors
/// The signature cannot be read, is of no trusted key, or not of this content.
pub fn verify_detached(
    keys: &DetachedKeys,
    content: &[u8],
    signature: &[u8],
    now: SystemTime,
) -> Result<Signer, SignatureError> {
    if signature.trim_ascii().is_empty() {
        return Err(SignatureError::Unsigned);
    }
    if signature.trim_ascii_start().starts_with(ssh::BEGIN.as_bytes()) {
        let none = AllowedSigners::default();
        let allowed = keys.ssh.as_ref().unwrap_or(&none);
        return SshSignature::parse(signature)?.verify(content, NAMESPACE, allowed, &Signers::any(), now);
    }
    MinisignSignature::parse(signature)?.verify(content, &keys.minisign)
}

#[cfg(test)]
mod tests;
