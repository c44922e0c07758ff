//! `invar status`: one screen that answers what runs, whether it is what the sources say, whether it is healthy, and
//! what needs a person. The exit code mirrors the answer.

use invar_rollout::{OverallHealth, Reason, RevisionSummary, SourceState, Status, Timestamp};

use super::client::{Client, ClientError};
use super::output::{self, Styling, Tone, line, short_revision, span};
use super::{Format, Remote};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    remote: Remote,
}

pub(crate) async fn main(arguments: StatusArguments, styling: Styling) -> Result<Exit, ClientError> {
    let status: Status = Client::new(&arguments.remote)?.get("/api/v1/status").await?;
    match arguments.remote.output.format {
        Format::Json => output::json(&status),
        Format::Text => {
            for text in render(&status, now(), styling) {
                line(text);
            }
        }
    }
    Ok(exit(&status))
}

fn exit(status: &Status) -> Exit {
    match (status.health, status.in_sync) {
        (OverallHealth::Degraded, _) => Exit::Degraded,
        (OverallHealth::Healthy, false) => Exit::NotInSync,
        (OverallHealth::Healthy, true) => Exit::Done,
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

fn render(status: &Status, now: Timestamp, styling: Styling) -> Vec<String> {
    let agent = &status.agent;
    let who =
        [agent.environment.as_str(), &format!("host {}", agent.name), &format!("invar {}", agent.version)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" · ");
    let (health, health_tone) = match status.health {
        OverallHealth::Healthy => ("HEALTHY", Tone::Good),
        OverallHealth::Degraded => ("DEGRADED", Tone::Bad),
    };
    let (sync, sync_tone) = if status.in_sync {
        ("IN SYNC".to_owned(), Tone::Good)
    } else {
        let why = status.reason.as_ref().map_or(status.phase.as_str(), |reason| reason.kind.as_str());
        (format!("NOT IN SYNC ({why})"), Tone::Attention)
    };
    let mut lines = vec![format!(
        "{}   {} · {}",
        styling.paint(Tone::Strong, &who),
        styling.paint(health_tone, health),
        styling.paint(sync_tone, &sync)
    )];
    lines.push(named(
        "Running",
        &status.running.as_ref().map_or_else(
            || styling.paint(Tone::Attention, "nothing yet"),
            |running| revision(running, now, true),
        ),
    ));
    if let Some(probation) = &status.probation {
        lines.push(named(
            "",
            &format!(
                "on probation for another {}{}",
                span(probation.until.since(now)),
                if probation.extended { " (extended)" } else { "" }
            ),
        ));
        lines.extend(
            probation.findings.iter().map(|finding| named("", &styling.paint(Tone::Attention, finding))),
        );
    }
    if !status.in_sync || status.running.is_none() {
        let desired = status
            .desired
            .as_ref()
            .map_or_else(|| "not known yet".to_owned(), |desired| revision(desired, now, false));
        lines.push(named("Desired", &desired));
    }
    if let Some(reason) = &status.reason {
        lines.extend(why(reason, now, styling));
    }
    lines.push(named(
        "Last good",
        &match (&status.last_known_good, &status.running) {
            (None, _) => "none yet".to_owned(),
            (Some(good), Some(running)) if good.digest == running.digest => match good.generation {
                Some(generation) => format!(
                    "gen {generation}{}",
                    if status.unproven { " (unproven: too little traffic)" } else { "" }
                ),
                None => short_revision(&good.revision),
            },
            (Some(good), _) => revision(good, now, true),
        },
    ));
    lines.extend(
        status.sources.iter().enumerate().map(|(index, state)| {
            named(if index == 0 { "Sources" } else { "" }, &source(state, now, styling))
        }),
    );
    if let Some(hold) = &status.hold {
        let until =
            hold.until.map_or_else(String::new, |until| format!(", for another {}", span(until.since(now))));
        lines.push(named("Held", &format!("by {}: {}{until}", hold.by, hold.reason)));
    }
    let total: u64 = status.components.values().sum();
    let counts = status
        .components
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(health, count)| {
            let tone = match health.as_str() {
                "healthy" => Tone::Good,
                "unhealthy" | "exited" => Tone::Bad,
                _ => Tone::Plain,
            };
            styling.paint(tone, &format!("● {count} {health}"))
        })
        .collect::<Vec<_>>()
        .join("  ");
    lines.push(named("Pipeline", format!("{total} components  {counts}").trim_end()));
    if status.rollback_count > 0 {
        lines.push(named("Rollbacks", &status.rollback_count.to_string()));
    }
    lines
}

fn named(name: &str, text: &str) -> String {
    format!("{name:<10}{text}")
}

fn revision(summary: &RevisionSummary, now: Timestamp, age: bool) -> String {
    let mut parts = vec![short_revision(&summary.revision)];
    if let Some(generation) = summary.generation {
        parts.push(format!("gen {generation}"));
    }
    if age {
        parts.push(format!("since {}", span(now.since(summary.since))));
    }
    let people = [summary.author.clone(), summary.signer.as_ref().map(|signer| format!("signed: {signer}"))];
    let people = people.into_iter().flatten().collect::<Vec<_>>().join(", ");
    match (&summary.subject, people.is_empty()) {
        (Some(subject), false) => parts.push(format!("\"{subject}\" ({people})")),
        (Some(subject), true) => parts.push(format!("\"{subject}\"")),
        (None, false) => parts.push(people),
        (None, true) => {}
    }
    parts.join(" · ")
}

fn why(reason: &Reason, now: Timestamp, styling: Styling) -> Vec<String> {
    let mut message = reason.message.lines();
    let mut lines = vec![format!(
        "  why     {}: {}",
        reason.stage,
        styling.paint(Tone::Bad, message.next().unwrap_or_default())
    )];
    lines.extend(message.map(|text| format!("          {text}")));
    if let Some(file) = &reason.file {
        let place = reason.line.map_or_else(|| file.clone(), |number| format!("{file}:{number}"));
        lines.push(format!("  where   {place}"));
    }
    if let Some(until) = reason.until {
        lines.push(format!("  until   tried again in {}", span(until.since(now))));
    }
    let next = match reason.kind.as_str() {
        "quarantined" => "invar history · fix and push, or: invar quarantine retry DIGEST",
        "held" => "invar unhold",
        "rejected" => "fix and push; what runs is untouched",
        _ => return lines,
    };
    lines.push(format!("  next    {next}"));
    lines
}

fn source(state: &SourceState, now: Timestamp, styling: Styling) -> String {
    let (dot, tone) = if state.error.is_some() { ("●", Tone::Bad) } else { ("●", Tone::Good) };
    let mut text = format!("{} {} {}", styling.paint(tone, dot), state.name, state.kind);
    if let Some(held) = &state.revision {
        text.push_str(&format!(" {}", short_revision(held)));
    }
    if let Some(checked) = state.checked {
        text.push_str(&format!("  {} ago", span(now.since(checked))));
    }
    if let Some(error) = &state.error {
        let message = styling.paint(Tone::Bad, &error.message);
        text.push_str(&format!("  {} for {}: {message}", error.class, span(now.since(error.since))));
    }
    text
}
