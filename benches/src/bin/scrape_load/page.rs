//! What is scraped: one page of realistic series (about 112 bytes a line), served under any number of targets, with
//! values that change from scrape to scrape.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::routing::get;

/// Pages that take turns, so that values differ between scrapes and rendering costs nothing.
const VARIANTS: usize = 8;
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
const CODES: [&str; 4] = ["200", "404", "500", "503"];

pub(crate) struct Pages {
    variants: Vec<Bytes>,
    next: AtomicUsize,
}

impl Pages {
    pub(crate) fn of(series: usize) -> Arc<Self> {
        let variants = (0..VARIANTS).map(|variant| Bytes::from(render(series, variant))).collect();
        Arc::new(Self { variants, next: AtomicUsize::new(0) })
    }

    /// Bytes of one line, on average.
    pub(crate) fn bytes_per_series(&self, series: usize) -> usize {
        self.variants[0].len() / series.max(1)
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().route("/{target}/metrics", get(show)).with_state(self)
    }
}

async fn show(State(pages): State<Arc<Pages>>) -> ([(header::HeaderName, &'static str); 1], Bytes) {
    let turn = pages.next.fetch_add(1, Ordering::Relaxed) % VARIANTS;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], pages.variants[turn].clone())
}

fn render(series: usize, variant: usize) -> String {
    let mut text = String::with_capacity(series * 120);
    for number in 0..series {
        let family = number / 100;
        if number % 100 == 0 {
            writeln!(text, "# HELP app_requests_{family}_total Requests the application answered.")
                .expect("writing to a string cannot fail");
            writeln!(text, "# TYPE app_requests_{family}_total counter")
                .expect("writing to a string cannot fail");
        }
        let value = number as f64 * 1.37 + variant as f64 * 17.0;
        writeln!(
            text,
            "app_requests_{family}_total{{method=\"{}\",code=\"{}\",path=\"/api/v1/resource/{}\",handler=\"handler_{}\"}} {value:.2}",
            METHODS[number % METHODS.len()],
            CODES[number / 5 % CODES.len()],
            number % 100 / 20,
            number % 100,
        ).expect("writing to a string cannot fail");
    }
    text
}
