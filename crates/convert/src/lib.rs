//! Converts the configurations of other agents (Prometheus, Promtail, the OpenTelemetry Collector) to Alloy syntax, for
//! every feature whose component this binary has, and says with file and line what could not be converted. Sits beside
//! the components: it reads their declarations from the registry, so that what equals a default is left out and what is
//! written stands in the order of the reference. It reads text and writes text: no file, no network.
//!
//! The mapping follows `alloy convert`: one component a job, labels made from job names, all endpoints in one
//! `prometheus.remote_write "default"`.

mod block;
mod label;
mod otelcol;
mod prometheus;
mod promtail;
pub mod report;
mod targets;
mod yaml;

use std::str::FromStr;

use invar_engine::Registry;

pub use report::{Finding, Report, Severity};

/// What can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `prometheus.yml`.
    Prometheus,
    /// `promtail.yml`.
    Promtail,
    /// The configuration of an OpenTelemetry Collector.
    OpenTelemetryCollector,
}

impl Format {
    /// All formats, by the names the command line takes.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("otelcol", Self::OpenTelemetryCollector),
        ("prometheus", Self::Prometheus),
        ("promtail", Self::Promtail),
    ];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES.into_iter().find(|(name, _)| *name == text).map(|(_, format)| format).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("no converter for \"{text}\"; there is one for {}", names.join(", "))
        })
    }
}

/// What came of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The pipeline, formatted. Empty where nothing could be converted. Not to be used without a look at the report.
    pub pipeline: String,
    /// What was converted to what, and what could not be.
    pub report: Report,
}

/// Converts a configuration. `registry` says which components there are and what they take.
#[must_use]
pub fn convert(format: Format, text: &str, registry: &Registry) -> Conversion {
    let mut report = Report::default();
    let document = match yaml::parse(text) {
        Ok(document) => document,
        Err(finding) => {
            report.add(finding);
            return Conversion { pipeline: String::new(), report };
        }
    };
    let mut pipeline = block::Pipeline::new(registry);
    match format {
        Format::Prometheus => prometheus::convert(&document, &mut pipeline, &mut report),
        Format::Promtail => promtail::convert(&document, &mut pipeline, &mut report),
        Format::OpenTelemetryCollector => otelcol::convert(&document, &mut pipeline, &mut report),
    }
    report.sort();
    Conversion { pipeline: pipeline.into_text(), report }
}

#[cfg(test)]
mod tests;
