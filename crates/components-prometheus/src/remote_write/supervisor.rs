//! The instance's task: a sender for every leg that can send, the log's fsync and truncation, and the end of a log whose
//! component went away.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use invar_engine::{Health, NodeId, Phase, RunContext};
use invar_telemetry::{MetricBatch, SeriesList, Timestamps};
use parking_lot::Mutex;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::node_log::NodeLog;
use super::sender::Sender;
use super::shards::Meters;
use super::{RemoteWrite, RemoteWriteInstance};
use crate::wal::{LegId, LegsFile, Position, Reader};

/// How often appended data is made durable at most.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// How often positions are stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a log that is filling up is truncated, and metrics of the log are brought up to date.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// All nodes of this kind, for what one of them leaves to another.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    state: Mutex<SiblingState>,
}

#[derive(Debug, Default)]
struct SiblingState {
    logs: HashMap<NodeId, std::sync::Weak<NodeLog>>,
    /// Parked on behalf of the present candidate.
    parked: BTreeSet<NodeId>,
    /// Brought back by the last rollback.
    returned: BTreeSet<NodeId>,
    /// Whom the undelivered part of a node's log goes to.
    heirs: HashMap<NodeId, Vec<NodeId>>,
}

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

/// What of the log's counters was exported already.
#[derive(Default)]
struct Counted {
    samples: AtomicU64,
    exemplars: AtomicU64,
    out_of_order: AtomicU64,
    forced: AtomicU64,
    damaged: AtomicU64,
}

// === impl Siblings ===

impl Siblings {
    pub(super) fn entered(&self, node: &NodeId, log: &Arc<NodeLog>) {
        let mut state = self.state.lock();
        state.logs.insert(node.clone(), Arc::downgrade(log));
        state.returned.clear();
    }

    pub(super) fn parked(&self, node: &NodeId) {
        self.state.lock().parked.insert(node.clone());
    }

    pub(super) fn unparked(&self, node: &NodeId) {
        let mut state = self.state.lock();
        if state.parked.remove(node) {
            state.returned.insert(node.clone());
        }
    }

    /// The candidate that had `node` is undone: what it could not deliver goes to whom the candidate had removed.
    pub(super) fn orphaned(&self, node: &NodeId) {
        let mut state = self.state.lock();
        let heirs = state.returned.iter().cloned().collect();
        state.heirs.insert(node.clone(), heirs);
    }

