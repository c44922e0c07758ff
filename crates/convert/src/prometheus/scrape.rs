//! A scrape job: `prometheus.scrape`, and `prometheus.relabel` behind it where samples are relabelled.

use std::time::Duration;

use invar_syntax::Value;

use super::{discovery, http_client, relabel, scalar};
use crate::block::{self, Block, Pipeline, Place};
use crate::label::sanitize;
use crate::report::Report;
use crate::yaml::Fields;

/// Arguments that a job takes over as they are, by what reads them.
const FLAGS: [(&str, &str); 8] = [
    ("honor_labels", "honor_labels"),
    ("honor_timestamps", "honor_timestamps"),
    ("track_timestamps_staleness", "track_timestamps_staleness"),
    ("enable_compression", "enable_compression"),
    ("always_scrape_classic_histograms", "scrape_classic_histograms"),
    ("scrape_classic_histograms", "scrape_classic_histograms"),
    ("convert_classic_histograms_to_nhcb", "convert_classic_histograms_to_nhcb"),
    ("scrape_native_histograms", "scrape_native_histograms"),
];
const TEXTS: [&str; 4] = ["metrics_path", "scheme", "scrape_fallback_protocol", "scrape_failure_log_file"];
const NUMBERS: [&str; 7] = [
    "sample_limit",
    "target_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "native_histogram_bucket_limit",
    "native_histogram_min_bucket_factor",
];

/// What `global` says for every job that does not say otherwise.
pub(super) struct Defaults {
    interval: Duration,
    timeout: Duration,
    others: Block,
}

// === impl Defaults ===

impl Defaults {
    pub(super) fn read(global: Option<&Fields<'_>>, report: &mut Report) -> Self {
        let mut defaults = Self {
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            others: Block::default(),
        };
        let Some(global) = global else { return defaults };
        if let Some(interval) = scalar::duration(global, "scrape_interval", report) {
            defaults.interval = interval;
        }
        if let Some(timeout) = scalar::duration(global, "scrape_timeout", report) {
            defaults.timeout = timeout;
        }
        arguments(global, &mut defaults.others, report);
        defaults
    }
}

/// The arguments that a job and `global` share.
fn arguments(fields: &Fields<'_>, block: &mut Block, report: &mut Report) {
    for (theirs, ours) in FLAGS {
        block.set_some(ours, fields.flag(theirs, report).map(Value::Bool));
    }
    for name in TEXTS {
        block.set_some(name, fields.text(name, report).map(Value::string));
    }
    for name in NUMBERS {
        block.set_some(name, scalar::number(fields, name, report));
    }
    block.set_some("body_size_limit", scalar::size(fields, "body_size_limit", report));
    block.set_some("scrape_protocols", scalar::texts(fields, "scrape_protocols", report));
    fields.unsupported("keep_dropped_targets", report);
    fields.unsupported("extra_scrape_metrics", report);
    // Alloy's own defaults fit most backends better than a Prometheus server's; what is asked for explicitly is taken.
    for name in ["metric_name_validation_scheme", "metric_name_escaping_scheme"] {
        block.set_some(name, fields.text(name, report).map(Value::string));
    }
}

pub(super) fn convert(
    job: Fields<'_>,
    defaults: &Defaults,
    forward_to: &[String],
    prefix: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) {
    let Some(name) = job.text("job_name", report).filter(|name| !name.is_empty()) else {
        report.error(job.line, format!("{} has no job_name and is left out", job.what()));
        return;
    };
    let label = pipeline.labels.take("prometheus.scrape", &sanitize(&format!("{prefix}{name}")));
    let mut forward_to = forward_to.to_vec();
    if let Some(rules) = job.get("metric_relabel_configs").filter(|rules| !rules.is_empty()) {
        let mut block = Block::default();
        block.set_expression("forward_to", format!("[{}]", forward_to.join(", ")));
        relabel::rules(rules, "rule", &mut block, report);
        pipeline.component(Place::Relabel, "prometheus.relabel", &label, &block, rules.line, report);
        forward_to = vec![format!("prometheus.relabel.{label}.receiver")];
    }
    let targets = discovery::convert(&job, &label, pipeline, report);
    let targets = discovery::relabel(&job, targets, &label, pipeline, report);

    // What a job says comes first, so that the global value is found only where it says nothing.
    let mut block = Block::default();
    block.set_expression("targets", crate::targets::expression(&targets));
    block.set_expression("forward_to", format!("[{}]", forward_to.join(", ")));
    block.set("job_name", Value::string(name.as_str()));
    let interval = scalar::duration(&job, "scrape_interval", report).filter(|interval| !interval.is_zero());
    let interval = interval.unwrap_or(defaults.interval);
    let timeout = scalar::duration(&job, "scrape_timeout", report).filter(|timeout| !timeout.is_zero());
    // Prometheus cuts a timeout that comes from the defaults to the interval.
    let timeout = timeout.unwrap_or_else(|| defaults.timeout.min(interval));
    block.set("scrape_interval", block::duration(interval));
    block.set("scrape_timeout", block::duration(timeout));
    block.set_some("params", parameters(&job, report));
    arguments(&job, &mut block, report);
    if let Some(schema) = pipeline.schema("prometheus.scrape") {
        http_client::convert(&job, &mut block, &schema, report);
    }
    block.inherit(&defaults.others);
    let line = job.line;
    job.finish(report);
    pipeline.component(Place::Scrape, "prometheus.scrape", &label, &block, line, report);
    report.info(line, format!("job \"{name}\" became prometheus.scrape.{label}"));
}

fn parameters(job: &Fields<'_>, report: &mut Report) -> Option<Value> {
    let params = job.get("params")?.fields("params", report);
    let mut entries: Vec<(String, Value)> = params
        .all()
        .map(|(name, node)| {
            let values = node.items().iter().filter_map(|item| item.text(name, report));
            (name.to_owned(), discovery::value_list(values.collect::<Vec<_>>()))
        })
        .collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    Some(Value::object(entries))
}
