//! The poller of `invar-sources` as the reconciler's feed.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use invar_sources::{Poller, Snapshot, SourceName, SourcesState};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::feed::{Origin, SnapshotFeed, SourceContent, SourceView};
use crate::status::{SourceErrorState, SourceState};
use crate::time::Timestamp;

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
        let (views, seen) = watch::channel(Arc::new(views_of(&states.borrow_and_update())));
        let (changes, noticed) = watch::channel(0);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    changed = states.changed() => if changed.is_err() { return },
                }
                let state = Arc::clone(&states.borrow_and_update());
                views.send_replace(Arc::new(views_of(&state)));
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

    fn reconcile<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let names: Vec<SourceName> = names.iter().map(|name| SourceName::new(name.as_str())).collect();
            let answered = self.poller.reconcile_now(&names).await.map_err(|error| error.to_string())?;
            // The poller has answered; the view of it follows a moment later.
            let mut views = self.views.clone();
            let current = |views: &Arc<Vec<SourceView>>| covers(views, &answered);
            drop(tokio::time::timeout(std::time::Duration::from_secs(5), views.wait_for(current)).await);
            Ok(())
        })
    }
}

/// Whether `views` shows at least the snapshots of `state`.
fn covers(views: &[SourceView], state: &SourcesState) -> bool {
    state.sources.iter().zip(views).all(|(source, view)| match (&source.snapshot, &view.content) {
        (Some(snapshot), Some(content)) => content.origin.revision == snapshot.revision.text,
        (None, _) => true,
        (Some(_), None) => false,
    })
}

fn views_of(state: &SourcesState) -> Vec<SourceView> {
    let view = |source: &invar_sources::SourceState| {
        let status = &source.status;
        SourceView {
            state: SourceState {
                name: status.name.to_string(),
                kind: status.kind.to_string(),
                revision: status.revision.as_ref().map(|revision| revision.text.clone()),
                checked: status.checked.map(timestamp),
                changed: status.changed.map(timestamp),
                error: status.error.as_ref().map(|error| SourceErrorState {
                    class: error.class.as_str().to_owned(),
                    message: match &error.help {
                        Some(help) => format!("{}; {help}", error.message),
                        None => error.message.clone(),
                    },
                    since: timestamp(error.since),
                }),
            },
            required: status.required,
            atomic: source.atomic,
            content: source.snapshot.as_deref().map(|snapshot| Arc::new(content_of(snapshot))),
        }
    };
    state.sources.iter().map(view).collect()
}

/// The files of a snapshot, in the order of the paths that select them.
fn content_of(snapshot: &Snapshot) -> SourceContent {
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
        },
        files,
        paths: snapshot.paths.clone(),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
