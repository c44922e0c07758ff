//! `GET /api/v1/events`: what the rollout does, as server-sent events. A client that was away resumes with
//! `Last-Event-ID` after the last event it saw, as far as events are kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

use super::{Face, Refusal};

/// How often an idle stream says that it is alive, as clients expect at least every 15 s.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub(crate) async fn stream(
    State(face): State<Face>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let after =
        headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|id| id.parse().ok());
    let events = face.rooms()?.rollout.events(after);
    let missed = VecDeque::from(events.missed);
    let stopping = face.stopping;
    let stream = futures_util::stream::unfold((missed, events.live), move |(mut missed, mut live)| {
        let stopping = stopping.clone();
        async move {
            let event = match missed.pop_front() {
                Some(event) => sent(&event),
                None => tokio::select! {
                    next = live.recv() => match next {
                        Ok(event) => sent(&event),
                        // A gap in the ids tells the same; the comment tells why.
                        Err(RecvError::Lagged(lost)) => Event::default().comment(format!("{lost} events were too fast")),
                        Err(RecvError::Closed) => return None,
                    },
                    () = stopping.cancelled() => return None,
                },
            };
            Some((Ok(event), (missed, live)))
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

fn sent(event: &invar_rollout::Event) -> Event {
    let shell = Event::default().id(event.id.to_string()).event(event.kind.as_str());
    shell
        .json_data(event)
        .unwrap_or_else(|error| Event::default().comment(format!("an event could not be written: {error}")))
}
