//! What carries requests to a server: the seam between what is asked here and who opens connections.

use std::fmt;
use std::time::Duration;

use invar_syntax::Secret;
use zeroize::Zeroizing;

use crate::store::BoxFuture;

/// How something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultMethod {
    /// A read.
    Get,
    /// A write.
    Post,
}

/// A request to the API.
#[derive(Clone)]
pub struct VaultRequest {
    /// How.
    pub method: VaultMethod,
    /// The path below `/v1/`, not yet encoded.
    pub path: String,
    /// The query.
    pub query: Vec<(String, String)>,
    /// The namespace; empty for none.
    pub namespace: String,
    /// The token.
    pub token: Option<Secret>,
    /// How new the state must be that answers: what an earlier answer said of its own.
    pub index: Option<String>,
    /// The body, in JSON.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// For all of it, the body of the answer included.
    pub timeout: Duration,
}

/// An answer of any status.
pub struct VaultResponse {
    /// The status code.
    pub status: u16,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// How new the state was that answered.
    pub index: Option<String>,
    /// The body. It may hold secrets.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultTransportError {
    /// The settings of the connection cannot work as they are.
    #[error("{0}")]
    Settings(String),
    /// No connection, or it broke off. Another time it may work.
    #[error("{0}")]
    Connection(String),
}

/// Carries requests to one server, each once: who asks decides whether to ask again.
pub trait VaultTransport: Send + Sync + 'static {
    /// Sends the request; the answer may have any status.
    ///
    /// # Errors
    /// [`VaultTransportError`], when there is no answer.
    fn send<'a>(
        &'a self,
        request: &'a VaultRequest,
    ) -> BoxFuture<'a, Result<VaultResponse, VaultTransportError>>;

    /// The server as messages name it.
    fn server(&self) -> String;
}

impl VaultRequest {
    /// A read without a token.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: VaultMethod::Get,
            path: path.into(),
            query: Vec::new(),
            namespace: String::new(),
            token: None,
            index: None,
            body: None,
            timeout: Duration::from_secs(30),
        }
    }

    /// A write without a token.
    pub(crate) fn post(path: impl Into<String>, body: Zeroizing<Vec<u8>>) -> Self {
        Self { method: VaultMethod::Post, body: Some(body), ..Self::get(path) }
    }
}

impl fmt::Debug for VaultRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultRequest({:?} {})", self.method, self.path)
    }
}

impl fmt::Debug for VaultResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultResponse({})", self.status)
    }
}
