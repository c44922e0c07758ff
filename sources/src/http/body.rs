//! From an answer with status 200 to the bytes of a document: its shape, its encoding, and how much of it there may be.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};

use crate::error::{Failure, Rejection};
use crate::settings::LimitSettings;
use crate::units::display_size;

/// How many times larger than what was sent a document may be.
const RATIO_LIMIT: u64 = 100;

/// How the body was encoded on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

/// Looks at the headers before anything of the body is read.
pub(super) fn check_headers(
    headers: &HeaderMap,
    limits: &LimitSettings,
    place: &str,
) -> Result<Encoding, Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "text/html" || kind == "application/xhtml+xml" {
        return Err(web_page(place));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length > limits.file) {
        return Err(too_long(place, &format!("is {} long", display_size(length)), limits));
    }
    let encodings: Vec<String> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(|encoding| encoding.trim().to_ascii_lowercase())
        .filter(|encoding| !encoding.is_empty() && encoding != "identity")
        .collect();
    match encodings.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Ok(Encoding::Plain),
        ["gzip" | "x-gzip"] => Ok(Encoding::Gzip),
        _ => Err(Failure::rejected(
            Rejection::Shape,
            format!("{place} answers in an encoding that was not asked for"),
        )),
    }
}

/// The document within a body. Blocking, as decompressing takes its time.
pub(super) fn decode(
    body: &Bytes,
    encoding: Encoding,
    limits: &LimitSettings,
    place: &str,
) -> Result<Bytes, Failure> {
    let document = match encoding {
        Encoding::Plain => body.clone(),
        Encoding::Gzip => inflate(body, limits, place)?,
    };
    let refuse = |what: &str| Failure::rejected(Rejection::Shape, format!("{place} answers with {what}"));
    let Ok(text) = std::str::from_utf8(&document) else { return Err(refuse("something that is not text")) };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.is_empty() {
        return Err(refuse("nothing"));
    }
    // Neither Alloy's language nor TOML begins with it.
    if text.starts_with('<') {
        return Err(web_page(place));
    }
    Ok(document)
}

fn inflate(body: &Bytes, limits: &LimitSettings, place: &str) -> Result<Bytes, Failure> {
    let most = limits.bytes.min((body.len() as u64).saturating_mul(RATIO_LIMIT));
    let mut document = Vec::new();
    let read = MultiGzDecoder::new(&body[..]).take(most.saturating_add(1)).read_to_end(&mut document);
    if document.len() as u64 > most {
        let what = if most == limits.bytes {
            format!("is longer than {} when decompressed", display_size(most))
        } else {
            format!("is more than {RATIO_LIMIT} times larger when decompressed")
        };
        return Err(Failure::rejected(Rejection::Limits, format!("{place} {what}")));
    }
    match read {
        Ok(_) => Ok(document.into()),
        // As likely broken on the way as at its origin.
        Err(_) => Err(Failure::transient(format!("{place} answers with a body that is no gzip"))),
    }
}

fn web_page(place: &str) -> Failure {
    Failure::rejected(Rejection::Shape, format!("{place} answers with a web page instead of a configuration"))
        .with_help("is it a login page? Check the address and `auth`")
}

pub(super) fn too_long(place: &str, what: &str, limits: &LimitSettings) -> Failure {
    let most = display_size(limits.file);
    Failure::rejected(Rejection::Limits, format!("{place} {what}, more than {most}"))
        .with_help("raise `limits.file` if that is meant")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorClass;

    fn gzip(content: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap().into()
    }

    fn class(result: Result<impl std::fmt::Debug, Failure>) -> ErrorClass {
        result.unwrap_err().class
    }

    #[test]
    fn a_bomb_is_given_up_at_a_hundred_times_its_size() {
        let limits = LimitSettings::default();
        let bomb = gzip(&vec![b' '; 16 << 20]);
        assert!(bomb.len() < 20_000);
        let failure = decode(&bomb, Encoding::Gzip, &limits, "x").unwrap_err();
        assert_eq!(failure.class, ErrorClass::Rejected(Rejection::Limits));
        assert!(failure.message.contains("100 times"), "{}", failure.message);
    }

    #[test]
    fn a_document_may_be_so_long_when_decompressed_and_no_longer() {
        let limits = LimitSettings { bytes: 1000, ..LimitSettings::default() };
        let text: String = (0..120).map(|n| format!("{:08}", n * 7919)).collect();
        assert_eq!(decode(&gzip(text.as_bytes()), Encoding::Gzip, &limits, "x").unwrap(), text);
        let longer = format!("{text}{text}");
        let failure = decode(&gzip(longer.as_bytes()), Encoding::Gzip, &limits, "x").unwrap_err();
        assert!(failure.message.contains("1000 bytes when decompressed"), "{}", failure.message);
    }

    #[test]
    fn a_broken_stream_is_asked_for_again() {
        let whole = gzip(b"logging { level = \"debug\" }");
        let cut = whole.slice(..whole.len() - 9);
        assert_eq!(
            class(decode(&cut, Encoding::Gzip, &LimitSettings::default(), "x")),
            ErrorClass::Transient
        );
    }

    #[test]
    fn what_is_no_configuration_has_no_shape() {
        let limits = LimitSettings::default();
        for body in [&b""[..], b" \n\t", b"\xef\xbb\xbf", b"\xff\xfe", b"<!doctype html>", b"  <html>"] {
            let body = Bytes::from_static(body);
            assert_eq!(
                class(decode(&body, Encoding::Plain, &limits, "x")),
                ErrorClass::Rejected(Rejection::Shape),
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(text in "[a-z {}\n]{1,400}") {
            prop_assume!(!text.trim().is_empty());
            let decoded = decode(&gzip(text.as_bytes()), Encoding::Gzip, &LimitSettings::default(), "x");
            prop_assert_eq!(decoded.unwrap(), text.as_bytes());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            for encoding in [Encoding::Plain, Encoding::Gzip] {
                drop(decode(&bytes, encoding, &LimitSettings::default(), "x"));
            }
        }
    }
}
