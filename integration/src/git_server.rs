//! A real Git server over HTTP: the repositories of a folder behind `git http-backend`.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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
        let header = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
        self.0.set_access(Access::Header(header));
    }

    /// How many requests came since this was asked last.
    #[must_use]
    pub fn take_requests(&self) -> usize {
        self.0.take_log().len()
    }
}
