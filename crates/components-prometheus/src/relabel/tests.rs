//! What rules make of batches, and that memory of it changes nothing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use invar_engine::harness::Harness;
use invar_telemetry::histogram::Histogram;
use invar_telemetry::{Exemplar, Labels, LabelsBuilder, MetricKind, STALE_NAN, Verdict, relabel};
use proptest::prelude::*;

use super::*;

const RULES: &str = r#"
forward_to = [harness.capture.out.receiver]
rule {
  source_labels = ["__name__"]
  regex         = "dropped.*"
  action        = "drop"
}
rule {
  source_labels = ["from"]
  target_label  = "to"
}
rule {
  regex  = "from"
  action = "labeldrop"
}
"#;

fn series(labels: &[(&str, &str)]) -> Series {
    Series::new(&labels.iter().copied().collect::<Labels>())
}

fn batch(series: Vec<Series>, first: f64) -> Arc<MetricBatch> {
    let values = (0..series.len()).map(|at| first + at as f64).collect();
    Arc::new(MetricBatch::new(SeriesList::new(series), values, Timestamps::One(7)))
}

fn samples(batches: &[Arc<MetricBatch>]) -> BTreeMap<String, f64> {
    let samples = batches.iter().flat_map(|batch| batch.samples());
    samples.map(|(series, _, value)| (series.to_string(), value)).collect()
}

