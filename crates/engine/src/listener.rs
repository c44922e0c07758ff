//! Listening sockets: owned here, keyed by address, lent to states. The accept loop and the connections outlive loans, so a
//! component that is swapped, replaced or rolled back never refuses a connection.

mod address;
mod connection;
mod io;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use invar_tls::ServerTls;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::address::{Key, resolve};
use self::socket::Socket;
use crate::delivery::PrepareError;
use crate::node::NodeId;
use crate::{Request, Response};

/// What a component wants to listen on, and how.
#[derive(Clone)]
pub struct ListenRequest {
    /// `host:port`; an empty host means all addresses, port 0 one that is free.
    pub address: String,
    /// TLS, or plain text. Connections that were accepted under another one are closed after their next request;
    /// those that were accepted with other content of its files are not.
    pub tls: Option<Arc<ServerTls>>,
    /// HTTP/2, over TLS where a client chooses it there and in plain text where a client begins with it; nothing for
    /// HTTP/1.1 alone.
    pub http2: Option<Http2>,
    /// How long reading one request may take.
    pub read_timeout: Option<Duration>,
    /// How long writing may make no progress.
    pub write_timeout: Option<Duration>,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Option<Duration>,
    /// How many connections at a time; none means no limit of its own.
    pub connection_limit: Option<usize>,
    /// How large a request body may be, in bytes.
    pub body_limit: usize,
}

/// How HTTP/2 is spoken. What is not set has the usual value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2 {
    /// How many requests a connection may have in flight.
    pub concurrent_streams: Option<u32>,
    /// The largest frame that a client may send, bytes: 16384 to 16777215.
    pub frame_bytes: Option<u32>,
    /// How much a client may send ahead on all streams together, bytes.
    pub connection_window_bytes: Option<u32>,
    /// How much a client may send ahead on one stream, bytes.
    pub stream_window_bytes: Option<u32>,
    /// After how long without a frame a client is asked whether it is still there.
    pub ping_after: Option<Duration>,
    /// How long its answer may take.
    pub ping_timeout: Option<Duration>,
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

/// The client's address, found in a request's extensions.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RemoteAddress(pub SocketAddr);

/// Where requests go: implemented by the engine.
pub trait Dispatcher: Send + Sync {
    /// The node whose state in the running generation holds a loan of `socket`, and which loan.
    fn bound(&self, socket: SocketId) -> Option<(NodeId, LoanId)>;

    /// Leases the running generation and hands the request to the node's slot. A node that is gone meanwhile answers
    /// under the generation it was parked with, else the answer is 503.
    fn dispatch(&self, node: NodeId, request: Request) -> BoxFuture<'static, Response>;
}

/// All listening sockets of the process that belong to components. Clones share it.
#[derive(Clone)]
pub struct ListenerRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    dispatcher: OnceLock<Weak<dyn Dispatcher>>,
    sockets: Mutex<Sockets>,
    numbers: AtomicU64,
    /// Accept loops and connections.
    tasks: TaskTracker,
    /// Stop accepting, finish what is in flight.
    closing: CancellationToken,
    /// Drop everything.
    closed: CancellationToken,
}

#[derive(Default)]
struct Sockets {
    lent: Vec<(Key, Arc<Socket>)>,
    /// Addresses whose sockets are not closed yet: those of `lent` and those whose accept loop is about to end.
    open: Vec<(SocketId, SocketAddr)>,
}

/// A borrowed socket. Dropping it gives the socket back; the last loan closes it.
pub struct ListenerLoan {
    id: LoanId,
    socket: Arc<Socket>,
    registry: Arc<Shared>,
}

// === impl ListenerRegistry ===

