//! What a delivery acts on: the sources, and the modules that come from Git, of the running agent.

use invar_rollout::Rollout;
use invar_sources::{Poller, SourceKind, SourceName};

/// Where deliveries lead to.
pub(crate) trait Target: Send + Sync + 'static {
    /// Whether an operator stopped applying.
    fn is_held(&self) -> bool;

    /// Tells whoever follows events that somebody asked to look.
    fn announce(&self, message: String);

    /// Makes these sources look now; all Git sources and modules for an empty list.
    fn look(&self, sources: &[SourceName]);
}

/// The agent.
pub(crate) struct AgentTarget {
    pub(crate) rollout: Rollout,
    /// The sources.
    pub(crate) sources: Poller,
    /// The modules.
    pub(crate) modules: Poller,
}

impl Target for AgentTarget {
    fn is_held(&self) -> bool {
        self.rollout.status().hold.is_some()
    }

    fn announce(&self, message: String) {
        self.rollout.triggered(message);
    }

    fn look(&self, sources: &[SourceName]) {
        if !sources.is_empty() {
            return self.sources.nudge(sources);
        }
        for poller in [&self.sources, &self.modules] {
            let state = poller.state();
            let from_git = state.sources.iter().filter(|source| source.status.kind == SourceKind::Git);
            let names: Vec<SourceName> = from_git.map(|source| source.status.name.clone()).collect();
            poller.nudge(&names);
        }
    }
}
