//! Speaks to a running agent over its HTTP API: one request, a deadline, and errors that say what to do next.

use std::time::Duration;

use invar_rollout::Event;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Remote, output};
use crate::exit::Exit;

/// Longest event that is shown, in bytes.
const LONGEST_EVENT: usize = 1 << 20;

/// Why the agent did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("`{0}` is not an address: use http://HOST:PORT")]
    Address(String),
    #[error(
        "no agent answers at {address}: {reason}\n  next: is it running? another address goes with --server or INVAR_SERVER"
    )]
    Unreachable { address: String, reason: String },
    #[error("no answer from {address} within {}", output::span(*.after))]
    TimedOut { address: String, after: Duration },
    #[error("{message}")]
    Refused { status: StatusCode, kind: String, message: String },
    #[error("the agent at {address} answered in a form this version does not know: {reason}")]
    Shape { address: String, reason: String },
}

impl ClientError {
    /// Prints the error, and says which exit code it means.
    pub(crate) fn report(&self) -> Exit {
        output::complain(format!("invar: {self}"));
        match self {
            Self::Address(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Refused { status, kind, .. } => match (*status, kind.as_str()) {
                (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Exit::NotPermitted,
                (_, "held" | "quarantined") => Exit::Held,
                (_, "rejected") => Exit::Refused,
                (_, "rolled_back") => Exit::RolledBack,
                (StatusCode::GATEWAY_TIMEOUT, _) => Exit::TimedOut,
                _ => Exit::Failed,
            },
            Self::Shape { .. } => Exit::Failed,
        }
    }
}

/// The agent at an address.
pub(crate) struct Client {
    address: String,
    timeout: Duration,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(remote: &Remote) -> Result<Self, ClientError> {
        let address = remote.server.trim_end_matches('/').to_owned();
        if url::Url::parse(&address).is_err() {
            return Err(ClientError::Address(address));
        }
        crate::tls::install_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(remote.timeout.min(Duration::from_secs(5)))
            .build()
            .map_err(|error| ClientError::Unreachable { address: address.clone(), reason: reason(&error) })?;
        Ok(Self { address, timeout: remote.timeout, http })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    /// The events from now on; nothing where the agent does not give them.
    pub(crate) async fn events(&self) -> Option<Events> {
        let request = self.http.get(format!("{}/api/v1/events", self.address)).timeout(self.timeout);
        // After every event there was: of the past nothing is wanted.
        let answer = request.header("last-event-id", u64::MAX).send().await.ok()?;
        Some(Events { stream: answer.error_for_status().ok()?, text: Vec::new() })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let address = self.address.clone();
        let mut request = self.http.request(method, format!("{address}{path}")).timeout(self.timeout);
        if let Some(body) = body {
            let text = serde_json::to_vec(body).map_err(|error| ClientError::Shape {
                address: address.clone(),
                reason: error.to_string(),
            })?;
            request = request.header("content-type", "application/json").body(text);
        }
        let failed = |error: &reqwest::Error| {
            if error.is_timeout() && !error.is_connect() {
                ClientError::TimedOut { address: address.clone(), after: self.timeout }
            } else {
                ClientError::Unreachable { address: address.clone(), reason: reason(error) }
            }
        };
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let text = answer.bytes().await.map_err(|error| failed(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&text)
                .map_err(|error| ClientError::Shape { address, reason: error.to_string() });
        }
        let refusal: Refusal = serde_json::from_slice(&text).unwrap_or_else(|_| Refusal {
            kind: String::new(),
            message: format!("{address}{path} answered {status}"),
        });
        Err(ClientError::Refused { status, kind: refusal.kind, message: refusal.message })
    }
}

/// A stream of events.
pub(crate) struct Events {
    stream: reqwest::Response,
    text: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                if let Some(Ok(event)) = line.strip_prefix(b"data:").map(serde_json::from_slice) {
                    return Some(event);
                }
            }
            if self.text.len() > LONGEST_EVENT {
                return None;
            }
            self.text.extend_from_slice(&self.stream.chunk().await.ok()??);
        }
    }
}

/// The body of every refusal of the API.
#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(default)]
    kind: String,
    message: String,
}

fn reason(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Runs a command's future on a runtime of its own.
pub(crate) fn block_on(command: impl Future<Output = Result<Exit, ClientError>>) -> Exit {
    match block_on_plain(command) {
        Ok(ended) => ended.unwrap_or_else(|error| error.report()),
        Err(problem) => {
            output::complain(format!("invar: {problem}"));
            Exit::Failed
        }
    }
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on_plain<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| format!("cannot start: {error}"))?.block_on(future))
}
