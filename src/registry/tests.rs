//! Every argument that is text has been looked at: either it says what it names, or it is listed here as one that names
//! nothing of the host and nothing beyond it. A new one fails these tests until somebody has decided.

use std::collections::BTreeSet;

use invar_syntax::schema::{Field, FieldKind, Names, Type};

/// Attributes that hold text which the agent only compares, labels or sends. Looked at one by one; none of them is opened,
/// resolved or connected to.
const HARMLESS: &[&str] = &[
    "accepted_remote_write_protobuf_messages",
    "access_key",
    "attributes",
    "bearer_token",
    "body",
    "ca_pem",
    "cert_pem",
    "cipher_suites",
    "client_auth_type",
    "client_ca",
    "client_ca_pem",
    "client_id",
    "client_secret",
    "cloud",
    "credentials",
    "curve_preferences",
    "external_id",
    "external_labels",
    "fail_prepare",
    "headers",
    "http_headers",
    "id",
    "input",
    "input_array",
    "input_map",
    "input_string",
    "issuer_common_names",
    "job_name",
    "key",
    "key_pem",
    "max_version",
    "method",
    "metric",
    "metric_name_escaping_scheme",
    "metric_name_validation_scheme",
    "min_version",
    "name",
    "namespace",
    "params",
    "password",
    "profile",
    "protobuf_message",
    "regex",
    "region",
    "replacement",
    "revision",
    "role_arn",
    "scheme",
    "scope",
    "scopes",
    "scrape_fallback_protocol",
    "scrape_protocols",
    "secret",
    "secret_key",
    "separator",
    "service_name",
    "signing_region",
    "source_labels",
    "store",
    "subject_regex",
    "system_store",
    "target_label",
    "template_id",
    "tenant_id",
    "type",
    "username",
    "write_to",
];

/// What names like these hold is opened or connected to, unless their field says otherwise itself.
const TELLING: [&str; 14] = [
    "file",
    "path",
    "dir",
    "url",
    "uri",
    "address",
    "host",
    "endpoint",
    "socket",
    "server",
    "targets",
    "repository",
    "listen",
    "proxy",
];

/// Recursive schemas are looked at so deep.
const DEPTH: usize = 6;

fn holds_text(ty: &Type) -> bool {
    match ty {
        Type::String | Type::Secret | Type::OptionalSecret | Type::LiveText | Type::Any => true,
        Type::List(inner) | Type::Map(inner) => holds_text(inner),
        Type::Object(fields) => fields.is_empty() || fields.iter().any(|(_, inner)| holds_text(inner)),
        _ => false,
    }
}

/// All attributes that hold text, with where they are.
fn texts() -> Vec<(String, Field)> {
    fn walk(fields: &[Field], place: &str, depth: usize, found: &mut Vec<(String, Field)>) {
        for field in fields {
            let here = format!("{place} {}", field.name);
            let attribute = field.kind == FieldKind::Attribute;
            if attribute && (field.names.is_some() || holds_text(&field.ty)) {
                found.push((here, field.clone()));
            } else if depth < DEPTH {
                walk(&field.nested_fields(), &here, depth + 1, found);
            }
        }
    }
    let mut found = Vec::new();
    for component in super::components().iter() {
        walk(&component.arguments.fields, component.name, 0, &mut found);
    }
    found
}

#[test]
fn every_argument_that_is_text_says_what_it_names_or_is_listed() {
    let undecided: BTreeSet<String> = texts()
        .into_iter()
        .filter(|(_, field)| field.names.is_none() && !HARMLESS.contains(&field.name))
        .map(|(place, _)| place)
        .collect();
    assert!(
        undecided.is_empty(),
        "say with #[argument(names = \"…\")] what these name, or list them as harmless: {undecided:#?}"
    );
}

#[test]
fn no_argument_with_a_telling_name_is_merely_listed() {
    let telling = |name: &str| {
        let plural = |word: &str, part: &str| word.strip_suffix('s') == Some(part);
        let tells = |word: &str| TELLING.iter().any(|part| word == *part || plural(word, part));
        name.split('_').any(tells)
    };
    let listed: Vec<String> = texts()
        .into_iter()
        .filter(|(_, field)| field.names.is_none() && telling(field.name))
        .map(|(place, _)| place)
        .collect();
    assert!(listed.is_empty(), "say with #[argument(names = \"…\")] what these name: {listed:#?}");
}

// Some are of components that release builds lack.
#[cfg(feature = "testing")]
#[test]
fn what_is_listed_exists() {
    let texts = texts();
    let exists = |name: &str| texts.iter().any(|(_, field)| field.name == name && field.names.is_none());
    let gone: Vec<_> = HARMLESS.iter().filter(|name| !exists(name)).collect();
    assert!(gone.is_empty(), "these are no arguments any more: {gone:?}");
}

#[test]
fn what_opens_something_is_known_as_such() {
    let texts = texts();
    let names =
        |place: &str| texts.iter().find(|(found, _)| found == place).and_then(|(_, field)| field.names);
    for (place, expected) in [
        ("local.file filename", Names::File),
        ("discovery.file files", Names::File),
        ("prometheus.remote_write endpoint url", Names::Destination),
        ("prometheus.remote_write endpoint tls_config key_file", Names::File),
        ("prometheus.remote_write endpoint oauth2 token_url", Names::Destination),
        ("prometheus.remote_write endpoint proxy_url", Names::Destination),
        ("prometheus.scrape targets", Names::Targets),
        ("prometheus.scrape basic_auth password_file", Names::File),
        ("prometheus.receive_http http listen_address", Names::Listen),
        ("http tls key_file", Names::File),
        ("remotecfg url", Names::Destination),
        ("remote.kubernetes.secret client api_server", Names::Destination),
        ("remote.kubernetes.secret client kubeconfig_file", Names::File),
        ("remote.kubernetes.configmap client tls_config key_file", Names::File),
    ] {
        assert_eq!(names(place), Some(expected), "{place}");
    }
}
