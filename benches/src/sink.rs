//! Where samples go: a remote-write receiver that counts requests, bytes and samples and keeps nothing, except how long
//! they took where their values say when they were sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

/// A counting receiver.
#[derive(Debug, Default)]
pub struct Sink {
    /// Requests taken.
    pub requests: AtomicU64,
    /// Their bytes, compressed.
    pub bytes: AtomicU64,
    /// Samples in them.
    pub samples: AtomicU64,
    /// For samples whose values are the moments they were sent at, in microseconds on its clock.
    pub journeys: Option<Journeys>,
}

/// How long samples took from the driver through the agent to here.
#[derive(Debug)]
pub struct Journeys {
    clock: Instant,
    took: Mutex<Vec<Duration>>,
}

impl Journeys {
    /// None yet, against a clock.
    #[must_use]
    pub fn new(clock: Instant) -> Self {
        Self { clock, took: Mutex::default() }
    }

    /// Takes what came since the last call.
    ///
    /// # Panics
    /// After a panic of the receiver.
    pub fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.took.lock().expect("nothing panics under the lock"))
    }

    /// Notes the samples of a version 1 message.
    fn note(&self, message: &[u8]) {
        let now = self.clock.elapsed();
        let mut took = Vec::new();
        each_field(message, 1, &mut |series| {
            each_field(series, 2, &mut |sample| {
                if let Some((&[0x09, ref value @ ..], _)) = sample.split_first_chunk::<9>() {
                    let sent = Duration::from_micros(f64::from_le_bytes(*value) as u64);
                    took.push(now.saturating_sub(sent));
                }
            });
        });
        self.took.lock().expect("nothing panics under the lock").extend(took);
    }
}

impl Sink {
    /// The server's routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().route("/api/v1/write", post(accept)).with_state(self)
    }
}

async fn accept(State(sink): State<Arc<Sink>>, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
    let second = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("io.prometheus.write.v2.Request"));
    let Ok(raw) = snap::raw::Decoder::new().decompress_vec(&body) else {
        return (StatusCode::BAD_REQUEST, HeaderMap::new());
    };
    // In both versions samples are field 2 of a series; the series are field 1 of a request, or field 5.
    let samples = count(&raw, if second { 5 } else { 1 }, |series| count(series, 2, |_| 1));
    if let Some(journeys) = &sink.journeys {
        journeys.note(&raw);
    }
    sink.requests.fetch_add(1, Ordering::Relaxed);
    sink.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    sink.samples.fetch_add(samples, Ordering::Relaxed);
    let mut written = HeaderMap::new();
    if second {
        for name in [
            "x-prometheus-remote-write-samples-written",
            "x-prometheus-remote-write-histograms-written",
            "x-prometheus-remote-write-exemplars-written",
        ] {
            let number = if name.contains("samples") { samples } else { 0 };
            written.insert(name, number.into());
        }
    }
    (StatusCode::NO_CONTENT, written)
}

/// Sums `inner` over every length-delimited field `wanted` of a message.
fn count(message: &[u8], wanted: u64, inner: impl Fn(&[u8]) -> u64) -> u64 {
    let mut sum = 0;
    each_field(message, wanted, &mut |field| sum += inner(field));
    sum
}

/// Hands on every length-delimited field `wanted` of a message.
fn each_field(mut message: &[u8], wanted: u64, each: &mut dyn FnMut(&[u8])) {
    while let Some(key) = varint(&mut message) {
        match key & 7 {
            0 => {
                if varint(&mut message).is_none() {
                    break;
                }
            }
            1 => message = message.get(8..).unwrap_or_default(),
            5 => message = message.get(4..).unwrap_or_default(),
            2 => {
                let Some(length) = varint(&mut message).and_then(|length| usize::try_from(length).ok())
                else {
                    break;
                };
                let Some((field, rest)) = message.split_at_checked(length) else { break };
                if key >> 3 == wanted {
                    each(field);
                }
                message = rest;
            }
            _ => break,
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
