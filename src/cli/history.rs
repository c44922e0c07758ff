//! `invar history`: which revisions were seen and what became of each.

use invar_rollout::{RevisionRecord, Verdict};

use super::client::{Client, ClientError};
use super::output::{self, Styling, Table, Tone, short_revision, span};
use super::status::now;
use super::{Format, Remote};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArguments {
    /// Show revisions that changed nothing, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn main(arguments: HistoryArguments, styling: Styling) -> Result<Exit, ClientError> {
    let mut records: Vec<RevisionRecord> = Client::new(&arguments.remote)?.get("/api/v1/revisions").await?;
    if !arguments.all {
        records.retain(|record| record.verdict != Verdict::NoEffectiveChange);
    }
    match arguments.remote.output.format {
        Format::Json => output::json(&records),
        Format::Text => table(&records).print(styling),
    }
    Ok(Exit::Done)
}

fn table(records: &[RevisionRecord]) -> Table {
    let now = now();
    let mut table = Table::new(&["GEN", "REVISION", "WHEN", "BY", "RESULT", "PROBATION", "NOTE"]);
    let dash = || "–".to_owned();
    for record in records {
        let (result, tone) = match record.verdict {
            Verdict::Committed => ("committed", Tone::Good),
            Verdict::RolledBack => ("rolled back", Tone::Bad),
            Verdict::Rejected => ("rejected", Tone::Bad),
            Verdict::Superseded => ("superseded", Tone::Faint),
            Verdict::NoEffectiveChange => ("no change", Tone::Faint),
            Verdict::Pending => ("pending", Tone::Attention),
        };
        let probation = match (record.swapped, record.decided) {
            (Some(swapped), Some(decided)) => span(decided.since(swapped)),
            _ => dash(),
        };
        let place = match (&record.file, record.line) {
            (Some(file), Some(line)) => format!(" at {file}:{line}"),
            (Some(file), None) => format!(" in {file}"),
            _ => String::new(),
        };
        let note = record.note.as_deref().map(|note| note.lines().next().unwrap_or_default());
        let note = note.or(record.subject.as_deref()).unwrap_or_default();
        table.row([
            (Tone::Plain, record.generation.map_or_else(dash, |generation| generation.to_string())),
            (Tone::Plain, short_revision(&record.revision)),
            (Tone::Plain, format!("{} ago", span(now.since(record.observed)))),
            (Tone::Plain, record.author.as_deref().map_or_else(dash, name)),
            (tone, result.to_owned()),
            (Tone::Plain, probation),
            (Tone::Plain, format!("{note}{place}")),
        ]);
    }
    table
}

/// `Ana` of `Ana <ana@example.org>`.
fn name(author: &str) -> String {
    author.split_once(" <").map_or(author, |(name, _)| name).to_owned()
}
