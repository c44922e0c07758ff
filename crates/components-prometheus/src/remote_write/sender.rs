//! Sends one leg: reads the log, encodes per shard, keeps count of what is finished. The reader is the sender: nothing waits
//! in memory but the requests that shards hold.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use invar_telemetry::relabel::{Verdict, relabel};
use invar_telemetry::remote_write::{RequestEncoder, SeriesDetails};
use invar_telemetry::{Labels, LabelsBuilder, METRIC_NAME, MetricMetadata, Series, SymbolReader, symbols};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::load::Load;
use super::node_log::NodeLog;
use super::shards::{Job, Meters, Outstanding, Shards, Ticket};
use crate::wal::{Definitions, Entry, Leg, LegId, Position, Reader};

/// How often the number of shards is worked out anew.
const RESHARD_INTERVAL: Duration = Duration::from_secs(10);
/// How long appends are gathered before they are read: fewer wake-ups, and far below any batch deadline.
const GATHER: Duration = Duration::from_millis(20);
/// How often a sender that waits for its receiver looks whether the log had to drop something.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// Requests are cut at this size, bytes, however few samples are in them.
const MAX_REQUEST: usize = 8 << 20;

/// A leg being sent.
pub(super) struct Sender {
    log: Arc<NodeLog>,
    leg: LegId,
    rewinds: u32,
    to: Option<Position>,
    endpoint: Arc<Endpoint>,
    meters: Arc<Meters>,
    stop: CancellationToken,
    outstanding: Arc<Outstanding>,
    reader: Reader,
    encoders: Vec<Pending>,
    ready: Vec<(usize, Job)>,
    rewritten: Rewritten,
    read: u64,
    /// The segment that the gathered requests are of.
    segment: u64,
}

/// The request that a shard gathers.
struct Pending {
    encoder: RequestEncoder,
    ticket: Option<Ticket>,
    since: Instant,
}

/// Series as they are sent, by reference, where write relabelling rewrites them. Valid within one segment.
#[derive(Default)]
struct Rewritten {
    segment: u64,
    series: Vec<Option<Option<Series>>>,
    builder: LabelsBuilder,
}

impl Sender {
    pub(super) fn new(
        log: Arc<NodeLog>,
        leg: &Leg,
        endpoint: Arc<Endpoint>,
        meters: Arc<Meters>,
        stop: CancellationToken,
    ) -> Self {
        let position = log.position(leg.id).unwrap_or_else(|| log.log.end());
        let reader = Reader::new(log.log.clone(), position).until(leg.to);
        Self {
            log,
            leg: leg.id,
            rewinds: leg.rewinds,
            to: leg.to,
            endpoint,
            meters,
            stop,
            outstanding: Arc::default(),
            reader,
            encoders: Vec::new(),
            ready: Vec::new(),
            rewritten: Rewritten::default(),
            read: 0,
            segment: position.segment,
        }
    }