fn counter(harness: &Harness<Relabel>, counter: impl Fn(&Instance) -> &IntCounter) -> u64 {
    counter(&harness.instance().unwrap()).get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_are_rewritten_dropped_and_remembered_by_list() {
    let harness = Harness::<Relabel>::new(RULES).await.unwrap();
    let input = batch(
        vec![
            series(&[("__name__", "a"), ("from", "x")]),
            series(&[("__name__", "dropped_b")]),
            series(&[("__name__", "c")]),
        ],
        1.0,
    );
    harness.feed(Arc::clone(&input)).await.unwrap();
    harness.feed(Arc::clone(&input)).await.unwrap();
    let captured = harness.captured();
    let expected: BTreeMap<String, f64> =
        [(r#"{__name__="a", to="x"}"#.to_owned(), 1.0), (r#"{__name__="c"}"#.to_owned(), 3.0)].into();
    assert_eq!(samples(&captured[..1]), expected);
    assert_eq!(captured[0].series.id(), captured[1].series.id());
    assert_eq!(counter(&harness, |own| &own.processed), 6);
    assert_eq!(counter(&harness, |own| &own.written), 4);
    assert_eq!(counter(&harness, |own| &own.misses), 3);
    assert_eq!(counter(&harness, |own| &own.hits), 3);

    // The same rules keep the memory, others do not.
    harness.update(&format!("{RULES}\nmax_cache_size = 100000")).await.unwrap();
    harness.feed(Arc::clone(&input)).await.unwrap();
    assert_eq!(counter(&harness, |own| &own.misses), 3);
    harness.update(&RULES.replace("\"to\"", "\"onto\"")).await.unwrap();
    drop(harness.captured());
    harness.feed(input).await.unwrap();
    assert!(samples(&harness.captured()).contains_key(r#"{__name__="a", onto="x"}"#));
    assert_eq!(counter(&harness, |own| &own.misses), 6);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_a_batch_carries_takes_the_same_path() {
    let harness = Harness::<Relabel>::new(RULES).await.unwrap();
    let kept = series(&[("__name__", "h_total"), ("from", "x")]);
    let dropped = series(&[("__name__", "dropped")]);
    let histogram = |series: &Series| HistogramSample {
        series: series.clone(),
        timestamp: 5,
        histogram: Arc::new(Histogram::empty()),
        created: Some(3),
    };
    let exemplar = |series: &Series| ExemplarSample {
        series: series.clone(),
        exemplar: Exemplar { labels: Labels::default(), value: 1.0, timestamp: None },
    };
    let about = |family: &str| {
        let (family, help) = (family.to_owned(), String::new());
        Arc::new(MetricMetadata { family, kind: MetricKind::Counter, help, unit: String::new() })
    };
    let mut input = MetricBatch::new(
        SeriesList::new([dropped.clone(), kept.clone()]),
        vec![1.0, 2.0],
        Timestamps::Each(vec![10, 20]),
    );
    input.created = vec![(0, 1), (1, 2)];
    input.histograms = vec![histogram(&dropped), histogram(&kept)];
    input.exemplars = vec![exemplar(&dropped), exemplar(&kept)];
    input.metadata = vec![about("dropped"), about("h")];
    harness.feed(Arc::new(input)).await.unwrap();
    let captured = harness.captured();
    let output = &captured[0];
    let relabelled = series(&[("__name__", "h_total"), ("to", "x")]);
    assert_eq!(&output.series[..], std::slice::from_ref(&relabelled));
    assert_eq!(output.timestamps, Timestamps::Each(vec![20]));
    assert_eq!(output.created, [(0, 2)]);
    assert_eq!(output.histograms, [HistogramSample { series: relabelled.clone(), ..histogram(&kept) }]);
    assert_eq!(output.exemplars, [ExemplarSample { series: relabelled, ..exemplar(&kept) }]);
    assert_eq!(output.metadata, [about("h")]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_left_is_nothing_sent_and_nothing_changed_is_the_same_batch() {
    let harness = Harness::<Relabel>::new(RULES).await.unwrap();
    harness.feed(batch(vec![series(&[("__name__", "dropped")])], 0.0)).await.unwrap();
    assert!(harness.captured().is_empty());
    let input = batch(vec![series(&[("__name__", "plain")])], 0.0);
    harness.feed(Arc::clone(&input)).await.unwrap();
    assert!(Arc::ptr_eq(&harness.captured()[0], &input));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_series_takes_it_out_of_the_cache() {
    let harness = Harness::<Relabel>::new(RULES).await.unwrap();
    let one = series(&[("__name__", "a")]);
    harness.feed(batch(vec![one.clone()], 0.0)).await.unwrap();
    assert_eq!(harness.instance().unwrap().size.get(), 1);
    let end = MetricBatch::new(SeriesList::new([one]), vec![STALE_NAN], Timestamps::One(9));
    harness.feed(Arc::new(end)).await.unwrap();
    assert_eq!(harness.instance().unwrap().size.get(), 0);
    assert!(is_stale(harness.captured()[1].values[0]));
    harness.shutdown().await;
}

#[tokio::test]
async fn contradicting_bounds_are_refused() {
    for (bounds, part) in [
        ("max_cache_size = 0", "must be greater than 0"),
        ("max_cache_size = -1", "must not be negative"),
        ("cache_ttl = \"5m\"", "only one"),
        ("max_cache_size = 0\ncache_ttl = \"30s\"", "at least 1m"),
    ] {
        let refused = Harness::<Relabel>::new(&format!("forward_to = []\n{bounds}")).await;
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(part), "{bounds}: {message}");
    }
    Harness::<Relabel>::new("forward_to = []\nmax_cache_size = 0\ncache_ttl = \"1m\"").await.unwrap();
}

fn no_rules(limit: CacheLimit) -> RelabelCache {
    RelabelCache::new(RelabelRules::none(), limit)
}

#[tokio::test(start_paused = true)]
async fn age_bounds_what_is_not_used() {
    let minute = Duration::from_secs(60);
    let cache = no_rules(CacheLimit::Age(minute));
    let (used, idle) = (series(&[("a", "1")]), series(&[("a", "2")]));
    let mut look_ups = LookUps::default();
    cache.series(&used, &mut look_ups);
    cache.series(&idle, &mut look_ups);
    for _ in 0..3 {
        tokio::time::advance(minute).await;
        cache.series(&used, &mut look_ups);
    }
    assert_eq!(look_ups, LookUps { hits: 3, misses: 2, expired: 1 });
    tokio::time::advance(10 * minute).await;
    cache.series(&idle, &mut look_ups);
    assert_eq!((cache.len(), look_ups.misses, look_ups.expired), (1, 3, 2));
}

#[test]
fn what_died_is_not_kept() {
    let cache = no_rules(CacheLimit::Size(10));
    let mut rules_of_list = LookUps::default();
    let weak: Vec<_> = (0..1000)
        .map(|at: i32| {
            let list = SeriesList::new([series(&[("a", &at.to_string())])]);
            cache.list(&list, &mut rules_of_list);
            Arc::downgrade(&list)
        })
        .collect();
    assert!(weak.iter().all(|list| list.strong_count() == 0));
    assert!(cache.list_count() <= 64, "{}", cache.list_count());
    assert!(cache.len() <= 10);
}

proptest! {
    #[test]
    fn the_cache_changes_nothing(
        size in 1_usize..6,
        lists in prop::collection::vec(prop::collection::vec((0_u8..8, 0_u8..3), 0..6), 1..12),
    ) {
        let blocks = [
            RelabelRuleBlock { target_label: "b".into(), source_labels: vec!["a".into()], ..RelabelRuleBlock::defaults() },
        ];
        let rules = RelabelRules::compile(&blocks).unwrap();
        let cache = RelabelCache::new(rules.clone(), CacheLimit::Size(size));
        let mut look_ups = LookUps::default();
        for list in lists {
            let list: Vec<Series> =
                list.iter().map(|(a, c)| series(&[("a", &a.to_string()), ("c", &c.to_string())])).collect();
            let expected: Vec<Series> = list
                .iter()
                .filter_map(|series| {
                    let mut labels = LabelsBuilder::from_labels(&series.to_labels());
                    (relabel(&rules.0, &mut labels) == Verdict::Keep).then(|| labels.series())
                })
                .collect();
            let list = SeriesList::new(list);
            let found = match cache.list(&list, &mut look_ups) {
                Mapping::Same => list,
                Mapping::All(found) | Mapping::Some(found, _) => found,
            };
            prop_assert_eq!(&found[..], &expected[..]);
            prop_assert!(cache.len() <= size.max(2));
        }
    }
}
