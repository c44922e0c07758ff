//! What applying a configuration costs: parsing, the static check, planning, preparing, the swap, and a batch's way through the
//! graph. The aim: 1 000 components in less than 50 ms, 10 000 in less than a second, a swap in less than a millisecond.

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use invar_engine::harness::Harness;
use invar_engine::{
    Call, Component, Configuration, DeliveryError, Engine, EngineOptions, ExportContext, InstanceContext,
    MetricsReceiver, PrepareError, PrepareMode, Registry, Stability, StateContext, configuration::Inputs,
    validate,
};
use invar_syntax::arguments::{Arguments, Exports};
use invar_telemetry::{Labels, MetricBatch, Series, SeriesList, Timestamps};

/// A component with arguments of the usual size.
struct Stage;

#[derive(Clone, PartialEq, Debug, Arguments)]
struct StageArguments {
    /// Where batches go.
    forward_to: Vec<MetricsReceiver>,
    /// An attribute that differs between configurations.
    tag: String,
    /// How often.
    #[argument(default = "\"60s\"")]
    interval: Duration,
    /// Nested blocks.
    #[argument(block, name = "rule")]
    rules: Vec<RuleArguments>,
}

#[derive(Clone, PartialEq, Debug, Arguments)]
struct RuleArguments {
    /// Which labels.
    source_labels: Vec<String>,
    /// What they look like.
    #[argument(default = "\"(.*)\"")]
    regex: String,
    /// What to do.
    action: String,
}

#[derive(Clone, PartialEq, Debug, Exports)]
struct StageExports {
    /// Takes batches.
    receiver: MetricsReceiver,
}

impl Component for Stage {
    const NAME: &'static str = "bench.stage";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = StageArguments;
    type Exports = StageExports;
    type Instance = ();
    type State = ();

    fn instance(_: &Self::Arguments, _: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(_: Arc<Self::Arguments>, _: Arc<()>, _: StateContext) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports(_: &(), _: &(), context: &ExportContext) -> Self::Exports {
        StageExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        call.flow().forward_metrics(batch).await
    }
}

/// Chains of ten stages. Every tenth node carries the tag.
fn text(components: usize, tag: usize) -> String {
    let mut text = String::new();
    for index in 0..components {
        let forward_to = match index % 10 {
            0 => String::new(),
            _ => format!("bench.stage.s{}.receiver", index - 1),
        };
        let tag = if index % 10 == 9 { tag } else { 0 };
        writeln!(
            text,
            "bench.stage \"s{index}\" {{
                forward_to = [{forward_to}]
                tag        = \"{tag}\"
                interval   = \"15s\"
                rule {{
                    source_labels = [\"__name__\", \"job\"]
                    regex         = \"go_.*;\" + \"prometheus\"
                    action        = \"drop\"
                }}
            }}"
        )
        .unwrap();
    }
    text
}

fn parse(text: &str) -> Arc<Configuration> {
    Arc::new(Configuration::parse([("bench.alloy", text)], Inputs::default(), "bench").unwrap())
}

fn engine() -> Engine {
    Engine::new(EngineOptions::new(Registry::new().with::<Stage>(), std::env::temp_dir()))
}

