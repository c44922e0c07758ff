//! A small HTTP server that answers as a test tells it to, for what real servers cannot be made to do: wrong lengths,
//! answers that come drop by drop, streams of events, redirects in circles.
//!
//! It uses the standard library (and rustls, for TLS) alone, so that any test can include it by path.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD` or `POST`.
    pub method: String,
    /// The path with its query.
    pub target: String,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What the server answers.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    manner: Manner,
}

enum Manner {
    Whole,
    /// Says how long the body is and closes after this many bytes.
    Cut(usize),
    /// Sends a byte, then waits, then the next.
    Drip(Duration),
    /// Sends nothing until the server stops.
    Hang,
    /// Closes without an answer.
    Close,
    /// Waits for this long first.
    Late(Duration),
    /// Sends what comes out of the channel until its other end is gone.
    Stream(Receiver<Vec<u8>>),
}

impl Reply {
    /// A body with status 200.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), manner: Manner::Whole }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self::of(status, "")
    }

    /// A status with a body.
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, ..Self::ok(body) }
    }

    /// A redirect.
    pub fn redirect(status: u16, to: impl Into<String>) -> Self {
        Self::status(status).with("location", to)
    }

    /// Closes the connection instead of answering.
    pub fn close() -> Self {
        Self::ok("").in_manner(Manner::Close)
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self::ok("").in_manner(Manner::Hang)
    }

    /// A stream of what comes out of `channel`.
    pub fn stream(channel: Receiver<Vec<u8>>) -> Self {
        Self::ok("").in_manner(Manner::Stream(channel))
    }

    /// With a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Closes after `length` bytes of the body.
    pub fn cut(self, length: usize) -> Self {
        self.in_manner(Manner::Cut(length))
    }

    /// Waits before each byte of the body.
    pub fn drip(self, pause: Duration) -> Self {
        self.in_manner(Manner::Drip(pause))
    }

    /// Waits before it answers.
    pub fn late(self, pause: Duration) -> Self {
        self.in_manner(Manner::Late(pause))
    }

    fn in_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }
}

type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    script: Mutex<Arc<Script>>,
    log: Mutex<Vec<Request>>,
    body_bytes: AtomicUsize,
    connections: AtomicUsize,
    tls: Option<Arc<rustls::ServerConfig>>,
    stopped: AtomicBool,
}

/// A running server; dropping it closes the port.
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// Answers on a free port of this host.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Box::new(script), None)
    }

    /// As [`Scripted::start`], with TLS.
    pub fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Box::new(script), Some(tls))
    }

    fn listen(script: Script, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("this host has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            log: Mutex::default(),
            body_bytes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            tls,
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || drop(serve(&shared, stream)));
            }
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// `127.0.0.1` and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of something on this server.
    pub fn url(&self, path: &str) -> String {
        let (scheme, host) =
            if self.shared.tls.is_some() { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// From now on it answers like this.
    pub fn set(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *locked(&self.shared.script) = Arc::new(Box::new(script));
    }

    /// All requests since the last call.
    pub fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut *locked(&self.shared.log))
    }

    /// How many bytes of bodies were sent.
    pub fn body_bytes(&self) -> usize {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }

    /// How many connections came in.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor up.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    match &shared.tls {
        Some(config) => {
            let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            converse(shared, rustls::StreamOwned::new(connection, stream))
        }
        None => converse(shared, stream),
    }
}

fn converse(shared: &Shared, stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        if shared.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        locked(&shared.log).push(request.clone());
        let script = Arc::clone(&locked(&shared.script));
        let reply = script(&request);
        let output = stream.get_mut();
        match reply.manner {
            Manner::Close => return Ok(()),
            Manner::Hang => {
                while !shared.stopped.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(());
            }
            Manner::Late(pause) => std::thread::sleep(pause),
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        let named = |name: &str| reply.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let streamed = matches!(reply.manner, Manner::Stream(_));
        if streamed {
            head.push_str("connection: close\r\n");
        } else if !named("content-length") && !matches!(reply.status, 204 | 304) {
            head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
        }
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        output.write_all(head.as_bytes())?;
        let count = |bytes: usize| shared.body_bytes.fetch_add(bytes, Ordering::SeqCst);
        match reply.manner {
            Manner::Stream(channel) => {
                output.flush()?;
                while let Ok(piece) = channel.recv() {
                    output.write_all(&piece)?;
                    output.flush()?;
                }
                return Ok(());
            }
            Manner::Cut(length) => {
                output.write_all(&reply.body[..length.min(reply.body.len())])?;
                return output.flush();
            }
            Manner::Drip(pause) => {
                for byte in reply.body {
                    output.write_all(&[byte])?;
                    output.flush()?;
                    count(1);
                    std::thread::sleep(pause);
                }
            }
            _ if request.method == "HEAD" => output.flush()?,
            _ => {
                output.write_all(&reply.body)?;
                output.flush()?;
                count(reply.body.len());
            }
        }
    }
    Ok(())
}

fn read_request(stream: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}
