//! A page to scrape: its text, content type and delay can be changed while it is scraped.

use std::net::SocketAddr;
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
