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
            #[cfg(test)]
            aws_environment: None,
        })
    }

    /// A variable of the environment; nothing where it is empty.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The time of day.
    pub(crate) fn now(&self) -> SystemTime {
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
        let client = if is_near(request.url()) { &self.direct } else { &self.proxied };
        let exchange = async {
            let mut response = client.execute(request).await.map_err(no_answer)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
                if body.len() + chunk.len() > MAX_ANSWER {
                    return Err(NoAnswer::Failed("the answer is larger than 1 MiB".to_owned()));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer {
                status: response.status(),
                headers: std::mem::take(response.headers_mut()),
                body: body.into(),
            })
        };
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
            Self::Failed(message) => f.write_str(message),
        }
    }
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
