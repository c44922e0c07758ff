//! `prometheus.yml`: a `prometheus.scrape` a job, before it `discovery.*` and `discovery.relabel`, behind it
//! `prometheus.relabel`, and one `prometheus.remote_write` for all endpoints.

pub(crate) mod discovery;
mod http_client;
pub(crate) mod relabel;
pub(crate) mod remote_write;
mod scalar;
mod scrape;

use crate::block::Pipeline;
use crate::report::Report;
use crate::yaml::{Fields, Node};

/// Where samples go: a receiver, as an expression.
pub(crate) const DEFAULT_RECEIVER: &str = "prometheus.remote_write.default.receiver";

pub(crate) fn convert(document: &Node, pipeline: &mut Pipeline<'_>, report: &mut Report) {
    let root = document.fields("the configuration", report);
    let endpoints = root.get("remote_write");
    let global = global(&root, report);
    if let Some(global) = &global {
        for name in ["evaluation_interval", "query_log_file", "rule_query_offset", "runtime"] {
            global.unsupported(name, report);
        }
    }
    let labels = global.as_ref().and_then(|global| global.get("external_labels"));
    let mut forward_to = Vec::new();
    if let Some(endpoints) = endpoints.filter(|endpoints| !endpoints.is_empty()) {
        remote_write::convert(endpoints, labels, "default", pipeline, report);
        forward_to.push(DEFAULT_RECEIVER.to_owned());
    } else if let Some(labels) = labels {
        report.warning(
            labels.line,
            "external_labels are left out: without remote_write nothing is sent anywhere",
        );
    }
    jobs(&root, global.as_ref(), &forward_to, "", pipeline, report);
    for name in ["alerting", "rule_files", "storage", "tracing", "remote_read", "otlp"] {
        root.unsupported(name, report);
    }
    if let Some(files) = root.get("scrape_config_files").filter(|files| !files.is_empty()) {
        report.error(files.line, "scrape_config_files are not followed: convert each of them, too");
    }
    if let Some(global) = global {
        global.finish(report);
    }
    root.finish(report);
}

fn global<'a>(root: &Fields<'a>, report: &mut Report) -> Option<Fields<'a>> {
    root.get("global").map(|node| node.fields("global", report))
}

/// The scrape jobs of a Prometheus configuration, which other agents embed. `prefix` comes before labels.
pub(crate) fn jobs(
    root: &Fields<'_>,
    global: Option<&Fields<'_>>,
    forward_to: &[String],
    prefix: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) {
    let Some(jobs) = root.get("scrape_configs") else { return };
    let defaults = scrape::Defaults::read(global, report);
    for (index, job) in jobs.items().iter().enumerate() {
        let job = job.fields(&format!("scrape_configs[{index}]"), report);
        scrape::convert(job, &defaults, forward_to, prefix, pipeline, report);
    }
}

/// A Prometheus configuration inside of another one.
pub(crate) fn embedded(
    node: &Node,
    forward_to: &[String],
    prefix: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) {
    let root = node.fields("config", report);
    let global = global(&root, report);
    jobs(&root, global.as_ref(), forward_to, prefix, pipeline, report);
    if let Some(global) = global {
        for name in ["external_labels", "evaluation_interval"] {
            global.unsupported(name, report);
        }
        global.finish(report);
    }
    root.finish(report);
}