fn configurations(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let registry = Registry::new().with::<Stage>();
    for components in [1_000, 10_000] {
        let mut group = criterion.benchmark_group(format!("{components} components"));
        group.sample_size(10).measurement_time(Duration::from_secs(5));
        let source = text(components, 0);
        let configuration = parse(&source);
        group.bench_function("parse", |bench| bench.iter(|| parse(black_box(&source))));
        group.bench_function("check", |bench| bench.iter(|| validate(&registry, black_box(&configuration))));
        group.bench_function("prepare from nothing", |bench| {
            let engine = engine();
            bench.iter_batched(
                || Arc::clone(&configuration),
                |configuration| {
                    runtime.block_on(engine.prepare(configuration, PrepareMode::AllOrNothing)).unwrap()
                },
                BatchSize::PerIteration,
            );
        });
        let running = engine();
        runtime.block_on(async {
            let prepared =
                running.prepare(Arc::clone(&configuration), PrepareMode::AllOrNothing).await.unwrap();
            running.cut(prepared, |_| Ok::<(), Infallible>(())).await.unwrap();
            running.commit().await;
        });
        let next = text(components, 1);
        group.bench_function("plan a change of a tenth", |bench| {
            let next = parse(&next);
            bench.iter(|| running.plan(black_box(&next)).unwrap());
        });
        group.bench_function("parse, check, plan and prepare a change of a tenth", |bench| {
            bench.iter(|| {
                let next = parse(black_box(&next));
                assert!(!running.check(&next).has_errors());
                running.plan(&next).unwrap();
                runtime.block_on(running.prepare(next, PrepareMode::AllOrNothing)).unwrap()
            });
        });
        group.bench_function("cut and settle", |bench| {
            let (one, two) = (parse(&next), Arc::clone(&configuration));
            let mut turn = false;
            bench.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    turn = !turn;
                    let configuration = Arc::clone(if turn { &one } else { &two });
                    total += runtime.block_on(async {
                        let prepared =
                            running.prepare(configuration, PrepareMode::AllOrNothing).await.unwrap();
                        let started = Instant::now();
                        running.cut(prepared, |_| Ok::<(), Infallible>(())).await.unwrap();
                        let elapsed = started.elapsed();
                        running.commit().await;
                        elapsed
                    });
                }
                total
            });
        });
        group.finish();
        let swaps = running.metrics().gather();
        let swap = swaps.iter().find(|family| family.name() == "invar_swap_seconds").unwrap();
        let histogram = swap.get_metric()[0].get_histogram();
        #[allow(clippy::cast_precision_loss)]
        let mean = histogram.get_sample_sum() / histogram.get_sample_count() as f64;
        println!("{components} components: the store itself takes {:.1} µs on average", mean * 1e6);
        runtime.block_on(running.shutdown(Duration::from_secs(10)));
    }
}

fn batches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let harness = runtime.block_on(Harness::<Stage>::new("")).unwrap();
    let series = SeriesList::new(vec![Series::new(&Labels::default())]);
    let batch = Arc::new(MetricBatch::new(series, vec![1.0], Timestamps::One(0)));
    criterion.bench_function("enter a generation and call one component", |bench| {
        bench.iter(|| runtime.block_on(harness.feed(Arc::clone(&batch))).unwrap());
    });
    runtime.block_on(harness.shutdown());
}

/// How long data on the runtime's only worker waits while a configuration is applied beside it: what ticks every
/// millisecond there says how late it is.
fn holds(_: &mut Criterion) {
    // As a test it only has to run.
    let turns = if std::env::args().any(|argument| argument == "--bench") { 21 } else { 2 };
    for components in [1_000, 10_000] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let engine = engine();
        let next = [parse(&text(components, 0)), parse(&text(components, 1))];
        let latest = Arc::new(AtomicU64::new(0));
        let ticking = Arc::clone(&latest);
        let ticks = runtime.spawn(async move {
            loop {
                let due = tokio::time::Instant::now() + Duration::from_millis(1);
                tokio::time::sleep_until(due).await;
                let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                ticking.fetch_max(late, Ordering::Relaxed);
            }
        });
        let mut lateness = Vec::new();
        for turn in 0..turns {
            let (engine, configuration) = (engine.clone(), Arc::clone(&next[turn % 2]));
            latest.store(0, Ordering::Relaxed);
            // As a task, for that is what runs on the worker.
            let applied = runtime.spawn(async move {
                let prepared = engine.prepare(configuration, PrepareMode::AllOrNothing).await.unwrap();
                engine.cut(prepared, |_| Ok::<(), Infallible>(())).await.unwrap();
                engine.commit().await;
            });
            runtime.block_on(applied).unwrap();
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
            // The first one starts everything.
            if turn > 0 {
                lateness.push(latest.load(Ordering::Relaxed));
            }
        }
        ticks.abort();
        lateness.sort_unstable();
        let (median, worst) = (lateness[lateness.len() / 2], lateness[lateness.len() - 1]);
        println!(
            "{components} components: the worker was held for {median} µs (median), {worst} µs (worst) an apply"
        );
        runtime.block_on(engine.shutdown(Duration::from_secs(10)));
    }
}

criterion_group!(benches, configurations, batches, holds);
criterion_main!(benches);
