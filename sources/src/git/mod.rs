//! The Git source: asks which commit a reference names, fetches exactly that commit into a bare
//! repository, and reads the selected files from the object database.

mod accepted;
mod commit;
mod fetch;
mod gitmodules;
mod history;
mod local;
mod pack_guard;
mod pinned;
mod pkt_line;
mod protocol;
mod reference;
mod refusal;
mod repository;
mod signed;
mod ssh;
mod submodules;
mod tree;
mod verification;
mod version_range;
mod vouch;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use url::Url;

use self::accepted::{Accepted, AcceptedFile};
use self::local::LocalWire;
use self::protocol::RemoteReference;
use self::reference::{Resolved, Wanted, short};
use self::refusal::Refusal;
use self::repository::{CloneDirectory, ReadError};
use self::ssh::{SshAddress, SshWire, is_scp_like};
use self::submodules::Family;
use self::tree::Depth;
use self::verification::{Verification, check_verify};
use self::wire::{HttpWire, RemoteWire};
use crate::SourceEnvironment;
use crate::connection::Connection;
use crate::error::{ErrorClass, Failure, Rejection, SourceError};
use crate::path::normalize_selected;
use crate::settings::{
    AuthSettings, GitSettings, HistoryPolicy, LimitSettings, SourceSettings, VerifySettings,
};
use crate::snapshot::{
    Notice, NoticeKind, Revision, Snapshot, SourceKind, SourceName, hexadecimal, tree_digest,
};
use crate::source::{BoxFuture, Poll, PollContext, Source, TreeEntry, Vouched};

pub use self::commit::{CommitError, read_commit};

/// Parsers of what servers send, for the fuzzer; not part of the interface.
#[doc(hidden)]
pub mod wire_format {
    pub use super::gitmodules::parse_modules;
    pub use super::pack_guard::is_harmless;
    pub use super::pkt_line::{FramingError, Packet, PacketReader, message_end};
    pub use super::protocol::{
        Advertisement, FetchReader, FetchRequest, ProtocolError, RemoteReference, encode_fetch,
        encode_ls_refs, parse_advertisement, parse_ls_refs,
    };
    pub use super::signed::has_signature;
    pub use super::ssh::known_hosts::KnownHosts;
    pub use super::version_range::{VersionRange, version_of};
}

const INTERVAL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_TIMEOUT: Duration = Duration::from_secs(300);
/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A Git repository as a source.
#[derive(Debug)]
pub struct GitSource {
    name: SourceName,
    settings: Settings,
    wire: Wire,
    clone: CloneDirectory,
    accepted: AcceptedFile,
    /// What submodules are reached with, where they are read.
    family: Option<Family>,
    /// One poll at a time works in the repository.
    busy: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// A module in a Git repository: what `import.git` names.
#[derive(Clone, Debug)]
pub struct GitModule {
    /// The name of the source.
    pub name: SourceName,
    /// Where the repository is, without credentials.
    pub repository: String,
    /// A tag, else a branch, else a commit in full.
    pub revision: String,
    /// A file, or a folder whose own `*.alloy` files are read.
    pub path: String,
    /// Who reads it.
    pub auth: Option<AuthSettings>,
    /// How long to wait between two polls; `None`: it is read once and not looked for again.
    pub interval: Option<Duration>,
}

#[derive(Debug)]
struct Settings {
    git: GitSettings,
    wanted: Wanted,
    paths: Vec<String>,
    depth: Depth,
    /// Once it was read, only a request makes it be looked for again.
    once: bool,
    limits: LimitSettings,
    history: HistoryPolicy,
    verify: VerifySettings,
    interval: Duration,
    timeout: Option<Duration>,
    required: bool,
    /// Identifies what is selected; another selection is another snapshot of the same commit.
    selection: String,
    description: String,
    host: Option<String>,
}

#[derive(Debug, Default)]
struct Memory {
    /// What was refused: it is not fetched again to be refused again.
    refused: Option<Refusal>,
    /// A commit that a person accepts although history says no.
    accepted: Option<String>,
    /// Whether a commit was read.
    read: bool,
    /// The branch behind `HEAD` at the last poll.
    default_branch: Option<String>,
    /// A pinned commit that the branch was seen to contain.
    contained: Option<String>,
}

#[derive(Debug)]
enum Wire {
    Remote(Arc<RemoteWire>),
    Local(LocalWire),
}

impl GitSource {
    /// A source by its settings; does no input or output.
    ///
    /// # Errors
    /// [`ErrorClass::Stalled`]: an address or reference that cannot work.
    pub fn open(settings: &SourceSettings, environment: &SourceEnvironment) -> Result<Self, SourceError> {
        let name = settings.source_name();
        Self::build(settings, environment, name.clone()).map_err(|failure| failure.of(&name))
    }

