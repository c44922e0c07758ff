//! What the arguments, apart from the targets, mean for every scrape: client, headers, how pages are read, limits.

use std::sync::Arc;

use http::HeaderValue;
use invar_blocks::{HttpClient, HttpClientOptions};
use invar_engine::PrepareError;
use invar_policy::Access;
use invar_telemetry::exposition::{ExpositionFormat, ParseOptions, accept_header};
use invar_telemetry::histogram::schema_for_factor;
use invar_telemetry::relabel::NameValidation;

use super::arguments::ScrapeArguments;

/// The largest page that is read where no limit is configured, decompressed, in bytes.
const PAGE_CAP: u64 = 128 << 20;

/// Settings that all targets of a component share.
#[derive(Debug)]
pub(super) struct ScrapeSettings {
    /// The arguments without targets and receivers.
    pub(super) arguments: ScrapeArguments,
    /// What those who wrote them may use.
    pub(super) access: Access,
    pub(super) client: HttpClient,
    pub(super) accept: HeaderValue,
    pub(super) fallback: Option<ExpositionFormat>,
    pub(super) parse: ParseOptions,
    pub(super) page: PageRules,
    /// Bytes a decompressed page must stay below.
    pub(super) page_limit: u64,
}

/// How the series of a page become series of the target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PageRules {
    pub(super) honor_labels: bool,
    pub(super) honor_timestamps: bool,
    pub(super) track_timestamps_staleness: bool,
    pub(super) names: NameValidation,
    pub(super) type_and_unit_labels: bool,
    pub(super) metadata: bool,
    /// Limits; 0 is none.
    pub(super) sample_limit: usize,
    pub(super) label_limit: usize,
    pub(super) label_name_length_limit: usize,
    pub(super) label_value_length_limit: usize,
    pub(super) bucket_limit: usize,
    /// The finest schema of native histograms, where there is one.
    pub(super) finest_schema: Option<i32>,
    pub(super) extra_metrics: bool,
}

// === impl ScrapeSettings ===

impl ScrapeSettings {
    /// Builds the settings, or hands out the previous ones where they say the same.
    pub(super) async fn new(
        arguments: &ScrapeArguments,
        previous: Option<&Arc<Self>>,
        access: &Access,
    ) -> Result<Arc<Self>, PrepareError> {
        let mut arguments =
            ScrapeArguments { targets: Vec::new(), forward_to: Vec::new(), ..arguments.clone() };
        // What they say is in the resolved targets.
        arguments.job_name = String::new();
        let previous = previous.filter(|previous| previous.access == *access);
        if let Some(previous) = previous.filter(|previous| previous.arguments == arguments) {
            return Ok(Arc::clone(previous));
        }
        let client = match previous.filter(|previous| previous.arguments.http_client == arguments.http_client)
        {
            Some(previous) => previous.client.clone(),
            None => {
                // Pages are decompressed here, where their size can be limited.
                let options =
                    HttpClientOptions { decompress: false, ..HttpClientOptions::under(access.clone()) };
                HttpClient::new(&arguments.http_client, options)
                    .await
                    .map_err(|error| PrepareError::invalid(error.to_string()))?
            }
        };
        let invalid = |(field, message): (&str, String)| PrepareError::invalid(format!("{field}: {message}"));
        let (names, escaping) = arguments.names().map_err(invalid)?;
        let formats = arguments.formats().map_err(invalid)?;
        let fallback = arguments.fallback().map_err(PrepareError::invalid)?;
        let accept = HeaderValue::try_from(accept_header(&formats, escaping))
            .map_err(|error| PrepareError::invalid(error.to_string()))?;
        let parse = ParseOptions {
            native_histograms: arguments.native_histograms(),
            classic_histograms: arguments.scrape_classic_histograms,
            convert_classic_histograms: arguments.convert_classic_histograms_to_nhcb,
            created_timestamps: arguments.start_timestamp_zero_ingestion,
            ..ParseOptions::default()
        };
        let page = PageRules {
            honor_labels: arguments.honor_labels,
            honor_timestamps: arguments.honor_timestamps,
            track_timestamps_staleness: arguments.track_timestamps_staleness,
            names,
            type_and_unit_labels: arguments.enable_type_and_unit_labels,
            metadata: arguments.honor_metadata,
            sample_limit: arguments.sample_limit,
            label_limit: arguments.label_limit,
            label_name_length_limit: arguments.label_name_length_limit,
            label_value_length_limit: arguments.label_value_length_limit,
            bucket_limit: arguments.native_histogram_bucket_limit,
            finest_schema: (arguments.native_histogram_min_bucket_factor > 1.0)
                .then(|| schema_for_factor(arguments.native_histogram_min_bucket_factor)),
            extra_metrics: arguments.extra_metrics,
        };
        let page_limit = match arguments.body_size_limit.bytes() {
            0 => PAGE_CAP,
            limit => limit,
        };
        let access = access.clone();
        Ok(Arc::new(Self { arguments, access, client, accept, fallback, parse, page, page_limit }))
    }
}
