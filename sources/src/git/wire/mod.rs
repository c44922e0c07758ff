//! How a remote repository is reached: one interface over HTTP and SSH, which speak the same protocol with the same
//! encoders and readers, and what the protocol's own errors mean for a source.

mod http;

use std::fmt;

use bytes::Bytes;
use tokio::sync::mpsc;

pub(super) use self::http::HttpWire;
use super::protocol::{Advertisement, FetchRequest, ProtocolError, RemoteReference};
use super::ssh::SshWire;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::source::PollContext;
use crate::units::display_size;

/// The longest advertisement or list of references, in bytes.
pub(super) const LIST_LIMIT: usize = 32 * 1024 * 1024;

/// Parts of a pack on their way to the indexer; the end is said, so that a broken transfer is not taken
/// for a complete one.
pub(super) enum PackPart {
    Bytes(Bytes),
    End,
}

/// One remote repository.
pub(super) enum RemoteWire {
    Http(Box<HttpWire>),
    Ssh(Box<SshWire>),
}

impl fmt::Debug for RemoteWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(wire) => wire.fmt(f),
            Self::Ssh(wire) => wire.fmt(f),
        }
    }
}

impl RemoteWire {
    /// Whether nothing protects the connection.
    pub(super) fn is_insecure(&self) -> bool {
        match self {
            Self::Http(wire) => wire.is_insecure(),
            Self::Ssh(_) => false,
        }
    }

    /// Where the server sent us, if not where the settings say.
    pub(super) fn redirected_to(&self) -> Option<String> {
        match self {
            Self::Http(wire) => wire.redirected_to(),
            Self::Ssh(_) => None,
        }
    }

    /// The failure, without the credential should the server have said it.
    pub(super) async fn without_credentials(&self, failure: Failure) -> Failure {
        match self {
            Self::Http(wire) => wire.without_credentials(failure).await,
            // Neither a key nor its passphrase is ever sent.
            Self::Ssh(_) => failure,
        }
    }

    /// The references whose names start with one of `prefixes`.
    pub(super) async fn list(
        &self,
        prefixes: &[String],
        context: &PollContext,
    ) -> Result<Vec<RemoteReference>, Failure> {
        match self {
            Self::Http(wire) => wire.list(prefixes, context.deadline, context.now).await,
            Self::Ssh(wire) => wire.list(prefixes, context.deadline, context.now).await,
        }
    }

    /// Fetches a pack and passes it on in parts; gives the number of bytes. Nothing is said to be complete
    /// before it is.
    pub(super) async fn fetch(
        &self,
        request: &FetchRequest,
        limit: u64,
        pack: mpsc::Sender<PackPart>,
        context: &PollContext,
    ) -> Result<u64, Failure> {
        match self {
            Self::Http(wire) => wire.fetch(request, limit, pack, context.deadline, context.now).await,
            Self::Ssh(wire) => wire.fetch(request, limit, pack, context.deadline, context.now).await,
        }
    }

    /// The end of a poll: what only the poll needed is let go.
    pub(super) async fn rest(&self) {
        match self {
            Self::Http(_) => {}
            Self::Ssh(wire) => wire.rest().await,
        }
    }
}

/// What a server's message means. `place` is the redacted address.
pub(super) fn protocol_failure(place: &str, error: &ProtocolError) -> Failure {
    match error {
        ProtocolError::Refused(reason) if reason.contains("not our ref") => Failure::new(
            ErrorClass::NotFound,
            format!("{place} does not have the commit, or does not hand it out by its id"),
        ),
        ProtocolError::Truncated | ProtocolError::Refused(_) => {
            Failure::transient(format!("{place}: {error}"))
        }
        ProtocolError::TooLong(_) => Failure::rejected(Rejection::Limits, format!("{place}: {error}")),
        ProtocolError::Framing(_) | ProtocolError::Unexpected => {
            Failure::rejected(Rejection::Shape, format!("{place}: {error}"))
        }
    }
}

/// Refuses repositories whose objects cannot be read.
pub(super) fn check_format(place: &str, advertisement: &Advertisement) -> Result<(), Failure> {
    if advertisement.is_sha1() {
        return Ok(());
    }
    Err(Failure::stalled(format!("{place} names its objects by SHA-256, which cannot be read yet")))
}

/// The pack is larger than allowed.
pub(super) fn too_much(limit: u64) -> Failure {
    Failure::rejected(
        Rejection::Limits,
        format!("the server sends more than {} for one commit", display_size(limit)),
    )
    .with_help("raise `limits.pack`, or use a smaller repository")
}
