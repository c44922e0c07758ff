//! The connection to an API server through the HTTP client of a `client` block, with all that it can do.

use futures_util::TryStreamExt as _;
use http::header::{ACCEPT, HeaderValue};
use invar_blocks::http_client::{http_url, redact_url};
use invar_blocks::{HttpClient, HttpClientError, HttpClientOptions};
use invar_policy::Access;
use invar_secrets::BoxFuture;
use invar_secrets::kubernetes::{ApiRequest, ApiResponse, ApiTransport, TransportError};
use url::Url;

use super::arguments::KubernetesClientBlock;

/// Carries requests to the `api_server` of a block.
pub(super) struct HttpTransport {
    server: Url,
    client: HttpClient,
}

impl HttpTransport {
    pub(super) async fn new(block: &KubernetesClientBlock, access: Access) -> Result<Self, String> {
        let server = http_url(&block.api_server).map_err(|problem| format!("api_server {problem}"))?;
        // A watch would wait for the end of a compressed block.
        let options = HttpClientOptions { decompress: false, ..HttpClientOptions::under(access) };
        let client = HttpClient::new(&block.http.0, options).await.map_err(|error| error.to_string())?;
        Ok(Self { server, client })
    }
}

impl ApiTransport for HttpTransport {
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
        Box::pin(async move {
            let mut url = self.server.clone();
            let (path, query) =
                request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
            // The address may lead to an API server below a path.
            url.set_path(&format!("{}{path}", self.server.path().trim_end_matches('/')));
            url.set_query(Some(query).filter(|query| !query.is_empty()));
            let mut sent = reqwest::Request::new(http::Method::GET, url);
            sent.headers_mut().insert(ACCEPT, HeaderValue::from_static(request.accept));
            *sent.timeout_mut() = Some(request.timeout);
            let response = self.client.execute(sent).await.map_err(|error| match error {
                HttpClientError::Invalid { .. } => TransportError::Settings(error.to_string()),
                error => TransportError::Connection(error.to_string()),
            })?;
            let status = response.status().as_u16();
            let body = response.bytes_stream();
            let body = body.map_err(|error| HttpClientError::from_reqwest(error).to_string());
            Ok(ApiResponse { status, body: Box::pin(body) })
        })
    }

    fn conceal(&self, said: String) -> BoxFuture<'_, String> {
        Box::pin(self.client.conceal(said))
    }

    fn server(&self) -> String {
        format!("the API server {}", redact_url(&self.server).trim_end_matches('/'))
    }
}
