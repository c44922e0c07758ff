//! Gets the page of a target: over HTTP, or by a call within the process where the address is the agent's own. The page is read into
//! a buffer that scrapes share, and no more of it than its limit, compressed or not.

use std::io::Write;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, StatusCode};
use invar_blocks::HttpClientError;
use invar_engine::{Request, Response, RunContext};
use invar_telemetry::exposition::ExpositionFormat;
use parking_lot::Mutex;

use super::Scrape;
use super::error::ScrapeError;
use super::settings::ScrapeSettings;
use super::target::ScrapeTarget;

/// How many buffers wait for the next page.
const IDLE_BUFFERS: usize = 16;
/// A buffer beyond this size, in bytes, is not kept.
const LARGEST_IDLE_BUFFER: usize = 4 << 20;

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Buffers of pages, shared by the targets of a component.
#[derive(Debug, Default)]
pub(super) struct PageBuffers {
    idle: Mutex<Vec<Vec<u8>>>,
}

/// A page as it was read.
pub(super) struct Page {
    pub(super) format: ExpositionFormat,
    pub(super) body: PageBody,
}

/// The decompressed bytes of a page.
pub(super) enum PageBody {
    /// As they arrived in one piece.
    Whole(Bytes),
    /// Gathered.
    Gathered { bytes: Vec<u8>, home: Arc<PageBuffers> },
}

/// Takes no more than so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
    exceeded: bool,
}

/// Gets the page of a target within its timeout.
pub(super) async fn fetch(
    target: &ScrapeTarget,
    settings: &ScrapeSettings,
    context: &RunContext<Scrape>,
    in_process: Option<&str>,
    buffers: &Arc<PageBuffers>,
) -> Result<Page, ScrapeError> {
    let fetching = async {
        if in_process.is_some_and(|address| authority_is(target, address)) {
            return call_in_process(target, settings, context).await;
        }
        over_http(target, settings, buffers).await
    };
    match tokio::time::timeout(target.timeout, fetching).await {
        Ok(result) => result,
        Err(_) => Err(ScrapeError::Timeout),
    }
}

fn authority_is(target: &ScrapeTarget, address: &str) -> bool {
    // Comparing parts spares the allocation of an authority for each scrape.
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    target.url.host_str() == Some(host)
        && target.url.port_or_known_default().is_some_and(|known| port.parse() == Ok(known))
}

fn headers(target: &ScrapeTarget, settings: &ScrapeSettings, headers: &mut HeaderMap) {
    headers.insert(ACCEPT, settings.accept.clone());
    let encoding = if settings.arguments.enable_compression { "gzip" } else { "identity" };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    // A number is always a valid header value.
    if let Ok(timeout) = HeaderValue::try_from(target.timeout.as_secs_f64().to_string()) {
        headers.insert(TIMEOUT_HEADER, timeout);
    }
}

async fn over_http(
    target: &ScrapeTarget,
    settings: &ScrapeSettings,
    buffers: &Arc<PageBuffers>,
) -> Result<Page, ScrapeError> {
    let mut request = reqwest::Request::new(Method::GET, target.url.clone());
    *request.timeout_mut() = Some(target.timeout);
    headers(target, settings, request.headers_mut());
    let mut response = settings.client.execute(request).await?;
    let format = accept(response.status(), response.headers(), settings)?;
    let compressed = is_compressed(response.headers());
    let limit = settings.page_limit;
    if !compressed && response.content_length().is_some_and(|length| length >= limit) {
        return Err(ScrapeError::TooLarge { limit });
    }
    let broken = |error: reqwest::Error| match HttpClientError::from_reqwest(error) {
        error if error.is_timeout() => ScrapeError::Timeout,
        error => ScrapeError::Request(error),
    };
    let body = if compressed {
        let mut decoder = MultiGzDecoder::new(Bounded::new(buffers.take(), limit));
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if let Err(error) = decoder.write_all(&chunk) {
                return Err(decompression(decoder.get_ref(), error));
            }
        }
        if let Err(error) = decoder.try_finish() {
            return Err(decompression(decoder.get_ref(), error));
        }
        let bounded = decoder.finish().map_err(ScrapeError::Compression)?;
        PageBody::Gathered { bytes: bounded.bytes, home: Arc::clone(buffers) }
    } else {
        let first = response.chunk().await.map_err(broken)?.unwrap_or_default();
        match response.chunk().await.map_err(broken)? {
            None => PageBody::Whole(first),
            Some(second) => {
                let mut bytes = buffers.take();
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&second);
                while let Some(chunk) = response.chunk().await.map_err(broken)? {
                    if (bytes.len() + chunk.len()) as u64 >= limit {
                        return Err(ScrapeError::TooLarge { limit });
                    }
                    bytes.extend_from_slice(&chunk);
                }
                PageBody::Gathered { bytes, home: Arc::clone(buffers) }
            }
        }
    };
    complete(Page { format, body }, limit)
}

async fn call_in_process(
    target: &ScrapeTarget,
    settings: &ScrapeSettings,
    context: &RunContext<Scrape>,
) -> Result<Page, ScrapeError> {
    let path = target.url.path();
    let rest = path.strip_prefix("/api/v0/component/").unwrap_or_default();
    let (node, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut uri = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if let Some(query) = target.url.query() {
        uri.push('?');
        uri.push_str(query);
    }
    let mut request = Request::default();
    *request.uri_mut() = uri.parse().map_err(|_| ScrapeError::Status(StatusCode::NOT_FOUND))?;
    headers(target, settings, request.headers_mut());
    request.headers_mut().remove(ACCEPT_ENCODING);
    let response: Response = context.serve_component(node, request).await;
    let format = accept(response.status(), response.headers(), settings)?;
    complete(Page { format, body: PageBody::Whole(response.into_body()) }, settings.page_limit)
}

fn accept(
    status: StatusCode,
    headers: &HeaderMap,
    settings: &ScrapeSettings,
) -> Result<ExpositionFormat, ScrapeError> {
    if status != StatusCode::OK {
        return Err(ScrapeError::Status(status));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    Ok(ExpositionFormat::from_content_type(content_type, settings.fallback)?)
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

fn complete(page: Page, limit: u64) -> Result<Page, ScrapeError> {
    if page.body.len() as u64 >= limit { Err(ScrapeError::TooLarge { limit }) } else { Ok(page) }
}

fn decompression(bounded: &Bounded, error: std::io::Error) -> ScrapeError {
    if bounded.exceeded {
        ScrapeError::TooLarge { limit: bounded.limit }
    } else {
        ScrapeError::Compression(error)
    }
}

// === impl Bounded ===

impl Bounded {
    fn new(bytes: Vec<u8>, limit: u64) -> Self {
        Self { bytes, limit, exceeded: false }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 >= self.limit {
            self.exceeded = true;
            return Err(std::io::Error::other("the page is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === impl PageBuffers ===

impl PageBuffers {
    fn take(&self) -> Vec<u8> {
        self.idle.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_BUFFERS && bytes.capacity() <= LARGEST_IDLE_BUFFER {
            idle.push(bytes);
        }
    }
}

impl Deref for PageBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Gathered { bytes, .. } => bytes,
        }
    }
}

impl Drop for PageBody {
    fn drop(&mut self) {
        if let Self::Gathered { bytes, home } = self {
            home.give_back(std::mem::take(bytes));
        }
    }
}
