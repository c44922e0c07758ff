//! Git over SSH: the protocol's messages over the standard streams of `git-upload-pack` on the server.
//!
//! A poll makes one connection and closes it at its end: what it lists and what it fetches go over one channel, as
//! commands of version 2 after each other. Servers that do not pass `GIT_PROTOCOL` on answer in an older version; there
//! each fetch is a run of the command of its own.

mod address;
mod host_keys;
mod identity;
pub(crate) mod known_hosts;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

pub(super) use self::address::{SshAddress, is_scp_like};
use self::host_keys::HostKeys;
use self::identity::Identity;
use self::session::{Connector, Session};
use super::pkt_line::message_end;
use super::protocol::{
    Advertisement, FetchReader, FetchRequest, ProtocolError, RemoteReference, encode_fetch, encode_ls_refs,
    for_people, parse_advertisement, parse_ls_refs,
};
use super::wire::{LIST_LIMIT, PackPart, check_format, protocol_failure, too_much};
use crate::SourceEnvironment;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::SourceSettings;
use crate::tunnel::Tunnel;
use crate::units::display_size;

/// Time for asking which references there are, with everything that has to be done before.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time without a byte after which a transfer is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is kept of the server's words beside the protocol.
const WORDS_LIMIT: usize = 4 * 1024;

/// One remote repository behind SSH.
pub(super) struct SshWire {
    connector: Connector,
    /// The connection of the poll under way, while nothing goes over it.
    live: Mutex<Option<Live>>,
}

/// A connection, and the command that runs on it.
struct Live {
    /// Dropped first, so that the channel goes before the connection.
    conversation: Option<Conversation>,
    session: Session,
}

impl fmt::Debug for SshWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshWire({})", self.connector.place)
    }
}

impl SshWire {
    /// Does no input or output.
    pub(super) fn new(
        address: SshAddress,
        settings: &SourceSettings,
        environment: &SourceEnvironment,
    ) -> Result<Self, Failure> {
        let place = address.to_string();
        let auth = settings.auth.clone().unwrap_or_default();
        if auth.ways().into_iter().any(|way| way != "ssh") {
            return Err(Failure::stalled(format!(
                "{place} is reached over SSH, which takes `auth.ssh` alone"
            ))
            .with_help("such as auth = { ssh = { key = { file = \"…\" } } }"));
        }
        let through_tls = settings.proxy.as_ref().is_some_and(|proxy| proxy.url.starts_with("https:"));
        if settings.tls.is_some() && !through_tls {
            return Err(Failure::stalled(format!("{place} is reached over SSH, which has no `tls`")));
        }
        let ssh = auth.ssh.unwrap_or_default();
        let connector = Connector {
            tunnel: Tunnel::new(settings.proxy.as_ref(), settings.tls.as_ref(), &environment.secrets)?,
            host_keys: HostKeys::new(&address, &ssh, &environment.state_directory),
            identity: Identity::new(ssh, environment.secrets.clone())?,
            address,
            place,
        };
        Ok(Self { connector, live: Mutex::default() })
    }

