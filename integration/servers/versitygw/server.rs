//! A real S3 server for tests: versitygw over a folder of its own, and a proxy before it that counts requests and answers
//! some of them itself, as the test says.
//!
//! It uses the standard library alone, so that any test can include it by path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[path = "../built.rs"]
mod built;

/// Below the folder of built servers.
const BINARY: &str = "versitygw-1.8.0/versitygw";

/// The key's id of every server.
pub const ACCESS_KEY: &str = "AKIDTEST";
/// The key, a marker that is found nowhere but in requests' signatures.
pub const SECRET_KEY: &str = "hunter2-secret-key";

/// A running server.
pub struct Versitygw {
    child: Child,
    address: SocketAddr,
}

/// Certificate and key of a server that encrypts, as files.
pub struct Certificate<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
}

impl Versitygw {
    /// The binary, if it is built.
    pub fn binary() -> Option<PathBuf> {
        Some(built::built_servers().join(BINARY)).filter(|binary| binary.is_file())
    }

    /// Whether there is one to start. Says so on stderr where there is not; where servers are required, that is an error.
    pub fn is_available() -> bool {
        built::is_built("versitygw", BINARY)
    }

    /// Starts one with its data below `folder`; `None`, with a note, where there is none to start.
    pub fn start(folder: &Path, certificate: Option<&Certificate<'_>>) -> Option<Self> {
        if !Self::is_available() {
            return None;
        }
        let binary = Self::binary()?;
        let (data, versions) = (folder.join("data"), folder.join("versions"));
        for directory in [&data, &versions] {
            std::fs::create_dir_all(directory).expect("a folder of the test can be made");
        }
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            let probe = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
            let address = probe.local_addr().expect("a bound socket has an address");
            drop(probe);
            let log = File::create(folder.join("versitygw.log")).expect("a file of the test can be made");
            let mut command = Command::new(&binary);
            command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet", "--keep-alive"]);
            command.arg("--port").arg(address.to_string());
            if let Some(Certificate { certificate, key }) = certificate {
                command.arg("--cert").arg(certificate).arg("--key").arg(key);
            }
            command.arg("posix").arg("--versioning-dir").arg(&versions).arg(&data);
            let child = command
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file can be shared"))
                .stderr(log)
                .spawn()
                .expect("versitygw can be started");
            let mut server = Self { child, address };
            if server.is_ready() {
                return Some(server);
            }
        }
        panic!("versitygw does not start: see {}", folder.join("versitygw.log").display());
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn is_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request that reached the proxy.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// Names in lowercase letters.
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    pub fn is_listing(&self) -> bool {
        self.target.contains("list-type=2")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the proxy does instead of passing a request on.
#[derive(Clone, Debug)]
pub enum Instead {
    /// Answers itself.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// Passes the request on, and ends the connection after so many bytes of the answer.
    Truncate(usize),
    /// Passes the request on, and changes a text in the answer for another of the same length.
    Replace(String, String),
    /// Ends the connection.
    Close,
    /// Keeps the connection and says nothing until the proxy ends.
    Hang,
}

impl Instead {
    /// An answer as S3 refuses.
    pub fn error(status: u16, code: &str) -> Self {
        let body =
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as told</Message></Error>");
        Self::Answer {
            status,
            headers: vec![("content-type".to_owned(), "application/xml".to_owned())],
            body,
        }
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

type Script = Box<dyn FnMut(&Asked) -> Option<Instead> + Send>;

/// Passes requests on to a server, except for those the script answers.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    asked: Mutex<Vec<Asked>>,
    script: Mutex<Option<Script>>,
    ended: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultProxy {
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            asked: Mutex::default(),
            script: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&serving)) else { continue };
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Ok(Self { address, shared })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests since the last time this was asked.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.shared.asked))
    }

    /// From now on each request is first shown to `script`.
    pub fn script(&self, script: impl FnMut(&Asked) -> Option<Instead> + Send + 'static) {
        *lock(&self.shared.script) = Some(Box::new(script));
    }

    /// From now on all requests are passed on.
    pub fn behave(&self) {
        *lock(&self.shared.script) = None;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0_u8; 1];
        // Reads carry no body; the head is all there is.
        while !head.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut words = text.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
        let asked = Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        };
        lock(&self.asked).push(asked.clone());
        // Scripts count, hence one request at a time.
        let instead = lock(&self.script).as_mut().and_then(|script| script(&asked));
        match instead {
            Some(Instead::Answer { status, headers, body }) => {
                let mut answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
                for (name, value) in headers {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                // These have no body by definition.
                let body = if status == 304 { "" } else { body.as_str() };
                answer.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
                client.write_all(answer.as_bytes())
            }
            Some(Instead::Close) => Ok(()),
            Some(Instead::Hang) => {
                while !self.ended.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
            Some(Instead::Truncate(most)) => {
                let answer = self.pass_on(&text)?;
                client.write_all(&answer[..most.min(answer.len())])
            }
            Some(Instead::Replace(from, to)) => {
                let answer = String::from_utf8_lossy(&self.pass_on(&text)?).replace(&from, &to);
                client.write_all(answer.as_bytes())
            }
            None => client.write_all(&self.pass_on(&text)?),
        }
    }

    fn pass_on(&self, head: &str) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(self.upstream)?;
        let head = head.trim_end_matches("\r\n");
        server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }
}
