//! The instance's task: a sender for every leg that can send, the log's fsync and truncation, and the end of a log whose
//! component went away.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use invar_engine::{Health, Phase, RunContext};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::handover::{HandedOver, hand_over};
use super::node_log::NodeLog;
use super::sender::Sender;
use super::shards::Meters;
use super::sweep::{SWEEP_INTERVAL, sweep};
use super::{RemoteWrite, RemoteWriteInstance};
use crate::wal::{LegId, Position};

/// How often appended data is made durable at most.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// How often positions are stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log that is filling up is truncated, and metrics of the log are brought up to date.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// How long the last attempt may take when the process ends while an endpoint is down.
const LAST_ATTEMPT: Duration = Duration::from_secs(2);

/// How long requests in flight may take once nobody can wait for them.
const IN_FLIGHT: Duration = Duration::from_millis(500);

/// Runs one instance.
pub(super) struct Supervisor {
    instance: Arc<RemoteWriteInstance>,
    context: RunContext<RemoteWrite>,
    senders: HashMap<LegId, Running>,
    /// Positions of senders that are ending, by task.
    tasks: JoinSet<LegId>,
    ids: HashMap<Id, LegId>,
    meters: HashMap<String, (u64, Arc<Meters>)>,
    /// One sender at a time per chain of legs that go on for each other.
    chains: HashMap<LegId, Arc<tokio::sync::Mutex<()>>>,
    counted: Counted,
}

struct Running {
    stop: CancellationToken,
    to: Option<Position>,
    rewinds: u32,
}

/// The end of a process, and how many attempts had failed before, by endpoint.
struct LastAttempts {
    since: Instant,
    failures: HashMap<String, u64>,
}

/// What of the log's counters was exported already.
#[derive(Default)]
struct Counted {
    samples: AtomicU64,
    exemplars: AtomicU64,
    out_of_order: AtomicU64,
    forced: AtomicU64,
    forced_samples: AtomicU64,
    damaged: AtomicU64,
}

// === impl Supervisor ===

impl Supervisor {
    pub(super) fn new(instance: Arc<RemoteWriteInstance>, context: RunContext<RemoteWrite>) -> Self {
        Self {
            instance,
            context,
            senders: HashMap::new(),
            tasks: JoinSet::new(),
            ids: HashMap::new(),
            meters: HashMap::new(),
            chains: HashMap::new(),
            counted: Counted::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let log = Arc::clone(&self.instance.log);
        let cancelled = self.context.cancellation();
        let mut legs = log.watch();
        // The disk may take its time; senders must not wait for it.
        let mut disk = JoinSet::new();
        disk.spawn(keep_durable(Arc::clone(&log)));
        disk.spawn(keep_positions(Arc::clone(&log)));
        let mut phase = self.context.phase();
        let mut health = tokio::time::interval(SAVE_INTERVAL);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        let mut truncated = Instant::now();
        let mut swept = Instant::now();
        self.sweep().await;
        let mut last_attempts: Option<LastAttempts> = None;
        let mut patience = None;
        loop {
            legs.mark_unchanged();
            self.reconcile(&log);
            let draining = matches!(*phase.borrow_and_update(), Phase::Draining | Phase::Stopped);
            if draining && (log.is_given_up(self.instance.owner) || self.is_drained(&log)) {
                break;
            }
            if draining && log.comes_back() {
                let attempts = last_attempts.get_or_insert_with(|| self.try_at_once());
                if self.delivers_nothing(&log, attempts) {
                    patience = Some(IN_FLIGHT);
                    tracing::info!(node = %self.instance.node, "an endpoint is down; what it has not got is sent after the next start");
                    break;
                }
            }
            tokio::select! {
                () = cancelled.cancelled() => {
                    patience = Some(IN_FLIGHT);
                    break;
                }
                _ = legs.changed() => {}
                _ = phase.changed() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    let (id, leg) = match ended {
                        Ok((id, leg)) => (id, Some(leg)),
                        Err(error) => {
                            tracing::warn!(node = %self.instance.node, %error, "a remote-write sender ended early");
                            (error.id(), None)
                        }
                    };
                    if let Some(leg) = leg.or_else(|| self.ids.get(&id).copied()) {
                        self.ended(&log, leg, &id);
                    }
                }
                _ = health.tick() => self.report_health(),
                _ = housekeeping.tick() => {
                    let wal = self.context.enter().state().wal.clone();
                    let pressed = log.log.bytes() > crate::wal::LogOptions::default().limit / 2;
                    if pressed || truncated.elapsed() >= wal.truncate_frequency.min(Duration::from_secs(60)) {
                        truncated = Instant::now();
                        let log = Arc::clone(&log);
                        blocking(move || {
                            log.log.truncate(wal.min_keepalive_time, wal.max_keepalive_time, SystemTime::now());
                        })
                        .await;
                    }
                    if swept.elapsed() >= SWEEP_INTERVAL || self.instance.siblings.take_leftovers() {
                        swept = Instant::now();
                        self.sweep().await;
                    }
                    self.count(&log);
                }
            }
        }
        disk.shutdown().await;
        self.finish(&log, patience).await;
    }

