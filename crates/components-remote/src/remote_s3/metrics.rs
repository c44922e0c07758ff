//! The metrics of `remote.s3`, under Alloy's names, with `component_id` to tell components apart.

use std::sync::Arc;
use std::time::SystemTime;

use invar_engine::{NodeId, Services};
use prometheus::{GaugeVec, IntCounterVec, Opts};

/// Both families; one set per process.
#[derive(Debug)]
pub(super) struct Metrics {
    errors: IntCounterVec,
    accessed: GaugeVec,
}

/// Those of one component; they end with it.
#[derive(Debug)]
pub(super) struct OfComponent {
    metrics: Arc<Metrics>,
    id: String,
}

impl Metrics {
    /// The process's set, registered on first use.
    pub(super) fn of(services: &Services) -> Arc<Self> {
        if let Some(metrics) = services.get::<Self>() {
            return metrics;
        }
        let (opts, labels) = (Opts::new, ["component_id"]);
        let errors = opts("remote_s3_errors_total", "The number of errors while accessing s3");
        let accessed = opts(
            "remote_s3_timestamp_last_accessed_unix_seconds",
            "The last successful access in unix seconds",
        );
        let metrics = Arc::new(Self {
            errors: IntCounterVec::new(errors, &labels).expect("the name and labels are valid constants"),
            accessed: GaugeVec::new(accessed, &labels).expect("the name and labels are valid constants"),
        });
        if let Some(registry) = services.get::<prometheus::Registry>() {
            let collectors: [Box<dyn prometheus::core::Collector>; 2] =
                [Box::new(metrics.errors.clone()), Box::new(metrics.accessed.clone())];
            for collector in collectors {
                if let Err(error) = registry.register(collector) {
                    tracing::debug!(%error, "a metric of remote.s3 is registered already");
                }
            }
        }
        services.insert(Arc::clone(&metrics));
        metrics
    }

    pub(super) fn of_component(self: Arc<Self>, node: &NodeId) -> OfComponent {
        let id = node.to_string();
        // There from the start, as a counter should be.
        self.errors.with_label_values(&[&id]);
        OfComponent { metrics: self, id }
    }
}

impl OfComponent {
    pub(super) fn failed(&self) {
        self.metrics.errors.with_label_values(&[&self.id]).inc();
    }

    pub(super) fn accessed(&self) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.accessed.with_label_values(&[&self.id]).set(now.as_secs_f64());
    }
}

impl Drop for OfComponent {
    fn drop(&mut self) {
        drop(self.metrics.errors.remove_label_values(&[&self.id]));
        drop(self.metrics.accessed.remove_label_values(&[&self.id]));
    }
}
