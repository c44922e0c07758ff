//! Lets the libraries of AWS speak through our own client, so that the process has one HTTP client and one TLS.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use std::time::Duration;
use url::Url;

use crate::surroundings::{NoAnswer, Surroundings, read_answer};

/// A connector over one of our clients.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: Client,
    timeout: Option<Duration>,
}

/// Whose connections are used.
#[derive(Clone, Debug)]
enum Client {
    /// Those to the endpoints that hand out credentials.
    Surroundings(Surroundings),
    /// Those of whoever talks to a service of AWS.
    Given { client: reqwest::Client, largest_answer: usize, idle: Duration },
}

/// A client for the libraries of AWS that sends over `client`. An answer with a body of more than `largest_answer` bytes
/// is an error whose source is [`AnswerTooLong`]; so is a transfer without a byte for the time `idle`.
#[must_use]
pub fn sdk_http_client(
    client: reqwest::Client,
    largest_answer: usize,
    idle: Duration,
) -> impl HttpClient + 'static {
    Connector { client: Client::Given { client, largest_answer, idle }, timeout: None }
}

/// An answer was longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is longer than {largest} bytes")]
pub struct AnswerTooLong {
    /// What is allowed, in bytes.
    pub largest: usize,
}

impl Connector {
    pub(super) fn new(surroundings: Surroundings) -> Self {
        Self { client: Client::Surroundings(surroundings), timeout: None }
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeout =
            settings.read_timeout().map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Self { client: self.client.clone(), timeout })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { client, timeout } = self.clone();
        HttpConnectorFuture::new(async move {
            let request = translate(&request)?;
            let answer = match client {
                Client::Surroundings(surroundings) => surroundings.send(request, timeout).await,
                Client::Given { client, largest_answer, idle } => {
                    read_answer(&client, request, largest_answer, idle).await
                }
            };
            let answer = answer.map_err(|error| match error {
                NoAnswer::Timeout => ConnectorError::timeout(error.to_string().into()),
                NoAnswer::TooLong { largest } => ConnectorError::user(AnswerTooLong { largest }.into()),
                NoAnswer::Failed(message) => ConnectorError::io(message.into()),
            })?;
            let mut response = HttpResponse::new(answer.status.into(), SdkBody::from(answer.body));
            for (name, value) in &answer.headers {
                if let Ok(value) = value.to_str() {
                    response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
                }
            }
            Ok(response)
        })
    }
}

fn translate(request: &HttpRequest) -> Result<reqwest::Request, ConnectorError> {
    let wrong = |what: &str| ConnectorError::user(format!("the request's {what} cannot be sent").into());
    let method = Method::from_bytes(request.method().as_bytes()).map_err(|_| wrong("method"))?;
    let url = Url::parse(request.uri()).map_err(|_| wrong("address"))?;
    let body = request.body().bytes().ok_or_else(|| wrong("body"))?;
    let mut translated = reqwest::Request::new(method, url);
    if !body.is_empty() {
        *translated.body_mut() = Some(Bytes::copy_from_slice(body).into());
    }
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong("header"))?;
        translated.headers_mut().append(name, value);
    }
    Ok(translated)
}
