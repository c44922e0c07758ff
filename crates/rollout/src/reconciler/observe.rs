//! From sources to a candidate: notice changes, wait for quiet, compose, validate, plan.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::modules::ImportRequest;
use tokio::time::Instant;

use super::model::{Desired, Pending, Stage};
use super::modules::{HeldBack, KeepBack};
use super::{Reconciler, blame, publish};
use crate::compose::{Composed, Composition, ContentDigest, compose};
use crate::event::EventKind;
use crate::feed::SourceView;
use crate::pipeline::{Failure, FailureClass, Parsed, Pipeline, PlanSummary};
use crate::record::Verdict;
use crate::status::{Phase, RevisionSummary};

/// Checks that take longer are given up.
pub(super) const CHECK_DEADLINE: Duration = Duration::from_secs(20);

/// What tells whether a composition was looked at already: its content, and what of the newest was not put into it.
fn identity(composition: &Composition, held_back: &[HeldBack]) -> ContentDigest {
    let content = composition.content_digest();
    if held_back.is_empty() {
        return content;
    }
    let wanted = blame::wanted(composition, held_back);
    let revisions: Vec<&str> = wanted.modules.iter().map(|module| module.revision.as_str()).collect();
    ContentDigest(format!("{} but for {}", content.0, revisions.join(" ")))
}

/// A panic while a configuration was looked at.
pub(super) fn panicked() -> Failure {
    Failure::content("checking this configuration panicked; this is a bug, please report it")
}

