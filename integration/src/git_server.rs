//! A real Git server over HTTP: the repositories of a folder behind `git http-backend`.

use std::path::Path;

use crate::Outcome;
use crate::http_backend::{Access, Fault, HttpBackend};

/// A running server; dropping it closes the port.
pub struct GitServer(HttpBackend);

impl GitServer {
    /// Serves the repositories below a folder.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(root: &Path) -> Outcome<Self> {
        HttpBackend::start(root).map(Self).map_err(|error| error.to_string())
    }

    /// The address of a repository.
    #[must_use]
    pub fn url(&self, repository: &str) -> String {
        self.0.url(repository)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.0.address()
    }

    /// Closes every connection without an answer from now on, as a server that is gone.
    pub fn stop_answering(&self) {
        self.0.set_outage(Some(Fault::Close));
    }

    /// Answers everything with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.0.set_outage(Some(Fault::Status(status, Vec::new())));
    }

    /// Answers properly again.
    pub fn answer_again(&self) {
        self.0.set_outage(None);
    }

    /// From now on only who authenticates with these may read.
    pub fn require_basic(&self, username: &str, password: &str) {
        let header = format!("Basic {}", base64(format!("{username}:{password}").as_bytes()));
        self.0.set_access(Access::Header(header));
    }

    /// How many requests came since this was asked last.
    #[must_use]
    pub fn take_requests(&self) -> usize {
        self.0.take_log().len()
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
