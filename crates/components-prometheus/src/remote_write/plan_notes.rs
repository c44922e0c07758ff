//! What a plan says of a change to a `prometheus.remote_write`: where each endpoint's part of the log begins and who takes
//! over the rest of one that goes. What is said here the legs ([`crate::wal`]) do.

use std::collections::{BTreeMap, HashMap};

use invar_blocks::http_client::redact_url;
use invar_syntax::duration::format_duration;
use url::Url;

use super::arguments::{EndpointArguments, RemoteWriteArguments};

/// The notes on one change.
pub(super) fn notes(
    before: Option<&RemoteWriteArguments>,
    after: Option<&RemoteWriteArguments>,
) -> Vec<String> {
    match (before, after) {
        (None, Some(after)) => created(after),
        (Some(before), Some(after)) => changed(before, after),
        (Some(before), None) => {
            let kept = format_duration(before.wal().max_keepalive_time);
            vec![format!(
                "its log is closed and kept for {kept} unless a component of this name adopts it sooner"
            )]
        }
        (None, None) => Vec::new(),
    }
}

fn created(after: &RemoteWriteArguments) -> Vec<String> {
    let count = match after.endpoints.len() {
        0 => "no endpoint: the log only keeps".to_owned(),
        1 => "1 endpoint, sent what arrives from the swap on".to_owned(),
        count => format!("{count} endpoints, sent what arrives from the swap on"),
    };
    vec![
        count,
        "a log that an earlier component of this name left is adopted, else a new one is made".to_owned(),
    ]
}

fn changed(before: &RemoteWriteArguments, after: &RemoteWriteArguments) -> Vec<String> {
    let relabelled = before.external_labels != after.external_labels;
    let (old, new) = (keyed(before), keyed(after));
    let mut notes = vec!["its log is kept".to_owned()];
    let mut begun = Vec::new();
    for (key, endpoint) in &new {
        match old.get(key) {
            None => {
                begun.push(shown(endpoint));
                notes.push(format!(
                    "endpoint {} is new: it is sent what arrives from the swap on",
                    shown(endpoint)
                ));
            }
            Some(was) if relabelled || was != endpoint => {
                begun.push(shown(endpoint));
                notes.push(if was.url == endpoint.url {
                    format!(
                        "endpoint {} changes: it goes on where it stopped, after the requests under way",
                        shown(endpoint)
                    )
                } else {
                    format!(
                        "endpoint {} gets another address: the old one is sent what arrived before the swap, the new one what comes after",
                        shown(endpoint)
                    )
                });
            }
            Some(_) => {}
        }
    }
    for (_, endpoint) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        let all: Vec<String> = new.values().map(|endpoint| shown(endpoint)).collect();
        let heirs = match &all[..] {
            [] => "stays in the log".to_owned(),
            [only] => format!("goes to {only}"),
            all if begun.is_empty() => format!("goes to {}", all.join(" and ")),
            _ => format!("goes to {}", begun.join(" and ")),
        };
        notes.push(format!(
            "endpoint {} goes: once the change is committed, what it was not sent yet {heirs}",
            shown(endpoint)
        ));
    }
    notes
}

/// The endpoints by what makes two of them the same: the name, else the address and its ordinal among the nameless.
fn keyed(arguments: &RemoteWriteArguments) -> BTreeMap<(bool, &str, usize), &EndpointArguments> {
    let mut ordinals: HashMap<&str, usize> = HashMap::new();
    let keys = arguments.endpoints.iter().map(|endpoint| match endpoint.name.as_str() {
        "" => {
            let ordinal = ordinals.entry(&endpoint.url).or_default();
            *ordinal += 1;
            ((false, endpoint.url.as_str(), *ordinal), endpoint)
        }
        name => ((true, name, 0), endpoint),
    });
    keys.collect()
}

/// The endpoint as people may see it.
fn shown(endpoint: &EndpointArguments) -> String {
    match Url::parse(&endpoint.url) {
        _ if !endpoint.name.is_empty() => format!("{:?}", endpoint.name),
        Ok(url) => redact_url(&url),
        Err(_) => "without a valid address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::arguments::Arguments;
    use invar_syntax::evaluate::evaluate_body;
    use invar_syntax::parse_bytes;
    use invar_syntax::scope::EmptyScope;

    use super::*;

    fn arguments(endpoints: &[(&str, &str)]) -> RemoteWriteArguments {
        let text: String = endpoints
            .iter()
            .map(|(name, url)| format!("endpoint {{\n name = \"{name}\"\n url = \"{url}\"\n}}\n"))
            .collect();
        let (file, _) = parse_bytes("test", text.as_bytes());
        let body = evaluate_body(&file.unwrap().body, &EmptyScope).unwrap();
        RemoteWriteArguments::decode(&body, &mut Vec::new()).unwrap()
    }

    #[test]
    fn a_plan_says_where_each_endpoint_begins_and_who_inherits() {
        let one = arguments(&[("", "http://ana:secret@a/push")]);
        let two = arguments(&[("", "http://ana:secret@a/push"), ("b", "http://b/push")]);
        assert_eq!(
            notes(Some(&one), Some(&two)),
            ["its log is kept", "endpoint \"b\" is new: it is sent what arrives from the swap on"]
        );
        let back = notes(Some(&two), Some(&one)).join("; ");
        assert!(back.contains("endpoint \"b\" goes") && back.contains("goes to http://ana:"), "{back}");
        assert!(!back.contains("secret"), "{back}");
        let moved = arguments(&[("b", "http://c/push")]);
        let text = notes(Some(&arguments(&[("b", "http://b/push")])), Some(&moved)).join("; ");
        assert!(text.contains("gets another address"), "{text}");
        assert_eq!(
            notes(Some(&one), None),
            ["its log is closed and kept for 8h0m0s unless a component of this name adopts it sooner"]
        );
        assert!(notes(None, Some(&two))[0].starts_with("2 endpoints"));
    }
}