    /// Starts and stops senders until they are those that the legs ask for.
    fn reconcile(&mut self, log: &Arc<NodeLog>) {
        let legs = log.legs();
        self.senders.retain(|id, running| {
            let wanted = legs.iter().any(|(leg, _)| {
                leg.id == *id && !leg.stopped && leg.to == running.to && leg.rewinds == running.rewinds
            });
            if !wanted {
                running.stop.cancel();
            }
            wanted
        });
        let chains: BTreeSet<LegId> = legs.iter().map(|(leg, _)| leg.chain).collect();
        self.chains.retain(|chain, mutex| chains.contains(chain) || Arc::strong_count(mutex) > 1);
        for (leg, endpoint) in legs {
            let Some(endpoint) = endpoint.filter(|_| !leg.is_done() && !self.senders.contains_key(&leg.id))
            else {
                continue;
            };
            let meters = self.meters(&endpoint);
            if leg.rewinds > 0 {
                meters.resent(log.log.bytes_between(leg.position, log.log.end()) / 8);
            }
            let stop = CancellationToken::new();
            let running = Running { stop: stop.clone(), to: leg.to, rewinds: leg.rewinds };
            let chain = Arc::clone(self.chains.entry(leg.chain).or_default());
            let (log, id) = (Arc::clone(log), leg.id);
            let task = self.tasks.spawn(async move {
                let Some(_turn) = stop.run_until_cancelled(chain.lock_owned()).await else { return id };
                // Only now: the leg before it may have moved on until its last request was answered.
                log.take_over(id);
                Sender::new(Arc::clone(&log), &leg, endpoint, meters, stop).run().await;
                log.quiet(id);
                id
            });
            self.ids.insert(task.id(), id);
            self.senders.insert(id, running);
        }
    }

    fn ended(&mut self, log: &Arc<NodeLog>, leg: LegId, task: &Id) {
        self.ids.remove(task);
        // One that ended by itself is done or failed; reconciling tells which.
        let current = self.ids.values().any(|other| *other == leg);
        if !current && let Some(running) = self.senders.remove(&leg) {
            running.stop.cancel();
        }
        log.quiet(leg);
    }

    fn meters(&mut self, endpoint: &Arc<Endpoint>) -> Arc<Meters> {
        let key = &endpoint.identity.key;
        if let Some((settings, meters)) = self.meters.get(key)
            && *settings == endpoint.identity.settings
        {
            return Arc::clone(meters);
        }
        let vitals = self.context.vitals(key);
        let node = self.instance.node.as_str();
        let meters = Arc::new(Meters::new(Arc::clone(&self.instance.metrics), node, endpoint, vitals));
        self.meters.insert(key.clone(), (endpoint.identity.settings, Arc::clone(&meters)));
        meters
    }

    fn is_drained(&self, log: &NodeLog) -> bool {
        let end = log.log.end();
        log.legs().iter().all(|(leg, endpoint)| endpoint.is_none() || leg.is_done() || leg.position >= end)
    }

    /// Has endpoints that are down tried once more, now.
    fn try_at_once(&self) -> LastAttempts {
        let meters = self.meters.iter();
        let failures =
            meters.map(|(key, (_, meters))| (key.clone(), meters.failing().unwrap_or(0))).collect();
        self.meters.values().for_each(|(_, meters)| meters.hurry());
        LastAttempts { since: Instant::now(), failures }
    }

    /// Whether every leg that is not drained has failed again, or had its time to.
    fn delivers_nothing(&self, log: &NodeLog, attempts: &LastAttempts) -> bool {
        let end = log.log.end();
        let is_over = attempts.since.elapsed() >= LAST_ATTEMPT;
        log.legs().iter().all(|(leg, endpoint)| {
            let is_drained = endpoint.is_none() || leg.is_done() || leg.position >= end;
            let failing = self.meters.get(&leg.key).and_then(|(_, meters)| meters.failing());
            let before = attempts.failures.get(&leg.key).copied().unwrap_or(0);
            is_drained || failing.is_some_and(|failures| failures > before || is_over)
        })
    }

    fn report_health(&self) {
        let trouble: Vec<String> = self
            .meters
            .iter()
            .filter_map(|(key, (_, meters))| {
                meters.trouble.lock().as_ref().map(|reason| format!("{key}: {reason}"))
            })
            .collect();
        self.context.set_health(match &trouble[..] {
            [] => Health::healthy("sending"),
            // A receiver that is down is what the log is for; the node works as it should.
            reasons => Health::healthy(format!("endpoints in trouble: {}", reasons.join("; "))),
        });
    }

