//! The metrics of remote write, under Prometheus's names, with `component_id` to tell components apart.

use std::sync::Arc;

use invar_engine::Services;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// All families; one set per process.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) samples: IntCounterVec,
    pub(super) histograms: IntCounterVec,
    pub(super) exemplars: IntCounterVec,
    pub(super) metadata: IntCounterVec,
    pub(super) failed: IntCounterVec,
    pub(super) retried: IntCounterVec,
    pub(super) dropped: IntCounterVec,
    pub(super) bytes: IntCounterVec,
    pub(super) resent: IntCounterVec,
    pub(super) sent_seconds: HistogramVec,
    pub(super) shards: IntGaugeVec,
    pub(super) shards_max: IntGaugeVec,
    pub(super) shards_min: IntGaugeVec,
    pub(super) pending: IntGaugeVec,
    pub(super) highest_sent: GaugeVec,
    pub(super) wal_appended: IntCounterVec,
    pub(super) wal_exemplars: IntCounterVec,
    pub(super) wal_out_of_order: IntCounterVec,
    pub(super) wal_forced: IntCounterVec,
    pub(super) wal_forced_samples: IntCounterVec,
    pub(super) wal_expired: IntCounterVec,
    pub(super) wal_expired_bytes: IntCounterVec,
    pub(super) wal_damaged: IntCounterVec,
    pub(super) wal_series: IntGaugeVec,
    pub(super) wal_bytes: IntGaugeVec,
    pub(super) wal_kept: IntGaugeVec,
}

const ENDPOINT: [&str; 3] = ["component_id", "remote_name", "url"];
const COMPONENT: [&str; 1] = ["component_id"];

impl Metrics {
    /// The process's set, registered on first use.
    pub(super) fn of(services: &Services) -> Arc<Self> {
        if let Some(metrics) = services.get::<Self>() {
            return metrics;
        }
        let metrics = Arc::new(Self::new(services.get::<prometheus::Registry>().as_deref()));
        services.insert(metrics.clone());
        metrics
    }

    fn new(registry: Option<&prometheus::Registry>) -> Self {
        let register = |collector: Box<dyn prometheus::core::Collector>| {
            if let Some(Err(error)) = registry.map(|registry| registry.register(collector)) {
                tracing::debug!(%error, "a metric of remote write is registered already");
            }
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)
                .expect("the name and labels are valid constants");
            register(Box::new(vec.clone()));
            vec
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)
                .expect("the name and labels are valid constants");
            register(Box::new(vec.clone()));
            vec
        };
        let sent_seconds = HistogramVec::new(
            HistogramOpts::new(
                "prometheus_remote_storage_sent_batch_duration_seconds",
                "Duration of send calls.",
            ),
            &ENDPOINT,
        )
        .expect("the name and labels are valid constants");
        register(Box::new(sent_seconds.clone()));
        let highest_sent = GaugeVec::new(
            Opts::new(
                "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
                "Newest timestamp sent.",
            ),
            &ENDPOINT,
        )
        .expect("the name and labels are valid constants");
        register(Box::new(highest_sent.clone()));
        let storage =
            |name: &str, help: &str| counter(&format!("prometheus_remote_storage_{name}"), help, &ENDPOINT);
        let storage_gauge =
            |name: &str, help: &str| gauge(&format!("prometheus_remote_storage_{name}"), help, &ENDPOINT);
        let wal = |name: &str, help: &str| {
            counter(&format!("prometheus_remote_write_wal_{name}"), help, &COMPONENT)
        };
        let wal_gauge =
            |name: &str, help: &str| gauge(&format!("prometheus_remote_write_wal_{name}"), help, &COMPONENT);
        let mut dropped_labels = ENDPOINT.to_vec();
        dropped_labels.push("reason");
        Self {
            samples: storage("samples_total", "Samples sent and accepted."),
            histograms: storage("histograms_total", "Native histograms sent and accepted."),
            exemplars: storage("exemplars_total", "Exemplars sent and accepted."),
            metadata: storage("metadata_total", "Metadata entries sent and accepted."),
            failed: storage("samples_failed_total", "Samples that the receiver refused for good."),
            retried: storage("samples_retried_total", "Samples whose request is tried again."),
            dropped: counter(
                "prometheus_remote_storage_samples_dropped_total",
                "Samples dropped before sending, by reason.",
                &dropped_labels,
            ),
            bytes: storage("bytes_total", "Bytes of requests accepted, compressed."),
            resent: storage(
                "samples_resent_total",
                "Samples in the overlap that a verdict makes a leg send again, estimated.",
            ),
            sent_seconds,
            shards: storage_gauge("shards", "Shards that send in parallel."),
            shards_max: storage_gauge("shards_max", "The most shards there may be."),
            shards_min: storage_gauge("shards_min", "The fewest shards there may be."),
            pending: storage_gauge("samples_pending", "Samples read from the log and not yet accepted."),
            highest_sent,
            wal_appended: wal("samples_appended_total", "Samples appended."),
            wal_exemplars: wal("exemplars_appended_total", "Exemplars appended."),
            wal_out_of_order: wal("out_of_order_samples_total", "Samples refused as out of order."),
            wal_forced: wal("dropped_bytes_total", "Bytes deleted before every endpoint had them."),
            wal_forced_samples: wal(
                "dropped_samples_total",
                "Samples deleted before every endpoint had them.",
            ),
            wal_expired: wal(
                "expired_logs_total",
                "Logs of removed components that were deleted for their age.",
            ),
            wal_expired_bytes: wal(
                "expired_bytes_total",
                "Bytes of logs of removed components deleted for their age.",
            ),
            wal_damaged: wal("corruptions_total", "Damaged records found."),
            wal_series: wal_gauge("storage_active_series", "Series in use."),
            wal_bytes: wal_gauge("storage_bytes", "Bytes of the log's segments."),
            wal_kept: wal_gauge("kept_bytes", "Bytes of logs whose component was removed."),
        }
    }
}
