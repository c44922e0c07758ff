//! `invar validate`: the checks that the agent runs before it prepares anything, on any machine, without an agent. All
//! errors at once.

use invar_syntax::{Diagnostics, Severity, Style, render};
use serde_json::json;

use super::output::{self, Styling, complain, line};
use super::{Format, Output, local};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArguments {
    /// File, directory or address (git+https://host/repo.git//path?branch=main)
    #[arg(value_name = "PATH|ADDRESS")]
    what: String,
    #[command(flatten)]
    hosts: local::Hosts,
    /// Refuse a configuration that has warnings (exit code 3)
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn main(arguments: &ValidateArguments, styling: Styling) -> Exit {
    let candidates = match local::read(&arguments.what, &arguments.hosts) {
        Ok(candidates) => candidates,
        Err(problem) => {
            complain(format!("invar: {problem}"));
            return Exit::Failed;
        }
    };
    let count = local::count_files(&candidates);
    let findings = local::check(&candidates);
    let diagnostics: Diagnostics = findings.iter().map(local::Finding::in_words).collect();
    match arguments.output.format {
        Format::Json => output::json(&as_json(&findings)),
        Format::Text if diagnostics.0.is_empty() => {
            line(format!(
                "{}: valid ({count} {})",
                arguments.what,
                if count == 1 { "file" } else { "files" }
            ));
        }
        Format::Text => complain(render(&diagnostics, Style { color: styling.errors() }).trim_end()),
    }
    if diagnostics.has_errors() {
        Exit::Refused
    } else if arguments.deny_warnings && !diagnostics.0.is_empty() {
        Exit::Warnings
    } else {
        Exit::Done
    }
}

fn as_json(findings: &[local::Finding]) -> serde_json::Value {
    let entries = findings.iter().map(|finding| {
        let diagnostic = &finding.diagnostic;
        let place = diagnostic.labels.first().map(|label| {
            let start = label.source.position(label.span.start);
            let end = label.source.position(label.span.end);
            json!({
                "file": &*label.source.name,
                "start": { "line": start.line, "column": start.column },
                "end": { "line": end.line, "column": end.column },
            })
        });
        json!({
            "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "code": diagnostic.code,
            "message": diagnostic.message,
            "place": place,
            "help": diagnostic.help,
            "environments": finding.environments,
        })
    });
    let valid = findings.iter().all(|finding| finding.diagnostic.severity != Severity::Error);
    json!({ "version": 1, "valid": valid, "diagnostics": entries.collect::<Vec<_>>() })
}
