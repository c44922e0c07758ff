//! Verdicts: probation samples, commit, rollback, and what expires by itself.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::model::{PendingCommit, Stage};
use super::{BASELINE_INTERVAL, PERSIST_RETRY, Reconciler};
use crate::event::EventKind;
use crate::module::ComposedModule;
use crate::pipeline::Pipeline;
use crate::probation::{Judgement, Vitals};
use crate::record::{Hold, Verdict};
use crate::settings::RollbackMode;
use crate::state::{Condemnation, Pointer, Step, shortened};
use crate::status::Phase;

/// Why a candidate is undone.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// It was bad.
    Failed { reason: String, deterministic: bool },
    /// The sources returned to last known good.
    Superseded,
    /// An operator said so.
    Operator { by: String, reason: String },
}

impl<P: Pipeline> Reconciler<P> {
    /// Takes the sample that is due: of the probation, or of the baseline.
    pub(super) async fn sample(&mut self) {
        let now = Instant::now();
        let Some(watch) = &mut self.watch else {
            if self.next_baseline <= now {
                self.next_baseline = now + BASELINE_INTERVAL;
                let vitals = self.vitals();
                self.baseline.record(now, vitals);
                self.panic_note.survived();
            }
            return;
        };
        if watch.failed.is_some() || watch.next_sample > now {
            return;
        }
        watch.next_sample = now + watch.judge.interval();
        let vitals = self.vitals();
        let Some(watch) = &mut self.watch else { return };
        let before = watch.judge.findings().to_vec();
        let judgement = watch.judge.sample(now.duration_since(watch.cut), &vitals);
        let news: Vec<String> =
            watch.judge.findings().iter().filter(|finding| !before.contains(finding)).cloned().collect();
        let committing = watch.commit.clone();
        self.panic_note.survived();
        let summary = self.running.clone();
        for finding in news.into_iter().take(4) {
            self.emit(EventKind::Finding, summary.as_ref(), finding);
        }
        match judgement {
            Judgement::Continue => {
                if let Some(PendingCommit { unproven, warning }) = committing {
                    self.commit(unproven, warning).await;
                }
            }
            Judgement::Extend(reason) => self.emit(EventKind::Extended, summary.as_ref(), reason),
            Judgement::Commit { unproven, warning } => self.commit(unproven, warning).await,
            Judgement::Fail { reason, deterministic } => self.failed(reason, deterministic).await,
        }
    }

