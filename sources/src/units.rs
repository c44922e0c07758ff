//! Durations and sizes as settings write them: `90s`, `1m30s`, `256MiB`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// For schemas: a duration as settings write it, such as `500ms` or `1h30m`.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct DurationText(#[schemars(regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))] String);

/// For schemas: a size as settings write it, such as `8MiB`.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct SizeText(#[schemars(regex(pattern = r"^[0-9]+ *(B|KB|MB|GB|KiB|MiB|GiB)?$"))] String);

/// Parses a duration such as `500ms`, `60s`, `1h30m`; units are `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_text = &rest[digits..];
        let length = unit_text.find(|c: char| c.is_ascii_digit()).unwrap_or(unit_text.len());
        let milliseconds = match &unit_text[..length] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(milliseconds)?)?;
        rest = &unit_text[length..];
    }
    Some(Duration::from_millis(total))
}

/// Parses a size in bytes such as `8MiB`, `64MB`, `512`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A size for people: `8 MiB`, `1.5 KiB`, `17 bytes`.
pub(crate) fn display_size(bytes: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        let tenths = bytes.saturating_mul(10) / unit;
        if tenths.is_multiple_of(10) {
            format!("{} {name}", tenths / 10)
        } else {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    };
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => scaled(1 << 10, "KiB"),
        1_048_576..1_073_741_824 => scaled(1 << 20, "MiB"),
        _ => scaled(1 << 30, "GiB"),
    }
}

pub(crate) fn deserialize_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match parse_duration(&text) {
        Some(duration) => Ok(Some(duration)),
        None => Err(de::Error::custom(format!("`{text}` is not a duration such as `60s` or `1m30s`"))),
    }
}

pub(crate) fn deserialize_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is not a size such as `8MiB`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("60s"), Some(Duration::from_secs(60)));
        assert_eq!(parse_duration("1h2m3s4ms"), Some(Duration::from_millis(3_723_004)));
        for text in ["", "60", "s", "1x", "-1s", "1 s", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8MiB"), Some(8 << 20));
        assert_eq!(parse_size("64 MB"), Some(64_000_000));
        assert_eq!(parse_size("17"), Some(17));
        for text in ["", "MiB", "1 mib", "-1", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(display_size(17), "17 bytes");
        assert_eq!(display_size(8 << 20), "8 MiB");
        assert_eq!(display_size(1536), "1.5 KiB");
    }
}
