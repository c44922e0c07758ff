#![allow(clippy::unwrap_used)]

use super::*;

fn integer(schema: i32, spans: &[(i32, u32)], deltas: &[i64]) -> Histogram {
    let count = buckets::sum(deltas).unwrap();
    Histogram {
        schema,
        positive_spans: spans.iter().map(|&(offset, length)| Span { offset, length }).collect(),
        counts: HistogramCounts::Integer {
            count,
            zero_count: 0,
            positive_deltas: deltas.to_vec(),
            negative_deltas: Vec::new(),
        },
        ..Histogram::empty()
    }
}

fn spans(histogram: &Histogram) -> Vec<(i32, u32)> {
    histogram.positive_spans.iter().map(|span| (span.offset, span.length)).collect()
}

fn positive(histogram: &Histogram) -> Vec<i64> {
    match &histogram.counts {
        HistogramCounts::Integer { positive_deltas, .. } => positive_deltas.clone(),
        HistogramCounts::Float { positive_counts, .. } => {
            positive_counts.iter().map(|&count| count as i64).collect()
        }
    }
}

#[test]
fn compaction_removes_empty_buckets_and_keeps_short_gaps() {
    // Counts 0 1 0 2 0 0 0 3 0 from index -1 on.
    let mut tight = integer(0, &[(-1, 9)], &[0, 1, -1, 2, -2, 0, 0, 3, -3]);
    let mut loose = tight.clone();
    tight.compact(0);
    assert_eq!((spans(&tight), positive(&tight)), (vec![(0, 1), (1, 1), (3, 1)], vec![1, 1, 1]));
    loose.compact(2);
    assert_eq!((spans(&loose), positive(&loose)), (vec![(0, 3), (3, 1)], vec![1, -1, 2, 1]));
    assert_eq!(tight.validate(), Ok(()));
    assert_eq!(loose.validate(), Ok(()));
}

#[test]
fn halving_the_resolution_merges_pairs_of_buckets() {
    // Indices 1..=6 hold 1 1 1 1 1 1; in the coarser schema (1,2] (3,4] (5,6] become 1, 2, 3.
    let mut histogram = integer(1, &[(1, 6)], &[1, 0, 0, 0, 0, 0]);
    histogram.reduce_resolution(0).unwrap();
    assert_eq!((spans(&histogram), positive(&histogram)), (vec![(1, 3)], vec![2, 0, 0]));
    assert_eq!(histogram.schema, 0);
    histogram.limit_buckets(1).unwrap();
    assert_eq!(histogram.bucket_count(), 1);
    assert_eq!(histogram.limit_buckets(0), Err(HistogramError::TooManyBuckets));
}

#[test]
fn validation_finds_contradictions() {
    let good = integer(3, &[(0, 2)], &[1, 1]);
    assert_eq!(good.validate(), Ok(()));
    assert_eq!(Histogram { schema: 9, ..good.clone() }.validate(), Err(HistogramError::Schema(9)));
    assert_eq!(
        integer(0, &[(0, 3)], &[1, 1]).validate(),
        Err(HistogramError::SpansMismatch { spans: 3, buckets: 2 })
    );
    assert_eq!(integer(0, &[(0, 1), (-1, 1)], &[1, 1]).validate(), Err(HistogramError::NegativeOffset));
    let mut wrong = good.clone();
    if let HistogramCounts::Integer { count, .. } = &mut wrong.counts {
        *count = 7;
    }
    assert_eq!(wrong.validate(), Err(HistogramError::CountMismatch { buckets: 3, count: 7 }));
    // With NaN observations the count may exceed the buckets.
    wrong.sum = f64::NAN;
    assert_eq!(wrong.validate(), Ok(()));
    let custom = Histogram { schema: CUSTOM_BUCKETS_SCHEMA, custom_values: vec![1.0, 1.0], ..good };
    assert_eq!(custom.validate(), Err(HistogramError::CustomBounds));
}

#[test]
fn float_form_has_absolute_counts() {
    let float = integer(0, &[(0, 3)], &[2, 1, -1]).to_float();
    assert_eq!(positive(&float), [2, 3, 2]);
    assert_eq!(float.validate(), Ok(()));
}

#[test]
fn staleness_is_in_the_sum() {
    assert!(Histogram::stale().is_stale());
    assert!(!Histogram { sum: f64::NAN, ..Histogram::empty() }.is_stale());
}

#[test]
fn classic_samples_become_custom_buckets() {
    let mut classic = ClassicHistogram::default();
    for (bound, count) in [(5.0, 3.0), (1.0, 1.0), (f64::INFINITY, 10.0), (1.0, 99.0)] {
        classic.set_bucket(bound, count);
    }
    classic.set_sum(40.5);
    classic.set_count(10.0);
    let histogram = classic.convert().unwrap();
    assert_eq!(histogram.custom_values, [1.0, 5.0]);
    assert_eq!(positive(&histogram), [1, 1, 5]);
    assert_eq!(histogram.validate(), Ok(()));

    classic.clear();
    classic.set_bucket(1.0, 0.5);
    classic.set_count(2.0);
    let histogram = classic.convert().unwrap();
    assert!(matches!(histogram.counts, HistogramCounts::Float { count: 2.0, .. }));
    assert_eq!(histogram.validate(), Ok(()));

    classic.clear();
    classic.set_bucket(1.0, 5.0);
    classic.set_bucket(2.0, 4.0);
    assert_eq!(classic.convert(), Err(ClassicHistogramError::NotCumulative));
    classic.clear();
    classic.set_bucket(f64::INFINITY, 5.0);
    classic.set_count(4.0);
    assert_eq!(classic.convert(), Err(ClassicHistogramError::CountMismatch));
}

#[test]
fn factors_pick_schemas_as_prometheus_does() {
    for (factor, schema) in [(0.0, 8), (1.0, 8), (1.1, 2), (2.0, 0), (4.0, -1), (65536.0, -4), (1e9, -4)] {
        assert_eq!(schema_for_factor(factor), schema, "{factor}");
    }
}
