//! Commands that change what the agent does: `rollback`, `hold`, `unhold`, `reconcile`, `accept-history`. Each waits for
//! its effect.

use std::time::Duration;

use invar_rollout::{Event, Hold, Phase, Status, Timestamp};
use serde::Serialize;

use super::client::{Client, ClientError};
use super::output::{self, Styling, line, short_revision};
use super::status::now;
use super::{Format, Remote};
use crate::exit::Exit;

/// Body of `POST /api/v1/rollback`.
#[derive(Serialize)]
struct RollbackBody<'a> {
    generation: Option<u64>,
    by: String,
    reason: &'a str,
}

/// Body of `POST /api/v1/hold`.
#[derive(Serialize)]
struct HoldBody<'a> {
    by: String,
    reason: &'a str,
    until: Option<Timestamp>,
}

/// Body of `POST /api/v1/reconcile`.
#[derive(Serialize)]
struct ReconcileBody<'a> {
    sources: &'a [String],
    no_wait: bool,
}

/// Body of `POST /api/v1/accept-history`.
#[derive(Serialize)]
struct AcceptBody<'a> {
    commit: &'a str,
    by: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcceptHistoryArguments {
    /// The commit that was refused, as the message names it: its id, or at least seven digits of it
    #[arg(value_parser = commit)]
    commit: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArguments {
    /// Generation to go back to (see `invar history`); by default the committed one before what runs
    generation: Option<u64>,
    /// Why; shown in the history and with the hold
    #[arg(long, default_value = "manual rollback")]
    reason: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HoldArguments {
    /// Why; shown to everyone who wonders why a push does not arrive
    #[arg(long, default_value = "held by hand")]
    reason: String,
    /// For how long; by default until `invar unhold`
    #[arg(long = "for", value_parser = output::parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UnholdArguments {
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReconcileArguments {
    /// Sources to look at; by default all
    sources: Vec<String>,
    /// The same, for those who like flags
    #[arg(long = "source", value_name = "NAME")]
    more: Vec<String>,
    /// Wait until what the sources bring is committed, refused, undone or held; the default
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Only ask; do not wait for what comes of it
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn rollback(arguments: RollbackArguments, _styling: Styling) -> Result<Exit, ClientError> {
    let body = RollbackBody { generation: arguments.generation, by: operator(), reason: &arguments.reason };
    let status: Status = patient(&arguments.remote)?.post("/api/v1/rollback", &body).await?;
    report(&arguments.remote, &status, "held; `invar unhold` follows the sources again");
    Ok(Exit::Done)
}

pub(crate) async fn hold(arguments: HoldArguments, _styling: Styling) -> Result<Exit, ClientError> {
    let until = arguments.duration.map(|duration| now().plus(duration));
    let body = HoldBody { by: operator(), reason: &arguments.reason, until };
    let hold: Hold = Client::new(&arguments.remote)?.post("/api/v1/hold", &body).await?;
    match arguments.remote.output.format {
        Format::Json => output::json(&hold),
        Format::Text => {
            line("held: revisions are fetched, checked and planned, not applied; `invar unhold` ends it")
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn unhold(arguments: UnholdArguments, _styling: Styling) -> Result<Exit, ClientError> {
    let status: Status = Client::new(&arguments.remote)?.delete("/api/v1/hold").await?;
    report(&arguments.remote, &status, "not held");
    Ok(Exit::Done)
}

pub(crate) async fn reconcile(arguments: ReconcileArguments, _styling: Styling) -> Result<Exit, ClientError> {
    let sources = [arguments.sources, arguments.more].concat();
    let waits = arguments.wait || !arguments.no_wait;
    let body = ReconcileBody { sources: &sources, no_wait: !waits };
    if !waits {
        let status: Status = Client::new(&arguments.remote)?.post("/api/v1/reconcile", &body).await?;
        report(&arguments.remote, &status, "the sources look now");
        return Ok(Exit::Done);
    }
    let client = patient(&arguments.remote)?;
    let mut events = match arguments.remote.output.format {
        // Followed before asking, so that none is missed. Without them the answer is the same, only quieter.
        Format::Text => client.events().await,
        Format::Json => None,
    };
    let asked = client.post::<Status>("/api/v1/reconcile", &body);
    tokio::pin!(asked);
    let status = loop {
        let next = async {
            match &mut events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = next => match event {
                Some(event) => stage(&event),
                None => events = None,
            },
            status = &mut asked => break status?,
        }
    };
    report(&arguments.remote, &status, status.phase.as_str());
    Ok(came_of_it(&status))
}

pub(crate) async fn accept_history(
    arguments: AcceptHistoryArguments,
    _styling: Styling,
) -> Result<Exit, ClientError> {
    let body = AcceptBody { commit: &arguments.commit, by: operator() };
    let status: Status = patient(&arguments.remote)?.post("/api/v1/accept-history", &body).await?;
    report(&arguments.remote, &status, status.phase.as_str());
    Ok(came_of_it(&status))
}

/// The exit code that says what came of looking at the sources.
fn came_of_it(status: &Status) -> Exit {
    match (status.in_sync, status.phase) {
        (true, _) => Exit::Done,
        (false, Phase::Rejected) => Exit::Refused,
        (false, Phase::RolledBack) => Exit::RolledBack,
        (false, Phase::Held) => Exit::Held,
        (false, _) => Exit::NotInSync,
    }
}

/// The id of a commit, or its beginning.
fn commit(text: &str) -> Result<String, String> {
    let digits = text.chars().all(|digit| digit.is_ascii_hexdigit());
    match digits && (7..=40).contains(&text.len()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a commit is named by 7 to 40 hexadecimal digits".to_owned()),
    }
}

/// Shows what happened while the command waits.
fn stage(event: &Event) {
    output::complain(format!("{}: {}", event.kind.as_str().replace('_', " "), event.message));
}

/// A client for calls that wait for their effect: a fetch and a prepare may take their whole deadline.
fn patient(remote: &Remote) -> Result<Client, ClientError> {
    let mut remote = remote.clone();
    remote.timeout = remote.timeout.max(Duration::from_secs(300));
    Client::new(&remote)
}

fn report(remote: &Remote, status: &Status, text: &str) {
    match remote.output.format {
        Format::Json => output::json(status),
        Format::Text => {
            let running = status.running.as_ref().map_or_else(
                || "nothing runs".to_owned(),
                |running| format!("runs {}", short_revision(&running.revision)),
            );
            line(format!("{running}; {text}"));
            if let Some(reason) = status.reason.as_ref().filter(|_| !status.in_sync) {
                line(format!("{}: {}", reason.stage, reason.message));
            }
        }
    }
}

/// Who asks, for the record. It is what the shell says, not an authentication.
fn operator() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "operator".to_owned())
}
