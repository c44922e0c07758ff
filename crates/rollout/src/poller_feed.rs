//! The poller of `invar-sources` as the reconciler's feed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use invar_sources::{
    ErrorClass, PollContext, Poller, Snapshot, SourceError, SourceName, SourceStatus, SourcesState,
    TreeEntry, Vouched,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::feed::{Origin, SnapshotFeed, SourceContent, SourceView};
use crate::pipeline::Failure;
use crate::source_detail::{ContentDetail, NoticeDetail, SourceDetail};
use crate::status::{SourceChecks, SourceErrorState, SourceState};
use crate::time::Timestamp;

/// How long reading in a tree may take: its objects may have to be fetched once more.
const READ_DEADLINE: Duration = Duration::from_secs(15);

/// A poller, seen as a feed.
#[derive(Debug)]
pub struct PollerFeed {
    poller: Poller,
    views: watch::Receiver<Arc<Vec<SourceView>>>,
    changes: watch::Receiver<u64>,
    _task: DropGuard,
}

impl PollerFeed {
    /// Follows `poller` until the feed is dropped. Must be called within a runtime.
    #[must_use]
    pub fn new(poller: Poller) -> Arc<Self> {
        let mut states = poller.subscribe();
        let (views, seen) = watch::channel(Arc::new(views_of(&poller, &states.borrow_and_update())));
        let (changes, noticed) = watch::channel(0);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let of = poller.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    changed = states.changed() => if changed.is_err() { return },
                }
                let state = Arc::clone(&states.borrow_and_update());
                views.send_replace(Arc::new(views_of(&of, &state)));
                changes.send_modify(|count| *count += 1);
            }
        });
        Arc::new(Self { poller, views: seen, changes: noticed, _task: stop.drop_guard() })
    }
}

impl SnapshotFeed for PollerFeed {
    fn sources(&self) -> Vec<SourceView> {
        self.views.borrow().as_ref().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    fn read<'a>(
        &'a self,
        source: &'a str,
        revision: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>> {
        Box::pin(read(&self.poller, source, revision, path))
    }

    fn detail(&self, name: &str) -> Option<SourceDetail> {
        let name = SourceName::new(name);
        let state = self.poller.state();
        let source = state.get(&name)?;
        Some(detail_of(&self.poller, source))
    }

    fn vouch<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let mut doubts = Vec::new();
            for origin in origins {
                let Some(source) = self.poller.source(&SourceName::new(origin.source.as_str())) else {
                    continue;
                };
                if source.kind().as_str() != origin.kind {
                    continue;
                }
                let vouched = source.vouch(&origin.revision, origin.trust.as_deref(), SystemTime::now());
                match vouched.await.map_err(|error| failure_of(&error))? {
                    Vouched::Trusted => {}
                    Vouched::Doubted(reason) => doubts.push(format!("{}: {reason}", origin.source)),
                }
            }
            Ok(doubts)
        })
    }

    fn accept_history(&self, commit: &str) -> Vec<String> {
        self.poller.accept_history(commit).iter().map(ToString::to_string).collect()
    }

    fn reconcile<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let names: Vec<SourceName> = names.iter().map(|name| SourceName::new(name.as_str())).collect();
            let answered = self.poller.reconcile_now(&names).await.map_err(|error| error.to_string())?;
            // The poller has answered; the view of it follows a moment later.
            let mut views = self.views.clone();
            let current = |views: &Arc<Vec<SourceView>>| covers(views, &answered);
            drop(tokio::time::timeout(Duration::from_secs(5), views.wait_for(current)).await);
            Ok(())
        })
    }
}

/// Reads in the tree of a snapshot that `poller` holds.
///
/// # Errors
/// The source has moved on from `revision`, or what is there cannot be read.
pub async fn read(
    poller: &Poller,
    source: &str,
    revision: &str,
    path: &str,
) -> Result<Option<TreeEntry>, Failure> {
    let name = SourceName::new(source);
    let state = poller.state();
    let snapshot = state.get(&name).and_then(|state| state.snapshot.clone());
    let snapshot = snapshot.filter(|snapshot| snapshot.revision.text == revision);
    let (Some(snapshot), Some(source)) = (snapshot, poller.source(&name)) else {
        return Err(Failure::environment(format!("{source} has moved on from {revision}")));
    };
    let context = PollContext {
        deadline: tokio::time::Instant::now() + READ_DEADLINE,
        cancellation: CancellationToken::new(),
        now: SystemTime::now(),
    };
    source.read(&snapshot, path, &context).await.map_err(|error| failure_of(&error))
}

