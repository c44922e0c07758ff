//! The codecs against messages that prost derives from the protocol's field numbers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::message::{parse_histogram, put_exemplar, put_histogram};
use super::*;
use crate::histogram::{CounterResetHint, HistogramCounts, Span};
use crate::{Exemplar, Histogram, Labels, MetricKind, MetricMetadata, Series, symbols};

mod v1 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<MetricMetadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<super::WireHistogram>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(int64, tag = "3")]
        pub(super) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
        #[prost(string, tag = "2")]
        pub(super) metric_family_name: String,
        #[prost(string, tag = "4")]
        pub(super) help: String,
        #[prost(string, tag = "5")]
        pub(super) unit: String,
    }
}

mod v2 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(string, repeated, tag = "4")]
        pub(super) symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub(super) timeseries: Vec<TimeSeries>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) histograms: Vec<super::WireHistogram>,
        #[prost(message, repeated, tag = "4")]
        pub(super) exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub(super) metadata: Option<Metadata>,
        #[prost(int64, tag = "6")]
        pub(super) created_timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
        #[prost(int64, tag = "3")]
        pub(super) start_timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub(super) value: f64,
        #[prost(int64, tag = "3")]
        pub(super) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(int32, tag = "1")]
        pub(super) kind: i32,
        #[prost(uint32, tag = "3")]
        pub(super) help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub(super) unit_ref: u32,
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireHistogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
    #[prost(int64, tag = "17")]
    start_timestamp: i64,
}
#[derive(Clone, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}
#[derive(Clone, PartialEq, prost::Oneof)]
enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Int(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}
#[derive(Clone, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let name = prop_oneof!["[a-z]{1,3}", "__[a-z]{1,2}", "é[a-z]{0,2}"];
    prop::collection::vec((name, "[a-zA-Z0-9é ]{1,12}"), 0..8).prop_map(|mut pairs| {
        pairs.push(("__name__".to_owned(), "metric".to_owned()));
        pairs.into_iter().collect()
    })
}

