//! One bound socket: its loans, its accept loop and how many connections it has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::address::overlap;
use super::{ListenRequest, LoanId, Shared, SocketId, connection};
use crate::delivery::{PrepareError, PrepareErrorKind};

/// How many connections the kernel may hold for us.
const BACKLOG: u32 = 1024;
/// More connections than this are not accepted by any socket, whatever its configuration says.
const MAX_CONNECTIONS: usize = 16_384;
/// After a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Socket {
    id: SocketId,
    address: SocketAddr,
    loans: Mutex<Loans>,
    connections: AtomicUsize,
    /// Something that decides whether to accept has changed.
    changed: Notify,
    /// The last loan is back.
    closed: CancellationToken,
}

struct Loans {
    settings: HashMap<u64, Arc<ListenRequest>>,
    newest: u64,
}

/// One accepted connection in the socket's count.
pub(super) struct Counted(Arc<Socket>);

// === impl Socket ===

impl Socket {
    pub(super) fn new(id: SocketId, listener: &TcpListener) -> Result<Self, PrepareError> {
        Ok(Self {
            id,
            address: listener.local_addr()?,
            loans: Mutex::new(Loans { settings: HashMap::new(), newest: 0 }),
            connections: AtomicUsize::new(0),
            changed: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    pub(super) const fn id(&self) -> SocketId {
        self.id
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn lend(&self, number: u64, settings: Arc<ListenRequest>) {
        let mut loans = self.loans.lock();
        loans.settings.insert(number, settings);
        loans.newest = loans.newest.max(number);
        drop(loans);
        self.changed.notify_waiters();
    }

    /// Takes a loan back; whether it was the last.
    pub(super) fn give_back(&self, number: u64) -> bool {
        let mut loans = self.loans.lock();
        loans.settings.remove(&number);
        loans.newest = loans.settings.keys().copied().max().unwrap_or(0);
        let last = loans.settings.is_empty();
        drop(loans);
        self.changed.notify_waiters();
        last
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn is_closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn settings(&self, loan: LoanId) -> Option<Arc<ListenRequest>> {
        self.loans.lock().settings.get(&loan.number).cloned()
    }

    /// For connections that belong to no node of the running generation.
    pub(super) fn newest_settings(&self) -> Option<Arc<ListenRequest>> {
        let loans = self.loans.lock();
        loans.settings.get(&loans.newest).cloned()
    }

    fn count(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
    }
}

// === binding ===

/// Binds `address`. All our sockets set `SO_REUSEPORT`, so that a specific address and all addresses can be lent at one
/// port; that somebody else listens there already is found out first, because the kernel would let two agents share.
pub(super) fn bind(
    shown: &str,
    address: SocketAddr,
    own: &[SocketAddr],
) -> Result<TcpListener, PrepareError> {
    let exclusive = address.port() != 0 && !own.iter().any(|other| overlap(*other, address));
    let bound = match try_bind(address, exclusive) {
        // A host without IPv6: all addresses are then those of IPv4.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && !is_in_use(&error) => {
            try_bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), exclusive)
        }
        bound => bound,
    };
    bound.map_err(|error| refusal(shown, address, &error))
}

fn try_bind(address: SocketAddr, exclusive: bool) -> io::Result<TcpListener> {
    if exclusive {
        // Listening too, because some kernels notice a conflict only then.
        drop(open(address)?.listen(1)?);
    }
    let socket = open_shared(address)?;
    socket.listen(BACKLOG)
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted agent must not wait for its old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn open_shared(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn refusal(shown: &str, address: SocketAddr, error: &io::Error) -> PrepareError {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => PrepareError::resource(format!(
            "cannot listen on {shown}: the address is in use by another program"
        ))
        .with_help(format!("`ss -ltnp 'sport = :{port}'` shows which; stop it or choose another port")),
        io::ErrorKind::PermissionDenied => PrepareError::new(
            PrepareErrorKind::Resource,
            format!("cannot listen on {shown}: permission denied"),
        )
        .with_help(
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher port or grant it",
        ),
        io::ErrorKind::AddrNotAvailable => {
            PrepareError::resource(format!("cannot listen on {shown}: this host does not have that address"))
                .with_help("`ip address` lists its addresses; an empty host listens on all of them")
        }
        _ => PrepareError::new(PrepareErrorKind::Resource, format!("cannot listen on {shown}: {error}")),
    }
}

// === accepting ===

/// Accepts connections until the last loan is back.
pub(super) async fn accept(socket: Arc<Socket>, listener: TcpListener, registry: Weak<Shared>) {
    let Some(closing) = registry.upgrade().map(|registry| registry.closing.clone()) else { return };
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            () = socket.closed.cancelled() => break,
            () = below_limit(&socket, &registry) => {}
        }
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            () = socket.closed.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(registry) = registry.upgrade() else { break };
                let counted = socket.count();
                let serving =
                    connection::serve(Arc::clone(&socket), Arc::clone(&registry), stream, remote, counted);
                registry.tasks.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(address = %socket.address, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if let Some(registry) = registry.upgrade() {
        registry.forget_open(socket.id);
    }
}

/// Waits until there may be one more connection. The rest wait in the kernel's queue.
async fn below_limit(socket: &Arc<Socket>, registry: &Weak<Shared>) {
    loop {
        let changed = socket.changed.notified();
        let settings =
            registry.upgrade().and_then(|registry| registry.bound(socket)).map(|(_, _, settings)| settings);
        let settings = settings.or_else(|| socket.newest_settings());
        let limit = settings.and_then(|settings| settings.connection_limit).unwrap_or(MAX_CONNECTIONS);
        if socket.connections.load(Ordering::Relaxed) < limit.min(MAX_CONNECTIONS) {
            return;
        }
        // A swap changes the limit without telling us.
        drop(tokio::time::timeout(Duration::from_secs(1), changed).await);
    }
}
