//! Takes the signature and what it signs out of commits and annotated tags, byte for byte as Git does. The objects are read
//! here and not by the library, whose view of a commit other files of a repository (grafts) may change.

use crate::verify::SignatureError;

/// The header that holds a commit's signature.
const SIGNATURE_HEADER: &[u8] = b"gpgsig";
/// What armored signatures at the end of a tag begin with.
const ARMOR: [&[u8]; 4] = [
    b"-----BEGIN SSH SIGNATURE-----",
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----BEGIN PGP MESSAGE-----",
    b"-----BEGIN SIGNED MESSAGE-----",
];

/// A commit, as far as signatures are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedCommit {
    /// In full hexadecimal digits.
    pub(super) parents: Vec<String>,
    /// The commit without its signature.
    pub(super) payload: Vec<u8>,
    /// Empty where there is none.
    pub(super) signature: Vec<u8>,
}

/// An annotated tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedTag {
    /// What it names, in full hexadecimal digits.
    pub(super) object: String,
    /// `commit`, as a rule.
    pub(super) kind: String,
    /// Its own name, without `refs/tags/`.
    pub(super) name: String,
    /// The tag without its signature.
    pub(super) payload: Vec<u8>,
    /// Empty where there is none.
    pub(super) signature: Vec<u8>,
}

fn malformed(reason: &str) -> SignatureError {
    SignatureError::Malformed(reason.to_owned())
}

impl SignedCommit {
    /// Reads a commit's bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let mut commit =
            Self { parents: Vec::new(), payload: Vec::with_capacity(bytes.len()), signature: Vec::new() };
        let headers = headers_end(bytes);
        let mut place = Place::Payload;
        for line in bytes[..headers].split_inclusive(|byte| *byte == b'\n') {
            let continues = line.starts_with(b" ") && place != Place::Payload;
            if !continues {
                place = match line.strip_prefix(SIGNATURE_HEADER) {
                    Some(rest) if rest.starts_with(b" ") => {
                        if !commit.signature.is_empty() {
                            return Err(malformed("there is more than one"));
                        }
                        Place::Signature
                    }
                    // A signature for repositories with ids of another length: no part of what this one signs.
                    Some(_) => Place::Other,
                    None => Place::Payload,
                };
            }
            match place {
                Place::Signature => {
                    let start = if continues { 1 } else { SIGNATURE_HEADER.len() + 1 };
                    commit.signature.extend_from_slice(&line[start..]);
                }
                Place::Other => {}
                Place::Payload => {
                    if let Some(parent) = line.strip_prefix(b"parent ") {
                        commit.parents.push(id(parent).ok_or_else(|| malformed("a parent of it has no id"))?);
                    }
                    commit.payload.extend_from_slice(line);
                }
            }
        }
        commit.payload.extend_from_slice(&bytes[headers..]);
        Ok(commit)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Payload,
    Signature,
    Other,
}

impl SignedTag {
    /// Reads a tag's bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let end = signature_start(bytes);
        let payload = &bytes[..end];
        let mut lines = payload[..headers_end(payload)].split(|byte| *byte == b'\n');
        let mut header = |key: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(key.as_bytes()));
            line.ok_or_else(|| malformed("the tag is not written as Git writes one"))
        };
        let object = id(header("object ")?).ok_or_else(|| malformed("the tag names no object"))?;
        let kind = text(header("type ")?)?;
        let name = text(header("tag ")?)?;
        // Signatures for repositories with ids of another length lie in a header, and are no part of what is signed.
        let stripped = SignedCommit::parse(payload)?;
        if !stripped.signature.is_empty() {
            return Err(malformed("it is not at the end of the tag"));
        }
        Ok(Self { object, kind, name, payload: stripped.payload, signature: bytes[end..].to_vec() })
    }
}

/// Where the message begins: behind the first empty line.
fn headers_end(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\n") {
        return 0;
    }
    bytes.windows(2).position(|pair| pair == b"\n\n").map_or(bytes.len(), |place| place + 1)
}

/// Where the last line is that begins a signature; the end if there is none.
fn signature_start(bytes: &[u8]) -> usize {
    let (mut start, mut found) = (0, bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if ARMOR.iter().any(|mark| line.starts_with(mark)) {
            found = start;
        }
        start += line.len();
    }
    found
}

