//! The configuration of an OpenTelemetry Collector. Most of what it can do needs `otelcol.*` components, which are not
//! built in yet; what is converted is a metrics pipeline from the `prometheus` receiver to `prometheusremotewrite`
//! exporters, and the level of the agent's own log.

use invar_syntax::Value;

use crate::block::{Block, Pipeline, Place, map_text};
use crate::label::sanitize;
use crate::prometheus;
use crate::report::Report;
use crate::yaml::{Fields, Node};

const WRITE: &str = "prometheus.remote_write";

pub(crate) fn convert(document: &Node, pipeline: &mut Pipeline<'_>, report: &mut Report) {
    let root = document.fields("the configuration", report);
    let section = |name: &str, report: &mut Report| root.get(name).map(|node| node.fields(name, report));
    let receivers = section("receivers", report);
    let exporters = section("exporters", report);
    let processors = section("processors", report);
    for name in ["extensions", "connectors"] {
        for (id, node) in section(name, report).iter().flat_map(Fields::all) {
            report.missing_component(node.line, format!("{name} {id}"), &component_of(name, id));
        }
    }
    let service = section("service", report);
    if let Some(service) = &service {
        telemetry(service, pipeline, report);
        service.get("extensions");
        let pipelines = service.get("pipelines").map(|node| node.fields("service.pipelines", report));
        for (id, node) in pipelines.iter().flat_map(Fields::all) {
            let parts = node.fields(&format!("pipeline {id}"), report);
            let sections = Sections { receivers: &receivers, processors: &processors, exporters: &exporters };
            pipeline_of(id, &parts, &sections, pipeline, report);
            parts.finish(report);
        }
    }
    if let Some(service) = service {
        service.finish(report);
    }
    root.finish(report);
}

/// The definitions that pipelines refer to.
struct Sections<'a, 'b> {
    receivers: &'b Option<Fields<'a>>,
    processors: &'b Option<Fields<'a>>,
    exporters: &'b Option<Fields<'a>>,
}

fn telemetry(service: &Fields<'_>, pipeline: &mut Pipeline<'_>, report: &mut Report) {
    let Some(node) = service.get("telemetry") else { return };
    let telemetry = node.fields("service.telemetry", report);
    if let Some(node) = telemetry.get("logs") {
        let logs = node.fields("service.telemetry.logs", report);
        let mut attributes = Vec::new();
        if let Some(level) = logs.text("level", report) {
            attributes.push(("level", level.to_lowercase()));
        }
        if logs.text("encoding", report).is_some_and(|encoding| encoding == "json") {
            attributes.push(("format", "json".to_owned()));
        }
        if !attributes.is_empty() {
            pipeline.settings("logging", &attributes);
        }
        for (name, node) in logs.all().filter(|(name, _)| !matches!(*name, "level" | "encoding")) {
            report.unsupported(node.line, format!("{name} of service.telemetry.logs"));
        }
    }
    for name in ["metrics", "traces", "resource"] {
        telemetry.unsupported(name, report);
    }
    telemetry.finish(report);
}

/// The type of a component id such as `otlp/second`.
fn kind(id: &str) -> &str {
    id.split_once('/').map_or(id, |(kind, _)| kind)
}

/// The Alloy component for an id of a section.
fn component_of(section: &str, id: &str) -> String {
    let room = match section {
        "receivers" => "receiver",
        "processors" => "processor",
        "exporters" => "exporter",
        "connectors" => "connector",
        _ => "extension",
    };
    format!("otelcol.{room}.{}", kind(id))
}

fn names(parts: &Fields<'_>, field: &str, report: &mut Report) -> Vec<(usize, String)> {
    let items = parts.get(field).map_or(&[][..], |node| node.items());
    items.iter().filter_map(|item| Some((item.line, item.text(field, report)?))).collect()
}

