//! The server as a source: registers this agent, asks for its configuration, and reports what became of the last one.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use invar_blocks::http_client::{HttpClient, HttpClientOptions, http_url, redact_url};
use invar_policy::Access;
use invar_sources::{
    BoxFuture, ErrorClass, Poll, PollContext, Rejection, Snapshot, Source, SourceError, SourceKind,
    SourceName, tree_digest,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use url::Url;

use super::RemoteConfigArguments;
use super::protocol::{
    CallError, Empty, GetConfigRequest, GetConfigResponse, RegisterCollectorRequest, RemoteConfigStatus,
    Status, UnregisterCollectorRequest, call,
};

/// The one file of a snapshot.
const FILE: &str = "remotecfg.alloy";
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long saying goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of the configuration that the server sent last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteConfigVerdict {
    /// It is being checked, prepared, or is on probation.
    Applying,
    /// It was committed.
    Applied,
    /// It was rejected, or ran and was undone; another one runs.
    Failed {
        /// Why: the stage, the place, the cause.
        message: String,
    },
}

/// Tells the server, through its source, what became of a configuration. Cloning shares the source.
#[derive(Clone, Debug)]
pub struct RemoteConfigReporter {
    verdict: watch::Sender<Option<RemoteConfigVerdict>>,
    nudge: watch::Sender<u64>,
}

/// A server that sends configurations.
#[derive(Debug)]
pub struct RemoteConfigSource {
    access: Access,
    name: SourceName,
    url: Url,
    id: String,
    arguments: RemoteConfigArguments,
    attributes: BTreeMap<String, String>,
    user_agent: String,
    reporter: RemoteConfigReporter,
    exchange: Mutex<Exchange>,
}

/// What is known of the exchange with the server.
#[derive(Debug, Default)]
struct Exchange {
    client: Option<HttpClient>,
    registered: bool,
    /// The server's own name for the configuration it sent last, and our digest of that.
    hash: String,
    digest: String,
    /// The verdict the server has heard.
    heard: Option<RemoteConfigVerdict>,
}

// === impl RemoteConfigReporter ===

impl RemoteConfigReporter {
    /// Notes a verdict. The server hears of a new one at once.
    pub fn report(&self, verdict: RemoteConfigVerdict) {
        let news = self.verdict.send_if_modified(|current| {
            let news = current.as_ref() != Some(&verdict);
            *current = Some(verdict);
            news
        });
        if news {
            self.nudge.send_modify(|count| *count += 1);
        }
    }
}

// === impl RemoteConfigSource ===

impl RemoteConfigSource {
    /// The server that a block describes, as a source of that name. `id` is used where the block names none. Connects to nothing yet.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn new(
        name: SourceName,
        arguments: RemoteConfigArguments,
        id: &str,
        version: &str,
        access: Access,
    ) -> Result<Self, String> {
        let url = http_url(&arguments.url)?;
        let mut attributes = arguments.attributes.clone();
        attributes.insert("collector.version".to_owned(), format!("v{version}"));
        attributes.insert("collector.os".to_owned(), std::env::consts::OS.to_owned());
        let id = if arguments.id.is_empty() { id } else { &arguments.id };
        Ok(Self {
            name,
            url,
            id: id.to_owned(),
            user_agent: format!("invar/{version}"),
            attributes,
            reporter: RemoteConfigReporter {
                verdict: watch::Sender::new(None),
                nudge: watch::Sender::new(0),
            },
            exchange: Mutex::default(),
            access,
            arguments,
        })
    }

    /// Through what verdicts reach the server.
    #[must_use]
    pub fn reporter(&self) -> RemoteConfigReporter {
        self.reporter.clone()
    }

    /// Tells the server that this agent is gone. Waits for a second at most; a server that does not hear it is none the
    /// worse.
    pub async fn unregister(&self) {
        let client = {
            let mut exchange = self.exchange.lock();
            if !std::mem::take(&mut exchange.registered) {
                return;
            }
            exchange.client.clone()
        };
        let Some(client) = client else { return };
        let goodbye = UnregisterCollectorRequest { id: self.id.clone() };
        let told = call::<Empty>(&client, &self.url, "UnregisterCollector", &goodbye, GOODBYE_TIMEOUT).await;
        if let Err(error) = told {
            tracing::debug!(
                error = error.message,
                "the remotecfg server was not told that this agent is gone"
            );
        }
    }

    async fn client(&self) -> Result<HttpClient, CallError> {
        if let Some(client) = self.exchange.lock().client.clone() {
            return Ok(client);
        }
        let options = HttpClientOptions {
            user_agent: self.user_agent.clone(),
            ..HttpClientOptions::under(self.access.clone())
        };
        let client = HttpClient::new(&self.arguments.client, options).await.map_err(|error| CallError {
            class: if error.is_retryable() { ErrorClass::Transient } else { ErrorClass::Stalled },
            message: error.to_string(),
        })?;
        self.exchange.lock().client = Some(client.clone());
        Ok(client)
    }

    async fn register(&self, client: &HttpClient) -> Result<(), CallError> {
        if self.exchange.lock().registered {
            return Ok(());
        }
        let request = RegisterCollectorRequest {
            id: self.id.clone(),
            name: self.arguments.name.clone(),
            local_attributes: self.attributes.clone(),
        };
        call::<Empty>(client, &self.url, "RegisterCollector", &request, CALL_TIMEOUT).await?;
        self.exchange.lock().registered = true;
        Ok(())
    }

    async fn ask(&self, previous: Option<&Snapshot>, now: SystemTime) -> Result<Poll, CallError> {
        let client = self.client().await?;
        self.register(&client).await?;
        let verdict = self.reporter.verdict.borrow().clone();
        let (hash, heard) = {
            let exchange = self.exchange.lock();
            // A hash is worth something only while what it stands for is still here.
            let known = previous.is_some_and(|previous| previous.digest == exchange.digest);
            (if known { exchange.hash.clone() } else { String::new() }, exchange.heard.clone())
        };
        let status = (verdict != heard).then(|| verdict.as_ref().map(status_of)).flatten();
        let request = GetConfigRequest {
            id: self.id.clone(),
            hash,
            local_attributes: self.attributes.clone(),
            remote_config_status: status,
        };
        let answer = call::<GetConfigResponse>(&client, &self.url, "GetConfig", &request, CALL_TIMEOUT).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // A server that lost its memory wants to be told again who this is.
                self.exchange.lock().registered &= error.class != ErrorClass::NotFound;
                return Err(error);
            }
        };
        self.exchange.lock().heard = verdict;
        if answer.not_modified {
            return Ok(Poll::Unchanged);
        }
        if answer.content.trim().is_empty() {
            return Err(CallError {
                class: ErrorClass::Rejected(Rejection::EmptySource),
                message: "the server sent an empty configuration; what runs stays".to_owned(),
            });
        }
        let files = [(FILE.to_owned(), Bytes::from(answer.content))].into_iter().collect();
        let digest = tree_digest(&files);
        {
            let mut exchange = self.exchange.lock();
            exchange.hash = answer.hash;
            exchange.digest.clone_from(&digest);
        }
        if previous.is_some_and(|previous| previous.digest == digest) {
            return Ok(Poll::Unchanged);
        }
        let source = self.name.clone();
        Ok(Poll::Changed(Box::new(Snapshot::of_content(
            source,
            SourceKind::RemoteConfig,
            digest,
            files,
            now,
        ))))
    }
}

