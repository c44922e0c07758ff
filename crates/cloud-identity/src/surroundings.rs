//! What an identity sees of the process and the world: environment variables, the time of day, and the endpoints that
//! hand out credentials. One place, so that a test can have its own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use invar_tls::{ClientSettings, Origins};
use url::Url;

use crate::IdentityError;

/// Name resolution, connecting and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One exchange with an endpoint that hands out credentials.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Where Google's metadata is served, reached directly like the addresses of the link.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "localhost"];

type Environment = dyn Fn(&str) -> Option<String> + Send + Sync;
type Clock = dyn Fn() -> SystemTime + Send + Sync;

/// The surroundings. Cloning shares them.
#[derive(Clone)]
pub struct Surroundings {
    environment: Arc<Environment>,
    clock: Arc<Clock>,
    /// Through the proxies that the environment names.
    proxied: reqwest::Client,
    /// For what is on this machine or its link.
    direct: reqwest::Client,
    /// Whether `direct` can encrypt.
    direct_tls: bool,
    /// What the libraries of AWS are to take for the environment.
    #[cfg(test)]
    pub(crate) aws_environment: Option<aws_types::os_shim_internal::Env>,
}

/// An answer of an endpoint.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    Timeout,
    TooLong { largest: usize },
    Failed(String),
}

impl Surroundings {
    /// Those of the process. Trusts the system's certificates and uses the proxies that `HTTP_PROXY`, `HTTPS_PROXY` and
    /// `NO_PROXY` name, as the clouds' own libraries do.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn of_process(user_agent: &str) -> Result<Self, IdentityError> {
        Self::new(
            user_agent,
            |name| std::env::var(name).ok().filter(|value| !value.is_empty()),
            SystemTime::now,
        )
        .await
    }

    /// Surroundings with this environment and this clock.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn new(
        user_agent: &str,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, IdentityError> {
        let failed = |message: String| IdentityError::Client { message };
        let material = Origins::default().read().await.map_err(|error| failed(error.to_string()))?;
        // The system's certificates are read from files.
        let config = tokio::task::spawn_blocking(move || ClientSettings::default().config(&material));
        let config = config
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(config.clone())
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(user_agent)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(1)
                .http1_only()
        };
        let build =
            |builder: reqwest::ClientBuilder| builder.build().map_err(|error| failed(error.to_string()));
        Ok(Self {
            environment: Arc::new(environment),
            clock: Arc::new(clock),
            proxied: build(builder())?,
            direct: build(builder().no_proxy())?,
            direct_tls: true,
            #[cfg(test)]
            aws_environment: None,
        })
    }

    /// Those of the process, but with a client that is there already, and its authorities and proxy, for all endpoints
    /// but those on the link, which are reached directly.
    ///
    /// # Errors
    /// When no client for those on the link can be made.
    pub fn over(
        client: reqwest::Client,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, IdentityError> {
        let failed = |message: String| IdentityError::Client { message };
        // They speak plain HTTP, and reading the system's certificates takes a while.
        let config = ClientSettings::plain_text_only().map_err(|error| failed(error.to_string()))?;
        let direct = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(1)
            .http1_only()
            .no_proxy()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            environment: Arc::new(|name| std::env::var(name).ok()),
            clock: Arc::new(clock),
            proxied: client,
            direct,
            direct_tls: false,
            #[cfg(test)]
            aws_environment: None,
        })
    }

    /// The same with another client in place of the one that goes through proxies.
    #[must_use]
    pub fn with_client(mut self, client: reqwest::Client) -> Self {
        self.proxied = client;
        self
    }

    /// The region that the environment names.
    #[must_use]
    pub fn aws_region(&self) -> Option<String> {
        self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"))
    }

    /// A variable of the environment; nothing where it is empty.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Sends a request, for at most `timeout` or ten seconds.
    pub(crate) async fn send(
        &self,
        mut request: reqwest::Request,
        timeout: Option<Duration>,
    ) -> Result<Answer, NoAnswer> {
        let timeout = timeout.unwrap_or(EXCHANGE_TIMEOUT).min(EXCHANGE_TIMEOUT);
        *request.timeout_mut() = Some(timeout);
        // What is near is spoken to without encryption, all but what somebody put on this host.
        let near = is_near(request.url()) && (self.direct_tls || request.url().scheme() == "http");
        let client = if near { &self.direct } else { &self.proxied };
        let exchange = read_answer(client, request, MAX_ANSWER, timeout);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(NoAnswer::Timeout))
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLong { largest } => write!(f, "the answer is larger than {largest} bytes"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

/// Sends a request and reads the answer, of which `largest` bytes are allowed. Nothing may come for at most `idle`.
pub(crate) async fn read_answer(
    client: &reqwest::Client,
    request: reqwest::Request,
    largest: usize,
    idle: Duration,
) -> Result<Answer, NoAnswer> {
    let too_late = |_| NoAnswer::Timeout;
    let sent = tokio::time::timeout(idle, client.execute(request)).await.map_err(too_late)?;
    let mut response = sent.map_err(no_answer)?;
    let mut body = Vec::new();
    if response.content_length().is_some_and(|length| length > largest as u64) {
        return Err(NoAnswer::TooLong { largest });
    }
    while let Some(chunk) =
        tokio::time::timeout(idle, response.chunk()).await.map_err(too_late)?.map_err(no_answer)?
    {
        if body.len() + chunk.len() > largest {
            return Err(NoAnswer::TooLong { largest });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body: body.into(),
    })
}

/// A header value that is never shown.
pub(crate) fn sensitive(text: &str) -> Result<HeaderValue, IdentityError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| IdentityError::Unsignable {
        message: "the credentials hold characters that a header cannot carry".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        // The metadata services of AWS have an address of their own in the unique local range.
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unique_local()
        }
        Err(_) => METADATA_NAMES.contains(&host),
    }
}

fn no_answer(error: reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        return NoAnswer::Timeout;
    }
    let error = error.without_url();
    let mut message = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(current) = cause {
        let text = current.to_string();
        if !message.contains(&text) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&text);
        }
        cause = current.source();
    }
    NoAnswer::Failed(if message.is_empty() { error.to_string() } else { message })
}
