//! The `invar_*` metrics of the rollout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::status::Status;
use crate::time::Timestamp;

/// Collectors of the rollout.
#[derive(Clone, Debug)]
pub(crate) struct RolloutMetrics {
    info: IntGaugeVec,
    last_success: IntGauge,
    apply: IntCounterVec,
    seconds: HistogramVec,
    rollbacks: IntCounterVec,
    events: IntCounterVec,
    persist_failures: IntCounter,
    quarantined: IntGauge,
    held: IntGauge,
    drift: IntGauge,
    healthy: IntGauge,
    probation: Gauge,
    source_last_success: GaugeVec,
    source_failing: IntGaugeVec,
    source_alarm: IntGaugeVec,
    shown: Arc<Mutex<Shown>>,
}

/// Series that exist now, so that those of the past can be removed.
#[derive(Debug, Default)]
struct Shown {
    info: BTreeSet<[String; 4]>,
    /// Sources, and modules, which come and go.
    sources: BTreeSet<String>,
}

impl RolloutMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let metrics = Self {
            info: IntGaugeVec::new(
                Opts::new("invar_config_info", "The configurations: running, desired and last known good."),
                &["role", "revision", "digest", "generation"],
            )?,
            last_success: gauge(
                "invar_config_last_apply_success",
                "1 if the newest candidate runs, 0 if it was refused or undone.",
            )?,
            apply: vec(
                "invar_config_apply_total",
                "Candidates by what became of them and at which stage.",
                &["result", "stage"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("invar_config_apply_seconds", "Time a candidate spent in a phase.")
                    .buckets(vec![0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0]),
                &["phase"],
            )?,
            rollbacks: vec(
                "invar_config_rollbacks_total",
                "Candidates that ran and were undone.",
                &["reason"],
            )?,
            events: vec("invar_rollout_events_total", "Events of the rollout.", &["kind"])?,
            persist_failures: IntCounter::new(
                "invar_state_persist_failures_total",
                "Writes to the state directory that failed.",
            )?,
            quarantined: gauge("invar_config_quarantined", "Contents that are quarantined.")?,
            held: gauge("invar_config_held", "1 while a hold is set.")?,
            drift: gauge("invar_config_drift", "1 while what runs is not what the sources want.")?,
            healthy: gauge("invar_healthy", "1 while the agent is healthy, 0 while it is degraded.")?,
            probation: Gauge::new("invar_config_probation", "1 while a candidate is in probation.")?,
            source_last_success: GaugeVec::new(
                Opts::new(
                    "invar_config_source_last_success_timestamp",
                    "When a source answered last, in seconds since the epoch.",
                ),
                &["source"],
            )?,
            source_failing: IntGaugeVec::new(
                Opts::new("invar_config_source_failing", "1 while a source fails."),
                &["source"],
            )?,
            source_alarm: IntGaugeVec::new(
                Opts::new(
                    "invar_config_source_alarm",
                    "1 while somebody should look at a source: missing again and again, or not what was promised.",
                ),
                &["source"],
            )?,
            shown: Arc::default(),
        };
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![
            Box::new(self.info.clone()),
            Box::new(self.last_success.clone()),
            Box::new(self.apply.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.rollbacks.clone()),
            Box::new(self.events.clone()),
            Box::new(self.persist_failures.clone()),
            Box::new(self.quarantined.clone()),
            Box::new(self.held.clone()),
            Box::new(self.drift.clone()),
            Box::new(self.healthy.clone()),
            Box::new(self.probation.clone()),
            Box::new(self.source_last_success.clone()),
            Box::new(self.source_failing.clone()),
            Box::new(self.source_alarm.clone()),
        ]
    }

    /// What became of a candidate.
    pub(crate) fn apply(&self, result: &str, stage: &str) {
        self.apply.with_label_values(&[result, stage]).inc();
        match result {
            "committed" | "no_effective_change" => self.last_success.set(1),
            "rejected" | "rolled_back" => self.last_success.set(0),
            _ => {}
        }
    }

    /// A candidate spent `time` in `phase`.
    pub(crate) fn seconds(&self, phase: &str, time: Duration) {
        self.seconds.with_label_values(&[phase]).observe(time.as_secs_f64());
    }

    pub(crate) fn rollback(&self, reason: &str) {
        self.rollbacks.with_label_values(&[reason]).inc();
    }

    pub(crate) fn event(&self, kind: &str) {
        self.events.with_label_values(&[kind]).inc();
    }

    pub(crate) fn persist_failed(&self) {
        self.persist_failures.inc();
    }

    /// Everything that the status says.
    pub(crate) fn status(&self, status: &Status) {
        self.quarantined.set(i64::try_from(status.quarantined.len()).unwrap_or(i64::MAX));
        self.held.set(i64::from(status.hold.is_some()));
        self.drift.set(i64::from(!status.in_sync));
        self.healthy.set(i64::from(status.health == crate::status::OverallHealth::Healthy));
        self.probation.set(f64::from(u8::from(status.probation.is_some())));
        let mut shown = self.shown.lock();
        let now: BTreeSet<String> = status.sources.iter().map(|source| source.name.clone()).collect();
        for gone in shown.sources.difference(&now) {
            // A series that never had a value is not there to be removed.
            drop(self.source_failing.remove_label_values(&[gone.as_str()]));
            drop(self.source_alarm.remove_label_values(&[gone.as_str()]));
            drop(self.source_last_success.remove_label_values(&[gone.as_str()]));
        }
        shown.sources = now;
        for source in &status.sources {
            self.source_failing
                .with_label_values(&[source.name.as_str()])
                .set(i64::from(source.error.is_some()));
            self.source_alarm.with_label_values(&[source.name.as_str()]).set(i64::from(source.alarm));
            if let Some(checked) = source.checked.filter(|_| source.error.is_none()) {
                self.source_last_success.with_label_values(&[source.name.as_str()]).set(seconds_of(checked));
            }
        }
        let roles = [
            ("running", &status.running),
            ("desired", &status.desired),
            ("last_known_good", &status.last_known_good),
        ];
        let now: BTreeSet<[String; 4]> = roles
            .into_iter()
            .filter_map(|(role, summary)| summary.as_ref().map(|summary| (role, summary)))
            .map(|(role, summary)| {
                let generation =
                    summary.generation.map(|generation| generation.to_string()).unwrap_or_default();
                [role.to_owned(), summary.revision.clone(), summary.digest.clone(), generation]
            })
            .collect();
        for gone in shown.info.difference(&now) {
            // It may be gone already; then there is nothing to remove.
            drop(self.info.remove_label_values(&labels(gone)));
        }
        for new in &now {
            self.info.with_label_values(&labels(new)).set(1);
        }
        shown.info = now;
    }
}

fn labels(values: &[String; 4]) -> [&str; 4] {
    values.each_ref().map(String::as_str)
}

fn seconds_of(time: Timestamp) -> f64 {
    time.as_millis() as f64 / 1000.0
}
