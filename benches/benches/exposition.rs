//! What a sample of a scraped page costs: parsing with look-up on a steady page, on a first page, and on one that churns; relabelling.
//!
//! The page has 2 000 series in lines of 112 bytes, as node_exporter and typical services have them.

// The groups that the macro makes are public and cannot be documented.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use invar_telemetry::exposition::{
    CacheScrape, ExpositionFormat, ExpositionSink, HistogramEvent, Lookup, ParseOptions, SampleEvent,
    ScrapeCache, SeriesText, parse,
};
use invar_telemetry::{LabelsBuilder, RelabelRule, RelabelSpec, relabel};

const SERIES: usize = 2000;

/// A page of counters and gauges with values that change from one variant to the next; `fresh` of its series are of that variant alone.
fn page(variant: usize, fresh: usize, end: &str) -> Vec<u8> {
    let mut page = String::new();
    for series in 0..SERIES {
        if series % 50 == 0 {
            writeln!(page, "# HELP http_requests_{}_total How many requests there were.", series / 50)
                .unwrap();
            writeln!(page, "# TYPE http_requests_{}_total counter", series / 50).unwrap();
        }
        let generation = if series % 100 < fresh { variant } else { 0 };
        let value = (series * 7919 + variant * 13) % 1_000_000;
        let fraction = if series % 3 == 0 { ".25" } else { "" };
        writeln!(
            page,
            "http_requests_{}_total{{method=\"GET\",path=\"/api/v1/items/{:03}\",code=\"{}\",pod=\"web-7d9c{:04}\",zone=\"eu-{}\"}} {value}{fraction}",
            series / 50,
            series % 50,
            200 + series % 5,
            generation,
            series % 3,
        )
        .unwrap();
    }
    page.push_str(end);
    page.into_bytes()
}

/// What a scrape does with a page.
struct Scrape<'c> {
    cache: CacheScrape<'c>,
    labels: LabelsBuilder,
    values: Vec<f64>,
}

impl ExpositionSink for Scrape<'_> {
    type Error = Infallible;

    #[inline]
    fn expect(&mut self, input: &[u8]) -> Option<usize> {
        self.cache.expect(input)
    }

    #[inline]
    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Infallible> {
        let kept = match sample.series {
            SeriesText::Expected => self.cache.accept() == Lookup::Kept,
            SeriesText::Raw(raw) => match self.cache.find(raw.text, false) {
                Lookup::Kept => true,
                Lookup::Dropped => false,
                Lookup::Unknown => {
                    raw.labels(&mut self.labels).unwrap();
                    for (name, value) in [
                        ("job", "web"),
                        ("instance", "10.0.0.1:8080"),
                        ("cluster", "prod"),
                        ("namespace", "shop"),
                    ] {
                        self.labels.set(name, value);
                    }
                    self.cache.insert(raw.text, false, Some(self.labels.series()));
                    true
                }
            },
        };
        self.cache.note_timestamp(sample.timestamp.is_some());
        if kept {
            self.values.push(sample.value);
        }
        Ok(())
    }

    fn histogram(&mut self, _: HistogramEvent<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn scrape(cache: &mut ScrapeCache, format: ExpositionFormat, page: &[u8], values: &mut Vec<f64>) -> usize {
    values.clear();
    let mut sink =
        Scrape { cache: cache.begin(), labels: LabelsBuilder::new(), values: std::mem::take(values) };
    parse(format, page, &ParseOptions::default(), &mut sink).unwrap();
    *values = sink.values;
    sink.cache.finish().list.len()
}

fn pages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exposition");
    group.throughput(Throughput::Elements(SERIES as u64));
    for (name, format, end) in [
        ("text", ExpositionFormat::PrometheusText0_0_4, ""),
        ("openmetrics", ExpositionFormat::OpenMetrics1_0_0, "# EOF\n"),
    ] {
        let variants = [page(1, 0, end), page(2, 0, end)];
        let mut values = Vec::new();
        let mut cache = ScrapeCache::new();
        let mut turn = 0;
        group.bench_function(format!("{name}/steady"), |bench| {
            bench.iter(|| {
                turn += 1;
                scrape(&mut cache, format, black_box(&variants[turn % 2]), &mut values)
            });
        });
        group.bench_function(format!("{name}/first"), |bench| {
            bench.iter(|| scrape(&mut ScrapeCache::new(), format, black_box(&variants[0]), &mut values));
        });
        let churning = [page(1, 10, end), page(2, 10, end)];
        group.bench_function(format!("{name}/tenth_is_new"), |bench| {
            bench.iter(|| {
                turn += 1;
                scrape(&mut cache, format, black_box(&churning[turn % 2]), &mut values)
            });
        });
    }
    group.finish();
}

fn rules(criterion: &mut Criterion) {
    let rules: Vec<RelabelRule> = [
        RelabelSpec {
            source_labels: vec!["namespace".into(), "pod".into()],
            separator: "/".into(),
            regex: "(.+)/(.+)-[a-z0-9]+".into(),
            target_label: "workload".into(),
            replacement: "$2".into(),
            ..RelabelSpec::default()
        },
        RelabelSpec {
            source_labels: vec!["__name__".into()],
            regex: "go_.*|process_.*".into(),
            action: "drop".parse().unwrap(),
            ..RelabelSpec::default()
        },
        RelabelSpec {
            regex: "zone|region".into(),
            action: "labeldrop".parse().unwrap(),
            ..RelabelSpec::default()
        },
    ]
    .into_iter()
    .map(|spec| RelabelRule::new(spec).unwrap())
    .collect();
    let labels = [
        ("__name__", "http_requests_total"),
        ("namespace", "shop"),
        ("pod", "web-7d9c"),
        ("zone", "eu-1"),
        ("code", "200"),
    ]
    .into_iter()
    .collect();
    let mut builder = LabelsBuilder::new();
    criterion.bench_function("relabel/three_rules", |bench| {
        bench.iter(|| {
            builder.reset(&labels);
            relabel(black_box(&rules), &mut builder)
        });
    });
}

criterion_group!(benches, pages, rules);
criterion_main!(benches);
