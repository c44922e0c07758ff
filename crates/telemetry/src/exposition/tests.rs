#![allow(clippy::unwrap_used, clippy::let_underscore_must_use)]

use std::convert::Infallible;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::conformance;
use crate::histogram::HistogramCounts;
use crate::remote_write::wire::{put_bytes_field, put_double_field, put_varint, put_varint_field};

/// Writes down everything it is told, in the form of the conformance table.
#[derive(Default)]
struct Recorder {
    events: Vec<Value>,
    histograms: Vec<(Labels, Histogram, Option<i64>)>,
    created: Vec<Option<i64>>,
    /// Texts that it claims to recognise.
    known: Vec<Vec<u8>>,
    expected: Vec<u8>,
    expectations_met: usize,
}

use crate::labels::Labels;

impl Recorder {
    fn labels(&self, series: SeriesText<'_>) -> Labels {
        let mut labels = LabelsBuilder::new();
        match series {
            SeriesText::Expected => parse_series_labels(&self.expected, &mut labels).unwrap(),
            SeriesText::Raw(raw) => {
                if raw.labels(&mut labels).is_err() {
                    labels.clear();
                    labels.set("invalid", "true");
                }
            }
        }
        labels.labels()
    }
}

fn number(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        json!(value)
    }
}

fn object(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

impl ExpositionSink for Recorder {
    type Error = Infallible;

    fn expect(&mut self, input: &[u8]) -> Option<usize> {
        let known = self.known.iter().find(|text| input.starts_with(text))?;
        self.expected = known.clone();
        Some(known.len())
    }

    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Infallible> {
        self.expectations_met += usize::from(matches!(sample.series, SeriesText::Expected));
        let mut event = json!({"labels": object(&self.labels(sample.series)), "value": number(sample.value)});
        if let Some(timestamp) = sample.timestamp {
            event["ts"] = json!(timestamp);
        }
        self.events.push(event);
        self.created.push(sample.created);
        Ok(())
    }

    fn histogram(&mut self, sample: HistogramEvent<'_>) -> Result<(), Infallible> {
        let labels = self.labels(sample.series);
        self.histograms.push((labels, sample.histogram, sample.created));
        Ok(())
    }

    fn exemplar(&mut self, exemplar: ExemplarEvent<'_>) -> Result<(), Infallible> {
        let mut value = json!({"labels": object(&exemplar.labels.labels()), "value": number(exemplar.value)});
        if let Some(timestamp) = exemplar.timestamp {
            value["ts"] = json!(timestamp);
        }
        if let Some(event) = self.events.last_mut() {
            event["exemplar"] = value;
        }
        Ok(())
    }

    fn metadata(&mut self, family: &str, metadata: MetadataEvent<'_>) -> Result<(), Infallible> {
        self.events.push(match metadata {
            MetadataEvent::Kind(kind) => json!({"type": [family, kind.as_str()]}),
            MetadataEvent::Help(help) => json!({"help": [family, help]}),
            MetadataEvent::Unit(unit) => json!({"unit": [family, unit]}),
        });
        Ok(())
    }
}

fn read_with(
    format: ExpositionFormat,
    page: &[u8],
    options: &ParseOptions,
) -> (Recorder, Result<(), ExpositionError<Infallible>>) {
    let mut recorder = Recorder::default();
    let result = parse(format, page, options, &mut recorder);
    (recorder, result)
}

fn read(format: ExpositionFormat, page: &str) -> (Recorder, Result<(), ExpositionError<Infallible>>) {
    read_with(format, page.as_bytes(), &ParseOptions::default())
}

/// Events of the table with numbers as floats, without comments, which are nothing to a sink.
fn wanted(row: &Value) -> Vec<Value> {
    let events = row.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    events
        .into_iter()
        .filter(|event| event.get("comment").is_none())
        .map(|mut event| {
            for place in ["/value", "/exemplar/value"] {
                if let Some(value) = event.pointer_mut(place)
                    && let Some(float) = value.as_f64()
                {
                    *value = json!(float);
                }
            }
            event
        })
        .collect()
}

#[test]
fn agrees_with_the_conformance_table() {
    let Some(rows) = conformance::rows("exposition.jsonl") else { return };
    let mut wrong = Vec::new();
    for row in &rows {
        let format = match row["kind"].as_str().unwrap() {
            "text" => ExpositionFormat::PrometheusText0_0_4,
            _ => ExpositionFormat::OpenMetrics1_0_0,
        };
        let body = row.get("body").and_then(Value::as_str).unwrap_or_default();
        let (recorder, result) = read(format, body);
        let same_events = recorder.events == wanted(row);
        if result.is_err() != row.get("error").is_some() || (result.is_ok() && !same_events) {
            wrong.push(format!("{row}\n  gave {result:?} {:?}", recorder.events));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows differ:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() > 100);
}

#[test]
fn a_recognised_text_is_not_read_again() {
    let page = "a{b=\"c\"} 1\nab 2\na {b=\"d\"} 3\na\t4 5\na-b 6\n";
    let mut recorder = Recorder { known: vec![b"a{b=\"c\"}".to_vec(), b"a".to_vec()], ..Recorder::default() };
    let result = parse(
        ExpositionFormat::PrometheusText0_0_4,
        page.as_bytes(),
        &ParseOptions::default(),
        &mut recorder,
    );
    // `ab` and `a {…}` begin with a known text and are other series; `a-b` is none.
    let ExpositionError::Syntax { line, .. } = result.unwrap_err();
    assert_eq!(line, 5);
    assert_eq!(recorder.expectations_met, 2);
    assert_eq!(recorder.events.len(), 4);
    assert_eq!(recorder.events[2]["labels"]["b"], "d");
    assert_eq!(recorder.events[3]["ts"], 5);

    let page = "a{b=\"c\"} 1 # {x=\"y\"} 2 3\na 4 5\na{b=\"e\"} 1\n# EOF\n";
    let mut recorder = Recorder { known: vec![b"a{b=\"c\"}".to_vec(), b"a".to_vec()], ..Recorder::default() };
    parse(ExpositionFormat::OpenMetrics1_0_0, page.as_bytes(), &ParseOptions::default(), &mut recorder)
        .unwrap();
    assert_eq!(recorder.expectations_met, 2);
    assert_eq!(recorder.events[0]["exemplar"]["ts"], 3000);
    assert_eq!(recorder.events[1]["ts"], 5000);
    assert_eq!(recorder.events[2]["labels"]["b"], "e");
}

#[test]
fn errors_name_the_line() {
    for (format, page, line) in [
        (ExpositionFormat::PrometheusText0_0_4, "a 1\n# HELP a b\nb{ 2\n", 3),
        (ExpositionFormat::OpenMetrics1_0_0, "a 1\nb x\n# EOF\n", 2),
    ] {
        match read(format, page).1 {
            Err(ExpositionError::Syntax { line: at, message }) => assert_eq!(at, line, "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn long_lines_are_refused() {
    let page = format!("a{{b=\"{}\"}} 1\n# EOF\n", "x".repeat(100));
    let options = ParseOptions { line_limit: 50, ..ParseOptions::default() };
    for format in [ExpositionFormat::PrometheusText0_0_4, ExpositionFormat::OpenMetrics1_0_0] {
        assert!(read_with(format, page.as_bytes(), &options).1.is_err());
        assert!(read(format, &page).1.is_ok());
    }
}

#[test]
fn created_samples_become_the_start_of_counting() {
    let page = "# TYPE a counter\na_total{x=\"1\"} 5\na_total{x=\"2\"} 6\na_created{x=\"2\"} 1700000000.5\n\
                # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1\nh_created 3\n\
                # TYPE g gauge\ng_created 9\n# EOF\n";
    let options = ParseOptions { created_timestamps: true, ..ParseOptions::default() };
    let (recorder, result) = read_with(ExpositionFormat::OpenMetrics1_0_0, page.as_bytes(), &options);
    assert_eq!(result, Ok(()));
    assert_eq!(recorder.created, [None, Some(1_700_000_000_500), Some(3000), Some(3000), Some(3000), None]);
}

#[test]
fn classic_histograms_of_text_are_converted() {
    let page = "# TYPE h histogram\nh_bucket{le=\"1\",a=\"x\"} 1\nh_bucket{le=\"+Inf\",a=\"x\"} 3\nh_count{a=\"x\"} 3\n\
                h_sum{a=\"x\"} 7\nh_bucket{le=\"+Inf\",a=\"y\"} 4\nh_count{a=\"y\"} 4\nother 1\n";
    let mut options = ParseOptions { convert_classic_histograms: true, ..ParseOptions::default() };
    let (recorder, result) = read_with(ExpositionFormat::PrometheusText0_0_4, page.as_bytes(), &options);
    assert_eq!(result, Ok(()));
    assert_eq!(recorder.events.len(), 2, "the type and one sample remain: {:?}", recorder.events);
    let [(first, histogram, _), (second, ..)] = &recorder.histograms[..] else { panic!() };
    assert_eq!(first.to_string(), "{__name__=\"h\", a=\"x\"}");
    assert_eq!(second.get("a"), Some("y"));
    assert_eq!((histogram.sum, &histogram.custom_values[..]), (7.0, &[1.0][..]));
    options.classic_histograms = true;
    let (recorder, _) = read_with(ExpositionFormat::PrometheusText0_0_4, page.as_bytes(), &options);
    assert_eq!((recorder.events.len(), recorder.histograms.len()), (8, 2));
}

fn message(body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    body(&mut out);
    out
}

fn label(name: &str, value: &str) -> Vec<u8> {
    message(|out| {
        put_bytes_field(out, 1, name.as_bytes());
        put_bytes_field(out, 2, value.as_bytes());
    })
}

fn family(name: &str, kind: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let body = message(|out| {
        put_bytes_field(out, 1, name.as_bytes());
        put_bytes_field(out, 2, b"help");
        put_varint_field(out, 3, kind);
        for metric in metrics {
            put_bytes_field(out, 4, metric);
        }
    });
    message(|out| {
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
    })
}

fn protobuf_page() -> Vec<u8> {
    let exemplar = message(|out| {
        put_bytes_field(out, 1, &label("trace", "t"));
        put_double_field(out, 2, 0.5);
        put_bytes_field(out, 3, &message(|out| put_varint_field(out, 1, 7)));
    });
    let counter = message(|out| {
        put_bytes_field(out, 1, &label("x", "1"));
        put_bytes_field(
            out,
            3,
            &message(|out| {
                put_double_field(out, 1, 12.0);
                put_bytes_field(out, 2, &exemplar);
                put_bytes_field(out, 3, &message(|out| put_varint_field(out, 1, 5)));
            }),
        );
        put_varint_field(out, 6, 1234);
    });
    let summary = message(|out| {
        put_bytes_field(
            out,
            4,
            &message(|out| {
                put_varint_field(out, 1, 3);
                put_double_field(out, 2, 4.5);
                put_bytes_field(
                    out,
                    3,
                    &message(|out| {
                        put_double_field(out, 1, 0.5);
                        put_double_field(out, 2, 1.5);
                    }),
                );
            }),
        );
    });
    let histogram = message(|out| {
        put_bytes_field(
            out,
            7,
            &message(|out| {
                put_varint_field(out, 1, 3);
                put_double_field(out, 2, 9.0);
                put_bytes_field(
                    out,
                    3,
                    &message(|out| {
                        put_varint_field(out, 1, 2);
                        put_double_field(out, 2, 1.0);
                    }),
                );
                put_varint_field(out, 5, 2);
                put_bytes_field(out, 12, &message(|out| put_varint_field(out, 2, 2)));
                put_varint_field(out, 13, 2);
                put_varint_field(out, 13, 2);
            }),
        );
    });
    [family("c", 0, &[counter]), family("s", 2, &[summary]), family("h", 4, &[histogram])].concat()
}

#[test]
fn protobuf_families_become_series() {
    let page = protobuf_page();
    let (recorder, result) = read_with(ExpositionFormat::PrometheusProto, &page, &ParseOptions::default());
    assert_eq!(result, Ok(()));
    let samples: Vec<&Value> = recorder.events.iter().filter(|event| event.get("labels").is_some()).collect();
    let name_and_value = |event: &&Value| {
        (event["labels"]["__name__"].as_str().unwrap().to_owned(), event["value"].as_f64().unwrap())
    };
    assert_eq!(
        samples.iter().map(name_and_value).collect::<Vec<_>>(),
        [
            ("c".to_owned(), 12.0),
            ("s_count".to_owned(), 3.0),
            ("s_sum".to_owned(), 4.5),
            ("s".to_owned(), 1.5),
            ("h_count".to_owned(), 3.0),
            ("h_sum".to_owned(), 9.0),
            ("h_bucket".to_owned(), 2.0),
            ("h_bucket".to_owned(), 3.0),
        ]
    );
    assert_eq!(samples[0]["exemplar"], json!({"labels": {"trace": "t"}, "value": 0.5, "ts": 7000}));
    assert_eq!(samples[0]["ts"], 1234);
    assert_eq!(recorder.created[0], Some(5000));
    assert_eq!(samples[3]["labels"]["quantile"], "0.5");
    assert_eq!(samples[6]["labels"]["le"], "1.0");
    assert_eq!(samples[7]["labels"]["le"], "+Inf");
}

#[test]
fn protobuf_native_histograms_are_read() {
    let page = protobuf_page();
    let mut options = ParseOptions { native_histograms: true, ..ParseOptions::default() };
    let (recorder, result) = read_with(ExpositionFormat::PrometheusProto, &page, &options);
    assert_eq!(result, Ok(()));
    let [(labels, histogram, _)] = &recorder.histograms[..] else { panic!() };
    assert_eq!(labels.get("__name__"), Some("h"));
    assert_eq!(histogram.schema, 1);
    assert_eq!(histogram.validate(), Ok(()));
    assert!(matches!(
        &histogram.counts,
        HistogramCounts::Integer { count: 3, positive_deltas, .. } if *positive_deltas == [1, 1]
    ));
    let samples = |recorder: &Recorder| recorder.created.len();
    assert_eq!(samples(&recorder), 4);
    options.classic_histograms = true;
    assert_eq!(samples(&read_with(ExpositionFormat::PrometheusProto, &page, &options).0), 8);
    let options = ParseOptions { convert_classic_histograms: true, ..ParseOptions::default() };
    let (recorder, _) = read_with(ExpositionFormat::PrometheusProto, &page, &options);
    assert!(recorder.histograms[0].1.has_custom_buckets());
    assert_eq!(samples(&recorder), 4);
}

#[test]
fn truncated_protobuf_pages_are_errors() {
    let page = protobuf_page();
    let whole: Vec<usize> = {
        let mut rest = &page[..];
        let mut ends = vec![0];
        while !rest.is_empty() {
            let length = crate::remote_write::wire::take_varint(&mut rest).unwrap();
            rest = &rest[length as usize..];
            ends.push(page.len() - rest.len());
        }
        ends
    };
    for cut in (0..page.len()).filter(|cut| !whole.contains(cut)) {
        let result = read_with(ExpositionFormat::PrometheusProto, &page[..cut], &ParseOptions::default()).1;
        assert!(result.is_err(), "cut at {cut}");
    }
}

#[test]
fn labels_given_twice_are_told() {
    let mut labels = LabelsBuilder::new();
    parse_series_labels(b"a{b=\"1\",b=\"2\"}", &mut labels).unwrap();
    assert_eq!((labels.duplicate(), labels.get("b")), (Some("b"), Some("2")));
    parse_series_labels(b"a{b=\"1\"}", &mut labels).unwrap();
    assert_eq!(labels.duplicate(), None);
    assert!(parse_series_labels(b"a{b=\"1\"} 5", &mut labels).is_err());
}

const OPTIONS: [ParseOptions; 2] = [
    ParseOptions {
        line_limit: 1 << 20,
        native_histograms: false,
        classic_histograms: false,
        convert_classic_histograms: false,
        created_timestamps: false,
    },
    ParseOptions {
        line_limit: 200,
        native_histograms: true,
        classic_histograms: true,
        convert_classic_histograms: true,
        created_timestamps: true,
    },
];

proptest! {
    #[test]
    fn arbitrary_pages_never_panic(page: Vec<u8>) {
        for (format, options) in ExpositionFormat::ALL.into_iter().flat_map(|f| OPTIONS.map(|o| (f, o))) {
            let _ = read_with(format, &page, &options);
        }
    }

    #[test]
    fn dense_syntax_never_panics(page in "(# (TYPE|HELP|UNIT|EOF) |counter|histogram|[a-z_{}=,\"\\\\# \t\n\0é0-9.+e-]){0,60}") {
        for (format, options) in ExpositionFormat::ALL.into_iter().flat_map(|f| OPTIONS.map(|o| (f, o))) {
            let _ = read_with(format, page.as_bytes(), &options);
        }
    }

    #[test]
    fn damaged_protobuf_never_panics(at in 0_usize..200, byte: u8) {
        let mut page = protobuf_page();
        let at = at % page.len();
        page[at] = byte;
        for options in OPTIONS {
            let _ = read_with(ExpositionFormat::PrometheusProto, &page, &options);
        }
    }

    /// What a page says does not depend on what the sink recognises.
    #[test]
    fn recognition_changes_nothing(
        page in prop::collection::vec(("(a|ab|a_b)(\\{l=\"[xy]\\}?\"\\})?", "[ ]{1,2}[0-9]{1,3}(\\.5)?( 7)?"), 0..12),
        known in prop::collection::vec("(a|ab|a_b)(\\{l=\"[xy]\"\\})?", 0..4),
    ) {
        let page: String = page.iter().map(|(series, rest)| format!("{series}{rest}\n")).collect();
        let page = page + "# EOF\n";
        for format in [ExpositionFormat::PrometheusText0_0_4, ExpositionFormat::OpenMetrics1_0_0] {
            let (plain, result) = read(format, &page);
            let known = known.iter().map(|text| text.clone().into_bytes()).collect();
            let mut recorder = Recorder { known, ..Recorder::default() };
            let recognised = parse(format, page.as_bytes(), &ParseOptions::default(), &mut recorder);
            prop_assert_eq!(recognised.is_ok(), result.is_ok());
            if result.is_ok() {
                prop_assert_eq!(&recorder.events, &plain.events);
            }
        }
    }
}
