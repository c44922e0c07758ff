//! The shards of a leg: each sends its requests one after the other, so that the samples of a series stay in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use invar_engine::VitalCounters;
use invar_engine::vitals::Outcome;
use invar_telemetry::remote_write::{EncodedRequest, RequestCounts};
use parking_lot::Mutex;
use prometheus::IntGauge;
use rand::RngExt;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Endpoint, Sent, Written};
use super::metrics::Metrics;
use crate::wal::Position;

/// One endpoint's counters.
#[derive(Debug)]
pub(super) struct Meters {
    metrics: Arc<Metrics>,
    labels: [String; 3],
    pub(super) vitals: Arc<VitalCounters>,
    /// Microseconds spent in accepted requests, and samples in them: what a sample costs.
    pub(super) busy_micros: AtomicU64,
    pub(super) accepted: AtomicU64,
    /// Attempts that are to be tried again, and whether the last one was of them.
    failures: AtomicU64,
    is_failing: AtomicBool,
    hurried: Notify,
    /// Why the last request was not accepted.
    pub(super) trouble: Mutex<Option<String>>,
    /// Bound once: it moves with every sample.
    pending: IntGauge,
}

/// A request on its way, and where in the log it begins.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: EncodedRequest,
    pub(super) ticket: Ticket,
}

/// What is not finished: the lowest of these is how far a leg is.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    /// With the points of each, once they are known.
    tickets: Mutex<BTreeMap<Ticket, usize>>,
    next: AtomicU64,
    finished: Notify,
}

/// A place in [`Outstanding`]; given back when finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(Position, u64);

/// Running shards.
#[derive(Debug)]
pub(super) struct Shards {
    queues: Vec<mpsc::Sender<Job>>,
    tasks: JoinSet<()>,
}

// === impl Meters ===

impl Meters {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        node: &str,
        endpoint: &Endpoint,
        vitals: Arc<VitalCounters>,
    ) -> Self {
        let labels = [node.to_owned(), endpoint.name.clone(), endpoint.identity.url.clone()];
        let pending = metrics.pending.with_label_values(&labels.each_ref().map(String::as_str));
        Self {
            pending,
            metrics,
            labels,
            vitals,
            busy_micros: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            hurried: Notify::new(),
            trouble: Mutex::new(None),
        }
    }

    fn labels(&self) -> [&str; 3] {
        self.labels.each_ref().map(String::as_str)
    }

    pub(super) fn dropped(&self, reason: &str, samples: usize) {
        if samples > 0 {
            let [component, name, url] = self.labels();
            self.metrics.dropped.with_label_values(&[component, name, url, reason]).inc_by(samples as u64);
            self.vitals.add_dropped(samples as u64);
        }
    }

    /// Counts what write relabelling dropped.
    pub(super) fn filtered(&self, samples: usize) {
        if samples > 0 {
            let [component, name, url] = self.labels();
            let labels = [component, name, url, "dropped_series"];
            self.metrics.dropped.with_label_values(&labels).inc_by(samples as u64);
        }
    }

    pub(super) fn shards(&self, count: usize, endpoint: &Endpoint) {
        self.metrics.shards.with_label_values(&self.labels()).set(count as i64);
        self.metrics.shards_max.with_label_values(&self.labels()).set(endpoint.queue.max_shards);
        self.metrics.shards_min.with_label_values(&self.labels()).set(endpoint.queue.min_shards);
    }

    pub(super) fn pending(&self, change: i64) {
        self.pending.add(change);
    }

    pub(super) fn resent(&self, samples: u64) {
        self.metrics.resent.with_label_values(&self.labels()).inc_by(samples);
    }

    /// Counts what was accepted of a request: `counts` of it.
    fn accepted(&self, request: &EncodedRequest, counts: &RequestCounts, took: Duration) {
        let labels = &self.labels();
        self.metrics.samples.with_label_values(labels).inc_by(counts.samples as u64);
        self.metrics.histograms.with_label_values(labels).inc_by(counts.histograms as u64);
        self.metrics.exemplars.with_label_values(labels).inc_by(counts.exemplars as u64);
        self.metrics.metadata.with_label_values(labels).inc_by(counts.metadata as u64);
        self.metrics.bytes.with_label_values(labels).inc_by(request.body.len() as u64);
        self.metrics.sent_seconds.with_label_values(labels).observe(took.as_secs_f64());
        if let Some((_, newest)) = counts.range {
            self.metrics.highest_sent.with_label_values(labels).set(newest as f64 / 1000.0);
        }
        self.busy_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.accepted.fetch_add(counts.points() as u64, Ordering::Relaxed);
        self.vitals.add_out(counts.points() as u64);
    }

    /// Counts samples that the receiver will never take.
    fn refused(&self, samples: usize) {
        self.metrics.failed.with_label_values(&self.labels()).inc_by(samples as u64);
        self.vitals.add_dropped(samples as u64);
    }

    /// Has every shard that pauses try again at once.
    pub(super) fn hurry(&self) {
        self.hurried.notify_waiters();
    }

    /// How many attempts have failed that are to be tried again; nothing where the last attempt did not.
    pub(super) fn failing(&self) -> Option<u64> {
        self.is_failing.load(Ordering::Relaxed).then(|| self.failures.load(Ordering::Relaxed))
    }
}