impl ListenerRegistry {
    /// A registry without sockets.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                dispatcher: OnceLock::new(),
                sockets: Mutex::new(Sockets::default()),
                numbers: AtomicU64::new(1),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
                closed: CancellationToken::new(),
            }),
        }
    }

    /// Sets where requests go. Called once, by the engine; until then every answer is 503.
    pub(crate) fn attach(&self, dispatcher: Weak<dyn Dispatcher>) {
        if self.shared.dispatcher.set(dispatcher).is_err() {
            tracing::error!("a second engine tried to take over the listening sockets of the first");
        }
    }

    /// Borrows the socket of `request.address` for `node`: binds at once or fails. Must be called within a Tokio runtime.
    ///
    /// A socket that is lent already is lent again, to the same node or to another: which of them gets the requests is
    /// decided by the running generation.
    ///
    /// # Errors
    /// When the address cannot be resolved or bound.
    pub fn borrow(&self, request: ListenRequest, node: NodeId) -> Result<ListenerLoan, PrepareError> {
        let address = resolve(&request.address)?;
        let key = Key::new(address, &node);
        let shared = &self.shared;
        if shared.closing.is_cancelled() {
            return Err(PrepareError::resource(format!(
                "cannot listen on {}: the agent is stopping",
                request.address
            )));
        }
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        let mut sockets = shared.sockets.lock();
        // A free port that one node got is a fixed one for whoever names it.
        let same = |candidate: &Key, socket: &Socket| *candidate == key || socket.address() == address;
        let lent = sockets.lent.iter().find(|(candidate, socket)| same(candidate, socket));
        let lent = lent.map(|(_, socket)| Arc::clone(socket));
        let socket = match lent {
            Some(socket) => socket,
            None => {
                let own: Vec<SocketAddr> = sockets.open.iter().map(|(_, address)| *address).collect();
                let listener = socket::bind(&request.address, address, &own)?;
                let id = SocketId(shared.numbers.fetch_add(1, Ordering::Relaxed));
                let socket = Arc::new(Socket::new(id, &listener)?);
                sockets.lent.push((key, Arc::clone(&socket)));
                sockets.open.push((id, socket.address()));
                shared.tasks.spawn(socket::accept(Arc::clone(&socket), listener, Arc::downgrade(shared)));
                tracing::debug!(address = %socket.address(), %node, "listening");
                socket
            }
        };
        socket.lend(number, Arc::new(request));
        let id = LoanId { socket: socket.id(), number };
        Ok(ListenerLoan { id, socket, registry: Arc::clone(shared) })
    }

    /// The addresses that are bound.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.sockets.lock().lent.iter().map(|(_, socket)| socket.address()).collect()
    }

    /// Stops accepting, finishes the requests in flight until `deadline` has passed, then closes everything.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(deadline, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = self.shared.tasks.len(),
                "closing connections with requests in flight"
            );
        }
        self.shared.closed.cancel();
        self.shared.tasks.wait().await;
    }
}

impl Default for ListenerRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ListenerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerRegistry").field("addresses", &self.addresses()).finish()
    }
}

// === impl Shared ===

impl Shared {
    /// Which node answers requests that arrive on `socket`, and under which loan. A specific address that nobody owns now
    /// is served by whoever owns all addresses at that port.
    fn bound(&self, socket: &Socket) -> Option<(Arc<dyn Dispatcher>, NodeId, Arc<ListenRequest>)> {
        let dispatcher = self.dispatcher.get()?.upgrade()?;
        if let Some((node, loan)) = dispatcher.bound(socket.id())
            && let Some(settings) = socket.settings(loan)
        {
            return Some((dispatcher, node, settings));
        }
        let wildcards: Vec<Arc<Socket>> = {
            let sockets = self.sockets.lock();
            let covers = |other: &Socket| {
                other.id() != socket.id() && address::covers(other.address(), socket.address())
            };
            sockets.lent.iter().map(|(_, other)| other).filter(|other| covers(other)).cloned().collect()
        };
        wildcards.into_iter().find_map(|wildcard| {
            let (node, loan) = dispatcher.bound(wildcard.id())?;
            Some((Arc::clone(&dispatcher), node, wildcard.settings(loan)?))
        })
    }

    fn forget_open(&self, id: SocketId) {
        self.sockets.lock().open.retain(|(open, _)| *open != id);
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
        self.socket.address()
    }
}

impl Drop for ListenerLoan {
    fn drop(&mut self) {
        // The registry's lock first, so that nobody borrows a socket that is just being given up.
        let mut sockets = self.registry.sockets.lock();
        if self.socket.give_back(self.id.number) {
            sockets.lent.retain(|(_, socket)| socket.id() != self.socket.id());
            self.socket.close();
        }
    }
}

impl fmt::Debug for ListenerLoan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerLoan").field("id", &self.id).field("address", &self.address()).finish()
    }
}
