//! From sources to a candidate: notice changes, wait for quiet, compose, validate, plan.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::model::{Desired, Pending, Stage};
use super::{Reconciler, publish};
use crate::compose::{Composed, Composition, compose};
use crate::event::EventKind;
use crate::feed::SourceView;
use crate::pipeline::{Failure, FailureClass, Parsed, Pipeline, PlanSummary};
use crate::record::Verdict;
use crate::status::{Phase, RevisionSummary};

/// Checks that take longer are given up.
const CHECK_DEADLINE: Duration = Duration::from_secs(20);

/// What of a source decides whether something has to be composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceFingerprint {
    name: String,
    atomic: bool,
    content: Option<(String, String)>,
}

impl SourceFingerprint {
    fn of(source: &SourceView) -> Self {
        Self {
            name: source.state.name.clone(),
            atomic: source.atomic,
            content: source
                .content
                .as_ref()
                .map(|content| (content.origin.revision.clone(), content.origin.digest.clone())),
        }
    }
}

/// A candidate that passed every static check.
struct Checked<C> {
    parsed: Parsed<C>,
    plan: PlanSummary,
}

impl<P: Pipeline> Reconciler<P> {
    /// Notes whether the sources have something that was not composed yet.
    pub(super) fn observe(&mut self) {
        let sources = self.feed.sources();
        let now: Vec<_> = sources.iter().map(SourceFingerprint::of).collect();
        if self.fingerprint.as_ref() == Some(&now) {
            return;
        }
        let before = self.fingerprint.replace(now);
        let now = self.fingerprint.as_deref().unwrap_or_default();
        let changed: Vec<_> = match &before {
            Some(before) => now.iter().filter(|source| !before.contains(source)).collect(),
            None => now.iter().filter(|source| source.content.is_some()).collect(),
        };
        if changed.is_empty() {
            return;
        }
        // One commit is whole. And where nothing runs yet and no other source can follow, waiting for quiet would only
        // leave it so for longer.
        let first = self.desired.is_none() && self.running.is_none() && sources.len() == 1;
        let at_once = (changed.len() == 1 && changed[0].atomic) || first;
        let names = changed.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
        let moment = Instant::now();
        match &mut self.pending {
            Some(pending) => {
                pending.last = moment;
                pending.at_once = first;
            }
            None => self.pending = Some(Pending { first: moment, last: moment, at_once }),
        }
        if self.watch.is_none() && self.preparing.is_none() {
            self.phase = Phase::Observed;
        }
        self.emit(EventKind::Observed, None, format!("changed: {names}"));
    }

