//! The server's word that there is something new: a stream of events, or requests that it answers late. All it ever
//! means is "look now". What an event carries is not read, so that whoever can send one can at most cause a poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use url::Url;

use super::event_stream::EventStream;
use super::fetch::Fetcher;
use crate::settings::Notify;

/// The times that push works with.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// A stream that is silent for so long is dead: servers send a heartbeat every 15 s.
    silence: Duration,
    /// How long an answer may take that the server was asked to wait with for 55 s.
    wait: Duration,
    /// An answer that comes sooner and says nothing new is of a server that does not wait.
    prompt: Duration,
    /// The time to the head of a stream.
    head: Duration,
    /// The waits between attempts.
    first_pause: Duration,
    last_pause: Duration,
    /// A connection that held for so long was a good one.
    stable: Duration,
}

const TIMING: Timing = Timing {
    silence: Duration::from_secs(45),
    wait: Duration::from_secs(70),
    prompt: Duration::from_secs(5),
    head: Duration::from_secs(30),
    first_pause: Duration::from_secs(1),
    last_pause: Duration::from_secs(5 * 60),
    stable: Duration::from_secs(60),
};

/// Follows what one server says, for as long as it lives.
#[derive(Debug)]
pub(super) struct Push {
    signal: Arc<Signal>,
    plan: Mutex<Option<Plan>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the task needs; taken when it starts.
struct Plan {
    kind: Notify,
    url: Url,
    fetcher: Arc<Fetcher>,
    timing: Timing,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Signal {
    hints: watch::Sender<u64>,
    healthy: AtomicBool,
}

impl Signal {
    fn hint(&self) {
        self.hints.send_modify(|count| *count += 1);
    }

    /// Losing touch is worth a look itself: the next poll may be far off, and nobody else would bring it forward.
    fn set_healthy(&self, healthy: bool) {
        if self.healthy.swap(healthy, Ordering::Relaxed) && !healthy {
            self.hint();
        }
    }
}

/// Why a connection ended.
enum End {
    /// As connections do; whether something was missed is not known.
    Over,
    /// It did not come about, or the server does not know how to do this.
    Failed(String),
}

impl Push {
    /// Does no input or output; the task starts with the first subscriber.
    pub(super) fn new(kind: Notify, url: Url, fetcher: Arc<Fetcher>) -> Self {
        Self::of(Plan { kind, url, fetcher, timing: TIMING })
    }

    fn of(plan: Plan) -> Self {
        Self { signal: Arc::default(), plan: Mutex::new(Some(plan)), task: Mutex::default() }
    }

    /// Whether the server can reach us: then polls may be rare.
    pub(super) fn is_healthy(&self) -> bool {
        self.signal.healthy.load(Ordering::Relaxed)
    }

    /// The hints; starts the task where there is none. Must be called within a runtime.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        let receiver = self.signal.hints.subscribe();
        if let Some(plan) = self.plan.lock().take() {
            *self.task.lock() = Some(tokio::spawn(run(plan, Arc::clone(&self.signal))));
        }
        receiver
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

async fn run(plan: Plan, signal: Arc<Signal>) {
    let timing = plan.timing;
    let mut state =
        State { plan, signal, stream_id: None, retry: timing.first_pause, seen: None, connected: false };
    let mut failures = 0_u32;
    loop {
        let start = Instant::now();
        let end = match state.plan.kind {
            Notify::Sse => state.listen().await,
            Notify::LongPoll => state.wait_for_answers().await,
        };
        state.signal.set_healthy(false);
        if start.elapsed() >= timing.stable {
            failures = 0;
        }
        if let End::Failed(reason) = end {
            tracing::debug!(reason, "no push");
        }
        let pause = timing.pause(state.retry, failures, rand::random::<f64>());
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

impl Timing {
    /// The wait before the next attempt: doubled with each failure, half of it random, so that a fleet does not come back
    /// all at once.
    fn pause(&self, first: Duration, failures: u32, unit: f64) -> Duration {
        let doubled = first.checked_mul(1 << failures.min(16));
        let pause = doubled.map_or(self.last_pause, |pause| pause.min(self.last_pause));
        pause.mul_f64(0.5 + unit / 2.0)
    }
}

struct State {
    plan: Plan,
    signal: Arc<Signal>,
    /// The id of the last event.
    stream_id: Option<String>,
    retry: Duration,
    /// What the server called the content the last time it answered a waiting request.
    seen: Option<HeaderValue>,
    /// Whether there was a stream before, so that something may have been missed since.
    connected: bool,
}

impl State {
    /// Follows one stream of events to its end.
    async fn listen(&mut self) -> End {
        let timing = self.plan.timing;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = self.stream_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", id);
        }
        let answer = self.plan.fetcher.get(&self.plan.url, &headers, Instant::now() + timing.head).await;
        let mut response = match answer {
            Ok(answer) => answer.response,
            Err(failure) => return End::Failed(failure.message),
        };
        if response.status() != StatusCode::OK {
            return End::Failed(format!("the stream of events answers {}", response.status().as_u16()));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")) {
            return End::Failed("the answer is no stream of events".to_owned());
        }
        self.signal.healthy.store(true, Ordering::Relaxed);
        if std::mem::replace(&mut self.connected, true) {
            self.signal.hint();
        }
        let mut stream = EventStream::default();
        loop {
            match timeout(timing.silence, response.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    let events = stream.push(&piece);
                    if let Some(id) = stream.last_id() {
                        self.stream_id = Some(id.to_owned());
                    }
                    if let Some(retry) = stream.retry() {
                        self.retry = retry.clamp(timing.first_pause, timing.last_pause);
                    }
                    if events > 0 {
                        self.signal.hint();
                    }
                }
                Ok(Ok(None)) => return End::Over,
                Ok(Err(_)) => return End::Failed("the stream of events broke off".to_owned()),
                Err(_) => return End::Failed("the stream of events is silent".to_owned()),
            }
        }
    }

    /// Asks again and again, for as long as the server waits with its answers.
    async fn wait_for_answers(&mut self) -> End {
        let timing = self.plan.timing;
        let mut prompt_answers = 0;
        loop {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", HeaderValue::from_static("wait=55"));
            if let Some(seen) = &self.seen {
                headers.insert(header::IF_NONE_MATCH, seen.clone());
            }
            let asked = Instant::now();
            let answer = self.plan.fetcher.get(&self.plan.url, &headers, asked + timing.wait).await;
            let response = match answer {
                Ok(answer) => answer.response,
                Err(failure) => return End::Failed(failure.message),
            };
            let prompt = asked.elapsed() < timing.prompt;
            let news = match response.status() {
                StatusCode::OK => {
                    // The body is not read: dropping the answer ends its connection.
                    let tag = response.headers().get(header::ETAG).cloned();
                    let same = tag.is_some() && tag == self.seen;
                    self.seen = tag;
                    !same
                }
                StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT => false,
                status => return End::Failed(format!("the server answers {}", status.as_u16())),
            };
            drop(response);
            if news {
                self.signal.hint();
            }
            if !prompt {
                // Only an answer that was waited for shows that the server does this at all.
                self.signal.healthy.store(true, Ordering::Relaxed);
                prompt_answers = 0;
                continue;
            }
            if !news {
                return End::Failed("the server does not wait with its answers".to_owned());
            }
            // Changes can come close together, but a server that always says so is not asked without end.
            if prompt_answers > 2 {
                self.signal.set_healthy(false);
            }
            tokio::time::sleep(timing.pause(timing.first_pause, prompt_answers, rand::random::<f64>())).await;
            prompt_answers += 1;
        }
    }
}

#[cfg(test)]
mod tests;
