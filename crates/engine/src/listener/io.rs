//! A connection's stream with deadlines: for the head of a request, for the wait between requests, and for writes that
//! make no progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the connection is doing, shared between its stream and its service.
#[derive(Clone, Default)]
pub(super) struct Phase(Arc<Doing>);

#[derive(Default)]
struct Doing {
    phase: AtomicU8,
    /// Requests being served: over HTTP/2 there may be many at a time.
    serving: AtomicUsize,
    /// A request came over HTTP/2, where bytes between requests need not be the head of one.
    http2: AtomicBool,
}

/// One request being served; dropped when it is answered or given up.
pub(super) struct Serving(Phase);

/// Waiting for a request.
const IDLE: u8 = 0;
/// Some of a request's head has come.
const HEAD: u8 = 1;
/// A request is being served; its body has a deadline of its own.
const SERVING: u8 = 2;

/// The stream.
pub(super) struct TimedStream<S> {
    inner: S,
    phase: Phase,
    limits: Limits,
    reading: Option<(u8, Pin<Box<Sleep>>)>,
    writing: Option<Pin<Box<Sleep>>>,
}

/// How long the stream may be without progress.
#[derive(Copy, Clone)]
pub(super) struct Limits {
    /// For the head of a request, from its first byte to its last.
    pub(super) head: Option<Duration>,
    /// For the first byte of the next request.
    pub(super) idle: Option<Duration>,
    /// For each piece of a response.
    pub(super) write: Option<Duration>,
}

impl Phase {
    /// A request's head has come.
    pub(super) fn serve(&self, http2: bool) -> Serving {
        if http2 {
            self.0.http2.store(true, Ordering::Relaxed);
        }
        self.0.serving.fetch_add(1, Ordering::AcqRel);
        self.0.phase.store(SERVING, Ordering::Release);
        Serving(self.clone())
    }

    fn get(&self) -> u8 {
        self.0.phase.load(Ordering::Acquire)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let Self(Phase(doing)) = self;
        if doing.serving.fetch_sub(1, Ordering::AcqRel) == 1 {
            doing.phase.store(IDLE, Ordering::Release);
        }
    }
}

impl<S> TimedStream<S> {
    pub(super) fn new(inner: S, phase: Phase, limits: Limits) -> Self {
        Self { inner, phase, limits, reading: None, writing: None }
    }

    /// Arms the deadline of the phase unless it runs already, and tells whether it has passed.
    fn read_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let phase = self.phase.get();
        let limit = match phase {
            IDLE => self.limits.idle,
            HEAD if self.phase.0.http2.load(Ordering::Relaxed) => self.limits.idle,
            HEAD => self.limits.head,
            _ => None,
        };
        let Some(limit) = limit else {
            self.reading = None;
            return false;
        };
        if self.reading.as_ref().is_none_or(|(armed, _)| *armed != phase) {
            self.reading = Some((phase, Box::pin(tokio::time::sleep_until(Instant::now() + limit))));
        }
        self.reading.as_mut().is_some_and(|(_, deadline)| deadline.as_mut().poll(cx).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before && this.phase.get() == IDLE {
                    this.phase.0.phase.store(HEAD, Ordering::Release);
                    // Each request has a deadline of its own, even where nobody polled in between.
                    this.reading = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if this.read_overdue(cx) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client sent nothing for too long",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> TimedStream<S> {
    fn timed<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let Some(limit) = self.limits.write else { return Poll::Pending };
        let deadline = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client read nothing for too long",
            )));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, data);
        this.timed(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(cx);
        this.timed(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.timed(cx, polled)
    }
}
