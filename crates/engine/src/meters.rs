//! The engine's own metrics.

use std::sync::Weak;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use crate::engine::Shared;
use crate::health::HealthState;

/// Buckets of evaluation times in seconds, as Alloy has them.
const EVALUATION_BUCKETS: [f64; 12] =
    [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Buckets of swap times in seconds: a store takes microseconds.
const SWAP_BUCKETS: [f64; 9] = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2, 0.1];

/// What the engine measures of itself.
#[derive(Clone)]
pub(crate) struct Meters {
    pub(crate) evaluation_seconds: Histogram,
    pub(crate) swap_seconds: Histogram,
    pub(crate) evaluating: IntGauge,
    pub(crate) waves: IntCounter,
    pub(crate) rejected: IntCounter,
    pub(crate) rollbacks: IntCounter,
    pub(crate) abandoned: IntCounter,
    /// Generations that are not quiet yet, the running one included.
    pub(crate) generations_live: IntGauge,
}

/// Collects [`Meters`] and what is read off the running pipeline.
pub(crate) struct EngineCollector {
    shared: Weak<Shared>,
    meters: Meters,
    components: IntGaugeVec,
    generation: IntGauge,
    epoch: IntGauge,
    queue: IntGauge,
    restarts: IntGaugeVec,
    refusals: IntGaugeVec,
}

/// A metric of a constant, valid name.
macro_rules! constant {
    ($metric:expr) => {
        $metric.unwrap_or_else(|error| unreachable!("the names of the engine's metrics are valid: {error}"))
    };
}

// === impl Meters ===

impl Meters {
    pub(crate) fn new() -> Self {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            constant!(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        let counter = |name: &str, help: &str| constant!(IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| constant!(IntGauge::new(name, help));
        Self {
            evaluation_seconds: histogram(
                "alloy_component_evaluation_seconds",
                "Time to evaluate and prepare one component",
                &EVALUATION_BUCKETS,
            ),
            swap_seconds: histogram(
                "invar_swap_seconds",
                "Time of the store that swaps generations, with the closing of the one before",
                &SWAP_BUCKETS,
            ),
            evaluating: gauge(
                "alloy_component_controller_evaluating",
                "Whether components are being evaluated again for changed exports",
            ),
            waves: counter("invar_waves_total", "Re-evaluations for changed exports"),
            rejected: counter(
                "invar_wave_rejections_total",
                "Components that did not accept changed exports",
            ),
            rollbacks: counter("invar_engine_rollbacks_total", "Returns to the retained configuration"),
            abandoned: counter(
                "invar_abandoned_instances_total",
                "Instances that did not end within the drain deadline",
            ),
            generations_live: gauge("invar_generations_live", "Generations under which calls may still run"),
        }
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.evaluation_seconds,
            &self.swap_seconds,
            &self.evaluating,
            &self.waves,
            &self.rejected,
            &self.rollbacks,
            &self.abandoned,
            &self.generations_live,
        ]
    }
}

// === impl EngineCollector ===

impl EngineCollector {
    /// Registers the engine's metrics. A registry that has them already, of an engine before, keeps those.
    pub(crate) fn register(registry: &Registry, shared: Weak<Shared>, meters: Meters) {
        let vector = |name: &str, help: &str, labels: &[&str]| {
            constant!(IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let collector = Self {
            shared,
            meters,
            components: vector(
                "alloy_component_controller_running_components",
                "Number of components by health",
                &["controller_path", "controller_id", "health_type"],
            ),
            generation: constant!(IntGauge::new("invar_generation", "Id of the running generation")),
            epoch: constant!(IntGauge::new(
                "invar_generation_epoch",
                "Re-evaluations within the running generation"
            )),
            queue: constant!(IntGauge::new(
                "alloy_component_evaluation_queue_size",
                "Components whose changed exports wait for their dependants to be evaluated"
            )),
            restarts: vector(
                "invar_component_restarts",
                "Restarts of the component's task",
                &["component_path", "component_id"],
            ),
            refusals: vector(
                "invar_component_refused_batches",
                "Batches that the component did not accept",
                &["component_path", "component_id"],
            ),
        };
        if let Err(error) = registry.register(Box::new(collector)) {
            tracing::warn!(%error, "the engine's metrics are not registered");
        }
    }

    fn own(&self) -> [&dyn Collector; 6] {
        [&self.components, &self.generation, &self.epoch, &self.queue, &self.restarts, &self.refusals]
    }

    fn refresh(&self, shared: &Shared) {
        let generation = shared.root.current();
        self.generation.set(i64::try_from(generation.id).unwrap_or(i64::MAX));
        self.epoch.set(i64::try_from(generation.epoch).unwrap_or(i64::MAX));
        self.queue.set(i64::try_from(shared.root.published_count()).unwrap_or(i64::MAX));
        let counts = shared.health_counts();
        for (state, count) in [
            (HealthState::Healthy, counts.healthy),
            (HealthState::Unknown, counts.unknown),
            (HealthState::Unhealthy, counts.unhealthy),
            (HealthState::Exited, counts.exited),
        ] {
            let gauge = self.components.with_label_values(&["/", "", state.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.restarts.reset();
        self.refusals.reset();
        for unit in generation.units() {
            let node = unit.cell.node().as_str();
            for (vector, count) in
                [(&self.restarts, unit.cell.restarts()), (&self.refusals, unit.cell.refusals())]
            {
                if count > 0 {
                    vector.with_label_values(&["/", node]).set(i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        }
    }
}

impl Collector for EngineCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.meters.parts().into_iter().chain(self.own()).flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(shared) = self.shared.upgrade() {
            self.refresh(&shared);
        }
        self.meters.parts().into_iter().chain(self.own()).flat_map(Collector::collect).collect()
    }
}
