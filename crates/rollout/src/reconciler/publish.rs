//! What the reconciler tells: status, events, metrics, log lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Reconciler;
use super::model::Stage;
use crate::condition::conditions;
use crate::event::{Event, EventKind};
use crate::pipeline::{Failure, FailureClass, Pipeline, PlanSummary};
use crate::record::{RevisionRecord, Verdict};
use crate::status::{
    AgentIdentity, OverallHealth, Phase, ProbationStatus, Reason, RevisionSummary, SourceState, Status,
};
use crate::time::Timestamp;

const STATUS_VERSION: u32 = 1;

/// The status before anything is known.
pub(super) fn initial_status(agent: &AgentIdentity, offline_boot: bool) -> Status {
    Status {
        version: STATUS_VERSION,
        agent: agent.clone(),
        health: OverallHealth::Degraded,
        in_sync: false,
        phase: Phase::Waiting,
        running: None,
        desired: None,
        last_known_good: None,
        reason: None,
        sources: Vec::new(),
        components: BTreeMap::new(),
        rollback_count: 0,
        quarantined: Vec::new(),
        hold: None,
        probation: None,
        offline_boot,
        unproven: false,
        conditions: Vec::new(),
    }
}

/// The reason that a rejection leaves.
pub(super) fn rejection(stage: &str, failure: &Failure, until: Option<Timestamp>) -> Reason {
    let mut message = failure.message.clone();
    if let Some(help) = &failure.help {
        message.push_str("; ");
        message.push_str(help);
    }
    if failure.class == FailureClass::Content {
        message.push_str("; not tried again until the content changes");
    }
    Reason {
        stage: stage.to_owned(),
        kind: "rejected".to_owned(),
        message,
        file: failure.file.clone(),
        line: failure.line,
        until,
    }
}

/// A plan in one sentence.
pub(super) fn plan_sentence(plan: &PlanSummary) -> String {
    let parts: Vec<String> =
        plan.counts.iter().map(|(action, count)| format!("{count} to {action}")).collect();
    if parts.is_empty() { "nothing to change".to_owned() } else { parts.join(", ") }
}

impl<P: Pipeline> Reconciler<P> {
    /// Publishes the status, if it changed, and answers whoever waits for rest.
    pub(super) fn publish(&mut self) {
        let mut status = self.status();
        let mut secrets = self.secrets.standing();
        secrets.add_lacking(self.pipeline.lacking_secrets());
        status.conditions = conditions(&status, &secrets, &self.published.borrow().conditions, self.now());
        let status = Arc::new(status);
        self.metrics.status(&status);
        self.published.send_if_modified(|before| {
            let changed = **before != *status;
            if changed {
                *before = Arc::clone(&status);
            }
            changed
        });
        self.answer_waiters(&status);
    }

    fn status(&self) -> Status {
        let components = self.pipeline.component_counts();
        let running = self.running.clone();
        let desired = self.desired.as_ref().map(|desired| {
            let mut summary = desired.wanted.as_ref().unwrap_or(&desired.summary).clone();
            if !matches!(desired.stage, Stage::Applied) || desired.wanted.is_some() {
                summary.generation = None;
            }
            summary
        });
        let in_sync = match (&running, &desired) {
            (Some(running), Some(desired)) => running.digest == desired.digest,
            _ => false,
        };
        let in_sync = in_sync && self.desired.as_ref().is_none_or(|desired| desired.held_back.is_empty());
        let mut sources: Vec<SourceState> =
            self.feed.sources().into_iter().map(|source| source.state).collect();
        sources.extend(self.module_states());
        let unwell = ["unhealthy", "exited"]
            .iter()
            .any(|state| components.get(*state).is_some_and(|count| *count > 0));
        let failed =
            self.watch.as_ref().is_some_and(|watch| watch.failed.is_some() || watch.commit.is_some());
        let degraded =
            running.is_none() || unwell || failed || self.degraded.is_some() || self.unsaved.is_some();
        Status {
            version: STATUS_VERSION,
            agent: self.agent.clone(),
            health: if degraded { OverallHealth::Degraded } else { OverallHealth::Healthy },
            in_sync,
            phase: self.phase,
            reason: self.reason(in_sync, &sources),
            running,
            desired,
            last_known_good: self.control.last_known_good.as_ref().map(|good| good.summary()),
            sources,
            components,
            rollback_count: self.control.rollback_count,
            quarantined: self.control.quarantine.clone(),
            hold: self.control.hold.clone(),
            probation: self.watch.as_ref().map(|watch| ProbationStatus {
                since: watch.since,
                until: watch.since.plus(watch.judge.window()),
                extended: watch.judge.extended(),
                findings: watch.judge.findings().to_vec(),
            }),
            offline_boot: self.memory_only.is_none(),
            unproven: self.control.unproven,
            conditions: Vec::new(),
        }
    }

