//! Listening sockets: owned here, keyed by address, lent to states. The accept loop and the connections outlive loans.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_rustls::rustls::ServerConfig;

use crate::delivery::PrepareError;
use crate::node::NodeId;
use crate::{Request, Response};

/// What a component wants to listen on, and how.
#[derive(Clone)]
pub struct ListenRequest {
    /// `host:port`; an empty host means all addresses.
    pub address: String,
    /// TLS, or plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long reading one request may take.
    pub read_timeout: Option<Duration>,
    /// How long writing one response may take.
    pub write_timeout: Option<Duration>,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Option<Duration>,
    /// How many connections at a time; none means no limit of its own.
    pub connection_limit: Option<usize>,
    /// How large a request body may be, in bytes.
    pub body_limit: usize,
}

/// Names one bound socket.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct SocketId(pub(crate) u64);

/// Names one loan of a socket.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoanId {
    /// The socket.
    pub socket: SocketId,
    /// Unique among all loans.
    pub number: u64,
}

/// Where requests go: implemented by the engine.
pub trait Dispatcher: Send + Sync {
    /// The node whose state in the running generation holds a loan of `socket`, and which loan.
    fn bound(&self, socket: SocketId) -> Option<(NodeId, LoanId)>;

    /// Leases the running generation and hands the request to the node's slot. A node that is gone meanwhile answers
    /// under the generation it was parked with, else the answer is 503.
    fn dispatch(&self, node: NodeId, request: Request) -> BoxFuture<'static, Response>;
}

/// All listening sockets of the process that belong to components.
#[derive(Clone)]
pub struct ListenerRegistry {}

/// A borrowed socket. Dropping it gives the socket back; the last loan closes it.
pub struct ListenerLoan {
    id: LoanId,
    address: SocketAddr,
}

// === impl ListenerRegistry ===

impl ListenerRegistry {
    /// A registry without sockets.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Sets where requests go. Called once, by the engine.
    pub(crate) fn attach(&self, _dispatcher: Weak<dyn Dispatcher>) {}

    /// Borrows the socket of `request.address` for `node`: binds at once or fails.
    ///
    /// # Errors
    /// When the address cannot be resolved or bound.
    pub fn borrow(&self, request: ListenRequest, node: NodeId) -> Result<ListenerLoan, PrepareError> {
        Err(PrepareError::resource(format!("{node}: cannot listen on {}", request.address)))
    }

    /// Stops accepting, finishes the requests in flight until `deadline` has passed, then closes everything.
    pub async fn shutdown(&self, _deadline: Duration) {}
}

impl Default for ListenerRegistry {
    fn default() -> Self {
        Self::new()
    }
}

// === impl ListenerLoan ===

impl ListenerLoan {
    /// Names the loan.
    #[must_use]
    pub fn id(&self) -> LoanId {
        self.id
    }

    /// The address that is bound, its port resolved.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