// === impl Outstanding ===

impl Outstanding {
    pub(super) fn begin(&self, position: Position) -> Ticket {
        let ticket = Ticket(position, self.next.fetch_add(1, Ordering::Relaxed));
        self.hold(ticket, 0);
        ticket
    }

    /// A request of `points` has this ticket.
    pub(super) fn hold(&self, ticket: Ticket, points: usize) {
        self.tickets.lock().insert(ticket, points);
    }

    pub(super) fn finish(&self, ticket: Ticket) {
        self.tickets.lock().remove(&ticket);
        self.finished.notify_one();
    }

    pub(super) fn lowest(&self) -> Option<Position> {
        self.tickets.lock().first_key_value().map(|(ticket, _)| ticket.0)
    }

    /// How many points the requests hold that begin before `position`.
    pub(super) fn points_before(&self, position: Position) -> usize {
        let tickets = self.tickets.lock();
        tickets.iter().take_while(|(ticket, _)| ticket.0 < position).map(|(_, points)| points).sum()
    }

    /// Completes when something finished since the last call.
    pub(super) async fn progress(&self) {
        self.finished.notified().await;
    }
}

// === impl Shards ===

impl Shards {
    pub(super) fn start(
        count: usize,
        endpoint: &Arc<Endpoint>,
        meters: &Arc<Meters>,
        outstanding: &Arc<Outstanding>,
        stop: &CancellationToken,
    ) -> Self {
        meters.shards(count, endpoint);
        let requests =
            (endpoint.queue.capacity / endpoint.queue.max_samples_per_send).clamp(1, 1024) as usize;
        let mut tasks = JoinSet::new();
        let queues = (0..count)
            .map(|_| {
                let (queue, mut jobs) = mpsc::channel::<Job>(requests);
                let (endpoint, meters) = (endpoint.clone(), meters.clone());
                let (outstanding, stop) = (outstanding.clone(), stop.clone());
                tasks.spawn(async move {
                    while let Some(Some(job)) = stop.run_until_cancelled(jobs.recv()).await {
                        let points = job.request.counts.points() as i64;
                        let finished = deliver(&endpoint, &meters, job.request, &stop).await;
                        meters.pending(-points);
                        if finished {
                            outstanding.finish(job.ticket);
                        }
                    }
                    jobs.close();
                    while let Ok(job) = jobs.try_recv() {
                        meters.pending(-(job.request.counts.points() as i64));
                    }
                });
                queue
            })
            .collect();
        Self { queues, tasks }
    }

    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }

    /// Hands a request to a shard, waiting for room; `false` if the shards were stopped.
    pub(super) async fn send(&self, shard: usize, job: Job, stop: &CancellationToken) -> bool {
        matches!(stop.run_until_cancelled(self.queues[shard].send(job)).await, Some(Ok(())))
    }

    /// How full the fullest queue is, thousandths.
    pub(super) fn fill(&self) -> u64 {
        let fill = |queue: &mpsc::Sender<Job>| {
            1000 - 1000 * queue.capacity() as u64 / queue.max_capacity().max(1) as u64
        };
        self.queues.iter().map(fill).max().unwrap_or(0)
    }

    /// Waits until everything handed over is finished, or the requests in flight are when stopped.
    pub(super) async fn join(mut self) {
        self.queues.clear();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::warn!(%error, "a remote-write shard ended early");
            }
        }
    }
}

