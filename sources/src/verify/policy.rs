//! Whom the operator trusts to sign a repository: the settings with the keys that they name, read once and identified by a
//! digest, so that what was verified can be verified anew when either changes.

use std::time::SystemTime;

use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use super::allowed_signers::AllowedSigners;
use super::error::{KeyError, SignatureError};
use super::key_file;
use super::openpgp::{self, Keyring, OpenPgpSignature};
use super::signers::{Signer, Signers};
use super::ssh::{self, SshSignature};
use crate::settings::VerifySettings;
use crate::snapshot::hexadecimal;

/// What signatures of Git are for.
const NAMESPACE: &str = "git";
/// What an armored signature of X.509 begins with.
const BEGIN_X509: &str = "-----BEGIN SIGNED MESSAGE-----";
/// Counts up when verification itself changes, so that an agent of a newer version verifies anew.
const VERSION: &str = "trust policy 1";

/// Keys, who of their owners may sign, and what has to be signed.
#[derive(Debug)]
pub(crate) struct TrustPolicy {
    ssh: AllowedSigners,
    openpgp: Keyring,
    signers: Signers,
    digest: String,
}

impl TrustPolicy {
    /// Reads the keys that the settings name. Blocks.
    pub(crate) fn load(settings: &VerifySettings) -> Result<Self, KeyError> {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        add(VERSION.as_bytes());
        add(format!("{:?} {}", settings.mode, settings.seal).as_bytes());
        add(format!("{:?}", settings.signers).as_bytes());
        let mut ssh = AllowedSigners::default();
        if let Some(path) = &settings.ssh {
            let content = key_file::read(path)?;
            add(b"ssh");
            add(&content);
            ssh = AllowedSigners::read(path, &content, &TimeZone::system())?;
        }
        let mut openpgp = Keyring::default();
        if let Some(path) = &settings.openpgp {
            let content = key_file::read(path)?;
            add(b"openpgp");
            add(&content);
            openpgp = Keyring::read(path, &content)?;
        }
        let signers = Signers::new(&settings.signers);
        Ok(Self { ssh, openpgp, signers, digest: hexadecimal(&digest.finalize()) })
    }

    /// Identifies the policy.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Checks that somebody who may signed `payload`, with a key that is valid at the time `now`.
    pub(crate) fn verify(
        &self,
        payload: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) -> Result<Signer, SignatureError> {
        let begins = |mark: &str| signature.trim_ascii_start().starts_with(mark.as_bytes());
        if begins(ssh::BEGIN) {
            let signature = SshSignature::parse(signature)?;
            return signature.verify(payload, NAMESPACE, &self.ssh, &self.signers, now);
        }
        if begins(openpgp::BEGIN) {
            return OpenPgpSignature::parse(signature)?.verify(payload, &self.openpgp, &self.signers, now);
        }
        Err(SignatureError::Malformed(
            if begins(BEGIN_X509) {
                "it is of X.509, which is not supported; sign with SSH or OpenPGP"
            } else {
                "it is neither of SSH nor of OpenPGP"
            }
            .to_owned(),
        ))
    }
}
