//! The task that owns the life of a revision. It alone changes the control state; everything else
//! reads what it publishes. What it does about a change is spread by stage over the modules below.

mod apply;
mod blame;
mod boot;
mod command;
mod model;
mod modules;
mod observe;
mod publish;
mod secrets;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use invar_secrets::SecretStores;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use command::Command;
use model::{ColdStart, Desired, Pending, Preparing, Stage, Unsaved, Watch};
use modules::ModuleMemory;

use crate::event::EventLog;
use crate::feed::SnapshotFeed;
use crate::handle::RolloutOptions;
use crate::metrics::RolloutMetrics;
use crate::module::ModuleFeed;
use crate::pipeline::{Failure, Pipeline, PlanSummary};
use crate::probation::BaselineRecorder;
use crate::settings::{BootMode, RolloutSettings};
use crate::state::{Control, PanicNote, PersistError, StateDirectory, Step};
use crate::status::{AgentIdentity, Phase, Reason, RevisionSummary, Status};
use crate::time::{Clock, Timestamp};

/// A preparation that takes longer is dropped.
const PREPARE_DEADLINE: Duration = Duration::from_secs(60);
/// Time between two samples of the baseline.
const BASELINE_INTERVAL: Duration = Duration::from_secs(10);
/// Nothing is overdue for longer than this, whatever the clocks do.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
const PERSIST_RETRY: Duration = Duration::from_secs(5);

type StateHandle = Arc<Mutex<StateDirectory>>;

/// Everything the task owns.
struct Reconciler<P: Pipeline> {
    settings: RolloutSettings,
    boot: BootMode,
    history: usize,
    agent: AgentIdentity,
    memory_limit: Option<u64>,
    clock: Arc<dyn Clock>,
    pipeline: Arc<P>,
    feed: Arc<dyn SnapshotFeed>,
    modules: Arc<dyn ModuleFeed>,
    secrets: SecretStores,
    known_secrets: secrets::KnownSecrets,
    /// When secrets are looked at again, at the earliest.
    next_secrets: Instant,
    module_memory: ModuleMemory,
    state: StateHandle,
    memory_only: Option<String>,
    boot_id: String,
    panic_note: PanicNote,
    metrics: RolloutMetrics,
    events: EventLog,
    published: watch::Sender<Arc<Status>>,
    stop: CancellationToken,

    control: Control,
    unsaved: Option<Unsaved>,
    running: Option<RevisionSummary>,
    fallback: Option<RevisionSummary>,
    phase: Phase,
    pending: Option<Pending>,
    fingerprint: Option<Vec<observe::SourceFingerprint>>,
    /// Sources whose alarm was told.
    alarmed: BTreeSet<String>,
    desired: Option<Desired<P::Candidate>>,
    preparing: Option<Preparing<P>>,
    watch: Option<Watch>,
    baseline: BaselineRecorder,
    next_baseline: Instant,
    last_apply: Option<Instant>,
    plan: Option<PlanSummary>,
    degraded: Option<Reason>,
    /// The sources yield nothing that could be a candidate.
    fault: Option<Reason>,
    waiters: Vec<oneshot::Sender<Arc<Status>>>,
    cold_start: Option<ColdStart>,
}

/// Starts the task.
pub(crate) fn spawn<P: Pipeline>(
    options: RolloutOptions,
    pipeline: Arc<P>,
    feed: Arc<dyn SnapshotFeed>,
    metrics: RolloutMetrics,
    events: EventLog,
    requests: mpsc::Receiver<Command>,
    stop: CancellationToken,
) -> watch::Receiver<Arc<Status>> {
    let RolloutOptions {
        settings,
        boot,
        history,
        state,
        agent,
        memory_limit,
        clock,
        modules,
        secrets,
        metrics: _,
    } = options;
    let memory_only = state.memory_only().map(str::to_owned);
    let (published, status) =
        watch::channel(Arc::new(publish::initial_status(&agent, memory_only.is_none())));
    let reconciler = Reconciler {
        settings,
        boot,
        history,
        agent,
        memory_limit,
        clock,
        pipeline,
        feed,
        modules,
        secrets,
        known_secrets: secrets::KnownSecrets::new(),
        next_secrets: Instant::now(),
        module_memory: ModuleMemory::default(),
        boot_id: state.boot_id().to_owned(),
        panic_note: state.panic_note(),
        state: Arc::new(Mutex::new(state)),
        memory_only,
        metrics,
        events,
        published,
        stop,
        control: Control::default(),
        unsaved: None,
        running: None,
        fallback: None,
        phase: Phase::Waiting,
        pending: None,
        fingerprint: None,
        alarmed: BTreeSet::new(),
        desired: None,
        preparing: None,
        watch: None,
        baseline: BaselineRecorder::default(),
        next_baseline: Instant::now() + BASELINE_INTERVAL,
        last_apply: None,
        plan: None,
        degraded: None,
        fault: None,
        waiters: Vec::new(),
        cold_start: None,
    };
    // The handle's `shutdown` waits for the receiver of requests, which the task owns, to be gone.
    tokio::spawn(reconciler.run(requests));
    status
}