/// A configuration that cannot be looked at in any reasonable time.
pub(super) fn took_too_long() -> Failure {
    Failure::content(format!("checking took longer than {} s", CHECK_DEADLINE.as_secs()))
}

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
        let moved = self.moved_modules();
        let sources = self.feed.sources();
        self.tell_alarms(&sources);
        let now: Vec<_> = sources.iter().map(SourceFingerprint::of).collect();
        if self.fingerprint.as_ref() == Some(&now) && moved.is_empty() {
            return;
        }
        let before = self.fingerprint.replace(now);
        let now = self.fingerprint.as_deref().unwrap_or_default();
        let changed: Vec<_> = match &before {
            Some(before) => now.iter().filter(|source| !before.contains(source)).collect(),
            None => now.iter().filter(|source| source.content.is_some()).collect(),
        };
        let mut changes: Vec<(&str, bool)> =
            changed.iter().map(|source| (source.name.as_str(), source.atomic)).collect();
        changes.extend(moved.iter().map(|module| (module.state.name.as_str(), module.atomic)));
        if changes.is_empty() {
            return;
        }
        // One commit is whole. And where nothing runs yet and no other source can follow, waiting for quiet would only
        // leave it so for longer; likewise where a module is all that is waited for.
        let first = (self.desired.is_none() && self.running.is_none() && sources.len() == 1)
            || (self.waits_for_modules() && changed.is_empty());
        let at_once = matches!(changes.as_slice(), [(_, true)]) || first;
        let names = changes.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
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

    /// Tells of each alarm of a source once.
    fn tell_alarms(&mut self, sources: &[SourceView]) {
        for source in sources {
            let state = &source.state;
            match (&state.error, state.alarm) {
                (Some(error), true) if self.alarmed.insert(state.name.clone()) => {
                    let kind = match error.class.as_str() {
                        "not_found" => EventKind::SourceMissing,
                        _ => EventKind::Security,
                    };
                    self.emit(kind, None, format!("source {}: {}", state.name, error.message));
                }
                (_, true) => {}
                (_, false) => {
                    self.alarmed.remove(&state.name);
                }
            }
        }
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
    async fn consider(&mut self, roots: Composition) {
        self.fault = None;
        let stock = self.stock().await;
        let assembled = self.assemble(roots.clone(), &stock, &KeepBack::new()).await;
        let content = identity(&assembled.composition, &assembled.held_back);
        let wanted = self.summary_of(&assembled.composition, &content);
        if self.desired.as_ref().is_some_and(|desired| desired.content == content)
            && assembled.lacking.is_empty()
        {
            // The same bytes under another revision: what was decided about them holds.
            self.advance_desired(assembled.composition);
            self.revision_advanced().await;
            return;
        }
        self.cancel_preparation("a newer revision takes its place").await;
        if let Some((request, failure)) = assembled.lacking.first() {
            return self
                .lack(assembled.composition, content, wanted, request, failure, assembled.pending)
                .await;
        }
        let composition = Arc::new(assembled.composition);
        let modules = match composition.modules.len() {
            0 => String::new(),
            modules => format!(" and {modules} modules"),
        };
        self.emit(EventKind::Composed, Some(&wanted), format!("{} files{modules}", composition.files.len()));
        let mut held_back = assembled.held_back;
        let mut applied = Arc::clone(&composition);
        let mut checked = match assembled.parsed {
            Ok(parsed) => self.check(&composition, parsed).await,
            Err(failure) => Err(("validate", failure)),
        };
        if let Err((stage, failure)) = &checked
            && failure.class == FailureClass::Content
        {
            let (stage, failure) = (*stage, failure.clone());
            for suspects in self.suspects(&composition, &failure, &stock) {
                let keep_back = suspects.into_iter().map(|key| (key, failure.clone())).collect();
                let without = self.assemble(roots.clone(), &stock, &keep_back).await;
                let Ok(parsed) = without.parsed else { continue };
                if without.held_back.is_empty() || !without.lacking.is_empty() {
                    continue;
                }
                let again = Arc::new(without.composition);
                if let Ok(sound) = self.check(&again, parsed).await {
                    self.note_rejection(&wanted, stage, &failure).await;
                    (checked, applied, held_back) = (Ok(sound), again, without.held_back);
                    break;
                }
            }
        }
        let mut summary = self.summary_of(&applied, &applied.content_digest());
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
        let known_bad = self.control.note_carrier(&summary.digest, &summary.revision);
        let before = self.desired.take().map(|desired| desired.held_back).unwrap_or_default();
        self.tell_held_back(&held_back, &before);
        let wanted =
            (!held_back.is_empty()).then(|| self.summary_of(&blame::wanted(&applied, &held_back), &content));
        self.desired = Some(Desired {
            composition: applied,
            content,
            held_back,
            wanted,
            candidate,
            summary,
            stage,
            attempts: 0,
        });
        if known_bad {
            self.save(crate::state::Step::Control).await;
        }
        self.revision_advanced().await;
    }

    /// A module has no content, not even an old one.
    async fn lack(
        &mut self,
        composition: Composition,
        content: ContentDigest,
        summary: RevisionSummary,
        request: &ImportRequest,
        failure: &Failure,
        pending: bool,
    ) {
        tracing::debug!(module = %request.namespace, at = %request.location(), "no content");
        let mut reason = publish::rejection("fetch", failure, None);
        let stage = if pending {
            reason.kind = "waiting".to_owned();
            Stage::Waiting(reason)
        } else {
            let told = self.desired.as_ref().is_some_and(|desired| {
                matches!(&desired.stage, Stage::Rejected { reason: before, .. } if *before == reason)
            });
            if !told {
                self.note_rejection(&summary, "fetch", failure).await;
            }
            // Whatever makes it available is seen; what is in the tree of a source is only looked for again.
            let retry_at = (failure.class == FailureClass::Environment)
                .then(|| Instant::now() + Duration::from_secs(60));
            Stage::Rejected { reason, retry_at }
        };
        self.desired = Some(Desired {
            composition: Arc::new(composition),
            content,
            held_back: Vec::new(),
            wanted: None,
            candidate: None,
            summary,
            stage,
            attempts: 0,
        });
        self.rest_phase();
    }

    /// The desired revision is another one of the same content.
    fn advance_desired(&mut self, composition: Composition) {
        let Some(desired) = &self.desired else { return };
        let applied = if desired.held_back.is_empty() {
            composition
        } else {
            // What is held back still is.
            Composition { origins: composition.origins, ..Composition::clone(&desired.composition) }
        };
        let mut summary = self.summary_of(&applied, &desired.content);
        summary.digest.clone_from(&desired.summary.digest);
        summary.generation = desired.summary.generation;
        let wanted = desired
            .wanted
            .as_ref()
            .map(|_| self.summary_of(&blame::wanted(&applied, &desired.held_back), &desired.content));
        let Some(desired) = &mut self.desired else { return };
        (desired.summary, desired.wanted, desired.composition) = (summary, wanted, Arc::new(applied));
    }

    fn summary_of(&self, composition: &Composition, content: &ContentDigest) -> RevisionSummary {
        let lead = composition.lead();
        RevisionSummary {
            generation: None,
            revision: composition.revision(),
            digest: content.0.split(' ').next().unwrap_or_default().to_owned(),
            since: self.now(),
            author: lead.as_ref().and_then(|origin| origin.author.clone()),
            subject: lead.as_ref().and_then(|origin| origin.subject.clone()),
            signer: lead.as_ref().and_then(|origin| origin.signer.clone()),
        }
    }

    /// Checks and plans, off the runtime's threads and less urgently than data: a panic in there is a fault of the candidate.
    async fn check(
        &self,
        composition: &Arc<Composition>,
        parsed: Parsed<P::Candidate>,
    ) -> Result<Checked<P::Candidate>, (&'static str, Failure)> {
        tracing::trace!(revision = %composition.revision(), "checking");
        if let Some((_, failure)) = parsed.faults.first() {
            return Err(("validate", failure.clone()));
        }
        let pipeline = Arc::clone(&self.pipeline);
        let work = invar_engine::compute_aside(move || {
            pipeline.check(&parsed.candidate).map_err(|failure| ("validate", failure))?;
            let plan = pipeline.plan(&parsed.candidate).map_err(|failure| ("plan", failure))?;
            Ok(Checked { parsed, plan })
        });
        let checked = match tokio::time::timeout(CHECK_DEADLINE, work).await {
            Ok(Ok(checked)) => checked,
            Ok(Err(_)) => Err(("validate", panicked())),
            Err(_) => Err(("validate", took_too_long())),
        };
        // The panic was caught: it must not be taken for the end of the process.
        self.panic_note.survived();
        checked
    }

    /// The desired revision may be what runs already.
    pub(super) async fn revision_advanced(&mut self) {
        let Some(desired) = &mut self.desired else { return };
        let Some(running) = &mut self.running else { return };
        if desired.summary.digest != running.digest
            || matches!(desired.stage, Stage::Rejected { .. } | Stage::Waiting(_) | Stage::Preparing)
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
            (_, _, Some(Stage::Waiting(_))) => Phase::Fetched,
            (_, _, Some(Stage::Stopped(_))) => Phase::Held,
            (_, _, Some(Stage::Ready | Stage::Preparing)) => Phase::Planned,
            (_, _, Some(Stage::Applied)) => Phase::Committed,
            (_, _, None) if self.control.last_known_good.is_some() => Phase::Committed,
            (_, _, None) => Phase::Waiting,
        };
    }
}