fn pipeline_of(
    id: &str,
    parts: &Fields<'_>,
    sections: &Sections<'_, '_>,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) {
    let mut receivers_of_exporters = Vec::new();
    for (line, exporter) in names(parts, "exporters", report) {
        match sections.exporters.as_ref().and_then(|exporters| exporters.get(&exporter)) {
            Some(node) if kind(&exporter) == "prometheusremotewrite" && kind(id) == "metrics" => {
                receivers_of_exporters.push(exporter_block(&exporter, node, pipeline, report));
            }
            _ => report.missing_component(
                line,
                format!("exporter {exporter} of pipeline {id}"),
                &component_of("exporters", &exporter),
            ),
        }
    }
    for (line, processor) in names(parts, "processors", report) {
        let _known = sections.processors.as_ref().and_then(|processors| processors.get(&processor));
        if matches!(kind(&processor), "batch" | "memory_limiter") {
            report.info(
                line,
                format!("{processor} of pipeline {id} is not needed: batching and limits are built in"),
            );
        } else {
            report.missing_component(
                line,
                format!("processor {processor} of pipeline {id}"),
                &component_of("processors", &processor),
            );
        }
    }
    for (line, receiver) in names(parts, "receivers", report) {
        match sections.receivers.as_ref().and_then(|receivers| receivers.get(&receiver)) {
            Some(node) if kind(&receiver) == "prometheus" && kind(id) == "metrics" => {
                let fields = node.fields(&format!("receiver {receiver}"), report);
                let prefix = receiver.split_once('/').map(|(_, name)| format!("{}_", sanitize(name)));
                if let Some(config) = fields.get("config") {
                    let prefix = prefix.unwrap_or_default();
                    prometheus::embedded(config, &receivers_of_exporters, &prefix, pipeline, report);
                }
                for name in
                    ["target_allocator", "api_server", "trim_metric_suffixes", "use_start_time_metric"]
                {
                    fields.unsupported(name, report);
                }
                fields.finish(report);
            }
            _ => report.missing_component(
                line,
                format!("receiver {receiver} of pipeline {id}"),
                &component_of("receivers", &receiver),
            ),
        }
    }
}

/// Writes the `prometheus.remote_write` of an exporter and answers its receiver. One that several pipelines use is
/// written once.
fn exporter_block(id: &str, node: &Node, pipeline: &mut Pipeline<'_>, report: &mut Report) -> String {
    let wanted = id.split_once('/').map_or_else(|| "default".to_owned(), |(_, name)| sanitize(name));
    let receiver = format!("{WRITE}.{wanted}.receiver");
    let label = pipeline.labels.take(WRITE, &wanted);
    if label != wanted {
        return receiver;
    }
    let fields = node.fields(&format!("exporter {id}"), report);
    let mut block = Block::default();
    if let Some(labels) = fields.get("external_labels") {
        let entries: Vec<(&str, String)> = labels
            .fields("external_labels", report)
            .all()
            .map(|(name, node)| (name, expression(&node.text(name, report).unwrap_or_default())))
            .collect();
        block.set_expression("external_labels", map_text(entries.into_iter()));
    }
    let mut endpoint = Block::default();
    endpoint.set_expression("url", expression(&fields.text("endpoint", report).unwrap_or_default()));
    endpoint.set_some("remote_timeout", fields.text("timeout", report).map(Value::string));
    if let Some(headers) = fields.get("headers") {
        let entries: Vec<(&str, String)> = headers
            .fields("headers", report)
            .all()
            .map(|(name, node)| (name, expression(&node.text(name, report).unwrap_or_default())))
            .collect();
        endpoint.set_expression("headers", map_text(entries.into_iter()));
    }
    if let Some(tls) = fields.get("tls") {
        let tls = tls.fields("tls", report);
        let mut nested = Block::default();
        for (theirs, ours) in [
            ("ca_file", "ca_file"),
            ("cert_file", "cert_file"),
            ("key_file", "key_file"),
            ("server_name_override", "server_name"),
        ] {
            nested.set_some(ours, tls.text(theirs, report).map(Value::string));
        }
        nested.set_some("insecure_skip_verify", tls.flag("insecure_skip_verify", report).map(Value::Bool));
        // The scheme of the address says it already.
        tls.get("insecure");
        tls.finish(report);
        endpoint.add("tls_config", nested);
    }
    if fields.text("protobuf_message", report).is_some_and(|message| message.contains("v2")) {
        endpoint.set("protobuf_message", Value::string("io.prometheus.write.v2.Request"));
    }
    for name in [
        "auth",
        "namespace",
        "remote_write_queue",
        "resource_to_telemetry_conversion",
        "target_info",
        "add_metric_suffixes",
        "retry_on_failure",
        "wal",
        "max_batch_size_bytes",
        "send_metadata",
    ] {
        fields.unsupported(name, report);
    }
    let line = fields.line;
    fields.finish(report);
    block.add("endpoint", endpoint);
    pipeline.component(Place::Write, WRITE, &label, &block, line, report);
    report.info(line, format!("exporter {id} became {WRITE}.{label}"));
    receiver
}

/// Text in which `${env:NAME}` and `${env:NAME:-default}` stand for variables of the environment, as an expression.
fn expression(text: &str) -> String {
    use invar_syntax::expression_text::quote;
    let mut operands: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inner, behind)) = after.split_once('}') else { break };
        if !before.is_empty() {
            operands.push(quote(before));
        }
        let inner = inner.strip_prefix("env:").unwrap_or(inner);
        operands.push(match inner.split_once(":-") {
            Some((name, default)) => format!("coalesce(sys.env({}), {})", quote(name), quote(default)),
            None => format!("sys.env({})", quote(inner)),
        });
        rest = behind;
    }
    if !rest.is_empty() || operands.is_empty() {
        operands.push(quote(rest));
    }
    operands.join(" + ")
}
