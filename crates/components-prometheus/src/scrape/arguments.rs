//! What a `prometheus.scrape` block says, and the checks that a schema cannot express.

use std::collections::BTreeMap;
use std::time::Duration;

use invar_blocks::{HttpClientArguments, Target};
use invar_engine::{Check, MetricsReceiver};
use invar_syntax::arguments::Arguments;
use invar_syntax::byte_size::ByteSize;
use invar_syntax::schema::Stability;
use invar_telemetry::exposition::{EscapingScheme, ExpositionFormat};
use invar_telemetry::relabel::NameValidation;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ScrapeArguments {
    /// Targets to scrape: sets of labels, of which `__address__` says where.
    #[argument(required, names = "targets")]
    pub targets: Vec<Target>,
    /// Receivers of what was scraped; each gets all of it.
    #[argument(required, type_note = "any<storage.Appendable>")]
    pub forward_to: Vec<MetricsReceiver>,
    /// The `job` label of targets that have none; the component's name where empty.
    pub job_name: String,
    /// Whether a label of a page wins over the target's label of the same name.
    pub honor_labels: bool,
    /// Whether timestamps of a page are taken over.
    #[argument(default = "true")]
    pub honor_timestamps: bool,
    /// Whether the end of series that carry their own timestamps is marked, too.
    pub track_timestamps_staleness: bool,
    /// Parameters of the request's URL.
    pub params: BTreeMap<String, Vec<String>>,
    /// Whether classic buckets are kept where a histogram is native, too.
    pub scrape_classic_histograms: bool,
    /// Whether native histograms are read.
    pub scrape_native_histograms: bool,
    /// A file to which failed scrapes are written.
    #[argument(names = "file")]
    pub scrape_failure_log_file: String,
    /// How often a target is scraped.
    #[argument(default = "\"1m\"")]
    pub scrape_interval: Duration,
    /// How long a scrape may take.
    #[argument(default = "\"10s\"")]
    pub scrape_timeout: Duration,
    /// Formats to ask for, best first.
    #[argument(
        values = [
            "PrometheusProto",
            "PrometheusText0.0.4",
            "PrometheusText1.0.0",
            "OpenMetricsText0.0.1",
            "OpenMetricsText1.0.0"
        ],
        default = "[\"OpenMetricsText1.0.0\", \"OpenMetricsText0.0.1\", \"PrometheusText1.0.0\", \"PrometheusText0.0.4\"]"
    )]
    pub scrape_protocols: Vec<String>,
    /// Path of the page.
    #[argument(default = "\"/metrics\"", names = "nothing")]
    pub metrics_path: String,
    /// `http` or `https`.
    #[argument(default = "\"http\"", values = ["http", "https"])]
    pub scheme: String,
    /// A larger page, decompressed, fails the scrape; 0 is no limit.
    #[argument(type_note = "units.Base2Bytes")]
    pub body_size_limit: ByteSize,
    /// More samples fail the scrape; 0 is no limit.
    pub sample_limit: usize,
    /// More targets fail all scrapes; 0 is no limit.
    pub target_limit: usize,
    /// More labels of one series fail the scrape; 0 is no limit.
    pub label_limit: usize,
    /// A longer label name fails the scrape; 0 is no limit.
    pub label_name_length_limit: usize,
    /// A longer label value fails the scrape; 0 is no limit.
    pub label_value_length_limit: usize,
    /// How targets are reached.
    #[argument(flatten)]
    pub http_client: HttpClientArguments,
    /// Whether each target also gets series about its limits and the size of its page.
    pub extra_metrics: bool,
    /// The older way to ask for the protobuf format and native histograms.
    pub enable_protobuf_negotiation: bool,
    /// Which names are valid: `legacy` or `utf8`.
    #[argument(default = "\"legacy\"", values = ["legacy", "utf8"])]
    pub metric_name_validation_scheme: String,
    /// How targets are to escape other names: `allow-utf-8`, `underscores`, `dots` or `values`.
    #[argument(values = ["allow-utf-8", "underscores", "dots", "values"])]
    pub metric_name_escaping_scheme: String,
    /// How a page of no or an unknown content type is read.
    #[argument(
        default = "\"PrometheusText0.0.4\"",
        values = [
            "PrometheusProto",
            "PrometheusText0.0.4",
            "PrometheusText1.0.0",
            "OpenMetricsText0.0.1",
            "OpenMetricsText1.0.0"
        ]
    )]
    pub scrape_fallback_protocol: String,
    /// Whether classic histograms become native ones with custom bounds.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Whether compressed pages are asked for.
    #[argument(default = "true")]
    pub enable_compression: bool,
    /// Native histograms of more buckets are made coarser, and fail the scrape where that does not suffice; 0 is no limit.
    pub native_histogram_bucket_limit: usize,
    /// Native histograms whose buckets grow by less are made coarser; 0 is no limit.
    pub native_histogram_min_bucket_factor: f64,
    /// Whether what pages say about metric families is forwarded.
    pub honor_metadata: bool,
    /// Whether series get labels `__type__` and `__unit__`.
    pub enable_type_and_unit_labels: bool,
    /// Whether a zero is stored where counting began.
    pub start_timestamp_zero_ingestion: bool,
    /// Sharing targets with other agents.
    #[argument(block)]
    pub clustering: Option<ClusteringBlock>,
}

