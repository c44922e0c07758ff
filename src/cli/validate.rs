//! `invar validate`: the checks that the agent runs before it prepares anything, on any machine, without an agent. All
//! errors at once.

use invar_engine::{Configuration, Inputs};
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
    /// Refuse a configuration that has warnings (exit code 3)
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn main(arguments: &ValidateArguments, styling: Styling) -> Exit {
    let files = match local::read(&arguments.what) {
        Ok(files) => files,
        Err(problem) => {
            complain(format!("invar: {problem}"));
            return Exit::Failed;
        }
    };
    let count = files.len();
    let diagnostics = check(files);
    match arguments.output.format {
        Format::Json => output::json(&as_json(&diagnostics)),
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

fn check(files: local::Files) -> Diagnostics {
    match Configuration::parse(files, Inputs::default(), "") {
        Ok(configuration) => invar_engine::validate(&crate::registry::components(), &configuration),
        Err(diagnostics) => diagnostics,
    }
}

fn as_json(diagnostics: &Diagnostics) -> serde_json::Value {
    let entries = diagnostics.0.iter().map(|diagnostic| {
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
        })
    });
    json!({ "version": 1, "valid": !diagnostics.has_errors(), "diagnostics": entries.collect::<Vec<_>>() })
}
