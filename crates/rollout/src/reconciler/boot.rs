//! The start: what the disk says, decided by `recover`, made to run; and the local fallback.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::model::{ColdStart, Desired, Stage};
use super::modules::KeepBack;
use super::{PREPARE_DEADLINE, Reconciler};
use crate::compose::{ComposedFile, Composition, VariableLayers};
use crate::event::EventKind;
use crate::feed::Origin;
use crate::pipeline::{Failure, Mode, Parsed, Pipeline};
use crate::probation::RuleSet;
use crate::record::Verdict;
use crate::recover::{BootDecision, BootFacts, Run, recover};
use crate::settings::BootMode;
use crate::state::{Control, Pointer, Recovered, Step};
use crate::status::{Phase, Reason, RevisionSummary};

/// How long a start waits for the sources before it runs the fallback.
const COLD_WAIT: Duration = Duration::from_secs(60);
/// How long `remote-first` waits for the sources.
const REMOTE_WAIT: Duration = Duration::from_secs(30);
/// Committed revisions that are tried when last known good cannot be read.
const OLDER: usize = 3;
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);
/// Largest fallback file.
const FALLBACK_LIMIT: u64 = 8 * 1024 * 1024;

impl<P: Pipeline> Reconciler<P> {
    /// Decides what to run and makes it run.
    pub(super) async fn start(&mut self) {
        let recovered = self.disk(|state| state.take_recovered()).await.unwrap_or_default();
        for remark in &recovered.remarks {
            self.emit(EventKind::Booted, None, remark.clone());
        }
        let mut control = self.control_from(&recovered).await;
        let decision = recover(
            &mut control,
            &BootFacts {
                now: self.now(),
                boot_id: &self.boot_id,
                panic_note: recovered.panic_note.as_deref(),
                agent_version: &self.agent.version,
                has_fallback: self.settings.fallback.is_some(),
            },
        );
        self.control = control;
        let undone: Vec<Pointer> = decision.undone.iter().map(|(pointer, _)| pointer.clone()).collect();
        self.blame_modules(&undone).await;
        self.save(Step::Boot).await;
        self.settle_records(&decision).await;
        for remark in &decision.remarks {
            self.emit(EventKind::Booted, None, remark.clone());
        }
        self.publish();
        match decision.run {
            Run::LastKnownGood => {
                self.wait_for_remote().await;
                self.run_last_known_good().await;
            }
            Run::Resume(candidate) => self.resume(&candidate).await,
            Run::StartAgain { candidate, after } => {
                let stop = self.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(after) => {}
                }
                self.resume(&candidate).await;
            }
            Run::Fallback => self.run_fallback().await,
            Run::Nothing => {}
        }
        if self.running.is_none() {
            let due = Instant::now() + COLD_WAIT;
            self.cold_start.get_or_insert(ColdStart { due, failures: 0 });
        }
        self.pipeline.set_last_generation(self.control.last_generation);
        // The process lives and its pipeline is up, or there is none to bring up.
        self.control.starts.clear();
        self.save(Step::Up).await;
        if self.watch.is_none() {
            self.rest_phase();
        }
    }

    /// The control state to start from; from the manifests where both heads are gone.
    async fn control_from(&self, recovered: &Recovered) -> Control {
        if let Some(control) = &recovered.control {
            return control.clone();
        }
        let lost = recovered.corrupt;
        let now = self.now();
        let rebuilt = self.disk(move |state| {
            let mut control = Control {
                last_generation: state
                    .history()
                    .iter()
                    .filter_map(|record| record.generation)
                    .max()
                    .unwrap_or(0),
                ..Control::default()
            };
            let committed: Vec<_> = state.committed().into_iter().cloned().collect();
            let good = committed.into_iter().find(|stored| state.load(&stored.manifest_digest).is_ok());
            control.last_known_good = good.map(|stored| Pointer {
                generation: stored.record.generation.unwrap_or_default(),
                sequence: stored.record.sequence,
                manifest: stored.manifest_digest,
                digest: stored.record.digest,
                revision: stored.record.revision,
                since: stored.record.decided.unwrap_or(now),
                author: stored.record.author,
                subject: stored.record.subject,
                signer: stored.record.signer,
            });
            control.running.clone_from(&control.last_known_good);
            control
        });
        let control = rebuilt.await.unwrap_or_default();
        if lost {
            self.emit(
                EventKind::Booted,
                None,
                "both heads are damaged; started from the newest committed manifest".to_owned(),
            );
        }
        control
    }

    /// Verdicts that the last process could not write into its records.
    async fn settle_records(&mut self, decision: &BootDecision) {
        for (pointer, reason) in &decision.undone {
            self.metrics.apply("rolled_back", "process");
            self.metrics.rollback("process");
            self.emit(EventKind::RolledBack, Some(&pointer.summary()), reason.clone());
            self.decide_record(pointer.sequence, Verdict::RolledBack, Some(reason.clone()), Some("process"))
                .await;
        }
        let good = self.control.last_known_good.as_ref().map(|good| good.sequence);
        let open = self.control.probation.as_ref().map(|mark| mark.candidate.sequence);
        let pending: Vec<u64> = self
            .disk(|state| {
                state
                    .history()
                    .iter()
                    .filter(|record| record.verdict == Verdict::Pending)
                    .map(|record| record.sequence)
                    .collect()
            })
            .await
            .unwrap_or_default();
        for sequence in pending {
            if Some(sequence) == good {
                self.decide_record(sequence, Verdict::Committed, None, None).await;
            } else if Some(sequence) != open {
                let note = "the process ended before this ran".to_owned();
                self.decide_record(sequence, Verdict::Rejected, Some(note), Some("prepare")).await;
            }
        }
    }

    /// `boot = "remote-first"`: what the sources have now is swapped in right after last known good.
    async fn wait_for_remote(&mut self) {
        if self.boot != BootMode::RemoteFirst || self.control.last_known_good.is_none() {
            return;
        }
        let mut changes = self.feed.changes();
        let deadline = Instant::now() + REMOTE_WAIT;
        let stop = self.stop.clone();
        loop {
            let sources = self.feed.sources();
            if !sources.is_empty()
                && sources.iter().all(|source| source.content.is_some() || !source.required)
            {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Last known good, else the next older committed revision that can be read, else the fallback.
    pub(super) async fn run_last_known_good(&mut self) {
        let Some(good) = self.control.last_known_good.clone() else { return };
        let mut tried = Vec::new();
        let older = self.older_than(&good).await;
        for pointer in std::iter::once(good.clone()).chain(older) {
            match self.run_from_disk(&pointer).await {
                Ok(()) => {
                    if pointer.manifest != good.manifest {
                        let message = format!(
                            "{} cannot run ({}); {} runs instead",
                            good.revision,
                            tried.join("; "),
                            pointer.revision
                        );
                        self.emit(EventKind::Degraded, None, message);
                    }
                    return;
                }
                Err(failure) => tried.push(failure.to_string()),
            }
        }
        self.degrade("boot", format!("no committed revision can run: {}", tried.join("; ")));
        self.run_fallback().await;
    }

    async fn older_than(&self, good: &Pointer) -> Vec<Pointer> {
        let good = good.clone();
        let found = self.disk(move |state| {
            let mut seen = vec![good.manifest.clone()];
            let mut older = Vec::new();
            for stored in state.committed() {
                if older.len() == OLDER || seen.contains(&stored.manifest_digest) {
                    continue;
                }
                seen.push(stored.manifest_digest.clone());
                older.push(Pointer {
                    generation: stored.record.generation.unwrap_or_default(),
                    sequence: stored.record.sequence,
                    manifest: stored.manifest_digest.clone(),
                    digest: stored.record.digest.clone(),
                    revision: stored.record.revision.clone(),
                    author: stored.record.author.clone(),
                    subject: stored.record.subject.clone(),
                    signer: stored.record.signer.clone(),
                    ..good.clone()
                });
            }
            older
        });
        found.await.unwrap_or_default()
    }

    /// Runs a committed revision from disk: it is judged already, so that what cannot start only shows unhealthy.
    async fn run_from_disk(&mut self, pointer: &Pointer) -> Result<(), Failure> {
        let parsed = self.parsed_from_disk(pointer).await?;
        let prepared = self.prepare_now(parsed.candidate, Mode::BestEffort).await?;
        // The same generation goes on; a number that a lost candidate had used is not used again.
        self.continue_from(pointer.generation);
        let generation = self.cut_now(prepared).await?;
        let mut running = Pointer { digest: parsed.digest, ..pointer.clone() };
        if generation != pointer.generation {
            running = Pointer { generation, since: self.now(), ..running };
        }
        self.control.last_generation = self.control.last_generation.max(generation);
        self.control.running = Some(running.clone());
        self.control.last_known_good = Some(running.clone());
        self.running = Some(running.summary());
        self.degraded = None;
        self.pipeline.commit().await;
        self.emit(EventKind::Booted, self.running.as_ref(), "runs from disk".to_owned());
        if running.generation != pointer.generation {
            let mut record = self.record_of(&running.summary(), Verdict::Committed);
            record.generation = Some(generation);
            record.swapped = Some(running.since);
            record.decided = Some(running.since);
            record.note = Some("after a restart".to_owned());
            self.disk(move |state| state.add_generation(&running.manifest, record)).await;
        }
        Ok(())
    }

    /// Makes the first cut take up `generation` where that is the last number used, else the next free one.
    fn continue_from(&self, generation: u64) {
        let last = self.control.last_generation;
        self.pipeline.set_last_generation(if generation == last { last.saturating_sub(1) } else { last });
    }

    async fn parsed_from_disk(&mut self, pointer: &Pointer) -> Result<Parsed<P::Candidate>, Failure> {
        let manifest = pointer.manifest.clone();
        let loaded = self.disk(move |state| state.load(&manifest)).await;
        let composition = match loaded {
            Some(Ok(composition)) => composition,
            Some(Err(error)) => return Err(Failure::environment(error.to_string())),
            None => return Err(Failure::environment("the read was interrupted")),
        };
        self.vouch(&composition).await?;
        let parsed = self.pipeline.parse(&composition)?;
        if let Some(request) = parsed.missing.first() {
            // What it imports is told by something else now: an environment variable, say.
            let message = format!("the module \"{}\" is not what it was stored with", request.namespace);
            return Err(Failure::environment(message));
        }
        self.follow_exactly(parsed.imports.clone());
        Ok(parsed)
    }

    /// What was stored under another policy of trust than there is now is verified anew, or may not run.
    pub(super) async fn vouch(&mut self, composition: &Composition) -> Result<(), Failure> {
        let feed = Arc::clone(&self.feed);
        for doubt in feed.vouch(&composition.origins).await? {
            self.emit(EventKind::Degraded, None, format!("{doubt}; it runs all the same"));
        }
        Ok(())
    }

    async fn prepare_now(&self, candidate: Arc<P::Candidate>, mode: Mode) -> Result<P::Prepared, Failure> {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => Err(Failure::environment("the agent is stopping")),
            prepared = tokio::time::timeout(PREPARE_DEADLINE, self.pipeline.prepare(candidate, mode)) => {
                prepared.unwrap_or_else(|_| {
                    Err(Failure::environment(format!("not prepared within {} s", PREPARE_DEADLINE.as_secs())))
                })
            }
        }
    }

    /// Cuts without a record of its own: what is cut here is on record already. Returns the generation.
    async fn cut_now(&self, prepared: P::Prepared) -> Result<u64, Failure> {
        let number: Arc<Mutex<u64>> = Arc::default();
        let slot = Arc::clone(&number);
        let hook = Box::new(move |generation| {
            *slot.lock() = generation;
            Ok(())
        });
        match self.pipeline.cut(prepared, hook).await {
            Ok(()) => Ok(*number.lock()),
            Err(error) => Err(Failure::environment(format!("not swapped in: {error:?}"))),
        }
    }

    /// A candidate whose probation was interrupted: last known good is kept ready, the candidate runs, for a new window.
    async fn resume(&mut self, candidate: &Pointer) {
        self.resume_desired(candidate).await;
        if let Some(good) = self.control.last_known_good.clone() {
            match self.retain_from_disk(&good).await {
                Ok(()) => {}
                Err(failure) => tracing::error!(%failure, "last known good cannot be kept ready"),
            }
        }
        let resumed = async {
            let parsed = self.parsed_from_disk(candidate).await?;
            let prepared = self.prepare_now(Arc::clone(&parsed.candidate), Mode::AllOrNothing).await?;
            self.continue_from(candidate.generation);
            let generation = self.cut_now(prepared).await?;
            Ok::<_, Failure>((generation, parsed.candidate))
        };
        match resumed.await {
            Ok((generation, parsed)) => {
                let running = Pointer { generation, ..candidate.clone() };
                self.control.last_generation = self.control.last_generation.max(generation);
                self.control.running = Some(running.clone());
                if let Some(mark) = &mut self.control.probation {
                    mark.candidate = running.clone();
                }
                self.running = Some(running.summary());
                if let Some(desired) = &mut self.desired {
                    desired.stage = Stage::Applied;
                    desired.candidate = Some(parsed);
                    desired.summary.generation = Some(generation);
                }
                self.emit(EventKind::Swapped, self.running.as_ref(), "its probation is resumed".to_owned());
                let rules = if self.control.last_known_good.is_some() {
                    RuleSet::HardAndSmallNumber
                } else {
                    RuleSet::Hard
                };
                self.begin_probation(rules, self.settings.probation.window).await;
            }
            Err(_) if self.stop.is_cancelled() => {}
            Err(failure) => {
                self.control.probation = None;
                self.control.running.clone_from(&self.control.last_known_good);
                self.emit(
                    EventKind::Rejected,
                    Some(&candidate.summary()),
                    format!("it cannot be resumed: {failure}"),
                );
                self.decide_record(
                    candidate.sequence,
                    Verdict::Rejected,
                    Some(failure.message.clone()),
                    Some("prepare"),
                )
                .await;
                let retry = Instant::now() + FIRST_RETRY;
                if let Some(desired) = &mut self.desired {
                    let reason = super::publish::rejection("prepare", &failure, None);
                    desired.stage = Stage::Rejected { reason, retry_at: Some(retry) };
                }
                self.run_last_known_good().await;
            }
        }
    }

    async fn retain_from_disk(&mut self, good: &Pointer) -> Result<(), Failure> {
        let parsed = self.parsed_from_disk(good).await?;
        let prepared = self.prepare_now(parsed.candidate, Mode::BestEffort).await?;
        self.pipeline.retain(prepared);
        Ok(())
    }

    /// Until a source answers, what was wanted last is what is wanted.
    async fn resume_desired(&mut self, candidate: &Pointer) {
        let manifest = candidate.manifest.clone();
        if let Some(Ok(composition)) = self.disk(move |state| state.load(&manifest)).await {
            self.desired = Some(Desired {
                content: composition.content_digest(),
                composition: Arc::new(composition),
                held_back: Vec::new(),
                wanted: None,
                candidate: None,
                summary: candidate.summary(),
                stage: Stage::Preparing,
                attempts: 0,
            });
        }
    }

    /// Nothing runs and the sources had their time: the local fallback, again and again, ever more slowly.
    pub(super) async fn start_fallback_when_cold(&mut self) {
        let due = self.cold_start.as_ref().is_some_and(|cold| cold.due <= Instant::now());
        if !due {
            return;
        }
        if self.running.is_some() || self.watch.is_some() || self.preparing.is_some() {
            self.cold_start = None;
            return;
        }
        if self.control.last_known_good.is_some() {
            self.run_last_known_good().await;
        } else {
            self.run_fallback().await;
        }
        if self.running.is_none() {
            let failures = self.cold_start.as_ref().map_or(0, |cold| cold.failures) + 1;
            let wait = FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(LONGEST_RETRY);
            self.cold_start = Some(ColdStart { due: Instant::now() + wait, failures });
        } else {
            self.cold_start = None;
        }
    }

    async fn run_fallback(&mut self) {
        let Some(path) = self.settings.fallback.clone() else {
            if self.control.last_known_good.is_none() {
                self.degrade(
                    "boot",
                    "nothing is known to be good, no source has answered and no `fallback` is set".to_owned(),
                );
            }
            return;
        };
        match self.fallback_from(&path).await {
            Ok(summary) => {
                self.running = Some(summary.clone());
                self.control.running = None;
                self.pipeline.commit().await;
                self.fallback = Some(summary.clone());
                self.degrade("boot", format!("the fallback {} runs", path.display()));
                self.emit(EventKind::Degraded, Some(&summary), "the local fallback runs".to_owned());
                self.save(Step::Control).await;
            }
            Err(failure) => {
                self.degrade("boot", format!("the fallback {} cannot run: {failure}", path.display()))
            }
        }
    }

    async fn fallback_from(&mut self, path: &std::path::Path) -> Result<RevisionSummary, Failure> {
        let name = path.display().to_string();
        let from = path.to_owned();
        let read = self.disk(move |_| {
            use std::io::Read;
            let mut bytes = Vec::new();
            std::fs::File::open(from)?.take(FALLBACK_LIMIT).read_to_end(&mut bytes).map(|_| bytes)
        });
        let content = match read.await {
            Some(Ok(bytes)) => bytes::Bytes::from(bytes),
            Some(Err(error)) => return Err(Failure::environment(error.to_string())),
            None => return Err(Failure::environment("the read was interrupted")),
        };
        let composition = Composition {
            origins: vec![Origin {
                source: "fallback".to_owned(),
                kind: "file".to_owned(),
                revision: format!("fallback:{name}"),
                digest: String::new(),
                author: None,
                subject: None,
                signer: None,
                trust: None,
                module_path: path.parent().map(|folder| folder.display().to_string()).unwrap_or_default(),
            }],
            files: vec![ComposedFile {
                name: name.clone(),
                source: "fallback".to_owned(),
                path: name,
                content,
            }],
            modules: Vec::new(),
            variables: VariableLayers::default(),
        };
        let stock = self.stock().await;
        let assembled = self.assemble(composition, &stock, &KeepBack::new()).await;
        let parsed = assembled.parsed?;
        if let Some((_, failure)) = assembled.lacking.into_iter().next() {
            return Err(failure);
        }
        let composition = assembled.composition;
        let prepared = self.prepare_now(parsed.candidate, Mode::BestEffort).await?;
        self.pipeline.set_last_generation(self.control.last_generation);
        let generation = self.cut_now(prepared).await?;
        self.control.last_generation = self.control.last_generation.max(generation);
        Ok(RevisionSummary {
            generation: Some(generation),
            revision: composition.revision(),
            digest: parsed.digest,
            since: self.now(),
            author: None,
            subject: None,
            signer: None,
        })
    }

    fn degrade(&mut self, stage: &str, message: String) {
        let reason = Reason {
            stage: stage.to_owned(),
            kind: "degraded".to_owned(),
            message,
            file: None,
            line: None,
            until: None,
        };
        if self.degraded.as_ref() != Some(&reason) {
            self.emit(EventKind::Degraded, None, reason.message.clone());
            self.degraded = Some(reason);
        }
    }

    /// A candidate was undone and there was nothing before it, or only the fallback.
    pub(super) fn nothing_to_return_to(&mut self) {
        if let Some(fallback) = self.fallback.clone() {
            self.running = Some(fallback);
            return;
        }
        self.phase = Phase::RolledBack;
        self.cold_start = Some(ColdStart { due: Instant::now(), failures: 0 });
    }
}