    fn build(
        settings: &SourceSettings,
        environment: &SourceEnvironment,
        name: SourceName,
    ) -> Result<Self, Failure> {
        let git = settings.git.clone().ok_or_else(|| Failure::stalled("the settings have no `git`"))?;
        let wanted = Wanted::new(&git)?;
        check_verify(&settings.verify, &wanted)?;
        Self::assemble(settings, git, wanted, Depth::All, environment, name)
    }

    /// A module as a source; does no input or output.
    ///
    /// # Errors
    /// [`ErrorClass::Stalled`]: an address or revision that cannot work.
    pub fn for_module(module: &GitModule, environment: &SourceEnvironment) -> Result<Self, SourceError> {
        let assembled = || {
            let wanted = Wanted::revision(&module.revision)?;
            // A tag that moves is followed, as Alloy does; the notice says so.
            let git = GitSettings {
                url: module.repository.clone(),
                allow_tag_move: true,
                ..GitSettings::default()
            };
            let mut settings = SourceSettings::for_git(git.clone());
            settings.path = vec![module.path.clone()];
            settings.auth.clone_from(&module.auth);
            settings.interval = module.interval;
            settings.optional = true;
            let mut source =
                Self::assemble(&settings, git, wanted, Depth::Own, environment, module.name.clone())?;
            source.settings.once = module.interval.is_none();
            Ok(source)
        };
        assembled().map_err(|failure: Failure| failure.of(&module.name))
    }

    fn assemble(
        settings: &SourceSettings,
        git: GitSettings,
        wanted: Wanted,
        depth: Depth,
        environment: &SourceEnvironment,
        name: SourceName,
    ) -> Result<Self, Failure> {
        let paths: Result<Vec<String>, Failure> =
            settings.path.iter().map(|path| normalize_selected(path)).collect();
        let paths = paths?;
        let (wire, host) = open_wire(settings, &git, environment)?;
        let identity = settings.auth.as_ref().map_or_else(String::new, AuthSettings::identity);
        let clone = CloneDirectory::new(&environment.state_directory, &git.url, &identity);
        let accepted =
            AcceptedFile::new(&environment.state_directory, name.as_str(), &git.url, &wanted.describe());
        let mut selection = format!("{} {wanted:?} {paths:?} {:?}", git.url, settings.limits);
        if depth == Depth::Own {
            selection.push_str(" own");
        }
        let family = Family::of(settings, &git, environment);
        if family.is_some() {
            selection.push_str(" submodules");
        }
        if family.is_some() && matches!(wire, Wire::Local(_)) {
            return Err(Failure::stalled("`git.submodules` is for repositories behind a server"));
        }
        let settings = Settings {
            description: format!("{} {}", git.url, wanted.describe()),
            selection: hexadecimal(&Sha256::digest(selection)),
            interval: settings.interval.unwrap_or(INTERVAL),
            timeout: settings.timeout,
            required: !settings.optional,
            history: settings.history,
            verify: settings.verify.clone(),
            limits: settings.limits,
            git,
            wanted,
            paths,
            depth,
            once: false,
            host,
        };
        Ok(Self {
            name,
            settings,
            wire,
            clone,
            accepted,
            family,
            busy: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        })
    }

