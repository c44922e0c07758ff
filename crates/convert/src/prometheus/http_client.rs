//! How targets and endpoints are reached: the HTTP client settings that Prometheus has in many places.

use invar_syntax::Value;
use invar_syntax::schema::{Field, Schema};

use super::scalar::{map, texts};
use crate::block::Block;
use crate::report::Report;
use crate::yaml::Fields;

/// Reads the client settings among `fields` into `block`, whose declaration is `schema`.
pub(super) fn convert(fields: &Fields<'_>, block: &mut Block, schema: &Schema, report: &mut Report) {
    if let Some(node) = fields.get("basic_auth") {
        let auth = node.fields("basic_auth", report);
        let mut nested = Block::default();
        copy_texts(&auth, &mut nested, &["username", "password", "password_file"], report);
        auth.unsupported("username_file", report);
        auth.finish(report);
        block.add("basic_auth", nested);
    }
    if let Some(node) = fields.get("authorization") {
        let auth = node.fields("authorization", report);
        let mut nested = Block::default();
        nested.set("type", Value::string(auth.text("type", report).unwrap_or_else(|| "Bearer".to_owned())));
        copy_texts(&auth, &mut nested, &["credentials", "credentials_file"], report);
        auth.finish(report);
        block.add("authorization", nested);
    }
    if let Some(node) = fields.get("oauth2") {
        let auth = node.fields("oauth2", report);
        let mut nested = Block::default();
        copy_texts(
            &auth,
            &mut nested,
            &["client_id", "client_secret", "client_secret_file", "token_url"],
            report,
        );
        nested.set_some("scopes", texts(&auth, "scopes", report));
        nested.set_some("endpoint_params", map(&auth, "endpoint_params", report));
        proxy(&auth, &mut nested, report);
        nested.add("tls_config", tls(&auth, report));
        auth.finish(report);
        block.add("oauth2", nested);
    }
    copy_texts(fields, block, &["bearer_token", "bearer_token_file"], report);
    proxy(fields, block, report);
    block.add_unless_default("tls_config", tls(fields, report), schema);
    for name in ["follow_redirects", "enable_http2"] {
        block.set_some(name, fields.flag(name, report).map(Value::Bool));
    }
    if let Some(headers) = headers(fields, "http_headers", report) {
        block.set("http_headers", headers);
    }
}

fn copy_texts(fields: &Fields<'_>, block: &mut Block, names: &[&'static str], report: &mut Report) {
    for name in names {
        block.set_some(name, fields.text(name, report).map(Value::string));
    }
}

fn proxy(fields: &Fields<'_>, block: &mut Block, report: &mut Report) {
    copy_texts(fields, block, &["proxy_url", "no_proxy"], report);
    block.set_some("proxy_from_environment", fields.flag("proxy_from_environment", report).map(Value::Bool));
    if let Some(node) = fields.get("proxy_connect_header") {
        let header = node.fields("proxy_connect_header", report);
        let entries: Vec<(String, Value)> = header
            .all()
            .map(|(name, node)| {
                let values =
                    node.items().iter().filter_map(|item| item.text(name, report)).map(Value::string);
                (name.to_owned(), Value::array(values.collect::<Vec<_>>()))
            })
            .collect();
        block.set("proxy_connect_header", Value::object(entries));
    }
}

/// Headers with plain and secret values; those from files have no equivalent.
fn headers(fields: &Fields<'_>, name: &str, report: &mut Report) -> Option<Value> {
    let headers = fields.get(name)?.fields(name, report);
    let mut entries = Vec::new();
    for (header, node) in headers.all() {
        let sources = node.fields(header, report);
        let mut values = Vec::new();
        for source in ["values", "secrets"] {
            let items = sources.get(source).map_or(&[][..], |node| node.items());
            values.extend(items.iter().filter_map(|item| item.text(header, report)).map(Value::string));
        }
        sources.unsupported("files", report);
        sources.finish(report);
        entries.push((header.to_owned(), Value::array(values)));
    }
    Some(Value::object(entries))
}

fn tls(fields: &Fields<'_>, report: &mut Report) -> Block {
    let mut block = Block::default();
    let Some(node) = fields.get("tls_config") else { return block };
    let tls = node.fields("tls_config", report);
    for (theirs, ours) in [
        ("ca", "ca_pem"),
        ("ca_file", "ca_file"),
        ("cert", "cert_pem"),
        ("cert_file", "cert_file"),
        ("key", "key_pem"),
        ("key_file", "key_file"),
        ("server_name", "server_name"),
        ("min_version", "min_version"),
    ] {
        block.set_some(ours, tls.text(theirs, report).map(Value::string));
    }
    block.set_some("insecure_skip_verify", tls.flag("insecure_skip_verify", report).map(Value::Bool));
    tls.unsupported("max_version", report);
    tls.finish(report);
    block
}

/// The declaration of a nested block.
pub(super) fn nested_schema(schema: &Schema, name: &str) -> Schema {
    Schema { fields: schema.field(name).map(Field::nested).unwrap_or_default() }
}
