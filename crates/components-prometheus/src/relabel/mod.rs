//! `prometheus.relabel`: rewrites and drops series by rules on their way. It has no queue: a batch is answered when everything behind
//! it has answered.

mod cache;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use invar_blocks::{RelabelRuleBlock, RelabelRules};
use invar_engine::{
    Call, Check, Component, DeliveryError, ExportContext, InstanceContext, MetricsReceiver, PrepareError,
    RunContext, RunError, StateContext,
};
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_telemetry::{
    ExemplarSample, HistogramSample, MetricBatch, MetricMetadata, Series, SeriesList, Timestamps, is_stale,
    symbols,
};
use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter, IntGauge, Opts, Registry};

use self::cache::{CacheLimit, LookUps, Mapping, RelabelCache};
use crate::meters::{Registration, fanout_latency};

/// The component type.
#[derive(Debug)]
pub struct Relabel;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RelabelArguments {
    /// Receivers of what the rules keep; each gets all of it.
    #[argument(required, type_note = "any<storage.Appendable>")]
    pub forward_to: Vec<MetricsReceiver>,
    /// Rules, applied in order to each series.
    #[argument(block, name = "rule")]
    pub rules: Vec<RelabelRuleBlock>,
    /// How many series are remembered; 0 where `cache_ttl` decides.
    #[argument(default = "100000")]
    pub max_cache_size: i64,
    /// How long a series is remembered after its last use; 0 where `max_cache_size` decides.
    pub cache_ttl: Duration,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RelabelExports {
    /// Takes metrics; for the `forward_to` of other components.
    #[argument(type_note = "any<storage.Appendable>")]
    pub receiver: MetricsReceiver,
    /// The rules themselves.
    pub rules: RelabelRules,
}

/// The component's own metrics.
#[derive(Debug)]
pub struct Instance {
    registry: Option<Arc<Registry>>,
    processed: IntCounter,
    written: IntCounter,
    hits: IntCounter,
    misses: IntCounter,
    expired: IntCounter,
    size: IntGauge,
    fanout_latency: Histogram,
}

/// The rules, and what they made of series so far.
#[derive(Debug)]
pub struct State {
    cache: Arc<RelabelCache>,
}

impl Component for Relabel {
    const NAME: &'static str = "prometheus.relabel";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Rewrites and drops series by rules on their way to other components.";

    type Arguments = RelabelArguments;
    type Exports = RelabelExports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &RelabelArguments, check: &mut Check) {
        if let Err((field, message)) = arguments.limit() {
            check.error(field, message);
        }
    }

    fn instance(_arguments: &RelabelArguments, context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::new(context.node().as_str(), context.services().get()))
    }

    async fn state(
        arguments: Arc<RelabelArguments>,
        _instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let refused = |field: &str, message: String| PrepareError::invalid(format!("{field}: {message}"));
        let rules = RelabelRules::compile(&arguments.rules)
            .map_err(|error| refused(error.field, error.message.clone()))?;
        let limit = arguments.limit().map_err(|(field, message)| refused(field, message.to_owned()))?;
        let previous = context.previous::<Self>().map(|state| Arc::clone(&state.cache));
        let kept = previous.filter(|cache| *cache.rules() == rules && cache.limit() == limit);
        Ok(State { cache: kept.unwrap_or_else(|| Arc::new(RelabelCache::new(rules, limit))) })
    }

    fn exports(_instance: &Instance, state: &State, context: &ExportContext) -> RelabelExports {
        RelabelExports { receiver: context.receiver("receiver"), rules: state.cache.rules().clone() }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let batch = call.instance().relabel(&call.state().cache, batch);
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let forwarded = call.flow().forward_metrics(batch).await;
        call.instance().fanout_latency.observe(began.elapsed().as_secs_f64());
        forwarded
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let _registration = Registration::new(instance.registry.clone(), instance.collectors());
        context.draining().await;
        Ok(())
    }
}

// === impl RelabelArguments ===

impl RelabelArguments {
    fn limit(&self) -> Result<CacheLimit, (&'static str, &'static str)> {
        match usize::try_from(self.max_cache_size) {
            Err(_) => Err(("max_cache_size", "must not be negative")),
            Ok(0) if self.cache_ttl.is_zero() => {
                Err(("max_cache_size", "must be greater than 0, unless cache_ttl is set"))
            }
            Ok(0) if self.cache_ttl < Duration::from_secs(60) => Err(("cache_ttl", "must be at least 1m")),
            Ok(0) => Ok(CacheLimit::Age(self.cache_ttl)),
            Ok(_) if !self.cache_ttl.is_zero() => {
                Err(("cache_ttl", "needs max_cache_size = 0: only one of the two can bound the cache"))
            }
            Ok(size) => Ok(CacheLimit::Size(size)),
        }
    }
}

// === impl Instance ===