    /// A failure as others may see it.
    async fn shown(&self, failure: Failure) -> SourceError {
        match &self.wire {
            Wire::Remote(wire) => wire.without_credentials(failure).await,
            Wire::Local(_) => failure,
        }
        .of(&self.name)
    }

    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, Failure> {
        let _busy = self.busy.lock().await;
        let previous = previous.filter(|snapshot| snapshot.kind == SourceKind::Git);
        let trust = self.trust().await?;
        let selection = self.selection(trust.as_deref());
        let held = previous.filter(|snapshot| snapshot.selection == selection);
        let resolved = match &self.settings.wanted {
            Wanted::Commit { id, branch } => Resolved {
                name: branch
                    .as_deref()
                    .map_or_else(|| id[..12].to_owned(), |branch| short(branch).to_owned()),
                object: id.clone(),
                commit: id.clone(),
                is_tag: false,
                target: None,
            },
            wanted => self.resolve(wanted, context).await?,
        };
        let mut notices = Vec::new();
        self.note_default_branch(&resolved, &mut notices);
        if let Some(held) = held
            && held.revision.commit.as_ref() == Some(&resolved.commit)
            && held.revision.object.as_ref().is_none_or(|object| *object == resolved.object)
            && notices.is_empty()
        {
            let mut memory = self.memory.lock();
            memory.refused = None;
            memory.default_branch.clone_from(&resolved.target);
            return Ok(Poll::Unchanged);
        }
        let before = match previous {
            Some(snapshot) => Accepted::of(&snapshot.revision, snapshot.trust.as_deref()),
            None => self.recall().await?,
        };
        self.check_tag(before.as_ref(), &resolved, &mut notices)?;
        let refused = self.memory.lock().refused.clone();
        if let Some(refused) = refused.filter(|refused| refused.holds(&resolved, &selection, context.now)) {
            return Err(refused.failure);
        }
        let verification = trust.map(|trust| Verification {
            settings: self.settings.verify.clone(),
            trust,
            now: context.now,
        });
        let outcome = self.take(before.as_ref(), &resolved, notices, verification, context).await;
        if let Err(failure) = &outcome
            && matches!(failure.class, ErrorClass::Rejected(_))
        {
            let (object, commit) = (resolved.object.clone(), resolved.commit.clone());
            let refusal = Refusal {
                object,
                commit,
                selection: selection.clone(),
                at: context.now,
                failure: failure.clone(),
            };
            self.memory.lock().refused = Some(refusal);
        } else if outcome.is_ok() {
            self.memory.lock().refused = None;
        }
        if outcome.is_ok() {
            let mut memory = self.memory.lock();
            memory.read = true;
            // It was for this step alone: whoever sets the branch back there once more asks once more.
            memory.accepted = None;
            memory.default_branch.clone_from(&resolved.target);
        }
        let snapshot = Snapshot { selection, ..outcome? };
        self.keep_accepted(&snapshot).await;
        Ok(Poll::Changed(Box::new(snapshot)))
    }

    /// Fetches and reads the commit, makes the repository afresh once if it is damaged, and looks at how
    /// the branch moved.
    async fn take(
        &self,
        before: Option<&Accepted>,
        resolved: &Resolved,
        mut notices: Vec<Notice>,
        verification: Option<Verification>,
        context: &PollContext,
    ) -> Result<Snapshot, Failure> {
        let old = before.map(|before| before.commit.as_str());
        let mut reading = match self.fetch_and_read(&resolved.commit, old, context).await {
            Ok(reading) => reading,
            Err(ReadError::Failed(failure)) => return Err(failure),
            Err(ReadError::Damaged(reason)) => {
                self.blocking(|clone| clone.wipe()).await?;
                let message = format!("the local copy was damaged and is fetched afresh: {reason}");
                notices.push(Notice { kind: NoticeKind::ClonedAfresh, message });
                self.fetch_and_read(&resolved.commit, None, context).await.map_err(|error| match error {
                    ReadError::Failed(failure) => failure,
                    ReadError::Damaged(reason) => Failure::transient(format!(
                        "{} sends a commit that is not complete: {reason}",
                        self.settings.git.url
                    )),
                })?
            }
        };
        if let Wire::Remote(wire) = &self.wire {
            if wire.is_insecure() {
                let message = format!("{} is reached without encryption", self.settings.git.url);
                notices.push(Notice { kind: NoticeKind::InsecureTransport, message });
            }
            if let Some(place) = wire.redirected_to() {
                let message = format!("{} has moved to {place}; update the address", self.settings.git.url);
                notices.push(Notice { kind: NoticeKind::Redirected, message });
            }
        }
        let same_reference =
            before.is_some_and(|before| before.reference.as_deref() == Some(resolved.name.as_str()));
        let follows_branch = !resolved.is_tag && !matches!(self.settings.wanted, Wanted::Commit { .. });
        if let Some(old) = old.filter(|old| *old != resolved.commit && same_reference && follows_branch) {
            self.check_history(old, &resolved.commit, &reading, &mut notices, context).await?;
        }
        self.follow_submodules(&mut reading, &resolved.commit, context).await?;
        let pin = self.follow_pin(&mut reading, &resolved.commit, context).await?;
        let signer = match &verification {
            Some(verification) => {
                Some(self.verify(verification, resolved, old, pin.as_deref(), context).await?)
            }
            None => None,
        };
        notices.extend(reading.notices);
        let mut revision = Revision::git(&resolved.name, &resolved.commit);
        if let Some(pin) = pin {
            revision.pin(&pin);
        }
        revision.object = Some(resolved.object.clone());
        Ok(Snapshot {
            source: self.name.clone(),
            kind: SourceKind::Git,
            revision,
            digest: tree_digest(&reading.files),
            files: reading.files,
            paths: self.settings.paths.clone(),
            selection: String::new(),
            author: reading.author,
            subject: reading.subject,
            signer: signer.map(|signer| signer.principal),
            trust: verification.map(|verification| verification.trust.digest().to_owned()),
            committed_at: reading.committed_at,
            fetched_at: context.now,
            notices,
        })
    }

