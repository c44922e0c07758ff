//! Why a scrape failed. Each is shown with its target, and none holds a credential.

use http::StatusCode;
use invar_blocks::HttpClientError;
use invar_telemetry::exposition::{ContentTypeError, ExpositionError};

use super::page::PageError;

/// Most bytes of an error that are shown: some repeat what the page says.
const SHOWN: usize = 500;

/// Why one scrape of one target failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScrapeError {
    /// More targets than allowed: none is scraped.
    #[error("target_limit exceeded (number of targets: {count}, limit: {limit})")]
    TargetLimit { count: usize, limit: usize },
    /// There was no response.
    #[error("{0}")]
    Request(HttpClientError),
    /// The response says no.
    #[error("server returned HTTP status {0}")]
    Status(StatusCode),
    /// The time was over before the page was complete.
    #[error("the page was not complete within the scrape timeout")]
    Timeout,
    /// The time was over while the page waited for memory.
    #[error("the scrape timeout was over while other large pages took the memory that is shared by all")]
    Crowded,
    /// The page is larger than allowed.
    #[error("body size limit exceeded: the page has {limit} bytes or more")]
    TooLarge { limit: u64 },
    /// The page is not compressed as it says.
    #[error("the page cannot be decompressed: {0}")]
    Compression(std::io::Error),
    /// Nothing reads the page.
    #[error("{0}")]
    ContentType(#[from] ContentTypeError),
    /// The page cannot be read, or breaks a limit.
    #[error("{0}")]
    Page(#[from] ExpositionError<PageError>),
    /// The page breaks the limit of samples.
    #[error("sample limit exceeded: the page has more than {limit} samples after relabelling")]
    SampleLimit { limit: usize },
}

// === impl ScrapeError ===

impl ScrapeError {
    /// The error for people.
    pub(super) fn shown(&self) -> String {
        let mut text = self.to_string();
        if text.len() > SHOWN {
            text.truncate(text.floor_char_boundary(SHOWN));
            text.push('…');
        }
        text
    }
}
