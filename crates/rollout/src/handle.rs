//! The handle that the command line, the HTTP API and the console hold.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use invar_secrets::SecretStores;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventKind, EventLog, EventStream};
use crate::feed::SnapshotFeed;
use crate::metrics::RolloutMetrics;
use crate::module::{ModuleFeed, ModuleView, NoModules};
use crate::pipeline::{Pipeline, PlanSummary};
use crate::reconciler::{self, Command};
use crate::record::{QuarantineEntry, RevisionRecord};
use crate::settings::{BootMode, RolloutSettings};
use crate::source_detail::SourceDetail;
use crate::state::StateDirectory;
use crate::status::{AgentIdentity, Status};
use crate::time::{Clock, SystemClock, Timestamp};

/// Everything a rollout is started with, beside the pipeline and the sources.
#[derive(Debug)]
pub struct RolloutOptions {
    /// `[rollout]`.
    pub settings: RolloutSettings,
    /// `[state] boot`.
    pub boot: BootMode,
    /// `[state] history`: revisions that are kept.
    pub history: usize,
    /// The opened state directory.
    pub state: StateDirectory,
    /// Who this agent is.
    pub agent: AgentIdentity,
    /// `[limits] memory`, bytes: the limit of the memory rule where no cgroup gives one.
    pub memory_limit: Option<u64>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where modules come from that no source holds.
    pub modules: Arc<dyn ModuleFeed>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
    /// The secrets of whose standing the status tells.
    pub secrets: SecretStores,
}

impl RolloutOptions {
    /// Defaults around a state directory.
    #[must_use]
    pub fn new(state: StateDirectory) -> Self {
        Self {
            settings: RolloutSettings::default(),
            boot: BootMode::CacheFirst,
            history: 20,
            state,
            agent: AgentIdentity::default(),
            memory_limit: None,
            clock: Arc::new(SystemClock),
            modules: Arc::new(NoModules::default()),
            metrics: prometheus::Registry::new(),
            secrets: SecretStores::default(),
        }
    }
}

/// A request that the rollout refused or could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// The rollout has ended.
    #[error("the agent is shutting down")]
    Stopped,
    /// Nothing matches what was asked for.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for cannot be done now.
    #[error("{0}")]
    Refused(String),
    /// It took longer than the caller wanted to wait.
    #[error("timed out; the rollout goes on by itself")]
    TimedOut,
}

/// Handle on the running reconciler. Clones share it; dropping them does not stop it.
#[derive(Clone, Debug)]
pub struct Rollout {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    events: EventLog,
    stop: CancellationToken,
    feed: Arc<FeedHandle>,
    modules: Arc<dyn ModuleFeed>,
    clock: Arc<dyn Clock>,
    metrics: RolloutMetrics,
}

struct FeedHandle(Arc<dyn SnapshotFeed>);

impl std::fmt::Debug for FeedHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotFeed")
    }
}

impl Rollout {
    /// Reads the state directory, decides what to run and starts the reconciler on the current runtime.
    ///
    /// # Errors
    /// Metrics that are already registered.
    pub fn start<P: Pipeline>(
        options: RolloutOptions,
        pipeline: Arc<P>,
        feed: Arc<dyn SnapshotFeed>,
    ) -> Result<Self, prometheus::Error> {
        let metrics = RolloutMetrics::register(&options.metrics)?;
        let events = EventLog::new();
        let stop = CancellationToken::new();
        let modules = Arc::clone(&options.modules);
        let (clock, counted) = (Arc::clone(&options.clock), metrics.clone());
        let (commands, requests) = mpsc::channel(64);
        let status = reconciler::spawn(
            options,
            pipeline,
            Arc::clone(&feed),
            metrics,
            events.clone(),
            requests,
            stop.clone(),
        );
        let feed = Arc::new(FeedHandle(feed));
        Ok(Self { commands, status, events, stop, feed, modules, clock, metrics: counted })
    }

    /// What is so, now.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Follows the status.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Events after `after` that are still kept, then live ones.
    #[must_use]
    pub fn events(&self, after: Option<u64>) -> EventStream {
        self.events.subscribe(after)
    }

    /// The modules that are followed, as they are now.
    #[must_use]
    pub fn modules(&self) -> Vec<ModuleView> {
        self.modules.modules()
    }

