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

use crate::surroundings::{NoAnswer, Surroundings};

/// A connector over the client of the surroundings.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    surroundings: Surroundings,
    timeout: Option<Duration>,
}

impl Connector {
    pub(super) fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, timeout: None }
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
        SharedHttpConnector::new(Self { surroundings: self.surroundings.clone(), timeout })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (surroundings, timeout) = (self.surroundings.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let request = translate(&request)?;
            let answer = surroundings.send(request, timeout).await.map_err(|error| match error {
                NoAnswer::Timeout => ConnectorError::timeout(error.to_string().into()),
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
