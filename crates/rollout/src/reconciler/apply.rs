//! From a planned candidate to a swap: gates, INTENT, prepare, SWAPPED, cut.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::model::{Desired, Job, Preparing, Stage, Trigger, Watch};
use super::observe::CHECK_DEADLINE;
use super::{PREPARE_DEADLINE, Reconciler, StateHandle, publish};
use crate::event::EventKind;
use crate::handle::RolloutError;
use crate::pipeline::{CutFailure, Failure, FailureClass, Mode, Pipeline, SwappedHook};
use crate::probation::{Judge, JudgeOptions, RuleSet};
use crate::record::{Hold, Verdict};
use crate::state::{Control, IntentMark, Pointer, ProbationMark, Step};
use crate::status::{Phase, Reason, RevisionSummary};

/// Preparations that other cuts outdated, until it counts as a failure.
const OUTDATED: u32 = 5;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);

impl<P: Pipeline> Reconciler<P> {
    /// Applies the desired revision if nothing stands in its way.
    pub(super) async fn try_apply(&mut self) {
        self.retry_rejected().await;
        let Some(desired) = &self.desired else { return };
        let digest = desired.summary.digest.clone();
        if self.control.hold.as_ref().is_some_and(|hold| hold.digest.as_ref() == Some(&digest)) {
            self.lift_hold("the desired revision is the held one").await;
        }
        let Some(desired) = &self.desired else { return };
        if !matches!(desired.stage, Stage::Ready | Stage::Stopped(_)) || self.pending.is_some() {
            return;
        }
        if self.running.as_ref().is_some_and(|running| running.digest == digest) {
            self.set_stage(Stage::Applied);
            self.rest_phase();
            return;
        }
        let good = self.control.last_known_good.as_ref().is_some_and(|good| good.digest == digest);
        if let Some(reason) = self.gate(&digest, good) {
            self.stop_at_gate(reason);
            return;
        }
        let known_good = good || self.state.lock().is_known_good(&digest);
        if self.preparing.is_some() {
            // An operator's rollback is being prepared.
            return;
        }
        let too_soon = self.last_apply.is_some_and(|last| last + self.settings.min_gap > Instant::now());
        if too_soon && !known_good {
            self.set_stage(Stage::Ready);
            return;
        }
        if good && self.watch.is_some() {
            self.return_to_superseded().await;
            self.revision_advanced().await;
            return;
        }
        self.apply_desired().await;
    }

    async fn retry_rejected(&mut self) {
        let Some(desired) = &mut self.desired else { return };
        let Stage::Rejected { retry_at: Some(at), .. } = desired.stage else { return };
        if at > Instant::now() {
            return;
        }
        if desired.candidate.is_none() {
            self.compose_anew();
            self.compose_when_quiet().await;
        } else {
            desired.stage = Stage::Ready;
        }
    }

    /// What keeps this content from being applied.
    fn gate(&self, digest: &str, good: bool) -> Option<Reason> {
        let reason = |kind: &str, message: String, until| Reason {
            stage: "apply".to_owned(),
            kind: kind.to_owned(),
            message,
            file: None,
            line: None,
            until,
        };
        if let Some(hold) = &self.control.hold {
            let message = format!("held by {}: {}; lift it with `invar unhold`", hold.by, hold.reason);
            return Some(reason("held", message, hold.until));
        }
        if good {
            return None;
        }
        if let Some(entry) = self.control.quarantined(digest) {
            let short = digest.get(..12).unwrap_or(digest);
            let next = format!("fix and push, or `invar quarantine retry {short}`");
            return Some(Reason {
                stage: entry.stage.clone(),
                ..reason("quarantined", format!("{}; {next}", entry.reason), entry.until)
            });
        }
        if let Some(until) = self.control.breaker.open_until
            && !self.state.lock().is_known_good(digest)
        {
            let message = "several revisions had to be undone in a short time; are there two writers? A return to known good content passes";
            return Some(reason("flapping", message.to_owned(), Some(until)));
        }
        None
    }

