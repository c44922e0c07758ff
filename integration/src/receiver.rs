//! A remote-write receiver with any number of endpoints, each of which keeps what it got and can be told how to
//! answer: `http://ADDRESS/NAME/api/v1/write`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use parking_lot::Mutex;
use prost::Message;

use crate::{Outcome, serve};

/// The messages of remote write 1.0, as far as tests read them.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// What one endpoint received and how it answers.
#[derive(Default)]
struct Endpoint {
    answer: Option<StatusCode>,
    /// The `Authorization` headers that are accepted; all, and none at all, where nothing is said.
    accepted: Option<Vec<String>>,
    requests: u64,
    refused: u64,
    authorization: Vec<String>,
    series: BTreeMap<String, Series>,
}

/// One series at one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Timestamp in milliseconds to value; the first one to arrive stands.
    pub samples: BTreeMap<i64, f64>,
    /// Values in order of arrival, duplicates and all.
    pub arrivals: Vec<f64>,
    /// Samples that arrived more than once.
    pub duplicates: u64,
    /// Samples that arrived after a later one.
    pub out_of_order: u64,
}

type Endpoints = Arc<Mutex<BTreeMap<String, Endpoint>>>;

/// The receiver, on a thread of its own for as long as the process lives.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    endpoints: Endpoints,
}

impl Receiver {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start() -> Outcome<Self> {
        let endpoints = Endpoints::default();
        let router = Router::new()
            .route("/", get(overview))
            .route("/{endpoint}/api/v1/write", post(accept))
            .with_state(Arc::clone(&endpoints));
        Ok(Self { address: serve(router)?, endpoints })
    }

    /// The page that shows what arrived.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The address of an endpoint; endpoints exist as soon as they are named.
    #[must_use]
    pub fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}/api/v1/write", self.address)
    }

    /// Makes an endpoint answer everything with this status, or accept again.
    pub fn answer(&self, endpoint: &str, status: Option<u16>) {
        let status = status.map(|code| StatusCode::from_u16(code).expect("tests name valid codes"));
        self.endpoints.lock().entry(endpoint.to_owned()).or_default().answer = status;
    }

    /// Makes an endpoint answer 401 to whatever has not one of these `Authorization` headers. As careless servers do, it says
    /// in the answer to what it refuses what it was sent.
    pub fn require(&self, endpoint: &str, authorization: &[&str]) {
        let accepted = authorization.iter().map(|text| (*text).to_owned()).collect();
        self.endpoints.lock().entry(endpoint.to_owned()).or_default().accepted = Some(accepted);
    }

    /// Requests that an endpoint accepted, and that it refused.
    #[must_use]
    pub fn requests(&self, endpoint: &str) -> (u64, u64) {
        let endpoints = self.endpoints.lock();
        endpoints.get(endpoint).map_or((0, 0), |endpoint| (endpoint.requests, endpoint.refused))
    }

    /// The distinct `Authorization` headers that an endpoint saw, in order of appearance.
    #[must_use]
    pub fn authorization(&self, endpoint: &str) -> Vec<String> {
        self.endpoints.lock().get(endpoint).map(|endpoint| endpoint.authorization.clone()).unwrap_or_default()
    }

    /// Every series of an endpoint that has all of these labels.
    #[must_use]
    pub fn series(&self, endpoint: &str, labels: &[(&str, &str)]) -> Vec<Series> {
        let endpoints = self.endpoints.lock();
        let Some(endpoint) = endpoints.get(endpoint) else { return Vec::new() };
        let matches = |series: &&Series| {
            labels.iter().all(|(name, value)| series.labels.get(*name).is_some_and(|found| found == value))
        };
        endpoint.series.values().filter(matches).cloned().collect()
    }

    /// The values of every series of an endpoint that has all of these labels, as often as they arrived.
    #[must_use]
    pub fn samples_with_duplicates(&self, endpoint: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        self.series(endpoint, labels).into_iter().flat_map(|series| series.arrivals).collect()
    }

    /// The samples of every series of an endpoint that has all of these labels, together.
    #[must_use]
    pub fn samples(&self, endpoint: &str, labels: &[(&str, &str)]) -> BTreeMap<i64, f64> {
        self.series(endpoint, labels).into_iter().flat_map(|series| series.samples).collect()
    }
}

async fn accept(
    State(endpoints): State<Endpoints>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let mut endpoints = endpoints.lock();
    let endpoint = endpoints.entry(name).or_default();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    if let Some(value) = authorization
        && !endpoint.authorization.iter().any(|seen| seen == value)
    {
        endpoint.authorization.push(value.to_owned());
    }
    let known = authorization.unwrap_or_default();
    let wrong = endpoint.accepted.as_ref().is_some_and(|accepted| !accepted.iter().any(|text| text == known));
    if let Some(status) = endpoint.answer.or(wrong.then_some(StatusCode::UNAUTHORIZED)) {
        endpoint.refused += 1;
        return (status, format!("refused: {}", authorization.unwrap_or("nobody")));
    }
    let malformed = (StatusCode::BAD_REQUEST, String::new());
    let Ok(raw) = snap::raw::Decoder::new().decompress_vec(&body) else { return malformed };
    let Ok(request) = WriteRequest::decode(raw.as_slice()) else { return malformed };
    endpoint.requests += 1;
    for received in request.timeseries {
        let key: String =
            received.labels.iter().map(|label| format!("{}={:?},", label.name, label.value)).collect();
        let series = endpoint.series.entry(key).or_insert_with(|| Series {
            labels: received.labels.into_iter().map(|label| (label.name, label.value)).collect(),
            ..Series::default()
        });
        for sample in received.samples {
            series.arrivals.push(sample.value);
            if series.samples.contains_key(&sample.timestamp) {
                series.duplicates += 1;
                continue;
            }
            if series.samples.last_key_value().is_some_and(|(last, _)| *last > sample.timestamp) {
                series.out_of_order += 1;
            }
            series.samples.insert(sample.timestamp, sample.value);
        }
    }
    (StatusCode::NO_CONTENT, String::new())
}

async fn overview(State(endpoints): State<Endpoints>) -> String {
    let endpoints = endpoints.lock();
    let mut text = String::new();
    for (name, endpoint) in endpoints.iter() {
        let samples: usize = endpoint.series.values().map(|series| series.samples.len()).sum();
        text.push_str(&format!(
            "{name}: {} series, {samples} samples, {} requests, {} refused\n",
            endpoint.series.len(),
            endpoint.requests,
            endpoint.refused
        ));
        for (labels, series) in &endpoint.series {
            if let Some((timestamp, value)) = series.samples.last_key_value() {
                text.push_str(&format!("  {{{labels}}} {value} @{timestamp} ({})\n", series.samples.len()));
            }
        }
    }
    text
}
