//! `invar convert`: configurations of other agents as Alloy syntax, with `alloy convert`'s flags. What cannot be converted
//! is an error unless `--bypass-errors` says that the rest is wanted anyway.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use invar_convert::{Format, Report, Severity, convert};
use serde_json::json;

use super::output::complain;
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArguments {
    /// What to convert from: otelcol, prometheus or promtail
    #[arg(short = 'f', long, value_name = "FORMAT")]
    source_format: Format,
    /// Where to write the pipeline; standard output otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where to write what was converted to what, and what was not; JSON where the name ends in .json
    #[arg(short, long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the pipeline although parts could not be converted
    #[arg(short, long)]
    bypass_errors: bool,
    /// Extra arguments of the source program; none of the formats takes any
    #[arg(short, long, value_name = "ARGS", default_value = "", hide_default_value = true)]
    extra_args: String,
    /// The configuration; `-` or nothing is standard input
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: String,
}

pub(crate) fn main(arguments: &ConvertArguments) -> Exit {
    match run(arguments) {
        Ok(exit) => exit,
        Err(problem) => {
            complain(format!("invar: {problem}"));
            Exit::Failed
        }
    }
}

fn run(arguments: &ConvertArguments) -> Result<Exit, String> {
    if !arguments.extra_args.trim().is_empty() {
        return Err(format!("extra arguments are not supported: {}", arguments.extra_args));
    }
    let text = read(&arguments.file)?;
    let conversion = convert(arguments.source_format, &text, &crate::registry::components());
    let name = if arguments.file == "-" { "(standard input)" } else { &arguments.file };
    let worst = conversion.report.worst().unwrap_or(Severity::Info);
    let written = match worst {
        Severity::Critical => false,
        Severity::Error => arguments.bypass_errors,
        Severity::Info | Severity::Warning => true,
    };
    if let Some(path) = &arguments.report {
        let json = path.extension().is_some_and(|extension| extension == "json");
        let text = if json {
            report_json(name, &conversion.report, written)
        } else {
            report_text(name, &conversion.report, written)
        };
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    complain_of(name, &conversion.report);
    if !written {
        if worst == Severity::Error {
            complain("invar: nothing was written; --bypass-errors writes what could be converted");
        }
        return Ok(Exit::Failed);
    }
    match &arguments.output {
        Some(path) => std::fs::write(path, &conversion.pipeline)
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => std::io::stdout()
            .write_all(conversion.pipeline.as_bytes())
            .map_err(|error| format!("standard output: {error}"))?,
    }
    Ok(if worst >= Severity::Error { Exit::Warnings } else { Exit::Done })
}

fn read(file: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|content| bytes = content)
    };
    read.map_err(|error| format!("{file}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{file}: is not UTF-8"))
}

/// Warnings and worse, on standard error.
fn complain_of(name: &str, report: &Report) {
    let text = report.text(name, Severity::Warning);
    if !text.is_empty() {
        complain(text.trim_end());
    }
}

fn report_text(name: &str, report: &Report, written: bool) -> String {
    let end = if written { "The pipeline was written." } else { "No pipeline was written." };
    format!("{}\n{end}\n", report.text(name, Severity::Info))
}

fn report_json(name: &str, report: &Report, written: bool) -> String {
    let findings: Vec<_> = report
        .findings()
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.to_string().to_lowercase(),
                "line": (finding.line > 0).then_some(finding.line),
                "message": finding.message,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "version": 1, "file": name, "written": written, "findings": findings }))
}