    fn stop_at_gate(&mut self, reason: Reason) {
        let Some(desired) = &mut self.desired else { return };
        let news = match &desired.stage {
            Stage::Stopped(before) => *before != reason,
            _ => true,
        };
        let summary = desired.summary.clone();
        let message = format!("{}: {}", reason.kind, reason.message);
        desired.stage = Stage::Stopped(reason);
        if self.watch.is_none() {
            self.phase = Phase::Held;
        }
        if news {
            self.emit(EventKind::Stopped, Some(&summary), message);
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        if let Some(desired) = &mut self.desired {
            desired.stage = stage;
        }
    }

    async fn apply_desired(&mut self) {
        let Some(Desired { candidate: Some(candidate), composition, summary, .. }) = &self.desired else {
            return;
        };
        let (candidate, composition, summary) =
            (Arc::clone(candidate), Arc::clone(composition), summary.clone());
        let record = self.record_of(&summary, Verdict::Pending);
        let digest = summary.digest.clone();
        let stored = self.disk(move |state| state.store_revision(&composition, &digest, record)).await;
        let (sequence, manifest) = match stored {
            Some(Ok(stored)) => stored,
            Some(Err(error)) => return self.refuse_unpersisted(&error.to_string()),
            None => return self.refuse_unpersisted("the write was interrupted"),
        };
        let rules = if self.control.last_known_good.is_some() { RuleSet::Full } else { RuleSet::Hard };
        let window = self.settings.probation.window;
        let job = Job {
            candidate,
            summary,
            sequence,
            manifest,
            trigger: Trigger::Sources,
            rules,
            window,
            outdated: 0,
            plan: None,
            started: Instant::now(),
        };
        self.begin(job).await;
    }

    /// Makes INTENT durable and starts to prepare.
    pub(super) async fn begin(&mut self, job: Job<P::Candidate>) {
        self.control.intent = Some(IntentMark {
            digest: job.summary.digest.clone(),
            revision: job.summary.revision.clone(),
            boot_id: self.boot_id.clone(),
        });
        if let Err(error) = self.write_control(Step::Intent).await {
            self.control.intent = None;
            let sequence = job.sequence;
            self.disk(move |state| {
                state.update_record(sequence, |record| record.verdict = Verdict::Rejected)
            })
            .await;
            match job.trigger {
                Trigger::Operator { reply, .. } => {
                    let message =
                        format!("the state directory cannot be written ({error}); nothing was changed");
                    drop(reply.send(Err(RolloutError::Refused(message))));
                }
                Trigger::Sources => self.refuse_unpersisted(&error),
            }
            return;
        }
        self.phase = Phase::Prepared;
        if matches!(job.trigger, Trigger::Sources) {
            self.set_stage(Stage::Preparing);
        }
        self.emit(
            EventKind::Preparing,
            Some(&job.summary),
            "building what changed, beside what runs".to_owned(),
        );
        self.preparing = Some(self.prepare(job));
    }

    fn prepare(&self, job: Job<P::Candidate>) -> Preparing<P> {
        let pipeline = Arc::clone(&self.pipeline);
        let candidate = Arc::clone(&job.candidate);
        let future: BoxFuture<'static, _> = Box::pin(async move {
            match tokio::time::timeout(PREPARE_DEADLINE, pipeline.prepare(candidate, Mode::AllOrNothing))
                .await
            {
                Ok(prepared) => prepared,
                Err(_) => {
                    Err(Failure::environment(format!("not prepared within {} s", PREPARE_DEADLINE.as_secs())))
                }
            }
        });
        Preparing { job, future: Mutex::new(future) }
    }

    /// Drops a preparation under way, and with it what it made.
    pub(super) async fn cancel_preparation(&mut self, why: &str) {
        let Some(Preparing { job, .. }) = self.preparing.take() else { return };
        self.control.intent = None;
        self.save(Step::Withdrawn).await;
        let (sequence, note, now) = (job.sequence, why.to_owned(), self.now());
        self.disk(move |state| {
            state.update_record(sequence, |record| {
                record.verdict = Verdict::Superseded;
                record.note = Some(note);
                record.decided = Some(now);
            })
        })
        .await;
        self.emit(EventKind::Superseded, Some(&job.summary), why.to_owned());
        if let Trigger::Operator { reply, .. } = job.trigger {
            drop(reply.send(Err(RolloutError::Refused(why.to_owned()))));
        }
    }

    /// A preparation came to an end.
    pub(super) async fn prepared(&mut self, result: Result<P::Prepared, Failure>) {
        let Some(Preparing { mut job, .. }) = self.preparing.take() else { return };
        let prepared = match result {
            Ok(prepared) => prepared,
            Err(failure) => return self.prepare_failed(job, "prepare", &failure).await,
        };
        job.plan = self.plan_again(&job).await;
        let adopted: Arc<Mutex<Option<Control>>> = Arc::default();
        let hook = self.swapped_hook(&job, Arc::clone(&adopted));
        let outcome = self.pipeline.cut(prepared, hook).await;
        let written = adopted.lock().take();
        match (outcome, written) {
            (Ok(()), Some(control)) => self.swapped(job, control).await,
            (Ok(()), None) => {
                // The hook was not called: the pipeline broke its promise, and what runs is not known to the disk.
                let failure = Failure::environment("the pipeline swapped without announcing it");
                self.prepare_failed(job, "swap", &failure).await;
            }
            (Err(CutFailure::Outdated), _) if job.outdated < OUTDATED => {
                job.outdated += 1;
                self.preparing = Some(self.prepare(job));
            }
            (Err(CutFailure::Outdated), _) => {
                let failure = Failure::environment("the pipeline changed faster than this could be prepared");
                self.prepare_failed(job, "swap", &failure).await;
            }
            (Err(CutFailure::Persist(error)), _) => {
                self.control.intent = None;
                self.keep_unsaved(false, &error);
                let failure = Failure::environment(format!("the swap could not be recorded: {error}"));
                self.prepare_failed(job, "persist", &failure).await;
            }
            (Err(CutFailure::Failed(failure)), _) => self.prepare_failed(job, "swap", &failure).await,
        }
    }

    /// Plans once more right before the swap: another swap, or exports that decide what there is, may have made it
    /// another plan. Shown and kept is what is applied. Answers its hash.
    async fn plan_again(&mut self, job: &Job<P::Candidate>) -> Option<String> {
        let (pipeline, candidate) = (Arc::clone(&self.pipeline), Arc::clone(&job.candidate));
        let work = invar_engine::compute_aside(move || pipeline.plan(&candidate));
        let plan = match tokio::time::timeout(CHECK_DEADLINE, work).await {
            Ok(Ok(Ok(plan))) => plan,
            Ok(Ok(Err(failure))) => {
                // It was prepared since: what does not evaluate any more the cut notices too, and refuses.
                tracing::debug!(%failure, "the plan could not be made again");
                return None;
            }
            Ok(Err(_panic)) => {
                self.panic_note.survived();
                return None;
            }
            Err(_elapsed) => return None,
        };
        let hash = plan.hash.clone();
        if matches!(job.trigger, Trigger::Sources) {
            if self.plan.as_ref().is_some_and(|before| before.hash != hash) {
                let message =
                    format!("what runs has changed since it was planned: {}", publish::plan_sentence(&plan));
                self.emit(EventKind::Planned, Some(&job.summary), message);
            }
            self.plan = Some(plan);
        }
        Some(hash)
    }

    /// Makes SWAPPED durable, right before the store.
    fn swapped_hook(&self, job: &Job<P::Candidate>, adopted: Arc<Mutex<Option<Control>>>) -> SwappedHook {
        let state: StateHandle = Arc::clone(&self.state);
        let mut control = self.control.clone();
        let (boot_id, now) = (self.boot_id.clone(), self.now());
        let (summary, sequence, manifest) = (job.summary.clone(), job.sequence, job.manifest.clone());
        if let Trigger::Operator { by, reason, .. } = &job.trigger {
            control.hold = Some(Hold {
                by: by.clone(),
                reason: reason.clone(),
                since: now,
                until: None,
                digest: Some(summary.digest.clone()),
            });
        }
        Box::new(move |generation| {
            let pointer = Pointer {
                generation,
                sequence,
                manifest,
                digest: summary.digest.clone(),
                revision: summary.revision,
                since: now,
                author: summary.author,
                subject: summary.subject,
                signer: summary.signer,
            };
            control.intent = None;
            control.last_generation = control.last_generation.max(generation);
            control.running = Some(pointer.clone());
            control.probation =
                Some(ProbationMark { candidate: pointer, clean: false, resumed: false, boot_id });
            control.breaker.note_applied(&summary.digest, now);
            state.lock().write_control(&control, Step::Swapped).map_err(|error| error.to_string())?;
            *adopted.lock() = Some(control);
            Ok(())
        })
    }

    /// The candidate runs.
    async fn swapped(&mut self, job: Job<P::Candidate>, control: Control) {
        let superseded = self.control.probation.as_ref().map(|mark| mark.candidate.clone());
        let was_open = self.control.breaker.open_until.is_some();
        self.control = control;
        self.unsaved = None;
        let Some(pointer) = self.control.running.clone() else { return };
        let summary = pointer.summary();
        self.running = Some(summary.clone());
        self.fallback = None;
        self.degraded = None;
        self.cold_start = None;
        self.last_apply = Some(Instant::now());
        let now = self.now();
        if let Some(old) = superseded {
            self.metrics.apply("superseded", "probation");
            self.emit(
                EventKind::Superseded,
                Some(&old.summary()),
                format!("{} took its place", summary.revision),
            );
            self.decide_record(old.sequence, Verdict::Superseded, None, None).await;
        }
        let (sequence, plan) = (pointer.sequence, job.plan.clone());
        self.disk(move |state| {
            state.update_record(sequence, |record| {
                record.generation = Some(pointer.generation);
                record.plan = plan;
                record.swapped = Some(now);
            })
        })
        .await;
        self.phase = Phase::Swapped;
        self.metrics.seconds("prepare", job.started.elapsed());
        self.emit(EventKind::Swapped, Some(&summary), "runs; its probation begins".to_owned());
        if !was_open && self.control.breaker.open_until.is_some() {
            self.emit(
                EventKind::BreakerOpened,
                Some(&summary),
                "two contents take turns: are there two writers?".to_owned(),
            );
        }
        match job.trigger {
            Trigger::Sources => {
                if let Some(desired) = &mut self.desired {
                    desired.stage = Stage::Applied;
                    desired.summary.generation = summary.generation;
                }
            }
            Trigger::Operator { by, reason, reply } => {
                self.set_stage(Stage::Ready);
                self.emit(EventKind::Held, Some(&summary), format!("rolled back by {by}: {reason}"));
                drop(reply.send(Ok(summary.generation.unwrap_or_default())));
            }
        }
        self.begin_probation(job.rules, job.window).await;
    }

    /// Starts to watch what runs.
    pub(super) async fn begin_probation(&mut self, rules: RuleSet, window: Duration) {
        let baseline = self.baseline.baseline();
        self.baseline.clear();
        if window.is_zero() {
            self.watch = Some(self.new_watch(rules, window, baseline));
            self.commit(false, None).await;
            return;
        }
        self.watch = Some(self.new_watch(rules, window, baseline));
        self.phase = Phase::Probation;
    }

    fn new_watch(&self, rules: RuleSet, window: Duration, baseline: crate::probation::Baseline) -> Watch {
        let on_inconclusive = self.settings.probation.on_inconclusive;
        let judge = Judge::new(JudgeOptions { window, rules, baseline, on_inconclusive });
        let cut = Instant::now();
        Watch {
            next_sample: cut + judge.interval(),
            judge,
            cut,
            since: self.now(),
            failed: None,
            commit: None,
        }
    }

    /// It never ran; what runs was not touched.
    async fn prepare_failed(&mut self, job: Job<P::Candidate>, stage: &'static str, failure: &Failure) {
        if self.control.intent.take().is_some() || self.unsaved.is_some() {
            self.save(Step::Withdrawn).await;
        }
        let message = failure.message.clone();
        let (file, line) = (failure.file.clone(), failure.line);
        let (sequence, now) = (job.sequence, self.now());
        self.disk(move |state| {
            state.update_record(sequence, |record| {
                record.verdict = Verdict::Rejected;
                record.note = Some(message);
                record.stage = Some(stage.to_owned());
                record.file = file;
                record.line = line;
                record.decided = Some(now);
            })
        })
        .await;
        self.metrics.apply("rejected", stage);
        self.emit(EventKind::Rejected, Some(&job.summary), format!("{stage}: {failure}"));
        match job.trigger {
            Trigger::Operator { reply, .. } => {
                drop(reply.send(Err(RolloutError::Refused(format!("{failure}; what runs was not touched")))));
                self.set_stage(Stage::Ready);
            }
            Trigger::Sources => {
                let attempts = self.desired.as_mut().map_or(0, |desired| {
                    desired.attempts += 1;
                    desired.attempts
                });
                let retry = (failure.class == FailureClass::Environment).then(|| retry_after(attempts));
                let until = retry.map(|retry| self.now().plus(retry));
                let mut reason = publish::rejection(stage, failure, until);
                if stage == "persist" {
                    reason.kind = "persist_failed".to_owned();
                }
                self.set_stage(Stage::Rejected {
                    reason,
                    retry_at: retry.map(|retry| Instant::now() + retry),
                });
                if failure.class == FailureClass::Content {
                    self.refuse_modules(failure).await;
                }
            }
        }
        self.rest_phase();
    }

    /// Applying needs a durable INTENT: without one nothing is tried.
    fn refuse_unpersisted(&mut self, error: &str) {
        let Some(desired) = &mut self.desired else { return };
        desired.attempts += 1;
        let retry = retry_after(desired.attempts).max(super::PERSIST_RETRY);
        let until = self.clock.now().plus(retry);
        let reason = Reason {
            stage: "persist".to_owned(),
            kind: "persist_failed".to_owned(),
            message: format!(
                "the state directory cannot be written ({error}); nothing new is applied, what runs goes on"
            ),
            file: None,
            line: None,
            until: Some(until),
        };
        desired.stage = Stage::Rejected { reason, retry_at: Some(Instant::now() + retry) };
        self.rest_phase();
        self.metrics.apply("rejected", "persist");
        self.emit_persist_failed(error);
    }

    /// Content that was refused before it was stored.
    pub(super) async fn note_rejection(
        &mut self,
        summary: &RevisionSummary,
        stage: &'static str,
        failure: &Failure,
    ) {
        let mut record = self.record_of(summary, Verdict::Rejected);
        record.stage = Some(stage.to_owned());
        record.note = Some(failure.message.clone());
        record.file.clone_from(&failure.file);
        record.line = failure.line;
        record.decided = Some(record.observed);
        self.disk(move |state| state.note(record)).await;
        self.metrics.apply("rejected", stage);
        self.emit(EventKind::Rejected, Some(summary), format!("{stage}: {failure}"));
        if self.watch.is_none() {
            self.phase = Phase::Rejected;
        }
    }
}

/// Back-off with equal jitter: half of it is fixed, half random.
fn retry_after(attempts: u32) -> Duration {
    let full = FIRST_RETRY.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_RETRY);
    full / 2 + full.mul_f64(rand::random::<f64>() / 2.0)
}
