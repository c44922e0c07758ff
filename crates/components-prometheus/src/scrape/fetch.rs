//! Gets the page of a target: over HTTP, or by a call within the process where the address is the agent's own.

use std::sync::Arc;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::{Method, StatusCode};
use invar_blocks::HttpClientError;
use invar_engine::{Request, Response, RunContext};
use invar_telemetry::exposition::ExpositionFormat;

use super::Scrape;
use super::error::ScrapeError;
use super::page_body::{Gathering, PageBody, PageBuffers, Waiting};
use super::settings::ScrapeSettings;
use super::target::ScrapeTarget;

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// A page as it was read.
pub(super) struct Page {
    pub(super) format: ExpositionFormat,
    pub(super) body: PageBody,
}

/// Gets the page of a target within its timeout.
pub(super) async fn fetch(
    target: &ScrapeTarget,
    settings: &ScrapeSettings,
    context: &RunContext<Scrape>,
    in_process: Option<&str>,
    buffers: &Arc<PageBuffers>,
) -> Result<Page, ScrapeError> {
    let waiting = Waiting::default();
    let fetching = async {
        if in_process.is_some_and(|address| authority_is(target, address)) {
            return call_in_process(target, settings, context).await;
        }
        over_http(target, settings, buffers, &waiting).await
    };
    match tokio::time::timeout(target.timeout, fetching).await {
        Ok(result) => result,
        Err(_) => Err(waiting.timeout()),
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
    waiting: &Waiting,
) -> Result<Page, ScrapeError> {
    let mut request = reqwest::Request::new(Method::GET, target.url.clone());
    *request.timeout_mut() = Some(target.timeout);
    headers(target, settings, request.headers_mut());
    let broken = |error: HttpClientError| match error {
        HttpClientError::Timeout { connecting: false } => ScrapeError::Timeout,
        error => ScrapeError::Request(error),
    };
    let mut response = settings.client.execute(request).await.map_err(broken)?;
    let format = accept(response.status(), response.headers(), settings)?;
    let compressed = is_compressed(response.headers());
    let limit = settings.page_limit;
    if !compressed && response.content_length().is_some_and(|length| length >= limit) {
        return Err(ScrapeError::TooLarge { limit });
    }
    let broken = |error: reqwest::Error| broken(HttpClientError::from_reqwest(error));
    let mut gathering = None;
    if !compressed {
        let first = response.chunk().await.map_err(broken)?.unwrap_or_default();
        let Some(second) = response.chunk().await.map_err(broken)? else {
            return complete(Page { format, body: PageBody::Whole(first) }, limit);
        };
        let gathering = gathering.insert(Gathering::new(buffers, limit, false));
        gathering.push(&first, waiting).await?;
        gathering.push(&second, waiting).await?;
    }
    let mut gathering = gathering.unwrap_or_else(|| Gathering::new(buffers, limit, true));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        gathering.push(&chunk, waiting).await?;
    }
    let body = gathering.finish()?;
    complete(Page { format, body }, limit)
}

async fn call_in_process(
    target: &ScrapeTarget,
    settings: &ScrapeSettings,
    context: &RunContext<Scrape>,
) -> Result<Page, ScrapeError> {
    let path = target.url.path();
    let rest = path.strip_prefix("/api/v0/component/").unwrap_or_default();
    let (node, path) =
        context.split_component_path(rest).ok_or(ScrapeError::Status(StatusCode::NOT_FOUND))?;
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