    /// Runs until stopped, or until the leg's end is delivered.
    pub(super) async fn run(mut self) {
        let mut shards = self.start_shards(self.endpoint.queue.min_shards as usize);
        let mut end = self.log.log.watch_end();
        let mut reshard = tokio::time::interval_at(Instant::now() + RESHARD_INTERVAL, RESHARD_INTERVAL);
        let mut metadata = tokio::time::interval_at(
            Instant::now() + self.endpoint.metadata.send_interval.min(Duration::from_secs(5)),
            self.endpoint.metadata.send_interval.max(Duration::from_millis(1)),
        );
        let mut seen = Seen::default();
        loop {
            end.mark_unchanged();
            if !self.read_available(&shards).await {
                break;
            }
            self.report(&shards);
            let finished = self.to.is_some_and(|to| self.reader.position() >= to);
            if finished {
                self.flush(&shards, Instant::now() + Duration::from_secs(3600)).await;
                if self.outstanding.lowest().is_none() {
                    break;
                }
            }
            let deadline = self.deadline();
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = end.changed(), if !finished => {
                    if changed.is_err() {
                        break;
                    }
                    tokio::time::sleep(GATHER).await;
                }
                () = sleep_until(deadline) => {
                    if !self.flush(&shards, Instant::now()).await {
                        break;
                    }
                }
                () = self.outstanding.progress() => {}
                _ = reshard.tick() => {
                    if let Some(count) = self.desired_shards(shards.count(), &mut seen) {
                        self.flush(&shards, Instant::now() + Duration::from_secs(3600)).await;
                        self.telling_losses(shards.join()).await;
                        shards = self.start_shards(count);
                    }
                }
                _ = metadata.tick() => self.send_metadata(&shards).await,
            }
        }
        for pending in &mut self.encoders {
            self.meters.pending(-(pending.encoder.counts().points() as i64));
        }
        shards.join().await;
        self.advance();
    }

    fn start_shards(&mut self, count: usize) -> Shards {
        let external = match &self.endpoint.rules {
            // Rules see the external labels, so they are merged before.
            Some(_) => Labels::default(),
            None => self.endpoint.external.clone(),
        };
        self.encoders = (0..count)
            .map(|_| Pending {
                encoder: RequestEncoder::new(self.endpoint.protocol, external.clone()),
                ticket: None,
                since: Instant::now(),
            })
            .collect();
        Shards::start(count, &self.endpoint, &self.meters, &self.outstanding, &self.stop)
    }

    /// Reads and hands over what the log has; `false` if stopped.
    async fn read_available(&mut self, shards: &Shards) -> bool {
        loop {
            if self.to.is_some_and(|to| self.reader.position() >= to) {
                return !self.stop.is_cancelled();
            }
            match self.read_entry() {
                Ok(true) => {}
                Ok(false) => return !self.stop.is_cancelled(),
                Err(error) => {
                    tracing::warn!(endpoint = %self.endpoint.identity.key, %error, "cannot read the write-ahead log");
                    let pause = tokio::time::sleep(Duration::from_secs(1));
                    return self.stop.run_until_cancelled(pause).await.is_some();
                }
            }
            for (shard, job) in std::mem::take(&mut self.ready) {
                if !self.hand_on(shards, shard, job).await {
                    return false;
                }
            }
            self.advance();
        }
    }

    /// Hands a request to a shard, waiting for room; `false` if stopped.
    async fn hand_on(&mut self, shards: &Shards, shard: usize, job: Job) -> bool {
        let stop = self.stop.clone();
        self.telling_losses(shards.send(shard, job, &stop)).await
    }

    /// A receiver that is down holds `work` up; what the log loses meanwhile is known at once.
    async fn telling_losses<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(LOSS_INTERVAL, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.report_losses(),
            }
        }
    }

    /// Encodes one record; `false` if there is none.
    fn read_entry(&mut self) -> io::Result<bool> {
        let Self { reader, endpoint, encoders, ready, rewritten, meters, outstanding, read, segment, .. } =
            self;
        let Some(entry) = reader.next_entry()? else { return Ok(false) };
        if std::mem::replace(segment, entry.position.segment) != entry.position.segment {
            // A request is of one segment: where that is deleted, all of the request is, and nothing else.
            let requests = encoders.iter_mut().map(|pending| pending.take(outstanding)).enumerate();
            ready.extend(requests.filter_map(|(shard, job)| Some((shard, job?))));
        }
        let before = Instant::now();
        let max = endpoint.queue.max_samples_per_send as usize;
        if let Some(rules) = &endpoint.rules {
            rewritten.prepare(&entry, &endpoint.external, rules);
        }
        let symbols = symbols();
        let definitions = entry.definitions;
        let mut dropped = 0;
        let (mut samples, mut filtered) = (0u64, 0usize);
        let mut add = |reference: u32, encode: &mut dyn FnMut(&mut RequestEncoder, &Series)| {
            let Some(series) = definitions.series(reference) else {
                dropped += 1;
                return;
            };
            let sent = if endpoint.rules.is_some() {
                match rewritten.get(reference) {
                    Some(series) => series,
                    None => {
                        filtered += 1;
                        return;
                    }
                }
            } else {
                series
            };
            let shard = (series.hash() % encoders.len() as u64) as usize;
            let pending = &mut encoders[shard];
            if pending.ticket.is_none() {
                pending.ticket = Some(outstanding.begin(entry.position));
                pending.since = before;
            }
            let points = pending.encoder.counts().points();
            encode(&mut pending.encoder, sent);
            meters_pending(meters, pending.encoder.counts().points() - points);
            let counts = pending.encoder.counts();
            if counts.points() + counts.exemplars >= max || pending.encoder.len() >= MAX_REQUEST {
                ready.extend(pending.take(outstanding).map(|job| (shard, job)));
            }
        };
        entry.each_sample(|reference, timestamp, value| {
            samples += 1;
            add(reference, &mut |encoder, series| {
                let details = details(encoder, definitions, reference, series, &symbols, None);
                encoder.sample(&symbols, series, timestamp, value, details);
            });
        });
        if endpoint.histograms {
            entry.each_histogram(|histogram| {
                samples += 1;
                add(histogram.series, &mut |encoder, series| {
                    let details =
                        details(encoder, definitions, histogram.series, series, &symbols, histogram.created);
                    encoder.histogram(&symbols, series, histogram.timestamp, histogram.message, details);
                });
            });
        }
        if endpoint.exemplars {
            entry.each_exemplar(|reference, message| {
                add(reference, &mut |encoder, series| encoder.exemplar(&symbols, series, message));
            });
        }
        drop(symbols);
        *read += samples;
        meters.vitals.add_in(samples);
        meters.dropped("unknown_series", dropped);
        // What a rule drops was wanted so: it is counted, but it is no loss.
        meters.filtered(filtered);
        Ok(true)
    }

    /// Hands over the requests gathered since before `deadline - batch_send_deadline`; `false` if stopped.
    async fn flush(&mut self, shards: &Shards, now: Instant) -> bool {
        let patience = self.endpoint.queue.batch_send_deadline;
        for shard in 0..self.encoders.len() {
            let pending = &mut self.encoders[shard];
            if pending.ticket.is_some()
                && pending.since + patience <= now
                && let Some(job) = pending.take(&self.outstanding)
                && !self.hand_on(shards, shard, job).await
            {
                return false;
            }
        }
        true
    }

    fn deadline(&self) -> Option<Instant> {
        let patience = self.endpoint.queue.batch_send_deadline;
        let waiting = self.encoders.iter().filter(|pending| pending.ticket.is_some());
        waiting.map(|pending| pending.since + patience).min()
    }

    /// Everything before this is delivered or dropped.
    fn position(&self) -> Position {
        self.outstanding.lowest().unwrap_or_else(|| self.reader.position())
    }

    fn advance(&self) {
        self.log.advance(self.leg, self.rewinds, self.position());
    }

    fn report(&mut self, shards: &Shards) {
        self.advance();
        self.meters.vitals.set_queue_fill(shards.fill());
        self.report_losses();
    }

    /// Counts what was deleted from the full log before it was read.
    fn report_losses(&mut self) {
        let lost = self.reader.take_lost();
        self.count_lost(lost);
    }

    /// What a sender holds of segments that are deleted, nobody can read again: it is lost with the sender. Whoever goes on
    /// for it begins behind.
    fn give_up_deleted(&mut self) {
        self.report_losses();
        let readable = self.reader.deleted_before();
        if self.position() >= readable || !self.log.advance(self.leg, self.rewinds, readable) {
            // One that begins elsewhere counts for itself what it misses.
            return;
        }
        for pending in &mut self.encoders {
            pending.take(&self.outstanding);
        }
        let unsent = self.outstanding.points_before(readable) as u64;
        let unread = self.count_unread(readable);
        self.count_lost(unsent + unread);
    }

    /// How many samples of the open segment are not read yet, of those before `end`.
    fn count_unread(&mut self, end: Position) -> u64 {
        let end = self.to.map_or(end, |to| to.min(end));
        let mut samples = 0;
        while self.reader.position() < end {
            match self.reader.next_entry() {
                Ok(Some(entry)) if entry.position < end => {
                    entry.each_sample(|_, _, _| samples += 1);
                    if self.endpoint.histograms {
                        entry.each_histogram(|_| samples += 1);
                    }
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(endpoint = %self.endpoint.identity.key, %error, "cannot read a deleted segment to its end");
                    break;
                }
            }
        }
        samples
    }

    fn count_lost(&self, lost: u64) {
        if lost > 0 {
            tracing::warn!(endpoint = %self.endpoint.identity.key, samples = lost, "samples were deleted from the full log before they were sent");
            self.meters.dropped("log_limit", lost as usize);
        }
    }

    /// The number of shards that keeps up, if it differs enough from the present one.
    fn desired_shards(&self, current: usize, seen: &mut Seen) -> Option<usize> {
        let accepted = self.meters.accepted.load(Ordering::Relaxed);
        let busy = self.meters.busy_micros.load(Ordering::Relaxed);
        let load = Load {
            elapsed: seen.at.elapsed(),
            accepted: accepted - seen.accepted,
            busy: Duration::from_micros(busy - seen.busy),
            read: self.read - seen.read,
            backlog: self.log.log.bytes_between(self.reader.position(), self.log.log.end()) / 8,
        };
        *seen = Seen { at: Instant::now(), accepted, busy, read: self.read };
        load.shards(current, self.endpoint.queue.min_shards as usize, self.endpoint.queue.max_shards as usize)
    }

    /// Version 1 carries metadata in requests of its own.
    async fn send_metadata(&mut self, shards: &Shards) {
        use invar_telemetry::remote_write::Protocol;
        if !self.endpoint.metadata.send || self.endpoint.protocol != Protocol::V1 {
            return;
        }
        let families: Vec<Arc<MetricMetadata>> = self.reader.definitions().families().cloned().collect();
        let mut encoder = RequestEncoder::new(Protocol::V1, Labels::default());
        for chunk in families.chunks(self.endpoint.metadata.max_samples_per_send as usize) {
            chunk.iter().for_each(|family| encoder.metadata(family));
            if let Some(request) = encoder.take() {
                let ticket = self.outstanding.begin(self.reader.position());
                if !self.hand_on(shards, 0, Job { request, ticket }).await {
                    return;
                }
            }
        }
    }
}