/// The labels that should reach the wire: the oracle of merging.
fn merged(series: &Labels, external: &Labels) -> Vec<(String, String)> {
    let mut all: std::collections::BTreeMap<String, String> =
        external.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    all.extend(series.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    all.into_iter().filter(|(name, _)| name == "__name__" || !name.starts_with("__")).collect()
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    let spans = |n: usize| if n == 0 { vec![] } else { vec![Span { offset: -3, length: n as u32 }] };
    let exponential = (-4..=8i32, any::<bool>(), prop::collection::vec(-5i64..50, 0..6), 0u64..1_000_000);
    exponential.prop_map(move |(schema, float, buckets, count)| Histogram {
        reset_hint: CounterResetHint::NotReset,
        schema,
        zero_threshold: 0.001,
        sum: count as f64 * 1.5,
        positive_spans: spans(buckets.len()),
        negative_spans: spans(buckets.len() / 2),
        counts: if float {
            HistogramCounts::Float {
                count: count as f64,
                zero_count: 0.0,
                positive_counts: buckets.iter().map(|bucket| *bucket as f64).collect(),
                negative_counts: buckets[..buckets.len() / 2].iter().map(|bucket| *bucket as f64).collect(),
            }
        } else {
            HistogramCounts::Integer {
                count,
                zero_count: 0,
                negative_deltas: buckets[..buckets.len() / 2].to_vec(),
                positive_deltas: buckets,
            }
        },
        custom_values: vec![],
    })
}

fn uncompressed(request: &EncodedRequest) -> Vec<u8> {
    let message = decompress(&request.body, 1 << 30).unwrap();
    assert_eq!(message.len(), request.uncompressed);
    message
}

proptest! {
    #[test]
    fn version_1_is_what_prost_reads(
        sets in prop::collection::vec((any_labels(), any::<i64>(), any::<f64>()), 1..20),
        external in any_labels(),
    ) {
        let series: Vec<_> = sets.iter().map(|(labels, ..)| Series::new(labels)).collect();
        let mut encoder = RequestEncoder::new(Protocol::V1, external.clone());
        {
            let reader = symbols();
            for (series, (_, timestamp, value)) in series.iter().zip(&sets) {
                encoder.sample(&reader, series, *timestamp, *value, SeriesDetails::default());
            }
        }
        let request = encoder.take().unwrap();
        prop_assert_eq!(request.counts.samples, sets.len());
        let message = uncompressed(&request);
        let decoded = v1::WriteRequest::decode(&message[..]).unwrap();
        // prost leaves negative zero out, which would lose the sign.
        if sets.iter().all(|(_, _, value)| value.to_bits() != (-0.0f64).to_bits()) {
            prop_assert_eq!(decoded.encoded_len(), message.len(), "canonical length");
        }
        for (timeseries, (labels, timestamp, value)) in decoded.timeseries.iter().zip(&sets) {
            let got: Vec<_> = timeseries.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
            prop_assert_eq!(got, merged(labels, &external));
            prop_assert_eq!(timeseries.samples[0].timestamp, *timestamp);
            prop_assert_eq!(timeseries.samples[0].value.to_bits(), value.to_bits());
        }
        let ours = decode(Protocol::V1, &message, DecodeLimits::default()).unwrap();
        prop_assert_eq!(ours.counts, request.counts);
        prop_assert_eq!(ours.invalid_series, 0);
        for ((series, timestamp, value), (labels, sent, sent_value)) in ours.batch.samples().zip(&sets) {
            let got: Vec<_> = series.to_labels().iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(got, merged(labels, &external));
            prop_assert_eq!((timestamp, value.to_bits()), (*sent, sent_value.to_bits()));
        }
    }

    #[test]
    fn version_2_is_what_prost_reads(
        sets in prop::collection::vec((any_labels(), any::<i64>(), any::<f64>(), 0i64..5), 1..20),
        external in any_labels(),
    ) {
        let metadata = MetricMetadata {
            family: "metric".into(), kind: MetricKind::Counter, help: "Some help.".into(), unit: "s".into(),
        };
        let series: Vec<_> = sets.iter().map(|(labels, ..)| Series::new(labels)).collect();
        let mut encoder = RequestEncoder::new(Protocol::V2, external.clone());
        // The second round shows that nothing of the first one's symbol table is left.
        for round in 0..2 {
            {
                let reader = symbols();
                for (series, (_, timestamp, value, created)) in series.iter().zip(&sets).skip(round) {
                    let details = SeriesDetails {
                        created: (*created > 0).then_some(*created), metadata: Some(&metadata),
                    };
                    encoder.sample(&reader, series, *timestamp, *value, details);
                }
            }
            let Some(request) = encoder.take() else { continue };
            let message = uncompressed(&request);
            let decoded = v2::Request::decode(&message[..]).unwrap();
            if sets.iter().all(|set| set.2.to_bits() != (-0.0f64).to_bits()) {
                prop_assert_eq!(decoded.encoded_len(), message.len());
            }
            prop_assert_eq!(decoded.symbols[0].as_str(), "");
            let distinct: std::collections::HashSet<_> = decoded.symbols.iter().collect();
            prop_assert_eq!(distinct.len(), decoded.symbols.len(), "each text once");
            for (timeseries, (labels, timestamp, value, created)) in decoded.timeseries.iter().zip(&sets[round..]) {
                let got: Vec<_> = timeseries.labels_refs.chunks(2)
                    .map(|pair| (decoded.symbols[pair[0] as usize].clone(), decoded.symbols[pair[1] as usize].clone()))
                    .collect();
                prop_assert_eq!(got, merged(labels, &external));
                prop_assert_eq!(timeseries.samples[0].timestamp, *timestamp);
                prop_assert_eq!(timeseries.samples[0].value.to_bits(), value.to_bits());
                prop_assert_eq!(timeseries.created_timestamp, *created);
                prop_assert_eq!(timeseries.samples[0].start_timestamp, *created);
                let wire = timeseries.metadata.as_ref().unwrap();
                prop_assert_eq!(wire.kind, 1);
                prop_assert_eq!(decoded.symbols[wire.help_ref as usize].as_str(), "Some help.");
            }
            let ours = decode(Protocol::V2, &message, DecodeLimits::default()).unwrap();
            prop_assert_eq!(ours.batch.values.len(), sets.len() - round);
            prop_assert_eq!(ours.batch.metadata.len(), 1);
            prop_assert_eq!(&*ours.batch.metadata[0], &metadata);
            prop_assert_eq!(ours.batch.created.len(), sets[round..].iter().filter(|set| set.3 > 0).count());
        }
    }

    #[test]
    fn histograms_round_trip(histogram in any_histogram(), timestamp: i64) {
        let mut out = Vec::new();
        put_histogram(&mut out, &histogram, timestamp);
        let wire = WireHistogram::decode(&out[..]).unwrap();
        prop_assert_eq!(wire.encoded_len(), out.len());
        prop_assert_eq!(wire.timestamp, timestamp);
        prop_assert_eq!(wire.schema, histogram.schema);
        prop_assert_eq!(wire.positive_deltas.len() + wire.positive_counts.len(),
            histogram.positive_spans.iter().map(|span| span.length as usize).sum::<usize>());
        let back = parse_histogram(&out).unwrap();
        prop_assert_eq!(back.histogram, histogram);
        prop_assert_eq!(back.timestamp, timestamp);
    }

    #[test]
    fn decoders_survive_anything(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        for protocol in [Protocol::V1, Protocol::V2] {
            drop(decode(protocol, &bytes, DecodeLimits::default()));
        }
        drop(decompress(&bytes, 1 << 20));
    }

    #[test]
    fn decoders_survive_damage(sets in prop::collection::vec(any_labels(), 1..5), at: prop::sample::Index, byte: u8) {
        let series: Vec<_> = sets.iter().map(Series::new).collect();
        for protocol in [Protocol::V1, Protocol::V2] {
            let mut encoder = RequestEncoder::new(protocol, Labels::default());
            series.iter().for_each(|series| encoder.sample(&symbols(), series, 5, 1.0, SeriesDetails::default()));
            let mut message = uncompressed(&encoder.take().unwrap());
            let at = at.index(message.len());
            message[at] = byte;
            drop(decode(protocol, &message, DecodeLimits::default()));
        }
    }
}

#[test]
fn histograms_and_exemplars_travel_in_both_versions() {
    let series = Series::new(&labels(&[("__name__", "h"), ("job", "a")]));
    let histogram = Histogram {
        reset_hint: CounterResetHint::Gauge,
        schema: -53,
        zero_threshold: 0.0,
        sum: 12.0,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        negative_spans: vec![],
        counts: HistogramCounts::Integer {
            count: 3,
            zero_count: 0,
            positive_deltas: vec![1, 1],
            negative_deltas: vec![],
        },
        custom_values: vec![1.0, 2.0],
    };
    let exemplar =
        Exemplar { labels: labels(&[("trace_id", "abc"), ("job", "a")]), value: 0.5, timestamp: Some(1000) };
    let (mut encoded, mut encoded_exemplar) = (Vec::new(), Vec::new());
    put_histogram(&mut encoded, &histogram, 7);
    put_exemplar(&mut encoded_exemplar, &exemplar);
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut encoder = RequestEncoder::new(protocol, labels(&[("cluster", "c")]));
        {
            let reader = symbols();
            let details = SeriesDetails { created: Some(3), metadata: None };
            encoder.histogram(&reader, &series, 7, &encoded, details);
            encoder.exemplar(&reader, &series, &encoded_exemplar);
        }
        let request = encoder.take().unwrap();
        assert_eq!(
            (request.counts.histograms, request.counts.exemplars, request.counts.range),
            (1, 1, Some((7, 7)))
        );
        let decoded = decode(protocol, &uncompressed(&request), DecodeLimits::default()).unwrap();
        assert_eq!(decoded.batch.histograms[0].histogram, Arc::new(histogram.clone()));
        assert_eq!(decoded.batch.histograms[0].created, (protocol == Protocol::V2).then_some(3));
        assert_eq!(decoded.batch.exemplars[0].exemplar, exemplar);
        assert_eq!(
            decoded.batch.exemplars[0].series.to_labels(),
            labels(&[("__name__", "h"), ("cluster", "c"), ("job", "a")])
        );
    }
}

