//! What a scrape component measures of itself, under the names that Alloy and Prometheus give it.

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter, IntGauge, Opts};

use crate::meters::fanout_latency;

/// The metrics of one component; registered while its task runs.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) targets: IntGauge,
    pub(super) fanout_latency: Histogram,
    pub(super) forwarded_samples: IntCounter,
    pub(super) skipped: IntCounter,
    pub(super) dropped_samples: IntCounter,
    pub(super) exceeded_sample_limit: IntCounter,
    pub(super) exceeded_body_size_limit: IntCounter,
    pub(super) exceeded_label_limits: IntCounter,
    pub(super) exceeded_target_limit: IntCounter,
    pub(super) out_of_bounds: IntCounter,
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
        Self {
            targets: constant!(IntGauge::with_opts(options(
                "prometheus_scrape_targets_gauge",
                "Number of targets this component scrapes",
            ))),
            fanout_latency: fanout_latency(component),
            forwarded_samples: counter(
                "prometheus_forwarded_samples_total",
                "Samples that were accepted downstream",
            ),
            skipped: counter(
                "invar_scrapes_skipped_total",
                "Scrapes that were due while the one before was not delivered yet",
            ),
            dropped_samples: counter("invar_scrape_dropped_samples_total", "Samples that downstream refused"),
            exceeded_sample_limit: counter(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Scrapes that hit the sample limit and were rejected",
            ),
            exceeded_body_size_limit: counter(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Scrapes that hit the body size limit and were rejected",
            ),
            exceeded_label_limits: counter(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Scrapes that hit a label limit and were rejected",
            ),
            exceeded_target_limit: counter(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Lists of targets that hit the target limit",
            ),
            out_of_bounds: counter(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Samples rejected for a timestamp too far in the future",
            ),
        }
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.targets.clone()),
            Box::new(self.fanout_latency.clone()),
            Box::new(self.forwarded_samples.clone()),
            Box::new(self.skipped.clone()),
            Box::new(self.dropped_samples.clone()),
            Box::new(self.exceeded_sample_limit.clone()),
            Box::new(self.exceeded_body_size_limit.clone()),
            Box::new(self.exceeded_label_limits.clone()),
            Box::new(self.exceeded_target_limit.clone()),
            Box::new(self.out_of_bounds.clone()),
        ]
    }
}