/// `clustering`: has no effect while the agent is not part of a cluster.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ClusteringBlock {
    /// Whether targets are shared.
    #[argument(required)]
    pub enabled: bool,
}

// === impl ScrapeArguments ===

impl ScrapeArguments {
    /// Reports what a schema cannot.
    pub(super) fn check(&self, check: &mut Check) {
        if self.scrape_interval.is_zero() {
            check.error("scrape_interval", "must be greater than 0");
        }
        if self.scrape_timeout.is_zero() {
            check.error("scrape_timeout", "must be greater than 0");
        }
        if self.scrape_timeout > self.scrape_interval {
            check.error("scrape_timeout", "must not be greater than scrape_interval");
        }
        for (name, values) in &self.params {
            if values.is_empty() {
                check.error(format!("params.{name}"), "must not be an empty list");
            }
        }
        if let Err((field, message)) = self.formats() {
            check.error(field, message);
        }
        if let Err(message) = self.fallback() {
            check.error("scrape_fallback_protocol", message);
        }
        if let Err((field, message)) = self.names() {
            check.error(field, message);
        }
        for (field, used) in [
            ("honor_metadata", self.honor_metadata),
            ("enable_type_and_unit_labels", self.enable_type_and_unit_labels),
            ("start_timestamp_zero_ingestion", self.start_timestamp_zero_ingestion),
        ] {
            if used {
                check.stability(field, Stability::Experimental);
            }
        }
        let factor = self.native_histogram_min_bucket_factor;
        if !(factor.is_finite() && factor >= 0.0) {
            check.error("native_histogram_min_bucket_factor", "must be a number of at least 0");
        }
    }

    /// Whether native histograms are read.
    pub(super) fn native_histograms(&self) -> bool {
        self.scrape_native_histograms || self.enable_protobuf_negotiation
    }

    /// The formats to ask for, best first.
    pub(super) fn formats(&self) -> Result<Vec<ExpositionFormat>, (&'static str, String)> {
        let refused = |message: String| Err(("scrape_protocols", message));
        let mut formats: Vec<ExpositionFormat> = Vec::with_capacity(self.scrape_protocols.len());
        for name in &self.scrape_protocols {
            match name.parse() {
                Ok(format) if formats.contains(&format) => {
                    return refused(format!("{name} is given twice"));
                }
                Ok(format) => formats.push(format),
                Err(error) => return refused(error.to_string()),
            }
        }
        let is_default = formats == ExpositionFormat::DEFAULT;
        if self.enable_protobuf_negotiation && !is_default {
            return Err((
                "enable_protobuf_negotiation",
                "cannot be combined with scrape_protocols, which says the same and more".to_owned(),
            ));
        }
        if is_default && self.native_histograms() {
            return Ok(ExpositionFormat::DEFAULT_WITH_NATIVE_HISTOGRAMS.to_vec());
        }
        if formats.is_empty() {
            return refused("must name at least one protocol".to_owned());
        }
        if self.scrape_native_histograms && !formats.contains(&ExpositionFormat::PrometheusProto) {
            return refused("must contain PrometheusProto: only that has native histograms".to_owned());
        }
        Ok(formats)
    }

    /// How a page of no or an unknown content type is read.
    pub(super) fn fallback(&self) -> Result<Option<ExpositionFormat>, String> {
        if self.scrape_fallback_protocol.is_empty() {
            return Ok(None);
        }
        self.scrape_fallback_protocol
            .parse()
            .map(Some)
            .map_err(|error: invar_telemetry::exposition::UnknownProtocol| error.to_string())
    }

    /// Which names are valid, and how others are to be escaped.
    pub(super) fn names(&self) -> Result<(NameValidation, EscapingScheme), (&'static str, String)> {
        let validation = match self.metric_name_validation_scheme.as_str() {
            "" | "legacy" => NameValidation::Legacy,
            "utf8" => NameValidation::Utf8,
            other => {
                return Err((
                    "metric_name_validation_scheme",
                    format!("must be legacy or utf8, got {other:?}"),
                ));
            }
        };
        let escaping = match (self.metric_name_escaping_scheme.as_str(), validation) {
            ("", NameValidation::Legacy) | ("underscores", _) => EscapingScheme::Underscores,
            ("", NameValidation::Utf8) | ("allow-utf-8", NameValidation::Utf8) => EscapingScheme::AllowUtf8,
            ("dots", _) => EscapingScheme::Dots,
            ("values", _) => EscapingScheme::Values,
            ("allow-utf-8", NameValidation::Legacy) => {
                return Err((
                    "metric_name_escaping_scheme",
                    "allow-utf-8 needs metric_name_validation_scheme = \"utf8\"".to_owned(),
                ));
            }
            (other, _) => {
                return Err((
                    "metric_name_escaping_scheme",
                    format!("must be allow-utf-8, underscores, dots or values, got {other:?}"),
                ));
            }
        };
        Ok((validation, escaping))
    }
}
