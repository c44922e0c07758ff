//! Text to tokens, to the tree, and to the canonical form: what an editor waits for at every key, and CI at every push.
#![allow(missing_docs, reason = "criterion's macros make an undocumented function")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use invar_syntax::lexer::lex;
use invar_syntax::{File, Source, format, parse_file};

/// The agent's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A pipeline for each of `count` services, as people write them: comments, nested blocks, alignment left to the tool.
fn configuration(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        write!(
            text,
            r#"// Service {index}: everything with the label app={index}.
discovery.relabel "service_{index}" {{
  targets = discovery.kubernetes.pods.targets

  rule {{
    source_labels = ["__meta_kubernetes_pod_label_app", "__meta_kubernetes_namespace"]
    regex = "service-{index};production|staging"
    action = "keep"
  }}
  rule {{
    source_labels = ["__meta_kubernetes_pod_name"]
    target_label = "pod" // as the dashboards call it
  }}
}}

prometheus.scrape "service_{index}" {{
  targets = array.concat(discovery.relabel.service_{index}.output, [
    {{"__address__" = "service-{index}:9090", "job" = "static"}},
  ])
  forward_to = [prometheus.remote_write.default.receiver]
  scrape_interval = "15s"
  scrape_timeout = string.format("%ds", {index} % 10 + 1)
  honor_labels = {index} > 10 && !false
}}

loki.process "service_{index}" {{
  forward_to = [loki.write.default.receiver]

  stage.json {{
    expressions = {{
      level = "severity",
      message = "",
      trace = "trace.id",
    }}
  }}
  stage.template {{
    source = "line"
    template = `{{{{ .level }}}}: {{{{ .message }}}}`
  }}
}}

"#
        )
        .expect("writing to a string does not fail");
    }
    text
}

fn parse(text: &str) -> File {
    let (file, diagnostics) = parse_file(Arc::new(Source::new("bench.alloy", text)));
    file.unwrap_or_else(|| panic!("the configuration is correct: {diagnostics}"))
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("syntax");
    for count in [10, 1_000] {
        let untidy = configuration(count);
        let file = parse(&untidy);
        let tidy = format(&file).expect("a small text");
        assert_ne!(tidy, untidy);
        let tidy_file = parse(&tidy);
        let source = Arc::clone(&file.source);
        group.throughput(Throughput::Bytes(untidy.len() as u64));
        group.bench_function(format!("lex/{count}"), |bencher| bencher.iter(|| lex(black_box(&untidy))));
        group.bench_function(format!("parse/{count}"), |bencher| {
            bencher.iter(|| parse_file(Arc::clone(black_box(&source))));
        });
        group.bench_function(format!("format/{count}"), |bencher| bencher.iter(|| format(black_box(&file))));
        group.throughput(Throughput::Bytes(tidy.len() as u64));
        group.bench_function(format!("format, nothing to change/{count}"), |bencher| {
            bencher.iter(|| format(black_box(&tidy_file)));
        });
    }
    group.finish();
}

criterion_group!(syntax, benches);
criterion_main!(syntax);
