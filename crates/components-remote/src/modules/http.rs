//! `import.http`: what an address answers. Strict about the answer, for a page that is not a module must not become one:
//! only status 200, not HTML, not empty, UTF-8, at most 8 MiB.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use invar_blocks::{HttpClient, HttpClientArguments, HttpClientError, HttpClientOptions};
use invar_engine::modules::HttpImport;
use invar_policy::Access;
use invar_sources::{
    BoxFuture, ErrorClass, Poll, PollContext, Rejection, Snapshot, Source, SourceError, SourceKind,
    SourceName, http_refusal, tree_digest,
};
use invar_syntax::arguments::Arguments;
use invar_syntax::decoder::decode_block;
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody};
use parking_lot::Mutex;
use url::Url;

use super::SHORTEST_INTERVAL;

/// The largest module, in bytes.
const LIMIT: usize = 8 << 20;
/// The file of the snapshot.
const FILE: &str = "module.alloy";

struct HttpModule {
    name: SourceName,
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: String,
    interval: Duration,
    timeout: Duration,
    arguments: HttpClientArguments,
    client: tokio::sync::Mutex<Option<HttpClient>>,
    access: Access,
    validators: Mutex<Option<Validators>>,
}

/// What the server called the content of this digest.
#[derive(Clone)]
struct Validators {
    digest: String,
    entity_tag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// The source of such a module.
pub(super) fn open(
    name: &SourceName,
    import: &HttpImport,
    client: Option<&EvaluatedBlock>,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let stalled = |message: String| SourceError {
        class: ErrorClass::Stalled,
        message,
        help: None,
        source_name: name.clone(),
    };
    let url = Url::parse(&import.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url
        .ok_or_else(|| stalled(format!("`{}` is not an http:// or https:// address", shown(&import.url))))?;
    let method = Method::from_bytes(import.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| stalled(format!("`method`: `{}` is not a method", import.method)))?;
    let mut headers = HeaderMap::new();
    for (header, value) in &import.headers {
        let parsed = HeaderName::from_bytes(header.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (header, mut value) =
            parsed.ok_or_else(|| stalled(format!("`headers`: `{header}` cannot be sent as it is")))?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    let mut errors = Vec::new();
    let arguments = match client {
        Some(block) => decode_block::<HttpClientArguments>(block, &mut errors),
        None => HttpClientArguments::decode(&EvaluatedBody::default(), &mut errors),
    };
    let arguments = arguments.filter(|_| errors.is_empty()).ok_or_else(|| {
        let texts: Vec<String> = errors.iter().map(|error| error.message.clone()).collect();
        stalled(format!("`client`: {}", texts.join("; ")))
    })?;
    Ok(Arc::new(HttpModule {
        name: name.clone(),
        url,
        method,
        headers,
        body: import.body.clone(),
        interval: import.poll_frequency.max(SHORTEST_INTERVAL),
        timeout: import.poll_timeout.max(SHORTEST_INTERVAL),
        arguments,
        client: tokio::sync::Mutex::default(),
        access: access.clone(),
        validators: Mutex::default(),
    }))
}

/// The address as people see it: without credentials, and without what a query may hold of them.
pub(super) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) => {
            // An address that cannot have them has none: either way they are not there afterwards.
            url.set_username("").unwrap_or_default();
            url.set_password(None).unwrap_or_default();
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => invar_sources::redact(url),
    }
}

/// The folder of an address: the `module_path` of what it answers.
pub(super) fn folder(url: &str) -> String {
    let shown = shown(url);
    let path_begins = shown.find("://").map_or(0, |at| at + 3);
    match shown[path_begins..].rfind('/') {
        Some(slash) => shown[..path_begins + slash].to_owned(),
        None => shown,
    }
}

impl HttpModule {
    fn error(&self, class: ErrorClass, message: String) -> SourceError {
        SourceError { class, message, help: None, source_name: self.name.clone() }
    }

    fn client_error(&self, error: &HttpClientError) -> SourceError {
        let class = match error {
            HttpClientError::Invalid { .. } => ErrorClass::Stalled,
            HttpClientError::Redirect { .. } => ErrorClass::Integrity,
            _ => ErrorClass::Transient,
        };
        self.error(class, format!("{}: {error}", self.place()))
    }

    fn place(&self) -> String {
        shown(self.url.as_str())
    }

    async fn client(&self) -> Result<HttpClient, SourceError> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let made = HttpClient::new(&self.arguments, HttpClientOptions::under(self.access.clone()))
            .await
            .map_err(|error| self.client_error(&error))?;
        Ok(client.insert(made).clone())
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, SourceError> {
        let client = self.client().await?;
        let mut request = reqwest::Request::new(self.method.clone(), self.url.clone());
        request.headers_mut().extend(self.headers.clone());
        if !self.body.is_empty() {
            *request.body_mut() = Some(self.body.clone().into());
        }
        let known = self.validators.lock().clone().filter(|known| {
            self.method == Method::GET && previous.is_some_and(|snapshot| snapshot.digest == known.digest)
        });
        let conditional = known.is_some();
        if let Some(Validators { entity_tag, last_modified, .. }) = known {
            for (name, value) in [(IF_NONE_MATCH, entity_tag), (IF_MODIFIED_SINCE, last_modified)] {
                if let Some(value) = value {
                    request.headers_mut().insert(name, value);
                }
            }
        }
        *request.timeout_mut() = Some(self.timeout);
        let response = client.execute(request).await.map_err(|error| self.client_error(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if conditional => return Ok(Poll::Unchanged),
            status => {
                let credential =
                    !self.arguments.authentication.methods().is_empty() || !self.headers.is_empty();
                let headers = response.headers();
                return Err(http_refusal(
                    &self.name,
                    status,
                    headers,
                    &self.place(),
                    credential,
                    context.now,
                ));
            }
        }
        let headers = response.headers().clone();
        let content = self.body_of(response).await?;
        self.check_shape(&headers, &content)?;
        let files = BTreeMap::from([(FILE.to_owned(), trimmed(&content))]);
        let digest = tree_digest(&files);
        *self.validators.lock() = Some(Validators {
            digest: digest.clone(),
            entity_tag: headers.get(ETAG).cloned(),
            last_modified: headers.get(LAST_MODIFIED).cloned(),
        })
        .filter(|known| known.entity_tag.is_some() || known.last_modified.is_some());
        // What the server calls it may change; the content is what counts.
        if previous.is_some_and(|snapshot| snapshot.digest == digest) {
            return Ok(Poll::Unchanged);
        }
        let source = self.name.clone();
        Ok(Poll::Changed(Box::new(Snapshot::of_content(
            source,
            SourceKind::Http,
            digest,
            files,
            context.now,
        ))))
    }

    async fn body_of(&self, response: reqwest::Response) -> Result<Bytes, SourceError> {
        let mut content = BytesMut::new();
        let mut parts = response.bytes_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.client_error(&HttpClientError::from_reqwest(error)))?;
            if content.len() + part.len() > LIMIT {
                let message = format!("{} answers with more than 8 MiB", self.place());
                return Err(self.error(ErrorClass::Rejected(Rejection::Limits), message));
            }
            content.extend_from_slice(&part);
        }
        Ok(content.freeze())
    }

    fn check_shape(&self, headers: &HeaderMap, content: &Bytes) -> Result<(), SourceError> {
        let refuse = |what: &str| {
            let message = format!("{} answers with {what}", self.place());
            Err(self.error(ErrorClass::Rejected(Rejection::Shape), message))
        };
        let html = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            kind == "text/html" || kind == "application/xhtml+xml"
        });
        if html {
            return refuse("a web page; is it a login page?");
        }
        match std::str::from_utf8(content) {
            Err(_) => refuse("something that is not text"),
            Ok(text) if text.trim().is_empty() => refuse("nothing"),
            Ok(_) => Ok(()),
        }
    }
}

/// Without white space around, as Alloy takes it.
fn trimmed(content: &Bytes) -> Bytes {
    let trimmed = content.trim_ascii();
    content.slice_ref(trimmed)
}

impl Source for HttpModule {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Http
    }

    fn description(&self) -> String {
        self.place()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self, _first: bool) -> Duration {
        self.timeout
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            tokio::select! {
                looked = tokio::time::timeout_at(context.deadline, self.look(previous, context)) => {
                    looked.unwrap_or_else(|_| {
                        Err(self.error(ErrorClass::Transient, format!("{} does not answer in time", self.place())))
                    })
                }
                () = context.cancellation.cancelled() => {
                    Err(self.error(ErrorClass::Transient, "the poll was cancelled".to_owned()))
                }
            }
        })
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        false
    }

    fn host(&self) -> Option<&str> {
        self.url.host_str()
    }
}