    async fn resolve(&self, wanted: &Wanted, context: &PollContext) -> Result<Resolved, Failure> {
        let references = self.list(wanted.candidates(), context).await?;
        if let Some(resolved) = wanted.resolve(&references).or_else(|| wanted.as_commit()) {
            return Ok(resolved);
        }
        // Only now, when something is wrong anyway, is the whole list asked for: to say what there is.
        let all = self.list(vec!["refs/heads/".to_owned(), "refs/tags/".to_owned()], context).await?;
        let url = &self.settings.git.url;
        if all.is_empty() {
            return Err(Failure::rejected(Rejection::EmptySource, format!("{url} has no commits yet")));
        }
        let what = wanted.describe();
        if let Wanted::Semver(range) = wanted {
            let message = format!("{url} has no tag in the range `{range}`; the last good revision stays");
            return Err(Failure::new(ErrorClass::NotFound, message)
                .with_help("tags are versions such as v1.2.3; pre-releases need a range that names one"));
        }
        let failure = Failure::new(
            ErrorClass::NotFound,
            format!("{url} has no `{what}`; the last good revision stays"),
        );
        let names = all.iter().map(|reference| short(&reference.name));
        Err(match invar_syntax::nearest(&what, names) {
            Some(near) => failure.with_help(format!("did you mean `{near}`?")),
            None => failure,
        })
    }

    async fn list(
        &self,
        prefixes: Vec<String>,
        context: &PollContext,
    ) -> Result<Vec<RemoteReference>, Failure> {
        match &self.wire {
            Wire::Remote(wire) => wire.list(&prefixes, context).await,
            Wire::Local(wire) => {
                let wire = wire.clone();
                let mut references = blocking(move || wire.list()).await?;
                references
                    .retain(|reference| prefixes.iter().any(|prefix| reference.name.starts_with(prefix)));
                Ok(references)
            }
        }
    }

    fn note_default_branch(&self, resolved: &Resolved, notices: &mut Vec<Notice>) {
        let Some(target) = &resolved.target else { return };
        // It is remembered with what was read there: a poll that fails meanwhile does not take the notice away.
        let before = self.memory.lock().default_branch.clone();
        if let Some(before) = before.filter(|before| before != target) {
            let message =
                format!("the default branch is now `{}`, it was `{}`", short(target), short(&before));
            notices.push(Notice { kind: NoticeKind::DefaultBranchChanged, message });
        }
    }

    fn check_tag(
        &self,
        before: Option<&Accepted>,
        resolved: &Resolved,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Failure> {
        let before = before
            .filter(|before| before.reference.as_deref() == Some(resolved.name.as_str()))
            .and_then(|before| before.object.as_deref());
        let Some(before) = before.filter(|before| resolved.is_tag && *before != resolved.object) else {
            return Ok(());
        };
        let (name, now) = (&resolved.name, &resolved.object);
        let message = format!("the tag `{name}` named {before:.12} and now names {now:.12}");
        if self.settings.git.allow_tag_move {
            notices.push(Notice { kind: NoticeKind::TagMoved, message });
            return Ok(());
        }
        Err(Failure::rejected(Rejection::TagMoved, message)
            .with_help("make a new tag, or set `git.allow_tag_move = true`"))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CloneDirectory) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let clone = self.clone.clone();
        blocking(move || work(&clone)).await
    }

    async fn blocking_read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CloneDirectory) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let clone = self.clone.clone();
        match tokio::task::spawn_blocking(move || work(&clone)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::transient("reading the repository was interrupted").into()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::transient("work on the repository was interrupted")),
    }
}

