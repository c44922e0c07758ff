//! What carries requests to an API server: the seam between what is asked here and who opens connections.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use crate::store::BoxFuture;

/// A `GET` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// The path and the query, from the root of the API server.
    pub path_and_query: String,
    /// The `Accept` header.
    pub accept: &'static str,
    /// For all of it, the body included.
    pub timeout: Duration,
}

/// The body of an answer, in parts. An item that is an error is a sentence, without secrets.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// An answer of any status.
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: BodyStream,
}

/// Why there is no answer. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The settings of the connection cannot work as they are.
    #[error("{0}")]
    Settings(String),
    /// No connection, or it broke off. Another time it may work.
    #[error("{0}")]
    Connection(String),
}

/// Carries requests to one API server.
pub trait ApiTransport: Send + Sync + 'static {
    /// Sends the request; the answer may have any status.
    ///
    /// # Errors
    /// [`TransportError`], when there is no answer.
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>>;

    /// What the server said, without the credentials that it was shown: some servers quote them.
    fn conceal(&self, said: String) -> BoxFuture<'_, String> {
        Box::pin(std::future::ready(said))
    }

    /// The server as messages name it.
    fn server(&self) -> String;
}
