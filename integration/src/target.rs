//! A page to scrape: its text, content type and delay can be changed while it is scraped.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;

use crate::{Outcome, serve};

struct Page {
    text: Vec<u8>,
    content_type: String,
    status: StatusCode,
    delay: Duration,
    scrapes: u64,
    /// Counts up by one a scrape, as `NAME`: numbered samples in which a loss shows.
    numbered: Option<String>,
}

/// A target that serves `/metrics`, on a thread of its own for as long as the process lives.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    page: Arc<Mutex<Page>>,
}

impl Target {
    /// Serves this text as Prometheus text 0.0.4.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(text: impl Into<Vec<u8>>) -> Outcome<Self> {
        let page = Arc::new(Mutex::new(Page {
            text: text.into(),
            content_type: "text/plain; version=0.0.4; charset=utf-8".to_owned(),
            status: StatusCode::OK,
            delay: Duration::ZERO,
            scrapes: 0,
            numbered: None,
        }));
        let router = Router::new().route("/metrics", get(show)).with_state(Arc::clone(&page));
        Ok(Self { address: serve(router)?, page })
    }

    /// `HOST:PORT`, as `__address__` has it.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Shows another text from now on.
    pub fn show(&self, text: impl Into<Vec<u8>>) {
        self.page.lock().text = text.into();
    }

    /// Claims another content type from now on.
    pub fn content_type(&self, content_type: &str) {
        content_type.clone_into(&mut self.page.lock().content_type);
    }

    /// Answers with this status from now on.
    pub fn status(&self, status: u16) {
        self.page.lock().status = StatusCode::from_u16(status).expect("tests name valid codes");
    }

    /// Waits this long before every answer.
    pub fn delay(&self, delay: Duration) {
        self.page.lock().delay = delay;
    }

    /// Adds a counter of this name that goes up by one with every scrape.
    pub fn number(&self, name: &str) {
        self.page.lock().numbered = Some(name.to_owned());
    }

    /// How often it was scraped.
    #[must_use]
    pub fn scrapes(&self) -> u64 {
        self.page.lock().scrapes
    }
}

async fn show(State(page): State<Arc<Mutex<Page>>>) -> Response {
    let delay = page.lock().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut page = page.lock();
    page.scrapes += 1;
    let mut text = page.text.clone();
    if let Some(name) = &page.numbered {
        text.extend_from_slice(format!("{name} {}\n", page.scrapes).as_bytes());
    }
    (page.status, [("content-type", page.content_type.clone())], text).into_response()
}

/// What a raw target writes its answer to: the connection, or TLS on it.
pub trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

/// A target that answers with whatever bytes it pleases, on threads of its own for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct RawTarget {
    address: SocketAddr,
}

impl RawTarget {
    /// Lets `answer` write to each connection once its request was read. What is not written any more when it returns
    /// is cut off.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(
        answer: impl Fn(&mut dyn Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Outcome<Self> {
        Self::listen(move |mut stream| {
            read_head(&mut stream)?;
            answer(&mut stream)
        })
    }

    /// As [`Self::start`], over TLS.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        answer: impl Fn(&mut dyn Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Outcome<Self> {
        Self::listen(move |stream| {
            let session = rustls::ServerConnection::new(Arc::clone(&tls)).map_err(io::Error::other)?;
            let mut stream = rustls::StreamOwned::new(session, stream);
            read_head(&mut stream)?;
            answer(&mut stream)
        })
    }

    /// `HOST:PORT`, as `__address__` has it.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = Arc::clone(&serve);
                // That the other side goes away is what many tests are about.
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(Self { address })
    }
}

/// Reads a request up to the empty line.
fn read_head(stream: &mut impl Read) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > 64 << 10 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// A page of zero bytes, compressed with gzip: a few MiB for a page of `mebibytes`, which is rounded up to 64.
///
/// # Errors
/// None that are known: it is compressed in memory.
pub fn compressed_zeros(mebibytes: usize) -> Outcome<Vec<u8>> {
    const MEMBER: usize = 64;
    let zeros = vec![0; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..MEMBER {
        encoder.write_all(&zeros).map_err(|error| error.to_string())?;
    }
    // Members follow each other: what is compressed once stands for all of them.
    Ok(encoder.finish().map_err(|error| error.to_string())?.repeat(mebibytes.div_ceil(MEMBER)))
}