    /// The one log that takes over what `node` left, if there is exactly one.
    fn heir(&self, node: &NodeId) -> Option<Arc<NodeLog>> {
        let mut state = self.state.lock();
        let heirs = state.heirs.remove(node)?;
        match &heirs[..] {
            [only] => state.logs.get(only)?.upgrade(),
            _ => None,
        }
    }
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
        self.collect_closed_logs();
        loop {
            legs.mark_unchanged();
            self.reconcile(&log);
            let draining = matches!(*phase.borrow_and_update(), Phase::Draining | Phase::Stopped);
            if draining && (log.is_orphaned() || self.is_drained(&log)) {
                break;
            }
            tokio::select! {
                () = cancelled.cancelled() => break,
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
                        self.collect_closed_logs();
                    }
                    self.count(&log);
                }
            }
        }
        disk.shutdown().await;
        self.finish(&log).await;
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
            (&metrics.wal_damaged, &self.counted.damaged, &counters.damaged),
        ] {
            let now = now.load(Ordering::Relaxed);
            let before = seen.swap(now, Ordering::Relaxed);
            family.with_label_values(&component).inc_by(now - before);
        }
        metrics.wal_series.with_label_values(&component).set(log.log.series() as i64);
        metrics.wal_bytes.with_label_values(&component).set(log.log.bytes() as i64);
    }

    async fn finish(mut self, log: &Arc<NodeLog>) {
        self.senders.values().for_each(|running| running.stop.cancel());
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(leg) = ended {
                log.quiet(leg);
            }
        }
        if log.is_orphaned() {
            self.bequeath(log).await;
        }
        sync(log).await;
        let shared = Arc::clone(log);
        blocking(move || shared.save(true)).await;
        self.count(log);
    }

    /// Appends what a rolled-back candidate's log did not deliver to the log that the candidate had removed.
    async fn bequeath(&self, log: &Arc<NodeLog>) {
        let Some(from) = log.lowest() else { return };
        let bytes = log.log.bytes_between(from, log.log.end());
        if bytes == 0 {
            return;
        }
        let Some(heir) = self.instance.siblings.heir(&self.instance.node) else {
            tracing::warn!(node = %self.instance.node, bytes, "the log of an undone component has no single heir and is kept");
            return;
        };
        let source = Arc::clone(log);
        blocking(move || match copy(&source, from, &heir) {
            Ok(samples) => {
                tracing::info!(samples, "the log of an undone component went to the one that it had replaced")
            }
            Err(error) => {
                tracing::warn!(%error, "the log of an undone component could not be handed on and is kept")
            }
        })
        .await;
    }

    /// Deletes the logs of components that were removed longer than `max_keepalive_time` ago.
    fn collect_closed_logs(&self) {
        let Some(root) = self.instance.directory.parent().and_then(Path::parent) else { return };
        let keep = self.context.enter().state().wal.max_keepalive_time;
        let now = jiff::Timestamp::now().as_second();
        let mut kept = 0;
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let directory = entry.path().join("wal");
            let closed = LegsFile::load(&directory.join("legs.json")).ok().and_then(|file| file.closed);
            let Some(closed) = closed.filter(|_| directory != self.instance.directory) else { continue };
            if now - closed > keep.as_secs() as i64 {
                tracing::warn!(directory = %directory.display(), "deleting the log of a component that was removed");
                if let Err(error) = std::fs::remove_dir_all(&directory) {
                    tracing::warn!(directory = %directory.display(), %error, "cannot delete it");
                }
            } else {
                let files = std::fs::read_dir(&directory).into_iter().flatten().flatten();
                kept +=
                    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum::<u64>();
            }
        }
        self.instance.metrics.wal_kept.with_label_values(&[self.instance.node.as_str()]).set(kept as i64);
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

/// Stores positions as they move.
async fn keep_positions(log: Arc<NodeLog>) {
    let mut ticks = tokio::time::interval(SAVE_INTERVAL);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&log);
        blocking(move || shared.save(false)).await;
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
async fn blocking(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "work on the write-ahead log ended early");
    }
}

/// Copies float samples and histograms from `from` to the end of one log into another.
fn copy(source: &NodeLog, from: Position, heir: &NodeLog) -> Result<usize, crate::wal::AppendError> {
    use invar_telemetry::HistogramSample;
    use invar_telemetry::remote_write::message::parse_histogram;
    let mut reader = Reader::new(Arc::clone(&source.log), from);
    let mut copied = 0;
    while let Some(entry) = reader.next_entry()? {
        let (mut series, mut values, mut timestamps) = (Vec::new(), Vec::new(), Vec::new());
        entry.each_sample(|reference, timestamp, value| {
            if let Some(found) = entry.definitions.series(reference) {
                series.push(found.clone());
                values.push(value);
                timestamps.push(timestamp);
            }
        });
        let mut batch = MetricBatch::new(SeriesList::new(series), values, Timestamps::Each(timestamps));
        entry.each_histogram(|record| {
            if let (Some(series), Ok(message)) =
                (entry.definitions.series(record.series), parse_histogram(record.message))
            {
                batch.histograms.push(HistogramSample {
                    series: series.clone(),
                    timestamp: record.timestamp,
                    histogram: Arc::new(message.histogram),
                    created: record.created,
                });
            }
        });
        if !batch.is_empty() {
            copied += heir.log.append_overdue(&batch)?.samples;
        }
    }
    Ok(copied)
}
