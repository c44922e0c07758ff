//! From the body of a request to a batch, within bounds: of one request before memory is spent on it, and of all requests
//! in flight together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use invar_telemetry::remote_write::{
    DecodeError, DecodeLimits, DecodedRequest, Protocol, SeriesMemory, decode_remembering, decompress,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How large a body may be, compressed, in bytes.
pub(super) const BODY_LIMIT: usize = 16 << 20;
/// How large a message may be, decompressed, in bytes: what Prometheus lets pass.
pub(super) const MESSAGE_LIMIT: usize = 32 << 20;
/// What all messages in flight may take together, in bytes.
const MESSAGES_LIMIT: usize = 32 << 20;
/// How many times its size a message may occupy once decoded. Those of honest senders take less than half of it.
const EXPANSION: usize = 16;
/// The budget is counted in these many bytes. A small message takes a share that lets it grow to a mebibyte.
const SHARE: usize = 64 << 10;
/// What a component has for patience.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Larger messages are decoded aside, so that a thread that serves others is not held for long, in bytes.
const INLINE_LIMIT: usize = 1 << 20;
/// How many series are remembered at least.
const REMEMBERED_SERIES: usize = 100_000;
/// Labels of one series.
const LABELS_LIMIT: usize = 1024;

/// Reads requests.
#[derive(Debug)]
pub(super) struct Intake {
    memory: Arc<SeriesMemory>,
    budget: Arc<Semaphore>,
    /// How long a request waits for others to finish before its sender is told to come back.
    patience: Duration,
}

/// A request that was read, and its share of the budget.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) request: DecodedRequest,
    /// Given back when this is dropped.
    pub(super) share: OwnedSemaphorePermit,
}

/// Why a request is not read: what its sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

// === impl Intake ===

impl Intake {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            memory: Arc::new(SeriesMemory::new(REMEMBERED_SERIES)),
            budget: Arc::new(Semaphore::new(MESSAGES_LIMIT / SHARE)),
            patience,
        }
    }

    /// The series of earlier requests.
    pub(super) fn memory(&self) -> &SeriesMemory {
        &self.memory
    }

    /// Decompresses and decodes a body.
    pub(super) async fn take(&self, protocol: Protocol, body: Bytes) -> Result<Taken, Refusal> {
        let length = snap::raw::decompress_len(&body)
            .map_err(|_| Refusal::bad("the body is no snappy block".to_owned()))?;
        if length > MESSAGE_LIMIT {
            return Err(Refusal::from(DecodeError::TooLarge(MESSAGE_LIMIT)));
        }
        let shares = length.div_ceil(SHARE).max(1);
        let share = self.share(shares).await?;
        let limits = DecodeLimits {
            message_bytes: MESSAGE_LIMIT,
            labels: LABELS_LIMIT,
            decoded_bytes: shares * SHARE * EXPANSION,
        };
        let memory = Arc::clone(&self.memory);
        // The share goes with the work: a request that is given up still occupies memory until its decoding ends.
        let work = move || {
            let message = decompress(&body, MESSAGE_LIMIT)?;
            let request = decode_remembering(protocol, &message, limits, &memory)?;
            Ok(Taken { request, share })
        };
        if length <= INLINE_LIMIT {
            return work();
        }
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(Refusal {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                text: format!("decoding failed: {error}"),
            })
        })
    }

    async fn share(&self, shares: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let shares = u32::try_from(shares).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.budget).acquire_many_owned(shares);
        match tokio::time::timeout(self.patience, share).await {
            Ok(Ok(share)) => Ok(share),
            // The budget is never closed: this is the time that ran out.
            Ok(Err(_)) | Err(_) => Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                text: "too many requests are in flight".to_owned(),
            }),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    fn bad(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let status = match error {
            DecodeError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, text: error.to_string() }
    }
}