impl Drop for Sender {
    /// However it ends.
    fn drop(&mut self) {
        self.give_up_deleted();
    }
}

/// What the last look at the rates saw.
struct Seen {
    at: Instant,
    accepted: u64,
    busy: u64,
    read: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { at: Instant::now(), accepted: 0, busy: 0, read: 0 }
    }
}

fn meters_pending(meters: &Meters, points: usize) {
    if points > 0 {
        meters.pending(points as i64);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What version 2 says about a series beside its labels.
fn details<'a>(
    encoder: &RequestEncoder,
    definitions: &'a Definitions,
    reference: u32,
    series: &Series,
    symbols: &SymbolReader,
    created: Option<i64>,
) -> SeriesDetails<'a> {
    use invar_telemetry::remote_write::Protocol;
    if encoder.protocol() == Protocol::V1 {
        return SeriesDetails::default();
    }
    let name = series.get(METRIC_NAME, symbols).unwrap_or_default();
    let family = |name: &str| definitions.family(name).map(|metadata| &**metadata);
    let suffixes = ["_total", "_bucket", "_count", "_sum", "_created", "_info"];
    let metadata = family(name)
        .or_else(|| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix).and_then(family)));
    SeriesDetails { created: created.or_else(|| definitions.created(reference)), metadata }
}

