//! A scripted feed of modules, for tests of the reconciler.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use invar_engine::modules::{ImportRequest, ModuleContent, ModuleFile, ModuleKey};
use invar_sources::TreeEntry;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::module::{ModuleFeed, ModuleView};
use crate::pipeline::Failure;
use crate::status::{SourceErrorState, SourceState};
use crate::time::Timestamp;

/// Modules by the label of their import.
#[derive(Debug)]
pub(crate) struct ScriptedModules {
    inner: Mutex<Script>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Script {
    followed: Vec<ImportRequest>,
    contents: BTreeMap<String, Arc<ModuleContent>>,
    failures: BTreeMap<String, Failure>,
    trees: BTreeMap<String, TreeEntry>,
}

impl ScriptedModules {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), changes: watch::Sender::new(0) })
    }

    /// The module called `label` is this text from now on.
    pub(crate) fn push(&self, label: &str, revision: &str, text: &str) {
        let content = ModuleContent {
            files: vec![ModuleFile {
                name: format!("{label}.alloy"),
                content: Bytes::copy_from_slice(text.as_bytes()),
            }],
            module_path: format!("/@{label}"),
            revision: revision.into(),
        };
        let mut script = self.inner.lock();
        script.contents.insert(label.into(), Arc::new(content));
        script.failures.remove(label);
        drop(script);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The module called `label` cannot be had from now on; what was had stays.
    pub(crate) fn fail(&self, label: &str, failure: Failure) {
        self.inner.lock().failures.insert(label.into(), failure);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The labels of what is followed.
    pub(crate) fn followed(&self) -> Vec<String> {
        self.inner.lock().followed.iter().map(|request| request.namespace.clone()).collect()
    }
}

impl ModuleFeed for ScriptedModules {
    fn follow(&self, requests: &[ImportRequest]) {
        self.inner.lock().followed = requests.to_vec();
        self.changes.send_modify(|count| *count += 1);
    }

    fn modules(&self) -> Vec<ModuleView> {
        let script = self.inner.lock();
        let view = |request: &ImportRequest| {
            let label = &request.namespace;
            let content = script.contents.get(label).cloned();
            let failure = script.failures.get(label).cloned();
            ModuleView {
                key: request.key.clone(),
                state: SourceState {
                    name: format!("{}.{label}", request.kind()),
                    kind: request.kind().to_string(),
                    revision: content.as_ref().map(|content| content.revision.clone()),
                    checked: None,
                    changed: None,
                    error: failure.as_ref().map(|failure| SourceErrorState {
                        class: "transient".into(),
                        message: failure.message.clone(),
                        since: Timestamp::from_millis(0),
                        rejection: None,
                    }),
                    checks: Default::default(),
                    alarm: false,
                },
                atomic: true,
                content,
                failure,
            }
        };
        script.followed.iter().map(view).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn read<'a>(
        &'a self,
        _key: &'a ModuleKey,
        _revision: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>> {
        let entry = self.inner.lock().trees.get(path).cloned();
        Box::pin(std::future::ready(Ok(entry)))
    }

    fn reconcile<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, bool> {
        let known = name.is_none_or(|name| self.modules().iter().any(|module| module.state.name == name));
        Box::pin(std::future::ready(known))
    }
}
