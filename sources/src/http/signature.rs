//! Signatures beside a document: where they are, and whether one is right.

use std::time::SystemTime;

use bytes::Bytes;
use url::Url;

use crate::connection::place;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::SignatureSettings;
use crate::verify::{DetachedKeys, verify_detached};

/// The longest signature, in bytes.
pub(super) const LIMIT: usize = 64 * 1024;

/// The signature that one source asks for.
#[derive(Debug)]
pub(super) struct Signature {
    document: String,
    url: Url,
    settings: SignatureSettings,
}

impl Signature {
    /// What the settings ask for of the document at `url`.
    pub(super) fn new(url: &Url, settings: &SignatureSettings) -> Result<Self, Failure> {
        let beside = match &settings.url {
            Some(text) => super::address(text, "http.signature.url")?,
            None => {
                let suffix = if settings.ssh.is_some() { ".sig" } else { ".minisig" };
                let mut beside = url.clone();
                beside.set_path(&format!("{}{suffix}", url.path()));
                beside
            }
        };
        Ok(Self { document: place(url), url: beside, settings: settings.clone() })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Who signed the document. The keys are read anew each time, so that one that is taken away counts no more from
    /// the next poll on. Blocking.
    pub(super) fn verify(
        &self,
        document: &[u8],
        signature: Option<&Bytes>,
        now: SystemTime,
    ) -> Result<String, Failure> {
        let refuse = |what: String| Failure::rejected(Rejection::Verification, what);
        // A file of keys may be completed in a moment, hence not stalled.
        let keys = DetachedKeys::load(&self.settings)
            .map_err(|error| Failure::transient(format!("`http.signature`: {error}")))?;
        let Some(signature) = signature else {
            return Err(refuse(format!("{} is not signed: there is no {}", self.document, place(&self.url)))
                .with_help("publish the signature beside the document, or name its address with `http.signature.url`"));
        };
        match verify_detached(&keys, document, signature, now) {
            Ok(signer) => Ok(signer.principal),
            Err(error) => Err(refuse(format!("{} {error}", self.document))),
        }
    }
}

/// Whether reading the document and its signature once more may help: between two requests one of them may have changed.
pub(super) fn is_mismatch(failure: &Failure) -> bool {
    failure.class == ErrorClass::Rejected(Rejection::Verification)
}
