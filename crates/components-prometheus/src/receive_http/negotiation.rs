//! Which protocol a request speaks, by its headers, as the remote write specifications 1.0 and 2.0 have it. Headers that
//! are missing mean version 1 and snappy: the first senders sent none.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use invar_telemetry::remote_write::Protocol;

use super::intake::Refusal;

/// The media type of both versions.
const MEDIA_TYPE: &str = "application/x-protobuf";

/// The protocol of a request with these headers, if it is one of those accepted.
pub(super) fn protocol(headers: &HeaderMap, accepted: &[Protocol]) -> Result<Protocol, Refusal> {
    let protocol = match header(headers, &CONTENT_TYPE)? {
        None | Some("") => Protocol::V1,
        Some(content_type) => by_content_type(content_type)?,
    };
    if !accepted.contains(&protocol) {
        let names: Vec<&str> = accepted.iter().map(|protocol| protocol.message_name()).collect();
        return Err(unsupported(format!(
            "message {} is not accepted here, but {}; accepted_remote_write_protobuf_messages decides",
            protocol.message_name(),
            names.join(" and ")
        )));
    }
    match header(headers, &CONTENT_ENCODING)? {
        None | Some("") => {}
        Some(encoding) if encoding.eq_ignore_ascii_case("snappy") => {}
        Some(encoding) => {
            return Err(unsupported(format!("content encoding {encoding:?} is not accepted, but snappy")));
        }
    }
    Ok(protocol)
}

fn by_content_type(content_type: &str) -> Result<Protocol, Refusal> {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(unsupported(format!("content type {media_type:?} is not accepted, but {MEDIA_TYPE}")));
    }
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(unsupported(format!("content type parameter {parameter:?} is not name=value")));
        };
        if name.trim().eq_ignore_ascii_case("proto") {
            let value = value.trim().trim_matches('"');
            return Protocol::from_message_name(value)
                .ok_or_else(|| unsupported(format!("message {value:?} is unknown")));
        }
    }
    Ok(Protocol::V1)
}

fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| unsupported(format!("header {name} is not text")))?;
    Ok(Some(text.trim()))
}

fn unsupported(text: String) -> Refusal {
    Refusal { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, text }
}
