//! One connection to an SSH server: reached through the proxy if there is one, its host key judged, and somebody shown
//! who this is. Every step has its deadline, and dropping the session ends the connection at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use russh::client::{self, Handle, Msg};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, Disconnect, Preferred, SshId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::address::SshAddress;
use super::host_keys::{Expectation, HostKeys, Verdict};
use super::identity::Identity;
use crate::error::{ErrorClass, Failure};
use crate::tunnel::Tunnel;

/// Time to agree on keys.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to show who this is; an agent may have to ask a person.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a last word.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// What the server may send before it is read.
const WINDOW: u32 = 2 * 1024 * 1024;

/// Everything a session needs.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) address: SshAddress,
    pub(super) place: String,
    pub(super) tunnel: Tunnel,
    pub(super) host_keys: HostKeys,
    pub(super) identity: Identity,
}

/// A connection on which commands can be run.
pub(super) struct Session {
    handle: Handle<Client>,
    _end: DropGuard,
}

impl Connector {
    pub(super) async fn connect(&self, deadline: Instant, now: SystemTime) -> Result<Session, Failure> {
        let place = &self.place;
        let late = |what: &str| Failure::transient(format!("{place} does not {what} in time"));
        let within = |limit: Duration| deadline.min(Instant::now() + limit);
        let signer = timeout_at(within(AUTHENTICATION_TIMEOUT), self.identity.signer())
            .await
            .map_err(|_| Failure::transient("the SSH agent does not answer in time"))??;
        let host_keys = self.host_keys.clone();
        let expectation = tokio::task::spawn_blocking(move || host_keys.expect())
            .await
            .map_err(|_| Failure::transient("reading known_hosts was interrupted"))??;
        let expectation = Arc::new(expectation);
        let config = Arc::new(client::Config {
            client_id: SshId::Standard(concat!("SSH-2.0-invar_", env!("CARGO_PKG_VERSION")).into()),
            window_size: WINDOW,
            preferred: Preferred {
                key: expectation.algorithms().into(),
                host_key_certificates: expectation.certificates().into(),
                ..Preferred::DEFAULT
            },
            nodelay: true,
            ..client::Config::default()
        });
        let stream = self.tunnel.connect(&self.address.host, self.address.port, deadline).await?;
        let end = CancellationToken::new();
        let stream = Ending { stream, ended: Box::pin(end.clone().cancelled_owned()) };
        let guard = end.drop_guard();
        let handler = Client { expectation: Arc::clone(&expectation), now, first: None };
        let shaking = client::connect_stream(config, stream, handler);
        let mut handle = match timeout_at(within(HANDSHAKE_TIMEOUT), shaking).await {
            Ok(Ok(handle)) => handle,
            Ok(Err(SshError::Judged(failure))) => return Err(*failure),
            Ok(Err(SshError::Protocol(error))) => return Err(handshake_failure(place, &error, &expectation)),
            Err(_) => return Err(late("agree on keys")),
        };
        let shown = self.identity.authenticate(&mut handle, &self.address.user, signer, place);
        timeout_at(within(AUTHENTICATION_TIMEOUT), shown).await.map_err(|_| late("accept a key"))??;
        Ok(Session { handle, _end: guard })
    }
}

impl Session {
    /// A channel to run one command on.
    pub(super) async fn open(&self) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_session().await
    }

    /// Says goodbye; without it the connection is just closed.
    pub(super) async fn close(self) {
        let farewell = async {
            // Nothing is lost if the server is gone already.
            drop(self.handle.disconnect(Disconnect::ByApplication, "", "").await);
            drop(self.handle.await);
        };
        drop(tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await);
    }
}

fn handshake_failure(place: &str, error: &russh::Error, expectation: &Expectation) -> Failure {
    match error {
        russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
            expectation.other_kinds(theirs)
        }
        russh::Error::NoCommonAlgo { kind, theirs, .. } => Failure::transient(format!(
            "{place} has no algorithm in common with this agent ({kind:?}: {})",
            theirs.join(", ")
        ))
        .with_help("let the server offer newer ones; until then what was read last stays in use"),
        russh::Error::WrongServerSig | russh::Error::StrictKeyExchangeViolation { .. } => Failure::new(
            ErrorClass::Integrity,
            format!("{place} does not prove that it has its key: {error}"),
        ),
        russh::Error::Version => {
            Failure::rejected(crate::Rejection::Shape, format!("{place} does not answer like an SSH server"))
        }
        error => {
            Failure::transient(format!("{place} broke the connection off while agreeing on keys: {error}"))
        }
    }
}

/// An error of the library, or our own verdict on its way through it.
#[derive(Debug)]
pub(super) enum SshError {
    Protocol(russh::Error),
    Judged(Box<Failure>),
}

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

/// What the library asks during a connection.
pub(super) struct Client {
    expectation: Arc<Expectation>,
    now: SystemTime,
    /// The key that was trusted because it was the first: a new agreement on this connection has to be with the same.
    first: Option<PublicKey>,
}

impl client::Handler for Client {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        match self.expectation.judge(shown, self.now) {
            Verdict::Known => Ok(true),
            Verdict::Refused(failure) => Err(SshError::Judged(Box::new(failure))),
            Verdict::First(key) => {
                if let Some(first) = &self.first {
                    return Ok(first.key_data() == key.key_data());
                }
                self.first = Some(key.clone());
                let expectation = Arc::clone(&self.expectation);
                let written = tokio::task::spawn_blocking(move || expectation.remember(&key)).await;
                let written =
                    written.unwrap_or_else(|_| Err(Failure::transient("writing a host key was interrupted")));
                written.map(|()| true).map_err(|failure| SshError::Judged(Box::new(failure)))
            }
        }
    }
}

/// A stream that fails as soon as nobody wants it any more, so that the task behind it ends.
struct Ending<S> {
    stream: S,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Ending<S> {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ending<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
