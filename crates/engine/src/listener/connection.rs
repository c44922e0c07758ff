//! One connection: TLS, requests one after the other or over HTTP/2 side by side, each handed to the node that owns the socket when its head arrived.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use invar_tls::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::io::{Limits, Phase, TimedStream};
use super::socket::{Counted, Socket};
use super::{Http2, ListenRequest, RemoteAddress, Shared};
use crate::Response;

/// How large the head of a request may be.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How many headers a request may have.
const MAX_HEADERS: usize = 128;
/// How many requests a connection may have in flight over HTTP/2 unless its settings say otherwise.
const MAX_STREAMS: u32 = 250;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For what has no limit in the configuration: nobody may hold a connection by doing nothing.
const UNCONFIGURED_LIMIT: Duration = Duration::from_secs(600);
/// How long requests in flight may take once their socket is closed.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// What clients are told to wait while nobody serves an address.
const RETRY_AFTER_SECONDS: &str = "5";

/// What all requests of a connection share.
struct Connection {
    socket: Arc<Socket>,
    registry: Arc<Shared>,
    remote: SocketAddr,
    /// What the connection was accepted under.
    tls: Option<Arc<ServerTls>>,
    http2: Option<Http2>,
    phase: Phase,
    /// The terms of the socket have changed: no further request over HTTP/2.
    outdated: CancellationToken,
}

/// Runs the streams of HTTP/2 among the tasks of the registry, which waits for them and ends them.
#[derive(Clone)]
struct Streams(Arc<Shared>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let closed = self.0.closed.clone();
        self.0.tasks.spawn(async move {
            closed.run_until_cancelled(stream).await;
        });
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(
    socket: Arc<Socket>,
    registry: Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    counted: Counted,
) {
    let _counted = counted;
    let bound = registry.bound(&socket).map(|(_, _, settings)| settings);
    let Some(settings) = bound.or_else(|| socket.newest_settings()) else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::trace!(%error, "cannot disable Nagle's algorithm");
    }
    let closed = registry.closed.clone();
    let tls = settings.tls.clone();
    let phase = Phase::default();
    let limits = Limits {
        head: Some(settings.read_timeout.unwrap_or(UNCONFIGURED_LIMIT)),
        idle: Some(settings.idle_timeout.unwrap_or(UNCONFIGURED_LIMIT)),
        write: Some(settings.write_timeout.unwrap_or(UNCONFIGURED_LIMIT)),
    };
    let connection = Arc::new(Connection {
        socket,
        registry,
        remote,
        tls: tls.clone(),
        http2: settings.http2.clone(),
        phase: phase.clone(),
        outdated: CancellationToken::new(),
    });
    let serving = async {
        match tls {
            None => http(connection, TimedStream::new(stream, phase, limits)).await,
            Some(tls) => {
                let handshake = async { TlsAcceptor::from(tls.current().await).accept(stream).await };
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => http(connection, TimedStream::new(stream, phase, limits)).await,
                    Ok(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%remote, "TLS handshake took too long"),
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = closed.cancelled() => {}
        () = serving => {}
    }
}

async fn http<S>(connection: Arc<Connection>, stream: TimedStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = connection.registry.closing.clone();
    let given_up = connection.socket.is_closed().clone();
    let remote = connection.remote;
    let outdated = connection.outdated.clone();
    let builder = builder(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, Infallible>(answer(&connection, request).await) }
    });
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = closing.cancelled() => None,
        () = given_up.cancelled() => None,
        () = outdated.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_DEADLINE, serving).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%remote, "connection closed with a request in flight"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%remote, %error, "connection ended");
    }
}

fn builder(connection: &Connection) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams(Arc::clone(&connection.registry)));
    let mut http1 = builder.http1();
    http1.keep_alive(true).half_close(false).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    http1.header_read_timeout(None);
    let Some(settings) = &connection.http2 else { return builder.http1_only() };
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(settings.concurrent_streams.unwrap_or(MAX_STREAMS))
        .max_frame_size(settings.frame_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .initial_stream_window_size(settings.stream_window_bytes)
        .keep_alive_interval(settings.ping_after);
    if let Some(timeout) = settings.ping_timeout {
        http2.keep_alive_timeout(timeout);
    }
    builder
}

/// Reads a request in full and has the node answer it that owned the socket when the head came.
async fn answer(connection: &Connection, request: hyper::Request<Incoming>) -> http::Response<Full<Bytes>> {
    let http2 = request.version() == http::Version::HTTP_2;
    let serving = connection.phase.serve(http2);
    let (mut response, complete) = match connection.registry.bound(&connection.socket) {
        None => (unavailable(), false),
        Some((dispatcher, node, settings)) => match read(request, &settings, connection.remote).await {
            Ok(request) => (dispatcher.dispatch(node, request).await, true),
            Err(refusal) => (refusal, false),
        },
    };
    // Where the body was not read to its end the connection cannot be used again, and where the terms of the socket
    // have changed it must not be.
    let terms_hold = connection.terms_hold();
    if http2 {
        if !terms_hold {
            connection.outdated.cancel();
        }
    } else if !complete || !terms_hold {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(serving);
    response.map(Full::new)
}

impl Connection {
    /// Whether a connection accepted now would be accepted in the same way.
    fn terms_hold(&self) -> bool {
        let Some((_, _, settings)) = self.registry.bound(&self.socket) else { return true };
        if self.http2 != settings.http2 {
            return false;
        }
        match (&self.tls, &settings.tls) {
            (None, None) => true,
            (Some(ours), Some(now)) => Arc::ptr_eq(ours, now),
            _ => false,
        }
    }
}

async fn read(
    request: hyper::Request<Incoming>,
    settings: &ListenRequest,
    remote: SocketAddr,
) -> Result<crate::Request, Response> {
    let (mut parts, mut body) = request.into_parts();
    parts.extensions.insert(RemoteAddress(remote));
    let limit = settings.body_limit;
    let declared =
        parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large =
        || plain(StatusCode::PAYLOAD_TOO_LARGE, format!("the request body is larger than {limit} bytes\n"));
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + settings.read_timeout.unwrap_or(UNCONFIGURED_LIMIT);
    // What a client declares reserves no memory: only what has arrived does.
    let mut data = BytesMut::new();
    let mut single: Option<Bytes> = None;
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::debug!(%remote, %error, "request body ended early");
                return Err(plain(StatusCode::BAD_REQUEST, "the request body ended early\n".to_owned()));
            }
            Err(_) => {
                return Err(plain(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request body took too long\n".to_owned(),
                ));
            }
        };
        let Ok(chunk) = frame.into_data() else { continue };
        let held = data.len() + single.as_ref().map_or(0, Bytes::len);
        if held + chunk.len() > limit {
            return Err(too_large());
        }
        match single.take() {
            None if data.is_empty() => single = Some(chunk),
            first => {
                if let Some(first) = first {
                    data.extend_from_slice(&first);
                }
                data.extend_from_slice(&chunk);
            }
        }
    }
    let body = single.unwrap_or_else(|| data.freeze());
    Ok(http::Request::from_parts(parts, body))
}

/// Nobody serves the address at the moment: its node is parked, or not swapped in yet.
fn unavailable() -> Response {
    let mut response =
        plain(StatusCode::SERVICE_UNAVAILABLE, "nothing serves this address at the moment\n".to_owned());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
