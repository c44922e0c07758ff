//! What the static check costs, with real components: parsing and checking configurations that are right, and ones in which every
//! component has a mistake. The aim: 10 000 components in less than 500 ms.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use invar_engine::{Configuration, Registry, configuration::Inputs, validate};

/// Chains of nine relabelling components before one that sends; each forwards to the `receiver` of the next, whose label begins
/// with `label`.
fn text(components: usize, label: &str, receiver: &str) -> String {
    let mut text = String::new();
    for node in 0..components {
        if node % 10 == 9 {
            write!(
                text,
                "prometheus.remote_write \"n{node}\" {{\n  endpoint {{\n    url = \"https://metrics.example/{node}\"\n    \
                 basic_auth {{\n      username = \"u\"\n      password_file = \"/run/secrets/{node}\"\n    }}\n  }}\n}}\n"
            )
            .unwrap();
            continue;
        }
        let (next, kind) = (node + 1, if node % 10 == 8 { "remote_write" } else { "relabel" });
        write!(
            text,
            "prometheus.relabel \"n{node}\" {{\n  forward_to = [prometheus.{kind}.{label}{next}.{receiver}]\n  rule {{\n    \
             source_labels = [\"job\", \"instance\"]\n    regex         = \"(prod|staging)-.*\"\n    target_label  = \
             string.to_lower(\"ENV\")\n    action        = \"replace\"\n  }}\n  rule {{\n    regex  = \"tmp_.*\"\n    \
             action = \"labeldrop\"\n  }}\n}}\n"
        )
        .unwrap();
    }
    text
}

fn checks(criterion: &mut Criterion) {
    let registry = invar_components_prometheus::register(Registry::new());
    for (name, label, receiver) in [
        ("right", "n", "receiver"),
        ("exports misspelt", "n", "reciever"),
        ("lost references", "m", "receiver"),
    ] {
        for components in [50, 10_000] {
            let text = text(components, label, receiver);
            let mut group = criterion.benchmark_group(format!("{components} components, {name}"));
            group.sample_size(10).measurement_time(Duration::from_secs(5));
            group.bench_function("parse and check", |bench| {
                bench.iter(|| {
                    let files = [("bench.alloy", black_box(&text))];
                    let configuration = Configuration::parse(files, Inputs::default(), "").unwrap();
                    let diagnostics = validate(&registry, &configuration);
                    assert_eq!(diagnostics.has_errors(), name != "right");
                    diagnostics.len()
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, checks);
criterion_main!(benches);