/// Chooses how the repository is reached; gives the host as well, where there is one.
fn open_wire(
    settings: &SourceSettings,
    git: &GitSettings,
    environment: &SourceEnvironment,
) -> Result<(Wire, Option<String>), Failure> {
    let url = git.url.as_str();
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("https" | "http") => {
            let parsed = Url::parse(url).map_err(|_| {
                Failure::stalled(format!("`git.url` is not an address: {}", crate::redact(url)))
            })?;
            if !parsed.username().is_empty() || parsed.password().is_some() {
                return Err(Failure::stalled("`git.url` holds a credential; move it to `auth`"));
            }
            let host = parsed.host_str().map(str::to_owned);
            let agent = concat!("git/2 (invar ", env!("CARGO_PKG_VERSION"), ")");
            let connection = Connection::new(parsed, settings, agent, environment)?;
            let wire = RemoteWire::Http(Box::new(HttpWire::new(connection)));
            Ok((Wire::Remote(Arc::new(wire)), host))
        }
        _ if is_ssh(url) => {
            let address = SshAddress::parse(url)?;
            let host = Some(address.host.clone());
            let wire = RemoteWire::Ssh(Box::new(SshWire::new(address, settings, environment)?));
            Ok((Wire::Remote(Arc::new(wire)), host))
        }
        Some("file") | None => {
            if settings.auth.is_some() || settings.tls.is_some() || settings.proxy.is_some() {
                return Err(Failure::stalled("a repository on this host needs no `auth`, `tls` or `proxy`"));
            }
            // Sources of one repository share a clone; as its own host they take turns in it.
            Ok((Wire::Local(LocalWire { url: url.to_owned() }), Some(url.to_owned())))
        }
        Some(other) => Err(Failure::stalled(format!("`git.url` has the unknown scheme `{other}`"))
            .with_help("there are https://, http://, ssh://, file:// and paths")),
    }
}

/// The host and port of a repository behind SSH; `None` for every other address.
#[must_use]
pub fn ssh_host(url: &str) -> Option<(String, u16)> {
    let address = is_ssh(url).then(|| SshAddress::parse(url))?.ok()?;
    Some((address.host, address.port))
}

/// Whether the address is one of SSH: by its scheme, or in the form `user@host:path`.
fn is_ssh(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh") || scheme.eq_ignore_ascii_case("git+ssh"),
        None => is_scp_like(url),
    }
}

impl Source for GitSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Git
    }

    fn description(&self) -> String {
        self.settings.description.clone()
    }

    fn interval(&self) -> Duration {
        if self.settings.once && self.memory.lock().read { NEVER } else { self.settings.interval }
    }

    fn timeout(&self, first: bool) -> Duration {
        self.settings.timeout.unwrap_or(if first { FIRST_TIMEOUT } else { TIMEOUT })
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let result = context.bound(&self.settings.git.url, self.look(previous, context)).await;
            if let Wire::Remote(wire) = &self.wire {
                wire.rest().await;
            }
            match result {
                Ok(poll) => Ok(poll),
                Err(failure) => Err(self.shown(failure).await),
            }
        })
    }

    fn read<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        path: &'a str,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, SourceError>> {
        Box::pin(async move {
            // What is selected may be of a pinned commit; then that is what its neighbours see of it too.
            if let Some(content) = snapshot.files.get(path) {
                return Ok(Some(TreeEntry::File(content.clone())));
            }
            let Some(commit) = &snapshot.revision.commit else {
                return Ok(TreeEntry::among(&snapshot.files, path));
            };
            let read = context.bound(&self.settings.git.url, self.read_of(commit, path, context)).await;
            if let Wire::Remote(wire) = &self.wire {
                wire.rest().await;
            }
            match read {
                Ok(entry) => Ok(entry),
                Err(failure) => Err(self.shown(failure).await),
            }
        })
    }

    fn vouch<'a>(
        &'a self,
        revision: &'a str,
        trust: Option<&'a str>,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<Vouched, SourceError>> {
        Box::pin(async move {
            self.vouch_for(revision, trust, now).await.map_err(|failure| failure.of(&self.name))
        })
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        self.settings.required
    }

    fn host(&self) -> Option<&str> {
        self.settings.host.as_deref()
    }

    fn accept_history(&self, commit: &str) -> Option<String> {
        let mut memory = self.memory.lock();
        let accepted = memory.refused.take_if(|refused| refused.waits_for(commit))?.commit;
        memory.accepted = Some(accepted.clone());
        Some(accepted)
    }
}
