//! The connections of the agent's HTTP server: plain or TLS, as the gate says when they come. A handshake keeps nobody else
//! waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::Gate;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way.
const MOST_HANDSHAKES: usize = 64;
/// How long to wait when no connection can be accepted, for want of file descriptors for example.
const BREATH: Duration = Duration::from_millis(100);

/// A connection, ready for requests.
pub(super) type Connection = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Connections that are ready, for the HTTP server to take.
pub(super) struct Connections {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

/// The future accepts until it is dropped; it never ends.
pub(super) fn accept(
    listener: TcpListener,
    address: SocketAddr,
    gate: Arc<Gate>,
) -> (Connections, impl Future<Output = ()> + Send) {
    let (sender, ready) = mpsc::channel(1);
    let accepting = async move {
        run(listener, gate, sender).await;
        std::future::pending().await
    };
    (Connections { ready, address }, accepting)
}

async fn run(listener: TcpListener, gate: Arc<Gate>, ready: mpsc::Sender<(Connection, SocketAddr)>) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if handshakes.len() < MOST_HANDSHAKES => match accepted {
                Ok((stream, peer)) => match gate.tls() {
                    None => {
                        if ready.send((Either::Left(stream), peer)).await.is_err() {
                            return;
                        }
                    }
                    Some(tls) => {
                        let ready = ready.clone();
                        handshakes.spawn(async move {
                            let handshake = async { TlsAcceptor::from(tls.current().await).accept(stream).await };
                            match tokio::time::timeout(HANDSHAKE, handshake).await {
                                // Nobody takes it any more when the server has ended.
                                Ok(Ok(stream)) => drop(ready.send((Either::Right(Box::new(stream)), peer)).await),
                                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                            }
                        });
                    }
                },
                Err(error) => {
                    tracing::debug!(%error, "no connection can be accepted at the moment");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_ended) = handshakes.join_next() => {}
            () = ready.closed() => return,
        }
    }
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting has ended, and with it the server does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
