//! Checks OpenPGP signatures against a file of public keys, armored or binary.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, PublicParams, RsaPublicParams, VerifyingKey};

use super::error::{KeyError, SignatureError};
use super::openpgp_key::{Certificate, show};
use super::signers::{Signer, Signers};

/// What an armored signature begins with.
pub(crate) const BEGIN: &str = "-----BEGIN PGP SIGNATURE-----";
const BEGIN_KEYS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END_KEYS: &str = "-----END PGP PUBLIC KEY BLOCK-----";
const SECRET: &str = "-----BEGIN PGP PRIVATE KEY BLOCK-----";
/// The longest armored signature.
const LIMIT: usize = 64 * 1024;
/// The smallest RSA key, in bits.
const RSA_BITS: u16 = 2048;

/// Public keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    certificates: Vec<Certificate>,
}

impl Keyring {
    /// Reads a file of keys: one or several armored blocks one after the other, or packets as they are.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        let mut certificates = Vec::new();
        let mut take = |keys: &mut dyn Iterator<Item = pgp::errors::Result<SignedPublicKey>>| {
            for key in keys {
                certificates.push(Certificate::new(key.map_err(|error| error.to_string())?));
            }
            Ok::<_, String>(())
        };
        if content.first().is_some_and(|byte| byte & 0x80 != 0) {
            take(&mut SignedPublicKey::from_bytes_many(content).map_err(|error| error.to_string())?)?;
        } else {
            let text =
                std::str::from_utf8(content).map_err(|_| "it is neither armored nor binary".to_owned())?;
            if text.contains(SECRET) {
                return Err("it holds a private key; export public ones".to_owned());
            }
            let mut rest = text;
            while let Some(start) = rest.find(BEGIN_KEYS) {
                let block = &rest[start..];
                let end = block.find(END_KEYS).ok_or("an armored block has no end")? + END_KEYS.len();
                let armored = SignedPublicKey::from_armor_many(&block.as_bytes()[..end]);
                take(&mut armored.map_err(|error| error.to_string())?.0)?;
                rest = &block[end..];
            }
        }
        if certificates.is_empty() {
            return Err("there is no public key in it".to_owned());
        }
        Ok(Self { certificates })
    }

    /// As [`Keyring::parse`], of the content of the file at `path`.
    pub(crate) fn read(path: &std::path::Path, content: &[u8]) -> Result<Self, KeyError> {
        Self::parse(content).map_err(|reason| {
            KeyError(format!("{} is not a file of OpenPGP public keys: {reason}", path.display()))
        })
    }
}

/// A signature, not checked yet.
#[derive(Clone, Debug)]
pub(crate) struct OpenPgpSignature(DetachedSignature);

impl OpenPgpSignature {
    /// Reads an armored signature.
    pub(crate) fn parse(armored: &[u8]) -> Result<Self, SignatureError> {
        let malformed = |reason: &str| SignatureError::Malformed(format!("OpenPGP: {reason}"));
        if armored.len() > LIMIT {
            return Err(malformed("it is longer than 64 KiB"));
        }
        let armored = armored.trim_ascii();
        if !armored.starts_with(BEGIN.as_bytes()) {
            return Err(malformed("it is not an armored signature"));
        }
        let (mut found, _) =
            DetachedSignature::from_armor_many(armored).map_err(|error| malformed(&error.to_string()))?;
        let signature = match found.next() {
            Some(Ok(signature)) => signature,
            Some(Err(error)) => return Err(malformed(&error.to_string())),
            None => return Err(malformed("it is empty")),
        };
        if found.next().is_some() {
            return Err(malformed("it holds more than one"));
        }
        Ok(Self(signature))
    }

    /// Checks that one of the keys signed `content`, and may at the time `now`.
    pub(crate) fn verify(
        &self,
        content: &[u8],
        keyring: &Keyring,
        signers: &Signers,
        now: SystemTime,
    ) -> Result<Signer, SignatureError> {
        let mut closest = SignatureError::UnknownKey { key: self.issuer() };
        let mut consider = |verdict: Result<Signer, SignatureError>| match verdict {
            Ok(signer) => Some(signer),
            Err(error) => {
                if error.closeness() >= closest.closeness() {
                    closest = error;
                }
                None
            }
        };
        for certificate in &keyring.certificates {
            let primary = &certificate.key.primary_key;
            if self.names(primary) {
                let shown = format!("OpenPGP key {}", show(&primary.fingerprint()));
                let verdict = self
                    .check(primary, &shown, content, now)
                    .and_then(|()| certificate.judge_primary(&shown, true, now))
                    .and_then(|()| admit(certificate, primary, shown, signers, now));
                if let Some(signer) = consider(verdict) {
                    return Ok(signer);
                }
            }
            for (index, subkey) in certificate.key.public_subkeys.iter().enumerate() {
                if self.names(&subkey.key) {
                    let shown = format!("OpenPGP key {}", show(&subkey.key.fingerprint()));
                    let verdict = self
                        .check(&subkey.key, &shown, content, now)
                        .and_then(|()| certificate.judge_subkey(index, &shown, now))
                        .and_then(|()| admit(certificate, &subkey.key, shown, signers, now));
                    if let Some(signer) = consider(verdict) {
                        return Ok(signer);
                    }
                }
            }
        }
        Err(closest)
    }

