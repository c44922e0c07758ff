//! One target, scraped over and over: waits until it is due, fetches and reads its page, and offers the samples downstream until they
//! are taken. What it remembers of the target outlives changes of the configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};
use invar_engine::vitals::{Outcome, VitalCounters};
use invar_engine::{DeliveryError, RunContext};
use invar_telemetry::exposition::{ScrapeCache, Vanished, parse};
use invar_telemetry::{Histogram, HistogramSample, MetricBatch, STALE_NAN, Series, SeriesList, Timestamps};
use tokio::sync::watch;

use super::error::ScrapeError;
use super::fetch::{Page, fetch};
use super::metadata::MetadataMemory;
use super::page::{Columns, LastExemplars, PageSink};
use super::report::{Report, ReportSeries};
use super::schedule::{Schedule, now};
use super::settings::ScrapeSettings;
use super::status::{StatusCell, TargetStatus};
use super::target::ScrapeTarget;
use super::{Instance, Scrape};

/// The pause before a refused batch is offered again: doubles up to the second.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// The pause before a batch is offered to the generation that followed the one whose time was up.
const CANCELLED_PAUSE: Duration = Duration::from_millis(10);
/// How long after its last scrape a removed target's series end, in tenths of its interval: another component may have taken over.
const REMOVAL_TENTHS: u64 = 21;

/// What a target's task is to do.
#[derive(Clone)]
pub(super) enum Order {
    /// Scrape.
    Scrape(Arc<Assignment>),
    /// Wait: the component is parked.
    Pause,
    /// The target is no longer listed: mark the end of its series, unless it comes back in time.
    Remove,
    /// The component is going for good: mark the end of the series now.
    Retire,
    /// The process ends.
    Stop,
}

/// A target with the settings it is scraped by.
pub(super) struct Assignment {
    pub(super) target: Arc<ScrapeTarget>,
    pub(super) settings: Arc<ScrapeSettings>,
    pub(super) vitals: Arc<VitalCounters>,
    /// The number of targets, where it is above the limit.
    pub(super) excess: Option<usize>,
}

/// A target's task.
pub(super) struct TargetTask {
    context: RunContext<Scrape>,
    instance: Arc<Instance>,
    orders: watch::Receiver<Order>,
    assignment: Arc<Assignment>,
    status: StatusCell,
    cache: ScrapeCache,
    reports: ReportSeries,
    /// The reports alone, for scrapes that fail.
    report_list: Option<Arc<SeriesList>>,
    exemplars: LastExemplars,
    metadata: MetadataMemory,
    /// A hash of what the last page said about metric families, where labels depend on it.
    types: Option<u64>,
    /// When it was last due, in Unix milliseconds.
    last_due: Option<u64>,
    /// The timestamp of the last scrape, in Unix milliseconds.
    last_timestamp: Option<i64>,
}

/// What one scrape found.
struct Harvest {
    batches: Vec<MetricBatch>,
    report: Report,
}

// === impl TargetTask ===

impl TargetTask {
    pub(super) fn new(
        context: RunContext<Scrape>,
        instance: Arc<Instance>,
        assignment: Arc<Assignment>,
        status: StatusCell,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let reports = ReportSeries::new(&assignment.target.labels, assignment.settings.page.extra_metrics);
        Self {
            context,
            instance,
            orders,
            assignment,
            status,
            cache: ScrapeCache::new(),
            reports,
            report_list: None,
            exemplars: LastExemplars::default(),
            metadata: MetadataMemory::default(),
            types: None,
            last_due: None,
            last_timestamp: None,
        }
    }

