//! `encoding.*` between text, base64 and URL escapes.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Outcome, text_argument};
use crate::function::FunctionError;
use crate::value::Value;

/// Padding is required; bits beyond the last byte are ignored, as is customary.
const CONFIGURATION: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIGURATION);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, CONFIGURATION);

/// What stays as it is in a query: letters, digits and `-_.~`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn from_base64(arguments: &[Value]) -> Outcome {
    decode(&STANDARD, arguments)
}

pub(super) fn from_url_base64(arguments: &[Value]) -> Outcome {
    decode(&URL_SAFE, arguments)
}

fn decode(engine: &GeneralPurpose, arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    // Line breaks are no part of the data.
    let compact: String = text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
    let bytes = engine
        .decode(compact.as_bytes())
        .map_err(|error| FunctionError::argument(0, format!("is not base64: {error}")))?;
    Ok(Value::Bytes(bytes.into()))
}

pub(super) fn to_base64(arguments: &[Value]) -> Outcome {
    encode(&STANDARD, arguments)
}

pub(super) fn to_url_base64(arguments: &[Value]) -> Outcome {
    encode(&URL_SAFE, arguments)
}

fn encode(engine: &GeneralPurpose, arguments: &[Value]) -> Outcome {
    match arguments.first() {
        Some(Value::Bytes(bytes)) => Ok(Value::string(engine.encode(bytes))),
        _ => Ok(Value::string(engine.encode(text_argument(arguments, 0)?.as_bytes()))),
    }
}

pub(super) fn url_encode(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    Ok(Value::string(utf8_percent_encode(&text, QUERY).to_string().replace("%20", "+")))
}

pub(super) fn url_decode(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        position += 1;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = text
                    .get(position..position + 2)
                    .filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let Some(value) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) else {
                    let shown: String =
                        text.get(position - 1..).unwrap_or_default().chars().take(3).collect();
                    return Err(FunctionError::argument(0, format!("has an invalid URL escape \"{shown}\"")));
                };
                decoded.push(value);
                position += 2;
            }
            other => decoded.push(other),
        }
    }
    Ok(Value::string(String::from_utf8_lossy(&decoded).into_owned()))
}
