//! `-o sarif`: the Static Analysis Results Interchange Format 2.1.0, as code scanning services read it.

use std::collections::HashMap;

use invar_syntax::diagnostic::Label;
use serde_json::{Value, json};

use super::report::{Checked, Region, characters, region};
use super::rules::Rule;
use crate::cli::local::Finding;

/// All findings as one run.
pub(super) fn sarif(checked: &[Checked]) -> Value {
    let mut used: Vec<Rule> = Vec::new();
    let mut lines: HashMap<String, u32> = HashMap::new();
    let mut results = Vec::new();
    for finding in checked.iter().flat_map(|checked| &checked.findings) {
        let rule = finding.rule();
        let index = used.iter().position(|known| known.code == rule.code).unwrap_or_else(|| {
            used.push(rule);
            used.len() - 1
        });
        let location = |label: &Label| {
            let Region { start, end } = region(label, characters);
            json!({
                "physicalLocation": {
                    "artifactLocation": { "uri": uri(&label.source.name) },
                    "region": {
                        "startLine": start.0, "startColumn": start.1, "endLine": end.0, "endColumn": end.1,
                    },
                },
            })
        };
        let related = finding.diagnostic.labels.iter().enumerate().skip(1).map(|(id, label)| {
            let mut related = location(label);
            related["id"] = json!(id);
            related["message"] = json!({ "text": label.text });
            related
        });
        let print = fingerprint(finding, &mut lines);
        results.push(json!({
            "ruleId": rule.code,
            "ruleIndex": index,
            "level": finding.diagnostic.severity.to_string(),
            "message": { "text": finding.words() },
            "locations": finding.diagnostic.primary().map(location).into_iter().collect::<Vec<_>>(),
            "relatedLocations": related.collect::<Vec<_>>(),
            "partialFingerprints": { "invarFinding/v1": print },
        }));
    }
    let rules = used.iter().map(|rule| {
        let level = if rule.code.starts_with('W') { "warning" } else { "error" };
        json!({
            "id": rule.code,
            "name": rule.name,
            "shortDescription": { "text": rule.meaning },
            "help": { "text": rule.meaning },
            "defaultConfiguration": { "level": level },
        })
    });
    let unreadable = checked
        .iter()
        .filter_map(|checked| checked.unreadable.as_ref())
        .map(|problem| json!({ "level": "error", "message": { "text": problem } }));
    let unreadable: Vec<_> = unreadable.collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "invar",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": unreadable.is_empty(),
                "toolExecutionNotifications": unreadable,
            }],
            "results": results,
        }],
    })
}

/// What names a finding across revisions of a file: rule, file and the text of the line, not its number. Findings that are
/// alike in all of that are counted.
fn fingerprint(finding: &Finding, lines: &mut HashMap<String, u32>) -> String {
    let line = finding.place().map(|(label, region)| {
        let line = label.source.line_span(region.start.0).map_or("", |span| label.source.slice(span));
        format!("{}\0{}", label.source.name, line.trim())
    });
    let key =
        format!("{}\0{}\0{}", finding.diagnostic.code, finding.diagnostic.message, line.unwrap_or_default());
    let count = lines.entry(key.clone()).or_default();
    *count += 1;
    format!("{:016x}:{count}", fnv(key.as_bytes()))
}

/// The 64-bit FNV-1a hash: it must be the same in every version and on every machine, and guards nothing.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A path as a URI: relative ones stay so, for the service that knows the root of the repository.
fn uri(path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let mut text = String::new();
    if path.starts_with('/') {
        text.push_str("file://");
    }
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b'@' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
