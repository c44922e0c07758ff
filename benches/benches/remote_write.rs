//! Remote write without a network: append to the log, read it back, encode requests. Per 10 000 samples of 10 labels.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use invar_components_prometheus::wal::{Log, LogOptions, Reader};
use invar_telemetry::remote_write::{
    DecodeLimits, Protocol, RequestEncoder, SeriesDetails, decode, decompress,
};
use invar_telemetry::{Labels, MetricBatch, Series, SeriesList, Timestamps, symbols};

const SERIES: usize = 10_000;

fn list() -> Arc<SeriesList> {
    let series = |index: usize| {
        let pod = format!("checkout-7d9f8c6b5-{:05}", index % 50);
        let path = format!("/api/v1/resource/{}", index / 50);
        let labels: Labels = [
            ("__name__", "http_server_requests_seconds_count"),
            ("cluster", "production-eu-1"),
            ("container", "checkout"),
            ("instance", "10.12.3.4:8080"),
            ("job", "integrations/checkout"),
            ("method", "GET"),
            ("namespace", "shop"),
            ("path", &path),
            ("pod", &pod),
            ("status", "200"),
        ]
        .into_iter()
        .collect();
        Series::new(&labels)
    };
    SeriesList::new((0..SERIES).map(series).collect::<Vec<_>>())
}

fn batch(list: &Arc<SeriesList>, timestamp: i64) -> MetricBatch {
    let values = (0..list.len()).map(|index| timestamp as f64 * 0.1 + index as f64).collect();
    MetricBatch::new(list.clone(), values, Timestamps::One(timestamp))
}

fn encode(encoder: &mut RequestEncoder, batch: &MetricBatch) -> usize {
    let mut bytes = 0;
    let reader = symbols();
    for (series, timestamp, value) in batch.samples() {
        encoder.sample(&reader, series, timestamp, value, SeriesDetails::default());
        if encoder.counts().samples == 2000 {
            bytes += encoder.take().map_or(0, |request| request.body.len());
        }
    }
    bytes
}

fn benches(criterion: &mut Criterion) {
    let list = list();
    let one = batch(&list, 1_760_000_000_000);
    let mut group = criterion.benchmark_group("remote_write");
    group.throughput(Throughput::Elements(SERIES as u64));

    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(directory.path(), LogOptions::with_limit(1 << 30)).unwrap());
    let mut timestamp = 0;
    group.bench_function("append", |bencher| {
        bencher.iter_batched(
            || {
                timestamp += 1;
                batch(&list, timestamp)
            },
            |batch| log.append(&batch).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::open(directory.path(), LogOptions::with_limit(1 << 30)).unwrap());
    for timestamp in 0..100 {
        log.append(&batch(&list, timestamp)).unwrap();
    }
    group.throughput(Throughput::Elements(100 * SERIES as u64));
    group.bench_function("read_back", |bencher| {
        bencher.iter(|| {
            let mut reader = Reader::new(log.clone(), log.oldest());
            let mut sum = 0.0;
            while let Some(entry) = reader.next_entry().unwrap() {
                entry.each_sample(|_, _, value| sum += value);
            }
            black_box(sum)
        });
    });
    group.throughput(Throughput::Elements(SERIES as u64));
    for (name, protocol, external) in [
        ("encode_v1", Protocol::V1, Labels::default()),
        ("encode_v1_external", Protocol::V1, [("replica", "a"), ("zone", "b")].into_iter().collect()),
        ("encode_v2", Protocol::V2, Labels::default()),
    ] {
        let mut encoder = RequestEncoder::new(protocol, external);
        let bytes = encode(&mut encoder, &one);
        eprintln!("{name}: {:.1} bytes per sample on the wire", bytes as f64 / SERIES as f64);
        group.bench_function(name, |bencher| bencher.iter(|| black_box(encode(&mut encoder, &one))));
    }
    for (name, protocol) in [("decode_v1", Protocol::V1), ("decode_v2", Protocol::V2)] {
        let mut encoder = RequestEncoder::new(protocol, Labels::default());
        {
            let reader = symbols();
            for (series, timestamp, value) in one.samples() {
                encoder.sample(&reader, series, timestamp, value, SeriesDetails::default());
            }
        }
        let request = encoder.take().unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let message = decompress(&request.body, 64 << 20).unwrap();
                decode(protocol, &message, DecodeLimits::default()).unwrap().counts
            });
        });
    }
    group.finish();
}

criterion_group!(remote_write, benches);
criterion_main!(remote_write);
