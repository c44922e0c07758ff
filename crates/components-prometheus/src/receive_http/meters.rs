//! What a receiver measures of itself, under the names that Alloy gives it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, Opts, Registry};

use crate::meters::{Registration, fanout_latency};

/// Buckets of the time a request takes, in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];
/// Buckets of the size of a request, in bytes.
const BYTES: [f64; 8] = [1e4, 1e5, 1e6, 2.5e6, 5e6, 1e7, 2.5e7, 5e7];

/// The metrics of one component; registered while its task runs.
#[derive(Debug)]
pub(super) struct Meters {
    request_seconds: HistogramVec,
    request_bytes: HistogramVec,
    pub(super) fanout_latency: Histogram,
    pub(super) forwarded_samples: IntCounter,
    pub(super) invalid_series: IntCounter,
}

/// A metric of a constant, valid name.
macro_rules! constant {
    ($metric:expr) => {
        $metric.unwrap_or_else(|error| unreachable!("the names of these metrics are valid: {error}"))
    };
}

// === impl Meters ===

impl Meters {
    pub(super) fn new(component: &str) -> Self {
        let options = |name: &str, help: &str| Opts::new(name, help).const_label("component_id", component);
        let counter = |name: &str, help: &str| constant!(IntCounter::with_opts(options(name, help)));
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts { common_opts: options(name, help), buckets: buckets.to_vec() };
            constant!(HistogramVec::new(options, labels))
        };
        Self {
            request_seconds: histogram(
                "prometheus_receive_http_request_duration_seconds",
                "Time (in seconds) spent serving HTTP requests.",
                &SECONDS,
                &["method", "route", "status_code"],
            ),
            request_bytes: histogram(
                "prometheus_receive_http_request_message_bytes",
                "Size (in bytes) of messages received in the request.",
                &BYTES,
                &["method", "route"],
            ),
            fanout_latency: fanout_latency(component),
            forwarded_samples: counter(
                "prometheus_forwarded_samples_total",
                "Samples that were accepted downstream",
            ),
            invalid_series: counter(
                "invar_receive_http_invalid_series_total",
                "Series left out of requests because their labels or histograms are invalid",
            ),
        }
    }

    /// Counts a request that was answered. `known` is whether it went to the path of this component.
    pub(super) fn answered(
        &self,
        method: &Method,
        known: bool,
        bytes: usize,
        status: StatusCode,
        took: Duration,
    ) {
        // Whoever connects could make up methods and paths without end.
        let method = if *method == Method::POST { "POST" } else { "other" };
        let route = if known { "api_v1_metrics_write" } else { "other" };
        let seconds = self.request_seconds.with_label_values(&[method, route, status.as_str()]);
        seconds.observe(took.as_secs_f64());
        self.request_bytes.with_label_values(&[method, route]).observe(bytes as f64);
    }

    /// Registers the metrics until the answer is dropped.
    pub(super) fn register(&self, registry: Option<Arc<Registry>>) -> Registration {
        let collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(self.request_seconds.clone()),
            Box::new(self.request_bytes.clone()),
            Box::new(self.fanout_latency.clone()),
            Box::new(self.forwarded_samples.clone()),
            Box::new(self.invalid_series.clone()),
        ];
        Registration::new(registry, collectors)
    }
}
