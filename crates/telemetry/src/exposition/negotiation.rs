//! Agreement on a format: what a scrape asks for, and which parser reads what came back.

use std::str::FromStr;

use thiserror::Error;

use super::ExpositionFormat;

/// How a target is to escape names that are not of the classic alphabet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EscapingScheme {
    /// Not at all.
    AllowUtf8,
    /// Every other character becomes an underscore.
    #[default]
    Underscores,
    /// Dots become `_dot_`, underscores double.
    Dots,
    /// Every other character becomes its code point.
    Values,
}

/// Why a page has no parser.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContentTypeError {
    /// The target did not say what it sent.
    #[error("the target sent no Content-Type, and no fallback protocol is set")]
    Missing,
    /// The target sent something else.
    #[error("the target sent the unsupported Content-Type {0:?}, and no fallback protocol is set")]
    Unsupported(String),
}

/// A name that is no scrape protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown scrape protocol {0:?}, supported: OpenMetricsText0.0.1, OpenMetricsText1.0.0, PrometheusProto, PrometheusText0.0.4, PrometheusText1.0.0"
)]
pub struct UnknownProtocol(pub String);

impl EscapingScheme {
    /// The name in headers and configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

impl ExpositionFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::PrometheusText0_0_4,
        Self::PrometheusText1_0_0,
        Self::OpenMetrics0_0_1,
        Self::OpenMetrics1_0_0,
        Self::PrometheusProto,
    ];

    /// What a scrape asks for where nothing else is configured, best first.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetrics1_0_0,
        Self::OpenMetrics0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// What a scrape of native histograms asks for, best first: only the protobuf format has them.
    pub const DEFAULT_WITH_NATIVE_HISTOGRAMS: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetrics1_0_0,
        Self::OpenMetrics0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name of the protocol in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetrics0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetrics1_0_0 => "OpenMetricsText1.0.0",
            Self::PrometheusProto => "PrometheusProto",
        }
    }

    /// The media type with its parameters.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetrics0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetrics1_0_0 => "application/openmetrics-text;version=1.0.0",
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
        }
    }

    /// The format of a page by its `Content-Type`, or the fallback where that is missing, malformed or of something else.
    ///
    /// # Errors
    /// Where there is no fallback either.
    pub fn from_content_type(
        content_type: Option<&str>,
        fallback: Option<Self>,
    ) -> Result<Self, ContentTypeError> {
        let content_type = content_type.unwrap_or_default().trim();
        if content_type.is_empty() {
            return fallback.ok_or(ContentTypeError::Missing);
        }
        recognise(content_type)
            .or(fallback)
            .ok_or_else(|| ContentTypeError::Unsupported(content_type.chars().take(100).collect()))
    }
}

fn recognise(content_type: &str) -> Option<ExpositionFormat> {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let mut version = None;
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        // A malformed parameter makes the whole header malformed.
        let (name, value) = parameter.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("version") {
            version = Some(value.trim().trim_matches('"'));
        }
    }
    match media_type.as_str() {
        "text/plain" if version == Some("1.0.0") => Some(ExpositionFormat::PrometheusText1_0_0),
        "text/plain" => Some(ExpositionFormat::PrometheusText0_0_4),
        "application/openmetrics-text" if version == Some("0.0.1") => {
            Some(ExpositionFormat::OpenMetrics0_0_1)
        }
        "application/openmetrics-text" => Some(ExpositionFormat::OpenMetrics1_0_0),
        "application/vnd.google.protobuf" => Some(ExpositionFormat::PrometheusProto),
        _ => None,
    }
}

impl FromStr for ExpositionFormat {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| UnknownProtocol(name.to_owned()))
    }
}

/// The `Accept` header for the given formats, best first, weighted as Prometheus weights them.
#[must_use]
pub fn accept_header(formats: &[ExpositionFormat], escaping: EscapingScheme) -> String {
    let mut header = String::new();
    let mut weight = ExpositionFormat::ALL.len() + 1;
    for format in formats {
        header.push_str(format.media_type());
        if matches!(format, ExpositionFormat::PrometheusText1_0_0 | ExpositionFormat::OpenMetrics1_0_0) {
            header.push_str(";escaping=");
            header.push_str(escaping.as_str());
        }
        header.push_str(&format!(";q=0.{weight},"));
        weight = weight.saturating_sub(1);
    }
    header.push_str(&format!("*/*;q=0.{weight}"));
    header
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_default_accept_header_is_prometheus_own() {
        assert_eq!(
            accept_header(&ExpositionFormat::DEFAULT, EscapingScheme::Underscores),
            "application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=underscores;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }

    #[test]
    fn content_types_choose_the_parser() {
        use ExpositionFormat::*;
        let fallback = Some(PrometheusText0_0_4);
        for (content_type, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", PrometheusText0_0_4),
            ("TEXT/PLAIN;version=1.0.0;escaping=allow-utf-8", PrometheusText1_0_0),
            ("text/plain", PrometheusText0_0_4),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", OpenMetrics1_0_0),
            ("application/openmetrics-text;version=\"0.0.1\"", OpenMetrics0_0_1),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                PrometheusProto,
            ),
        ] {
            assert_eq!(ExpositionFormat::from_content_type(Some(content_type), None), Ok(format));
        }
        for bad in ["text/html", "application/json", "text/plain; version", "text"] {
            assert_eq!(ExpositionFormat::from_content_type(Some(bad), fallback), Ok(PrometheusText0_0_4));
            assert_eq!(
                ExpositionFormat::from_content_type(Some(bad), None),
                Err(ContentTypeError::Unsupported(bad.to_owned()))
            );
        }
        assert_eq!(ExpositionFormat::from_content_type(None, None), Err(ContentTypeError::Missing));
        assert_eq!(ExpositionFormat::from_content_type(Some(" "), fallback), Ok(PrometheusText0_0_4));
    }

    #[test]
    fn names_round_trip() {
        for format in ExpositionFormat::ALL {
            assert_eq!(format.as_str().parse::<ExpositionFormat>().unwrap(), format);
        }
        assert!("PrometheusText".parse::<ExpositionFormat>().is_err());
    }
}