/// The id at the end of a header.
fn id(value: &[u8]) -> Option<String> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let digits = matches!(value.len(), 40 | 64)
        && value.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    digits.then(|| String::from_utf8_lossy(value).into_owned())
}

fn text(value: &[u8]) -> Result<String, SignatureError> {
    String::from_utf8(value.to_vec()).map_err(|_| malformed("the tag is not written in UTF-8"))
}

/// Whether bytes are a commit or a tag with a signature; for the fuzzer.
#[must_use]
pub fn has_signature(bytes: &[u8]) -> (bool, bool) {
    let signed = |signature: Vec<u8>| !signature.is_empty();
    (
        SignedCommit::parse(bytes).is_ok_and(|commit| signed(commit.signature)),
        SignedTag::parse(bytes).is_ok_and(|tag| signed(tag.signature)),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    #[test]
    fn the_signature_of_a_commit_is_its_header() {
        let text = format!(
            "tree {ID}\nparent {ID}\nparent {ID}\nauthor A <a@b> 1 +0000\n\
             gpgsig -----BEGIN X-----\n \n abc\n -----END X-----\n\
             gpgsig-sha256 other\n more\nencoding x\n\nmessage\ngpgsig not this\n"
        );
        let commit = SignedCommit::parse(text.as_bytes()).unwrap();
        assert_eq!(commit.parents, [ID, ID]);
        assert_eq!(commit.signature, b"-----BEGIN X-----\n\nabc\n-----END X-----\n");
        let payload = format!(
            "tree {ID}\nparent {ID}\nparent {ID}\nauthor A <a@b> 1 +0000\nencoding x\n\n\
             message\ngpgsig not this\n"
        );
        assert_eq!(String::from_utf8(commit.payload).unwrap(), payload);
    }

    #[test]
    fn a_commit_with_two_signatures_is_not_read() {
        let text = format!("tree {ID}\ngpgsig one\ngpgsig two\n\nx");
        let error = SignedCommit::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than one"), "{error}");
        for text in ["tree x\nparent zz\n\n", "parent 4B825DC642CB6EB9A060E54BF8D69288FBEE4904\n"] {
            assert!(SignedCommit::parse(text.as_bytes()).is_err(), "{text}");
        }
        let unsigned = SignedCommit::parse(b"").unwrap();
        assert!(unsigned.signature.is_empty() && unsigned.payload.is_empty());
    }

    #[test]
    fn the_signature_of_a_tag_is_its_end() {
        let text = format!(
            "object {ID}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nmessage\n\
             -----BEGIN PGP SIGNATURE-----\nquoted\n\
             -----BEGIN SSH SIGNATURE-----\nabc\n-----END SSH SIGNATURE-----\n"
        );
        let tag = SignedTag::parse(text.as_bytes()).unwrap();
        assert_eq!((tag.object.as_str(), tag.kind.as_str(), tag.name.as_str()), (ID, "commit", "v1"));
        assert_eq!(tag.signature, b"-----BEGIN SSH SIGNATURE-----\nabc\n-----END SSH SIGNATURE-----\n");
        assert!(tag.payload.ends_with(b"\nquoted\n"));
        let unsigned = SignedTag::parse(format!("object {ID}\ntype commit\ntag v1\n\nx").as_bytes()).unwrap();
        assert!(unsigned.signature.is_empty());
        for text in [
            String::new(),
            format!("object {ID}\ntag v1\ntype commit\n\n"),
            format!("type commit\nobject {ID}\ntag v1\n\n"),
            format!("object {ID}\ntype commit\n\ntag v1\n"),
            format!("object {ID}\ntype commit\ntag v1\ngpgsig x\n\n"),
        ] {
            assert!(SignedTag::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_but_signatures_is_left_out(
            lines in proptest::collection::vec("(gpgsig|gpgsig-sha256|parent|tree|| )( |)[a-f\n ]{0,6}", 0..12),
        ) {
            let text = lines.join("\n");
            drop(SignedTag::parse(text.as_bytes()));
            if let Ok(commit) = SignedCommit::parse(text.as_bytes()) {
                prop_assert!(commit.payload.len() + commit.signature.len() <= text.len());
                if !text.contains("gpgsig") {
                    prop_assert_eq!(commit.payload, text.as_bytes());
                }
            }
        }
    }
}
