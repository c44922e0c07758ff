//! `invar explain`: where a variable comes from and what it overrode, in the running agent or in a configuration at hand.

use invar_rollout::{VariablePlace, VariableReport, explain_variable, read_variables};
use invar_syntax::{Style, render};

use super::client::{Client, ClientError};
use super::output::{self, Styling, Table, Tone, complain, line};
use super::{Format, Remote, local};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArguments {
    /// The variable, as expressions write it; `var` for all
    #[arg(value_name = "var.NAME")]
    variable: String,
    /// File, directory or address to look in; by default what the agent runs
    #[arg(value_name = "PATH|ADDRESS")]
    what: Option<String>,
    #[command(flatten)]
    host: local::Host,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn main(arguments: ExplainArguments, styling: Styling) -> Result<Exit, ClientError> {
    let name = arguments.variable.as_str();
    if name != "var" && !name.starts_with("var.") {
        complain(format!("invar: {name} is no variable; write var.NAME"));
        return Ok(Exit::Usage);
    }
    let report: VariableReport = match arguments.what {
        None => Client::new(&arguments.remote)?.get(&format!("/api/v1/variables/{}", encoded(name))).await?,
        Some(what) => {
            let host = arguments.host;
            let read = tokio::task::spawn_blocking(move || local::read_for(&what, &host)).await;
            let candidate = match read.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(candidate) => candidate,
                Err(problem) => {
                    complain(format!("invar: {problem}"));
                    return Ok(Exit::Failed);
                }
            };
            let (variables, mut diagnostics) = read_variables(&candidate.composition.variables);
            diagnostics.extend(candidate.faults);
            if diagnostics.has_errors() {
                complain(render(&diagnostics, Style { color: styling.errors() }).trim_end());
                return Ok(Exit::Refused);
            }
            match explain_variable(&variables, name) {
                Ok(report) => report,
                Err(problem) => {
                    complain(format!("invar: {problem}"));
                    return Ok(Exit::Failed);
                }
            }
        }
    };
    match arguments.remote.output.format {
        Format::Json => output::json(&report),
        Format::Text => print(&report, styling),
    }
    Ok(Exit::Done)
}

/// A path of names as one segment of an address.
fn encoded(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

fn print(report: &VariableReport, styling: Styling) {
    if report.fields.is_empty() {
        line(format!("{} = {}", styling.paint(Tone::Strong, &report.name), report.expression));
        let mut table = Table::new(&["", "FILE", "SOURCE", "LAYER", "VALUE"]);
        for (what, place) in places(report) {
            row(&mut table, what, place);
        }
        table.print(styling);
    } else {
        line(styling.paint(Tone::Strong, &report.name));
        let mut table = Table::new(&["VARIABLE", "VALUE", "FROM", "OVERRODE"]);
        fields(report, &mut table);
        table.print(styling);
    }
    warn(report, styling);
}

fn places(report: &VariableReport) -> impl Iterator<Item = (&'static str, &VariablePlace)> {
    let defined = report.defined.iter().map(|place| ("defined", place));
    defined.chain(report.overrode.iter().map(|place| ("overrode", place)))
}

fn location(place: &VariablePlace) -> String {
    format!("{}:{}:{}", place.file, place.line, place.column)
}

fn row(table: &mut Table, what: &str, place: &VariablePlace) {
    let layer = if place.layer.is_empty() { "(root)" } else { &place.layer };
    let text = place.text.as_deref().unwrap_or("(table)").split_whitespace().collect::<Vec<_>>().join(" ");
    let cells = [what.to_owned(), location(place), place.source.clone(), layer.to_owned(), text];
    table.row(cells.map(|cell| (Tone::Plain, cell)));
}

fn fields(report: &VariableReport, table: &mut Table) {
    for field in &report.fields {
        if field.fields.is_empty() {
            let from = field.defined.as_ref().map(location).unwrap_or_default();
            let overrode = field.overrode.iter().map(location).collect::<Vec<_>>().join(", ");
            let cells = [field.name.clone(), field.expression.clone(), from, overrode];
            table.row(cells.map(|cell| (Tone::Plain, cell)));
        } else {
            fields(field, table);
        }
    }
}

fn warn(report: &VariableReport, styling: Styling) {
    if let Some(warning) = &report.warning {
        complain(styling.paint(Tone::Attention, &format!("warning: {}: {warning}", report.name)));
    }
    report.fields.iter().for_each(|field| warn(field, styling));
}