    /// Composes once the sources have been quiet for long enough.
    pub(super) async fn compose_when_quiet(&mut self) {
        let due = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.due(&self.settings.quiesce) <= Instant::now());
        if !due {
            return;
        }
        self.pending = None;
        match compose(&self.feed.sources()) {
            Composed::Candidate(composition) => self.consider(composition).await,
            Composed::Missing(names) => {
                self.rest_phase();
                tracing::info!(missing = %names.join(", "), "waiting for required sources");
            }
            Composed::Empty => {
                // An empty repository is far more often a wrong path than a wish to run nothing.
                self.rest_phase();
                let failure = Failure::content("no source has a file that ends in .alloy; what runs stays");
                self.emit(EventKind::Rejected, None, format!("compose: {failure}"));
                self.metrics.apply("rejected", "compose");
                self.fault = Some(publish::rejection("compose", &failure, None));
            }
        }
    }

    /// A composition: is it new, is it sound, and what would it change?
    async fn consider(&mut self, composition: Composition) {
        self.fault = None;
        let content = composition.content_digest();
        let lead = composition.lead().cloned();
        let mut summary = RevisionSummary {
            generation: None,
            revision: composition.revision(),
            digest: content.0.clone(),
            since: self.now(),
            author: lead.as_ref().and_then(|origin| origin.author.clone()),
            subject: lead.as_ref().and_then(|origin| origin.subject.clone()),
            signer: lead.as_ref().and_then(|origin| origin.signer.clone()),
        };
        if let Some(desired) = &mut self.desired
            && desired.content == content
        {
            // The same bytes under another revision: what was decided about them holds.
            summary.digest.clone_from(&desired.summary.digest);
            summary.generation = desired.summary.generation;
            desired.summary = summary;
            desired.composition = Arc::new(composition);
            self.revision_advanced().await;
            return;
        }
        let composition = Arc::new(composition);
        self.emit(EventKind::Composed, Some(&summary), format!("{} files", composition.files.len()));
        let checked = self.check(&composition).await;
        let (candidate, stage) = match checked {
            Ok(Checked { parsed, plan }) => {
                summary.digest = parsed.digest;
                self.emit(EventKind::Validated, Some(&summary), "passed every static check".to_owned());
                self.emit(EventKind::Planned, Some(&summary), publish::plan_sentence(&plan));
                self.plan = Some(plan);
                (Some(parsed.candidate), Stage::Ready)
            }
            Err((stage, failure)) => {
                let reason = publish::rejection(stage, &failure, None);
                self.note_rejection(&summary, stage, &failure).await;
                let retry_at = (failure.class == FailureClass::Environment)
                    .then(|| Instant::now() + Duration::from_secs(60));
                (None, Stage::Rejected { reason, retry_at })
            }
        };
        self.cancel_preparation("a newer revision takes its place").await;
        let known_bad = self.control.note_carrier(&summary.digest, &summary.revision);
        self.desired = Some(Desired { composition, content, candidate, summary, stage, attempts: 0 });
        if known_bad {
            self.save(crate::state::Step::Control).await;
        }
        self.revision_advanced().await;
    }

    /// Parses, checks and plans, off the runtime's threads: a panic in there is a fault of the candidate.
    async fn check(
        &self,
        composition: &Arc<Composition>,
    ) -> Result<Checked<P::Candidate>, (&'static str, Failure)> {
        let pipeline = Arc::clone(&self.pipeline);
        let composition = Arc::clone(composition);
        let work = tokio::task::spawn_blocking(move || {
            let parsed = pipeline.parse(&composition).map_err(|failure| ("validate", failure))?;
            pipeline.check(&parsed.candidate).map_err(|failure| ("validate", failure))?;
            let plan = pipeline.plan(&parsed.candidate).map_err(|failure| ("plan", failure))?;
            Ok(Checked { parsed, plan })
        });
        let checked = match tokio::time::timeout(CHECK_DEADLINE, work).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err((
                "validate",
                Failure::content("checking this configuration panicked; this is a bug, please report it"),
            )),
            Err(_) => Err((
                "validate",
                Failure::content(format!("checking took longer than {} s", CHECK_DEADLINE.as_secs())),
            )),
        };
        // The panic was caught: it must not be taken for the end of the process.
        self.panic_note.survived();
        checked
    }

    /// Parses, checks and plans the desired revision again.
    pub(super) async fn check_again(&mut self) {
        let Some(desired) = &self.desired else { return };
        let composition = Arc::clone(&desired.composition);
        let checked = self.check(&composition).await;
        let Some(desired) = &mut self.desired else { return };
        match checked {
            Ok(Checked { parsed, plan }) => {
                desired.summary.digest = parsed.digest;
                desired.candidate = Some(parsed.candidate);
                desired.stage = Stage::Ready;
                self.plan = Some(plan);
            }
            Err((stage, failure)) => {
                let retry_at = (failure.class == FailureClass::Environment)
                    .then(|| Instant::now() + Duration::from_secs(60));
                desired.stage =
                    Stage::Rejected { reason: publish::rejection(stage, &failure, None), retry_at };
            }
        }
    }

    /// The desired revision may be what runs already.
    pub(super) async fn revision_advanced(&mut self) {
        let Some(desired) = &mut self.desired else { return };
        let Some(running) = &mut self.running else { return };
        if desired.summary.digest != running.digest
            || matches!(desired.stage, Stage::Rejected { .. } | Stage::Preparing)
        {
            return;
        }
        desired.stage = Stage::Applied;
        desired.summary.generation = running.generation;
        if desired.summary.revision == running.revision {
            self.rest_phase();
            return;
        }
        running.revision.clone_from(&desired.summary.revision);
        running.author.clone_from(&desired.summary.author);
        running.subject.clone_from(&desired.summary.subject);
        running.signer.clone_from(&desired.summary.signer);
        let summary = running.clone();
        for pointer in [&mut self.control.running, &mut self.control.last_known_good].into_iter().flatten() {
            if pointer.digest == summary.digest {
                pointer.revision.clone_from(&summary.revision);
                pointer.author.clone_from(&summary.author);
                pointer.subject.clone_from(&summary.subject);
                pointer.signer.clone_from(&summary.signer);
            }
        }
        let record = self.record_of(&summary, Verdict::NoEffectiveChange);
        self.disk(move |state| state.note(record)).await;
        self.save(crate::state::Step::Control).await;
        self.metrics.apply("no_effective_change", "compose");
        self.emit(
            EventKind::NoEffectiveChange,
            Some(&summary),
            "the content means what runs already".to_owned(),
        );
        self.rest_phase();
    }

    /// The phase when nothing is under way.
    pub(super) fn rest_phase(&mut self) {
        self.phase = match (&self.preparing, &self.watch, self.desired.as_ref().map(|desired| &desired.stage))
        {
            (Some(_), _, _) => Phase::Prepared,
            (_, Some(_), _) => Phase::Probation,
            (_, _, Some(Stage::Rejected { .. })) => Phase::Rejected,
            (_, _, Some(Stage::Stopped(_))) => Phase::Held,
            (_, _, Some(Stage::Ready | Stage::Preparing)) => Phase::Planned,
            (_, _, Some(Stage::Applied)) => Phase::Committed,
            (_, _, None) if self.control.last_known_good.is_some() => Phase::Committed,
            (_, _, None) => Phase::Waiting,
        };
    }
}
