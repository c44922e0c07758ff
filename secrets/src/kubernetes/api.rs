//! The three requests that are made: read one object, watch, and ask for the newest version of a namespace; and what the
//! refusals of an API server mean to people.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::object::{
    ListPage, Object, ObjectKind, ObjectName, WatchEvent, decode_list, decode_object, decode_watch_event,
    status_message,
};
use super::transport::{ApiRequest, ApiResponse, ApiTransport, BodyStream, TransportError};
use crate::error::SecretError;

/// The largest answer. An object holds at most 1 MiB, a third more in base64, and has metadata.
const LARGEST_ANSWER: usize = 4 << 20;
/// The same of a part of a list: metadata may hold 256 KiB of annotations each, and hardly ever does.
const LARGEST_LIST: usize = 32 << 20;
/// Objects of one part of a list.
const LIST_PART: usize = 100;
/// How long the server keeps a watch open.
const WATCH_SECONDS: u64 = 290;
/// How much longer it may take until the end of a watch is here.
const WATCH_GRACE: Duration = Duration::from_secs(15);

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Why something could not be had; the variants are the ways of reacting. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such object.
    #[error("{0}")]
    Missing(String),
    /// The server does not know the agent, or does not let it.
    #[error("{0}")]
    Denied(String),
    /// The server cannot be reached or does not serve now.
    #[error("{0}")]
    Unavailable(String),
    /// The answer is not what was asked for, or what connects cannot work.
    #[error("{0}")]
    Invalid(String),
    /// What a watch would go on from is not held any more (410).
    #[error("{0}")]
    Gone(String),
}

/// Reads from one API server. Cloning shares the connection.
#[derive(Clone)]
pub struct KubernetesApi {
    transport: Arc<dyn ApiTransport>,
}

/// Events of an open watch.
pub(super) struct WatchStream {
    body: BodyStream,
    buffer: Zeroizing<Vec<u8>>,
    until: Instant,
}

/// What a request is about, for messages.
struct Subject<'a> {
    doing: &'static str,
    verb: &'static str,
    kind: ObjectKind,
    namespace: &'a str,
    name: Option<&'a str>,
}

// === impl KubernetesApi ===

impl KubernetesApi {
    /// Over this transport.
    pub fn new(transport: impl ApiTransport) -> Self {
        Self { transport: Arc::new(transport) }
    }

    /// The server as messages name it.
    #[must_use]
    pub fn server(&self) -> String {
        self.transport.server()
    }

    /// Reads one object, in at most `timeout`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn read(
        &self,
        kind: ObjectKind,
        name: &ObjectName,
        timeout: Duration,
    ) -> Result<Object, ApiError> {
        let subject = Subject {
            doing: "reading",
            verb: "get",
            kind,
            namespace: name.namespace(),
            name: Some(name.name()),
        };
        let path = format!("/api/v1/namespaces/{}/{}/{}", name.namespace(), kind.resource(), name.name());
        let text = self.text(&subject, path, JSON, timeout, LARGEST_ANSWER).await?;
        decode_object(kind, &text).map_err(|problem| self.invalid(&subject, &problem))
    }

    /// A part of the list of all objects of a namespace: names and versions. Needs the permission `list`.
    pub(super) async fn list(
        &self,
        kind: ObjectKind,
        namespace: &str,
        next: &str,
        timeout: Duration,
    ) -> Result<ListPage, ApiError> {
        let subject = Subject { doing: "listing", verb: "list", kind, namespace, name: None };
        let mut path = format!("/api/v1/namespaces/{namespace}/{}?limit={LIST_PART}", kind.resource());
        if !next.is_empty() {
            path.push_str("&continue=");
            path.extend(utf8_percent_encode(next, NON_ALPHANUMERIC));
        }
        let text = self.text(&subject, path, METADATA_LIST, timeout, LARGEST_LIST).await?;
        decode_list(&text).map_err(|problem| self.invalid(&subject, &problem))
    }

    /// Opens a watch, in at most `timeout`: of one name, or of a namespace from a version on. One that begins at no
    /// version first tells what is there.
    pub(super) async fn watch(
        &self,
        kind: ObjectKind,
        namespace: &str,
        name: Option<&str>,
        from: Option<&str>,
        timeout: Duration,
    ) -> Result<WatchStream, ApiError> {
        let subject = Subject { doing: "watching", verb: "watch", kind, namespace, name };
        let mut path = format!(
            "/api/v1/namespaces/{namespace}/{}?watch=true&timeoutSeconds={WATCH_SECONDS}",
            kind.resource()
        );
        if let Some(name) = name {
            path.push_str("&fieldSelector=metadata.name%3D");
            path.push_str(name);
        }
        if let Some(version) = from {
            path.push_str("&allowWatchBookmarks=true&resourceVersion=");
            path.push_str(version);
        }
        let open_for = Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
        let request = ApiRequest { path_and_query: path, accept: METADATA, timeout: open_for };
        let until = Instant::now() + open_for;
        let opened_until = Instant::now() + timeout;
        let response = self.send(&subject, &request, opened_until, timeout).await?;
        if response.status != 200 {
            return Err(self.refusal(&subject, response, opened_until).await);
        }
        Ok(WatchStream { body: response.body, buffer: Zeroizing::default(), until })
    }

    /// The body of an answer with status 200.
    async fn text(
        &self,
        subject: &Subject<'_>,
        path_and_query: String,
        accept: &'static str,
        timeout: Duration,
        largest: usize,
    ) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let deadline = Instant::now() + timeout;
        let request = ApiRequest { path_and_query, accept, timeout };
        let response = self.send(subject, &request, deadline, timeout).await?;
        if response.status != 200 {
            return Err(self.refusal(subject, response, deadline).await);
        }
        collect(response.body, deadline, largest).await.map_err(|problem| self.unavailable(subject, &problem))
    }

    async fn send(
        &self,
        subject: &Subject<'_>,
        request: &ApiRequest,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<ApiResponse, ApiError> {
        match timeout_at(deadline, self.transport.get(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(TransportError::Settings(problem))) => Err(self.invalid(subject, &problem)),
            Ok(Err(TransportError::Connection(problem))) => Err(self.unavailable(subject, &problem)),
            Err(_) => Err(self.unavailable(subject, &format!("no answer within {timeout:?}"))),
        }
    }

    async fn refusal(&self, subject: &Subject<'_>, response: ApiResponse, deadline: Instant) -> ApiError {
        let status = response.status;
        let body = collect(response.body, deadline, LARGEST_ANSWER).await.ok();
        let mut said = body.and_then(|text| status_message(&text));
        if let Some(words) = said.take() {
            said = Some(self.transport.conceal(words).await);
        }
        // Who is refused for its credentials learns nothing from the words of a server, which may quote them.
        let words = match &said {
            Some(said) if status != 401 => format!("{status}: {said}"),
            _ => format!("{status}"),
        };
        let place = self.server();
        match status {
            401 => ApiError::Denied(format!(
                "{subject}: {place} does not accept the credentials ({words}): renew the token or the certificate"
            )),
            403 => ApiError::Denied(format!(
                "{subject}: {place} forbids it ({words}); a Role in namespace {} with {} allows it",
                subject.namespace,
                subject.rule()
            )),
            404 if said.is_some() => ApiError::Missing(format!("{subject}: it does not exist ({words})")),
            404 => ApiError::Invalid(format!(
                "{subject}: {place} answers 404, but not as an API server does: check its address"
            )),
            410 => ApiError::Gone(format!("{subject}: {words}")),
            408 | 429 | 500..=599 => ApiError::Unavailable(format!("{subject}: {place} answers {words}")),
            _ => ApiError::Invalid(format!("{subject}: {place} answers {words}")),
        }
    }

    fn invalid(&self, subject: &Subject<'_>, problem: &str) -> ApiError {
        ApiError::Invalid(format!("{subject}: {}: {problem}", self.server()))
    }

    fn unavailable(&self, subject: &Subject<'_>, problem: &str) -> ApiError {
        ApiError::Unavailable(format!("{subject}: {}: {problem}", self.server()))
    }
}

