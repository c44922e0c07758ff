//! Checks SSH signatures (the format of `ssh-keygen -Y sign`) against the keys of an `allowed_signers` file.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::signature::Verifier as _;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::encoding::Decode as _;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Algorithm, Certificate, HashAlg, SshSig};

use super::allowed_signers::{AllowedSigner, AllowedSigners};
use super::error::SignatureError;
use super::signers::{Signer, Signers};

/// What an armored signature begins with.
pub(crate) const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// The longest signature; one by a certificate with many principals has a few kilobytes.
const LIMIT: usize = 256 * 1024;
/// The smallest RSA key, in bits.
const RSA_BITS: usize = 2048;

/// A signature, not checked yet.
#[derive(Clone, Debug)]
pub(crate) struct SshSignature(SshSig);

impl SshSignature {
    /// Reads an armored signature; how its lines are broken does not matter.
    pub(crate) fn parse(armored: &[u8]) -> Result<Self, SignatureError> {
        let malformed = |reason: &str| SignatureError::Malformed(format!("SSH: {reason}"));
        if armored.len() > LIMIT {
            return Err(malformed("it is longer than 256 KiB"));
        }
        let text = std::str::from_utf8(armored).map_err(|_| malformed("it is not text"))?.trim();
        let encoded = text
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or_else(|| malformed("it is not between the lines that mark one"))?;
        let encoded: String = encoded.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(encoded).map_err(|_| malformed("it is not base64"))?;
        let mut reader: &[u8] = &bytes;
        let signature = SshSig::decode(&mut reader).map_err(|error| malformed(&error.to_string()))?;
        if !reader.is_empty() || signature.version() != SshSig::VERSION || !signature.reserved().is_empty() {
            return Err(malformed("it is not of version 1"));
        }
        Ok(Self(signature))
    }

    /// Checks that one of `allowed` signed `content` for `namespace`, and may at the time `now`.
    pub(crate) fn verify(
        &self,
        content: &[u8],
        namespace: &str,
        allowed: &AllowedSigners,
        signers: &Signers,
        now: SystemTime,
    ) -> Result<Signer, SignatureError> {
        let certificate = self.0.public_key().certificate();
        let signing = certificate.map_or(self.0.public_key(), Certificate::public_key);
        let shown = show(signing);
        let mut closest = SignatureError::UnknownKey { key: shown.clone() };
        let mut content_is_right = None;
        for line in &allowed.lines {
            let trusted = match certificate {
                None => !line.is_authority && line.key.key_data() == signing,
                Some(certificate) => line.is_authority && line.key.key_data() == certificate.signature_key(),
            };
            if !trusted {
                continue;
            }
            // Once is enough: all lines that come this far are of the same key.
            let right =
                content_is_right.get_or_insert_with(|| self.check(signing, &shown, namespace, content));
            let verdict =
                right.clone().and_then(|()| permit(line, certificate, &shown, namespace, signers, now));
            match verdict {
                Ok(signer) => return Ok(signer),
                Err(error) if error.closeness() >= closest.closeness() => closest = error,
                Err(_) => {}
            }
        }
        Err(closest)
    }

    /// Whether the key signed the content for the namespace.
    fn check(
        &self,
        key: &KeyData,
        shown: &str,
        namespace: &str,
        content: &[u8],
    ) -> Result<(), SignatureError> {
        let unusable = |reason: String| SignatureError::Unusable { key: shown.to_owned(), reason };
        acceptable(key, &self.0.signature().algorithm()).map_err(unusable)?;
        let signed = SshSig::signed_data(self.0.namespace(), self.0.hash_alg(), content)
            .map_err(|error| unusable(error.to_string()))?;
        key.verify(&signed, self.0.signature())
            .map_err(|_| SignatureError::Mismatch { key: shown.to_owned() })?;
        if self.0.namespace() != namespace {
            return Err(SignatureError::Namespace {
                key: shown.to_owned(),
                found: self.0.namespace().to_owned(),
                wanted: namespace.to_owned(),
            });
        }
        Ok(())
    }
}

/// `SHA256:…`, as OpenSSH shows keys.
fn show(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Whether the kind of key, and of its signature, is strong enough.
fn acceptable(key: &KeyData, signature: &Algorithm) -> Result<(), String> {
    if matches!(signature, Algorithm::Rsa { hash: None }) {
        return Err("an RSA signature with SHA-1".to_owned());
    }
    if matches!(signature, Algorithm::Dsa) {
        return Err("a DSA key".to_owned());
    }
    if let KeyData::Rsa(key) = key {
        let bits = key.n().as_positive_bytes().map_or(0, |bytes| bytes.len() * 8);
        if bits < RSA_BITS {
            return Err(format!("an RSA key of {bits} bits, where {RSA_BITS} are asked for"));
        }
    }
    Ok(())
}

/// Whether the line lets the key sign now, and who it is then.
fn permit(
    line: &AllowedSigner,
    certificate: Option<&Certificate>,
    key: &str,
    namespace: &str,
    signers: &Signers,
    now: SystemTime,
) -> Result<Signer, SignatureError> {
    let key = key.to_owned();
    if let Some((namespaces, text)) = &line.namespaces
        && !namespaces.matches(namespace)
    {
        return Err(SignatureError::Namespace { key, found: text.clone(), wanted: namespace.to_owned() });
    }
    let own = match certificate {
        None => line.principals.first().unwrap_or_default().to_owned(),
        Some(certificate) => certified(line, certificate, &key, now)?,
    };
    if let Some(from) = line.valid_after.filter(|from| now < *from) {
        return Err(SignatureError::NotYetValid { key, from });
    }
    if let Some(since) = line.valid_before.filter(|since| now >= *since) {
        return Err(SignatureError::Expired { key, since });
    }
    let is_theirs = |name: &str| {
        line.principals.matches(name)
            && certificate
                .is_none_or(|certificate| certificate.valid_principals().iter().any(|own| own == name))
    };
    match signers.admit(&own, is_theirs) {
        Some(principal) => Ok(Signer { principal, key }),
        None => Err(SignatureError::NotASigner { principal: own, key }),
    }
}

/// Checks a certificate by the authority of the line; gives the principal it is for.
fn certified(
    line: &AllowedSigner,
    certificate: &Certificate,
    key: &str,
    now: SystemTime,
) -> Result<String, SignatureError> {
    let unusable = |reason: String| SignatureError::Unusable { key: key.to_owned(), reason };
    acceptable(certificate.signature_key(), &certificate.signature().algorithm())
        .map_err(|reason| unusable(format!("its certificate has {reason}")))?;
    if certificate.cert_type() != CertType::User {
        return Err(unusable("its certificate is of a host".to_owned()));
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Err(unusable(format!("its certificate is restricted by `{option}`")));
    }
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = |seconds: u64| UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds)).unwrap_or(now);
    if seconds < certificate.valid_after() {
        return Err(SignatureError::NotYetValid { key: key.to_owned(), from: at(certificate.valid_after()) });
    }
    if seconds >= certificate.valid_before() {
        return Err(SignatureError::Expired { key: key.to_owned(), since: at(certificate.valid_before()) });
    }
    let authority = line.key.fingerprint(HashAlg::Sha256);
    certificate
        .validate_at(seconds, [&authority])
        .map_err(|_| unusable("its certificate is not signed by the authority".to_owned()))?;
    certificate
        .valid_principals()
        .iter()
        .find(|principal| line.principals.matches(principal))
        .cloned()
        .ok_or_else(|| unusable("its certificate is for no principal of the authority's line".to_owned()))
}