impl<P: Pipeline> Reconciler<P> {
    async fn run(mut self, mut requests: mpsc::Receiver<Command>) {
        let stop = self.stop.clone();
        let mut changes = self.feed.changes();
        let mut module_changes = self.modules.changes();
        let mut secret_changes = self.secrets.changes();
        self.start().await;
        self.observe();
        loop {
            self.advance().await;
            self.publish();
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(request) = requests.recv() => {
                    // What was found for whoever asks must be known before the answer.
                    self.observe();
                    self.command(request).await;
                }
                result = prepared(&mut self.preparing) => self.prepared(result).await,
                Ok(()) = changes.changed() => self.observe(),
                Ok(()) = module_changes.changed() => self.observe(),
                // Each look is at all of them, and they may change one after the other.
                Ok(()) = secret_changes.changed(), if self.next_secrets <= Instant::now() => self.tell_secrets(),
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        self.stop_cleanly().await;
        self.publish();
    }

    /// Everything whose time has come.
    async fn advance(&mut self) {
        self.expire().await;
        self.sample().await;
        self.compose_when_quiet().await;
        self.try_apply().await;
        self.start_fallback_when_cold().await;
        self.save_unsaved().await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs `work` on the state directory, off the runtime's own threads.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateDirectory) -> T + Send + 'static,
    ) -> Option<T> {
        let state = Arc::clone(&self.state);
        match tokio::task::spawn_blocking(move || work(&mut state.lock())).await {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(%error, "a write to the state directory was interrupted");
                None
            }
        }
    }

    /// Writes the control state as it is.
    async fn write_control(&mut self, step: Step) -> Result<(), String> {
        let control = self.control.clone();
        let written = self.disk(move |state| state.write_control(&control, step)).await;
        self.note_write(written)
    }

    /// Writes the control state to both heads.
    async fn write_verdict(&mut self, control: Control, step: Step) -> Result<(), String> {
        let written = self.disk(move |state| state.write_verdict(&control, step)).await;
        self.note_write(written)
    }

    fn note_write(&mut self, written: Option<Result<(), PersistError>>) -> Result<(), String> {
        match written {
            Some(Ok(())) => {
                self.unsaved = None;
                Ok(())
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the write was interrupted".to_owned()),
        }
    }

    /// The control state changed and what cannot be written now is written as soon as it can be.
    async fn save(&mut self, step: Step) {
        if let Err(error) = self.write_control(step).await {
            self.keep_unsaved(false, &error);
        }
    }

    fn keep_unsaved(&mut self, verdict: bool, error: &str) {
        let verdict = verdict || self.unsaved.as_ref().is_some_and(|unsaved| unsaved.verdict);
        let news = self.unsaved.is_none();
        self.unsaved =
            Some(Unsaved { verdict, error: error.to_owned(), retry_at: Instant::now() + PERSIST_RETRY });
        if news {
            self.emit_persist_failed(error);
        }
    }

    async fn save_unsaved(&mut self) {
        let Some(unsaved) = &self.unsaved else { return };
        if unsaved.retry_at > Instant::now() {
            return;
        }
        let control = self.control.clone();
        let saved = if unsaved.verdict {
            self.write_verdict(control, Step::RolledBack).await
        } else {
            self.write_control(Step::Control).await
        };
        if let Err(error) = saved {
            self.keep_unsaved(false, &error);
        }
    }

    /// The next moment at which something is due by itself.
    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let wall = self.now();
        let mut next = now + LONGEST_SLEEP;
        let mut consider = |at: Option<Instant>| next = at.map_or(next, |at| next.min(at));
        consider(self.pending.as_ref().map(|pending| pending.due(&self.settings.quiesce)));
        consider(self.watch.as_ref().and_then(Watch::next));
        consider(self.watch.is_none().then_some(self.next_baseline));
        consider(self.unsaved.as_ref().map(|unsaved| unsaved.retry_at));
        consider(self.cold_start.as_ref().map(|cold| cold.due));
        consider((self.next_secrets > now).then_some(self.next_secrets));
        match self.desired.as_ref().map(|desired| &desired.stage) {
            Some(Stage::Rejected { retry_at, .. }) => consider(*retry_at),
            Some(Stage::Ready) => {
                consider(self.last_apply.map(|last| last + self.settings.min_gap).filter(|at| *at > now));
            }
            _ => {}
        }
        let ends = [self.control.hold.as_ref().and_then(|hold| hold.until), self.control.breaker.open_until]
            .into_iter()
            .chain(self.control.quarantine.iter().map(|entry| entry.until));
        for end in ends.flatten() {
            consider(now.checked_add(end.since(wall)));
        }
        // Something overdue that could not be done now must not turn the loop into a spin.
        next.max(now + Duration::from_millis(5))
    }

    /// The process is to end: that says nothing about a candidate in probation.
    async fn stop_cleanly(&mut self) {
        let mut changed = false;
        if self.preparing.take().is_some() {
            changed |= self.control.intent.take().is_some();
        }
        if self.watch.is_some()
            && let Some(mark) = &mut self.control.probation
        {
            mark.clean = true;
            changed = true;
        }
        if (changed || self.unsaved.is_some())
            && let Err(error) = self.write_control(Step::Clean).await
        {
            tracing::error!(%error, "the clean stop could not be recorded");
        }
    }
}

/// Completes when the preparation under way, if there is one, does.
async fn prepared<P: Pipeline>(preparing: &mut Option<Preparing<P>>) -> Result<P::Prepared, Failure> {
    match preparing {
        Some(preparing) => preparing.future.get_mut().as_mut().await,
        None => std::future::pending().await,
    }
}
