//! The loader of modules, seen as the reconciler sees it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use invar_components_remote::{LoadedModule, ModuleLoader};
use invar_engine::modules::{ImportRequest, ModuleKey};
use invar_rollout::{Failure, FailureClass, ModuleFeed, ModuleView, read_in_tree, state_of};
use invar_sources::{ErrorClass, TreeEntry};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A loader with the notices of its changes.
#[derive(Debug)]
pub(crate) struct LoaderFeed {
    loader: Arc<ModuleLoader>,
    changes: watch::Receiver<u64>,
    _task: DropGuard,
}

impl LoaderFeed {
    /// Must be called within a runtime.
    pub(crate) fn new(loader: Arc<ModuleLoader>) -> Arc<Self> {
        let mut states = loader.subscribe();
        states.mark_unchanged();
        let (sender, changes) = watch::channel(0);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // Ends with the feed, or with the loader.
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    changed = states.changed() => if changed.is_err() { return },
                }
                states.mark_unchanged();
                sender.send_modify(|count| *count += 1);
            }
        });
        Arc::new(Self { loader, changes, _task: stop.drop_guard() })
    }
}

impl ModuleFeed for LoaderFeed {
    fn follow(&self, requests: &[ImportRequest]) {
        self.loader.follow(requests);
    }

    fn modules(&self) -> Vec<ModuleView> {
        self.loader.modules().into_iter().map(view).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    fn read<'a>(
        &'a self,
        key: &'a ModuleKey,
        revision: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>> {
        Box::pin(async move {
            let Some(name) = self.loader.name_of(key) else {
                return Err(Failure::environment("the module is not followed any more"));
            };
            read_in_tree(self.loader.poller(), name.as_str(), revision, path).await
        })
    }

    fn reconcile<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.loader.reconcile(name).await.is_ok() })
    }
}

fn view(module: LoadedModule) -> ModuleView {
    let mut state = state_of(&module.status);
    state.kind = module.kind.to_string();
    let failure = module.status.error.as_ref().map(|error| Failure {
        class: match error.class {
            ErrorClass::Stalled | ErrorClass::Rejected(_) => FailureClass::Content,
            _ => FailureClass::Environment,
        },
        message: error.message.clone(),
        help: error.help.clone(),
        file: None,
        line: None,
    });
    ModuleView { key: module.key, state, atomic: module.atomic, content: module.content, failure }
}
