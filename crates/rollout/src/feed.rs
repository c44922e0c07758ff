//! Where snapshots come from, as the reconciler sees it: the latest content of each source and a
//! notice that something changed. The poller of `invar-sources` implements it; tests script it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use invar_sources::TreeEntry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pipeline::Failure;
use crate::source_detail::SourceDetail;
use crate::status::SourceState;

/// One configured source, as it is now.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// What the status shows.
    pub state: SourceState,
    /// Composition waits for it.
    pub required: bool,
    /// One change is whole (one Git commit), so that it needs no quiet time.
    pub atomic: bool,
    /// What it holds.
    pub content: Option<Arc<SourceContent>>,
}

/// The content of one source at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceContent {
    /// Where it comes from.
    pub origin: Origin,
    /// Path and content, in the order in which the source lists its paths.
    pub files: Vec<(String, Bytes)>,
    /// The selected paths, in the order of the settings: each folder is a layer of variables. Empty means the root.
    pub paths: Vec<String>,
}

/// Where a snapshot comes from: what is stored and shown of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the source.
    pub source: String,
    /// Kind of the source.
    pub kind: String,
    /// `main@sha1:…`, the full commit id.
    pub revision: String,
    /// Digest of the selected files.
    pub digest: String,
    /// Author of the commit.
    pub author: Option<String>,
    /// First line of the commit's message.
    pub subject: Option<String>,
    /// Verified signer.
    pub signer: Option<String>,
    /// The digest of the policy of trust under which that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Where relative paths in the files begin: a folder of the host, or `/@<source>` with a folder of its tree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module_path: String,
}

/// The sources, in declared order.
pub trait SnapshotFeed: Send + Sync + 'static {
    /// All sources as they are now.
    fn sources(&self) -> Vec<SourceView>;

    /// Changes whenever `sources` would answer differently.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Reads a file, or the `*.alloy` files of a folder, of the tree that a source's content at `revision` was selected
    /// from: what is imported need not be selected. `None` where nothing is there.
    fn read<'a>(
        &'a self,
        source: &'a str,
        revision: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>> {
        let sources = self.sources();
        let content =
            sources.iter().find(|view| view.state.name == source).and_then(|view| view.content.as_ref());
        let read = match content.filter(|content| content.origin.revision == revision) {
            Some(content) => Ok(TreeEntry::among(&content.files.iter().cloned().collect(), path)),
            None => Err(Failure::environment(format!("{source} has moved on from {revision}"))),
        };
        Box::pin(std::future::ready(read))
    }

    /// Everything that is known of one source; `None` where none has that name.
    fn detail(&self, name: &str) -> Option<SourceDetail> {
        let view = self.sources().into_iter().find(|view| view.state.name == name)?;
        Some(SourceDetail { required: view.required, ..SourceDetail::of(view.state) })
    }

    /// Says whether what was stored from these origins is trusted by the policies of now; gives what to warn of. An error
    /// means that it may not run.
    fn vouch<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        let _ = origins;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Takes note that a person accepts a commit, by the beginning of its id, that sources have refused for how their branch
    /// moved; gives the names of those sources.
    fn accept_history(&self, commit: &str) -> Vec<String> {
        let _ = commit;
        Vec::new()
    }

    /// Polls these sources now (all of them for an empty list) and returns when they have answered; an
    /// error is a name that no source has.
    fn reconcile<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), String>>;
}
