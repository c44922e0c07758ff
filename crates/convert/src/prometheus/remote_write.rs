//! Endpoints of remote write: one `prometheus.remote_write` with all of them.

use invar_syntax::Value;

use super::http_client::{self, nested_schema};
use super::{relabel, scalar};
use crate::block::{Block, Pipeline, Place, map_text};
use crate::report::Report;
use crate::yaml::{Fields, Node};

const COMPONENT: &str = "prometheus.remote_write";

pub(super) fn convert(
    endpoints: &Node,
    external_labels: Option<&Node>,
    label: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) {
    let mut block = Block::default();
    if let Some(labels) = external_labels {
        let mut entries: Vec<(&str, String)> = labels
            .fields("external_labels", report)
            .all()
            .map(|(name, node)| {
                (name, scalar::with_environment(&node.text(name, report).unwrap_or_default()))
            })
            .collect();
        entries.sort();
        if !entries.is_empty() {
            block.set_expression("external_labels", map_text(entries.into_iter()));
        }
    }
    let schema = pipeline.schema(COMPONENT).unwrap_or_default();
    let endpoint_schema = nested_schema(&schema, "endpoint");
    let mut names = Vec::new();
    for (index, endpoint) in endpoints.items().iter().enumerate() {
        let fields = endpoint.fields(&format!("remote_write[{index}]"), report);
        names.extend(fields.text("name", report).or_else(|| fields.text("url", report)));
        let mut nested = endpoint_block(&fields, report);
        http_client::convert(&fields, &mut nested, &endpoint_schema, report);
        fields.finish(report);
        block.add("endpoint", nested);
    }
    pipeline.component(Place::Write, COMPONENT, label, &block, endpoints.line, report);
    let count = names.len();
    report.info(endpoints.line, format!("{count} of remote_write became endpoints of {COMPONENT}.{label}"));
}

fn endpoint_block(fields: &Fields<'_>, report: &mut Report) -> Block {
    let mut block = Block::default();
    for name in ["name", "url", "protobuf_message"] {
        block.set_some(name, fields.text(name, report).map(Value::string));
    }
    block.set_some(
        "remote_timeout",
        scalar::duration(fields, "remote_timeout", report).map(crate::block::duration),
    );
    block.set_some("headers", scalar::map(fields, "headers", report));
    for name in ["send_exemplars", "send_native_histograms", "round_robin_dns"] {
        block.set_some(name, fields.flag(name, report).map(Value::Bool));
    }
    block.add("queue_config", queue(fields, report));
    block.add("metadata_config", metadata(fields, report));
    if let Some(rules) = fields.get("write_relabel_configs") {
        relabel::rules(rules, "write_relabel_config", &mut block, report);
    }
    for (name, texts) in [
        (
            "sigv4",
            &["region", "access_key", "secret_key", "profile", "role_arn", "external_id", "service_name"][..],
        ),
        ("google_iam", &["credentials_file"][..]),
    ] {
        if let Some(node) = fields.get(name) {
            let auth = node.fields(name, report);
            let mut nested = texts_block(&auth, texts, report);
            if name == "sigv4" {
                nested.set_some(
                    "use_fips_sts_endpoint",
                    auth.flag("use_fips_sts_endpoint", report).map(Value::Bool),
                );
            }
            auth.finish(report);
            block.add(if name == "sigv4" { "sigv4" } else { "google_iam" }, nested);
        }
    }
    if let Some(node) = fields.get("azuread") {
        let auth = node.fields("azuread", report);
        let mut nested = texts_block(&auth, &["cloud", "scope"], report);
        for (name, texts) in [
            ("managed_identity", &["client_id"][..]),
            ("workload_identity", &["client_id", "tenant_id", "token_file_path"]),
            ("oauth", &["client_id", "client_secret", "tenant_id"]),
            ("sdk", &["tenant_id"]),
        ] {
            if let Some(node) = auth.get(name) {
                let identity = node.fields(name, report);
                let inner = texts_block(&identity, texts, report);
                identity.finish(report);
                nested.add(name, inner);
            }
        }
        auth.finish(report);
        block.add("azuread", nested);
    }
    block
}

fn texts_block(fields: &Fields<'_>, names: &[&'static str], report: &mut Report) -> Block {
    let mut block = Block::default();
    for name in names {
        block.set_some(name, fields.text(name, report).map(Value::string));
    }
    block
}

fn queue(endpoint: &Fields<'_>, report: &mut Report) -> Block {
    let mut block = Block::default();
    let Some(node) = endpoint.get("queue_config") else { return block };
    let queue = node.fields("queue_config", report);
    for name in ["capacity", "max_shards", "min_shards", "max_samples_per_send"] {
        block.set_some(name, scalar::number(&queue, name, report));
    }
    for name in ["batch_send_deadline", "min_backoff", "max_backoff", "sample_age_limit"] {
        block.set_some(name, scalar::duration_value(&queue, name, report));
    }
    block.set_some("retry_on_http_429", queue.flag("retry_on_http_429", report).map(Value::Bool));
    queue.finish(report);
    block
}

fn metadata(endpoint: &Fields<'_>, report: &mut Report) -> Block {
    let mut block = Block::default();
    let Some(node) = endpoint.get("metadata_config") else { return block };
    let metadata = node.fields("metadata_config", report);
    block.set_some("send", metadata.flag("send", report).map(Value::Bool));
    block.set_some("send_interval", scalar::duration_value(&metadata, "send_interval", report));
    block.set_some("max_samples_per_send", scalar::number(&metadata, "max_samples_per_send", report));
    metadata.unsupported("max_samples_per_metadata_send", report);
    metadata.finish(report);
    block
}
