//! What end-to-end tests and the demo are played on: real agent processes, a remote-write receiver that keeps what it
//! gets and can be told to fail, pages to scrape, Git repositories and a real `git http-backend`.
//!
//! Nothing here belongs to the agent. The receiver decodes with messages of its own, so that it can disagree.

mod agent;
#[path = "../servers/built.rs"]
mod built;
pub mod canary;
#[allow(missing_docs, reason = "shared with the tests of the sources by path")]
#[path = "../servers/fault_proxy.rs"]
pub mod fault_proxy;
mod git_server;
#[allow(missing_docs, reason = "shared with the tests of the sources by path")]
#[path = "../servers/git/http_backend.rs"]
pub mod http_backend;
mod kubernetes;
mod memory;
mod prometheus;
mod receiver;
mod repository;
mod target;

pub use agent::{Agent, AgentOptions, free_address};
pub use built::{built_servers, is_built};
pub use git_server::GitServer;
pub use kubernetes::Kubernetes;
pub use memory::find_in_memory;
pub use prometheus::{Instant, Prometheus};
pub use receiver::{Receiver, Series};
pub use repository::Repository;
pub use target::{Connection, RawTarget, Target, compressed_zeros};

use std::time::Duration;

/// What a step gives, or the sentence that says what went wrong.
pub type Outcome<T = ()> = Result<T, String>;

/// Looks twenty times a second until `look` gives something, for at most `limit`.
///
/// # Errors
/// What was waited for, when it did not come.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Outcome<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > limit {
            return Err(format!("waited {} s for: {what}", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a server's router on a thread of its own for as long as the process lives.
pub(crate) fn serve(router: axum::Router) -> Outcome<std::net::SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener =
                tokio::net::TcpListener::from_std(listener).expect("the listener is bound and nonblocking");
            axum::serve(listener, router).await.expect("serving on a bound listener does not end");
        });
    });
    Ok(address)
}

/// What a page answers.
///
/// # Errors
/// No answer, or not with 200.
pub fn fetch(url: &str) -> Outcome<Vec<u8>> {
    // A second installation in one process finds the first one, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
        let answer = http.get(url).timeout(Duration::from_secs(10)).send().await;
        let answer = answer
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| format!("{url}: {error}"))?;
        answer.bytes().await.map(|body| body.to_vec()).map_err(|error| format!("{url}: {error}"))
    })
}
