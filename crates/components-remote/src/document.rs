//! What an address answers, for `import.http` and `remote.http`. Strict about the answer, for a page that is not the
//! content must not become it: only status 200, not a web page, not empty, UTF-8, at most 8 MiB.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use invar_blocks::{HttpClient, HttpClientArguments, HttpClientError, HttpClientOptions};
use invar_policy::Access;
use invar_sources::{ErrorClass, Rejection, SourceError, SourceName, http_refusal};
use url::Url;

/// The largest content, in bytes.
const LIMIT: usize = 8 << 20;

/// What is asked for, as arguments say it.
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    pub(crate) method: &'a str,
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) body: &'a str,
    pub(crate) timeout: Duration,
}

/// What is asked for, and how.
pub(crate) struct Document {
    /// Who asks, for errors.
    name: SourceName,
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: String,
    timeout: Duration,
    arguments: HttpClientArguments,
    access: Access,
    client: tokio::sync::Mutex<Option<HttpClient>>,
}

fn parsed(url: &str) -> Option<Url> {
    Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// Whether anything can be asked there.
pub(crate) fn is_address(url: &str) -> bool {
    parsed(url).is_some()
}

/// A content, and what the server calls it.
#[derive(Clone)]
pub(crate) struct Content {
    /// Without white space around, as Alloy takes it.
    pub(crate) text: Bytes,
    entity_tag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Document {
    /// Does no input or output.
    pub(crate) fn new(
        name: SourceName,
        request: &Request<'_>,
        arguments: HttpClientArguments,
        access: Access,
    ) -> Result<Self, String> {
        let Request { url, method, headers, body, timeout } = *request;
        let parsed = parsed(url);
        let parsed =
            parsed.ok_or_else(|| format!("`{}` is not an http:// or https:// address", shown(url)))?;
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("`method`: `{method}` is not a method"))?;
        let mut of_request = HeaderMap::new();
        for (header, value) in headers {
            let value = HeaderName::from_bytes(header.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, mut value) =
                value.ok_or_else(|| format!("`headers`: `{header}` cannot be sent as it is"))?;
            value.set_sensitive(true);
            of_request.append(name, value);
        }
        Ok(Self {
            name,
            url: parsed,
            method,
            headers: of_request,
            body: body.to_owned(),
            timeout,
            arguments,
            access,
            client: tokio::sync::Mutex::default(),
        })
    }

    /// Whose address it is.
    pub(crate) fn host(&self) -> Option<&str> {
        self.url.host_str()
    }

    /// Asks; `None` where the content is still the `known` one.
    ///
    /// # Errors
    /// There is no answer, or not the kind that a content can be.
    pub(crate) async fn get(
        &self,
        known: Option<&Content>,
        now: SystemTime,
    ) -> Result<Option<Content>, SourceError> {
        let client = self.client().await?;
        let mut request = reqwest::Request::new(self.method.clone(), self.url.clone());
        request.headers_mut().extend(self.headers.clone());
        if !self.body.is_empty() {
            *request.body_mut() = Some(self.body.clone().into());
        }
        // What other methods mean by the same answer is not known.
        let conditions = known.filter(|_| self.method == Method::GET).map(Content::conditions);
        let conditions = conditions.unwrap_or_default();
        let conditional = !conditions.is_empty();
        request.headers_mut().extend(conditions);
        *request.timeout_mut() = Some(self.timeout);
        let response = client.execute(request).await.map_err(|error| self.client_error(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if conditional => return Ok(None),
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => {
                return Err(self.shape(&format!("status {}, not with a content", status.as_u16())));
            }
            status => {
                let credential =
                    !self.arguments.authentication.methods().is_empty() || !self.headers.is_empty();
                let headers = response.headers();
                return Err(http_refusal(&self.name, status, headers, &self.place(), credential, now));
            }
        }
        let headers = response.headers().clone();
        let content = self.body_of(response).await?;
        self.check_shape(&headers, &content)?;
        Ok(Some(Content {
            text: content.slice_ref(content.trim_ascii()),
            entity_tag: headers.get(ETAG).cloned(),
            last_modified: headers.get(LAST_MODIFIED).cloned(),
        }))
    }

    /// The address as people see it.
    pub(crate) fn place(&self) -> String {
        shown(self.url.as_str())
    }

    pub(crate) fn error(&self, class: ErrorClass, message: String) -> SourceError {
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

    fn shape(&self, what: &str) -> SourceError {
        let message = format!("{} answers with {what}", self.place());
        self.error(ErrorClass::Rejected(Rejection::Shape), message)
    }

    fn check_shape(&self, headers: &HeaderMap, content: &Bytes) -> Result<(), SourceError> {
        let html = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            kind == "text/html" || kind == "application/xhtml+xml"
        });
        if html {
            return Err(self.shape("a web page; is it a login page?"));
        }
        match std::str::from_utf8(content) {
            Err(_) => Err(self.shape("something that is not text")),
            Ok(text) if text.trim().is_empty() => Err(self.shape("nothing")),
            Ok(_) => Ok(()),
        }
    }
}

impl Content {
    /// Under which the server need not send it again.
    fn conditions(&self) -> HeaderMap {
        [(IF_NONE_MATCH, &self.entity_tag), (IF_MODIFIED_SINCE, &self.last_modified)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }
}

/// The address as people see it: without credentials, and without what a query may hold of them.
pub(crate) fn shown(url: &str) -> String {
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
