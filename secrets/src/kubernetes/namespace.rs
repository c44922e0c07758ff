//! The watch of a whole namespace, for many names of it at once. It begins with a list of names and versions, goes on from
//! the version of that, and after each end from where it was; only after 410 Gone it lists again. So its end, which comes
//! every few minutes, costs one request, whatever the number of names.

use std::convert::Infallible;

use tokio::time::Instant;

use super::api::{ApiError, KubernetesApi};
use super::object::{ObjectKind, WatchEvent, is_version};
use super::watch::{Ended, OPEN_TIMEOUT, WatchPauses};

/// Watches the Secrets of a namespace. Needs `list` and `watch` on all of them.
pub(super) struct NamespaceWatch {
    api: KubernetesApi,
    namespace: String,
}

/// What it tells.
pub(super) enum NamespaceNotice {
    /// All that there are, by name and version: sorted by the name.
    Listed(Vec<(String, String)>),
    /// It is open: whatever happens from the list on is told.
    Open,
    /// An object came or changed, and has this version; or it went, and has none.
    Changed(String, Option<String>),
    /// It is not open, and why: not allowed.
    Denied(String),
    /// It is not open, and why; it will be tried again soon, and misses nothing then.
    Interrupted(String),
}

impl NamespaceWatch {
    pub(super) fn new(api: KubernetesApi, namespace: &str) -> Self {
        Self { api, namespace: namespace.to_owned() }
    }

    /// Watches until the future is dropped, and tells what happens.
    pub(super) async fn follow(&self, mut notice: impl FnMut(NamespaceNotice) + Send) -> Infallible {
        let mut pauses = WatchPauses::default();
        let mut from = None;
        loop {
            let mut opened = None;
            let ended = Ended::of(self.events(&mut from, &mut opened, &mut notice).await);
            match &ended {
                Ended::InOrder => {}
                Ended::Expired => from = None,
                Ended::Denied(reason) => {
                    from = None;
                    notice(NamespaceNotice::Denied(reason.clone()));
                }
                Ended::Failed(reason) => notice(NamespaceNotice::Interrupted(reason.clone())),
            }
            tokio::time::sleep(pauses.after(&ended, opened)).await;
        }
    }

    async fn events(
        &self,
        from: &mut Option<String>,
        opened: &mut Option<Instant>,
        notice: &mut (impl FnMut(NamespaceNotice) + Send),
    ) -> Result<(), ApiError> {
        let version = match from {
            Some(version) => version.clone(),
            None => {
                let (version, listed) = self.list().await?;
                notice(NamespaceNotice::Listed(listed));
                from.insert(version).clone()
            }
        };
        let (kind, namespace) = (ObjectKind::Secret, self.namespace.as_str());
        let mut stream = self.api.watch(kind, namespace, None, Some(&version), OPEN_TIMEOUT).await?;
        *opened = Some(Instant::now());
        notice(NamespaceNotice::Open);
        while let Some(event) = stream.next().await? {
            let version = match event {
                WatchEvent::Changed { name, version, gone } => {
                    notice(NamespaceNotice::Changed(name, (!gone).then(|| version.clone())));
                    version
                }
                WatchEvent::Bookmark { version } => version,
                WatchEvent::Error { .. } => continue,
            };
            if is_version(&version) {
                *from = Some(version);
            }
        }
        Ok(())
    }

    /// All of them, with the version of the list.
    async fn list(&self) -> Result<(String, Vec<(String, String)>), ApiError> {
        let mut listed = Vec::new();
        let mut next = String::new();
        loop {
            let page = self.api.list(ObjectKind::Secret, &self.namespace, &next, OPEN_TIMEOUT).await?;
            listed.extend(page.items);
            if page.next.is_empty() {
                listed.sort_unstable();
                return Ok((page.version, listed));
            }
            next = page.next;
        }
    }
}
