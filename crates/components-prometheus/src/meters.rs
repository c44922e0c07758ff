//! Keeps the metrics of a component in the agent's registry while its task runs, and makes one that several have.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, Registry};

/// How long handing one batch to all receivers downstream took, seconds.
pub(crate) fn fanout_latency(component: &str) -> Histogram {
    let help = "Write latency for sending to direct and indirect components";
    let options =
        HistogramOpts::new("prometheus_fanout_latency", help).const_label("component_id", component);
    Histogram::with_opts(options).unwrap_or_else(|error| unreachable!("the name is valid: {error}"))
}

/// Metrics that are registered until this is dropped.
pub(crate) struct Registration {
    registry: Option<Arc<Registry>>,
    collectors: Vec<Box<dyn Collector>>,
}

impl Registration {
    /// Registers metrics, where there is a registry.
    pub(crate) fn new(registry: Option<Arc<Registry>>, collectors: Vec<Box<dyn Collector>>) -> Self {
        let mut registration = Self { registry, collectors: Vec::with_capacity(collectors.len()) };
        for collector in collectors {
            registration.add(collector);
        }
        registration
    }

    fn add(&mut self, collector: Box<dyn Collector>) {
        let Some(registry) = &self.registry else { return };
        // The registry wants one box to gather from; the other says what to take back.
        let shared: Arc<dyn Collector> = Arc::from(collector);
        match registry.register(Box::new(Shared(Arc::clone(&shared)))) {
            Ok(()) => self.collectors.push(Box::new(Shared(shared))),
            Err(error) => tracing::warn!(%error, "a metric of a component cannot be registered"),
        }
    }
}

/// A collector that two owners hold.
struct Shared(Arc<dyn Collector>);

impl Collector for Shared {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.0.collect()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(registry) = &self.registry else { return };
        for collector in self.collectors.drain(..) {
            if let Err(error) = registry.unregister(collector) {
                tracing::warn!(%error, "a metric of a component cannot be taken back");
            }
        }
    }
}