#[test]
fn metadata_travels_in_version_1_only() {
    let metadata = MetricMetadata {
        family: "f".into(),
        kind: MetricKind::StateSet,
        help: "h".into(),
        unit: String::new(),
    };
    let mut encoder = RequestEncoder::new(Protocol::V1, Labels::default());
    encoder.metadata(&metadata);
    let request = encoder.take().unwrap();
    let message = uncompressed(&request);
    let wire = v1::WriteRequest::decode(&message[..]).unwrap();
    assert_eq!((wire.metadata[0].kind, wire.metadata[0].metric_family_name.as_str()), (7, "f"));
    let decoded = decode(Protocol::V1, &message, DecodeLimits::default()).unwrap();
    assert_eq!(*decoded.batch.metadata[0], metadata);
    let mut encoder = RequestEncoder::new(Protocol::V2, Labels::default());
    encoder.metadata(&metadata);
    assert_eq!(encoder.take(), None);
}

/// A request is filled in several goes. A series that dies between two of them frees its symbols, and their ids may name
/// other texts before the request is taken.
#[test]
fn symbols_that_are_reused_while_a_request_is_filled_do_not_swap_labels() {
    let mut encoder = RequestEncoder::new(Protocol::V2, Labels::default());
    let mut expected = Vec::new();
    for round in 0..50 {
        let texts = labels(&[("__name__", "reused"), (&format!("name_{round}"), &format!("value_{round}"))]);
        let series = Series::new(&texts);
        encoder.sample(&symbols(), &series, round, 1.0, SeriesDetails::default());
        expected.push(texts);
    }
    let request = encoder.take().unwrap();
    let decoded = v2::Request::decode(uncompressed(&request).as_slice()).unwrap();
    for (series, texts) in decoded.timeseries.iter().zip(&expected) {
        let text = |reference: &u32| decoded.symbols[*reference as usize].as_str();
        let found: Vec<_> =
            series.labels_refs.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let wanted: Vec<_> = texts.iter().collect();
        assert_eq!(found, wanted);
    }
}