impl Pending {
    fn take(&mut self, outstanding: &Outstanding) -> Option<Job> {
        let ticket = self.ticket.take()?;
        match self.encoder.take() {
            Some(request) => {
                outstanding.hold(ticket, request.counts.points());
                Some(Job { request, ticket })
            }
            None => {
                outstanding.finish(ticket);
                None
            }
        }
    }
}

impl Rewritten {
    /// Rewrites the series of a record that were not seen before in its segment.
    fn prepare(&mut self, entry: &Entry<'_>, external: &Labels, rules: &invar_blocks::RelabelRules) {
        if entry.position.segment != self.segment {
            self.segment = entry.position.segment;
            self.series.clear();
        }
        let mut references = Vec::new();
        let known = &self.series;
        let mut want = |reference: u32| {
            if known.get(reference as usize).is_none_or(Option::is_none) {
                references.push(reference);
            }
        };
        entry.each_sample(|reference, _, _| want(reference));
        entry.each_histogram(|histogram| want(histogram.series));
        entry.each_exemplar(|reference, _| want(reference));
        for reference in references {
            let Some(series) = entry.definitions.series(reference) else { continue };
            self.builder.reset(&series.to_labels());
            for (name, value) in external.iter() {
                if self.builder.get(name).is_none() {
                    self.builder.set(name, value);
                }
            }
            let kept = relabel(&rules.0, &mut self.builder) == Verdict::Keep && !self.builder.is_empty();
            let at = reference as usize;
            if at >= self.series.len() {
                self.series.resize(at + 1, None);
            }
            self.series[at] = Some(kept.then(|| self.builder.series()));
        }
    }

    fn get(&self, reference: u32) -> Option<&Series> {
        self.series.get(reference as usize)?.as_ref()?.as_ref()
    }
}
