//! `invar quarantine`: content that ran and was bad, and what an operator may do about it.

use invar_rollout::QuarantineEntry;

use super::client::{Client, ClientError};
use super::output::{self, Styling, Table, Tone, line, short_revision, span};
use super::status::now;
use super::{Format, Remote};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct QuarantineArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// What is quarantined, why, and until when
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Try this content once more, now
    Retry {
        #[command(flatten)]
        which: Which,
    },
    /// Forget that this content was bad
    Clear {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The content's digest or a revision that carried it, or the beginning of either
    entry: String,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn main(arguments: QuarantineArguments, styling: Styling) -> Result<Exit, ClientError> {
    match arguments.action {
        Action::List { remote } => list(&remote, styling).await,
        Action::Retry { which } => act(&which, true).await,
        Action::Clear { which } => act(&which, false).await,
    }
}

async fn list(remote: &Remote, styling: Styling) -> Result<Exit, ClientError> {
    let entries: Vec<QuarantineEntry> = Client::new(remote)?.get("/api/v1/quarantine").await?;
    if remote.output.format == Format::Json {
        output::json(&entries);
        return Ok(Exit::Done);
    }
    if entries.is_empty() {
        line("nothing is quarantined");
        return Ok(Exit::Done);
    }
    let now = now();
    let mut table = Table::new(&["DIGEST", "REVISIONS", "SINCE", "UNTIL", "STRIKES", "STAGE", "REASON"]);
    for entry in &entries {
        let revisions =
            entry.revisions.iter().map(|revision| short_revision(revision)).collect::<Vec<_>>().join(", ");
        table.row([
            (Tone::Plain, entry.digest.chars().take(12).collect()),
            (Tone::Plain, revisions),
            (Tone::Plain, format!("{} ago", span(now.since(entry.since)))),
            (
                Tone::Plain,
                entry.until.map_or_else(
                    || "cleared by hand".to_owned(),
                    |until| format!("in {}", span(until.since(now))),
                ),
            ),
            (Tone::Plain, entry.strikes.to_string()),
            (Tone::Plain, entry.stage.clone()),
            (Tone::Bad, entry.reason.lines().next().unwrap_or_default().to_owned()),
        ]);
    }
    table.print(styling);
    Ok(Exit::Done)
}

async fn act(which: &Which, retry: bool) -> Result<Exit, ClientError> {
    let client = Client::new(&which.remote)?;
    let entries: Vec<QuarantineEntry> = if retry {
        client.post(&format!("/api/v1/quarantine/{}/retry", which.entry), &()).await?
    } else {
        client.delete(&format!("/api/v1/quarantine/{}", which.entry)).await?
    };
    if which.remote.output.format == Format::Json {
        output::json(&entries);
        return Ok(Exit::Done);
    }
    for entry in &entries {
        let digest: String = entry.digest.chars().take(12).collect();
        line(if retry {
            format!("{digest} is tried once more; see `invar status`")
        } else {
            format!("{digest} is no longer quarantined")
        });
    }
    Ok(Exit::Done)
}
