//! Signatures of cosign by a key: a document that names the digest of a manifest, signed, kept in the registry beside it.

use std::path::PathBuf;

use base64::Engine as _;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorClass, Failure, Rejection};
use crate::snapshot::hexadecimal;

/// The annotation that holds the signature of a layer.
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The longest signed document, in bytes.
pub(super) const PAYLOAD_LIMIT: u64 = 64 * 1024;
/// The longest file with a key, in bytes.
const KEY_LIMIT: usize = 64 * 1024;
/// What stands before the point of a P-256 key in its `SubjectPublicKeyInfo`.
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_LENGTH: usize = 65;

/// The keys that may have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    /// The name of its file, and the beginning of its digest.
    name: String,
    point: Vec<u8>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl Keys {
    /// Reads the files; blocking.
    pub(super) fn load(paths: &[PathBuf]) -> Result<Self, Failure> {
        let keys = paths.iter().map(|path| {
            let unusable =
                |class, what: &str| Failure::new(class, format!("`oci.cosign`: {} {what}", path.display()));
            // Files may appear or be completed later, hence not stalled.
            let text = std::fs::read(path)
                .map_err(|error| unusable(ErrorClass::Transient, &format!("cannot be read: {error}")))?;
            let point = (text.len() <= KEY_LIMIT).then(|| parse_key(&text)).flatten();
            let point = point.ok_or_else(|| {
                unusable(ErrorClass::Transient, "is no public key in PEM form for ECDSA over P-256")
            })?;
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let digest = hexadecimal(&Sha256::digest(&point));
            Ok(Key { name: format!("{stem} ({})", &digest[..12]), point })
        });
        Ok(Self(keys.collect::<Result<_, Failure>>()?))
    }

    /// Identifies the keys: what was verified with others has to be verified anew.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for key in &self.0 {
            digest.update(&key.point);
        }
        hexadecimal(&digest.finalize())
    }

    /// Who of them signed `payload`, if that is about the manifest of this digest.
    pub(super) fn verify(&self, manifest: &str, payload: &[u8], signature: &str) -> Option<&str> {
        let signature = base64::engine::general_purpose::STANDARD.decode(signature.trim()).ok()?;
        // The signature first: nothing is read of what nobody signed.
        let key = self.0.iter().find(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point).verify(payload, &signature).is_ok()
        })?;
        let payload: Payload = serde_json::from_slice(payload).ok()?;
        let right = payload.critical.image.digest == manifest
            && payload.critical.kind == "cosign container image signature";
        right.then_some(key.name.as_str())
    }
}

/// The tag that cosign keeps the signatures of a manifest under.
pub(super) fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replacen(':', "-", 1))
}

pub(super) fn unsigned(what: &str) -> Failure {
    let message = format!("{what} has no signature of a trusted key");
    Failure::rejected(Rejection::Verification, message)
        .with_help("sign it with `cosign sign --key`, or check the keys in `oci.cosign`")
}

/// The point of a P-256 key.
fn parse_key(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.split_once("-----BEGIN PUBLIC KEY-----")?.1.split_once("-----END PUBLIC KEY-----")?.0;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).ok()?;
    let point = der.strip_prefix(P256)?;
    (point.len() == POINT_LENGTH && point[0] == 4).then(|| point.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;

    fn key() -> (EcdsaKeyPair, String) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let der = [P256, pair.public_key().as_ref()].concat();
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        (pair, format!("-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n"))
    }

    fn sign(pair: &EcdsaKeyPair, payload: &str) -> String {
        let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        base64::engine::general_purpose::STANDARD.encode(signature)
    }

    fn payload(digest: &str, kind: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"h/x"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
        )
    }

    #[test]
    fn a_signature_is_right_for_its_manifest_and_key_alone() {
        const KIND: &str = "cosign container image signature";
        let folder = tempfile::tempdir().unwrap();
        let ((ada, pem), (eve, _)) = (key(), key());
        let path = folder.path().join("ada.pub");
        std::fs::write(&path, pem).unwrap();
        let keys = Keys::load(std::slice::from_ref(&path)).unwrap();
        let (digest, other) = (format!("sha256:{}", "ab".repeat(32)), format!("sha256:{}", "cd".repeat(32)));
        let right = payload(&digest, KIND);
        let signer = keys.verify(&digest, right.as_bytes(), &sign(&ada, &right)).unwrap();
        assert!(signer.starts_with("ada ("), "{signer}");
        assert_eq!(keys.verify(&other, right.as_bytes(), &sign(&ada, &right)), None, "of another manifest");
        assert_eq!(keys.verify(&digest, right.as_bytes(), &sign(&eve, &right)), None, "by another key");
        let wrong = payload(&digest, "something else");
        assert_eq!(keys.verify(&digest, wrong.as_bytes(), &sign(&ada, &wrong)), None);
        assert_eq!(keys.verify(&digest, wrong.as_bytes(), &sign(&ada, &right)), None);
        assert_eq!(keys.verify(&digest, right.as_bytes(), "nonsense"), None);

        std::fs::write(&path, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n")
            .unwrap();
        assert!(Keys::load(&[path]).unwrap_err().message.contains("P-256"));
    }

    #[test]
    fn signatures_have_a_tag_of_their_own() {
        assert_eq!(tag("sha256:ab"), "sha256-ab.sig");
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse_key(&bytes));
            let pem = [&b"-----BEGIN PUBLIC KEY-----"[..], &bytes, b"-----END PUBLIC KEY-----"].concat();
            drop(parse_key(&pem));
        }
    }
}