    fn count(&self, log: &NodeLog) {
        let metrics = &self.instance.metrics;
        let component = [self.instance.node.as_str()];
        let counters = log.log.counters();
        for (family, seen, now) in [
            (&metrics.wal_appended, &self.counted.samples, &counters.samples),
            (&metrics.wal_exemplars, &self.counted.exemplars, &counters.exemplars),
            (&metrics.wal_out_of_order, &self.counted.out_of_order, &counters.out_of_order),
            (&metrics.wal_forced, &self.counted.forced, &counters.forced_bytes),
            (&metrics.wal_forced_samples, &self.counted.forced_samples, &counters.forced_samples),
            (&metrics.wal_damaged, &self.counted.damaged, &counters.damaged),
        ] {
            let now = now.load(Ordering::Relaxed);
            let before = seen.swap(now, Ordering::Relaxed);
            family.with_label_values(&component).inc_by(now - before);
        }
        metrics.wal_series.with_label_values(&component).set(log.log.series() as i64);
        metrics.wal_bytes.with_label_values(&component).set(log.log.bytes() as i64);
    }

    /// Ends the senders; requests in flight get `patience`, or as long as they may take.
    async fn finish(mut self, log: &Arc<NodeLog>, patience: Option<Duration>) {
        self.senders.values().for_each(|running| running.stop.cancel());
        let ending = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(leg) = ended {
                    log.quiet(leg);
                }
            }
        };
        match patience {
            None => ending.await,
            Some(patience) => {
                if tokio::time::timeout(patience, ending).await.is_err() {
                    // What they were sending is sent again after the next start.
                    self.tasks.shutdown().await;
                    self.ids.values().for_each(|leg| log.quiet(*leg));
                }
            }
        }
        self.hand_over(log).await;
        sync(log).await;
        let shared = Arc::clone(log);
        blocking(move || shared.save()).await;
        self.count(log);
    }

    /// Appends what a rolled-back candidate's log did not deliver to the log that the candidate had taken away.
    async fn hand_over(&self, log: &Arc<NodeLog>) {
        let (node, owner) = (self.instance.node.clone(), Some(self.instance.owner));
        if !log.is_orphan_of(owner) {
            return;
        }
        let from = log.undelivered();
        let bytes = log.log.bytes_between(from, log.log.end());
        let heir = self.instance.siblings.heir(&log.replaced());
        if bytes > 0 && heir.is_none() {
            tracing::warn!(%node, bytes, "the log of an undone component has no single heir and is kept");
            return;
        }
        let (source, siblings) = (Arc::clone(log), Arc::clone(&self.instance.siblings));
        blocking(move || {
            match heir.map_or(Ok(HandedOver::default()), |heir| hand_over(&source, from, &heir)) {
                Ok(done) => {
                    tracing::info!(%node, ?done, "the log of an undone component went to the one that it had replaced");
                    source.handed_over(owner, jiff::Timestamp::now());
                    siblings.left_over();
                }
                Err(error) => {
                    tracing::warn!(%node, %error, "the log of an undone component could not be handed over and is kept");
                }
            }
        })
        .await;
    }

    /// Looks at the logs that nobody has open.
    async fn sweep(&self) {
        let instance = Arc::clone(&self.instance);
        blocking(move || {
            if let Some(components) = instance.directory.parent().and_then(Path::parent) {
                sweep(components, &instance.siblings, &instance.metrics, jiff::Timestamp::now());
            }
        })
        .await;
    }
}

/// Makes what was appended durable, at most once per interval.
async fn keep_durable(log: Arc<NodeLog>) {
    let mut end = log.log.watch_end();
    while end.changed().await.is_ok() {
        // Whatever is appended while this sleeps shares the same fsync.
        tokio::time::sleep(SYNC_INTERVAL / 2).await;
        end.mark_unchanged();
        sync(&log).await;
    }
}

/// Stores the legs as they change, and their positions as they move.
async fn keep_positions(log: Arc<NodeLog>) {
    let mut changed = log.watch();
    let mut ticks = tokio::time::interval(SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = changed.changed() => {}
        }
        let shared = Arc::clone(&log);
        blocking(move || shared.save()).await;
    }
}

async fn sync(log: &Arc<NodeLog>) {
    let shared = Arc::clone(log);
    blocking(move || {
        if let Err(error) = shared.log.sync() {
            let directory = shared.log.directory().display();
            tracing::error!(%directory, %error, "cannot make the write-ahead log durable");
        }
    })
    .await;
}

/// Runs what waits for the disk beside the tasks of the runtime.
pub(super) async fn blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "work on the write-ahead log ended early");
    }
}