fn status_of(verdict: &RemoteConfigVerdict) -> RemoteConfigStatus {
    let (status, message) = match verdict {
        RemoteConfigVerdict::Applying => (Status::Applying, ""),
        RemoteConfigVerdict::Applied => (Status::Applied, ""),
        RemoteConfigVerdict::Failed { message } => (Status::Failed, message.as_str()),
    };
    RemoteConfigStatus { status: status.into(), error_message: message.to_owned() }
}

impl Source for RemoteConfigSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::RemoteConfig
    }

    fn description(&self) -> String {
        redact_url(&self.url)
    }

    fn interval(&self) -> Duration {
        self.arguments.poll_frequency
    }

    fn timeout(&self, _first: bool) -> Duration {
        // Registering and asking.
        CALL_TIMEOUT * 2
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let asked = tokio::select! {
                asked = tokio::time::timeout_at(context.deadline, self.ask(previous, context.now)) => asked,
                () = context.cancellation.cancelled() => return Ok(Poll::Unchanged),
            };
            let failure = match asked {
                Ok(Ok(poll)) => return Ok(poll),
                Ok(Err(error)) => error,
                Err(_) => {
                    CallError { class: ErrorClass::Transient, message: "the server took too long".to_owned() }
                }
            };
            Err(SourceError {
                class: failure.class,
                message: failure.message,
                help: None,
                source_name: self.name.clone(),
            })
        })
    }

    fn watch(&self) -> Option<watch::Receiver<u64>> {
        Some(self.reporter.nudge.subscribe())
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        // The local pipeline does not wait for a server.
        false
    }

    fn host(&self) -> Option<&str> {
        self.url.host_str()
    }
}