/// All of a body, in memory that is wiped afterwards.
async fn collect(
    mut body: BodyStream,
    deadline: Instant,
    largest: usize,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut text = Zeroizing::new(Vec::new());
    loop {
        match timeout_at(deadline, body.next()).await {
            Ok(Some(part)) => append(&mut text, &part?, largest)?,
            Ok(None) => return Ok(text),
            Err(_) => return Err("the answer did not end in time".to_owned()),
        }
    }
}

/// Appends without leaving a copy behind, as growing in place would.
fn append(text: &mut Zeroizing<Vec<u8>>, part: &[u8], largest: usize) -> Result<(), String> {
    let length = text.len() + part.len();
    if length > largest {
        return Err(format!("the answer is larger than {} MiB", largest >> 20));
    }
    if length > text.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity((length * 2).max(8192)));
        larger.extend_from_slice(text);
        *text = larger;
    }
    text.extend_from_slice(part);
    Ok(())
}

// === impl WatchStream ===

impl WatchStream {
    /// The next event; none when the server ended the watch in order.
    pub(super) async fn next(&mut self) -> Result<Option<WatchEvent>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let event = decode_watch_event(&self.buffer[..end]).map_err(ApiError::Invalid)?;
                self.buffer.drain(..=end);
                return match event {
                    WatchEvent::Error { code: 410, message } => Err(ApiError::Gone(message)),
                    WatchEvent::Error { code, message } => {
                        Err(ApiError::Unavailable(format!("the server ended the watch: {code}: {message}")))
                    }
                    event => Ok(Some(event)),
                };
            }
            match timeout_at(self.until, self.body.next()).await {
                Ok(Some(Ok(part))) => {
                    append(&mut self.buffer, &part, LARGEST_ANSWER).map_err(ApiError::Invalid)?
                }
                Ok(Some(Err(problem))) => {
                    return Err(ApiError::Unavailable(format!("the watch broke off: {problem}")));
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(ApiError::Unavailable("the watch did not end when it should".to_owned()));
                }
            }
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    /// The rule of a Role that allows it, as it is written in YAML.
    fn rule(&self) -> String {
        let names = match self.name {
            Some(name) => format!(", resourceNames: [\"{name}\"]"),
            None => String::new(),
        };
        format!(
            "`{{apiGroups: [\"\"], resources: [\"{}\"]{names}, verbs: [\"{}\"]}}`",
            self.kind.resource(),
            self.verb
        )
    }
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name {
            Some(name) => write!(f, "{} {} {}/{name}", self.doing, self.kind, self.namespace),
            None => write!(f, "{} the {} of namespace {}", self.doing, self.kind.resource(), self.namespace),
        }
    }
}

// === impl ApiError ===

impl ApiError {
    /// As a store says it, about the secret of this path.
    pub(super) fn into_secret_error(self, path: &str) -> SecretError {
        let reference = path.to_owned();
        match self {
            Self::Missing(reason) => SecretError::Missing { reference, reason },
            Self::Denied(reason) => SecretError::Denied { reference, reason },
            Self::Unavailable(reason) | Self::Gone(reason) => SecretError::unavailable(reference, reason),
            Self::Invalid(reason) => SecretError::Invalid { reference, reason },
        }
    }
}
