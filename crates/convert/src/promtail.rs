//! `promtail.yml`. Tailing, processing and pushing logs need `loki.*` components, which are not built in yet; what is
//! converted is the discovery of targets, their relabelling, and the level of the agent's own log.

use crate::block::Pipeline;
use crate::label::sanitize;
use crate::prometheus::discovery;
use crate::report::Report;
use crate::yaml::{Fields, Node};

/// What a scrape configuration may read from besides files, and the component for it.
const INPUTS: [(&str, &str); 11] = [
    ("journal", "loki.source.journal"),
    ("syslog", "loki.source.syslog"),
    ("gcplog", "loki.source.gcplog"),
    ("loki_push_api", "loki.source.api"),
    ("windows_events", "loki.source.windowsevent"),
    ("kafka", "loki.source.kafka"),
    ("azure_event_hubs", "loki.source.azure_event_hubs"),
    ("gelf", "loki.source.gelf"),
    ("cloudflare", "loki.source.cloudflare"),
    ("heroku_drain", "loki.source.heroku"),
    ("docker_sd_configs", "loki.source.docker"),
];

pub(crate) fn convert(document: &Node, pipeline: &mut Pipeline<'_>, report: &mut Report) {
    let root = document.fields("the configuration", report);
    for name in ["clients", "client"] {
        if let Some(node) = root.get(name).filter(|node| !node.is_empty()) {
            report.missing_component(node.line, name, "loki.write");
        }
    }
    for (index, job) in root.get("scrape_configs").map_or(&[][..], |node| node.items()).iter().enumerate() {
        let job = job.fields(&format!("scrape_configs[{index}]"), report);
        scrape_config(job, pipeline, report);
    }
    if let Some(server) = root.get("server") {
        let server = server.fields("server", report);
        if let Some(level) = server.text("log_level", report).filter(|level| level != "info") {
            pipeline.settings("logging", &[("level", level)]);
        }
        for name in ["http_path_prefix", "profiling_enabled", "health_check_target"] {
            server.unsupported(name, report);
        }
        if let Some((_, node)) = server.all().find(|(name, _)| name.starts_with("http_listen")) {
            report.info(node.line, "the agent has one HTTP server: say where with --server.http.listen-addr");
        }
    }
    for name in ["positions", "limits_config", "global", "target_config", "options", "tracing", "wal"] {
        if let Some(node) = root.get(name).filter(|node| !node.is_empty()) {
            report.missing_component(node.line, name, "loki.source.file");
        }
    }
    root.finish(report);
}

fn scrape_config(job: Fields<'_>, pipeline: &mut Pipeline<'_>, report: &mut Report) {
    let name = job.text("job_name", report).unwrap_or_default();
    let label = sanitize(if name.is_empty() { "default" } else { &name });
    for (field, component) in INPUTS {
        if let Some(node) = job.get(field).filter(|node| !node.is_empty()) {
            report.missing_component(node.line, format!("{field} of {}", job.what()), component);
        }
    }
    if let Some(node) = job.get("pipeline_stages").filter(|node| !node.is_empty()) {
        report.missing_component(node.line, format!("pipeline_stages of {}", job.what()), "loki.process");
    }
    for field in ["encoding", "decompression", "limit_config"] {
        if let Some(node) = job.get(field).filter(|node| !node.is_empty()) {
            report.missing_component(node.line, format!("{field} of {}", job.what()), "loki.source.file");
        }
    }
    let targets = discovery::convert(&job, &label, pipeline, report);
    if !targets.is_empty() {
        report.missing_component(
            job.line,
            format!("tailing the files of {}", job.what()),
            "loki.source.file",
        );
        discovery::relabel(&job, targets, &label, pipeline, report);
    } else {
        job.get("relabel_configs");
    }
    job.finish(report);
}
