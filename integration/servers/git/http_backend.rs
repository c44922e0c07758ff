//! A small HTTP server in front of the real `git http-backend`, for tests: repositories below one folder,
//! optional authentication and TLS, a log of requests, and faults on request.
//!
//! It uses the standard library (and rustls, for TLS) alone, so that any test can include it by path.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the server does instead of, or to, an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// Waits before it answers properly.
    Delay(Duration),
    /// Sends the proper head, the first bytes of the body, and then closes.
    Truncate(usize),
    /// Closes without an answer.
    Close,
    /// A page, as a login gateway would send it.
    Page,
    /// The protocol's own way to say no, to a `POST`.
    Refuse(&'static str),
}

/// Who may read.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who sends this `Authorization` header.
    Header(String),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Logged {
    /// `GET` or `POST`.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Git-Protocol` header.
    pub protocol: Option<String>,
    /// The body, uncompressed.
    pub body: Vec<u8>,
}

impl Logged {
    /// Whether this is a `POST` whose body says so.
    pub fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.body).contains(text)
    }
}

struct State {
    log: Vec<Logged>,
    faults: VecDeque<Fault>,
    /// What every request meets that no fault in the queue is for.
    outage: Option<Fault>,
    access: Access,
    /// Take the `Git-Protocol` header away, as old servers ignore it.
    old_protocol: bool,
}

struct Shared {
    root: PathBuf,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Mutex<State>,
    stopped: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server; dropping it closes the port.
pub struct HttpBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

/// Whether `git` and its `http-backend` are installed.
pub fn is_available() -> bool {
    let output = Command::new("git").arg("--exec-path").output();
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&path).join("git-http-backend").exists()
    })
}

impl HttpBackend {
    /// Serves the repositories below `root` on a free port of this host.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::listen(root, None, "127.0.0.1:0")
    }

    /// As [`HttpBackend::start`], with TLS.
    pub fn start_tls(root: &Path, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Self::listen(root, Some(tls), "127.0.0.1:0")
    }

    fn listen(root: &Path, tls: Option<Arc<rustls::ServerConfig>>, address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let state = State {
            log: Vec::new(),
            faults: VecDeque::new(),
            outage: None,
            access: Access::Open,
            old_protocol: false,
        };
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            tls,
            state: Mutex::new(state),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || drop(serve(&shared, stream)));
            }
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// The port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a repository below the root.
    pub fn url(&self, repository: &str) -> String {
        let (scheme, host) = match self.shared.tls {
            Some(_) => ("https", "localhost"),
            None => ("http", "127.0.0.1"),
        };
        format!("{scheme}://{host}:{}/{repository}", self.address.port())
    }

    /// All requests since the last call.
    pub fn take_log(&self) -> Vec<Logged> {
        std::mem::take(&mut self.shared.state().log)
    }

    /// The next requests meet these faults, one each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().faults.extend(faults);
    }

    /// Every request meets this from now on, or is answered properly again.
    pub fn set_outage(&self, outage: Option<Fault>) {
        self.shared.state().outage = outage;
    }

    /// Forgets faults that no request met.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// From now on only who is allowed may read.
    pub fn set_access(&self, access: Access) {
        self.shared.state().access = access;
    }

    /// From now on the server speaks version 0 of the protocol only.
    pub fn set_old_protocol(&self, old: bool) {
        self.shared.state().old_protocol = old;
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor up.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn serve(shared: &Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    match &shared.tls {
        Some(config) => {
            let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            converse(shared, rustls::StreamOwned::new(connection, stream))
        }
        None => converse(shared, stream),
    }
}

/// Answers requests on one connection until the other side has enough.
fn converse(shared: &Arc<Shared>, stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream)? {
        if shared.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (fault, access, old_protocol) = {
            let mut state = shared.state();
            state.log.push(request.logged.clone());
            let fault = state.faults.pop_front().or_else(|| state.outage.clone());
            (fault, state.access.clone(), state.old_protocol)
        };
        let allowed = match access {
            Access::Open => true,
            Access::Header(expected) => request.logged.authorization.as_ref() == Some(&expected),
        };
        let mut truncate = None;
        let mut answer = None;
        match fault {
            Some(Fault::Status(status, headers)) => {
                answer = Some((status, headers, b"injected".to_vec()));
            }
            Some(Fault::Page) => {
                let headers = vec![("content-type", "text/html".to_owned())];
                answer = Some((200, headers, b"<html>please sign in</html>".to_vec()));
            }
            Some(Fault::Refuse(reason)) => {
                let headers = vec![("content-type", "application/x-git-upload-pack-result".to_owned())];
                let line = format!("{:04x}ERR {reason}", reason.len() + 8);
                answer = Some((200, headers, line.into_bytes()));
            }
            Some(Fault::Delay(delay)) => std::thread::sleep(delay),
            Some(Fault::Truncate(length)) => truncate = Some(length),
            Some(Fault::Close) => return Ok(()),
            None => {}
        }
        if answer.is_none() && !allowed {
            let headers = vec![("www-authenticate", "Basic realm=\"test\"".to_owned())];
            answer = Some((401, headers, Vec::new()));
        }
        let (status, headers, body) = match answer {
            Some(answer) => answer,
            None => backend(shared, &request, old_protocol)?,
        };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let output = stream.get_mut();
        output.write_all(head.as_bytes())?;
        match truncate {
            Some(length) => {
                output.write_all(&body[..length.min(body.len())])?;
                return output.flush();
            }
            None => output.write_all(&body)?,
        }
        output.flush()?;
    }
    Ok(())
}

struct Request {
    logged: Logged,
    content_type: String,
}

fn read_request(stream: &mut impl io::BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, target) = (method.to_owned(), target.to_owned());
    let (mut authorization, mut protocol) = (None, None);
    let (mut content_type, mut length, mut chunked) = (String::new(), 0_usize, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value),
            "git-protocol" => protocol = Some(value),
            "content-type" => content_type = value,
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    } else {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    }
    Ok(Some(Request { logged: Logged { method, target, authorization, protocol, body }, content_type }))
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// Runs `git http-backend` as a web server would (RFC 3875).
fn backend(shared: &Shared, request: &Request, old_protocol: bool) -> io::Result<Answer> {
    let logged = &request.logged;
    let (path, query) = logged.target.split_once('?').unwrap_or((logged.target.as_str(), ""));
    let mut command = Command::new("git");
    command
        // Repositories of tests are made by whoever runs them; protocol extras are what hosts switch on.
        .args(["-c", "uploadpack.allowFilter=true", "-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("REQUEST_METHOD", &logged.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", &request.content_type)
        .env("CONTENT_LENGTH", logged.body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(protocol) = logged.protocol.as_ref().filter(|_| !old_protocol) {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| io::Error::other("no input"))?;
    let body = logged.body.clone();
    let writer = std::thread::spawn(move || drop(input.write_all(&body)));
    let output = child.wait_with_output()?;
    drop(writer.join());
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else { return Ok((500, Vec::new(), b"http-backend failed".to_vec())) };
    let mut status = 200;
    let mut headers = Vec::new();
    for line in BufReader::new(&output.stdout[..end]).lines() {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "status" => status = value.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500),
            "content-type" => headers.push(("content-type", value)),
            "cache-control" => headers.push(("cache-control", value)),
            _ => {}
        }
    }
    Ok((status, headers, output.stdout[end + 4..].to_vec()))
}