    fn vitals(&self) -> Vitals {
        let mut vitals = self.pipeline.vitals();
        if let Some(memory) = &mut vitals.memory {
            memory.limit = match (memory.limit, self.memory_limit) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        vitals
    }

    async fn failed(&mut self, reason: String, deterministic: bool) {
        if self.settings.rollback == RollbackMode::Manual {
            let summary = self.running.clone();
            self.emit(
                EventKind::Finding,
                summary.as_ref(),
                format!("failed, and `rollback = \"manual\"`: {reason}"),
            );
            if let Some(watch) = &mut self.watch {
                watch.failed = Some(reason);
            }
            return;
        }
        self.undo(Undo::Failed { reason, deterministic }).await;
    }

    /// Last known good moves to what runs; durable first, reported then.
    pub(super) async fn commit(&mut self, unproven: bool, warning: Option<String>) {
        let Some(pointer) = self.control.running.clone() else { return };
        let mut control = self.control.clone();
        let now = self.now();
        control.last_known_good = Some(Pointer { since: now, ..pointer.clone() });
        control.probation = None;
        control.unproven = unproven;
        control.absolve(&pointer.digest);
        self.absolve_modules(&mut control, &pointer).await;
        if let Err(error) = self.write_verdict(control.clone(), Step::Committed).await {
            // Without the record it is not committed: it stays in probation, last known good stays parked.
            if let Some(watch) = &mut self.watch {
                watch.commit = Some(PendingCommit { unproven, warning });
                watch.next_sample = Instant::now() + PERSIST_RETRY;
            }
            self.emit_persist_failed(&error);
            return;
        }
        self.control = control;
        let watch = self.watch.take();
        self.pipeline.commit().await;
        let summary = pointer.summary();
        if let Some(watch) = watch {
            self.metrics.seconds("probation", watch.cut.elapsed());
        }
        self.metrics.apply("committed", "probation");
        let message = warning.clone().unwrap_or_else(|| "last known good".to_owned());
        self.phase = Phase::Committed;
        self.emit(EventKind::Committed, Some(&summary), message);
        self.decide_record(pointer.sequence, Verdict::Committed, warning, None).await;
        self.retain().await;
        self.set_stage_after_verdict();
    }

    async fn retain(&mut self) {
        let mut pinned: BTreeSet<u64> = [&self.control.running, &self.control.last_known_good]
            .into_iter()
            .flatten()
            .map(|pointer| pointer.sequence)
            .collect();
        pinned.extend(self.preparing.as_ref().map(|preparing| preparing.job.sequence));
        let held = self.control.hold.as_ref().and_then(|hold| hold.digest.clone());
        let keep = self.history.max(2);
        let retained = self
            .disk(move |state| {
                let held = held.and_then(|digest| {
                    state
                        .committed()
                        .iter()
                        .find(|stored| stored.record.digest == digest)
                        .map(|stored| stored.record.sequence)
                });
                pinned.extend(held);
                state.retain(keep, &pinned)
            })
            .await;
        if let Some(Err(error)) = retained {
            tracing::warn!(%error, "old revisions could not be removed");
        }
    }

    pub(super) async fn return_to_superseded(&mut self) {
        self.undo(Undo::Superseded).await;
    }

    /// Returns to what is retained. The store comes first; the disk hears of it afterwards.
    pub(super) async fn undo(&mut self, why: Undo) -> u64 {
        let generation = self.pipeline.rollback();
        let now = self.now();
        let watch = self.watch.take();
        let bad = self.control.probation.take().map(|mark| mark.candidate);
        self.control.last_generation = self.control.last_generation.max(generation);
        self.control.running =
            self.control.last_known_good.clone().map(|good| Pointer { generation, since: now, ..good });
        self.control.last_known_good.clone_from(&self.control.running);
        self.running = self.control.running.as_ref().map(Pointer::summary);
        self.baseline.clear();
        self.last_apply = Some(Instant::now());
        let mut blamed = None;
        if let Some(bad) = &bad {
            if matches!(why, Undo::Failed { .. }) {
                let good = self.control.last_known_good.clone();
                blamed = self.blamed_module(bad, good.as_ref()).await;
            }
            self.pronounce(bad, blamed.as_ref(), &why);
        }
        if let Undo::Operator { by, reason } = &why {
            self.control.hold = Some(Hold {
                by: by.clone(),
                reason: reason.clone(),
                since: now,
                until: None,
                digest: self.control.running.as_ref().map(|running| running.digest.clone()),
            });
        }
        self.phase = Phase::RolledBack;
        let control = self.control.clone();
        if let Err(error) = self.write_verdict(control, Step::RolledBack).await {
            // A crash before this is written reads as a death under the candidate: the same verdict.
            self.keep_unsaved(true, &error);
        }
        if let Some(watch) = watch {
            self.metrics.seconds("probation", watch.cut.elapsed());
        }
        if let Some(bad) = bad {
            self.report_undone(&bad, &why).await;
        }
        self.set_stage_after_verdict();
        if blamed.is_some() {
            // What is wanted is the same with the module's last good content.
            self.compose_anew();
        }
        if self.running.is_none() {
            self.nothing_to_return_to();
        }
        generation
    }

    /// What an undone candidate means for quarantine and breaker.
    fn pronounce(&mut self, bad: &Pointer, blamed: Option<&ComposedModule>, why: &Undo) {
        let now = self.now();
        let Undo::Failed { reason, deterministic } = why else {
            if matches!(why, Undo::Operator { .. }) {
                self.control.rollback_count += 1;
            }
            return;
        };
        self.control.rollback_count += 1;
        // Where one module is all that is new, it is the module that is not tried again, whatever else changes.
        let digest = blamed.map_or_else(|| bad.digest.clone(), ComposedModule::digest);
        let entry = self.control.condemn(
            &Condemnation {
                digest: &digest,
                revision: &bad.revision,
                stage: "probation",
                reason,
                deterministic: *deterministic,
                agent_version: &self.agent.version,
            },
            now,
        );
        let until = entry.until.map_or_else(
            || "until the content or an operator says so".to_owned(),
            |until| format!("until {until}"),
        );
        let summary = bad.summary();
        self.emit(EventKind::Quarantined, Some(&summary), format!("{until}: {}", entry.reason));
        if self.control.breaker.note_rolled_back(&bad.digest, now) {
            self.emit(
                EventKind::BreakerOpened,
                Some(&summary),
                "three contents were undone in half an hour".to_owned(),
            );
        }
    }

    async fn report_undone(&mut self, bad: &Pointer, why: &Undo) {
        let (verdict, note) = match why {
            Undo::Failed { reason, .. } => (Verdict::RolledBack, reason.clone()),
            Undo::Superseded => (Verdict::Superseded, "the sources returned to last known good".to_owned()),
            Undo::Operator { by, reason } => (Verdict::RolledBack, format!("rolled back by {by}: {reason}")),
        };
        self.metrics.apply(verdict.as_str(), "probation");
        if verdict == Verdict::RolledBack {
            self.metrics.rollback(match why {
                Undo::Operator { .. } => "operator",
                _ => "probation",
            });
        }
        self.emit(EventKind::RolledBack, Some(&bad.summary()), note.clone());
        self.decide_record(bad.sequence, verdict, Some(note), Some("probation")).await;
        let Some(running) = self.control.running.clone() else { return };
        let mut record = self.record_of(&running.summary(), Verdict::Committed);
        record.generation = Some(running.generation);
        record.swapped = Some(running.since);
        record.decided = Some(running.since);
        record.note = Some(format!("rollback of {}", bad.generation));
        let added = self.disk(move |state| state.add_generation(&running.manifest, record)).await;
        if let Some(Err(error)) = added {
            tracing::warn!(%error, "the rollback could not be added to the history");
        }
    }

    /// The desired revision is looked at again: it may run, be quarantined, held, or come next.
    fn set_stage_after_verdict(&mut self) {
        let running = self.running.as_ref().map(|running| running.digest.clone());
        if let Some(desired) = &mut self.desired {
            if running.as_deref() == Some(desired.summary.digest.as_str()) {
                desired.stage = Stage::Applied;
            } else if matches!(desired.stage, Stage::Applied) {
                desired.stage = Stage::Ready;
            }
        }
    }

    /// Writes a verdict into a record; history only.
    pub(super) async fn decide_record(
        &mut self,
        sequence: u64,
        verdict: Verdict,
        note: Option<String>,
        stage: Option<&'static str>,
    ) {
        let now = self.now();
        let written = self
            .disk(move |state| {
                state.update_record(sequence, |record| {
                    record.verdict = verdict;
                    record.decided = Some(now);
                    record.note = note.as_deref().map(shortened);
                    record.stage = stage.map(str::to_owned);
                })
            })
            .await;
        if let Some(Err(error)) = written {
            tracing::warn!(%error, "a verdict could not be added to the history");
        }
    }

    /// Holds, quarantines and the breaker end by themselves.
    pub(super) async fn expire(&mut self) {
        let now = self.now();
        let mut changed = false;
        for entry in self.control.expire_quarantine(now) {
            changed = true;
            self.reconsider_modules();
            self.emit_for(
                EventKind::Released,
                None,
                Some(&entry.digest),
                "its time is over: it is tried once more".to_owned(),
            );
        }
        if self.control.breaker.expire(now) {
            changed = true;
            self.emit(EventKind::BreakerClosed, None, "applying goes on".to_owned());
        }
        if self.control.hold.as_ref().is_some_and(|hold| hold.until.is_some_and(|until| until <= now)) {
            self.control.hold = None;
            changed = true;
            self.emit(EventKind::Unheld, None, "its time is over".to_owned());
        }
        if changed {
            self.save(Step::Control).await;
        }
    }

    pub(super) async fn lift_hold(&mut self, why: &str) {
        if self.control.hold.take().is_some() {
            self.emit(EventKind::Unheld, None, why.to_owned());
            self.save(Step::Control).await;
        }
    }
}
