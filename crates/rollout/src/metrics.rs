//! The `invar_*` metrics of the rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::status::{SourceChecks, SourceState, Status};
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
    source_checks: IntCounterVec,
    source_seconds: HistogramVec,
    source_error: IntGaugeVec,
    shown: Arc<Mutex<Shown>>,
}

/// Series that exist now, so that those of the past can be removed.
#[derive(Debug, Default)]
struct Shown {
    info: BTreeSet<[String; 4]>,
    /// Sources, and modules, which come and go, with what they counted when they were shown last and the class of their
    /// error.
    sources: BTreeMap<String, (SourceChecks, Option<String>)>,
}

/// What a check of a source can come to.
const CHECK_RESULTS: [&str; 4] = ["changed", "unchanged", "failed", "aborted"];

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
            source_checks: vec(
                "invar_config_source_checks_total",
                "Checks of a source by what came of them.",
                &["source", "result"],
            )?,
            source_seconds: HistogramVec::new(
                HistogramOpts::new("invar_config_source_fetch_seconds", "Time a check of a source took.")
                    .buckets(vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0]),
                &["source"],
            )?,
            source_error: IntGaugeVec::new(
                Opts::new("invar_config_source_error", "1 while a source fails, by the class of its error."),
                &["source", "class"],
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
            Box::new(self.source_checks.clone()),
            Box::new(self.source_seconds.clone()),
            Box::new(self.source_error.clone()),
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
        shown.sources.retain(|name, (_, class)| {
            let stays = status.sources.iter().any(|source| source.name == *name);
            if !stays {
                self.forget_source(name, class.as_deref());
            }
            stays
        });
        for source in &status.sources {
            self.checks(source, shown.sources.entry(source.name.clone()).or_default());
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

impl RolloutMetrics {
    /// Adds the checks since the last time, and names the class of the error.
    fn checks(&self, source: &SourceState, shown: &mut (SourceChecks, Option<String>)) {
        let name = source.name.as_str();
        let now = source.checks;
        // A source that took the place of another one counts from nothing.
        let before = if now.total < shown.0.total { SourceChecks::default() } else { shown.0 };
        let [total, changed, failed, aborted, millis] = [
            (now.total, before.total),
            (now.changed, before.changed),
            (now.failed, before.failed),
            (now.aborted, before.aborted),
            (now.millis, before.millis),
        ]
        .map(|(now, before)| now.saturating_sub(before));
        let unchanged = total.saturating_sub(changed).saturating_sub(failed);
        let counts = [changed, unchanged, failed.saturating_sub(aborted), aborted];
        for (result, count) in CHECK_RESULTS.into_iter().zip(counts) {
            self.source_checks.with_label_values(&[name, result]).inc_by(count);
        }
        // Between two looks there is one check, or none; of several the mean is told for each.
        for _ in 0..total.min(1000) {
            let seconds = millis as f64 / 1000.0 / total as f64;
            self.source_seconds.with_label_values(&[name]).observe(seconds);
        }
        let class = source.error.as_ref().map(|error| error.class.clone());
        if shown.1 != class {
            if let Some(gone) = &shown.1 {
                // It is there, since it was set; were it not, nothing would have to go.
                drop(self.source_error.remove_label_values(&[name, gone]));
            }
            if let Some(class) = &class {
                self.source_error.with_label_values(&[name, class]).set(1);
            }
        }
        *shown = (now, class);
    }

    fn forget_source(&self, name: &str, class: Option<&str>) {
        // A series that never had a value is not there to be removed.
        drop(self.source_failing.remove_label_values(&[name]));
        drop(self.source_alarm.remove_label_values(&[name]));
        drop(self.source_last_success.remove_label_values(&[name]));
        drop(self.source_seconds.remove_label_values(&[name]));
        for result in CHECK_RESULTS {
            drop(self.source_checks.remove_label_values(&[name, result]));
        }
        if let Some(class) = class {
            drop(self.source_error.remove_label_values(&[name, class]));
        }
    }
}

fn labels(values: &[String; 4]) -> [&str; 4] {
    values.each_ref().map(String::as_str)
}

fn seconds_of(time: Timestamp) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus::TextEncoder;

    use super::*;
    use crate::status::{AgentIdentity, OverallHealth, Phase, SourceErrorState};

    fn source(name: &str, checks: SourceChecks, class: Option<&str>) -> SourceState {
        SourceState {
            name: name.to_owned(),
            kind: "git".to_owned(),
            revision: None,
            checked: Some(Timestamp::from_millis(1_500)),
            changed: None,
            error: class.map(|class| SourceErrorState {
                class: class.to_owned(),
                message: "it fails".to_owned(),
                since: Timestamp::from_millis(0),
                rejection: None,
            }),
            checks,
            alarm: false,
        }
    }

    fn status(sources: Vec<SourceState>) -> Status {
        Status {
            version: 1,
            agent: AgentIdentity::default(),
            health: OverallHealth::Healthy,
            in_sync: true,
            phase: Phase::Committed,
            running: None,
            desired: None,
            last_known_good: None,
            reason: None,
            sources,
            components: BTreeMap::new(),
            rollback_count: 0,
            quarantined: Vec::new(),
            hold: None,
            probation: None,
            offline_boot: true,
            unproven: false,
            conditions: Vec::new(),
        }
    }

    fn checks(total: u64, changed: u64, failed: u64, aborted: u64, millis: u64) -> SourceChecks {
        SourceChecks { total, changed, failed, aborted, millis }
    }

    #[test]
    fn checks_of_sources_are_counted_by_result_and_timed() {
        let registry = Registry::new();
        let metrics = RolloutMetrics::register(&registry).unwrap();
        let shown = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        metrics.status(&status(vec![source("a", checks(3, 1, 0, 0, 300), None)]));
        // Seen twice, counted once.
        metrics.status(&status(vec![source("a", checks(3, 1, 0, 0, 300), None)]));
        metrics.status(&status(vec![source("a", checks(6, 1, 3, 1, 30_300), Some("forbidden"))]));
        let text = shown();
        for line in [
            "invar_config_source_checks_total{result=\"changed\",source=\"a\"} 1",
            "invar_config_source_checks_total{result=\"unchanged\",source=\"a\"} 2",
            "invar_config_source_checks_total{result=\"failed\",source=\"a\"} 2",
            "invar_config_source_checks_total{result=\"aborted\",source=\"a\"} 1",
            "invar_config_source_fetch_seconds_count{source=\"a\"} 6",
            "invar_config_source_fetch_seconds_bucket{source=\"a\",le=\"0.1\"} 3",
            "invar_config_source_error{class=\"forbidden\",source=\"a\"} 1",
            "invar_config_source_failing{source=\"a\"} 1",
            "invar_config_source_last_success_timestamp{source=\"a\"} 1.5",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        // Another source under the same name, of another mood.
        metrics.status(&status(vec![source("a", checks(1, 0, 1, 0, 5), Some("not_found"))]));
        let text = shown();
        assert!(text.contains("result=\"failed\",source=\"a\"} 3"), "{text}");
        assert!(text.contains("class=\"not_found\"") && !text.contains("class=\"forbidden\""), "{text}");
        metrics.status(&status(Vec::new()));
        assert!(!shown().contains("source=\"a\""), "{}", shown());
    }
}