    /// The references whose names start with one of `prefixes`.
    pub(super) async fn list(
        &self,
        prefixes: &[String],
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Vec<RemoteReference>, Failure> {
        let deadline = deadline.min(Instant::now() + PROBE_TIMEOUT);
        let (session, mut conversation) = self.conversation(deadline, now).await?;
        let advertisement = Arc::clone(&conversation.advertisement);
        let references = if advertisement.version == 2 {
            conversation.say(encode_ls_refs(&advertisement, prefixes), deadline).await?;
            let message = conversation.hear(deadline).await?;
            parse_ls_refs(&message).map_err(|error| conversation.protocol_failure(&error))?
        } else {
            let wanted = |reference: &&RemoteReference| {
                prefixes.iter().any(|prefix| reference.name.starts_with(prefix))
            };
            advertisement.references.iter().filter(wanted).cloned().collect()
        };
        *self.live.lock() = Some(Live { conversation: Some(conversation), session });
        Ok(references)
    }

    /// Fetches a pack and passes it on in parts; gives the number of bytes.
    pub(super) async fn fetch(
        &self,
        request: &FetchRequest,
        limit: u64,
        pack: mpsc::Sender<PackPart>,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<u64, Failure> {
        let (session, mut conversation) = self.conversation(deadline, now).await?;
        let advertisement = Arc::clone(&conversation.advertisement);
        conversation.say(encode_fetch(&advertisement, request), deadline).await?;
        let mut reader = FetchReader::new(advertisement.version);
        let mut received = 0_u64;
        while reader.finish().is_err() {
            let Some(chunk) = conversation.chunk(deadline).await? else {
                return Err(conversation.ended_early());
            };
            received += chunk.len() as u64;
            if received > limit {
                return Err(too_much(limit));
            }
            for part in reader.push(&chunk).map_err(|error| conversation.protocol_failure(&error))? {
                if pack.send(PackPart::Bytes(part)).await.is_err() {
                    // The indexer has given up; what it says about the pack is better than what is known here.
                    return Ok(received);
                }
            }
        }
        // As above, should the indexer be gone.
        drop(pack.send(PackPart::End).await);
        let conversation = (advertisement.version == 2).then_some(conversation);
        *self.live.lock() = Some(Live { conversation, session });
        Ok(received)
    }

    /// Ends the connection; the server has no process for us until the next poll.
    pub(super) async fn rest(&self) {
        let live = self.live.lock().take();
        if let Some(Live { conversation, session }) = live {
            drop(conversation);
            session.close().await;
        }
    }

    /// A running command: the one that is there, or a new one, on a new connection if need be. Whoever takes it puts it
    /// back after a success; on every other way out it ends.
    async fn conversation(
        &self,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<(Session, Conversation), Failure> {
        let live = self.live.lock().take();
        let session = match live {
            Some(Live { conversation: Some(conversation), session }) => return Ok((session, conversation)),
            Some(Live { conversation: None, session }) => session,
            None => self.connector.connect(deadline, now).await?,
        };
        let conversation = Conversation::start(&session, &self.connector, deadline).await?;
        Ok((session, conversation))
    }
}

/// A run of the command that serves the repository.
struct Conversation {
    place: String,
    channel: Channel<Msg>,
    advertisement: Arc<Advertisement>,
    /// What arrived and was not used yet.
    buffer: BytesMut,
    /// What the server says beside the protocol, for people.
    words: Vec<u8>,
    exit_status: Option<u32>,
}

impl Conversation {
    async fn start(session: &Session, connector: &Connector, deadline: Instant) -> Result<Self, Failure> {
        let place = connector.place.clone();
        let broken =
            |error: russh::Error| Failure::transient(format!("{place} broke the connection off: {error}"));
        let within = deadline.min(Instant::now() + IDLE_TIMEOUT);
        let begun = async {
            let channel = session.open().await.map_err(broken)?;
            // Servers may refuse it; then they speak an older version.
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await.map_err(broken)?;
            channel.exec(true, connector.address.command()).await.map_err(broken)?;
            Ok::<_, Failure>(channel)
        };
        let channel = timeout_at(within, begun)
            .await
            .unwrap_or_else(|_| Err(Failure::transient(format!("{place} does not answer in time"))))?;
        let mut conversation = Self {
            place,
            channel,
            advertisement: Arc::new(Advertisement {
                version: 2,
                capabilities: std::collections::BTreeMap::new(),
                references: Vec::new(),
            }),
            buffer: BytesMut::new(),
            words: Vec::new(),
            exit_status: None,
        };
        let message = conversation.hear(deadline).await?;
        let advertisement =
            parse_advertisement(&message).map_err(|error| conversation.protocol_failure(&error))?;
        check_format(&conversation.place, &advertisement)?;
        conversation.advertisement = Arc::new(advertisement);
        Ok(conversation)
    }

    async fn say(&self, request: Vec<u8>, deadline: Instant) -> Result<(), Failure> {
        let within = deadline.min(Instant::now() + IDLE_TIMEOUT);
        match timeout_at(within, self.channel.data_bytes(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Failure::transient(format!("{} broke the connection off: {error}", self.place)))
            }
            Err(_) => Err(self.too_slow()),
        }
    }

    /// One message: everything up to a flush.
    async fn hear(&mut self, deadline: Instant) -> Result<Bytes, Failure> {
        let mut scanned = 0;
        loop {
            match message_end(&self.buffer, &mut scanned) {
                Ok(Some(end)) => return Ok(self.buffer.split_to(end).freeze()),
                Ok(None) => {}
                Err(error) => return Err(self.protocol_failure(&ProtocolError::from(error))),
            }
            if self.buffer.len() > LIST_LIMIT {
                let message =
                    format!("the list of references is longer than {}", display_size(LIST_LIMIT as u64));
                return Err(Failure::rejected(Rejection::Limits, message));
            }
            match self.receive(deadline).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => {
                    // Old servers say why in the protocol's own way, and nothing after it.
                    return Err(match parse_advertisement(&self.buffer) {
                        Err(error @ ProtocolError::Refused(_)) => self.protocol_failure(&error),
                        _ => self.ended_early(),
                    });
                }
            }
        }
    }

    /// The next bytes; `None` at the end.
    async fn chunk(&mut self, deadline: Instant) -> Result<Option<Bytes>, Failure> {
        if !self.buffer.is_empty() {
            return Ok(Some(self.buffer.split().freeze()));
        }
        self.receive(deadline).await
    }

    async fn receive(&mut self, deadline: Instant) -> Result<Option<Bytes>, Failure> {
        loop {
            let within = deadline.min(Instant::now() + IDLE_TIMEOUT);
            let Ok(message) = timeout_at(within, self.channel.wait()).await else {
                return Err(self.too_slow());
            };
            match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => return Ok(Some(data)),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = WORDS_LIMIT.saturating_sub(self.words.len());
                    self.words.extend_from_slice(&data[..room.min(data.len())]);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.exit_status = Some(exit_status),
                Some(ChannelMsg::Failure) => {
                    let message = format!("{} does not let this user run `git-upload-pack`", self.place);
                    return Err(Failure::new(ErrorClass::Forbidden, message));
                }
                // After the end of the data the status and the last words may still come.
                Some(ChannelMsg::Close) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    fn too_slow(&self) -> Failure {
        Failure::transient(format!("{} does not answer in time", self.place))
    }

    fn protocol_failure(&self, error: &ProtocolError) -> Failure {
        let place = &self.place;
        match error {
            ProtocolError::Framing(_) => {
                Failure::rejected(Rejection::Shape, format!("{place} does not answer like a Git server"))
                    .with_help("a login shell that prints something, or no shell at all, does this")
            }
            ProtocolError::Refused(reason) if !reason.contains("not our ref") => {
                refusal(place, reason, None).unwrap_or_else(|| protocol_failure(place, error))
            }
            error => protocol_failure(place, error),
        }
    }

    /// The server's command ended before its answer did.
    fn ended_early(&self) -> Failure {
        let place = &self.place;
        let words = for_people(&self.words);
        if words.contains("not our ref") {
            return protocol_failure(place, &ProtocolError::Refused(words));
        }
        refusal(place, &words, self.exit_status).unwrap_or_else(|| {
            let said = if words.is_empty() { "without a word".to_owned() } else { format!("with: {words}") };
            Failure::transient(format!("{place} ended early, {said}"))
        })
    }
}

/// What the words of a server mean that serves nothing. There are no codes for it: these are what `git-upload-pack`, shells
/// and the common forges say.
fn refusal(place: &str, words: &str, exit_status: Option<u32>) -> Option<Failure> {
    let lower = words.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    if exit_status == Some(127) || says(&["command not found"]) {
        // Whoever looks after the server can mend that, and nobody may think of this agent then.
        return Some(
            Failure::transient(format!("{place} has no `git-upload-pack`: {words}"))
                .with_help("install Git on the server; until then what was read last stays in use"),
        );
    }
    if says(&[
        "not found",
        "does not appear to be a git repository",
        "does not exist",
        "no such",
        "could not be found",
        "cannot find repository",
    ]) {
        let message = format!("{place} is not there, or this key may not see it: {words}");
        return Some(Failure::new(ErrorClass::NotFound, message));
    }
    if says(&["denied", "permission", "not allowed", "unauthorized", "not authorized", "dubious ownership"]) {
        return Some(
            Failure::new(ErrorClass::Forbidden, format!("{place} may not be read with this key: {words}"))
                .with_help("the key needs permission to read the repository"),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_servers_have_classes() {
        let class = |words: &str, status| refusal("x", words, status).map(|failure| failure.class);
        for words in [
            "ERROR: Repository not found.",
            "fatal: '/x' does not appear to be a git repository",
            "Gitea: Repository does not exist",
            "The project you were looking for could not be found or you don't have permission to view it.",
        ] {
            assert_eq!(class(words, Some(128)), Some(ErrorClass::NotFound), "{words}");
        }
        for words in ["access denied", "fatal: detected dubious ownership in repository at '/x'"] {
            assert_eq!(class(words, None), Some(ErrorClass::Forbidden), "{words}");
        }
        assert_eq!(class("bash: git-upload-pack: command not found", None), Some(ErrorClass::Transient));
        assert_eq!(class("", Some(127)), Some(ErrorClass::Transient));
        assert_eq!(class("try again later", Some(1)), None);
    }
}