    /// Whether the signature says that this key made it.
    fn names(&self, key: &impl KeyDetails) -> bool {
        let signature = &self.0.signature;
        let fingerprint = key.fingerprint();
        match signature.issuer_fingerprint().as_slice() {
            [] => signature.issuer_key_id().contains(&&key.legacy_key_id()),
            named => named.contains(&&fingerprint),
        }
    }

    /// The key that the signature names.
    fn issuer(&self) -> String {
        let signature = &self.0.signature;
        match (signature.issuer_fingerprint().first(), signature.issuer_key_id().first()) {
            (Some(fingerprint), _) => format!("OpenPGP key {}", show(fingerprint)),
            (None, Some(id)) => format!("OpenPGP key {}", id.to_string().to_uppercase()),
            (None, None) => "an OpenPGP key that it does not name".to_owned(),
        }
    }

    /// Whether the key signed the content, in a way that is good enough.
    fn check(
        &self,
        key: &impl VerifyingKey,
        shown: &str,
        content: &[u8],
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        let signature = &self.0.signature;
        let unusable =
            |reason: &str| SignatureError::Unusable { key: shown.to_owned(), reason: reason.to_owned() };
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err(unusable("the signature is not of data"));
        }
        let strong = matches!(
            signature.hash_alg(),
            Some(
                HashAlgorithm::Sha224
                    | HashAlgorithm::Sha256
                    | HashAlgorithm::Sha384
                    | HashAlgorithm::Sha512
                    | HashAlgorithm::Sha3_256
                    | HashAlgorithm::Sha3_512
            )
        );
        if !strong {
            return Err(unusable("the signature is made with a weak hash"));
        }
        if let PublicParams::RSA(key) = key.public_params()
            && rsa_bits(key) < RSA_BITS
        {
            return Err(unusable("an RSA key of less than 2048 bits"));
        }
        let understood = signature.config().is_some_and(|config| {
            config.hashed_subpackets().all(|packet| {
                !packet.is_critical
                    || !matches!(packet.data, SubpacketData::Other(..) | SubpacketData::Experimental(..))
            })
        });
        if !understood {
            return Err(unusable("the signature has a part that has to be understood and is not known"));
        }
        self.0.verify(&key, content).map_err(|_| SignatureError::Mismatch { key: shown.to_owned() })?;
        let lifetime = signature.signature_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
        if let (Some(made), true) = (signature.created(), lifetime != 0) {
            let end = UNIX_EPOCH + Duration::from_secs(u64::from(made.as_secs()) + lifetime);
            if now >= end {
                return Err(SignatureError::Expired { key: shown.to_owned(), since: end });
            }
        }
        Ok(())
    }
}

/// The length of the modulus: its number of bits is the first thing that is written of a key.
fn rsa_bits(key: &RsaPublicParams) -> u16 {
    match key.to_bytes().unwrap_or_default().as_slice() {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// Whether the owner of the key may sign.
fn admit(
    certificate: &Certificate,
    signing: &impl KeyDetails,
    key: String,
    signers: &Signers,
    now: SystemTime,
) -> Result<Signer, SignatureError> {
    let names = certificate.names(now);
    let fingerprints = [certificate.fingerprint(), show(&signing.fingerprint())];
    let own = names.first().map_or_else(|| fingerprints[0].clone(), |name| (*name).to_owned());
    let is_theirs = |wanted: &str| {
        fingerprints.contains(&normalize(wanted))
            || names.iter().any(|name| *name == wanted || address(name).eq_ignore_ascii_case(wanted))
    };
    match signers.admit(&own, is_theirs) {
        Some(_) => Ok(Signer { principal: own, key }),
        None => Err(SignatureError::NotASigner { principal: own, key }),
    }
}

/// A fingerprint without the blanks and the case that people copy it with.
fn normalize(fingerprint: &str) -> String {
    let digits: String = fingerprint.chars().filter(|c| !c.is_whitespace()).collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    digits.to_ascii_uppercase()
}

/// The address in `Name <address>`.
fn address(name: &str) -> &str {
    match name.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>')) {
        Some(address) => address,
        None => name,
    }
}

#[cfg(test)]
mod tests;
