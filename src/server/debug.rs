//! `GET /api/v0/web/debug/{id}?sampleProb=0.5`: what passes through a component, as it passes, in the form of Alloy's live
//! debugging: a line for each sample, and `|;|` after what belongs together.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use invar_engine::{TapEvent, TapStream};
use invar_telemetry::is_stale;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Face, Refusal};
use crate::blocks::livedebugging::LiveDebuggingSwitch;

/// What ends a chunk.
const DELIMITER: &str = "|;|";
/// The most lines of one batch that are shown; the rest is counted.
const MOST_LINES: usize = 200;

#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The share of batches that are shown, from 0 to 1.
    #[serde(rename = "sampleProb", default = "all")]
    share: f64,
}

fn all() -> f64 {
    1.0
}

pub(super) async fn stream(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refusal> {
    let engine = face.rooms()?.engine().clone();
    let Some(switch) = engine.services().get::<LiveDebuggingSwitch>() else {
        return Err(Refusal::missing("this agent has no live debugging"));
    };
    let on = switch.subscribe();
    if !*on.borrow() {
        let next = if switch.is_allowed() {
            "add `livedebugging { enabled = true }` to the configuration"
        } else {
            "allow it on this host with `[features] live_debugging = true`"
        };
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "live_debugging_off",
            format!("live debugging is off: {next}"),
        ));
    }
    let tap = engine.tap(&id).ok_or_else(|| Refusal::missing(format!("no component `{id}` runs")))?;
    let share = if parameters.share.is_finite() { parameters.share.clamp(0.0, 1.0) } else { 1.0 };
    let look = Look { tap, share, on, stopping: face.stopping };
    let chunks = futures_util::stream::unfold(look, |mut look| async move {
        let chunk = look.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), look))
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// One person's look at one component.
struct Look {
    tap: TapStream,
    share: f64,
    on: watch::Receiver<bool>,
    stopping: CancellationToken,
}

impl Look {
    /// The next chunk; none when the look is over.
    async fn next(&mut self) -> Option<String> {
        loop {
            let event = tokio::select! {
                event = self.tap.next() => event,
                () = self.stopping.cancelled() => return None,
                _ = self.on.wait_for(|on| !on) => return None,
            };
            if self.share >= 1.0 || rand::random::<f64>() < self.share {
                return Some(chunk(&event, &self.tap));
            }
        }
    }
}

fn chunk(event: &TapEvent, tap: &TapStream) -> String {
    let mut text = String::new();
    let missed = tap.take_missed();
    if missed > 0 {
        line(&mut text, format_args!("{missed} batches were too many to show"));
    }
    let way = if event.to == *tap.node() {
        format!("[IN]: from {}", event.from)
    } else {
        format!("[OUT]: to {}", event.to)
    };
    let batch = &event.batch;
    line(&mut text, format_args!("{way}, generation {}, {} samples", event.generation, batch.sample_count()));
    for (series, timestamp, value) in batch.samples().take(MOST_LINES) {
        let time = Timestamp::from_millisecond(timestamp).unwrap_or_default();
        let labels = series.to_labels();
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let value = if is_stale(value) { "stale".to_owned() } else { value.to_string() };
        line(&mut text, format_args!("ts={time}, labels={{{}}}, value={value}", labels.join(", ")));
    }
    for sample in batch.histograms.iter().take(MOST_LINES) {
        let time = Timestamp::from_millisecond(sample.timestamp).unwrap_or_default();
        let labels = sample.series.to_labels();
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        line(&mut text, format_args!("ts={time}, labels={{{}}}, a native histogram", labels.join(", ")));
    }
    let shown = batch.values.len().min(MOST_LINES) + batch.histograms.len().min(MOST_LINES);
    if shown < batch.sample_count() {
        line(&mut text, format_args!("and {} more", batch.sample_count() - shown));
    }
    text.push_str(DELIMITER);
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to text cannot fail.
    let _written = writeln!(text, "{content}");
}