    fn reason(&self, in_sync: bool, sources: &[SourceState]) -> Option<Reason> {
        let plain = |stage: &str, kind: &str, message: String| Reason {
            stage: stage.to_owned(),
            kind: kind.to_owned(),
            message,
            file: None,
            line: None,
            until: None,
        };
        if let Some(watch) = &self.watch {
            if let Some(failed) = &watch.failed {
                return Some(plain(
                    "probation",
                    "failed",
                    format!("{failed}; undo it with `invar rollback`"),
                ));
            }
            if watch.commit.is_some() {
                let message =
                    "the commit cannot be written to the state directory; last known good stays ready"
                        .to_owned();
                return Some(plain("persist", "persist_failed", message));
            }
        }
        if self.fault.is_some() {
            return self.fault.clone();
        }
        let stage = self.desired.as_ref().map(|desired| &desired.stage);
        if let Some(Stage::Stopped(reason) | Stage::Waiting(reason) | Stage::Rejected { reason, .. }) = stage
        {
            return Some(reason.clone());
        }
        if let Some(held) = self.desired.as_ref().and_then(|desired| desired.held_back.first()) {
            return Some(held.reason.clone());
        }
        if let Some(unsaved) = &self.unsaved {
            return Some(plain("persist", "persist_failed", unsaved.error.clone()));
        }
        if self.degraded.is_some() {
            return self.degraded.clone();
        }
        if in_sync || self.desired.is_some() {
            return None;
        }
        let failing = sources.iter().find_map(|source| source.error.as_ref().map(|error| (source, error)));
        Some(match failing {
            Some((source, error)) => {
                plain("fetch", &error.class, format!("source {}: {}", source.name, error.message))
            }
            None => plain("fetch", "waiting", "no source has answered yet".to_owned()),
        })
    }

    /// An event, with its log line.
    pub(super) fn emit(&self, kind: EventKind, summary: Option<&RevisionSummary>, message: String) {
        self.emit_for(kind, summary, summary.map(|summary| summary.digest.as_str()), message);
    }

    pub(super) fn emit_for(
        &self,
        kind: EventKind,
        summary: Option<&RevisionSummary>,
        digest: Option<&str>,
        message: String,
    ) {
        let revision = summary.map(|summary| summary.revision.as_str());
        let generation = summary.and_then(|summary| summary.generation);
        let event = kind.as_str();
        match kind {
            EventKind::Rejected
            | EventKind::RolledBack
            | EventKind::Quarantined
            | EventKind::BreakerOpened
            | EventKind::SecretRejected
            | EventKind::SecretTrouble
            | EventKind::Stopped => {
                tracing::warn!(event, revision, generation, digest, "{message}");
            }
            EventKind::PersistFailed
            | EventKind::Degraded
            | EventKind::Security
            | EventKind::SourceMissing => {
                tracing::error!(event, revision, generation, digest, "{message}")
            }
            _ => tracing::info!(event, revision, generation, digest, "{message}"),
        }
        self.metrics.event(event);
        self.events.publish(Event {
            id: 0,
            time: self.now(),
            kind,
            phase: self.phase,
            revision: revision.map(str::to_owned),
            digest: digest.map(str::to_owned),
            generation,
            message,
        });
    }

    pub(super) fn emit_persist_failed(&self, error: &str) {
        self.metrics.persist_failed();
        self.emit(EventKind::PersistFailed, None, error.to_owned());
    }

    /// A record of something that is seen now.
    pub(super) fn record_of(&self, summary: &RevisionSummary, verdict: Verdict) -> RevisionRecord {
        RevisionRecord {
            sequence: 0,
            generation: None,
            revision: summary.revision.clone(),
            digest: summary.digest.clone(),
            author: summary.author.clone(),
            subject: summary.subject.clone(),
            signer: summary.signer.clone(),
            observed: self.now(),
            swapped: None,
            decided: None,
            verdict,
            note: None,
            plan: None,
            stage: None,
            file: None,
            line: None,
        }
    }
}
