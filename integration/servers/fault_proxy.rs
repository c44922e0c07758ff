//! A proxy on loopback before a real server. It passes everything on until it is told to fail, and then fails in one way
//! at a time: towards whoever asks, the server behind it is the one that misbehaves.
//!
//! It uses the standard library, rustls (for TLS) and socket2 (to reset connections) alone, so that any test can include
//! it by path.

#[path = "fault_proxy/http.rs"]
mod http;
#[path = "fault_proxy/raw.rs"]
mod raw;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a thread that waits looks whether it still has to.
const TICK: Duration = Duration::from_millis(10);

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing listens on the port.
    Refuse,
    /// Connections are accepted and never answered.
    Hang,
    /// The connection is reset (RST) in the middle of an answer.
    Reset,
    /// Answers come a byte at a time, with this pause after each.
    Drip(Duration),
    /// The connection is closed in good order in the middle of an answer.
    Truncate,
    /// Answers begin, and then nothing more is heard of the other side, not even that it is gone.
    HalfOpen,
    /// HTTP: more bytes are promised than come.
    TooLong,
    /// HTTP: fewer bytes are promised than come.
    TooShort,
    /// HTTP: the `Date` of answers is off by this many seconds; the rest is as it should be.
    SkewDate(i64),
    /// HTTP: every request gets this answer.
    Answer {
        /// The status.
        status: u16,
        /// Further headers.
        headers: Vec<(&'static str, &'static str)>,
        /// The body; without one there is no `Content-Length` either.
        body: &'static str,
    },
}

impl Fault {
    /// Every request gets this status, with a short text.
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: "injected" }
    }

    /// As [`Fault::status`], with a header.
    pub fn status_with(status: u16, name: &'static str, value: &'static str) -> Self {
        Self::Answer { status, headers: vec![(name, value)], body: "injected" }
    }

    /// Every request gets "not modified", whether it asked for that or not.
    pub fn not_modified() -> Self {
        Self::Answer { status: 304, headers: Vec::new(), body: "" }
    }

    /// Every request gets a page for people, as a login gateway sends it.
    pub fn page() -> Self {
        Self::Answer {
            status: 200,
            headers: vec![("content-type", "text/html; charset=utf-8")],
            body: "<!doctype html><html><body>please sign in</body></html>",
        }
    }
}

/// What the server behind speaks.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Anything else. What breaks in the middle of an answer breaks after this many bytes of a connection.
    Raw(usize),
}

/// What went through since the proxy was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// HTTP: requests that were read.
    pub requests: u64,
    /// Requests, or connections where there are no requests, that met a fault.
    pub faults: u64,
    /// Bytes from clients.
    pub from_clients: u64,
    /// Bytes to clients.
    pub to_clients: u64,
}

/// A running proxy; dropping it closes the port and every connection.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
}

struct Acceptor {
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    protocol: Protocol,
    state: Mutex<State>,
    connections: AtomicU64,
    requests: AtomicU64,
    faults: AtomicU64,
    from_clients: AtomicU64,
    to_clients: AtomicU64,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Counts up with every change of `fault`: what waits because of one ends with it.
    epoch: u64,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// The connections there are, to be cut.
    open: BTreeMap<u64, TcpStream>,
    next: u64,
}

impl FaultProxy {
    /// Passes connections to a free port of this host on to `upstream`.
    pub fn start(upstream: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        Self::start_at("127.0.0.1:0", upstream, protocol)
    }

    /// As [`FaultProxy::start`], at an address of the caller's choice: whoever limits what it does per host takes
    /// `127.0.0.2` for another one.
    pub fn start_at(address: &str, upstream: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let proxy = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                upstream,
                protocol,
                state: Mutex::default(),
                connections: AtomicU64::new(0),
                requests: AtomicU64::new(0),
                faults: AtomicU64::new(0),
                from_clients: AtomicU64::new(0),
                to_clients: AtomicU64::new(0),
            }),
            acceptor: Mutex::default(),
        };
        proxy.accept_from(listener);
        Ok(proxy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections are encrypted with this, or not encrypted. Those that are open are closed.
    pub fn set_tls(&self, tls: Option<Arc<rustls::ServerConfig>>) {
        self.shared.state().tls = tls;
        self.cut();
    }

    /// Fails like this from now on.
    pub fn fail(&self, fault: Fault) {
        let refuse = matches!(fault, Fault::Refuse);
        self.shared.set(Some(fault));
        if refuse {
            self.close();
            self.cut();
        }
    }

    /// Passes everything on again.
    ///
    /// # Errors
    /// The port was closed and somebody else has it now.
    pub fn heal(&self) -> io::Result<()> {
        self.shared.set(None);
        if self.acceptor().is_none() {
            self.accept_from(TcpListener::bind(self.address)?);
        }
        Ok(())
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        for stream in self.shared.state().open.values() {
            // Already gone is as good.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Counts {
            connections: read(&self.shared.connections),
            requests: read(&self.shared.requests),
            faults: read(&self.shared.faults),
            from_clients: read(&self.shared.from_clients),
            to_clients: read(&self.shared.to_clients),
        }
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<Acceptor>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept_from(&self, listener: TcpListener) {
        let closing = Arc::new(AtomicBool::new(false));
        let (closes, shared) = (Arc::clone(&closing), Arc::clone(&self.shared));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if closes.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                // That one side or the other goes away is what this is for.
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        *self.acceptor() = Some(Acceptor { closing, thread });
    }

    /// Closes the port.
    fn close(&self) {
        let Some(acceptor) = self.acceptor().take() else { return };
        acceptor.closing.store(true, Ordering::SeqCst);
        // Wakes the acceptor up.
        drop(TcpStream::connect(self.address));
        drop(acceptor.thread.join());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.set(None);
        self.close();
        self.cut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.epoch += 1;
    }

    /// The fault of now, and what it is recognized by.
    fn fault(&self) -> (Option<Fault>, u64) {
        let state = self.state();
        (state.fault.clone(), state.epoch)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true)?;
        let (number, tls) = {
            let mut state = self.state();
            let number = state.next;
            state.next += 1;
            state.open.insert(number, stream.try_clone()?);
            (number, state.tls.clone())
        };
        let socket = stream.try_clone()?;
        let served = match (self.protocol, tls) {
            (Protocol::Http, Some(config)) => {
                let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
                self.converse(rustls::StreamOwned::new(session, stream), &socket)
            }
            (Protocol::Http, None) => self.converse(stream, &socket),
            (Protocol::Raw(limit), _) => self.relay(stream, limit),
        };
        self.state().open.remove(&number);
        served
    }

    /// Waits, as long as the fault lasts and the other side is there; what that one sends is not looked at.
    fn hold(&self, socket: &TcpStream, epoch: u64) -> io::Result<()> {
        socket.set_read_timeout(Some(TICK))?;
        let mut scratch = [0; 4096];
        while self.state().epoch == epoch {
            match (&*socket).read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The connection ends with a reset once its last handle is dropped.
    fn reset(&self, socket: &TcpStream) -> io::Result<()> {
        socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))
    }
}