    /// Everything that is known of a source, or of a module that is polled as one.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<SourceDetail> {
        let known = self.feed.0.detail(name);
        // The status says of modules what the sources do not know.
        known.or_else(|| {
            let status = self.status();
            let state = status.sources.iter().find(|state| state.name == name)?;
            Some(SourceDetail::of(state.clone()))
        })
    }

    /// The revisions that are remembered, newest first.
    ///
    /// # Errors
    /// [`RolloutError::Stopped`].
    pub async fn history(&self) -> Result<Vec<RevisionRecord>, RolloutError> {
        self.ask(Command::History).await
    }

    /// The plan of the newest candidate against what ran when it was made.
    ///
    /// # Errors
    /// [`RolloutError::Stopped`].
    pub async fn plan(&self) -> Result<Option<PlanSummary>, RolloutError> {
        self.ask(Command::Plan).await
    }

    /// What is quarantined.
    #[must_use]
    pub fn quarantine_list(&self) -> Vec<QuarantineEntry> {
        self.status().quarantined.clone()
    }

    /// Ends the quarantine of the content whose digest or revision starts with, or contains, `key`; it is tried once more.
    ///
    /// # Errors
    /// [`RolloutError::NotFound`] when nothing matches.
    pub async fn quarantine_retry(&self, key: &str) -> Result<Vec<QuarantineEntry>, RolloutError> {
        let key = key.to_owned();
        self.ask(|reply| Command::QuarantineRetry { key, reply }).await?
    }

    /// Forgets the quarantine and its strikes for `key`, or all for `None`.
    ///
    /// # Errors
    /// [`RolloutError::NotFound`] when nothing matches.
    pub async fn quarantine_clear(&self, key: Option<&str>) -> Result<Vec<QuarantineEntry>, RolloutError> {
        let key = key.map(str::to_owned);
        self.ask(|reply| Command::QuarantineClear { key, reply }).await?
    }

    /// Stops applying until `until`, or until lifted.
    ///
    /// # Errors
    /// [`RolloutError::Stopped`].
    pub async fn hold(&self, by: &str, reason: &str, until: Option<Timestamp>) -> Result<(), RolloutError> {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.ask(|reply| Command::Hold { by, reason, until, reply }).await
    }

    /// Lifts a hold. Returns whether there was one.
    ///
    /// # Errors
    /// [`RolloutError::Stopped`].
    pub async fn unhold(&self, by: &str) -> Result<bool, RolloutError> {
        let by = by.to_owned();
        self.ask(|reply| Command::Unhold { by, reply }).await
    }

    /// Goes to a committed generation (for `None`: undoes a probation, else the previous one) and holds it.
    /// Returns the new generation.
    ///
    /// # Errors
    /// [`RolloutError::NotFound`] when that generation is not kept, [`RolloutError::Refused`] when it cannot be prepared.
    pub async fn rollback(
        &self,
        generation: Option<u64>,
        by: &str,
        reason: &str,
    ) -> Result<u64, RolloutError> {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.ask(|reply| Command::Rollback { generation, by, reason, reply }).await?
    }

    /// Polls these sources and modules now (all for an empty list) and waits, at most `timeout`, until what they
    /// bring has come to rest: committed, rejected, rolled back, held or unchanged. `by` says who asks.
    ///
    /// # Errors
    /// [`RolloutError::TimedOut`], [`RolloutError::Stopped`].
    pub async fn reconcile(
        &self,
        names: &[String],
        by: &str,
        timeout: Duration,
    ) -> Result<Arc<Status>, RolloutError> {
        self.asked(names, by);
        let settled = async {
            self.poll_now(names).await?;
            self.ask(Command::Settle).await
        };
        tokio::time::timeout(timeout, settled).await.map_err(|_| RolloutError::TimedOut)?
    }

    /// Accepts a commit, by the beginning of its id, that sources have refused for how their branch moved, lets them look
    /// again, and waits, at most `timeout`, until what they bring has come to rest. `by` says who accepts.
    ///
    /// # Errors
    /// [`RolloutError::NotFound`] where no source has refused such a commit; as [`Self::reconcile`].
    pub async fn accept_history(
        &self,
        commit: &str,
        by: &str,
        timeout: Duration,
    ) -> Result<Arc<Status>, RolloutError> {
        let names = self.feed.0.accept_history(commit);
        if names.is_empty() {
            return Err(RolloutError::NotFound(format!(
                "no source has refused a commit {commit} for its history; `invar sources` says which one waits"
            )));
        }
        self.reconcile(&names, &format!("{by} accepts the history of {commit}"), timeout).await
    }

    /// Asks these sources and modules to look now (all for an empty list) without waiting for it. `by` says who asks.
    ///
    /// # Errors
    /// [`RolloutError::NotFound`] for a name that neither a source nor a module has.
    pub async fn request(&self, names: &[String], by: &str) -> Result<(), RolloutError> {
        self.asked(names, by);
        // The asking is done at once, and what is left is to wait.
        tokio::time::timeout(Duration::ZERO, self.poll_now(names)).await.unwrap_or(Ok(()))
    }

    fn asked(&self, names: &[String], by: &str) {
        let whom = if names.is_empty() { "all sources".to_owned() } else { names.join(", ") };
        self.triggered(format!("{by}: {whom}"));
    }

    /// Tells whoever follows the events who asked to look at the sources, and why.
    pub fn triggered(&self, message: impl Into<String>) {
        let (kind, message) = (EventKind::Triggered, message.into());
        tracing::info!(event = kind.as_str(), "{message}");
        self.metrics.event(kind.as_str());
        let (time, phase) = (self.clock.now(), self.status.borrow().phase);
        self.events.publish(Event {
            id: 0,
            time,
            kind,
            phase,
            revision: None,
            digest: None,
            generation: None,
            message,
        });
    }

    async fn poll_now(&self, names: &[String]) -> Result<(), RolloutError> {
        if names.is_empty() {
            let (sources, _) = tokio::join!(self.feed.0.reconcile(names), self.modules.reconcile(None));
            return sources.map_err(RolloutError::NotFound);
        }
        let looks = names.iter().map(|name| async move {
            match self.feed.0.reconcile(std::slice::from_ref(name)).await {
                Err(_) if self.modules.reconcile(Some(name)).await => Ok(()),
                answered => answered.map_err(RolloutError::NotFound),
            }
        });
        join_all(looks).await.into_iter().collect()
    }

    /// Marks a probation as cleanly interrupted and ends the reconciler. Call it on SIGTERM, before the pipeline is drained.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.commands.closed().await;
    }

    /// Completes when the reconciler has ended: after [`Self::shutdown`], or because it panicked.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, RolloutError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RolloutError::Stopped)?;
        answer.await.map_err(|_| RolloutError::Stopped)
    }
}