    /// Follows orders until the target is gone.
    pub(super) async fn run(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            match order {
                Order::Scrape(assignment) => {
                    self.assign(assignment);
                    let target = &self.assignment.target;
                    let schedule = Schedule::new(target.interval, target.key);
                    let wall = now();
                    let due = schedule.after(self.last_due.map_or(wall, |last| last.max(wall)));
                    // A clock that was set back must not silence the target.
                    let (due, wait) = match due.saturating_sub(wall) {
                        wait if Duration::from_millis(wait) > target.interval => {
                            self.last_due = None;
                            (schedule.after(wall), schedule.after(wall) - wall)
                        }
                        wait => (due, wait),
                    };
                    tokio::select! {
                        biased;
                        changed = self.orders.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            continue;
                        }
                        () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                    }
                    if let Some(last) = self.last_due {
                        self.instance.meters.skipped.inc_by(schedule.missed(last, due));
                    }
                    self.last_due = Some(due);
                    // Boxed, so that a target that waits holds no space for a scrape under way.
                    Box::pin(self.scrape(schedule, due)).await;
                }
                Order::Pause => {
                    if self.orders.changed().await.is_err() {
                        return;
                    }
                }
                Order::Remove => {
                    let interval = self.interval();
                    let ends =
                        self.last_timestamp.map_or(0, |last| last as u64) + interval * REMOVAL_TENTHS / 10;
                    let wait = ends.saturating_sub(now()).min(interval * 3);
                    tokio::select! {
                        biased;
                        changed = self.orders.changed() => {
                            if changed.is_err() {
                                return;
                            }
                        }
                        () = tokio::time::sleep(Duration::from_millis(wait)) => {
                            self.end().await;
                            return;
                        }
                    }
                }
                Order::Retire => {
                    self.end().await;
                    return;
                }
                Order::Stop => return,
            }
        }
    }

    fn interval(&self) -> u64 {
        u64::try_from(self.assignment.target.interval.as_millis()).unwrap_or(u64::MAX / 100)
    }

    fn assign(&mut self, assignment: Arc<Assignment>) {
        if Arc::ptr_eq(&self.assignment, &assignment) {
            return;
        }
        if self.assignment.settings.page != assignment.settings.page {
            // Other rules make other series of the same lines.
            self.cache.clear();
            self.exemplars.clear();
            self.reports =
                ReportSeries::new(&assignment.target.labels, assignment.settings.page.extra_metrics);
            self.report_list = None;
        }
        if !Arc::ptr_eq(&self.assignment.target, &assignment.target) {
            self.status.lock().target = Arc::clone(&assignment.target);
        }
        self.metadata.forget();
        self.assignment = assignment;
    }

    async fn scrape(&mut self, schedule: Schedule, due: u64) {
        let assignment = Arc::clone(&self.assignment);
        let timestamp = schedule.timestamp(due, now());
        let started = Instant::now();
        let attempt = assignment.vitals.attempt();
        let fetched = self.fetch(&assignment).await;
        let (harvest, error) = match fetched {
            Ok(page) => {
                let size = page.body.len() as i64;
                let report = Report { body_size: size, ..Report::default() };
                match self.read(&assignment, &page, timestamp, started, report) {
                    Ok(harvest) => (harvest, None),
                    Err((error, report)) => {
                        (self.failed(&assignment, timestamp, started, report), Some(error))
                    }
                }
            }
            Err(error) => {
                let body_size = if matches!(error, ScrapeError::TooLarge { .. }) { -1 } else { 0 };
                let report = Report { body_size, ..Report::default() };
                (self.failed(&assignment, timestamp, started, report), Some(error))
            }
        };
        self.count(error.as_ref());
        let samples = harvest.report.scraped as u64;
        attempt.finish(if error.is_none() { Outcome::Ok } else { Outcome::Retryable }, samples.max(1));
        assignment.vitals.add_in(samples);
        let error = error.map(|error| error.shown());
        if let Some(error) = &error {
            self.instance.log_failure(&assignment, error);
        }
        if self.status.lock().note(timestamp, started.elapsed(), error) {
            self.instance.turned.notify_one();
        }
        self.last_timestamp = Some(timestamp);
        self.deliver(harvest.batches).await;
    }

    async fn fetch(&self, assignment: &Assignment) -> Result<Page, ScrapeError> {
        if let Some(count) = assignment.excess {
            return Err(ScrapeError::TargetLimit {
                count,
                limit: assignment.settings.arguments.target_limit,
            });
        }
        let in_process = self.instance.in_process.as_deref();
        let Assignment { target, settings, .. } = assignment;
        fetch(target, settings, &self.context, in_process, &self.instance.buffers).await
    }

    /// Turns a page into batches: the ends of series that it no longer has, and what it has with the reports.
    fn read(
        &mut self,
        assignment: &Assignment,
        page: &Page,
        timestamp: i64,
        started: Instant,
        mut report: Report,
    ) -> Result<Harvest, (ScrapeError, Report)> {
        let Assignment { target, settings, .. } = assignment;
        let rules = &settings.page;
        let mut renamed = Vec::new();
        let (mut cache, mut columns, said) = loop {
            let expected = self.cache.list().len();
            let cache = self.cache.begin();
            let mut sink =
                PageSink::new(cache, expected, rules, &target.labels, timestamp, &mut self.exemplars);
            let parsed = parse(page.format, &page.body, &settings.parse, &mut sink);
            let (cache, columns, said) = sink.into_parts();
            report.scraped = columns.scraped;
            report.kept = columns.kept;
            if columns.label_limit_exceeded {
                self.instance.meters.exceeded_label_limits.inc();
            }
            if let Err(error) = parsed {
                return Err((error.into(), report));
            }
            if rules.sample_limit > 0 && columns.limited > rules.sample_limit {
                return Err((ScrapeError::SampleLimit { limit: rules.sample_limit }, report));
            }
            let types = self.types.replace(said);
            if !rules.type_and_unit_labels || types.is_none_or(|types| types == said) {
                break (cache, columns, said);
            }
            // Series have other labels where their family has another type: all are looked at afresh.
            drop(cache);
            renamed = self.cache.end_all();
            self.cache.clear();
        };
        let new_reports = self.reports.append(&mut cache);
        let update = cache.finish();
        report.up = true;
        report.added = update.added.saturating_sub(new_reports);
        report.duration = started.elapsed().as_secs_f64();
        report.append(target, settings, &mut columns.values);
        if self.exemplars.len() > 2 * update.list.len() {
            self.exemplars.clear();
        }

        let mut batches = Vec::with_capacity(1);
        let kept: HashSet<&Series> =
            if renamed.is_empty() { HashSet::default() } else { update.list.iter().collect() };
        renamed.retain(|vanished| !kept.contains(&vanished.series));
        let ended = update.vanished.into_iter().chain(renamed);
        let ended = ended.filter(|vanished| !self.reports.contains(&vanished.series));
        batches.extend(ends(ended, rules.track_timestamps_staleness, timestamp));
        batches.extend(zeros(&update.list, &columns, self.last_timestamp, timestamp));
        let mut batch = assemble(update.list, columns, timestamp, &self.instance.meters.out_of_bounds);
        if rules.metadata {
            batch.metadata = self.metadata.changed(said, page, &settings.parse);
        }
        batches.push(batch);
        Ok(Harvest { batches, report })
    }

    /// What a failed scrape says: the ends of all series, and the reports.
    fn failed(
        &mut self,
        assignment: &Assignment,
        timestamp: i64,
        started: Instant,
        mut report: Report,
    ) -> Harvest {
        let Assignment { target, settings, .. } = assignment;
        report.duration = started.elapsed().as_secs_f64();
        let ended = self.cache.end_all().into_iter().filter(|v| !self.reports.contains(&v.series));
        let mut batches = Vec::with_capacity(1);
        batches.extend(ends(ended, settings.page.track_timestamps_staleness, timestamp));
        let mut values = Vec::with_capacity(self.reports.len());
        report.append(target, settings, &mut values);
        let list = self
            .report_list
            .get_or_insert_with(|| SeriesList::new(self.reports.iter().cloned().collect::<Vec<Series>>()));
        batches.push(MetricBatch::new(Arc::clone(list), values, Timestamps::One(timestamp)));
        Harvest { batches, report }
    }

    fn count(&self, error: Option<&ScrapeError>) {
        let meters = &self.instance.meters;
        match error {
            Some(ScrapeError::TooLarge { .. }) => meters.exceeded_body_size_limit.inc(),
            Some(ScrapeError::SampleLimit { .. }) => meters.exceeded_sample_limit.inc(),
            _ => {}
        }
    }

    /// Marks the end of all series, as of one interval after the last scrape.
    async fn end(&mut self) {
        let Some(last) = self.last_timestamp else { return };
        let timestamp = last.saturating_add(i64::try_from(self.interval()).unwrap_or(i64::MAX));
        let tracked = self.assignment.settings.page.track_timestamps_staleness;
        let ended = self.cache.end_all().into_iter().filter(|v| !self.reports.contains(&v.series));
        let mut batches: Vec<MetricBatch> = ends(ended, tracked, timestamp).into_iter().collect();
        let reports: Vec<Series> = self.reports.iter().cloned().collect();
        let values = vec![STALE_NAN; reports.len()];
        batches.push(MetricBatch::new(SeriesList::new(reports), values, Timestamps::One(timestamp)));
        self.deliver(batches).await;
    }

    /// Offers batches downstream, each until it is taken or refused for good. The lease is taken after the page was read and given
    /// back while nothing is offered.
    async fn deliver(&mut self, batches: Vec<MetricBatch>) {
        let cancellation = self.context.cancellation();
        let mut batches = batches.into_iter().map(Arc::new).peekable();
        let mut backoff = FIRST_BACKOFF;
        let mut entry = Some(self.context.enter());
        while let Some(batch) = batches.peek() {
            let samples = batch.sample_count() as u64;
            let current = entry.get_or_insert_with(|| self.context.enter());
            let began = Instant::now();
            let forwarded = current.flow().forward_metrics(Arc::clone(batch)).await;
            self.instance.meters.fanout_latency.observe(began.elapsed().as_secs_f64());
            let pause = match forwarded {
                Ok(()) => {
                    self.instance.meters.forwarded_samples.inc_by(samples);
                    self.assignment.vitals.add_out(samples);
                    backoff = FIRST_BACKOFF;
                    batches.next();
                    continue;
                }
                Err(DeliveryError::Permanent { reason }) => {
                    tracing::debug!(node = %self.context.node(), url = %self.assignment.target.url, reason, "samples were refused");
                    self.drop_samples(samples);
                    batches.next();
                    continue;
                }
                Err(DeliveryError::Cancelled) => CANCELLED_PAUSE,
                Err(DeliveryError::Retryable { after, .. }) => {
                    after.unwrap_or(backoff).clamp(FIRST_BACKOFF, LAST_BACKOFF)
                }
            };
            entry = None;
            backoff = (backoff * 2).min(LAST_BACKOFF);
            tokio::select! {
                biased;
                () = cancellation.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // The time to drain is over: what is left is lost, and counted.
        self.drop_samples(batches.map(|batch| batch.sample_count() as u64).sum());
    }

    fn drop_samples(&self, samples: u64) {
        self.instance.meters.dropped_samples.inc_by(samples);
        self.assignment.vitals.add_dropped(samples);
    }
}

/// A batch that marks the end of series.
fn ends(
    vanished: impl Iterator<Item = Vanished>,
    timestamped_too: bool,
    timestamp: i64,
) -> Option<MetricBatch> {
    let mut series = Vec::new();
    let mut histograms = Vec::new();
    for vanished in vanished.filter(|vanished| timestamped_too || !vanished.timestamped) {
        if vanished.histogram {
            let histogram = Arc::new(Histogram::stale());
            histograms.push(HistogramSample { series: vanished.series, timestamp, histogram, created: None });
        } else {
            series.push(vanished.series);
        }
    }
    if series.is_empty() && histograms.is_empty() {
        return None;
    }
    let values = vec![STALE_NAN; series.len()];
    let batch = MetricBatch::new(SeriesList::new(series), values, Timestamps::One(timestamp));
    Some(MetricBatch { histograms, ..batch })
}

/// A batch of zeros where counting began since the last scrape.
fn zeros(list: &SeriesList, columns: &Columns, since: Option<i64>, timestamp: i64) -> Option<MetricBatch> {
    let began = columns.created.iter().filter(|(_, created)| {
        *created > 0 && *created < timestamp && since.is_none_or(|since| *created > since)
    });
    let (series, times): (Vec<Series>, Vec<i64>) =
        began.filter_map(|(at, created)| Some((list.get(*at as usize)?.clone(), *created))).unzip();
    if series.is_empty() {
        return None;
    }
    let values = vec![0.0; series.len()];
    Some(MetricBatch::new(SeriesList::new(series), values, Timestamps::Each(times)))
}

/// The batch of a page; the values of the reports are behind its own.
fn assemble(
    list: Arc<SeriesList>,
    mut columns: Columns,
    timestamp: i64,
    out_of_bounds: &prometheus::IntCounter,
) -> MetricBatch {
    let timestamps = if columns.timestamps.is_empty() {
        Timestamps::One(timestamp)
    } else {
        columns.timestamps.resize(columns.values.len(), timestamp);
        Timestamps::Each(columns.timestamps)
    };
    let mut batch = MetricBatch::new(list, columns.values, timestamps);
    batch.created = columns.created;
    if !columns.out_of_bounds.is_empty() {
        out_of_bounds.inc_by(columns.out_of_bounds.len() as u64);
        batch = without(batch, &columns.out_of_bounds);
    }
    batch.histograms = columns.histograms;
    batch.exemplars = columns.exemplars;
    batch
}

/// The batch without the samples at some indices, which are ascending.
fn without(batch: MetricBatch, indices: &[u32]) -> MetricBatch {
    let mut places: HashMap<u32, u32> = HashMap::default();
    let mut series = Vec::new();
    let mut values = Vec::new();
    let mut times = Vec::new();
    for (at, (one, time, value)) in (0_u32..).zip(batch.samples()) {
        if indices.binary_search(&at).is_err() {
            places.insert(at, values.len() as u32);
            series.push(one.clone());
            values.push(value);
            times.push(time);
        }
    }
    let created = batch.created.iter().filter_map(|(at, time)| Some((*places.get(at)?, *time))).collect();
    MetricBatch { created, ..MetricBatch::new(SeriesList::new(series), values, Timestamps::Each(times)) }
}

/// The cell in which a target's task reports.
pub(super) fn status_of(target: &Arc<ScrapeTarget>) -> StatusCell {
    TargetStatus::new(Arc::clone(target))
}
