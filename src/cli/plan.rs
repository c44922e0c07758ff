//! `invar plan`: what would change, component by component, if a configuration were applied to the running agent. The
//! agent computes it with the functions that a swap uses.

use invar_rollout::PlanSummary;
use invar_syntax::{Style, render};
use serde::Deserialize;

use super::client::{Client, ClientError};
use super::output::{self, Styling, Tone, complain, line};
use super::{Format, Remote, local};
use crate::exit::Exit;
use crate::planning::Proposal;

#[derive(Debug, clap::Args)]
pub(crate) struct PlanArguments {
    /// File, directory or address to plan for; by default the newest revision of the sources
    #[arg(value_name = "PATH|ADDRESS")]
    what: Option<String>,
    #[command(flatten)]
    host: local::Host,
    /// Exit with 2 if anything would change
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    remote: Remote,
}

/// One entry of a plan, as the API has it.
#[derive(Deserialize)]
struct Change {
    node: String,
    action: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    file: String,
    #[serde(default)]
    line: u32,
    #[serde(default)]
    arguments: Vec<ArgumentChange>,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct ArgumentChange {
    path: String,
    old: Option<String>,
    new: Option<String>,
}

pub(crate) async fn main(arguments: PlanArguments, styling: Styling) -> Result<Exit, ClientError> {
    let client = Client::new(&arguments.remote)?;
    let summary: Option<PlanSummary> = match arguments.what {
        None => client.get("/api/v1/plan").await?,
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
            if candidate.faults.has_errors() {
                complain(render(&candidate.faults, Style { color: styling.errors() }).trim_end());
                return Ok(Exit::Refused);
            }
            match Proposal::of(&candidate.composition) {
                Some(proposal) => Some(client.post("/api/v1/plan", &proposal).await?),
                None => {
                    complain("invar: a file is not UTF-8; `invar validate` says which and where");
                    return Ok(Exit::Refused);
                }
            }
        }
    };
    let Some(summary) = summary else {
        line("no revision has been planned yet");
        return Ok(Exit::Done);
    };
    let changed = summary.counts.iter().any(|(action, count)| action != "keep" && *count > 0);
    match arguments.remote.output.format {
        Format::Json => output::json(&summary),
        Format::Text => print(&summary, changed, styling),
    }
    Ok(if changed && arguments.detailed_exitcode { Exit::Changes } else { Exit::Done })
}

/// Where a block stands, with its source where there are several.
fn place(change: &Change, several: bool) -> String {
    match (change.file.as_str(), several && !change.sources.is_empty()) {
        ("", _) => String::new(),
        (file, true) => format!("{} {file}:{}", change.sources.join(" + "), change.line),
        (file, false) => format!("{file}:{}", change.line),
    }
}

fn print(summary: &PlanSummary, changed: bool, styling: Styling) {
    let count = |action: &str| summary.counts.get(action).copied().unwrap_or(0);
    if !changed {
        line(format!("No changes: {} components stay as they are.", count("keep")));
        return;
    }
    let changes: Vec<Change> = serde_json::from_value(summary.changes.clone()).unwrap_or_default();
    let mut sources: Vec<&String> = changes.iter().flat_map(|change| &change.sources).collect();
    sources.sort_unstable();
    sources.dedup();
    let several = sources.len() > 1;
    for change in &changes {
        let (symbol, tone, text) = match change.action.as_str() {
            "create" => ("  +", Tone::Good, "create"),
            "update" => ("  ~", Tone::Attention, "update in place"),
            "replace" => ("-/+", Tone::Attention, "replace"),
            "destroy" => ("  -", Tone::Bad, "destroy"),
            _ => continue,
        };
        let place = place(change, several);
        line(format!("{} {place}", styling.paint(tone, &format!("{symbol} {:<44} {text:<16}", change.node))));
        for argument in &change.arguments {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
            line(format!("      {}  {} → {}", argument.path, side(&argument.old), side(&argument.new)));
        }
        for note in &change.notes {
            line(format!("      {note}"));
        }
    }
    if count("keep") > 0 {
        line(format!("  = {} unchanged", count("keep")));
    }
    line(format!(
        "\n{} to create, {} to update, {} to replace, {} to destroy.",
        count("create"),
        count("update"),
        count("replace"),
        count("destroy")
    ));
}