/// Whether `views` shows at least the snapshots of `state`.
fn covers(views: &[SourceView], state: &SourcesState) -> bool {
    state.sources.iter().zip(views).all(|(source, view)| match (&source.snapshot, &view.content) {
        (Some(snapshot), Some(content)) => content.origin.revision == snapshot.revision.text,
        (None, _) => true,
        (Some(_), None) => false,
    })
}

/// How a source is doing, as the status shows it.
#[must_use]
pub fn state_of(status: &SourceStatus) -> SourceState {
    SourceState {
        name: status.name.to_string(),
        kind: status.kind.to_string(),
        revision: status.revision.as_ref().map(|revision| revision.text.clone()),
        checked: status.checked.map(timestamp),
        changed: status.changed.map(timestamp),
        error: status.error.as_ref().map(|error| SourceErrorState {
            class: error.class.as_str().to_owned(),
            message: {
                let next = error.help.as_deref().unwrap_or_else(|| error.class.outlook());
                format!("{}; {next}", error.message)
            },
            since: timestamp(error.since),
            rejection: match error.class {
                ErrorClass::Rejected(rejection) => Some(rejection.as_str().to_owned()),
                _ => None,
            },
        }),
        checks: SourceChecks {
            total: status.polls,
            changed: status.changes,
            failed: status.failures,
            aborted: status.aborted,
            millis: u64::try_from(status.spent.as_millis()).unwrap_or(u64::MAX),
        },
        alarm: status.alarm,
    }
}

/// Everything that is known of a source.
fn detail_of(poller: &Poller, source: &invar_sources::SourceState) -> SourceDetail {
    let status = &source.status;
    SourceDetail {
        description: status.description.clone(),
        required: status.required,
        polling: status.polling,
        interval_seconds: poller.source(&status.name).map(|source| source.interval().as_secs()),
        next: status.next.map(timestamp),
        missing_polls: status.missing_polls,
        help: status.error.as_ref().and_then(|error| error.help.clone()),
        content: source.snapshot.as_deref().map(|snapshot| ContentDetail {
            digest: snapshot.digest.clone(),
            files: snapshot.files.len(),
            bytes: snapshot.files.values().map(|content| content.len() as u64).sum(),
            paths: snapshot.paths.clone(),
            author: snapshot.author.clone(),
            subject: snapshot.subject.clone(),
            signer: snapshot.signer.clone(),
            committed: snapshot.committed_at.map(timestamp),
            fetched: timestamp(snapshot.fetched_at),
            notices: snapshot
                .notices
                .iter()
                .map(|notice| NoticeDetail { kind: notice.kind, message: notice.message.clone() })
                .collect(),
        }),
        ..SourceDetail::of(state_of(status))
    }
}

/// A failure of a source as a failure of what needs it: content that was refused is at fault itself.
#[must_use]
pub fn failure_of(error: &SourceError) -> Failure {
    let failure = match error.class {
        ErrorClass::Rejected(_) | ErrorClass::Stalled => Failure::content(error.message.clone()),
        _ => Failure::environment(error.message.clone()),
    };
    Failure { help: error.help.clone(), ..failure }
}

fn views_of(poller: &Poller, state: &SourcesState) -> Vec<SourceView> {
    let view = |source: &invar_sources::SourceState| {
        let status = &source.status;
        SourceView {
            state: state_of(status),
            required: status.required,
            atomic: source.atomic,
            content: source.snapshot.as_deref().map(|snapshot| {
                let module_path = poller.source(&status.name).map(|source| source.module_path(snapshot));
                Arc::new(content_of(snapshot, module_path.unwrap_or_default()))
            }),
        }
    };
    state.sources.iter().map(view).collect()
}

/// The files of a snapshot, in the order of the paths that select them.
fn content_of(snapshot: &Snapshot, module_path: String) -> SourceContent {
    let rank = |file: &str| {
        let below = |path: &String| {
            file == path || file.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        snapshot.paths.iter().position(below).unwrap_or(snapshot.paths.len())
    };
    let mut files: Vec<_> =
        snapshot.files.iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
    files.sort_by_key(|(path, _)| rank(path));
    SourceContent {
        origin: Origin {
            source: snapshot.source.to_string(),
            kind: snapshot.kind.to_string(),
            revision: snapshot.revision.text.clone(),
            digest: snapshot.digest.clone(),
            author: snapshot.author.clone(),
            subject: snapshot.subject.clone(),
            signer: snapshot.signer.clone(),
            trust: snapshot.trust.clone(),
            module_path,
        },
        files,
        paths: snapshot.paths.clone(),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