impl Instance {
    fn new(component: &str, registry: Option<Arc<Registry>>) -> Self {
        let options = |name: &str, help: &str| Opts::new(name, help).const_label("component_id", component);
        let invalid = "the names of these metrics are valid";
        let counter = |name: &str, help: &str| {
            IntCounter::with_opts(options(name, help))
                .unwrap_or_else(|error| unreachable!("{invalid}: {error}"))
        };
        let size = options("prometheus_relabel_cache_size", "Series that are remembered one by one");
        Self {
            registry,
            processed: counter("prometheus_relabel_metrics_processed", "Samples that came in"),
            written: counter("prometheus_relabel_metrics_written", "Samples that went on"),
            hits: counter("prometheus_relabel_cache_hits", "Samples whose result was known"),
            misses: counter("prometheus_relabel_cache_misses", "Series whose result was worked out"),
            expired: counter("prometheus_relabel_cache_ttl_evictions", "Series forgotten for their age"),
            fanout_latency: fanout_latency(component),
            size: IntGauge::with_opts(size).unwrap_or_else(|error| unreachable!("{invalid}: {error}")),
        }
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let counters = [&self.processed, &self.written, &self.hits, &self.misses, &self.expired];
        let mut collectors: Vec<Box<dyn Collector>> = Vec::with_capacity(7);
        for counter in counters {
            collectors.push(Box::new(counter.clone()));
        }
        collectors.push(Box::new(self.size.clone()));
        collectors.push(Box::new(self.fanout_latency.clone()));
        collectors
    }

    fn relabel(&self, cache: &RelabelCache, batch: Arc<MetricBatch>) -> Arc<MetricBatch> {
        self.processed.inc_by(batch.sample_count() as u64);
        let mut look_ups = LookUps::default();
        let ended: Vec<Series> = (batch.series.iter().zip(&batch.values))
            .filter(|(_, value)| is_stale(**value))
            .map(|(series, _)| series.clone())
            .chain((batch.histograms.iter()).filter(|h| h.histogram.is_stale()).map(|h| h.series.clone()))
            .collect();
        let result = apply(cache, batch, &mut look_ups);
        for series in &ended {
            cache.forget(series);
        }
        self.written.inc_by(result.sample_count() as u64);
        self.hits.inc_by(look_ups.hits);
        if look_ups.misses > 0 || look_ups.expired > 0 || !ended.is_empty() {
            self.misses.inc_by(look_ups.misses);
            self.expired.inc_by(look_ups.expired);
            self.size.set(i64::try_from(cache.len()).unwrap_or(i64::MAX));
        }
        result
    }
}

/// The batch as the rules leave it.
fn apply(cache: &RelabelCache, batch: Arc<MetricBatch>, look_ups: &mut LookUps) -> Arc<MetricBatch> {
    let mapping = cache.list(&batch.series, look_ups);
    let only_floats = batch.histograms.is_empty() && batch.exemplars.is_empty() && batch.metadata.is_empty();
    if only_floats && matches!(mapping, Mapping::Same) {
        return batch;
    }
    let mut result = match mapping {
        Mapping::Same => floats(&batch, Arc::clone(&batch.series)),
        Mapping::All(list) => floats(&batch, list),
        Mapping::Some(list, places) => floats_at(&batch, list, &places),
    };
    result.histograms = (batch.histograms.iter())
        .filter_map(|sample| {
            let series = cache.series(&sample.series, look_ups)?;
            Some(HistogramSample { series, ..sample.clone() })
        })
        .collect();
    result.exemplars = (batch.exemplars.iter())
        .filter_map(|sample| {
            let series = cache.series(&sample.series, look_ups)?;
            Some(ExemplarSample { series, exemplar: sample.exemplar.clone() })
        })
        .collect();
    result.metadata = metadata(&batch.metadata, &result);
    Arc::new(result)
}

/// The float samples of a batch under another list of as many series.
fn floats(batch: &MetricBatch, list: Arc<SeriesList>) -> MetricBatch {
    let result = MetricBatch::new(list, batch.values.clone(), batch.timestamps.clone());
    MetricBatch { created: batch.created.clone(), ..result }
}

/// The float samples at some places of a batch.
fn floats_at(batch: &MetricBatch, list: Arc<SeriesList>, places: &[u32]) -> MetricBatch {
    let values = places.iter().map(|&place| batch.values[place as usize]).collect();
    let timestamps = match &batch.timestamps {
        Timestamps::One(timestamp) => Timestamps::One(*timestamp),
        Timestamps::Each(each) => {
            Timestamps::Each(places.iter().map(|&place| each[place as usize]).collect())
        }
    };
    let created = (batch.created.iter())
        .filter_map(|(place, time)| Some((places.binary_search(place).ok()? as u32, *time)))
        .collect();
    MetricBatch { created, ..MetricBatch::new(list, values, timestamps) }
}

/// What is said about families of which the result still has a series.
fn metadata(metadata: &[Arc<MetricMetadata>], result: &MetricBatch) -> Vec<Arc<MetricMetadata>> {
    const SUFFIXES: [&str; 6] = ["_bucket", "_count", "_sum", "_total", "_info", "_created"];
    if metadata.is_empty() {
        return Vec::new();
    }
    let reader = symbols();
    let series = result.series.iter().chain(result.histograms.iter().map(|sample| &sample.series));
    let mut names: HashSet<&str> = HashSet::new();
    for name in series.map(|series| series.metric_name(&reader)) {
        names.insert(name);
        names.extend(SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)));
    }
    metadata.iter().filter(|metadata| names.contains(metadata.family.as_str())).cloned().collect()
}