#[test]
fn invalid_series_are_left_out_and_named() {
    let series = |pairs: &[(&str, &str)]| v1::TimeSeries {
        labels: pairs.iter().map(|(n, v)| v1::Label { name: (*n).into(), value: (*v).into() }).collect(),
        samples: vec![v1::Sample { value: 1.0, timestamp: 1 }],
        ..Default::default()
    };
    let request = v1::WriteRequest {
        timeseries: vec![
            series(&[("a", "b")]),
            series(&[("__name__", "x"), ("a", "1"), ("a", "2")]),
            series(&[("__name__", "good")]),
        ],
        metadata: vec![],
    };
    let decoded = decode(Protocol::V1, &request.encode_to_vec(), DecodeLimits::default()).unwrap();
    assert_eq!((decoded.invalid_series, decoded.batch.values.len()), (2, 1));
    assert!(decoded.first_invalid.unwrap().contains("metric name is missing"));
}

#[test]
fn hostile_sizes_are_refused() {
    // A snappy header that claims 1 GiB in a body of five bytes.
    assert_eq!(decompress(&[0x80, 0x80, 0x80, 0x80, 0x04], 2 << 30), Err(DecodeError::Snappy));
    assert_eq!(
        decompress(&snap::raw::Encoder::new().compress_vec(&[0; 4096]).unwrap(), 1024),
        Err(DecodeError::TooLarge(1024))
    );
    // References that expand one large symbol again and again.
    let timeseries = v2::TimeSeries { labels_refs: vec![1, 2], ..Default::default() };
    let request = v2::Request {
        symbols: vec![String::new(), "__name__".into(), "x".repeat(1 << 20)],
        timeseries: vec![timeseries; 2000],
    };
    assert!(matches!(
        decode(Protocol::V2, &request.encode_to_vec(), DecodeLimits::default()),
        Err(DecodeError::TooLarge(_))
    ));
    let request = v2::Request {
        symbols: vec![String::new()],
        timeseries: vec![v2::TimeSeries { labels_refs: vec![0, 9], ..Default::default() }],
    };
    assert_eq!(
        decode(Protocol::V2, &request.encode_to_vec(), DecodeLimits::default()).unwrap_err(),
        DecodeError::Symbol(9)
    );
}