/// Sends until accepted, refused or outdated; `false` if stopped before.
async fn deliver(
    endpoint: &Endpoint,
    meters: &Arc<Meters>,
    mut request: EncodedRequest,
    stop: &CancellationToken,
) -> bool {
    let queue = &endpoint.queue;
    let mut backoff = queue.min_backoff.max(Duration::from_millis(1));
    let mut body: Arc<[u8]> = std::mem::take(&mut request.body).into();
    request.body = body.to_vec();
    let points = request.counts.points();
    let mut attempt = 0;
    loop {
        if !queue.sample_age_limit.is_zero() {
            let oldest = jiff::Timestamp::now().as_millisecond() - queue.sample_age_limit.as_millis() as i64;
            match request.counts.range {
                Some((_, newest)) if newest < oldest => {
                    meters.dropped("too_old", points);
                    return true;
                }
                Some((first, _)) if first < oldest => {
                    if let Some((kept, dropped)) =
                        super::aging::without_older(endpoint.protocol, &request, oldest)
                    {
                        meters.dropped("too_old", dropped);
                        body = kept.body.clone().into();
                        request = kept;
                    }
                }
                _ => {}
            }
        }
        let points = request.counts.points();
        let tried = meters.vitals.attempt();
        let started = Instant::now();
        match endpoint.send(body.clone(), attempt).await {
            Sent::Accepted { written } => {
                meters.is_failing.store(false, Ordering::Relaxed);
                let (counts, missing) = written_of(&request.counts, written);
                if counts == RequestCounts::default() && missing > 0 {
                    tried.finish(Outcome::Permanent, points as u64);
                    meters.refused(points);
                    let reason = "the receiver says that it wrote nothing of a request of version 2: it may know only version 1, \
                                  prometheus.WriteRequest";
                    tracing::error!(endpoint = %endpoint.identity.key, samples = points, %reason, "samples refused, dropped");
                    *meters.trouble.lock() = Some(reason.to_owned());
                    return true;
                }
                tried.finish(Outcome::Ok, points as u64);
                meters.accepted(&request, &counts, started.elapsed());
                *meters.trouble.lock() = None;
                if missing > 0 {
                    meters.refused(points - counts.points());
                    let (samples, exemplars) =
                        (points - counts.points(), request.counts.exemplars - counts.exemplars);
                    tracing::warn!(endpoint = %endpoint.identity.key, samples, exemplars, "the receiver wrote a request in part, the rest is dropped");
                }
                return true;
            }
            Sent::Refused { reason, written } => {
                meters.is_failing.store(false, Ordering::Relaxed);
                tried.finish(Outcome::Permanent, points as u64);
                // A request of version 2 may be refused in part.
                let (counts, _) = written_of(&request.counts, Some(written.unwrap_or_default()));
                if counts.points() + counts.exemplars > 0 {
                    meters.accepted(&request, &counts, started.elapsed());
                }
                let lost = points - counts.points();
                meters.refused(lost);
                tracing::error!(endpoint = %endpoint.identity.key, samples = lost, %reason, "samples refused, dropped");
                *meters.trouble.lock() = Some(reason);
                return true;
            }
            Sent::Retry { after, reason } => {
                tried.finish(Outcome::Retryable, points as u64);
                meters.metrics.retried.with_label_values(&meters.labels()).inc_by(points as u64);
                if attempt == 0 {
                    tracing::warn!(endpoint = %endpoint.identity.key, %reason, "sending failed, will retry");
                }
                *meters.trouble.lock() = Some(reason);
                attempt += 1;
                // Half of the pause is chance, so that agents do not come back together.
                let spread = backoff.mul_f64(0.5 + rand::rng().random::<f64>() / 2.0);
                let pause = after.map_or(spread, |after| after.max(spread)).min(Duration::from_secs(300));
                backoff = (backoff * 2).min(queue.max_backoff.max(Duration::from_millis(1)));
                meters.failures.fetch_add(1, Ordering::Relaxed);
                meters.is_failing.store(true, Ordering::Relaxed);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return false,
                    () = meters.hurried.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// What of a request was written, if all of it unless the receiver says otherwise, and how many points and exemplars were
/// not.
fn written_of(sent: &RequestCounts, written: Option<Written>) -> (RequestCounts, usize) {
    let Some(written) = written else { return (*sent, 0) };
    // Whatever a receiver says, it has not written more than it got.
    let samples = written.samples.min(sent.samples);
    let histograms = written.histograms.min(sent.histograms);
    let exemplars = written.exemplars.min(sent.exemplars);
    let missing = (sent.points() - samples - histograms) + (sent.exemplars - exemplars);
    if samples + histograms + exemplars == 0 && missing > 0 {
        return (RequestCounts::default(), missing);
    }
    (RequestCounts { samples, histograms, exemplars, metadata: sent.metadata, range: sent.range }, missing)
}
