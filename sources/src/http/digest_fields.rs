//! `Content-Digest` and `Repr-Digest` (RFC 9530): what the server says the hash of its answer is.

use base64::Engine as _;
use http::HeaderMap;
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{ErrorClass, Failure};

/// One hash that is known here; others are passed over, as the standard asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldDigest {
    /// `sha-256`.
    Sha256(Vec<u8>),
    /// `sha-512`.
    Sha512(Vec<u8>),
}

impl FieldDigest {
    fn matches(&self, content: &[u8]) -> bool {
        match self {
            Self::Sha256(expected) => Sha256::digest(content).as_slice() == expected,
            Self::Sha512(expected) => Sha512::digest(content).as_slice() == expected,
        }
    }
}

/// The known hashes of a field; `None` where one of them cannot be read.
#[must_use]
pub fn parse_digest_field(text: &str) -> Option<Vec<FieldDigest>> {
    let mut digests = Vec::new();
    for member in text.split(',') {
        let member = member.trim_matches([' ', '\t']);
        // Parameters come after a `;`, which base64 does not have.
        let Some((algorithm, value)) = member.split_once('=') else { continue };
        let value = value.split(';').next().unwrap_or_default().trim_end();
        let decode = |length: usize| {
            let inner = value.strip_prefix(':')?.strip_suffix(':')?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(inner).ok()?;
            (bytes.len() == length).then_some(bytes)
        };
        match algorithm.to_ascii_lowercase().as_str() {
            "sha-256" => digests.push(FieldDigest::Sha256(decode(32)?)),
            "sha-512" => digests.push(FieldDigest::Sha512(decode(64)?)),
            _ => {}
        }
    }
    Some(digests)
}

/// Compares what was sent, and the document within it, with what the headers say.
pub(super) fn check(headers: &HeaderMap, sent: &[u8], document: &[u8], place: &str) -> Result<(), Failure> {
    for name in ["content-digest", "repr-digest"] {
        for value in headers.get_all(name) {
            let digests = value.to_str().ok().and_then(parse_digest_field);
            let digests = digests.ok_or_else(|| wrong(place, name, "cannot be read"))?;
            for digest in digests {
                // A gateway that compresses leaves the hash of the representation as it was.
                let right = digest.matches(sent) || (name == "repr-digest" && digest.matches(document));
                if !right {
                    return Err(wrong(place, name, "is not that of the content"));
                }
            }
        }
    }
    Ok(())
}

fn wrong(place: &str, name: &str, what: &str) -> Failure {
    let message = format!("the `{name}` of {place} {what}");
    Failure::new(ErrorClass::Integrity, message).with_help("something on the way may have changed the answer")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    // The examples of RFC 9530, appendix B, for the content below.
    const CONTENT: &[u8] = b"{\"hello\": \"world\"}\n";
    const SHA256: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    const SHA512: &str =
        "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";

    fn checked(name: &'static str, value: &str, sent: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        check(&headers, sent, CONTENT, "x").is_ok()
    }

    #[test]
    fn the_examples_of_the_standard() {
        for value in [SHA256, SHA512, &format!("{SHA256},{SHA512}"), &format!("md5=:AA==:, {SHA256};q=1")] {
            assert!(checked("content-digest", value, CONTENT), "{value}");
            assert!(checked("repr-digest", value, CONTENT), "{value}");
        }
    }

    #[test]
    fn a_hash_of_something_else_is_noticed() {
        for value in [SHA256, SHA512, &format!("md5=:AA==:,{SHA256}")] {
            assert!(!checked("content-digest", value, b"{}"), "{value}");
        }
        for value in ["sha-256=:AAAA:", "sha-256=abc", "sha-256=:*:", "sha-512"] {
            assert_eq!(checked("content-digest", value, CONTENT), value == "sha-512", "{value}");
        }
    }

    #[test]
    fn the_representation_may_have_been_compressed_on_the_way() {
        assert!(checked("repr-digest", SHA256, b"compressed"));
        assert!(!checked("content-digest", SHA256, b"compressed"));
    }

    proptest! {
        #[test]
        fn any_field_is_read_or_refused(text in "[ -~]{0,120}") {
            if let Some(digests) = parse_digest_field(&text) {
                prop_assert!(digests.len() <= text.len());
            }
        }

        #[test]
        fn a_right_hash_is_right(content in proptest::collection::vec(any::<u8>(), 0..100)) {
            let encoded = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&content));
            let digests = parse_digest_field(&format!("sha-256=:{encoded}:")).unwrap();
            prop_assert!(digests.iter().all(|digest| digest.matches(&content)) && digests.len() == 1);
        }
    }
}
