//! The bytes of a page: gathered within the limit of the page, in buffers that scrapes share, out of memory that all large pages of
//! the process share. A page that finds none left waits, and its target with it, while small pages pass.

use std::io::Write;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use invar_engine::{Loan, PrepareError, ResourceRegistry};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ScrapeError;

/// How many buffers wait for the next page.
const IDLE_BUFFERS: usize = 16;
/// A buffer beyond this size, in bytes, is not kept.
const LARGEST_IDLE_BUFFER: usize = 4 << 20;
/// What every page may take without asking, in bytes; beyond it, memory is asked for in pieces of this size.
const PIECE: usize = 1 << 20;
/// What pages take together beyond that, in pieces.
const PIECES: usize = 128;
/// How much is decompressed at a time, in compressed bytes: becomes a piece at most, since gzip shrinks to a thousandth at best.
const COMPRESSED_PIECE: usize = 1 << 10;

/// The memory that large pages of the process share.
#[derive(Debug)]
struct PageMemory(Arc<Semaphore>);

/// Buffers of pages, shared by the targets of a component.
#[derive(Debug)]
pub(super) struct PageBuffers {
    idle: Mutex<Vec<Vec<u8>>>,
    memory: Loan<PageMemory>,
}

/// The decompressed bytes of a page.
pub(super) enum PageBody {
    /// As they arrived in one piece.
    Whole(Bytes),
    /// Put together.
    Gathered(Gathered),
}

/// Bytes of a page, and the memory they take.
pub(super) struct Gathered {
    bytes: Vec<u8>,
    limit: u64,
    exceeded: bool,
    home: Arc<PageBuffers>,
    share: Option<OwnedSemaphorePermit>,
}

/// Puts a page together as it arrives.
pub(super) enum Gathering {
    Plain(Gathered),
    Compressed(Box<MultiGzDecoder<Gathered>>),
}

/// Whether a page waits for memory.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicBool);

// === impl PageBuffers ===

impl PageBuffers {
    pub(super) fn new(resources: &ResourceRegistry) -> Result<Arc<Self>, PrepareError> {
        let memory = || Ok(PageMemory(Arc::new(Semaphore::new(PIECES))));
        let memory = resources.borrow("memory of scraped pages", memory)?;
        Ok(Arc::new(Self { idle: Mutex::default(), memory }))
    }

    fn take(&self) -> Vec<u8> {
        self.idle.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_BUFFERS && bytes.capacity() <= LARGEST_IDLE_BUFFER {
            idle.push(bytes);
        }
    }
}

// === impl Gathering ===

impl Gathering {
    /// Begins a page that is to stay below a limit, in bytes.
    pub(super) fn new(buffers: &Arc<PageBuffers>, limit: u64, compressed: bool) -> Self {
        let home = Arc::clone(buffers);
        let gathered = Gathered { bytes: buffers.take(), limit, exceeded: false, home, share: None };
        if compressed {
            Self::Compressed(Box::new(MultiGzDecoder::new(gathered)))
        } else {
            Self::Plain(gathered)
        }
    }

    /// Takes the next bytes as they arrived.
    pub(super) async fn push(&mut self, chunk: &[u8], waiting: &Waiting) -> Result<(), ScrapeError> {
        match self {
            Self::Plain(gathered) => {
                gathered.cover(gathered.bytes.len() + chunk.len(), waiting).await;
                gathered.write_all(chunk).map_err(|error| gathered.refusal(error))
            }
            Self::Compressed(decoder) => {
                for piece in chunk.chunks(COMPRESSED_PIECE) {
                    if let Err(error) = decoder.write_all(piece) {
                        return Err(decoder.get_ref().refusal(error));
                    }
                    let gathered = decoder.get_mut();
                    gathered.cover(gathered.bytes.len(), waiting).await;
                }
                Ok(())
            }
        }
    }

    /// The page, if this was all of it.
    pub(super) fn finish(self) -> Result<PageBody, ScrapeError> {
        match self {
            Self::Plain(gathered) => Ok(PageBody::Gathered(gathered)),
            Self::Compressed(mut decoder) => {
                if let Err(error) = decoder.try_finish() {
                    return Err(decoder.get_ref().refusal(error));
                }
                decoder.finish().map(PageBody::Gathered).map_err(ScrapeError::Compression)
            }
        }
    }
}

// === impl Gathered ===

impl Gathered {
    /// Waits for the memory that so many bytes take.
    async fn cover(&mut self, length: usize, waiting: &Waiting) {
        let length = length.min(usize::try_from(self.limit).unwrap_or(usize::MAX));
        // A page that may be larger than all of the memory gets all of it.
        let wanted = length.saturating_sub(PIECE).div_ceil(PIECE).min(PIECES);
        let held = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(missing @ 1..) = u32::try_from(wanted.saturating_sub(held)) else { return };
        waiting.0.store(true, Ordering::Relaxed);
        // It is never closed.
        if let Ok(more) = Arc::clone(&self.home.memory.0).acquire_many_owned(missing).await {
            match &mut self.share {
                Some(share) => share.merge(more),
                share => *share = Some(more),
            }
        }
        waiting.0.store(false, Ordering::Relaxed);
        // Large pages must not keep a thread from serving others.
        tokio::task::yield_now().await;
    }

    fn refusal(&self, error: std::io::Error) -> ScrapeError {
        if self.exceeded {
            ScrapeError::TooLarge { limit: self.limit }
        } else {
            ScrapeError::Compression(error)
        }
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.bytes.len() + bytes.len();
        if length as u64 >= self.limit {
            self.exceeded = true;
            return Err(std::io::Error::other("the page is too large"));
        }
        if length > self.bytes.capacity() {
            // Twice as much, but never more than a page may take.
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            let capacity = length.max(2 * self.bytes.capacity()).min(limit);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

impl Deref for PageBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Gathered(gathered) => &gathered.bytes,
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Why a page was not complete in time.
    pub(super) fn timeout(&self) -> ScrapeError {
        if self.0.load(Ordering::Relaxed) { ScrapeError::Crowded } else { ScrapeError::Timeout }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::pin::pin;
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    const LIMIT: u64 = 128 << 20;

    #[tokio::test]
    async fn large_pages_wait_for_memory_and_small_ones_do_not() {
        let buffers = PageBuffers::new(&ResourceRegistry::new()).unwrap();
        let waiting = Waiting::default();
        let mut all = Vec::new();
        let half = vec![b'x'; (PIECES / 2) << 20];
        for _ in 0..2 {
            let mut page = Gathering::new(&buffers, 1 << 40, false);
            page.push(&half, &waiting).await.unwrap();
            page.push(&half[..PIECE], &waiting).await.unwrap();
            all.push(page.finish().unwrap());
        }
        assert_eq!(buffers.memory.0.available_permits(), 0);
        let mut small = Gathering::new(&buffers, LIMIT, false);
        small.push(&half[..PIECE], &waiting).await.unwrap();
        assert_eq!(small.finish().unwrap().len(), PIECE);

        let mut large = Gathering::new(&buffers, LIMIT, false);
        {
            let mut push = pin!(large.push(&half[..=PIECE], &waiting));
            assert_eq!(poll!(&mut push).map(|_| ()), Poll::Pending);
            assert!(matches!(waiting.timeout(), ScrapeError::Crowded));
            all.pop();
            push.await.unwrap();
        }
        assert!(matches!(waiting.timeout(), ScrapeError::Timeout));
        drop((large, all));
        assert_eq!(buffers.memory.0.available_permits(), PIECES);
    }
}
