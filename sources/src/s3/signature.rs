//! The signature beside a manifest: where it is, and whether it is right.

use std::time::SystemTime;

use invar_object_store::{Get, Session, StoreError};

use super::S3Source;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::SignatureSettings;
use crate::verify::{DetachedKeys, verify_detached};

/// The longest signature, in bytes.
const LIMIT: usize = 64 * 1024;

impl S3Source {
    /// The keys that may sign, as they are now; `None` where nothing has to be signed.
    pub(super) async fn keys(&self) -> Result<Option<DetachedKeys>, Failure> {
        let Some(settings) = self.signature.clone() else { return Ok(None) };
        // A file of keys may be completed in a moment, hence not stalled.
        let unusable = |reason: String| Failure::transient(format!("`s3.signature`: {reason}"));
        tokio::task::spawn_blocking(move || DetachedKeys::load(&settings))
            .await
            .map_err(|_| unusable("reading the keys was interrupted".to_owned()))?
            .map(Some)
            .map_err(|error| unusable(error.to_string()))
    }

    /// Who signed the manifest that lies at `key`.
    pub(super) async fn signer(
        &self,
        session: &Session<'_>,
        keys: &DetachedKeys,
        key: &str,
        manifest: &[u8],
        now: SystemTime,
    ) -> Result<String, Failure> {
        let beside = self.signature.as_ref().map_or_else(String::new, |settings| beside(key, settings));
        let refuse =
            |what: String| Failure::rejected(Rejection::Verification, format!("{} {what}", self.place));
        let signature = match session.get(&Get { key: &beside, ..Get::default() }).await {
            Ok(object) if object.content.len() > LIMIT => {
                return Err(refuse(format!("has a signature of more than {LIMIT} bytes")));
            }
            Ok(object) => object.content,
            Err(StoreError::NoSuchObject { .. }) => {
                return Err(refuse(format!("is not signed: there is no {beside}"))
                    .with_help("upload the signature right after the manifest"));
            }
            Err(error) => return Err(self.access.failure(&beside, &error)),
        };
        verify_detached(keys, manifest, &signature, now)
            .map(|signer| signer.principal)
            .map_err(|error| refuse(error.to_string()))
    }
}

fn beside(key: &str, settings: &SignatureSettings) -> String {
    let suffix = if settings.ssh.is_some() { "sig" } else { "minisig" };
    format!("{key}.{suffix}")
}

/// Whether reading the manifest and its signature once more may help: between two requests one of them may have changed.
pub(super) fn is_mismatch(failure: &Failure) -> bool {
    failure.class == ErrorClass::Rejected(Rejection::Verification)
}
