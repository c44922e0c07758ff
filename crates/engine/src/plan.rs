//! What applying a configuration would do, node by node.

use crate::node::NodeId;

/// What applying a configuration would do.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Plan {
    /// One entry per node: of the new configuration in its order, then those that go.
    pub changes: Vec<Change>,
    /// SHA-256, in hexadecimal, over actions and expressions, not over values that come from exports: a busy host's plan
    /// stays the same plan.
    pub hash: String,
}

/// What happens to one node.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Untouched.
    Keep,
    /// Same instance, another state.
    Update,
    /// Another instance, for its identity arguments changed.
    Replace,
    /// New.
    Create,
    /// Goes away.
    Destroy,
}

/// One node's entry in a plan.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Change {
    /// The node.
    pub node: NodeId,
    /// The component type.
    pub component: String,
    /// What happens.
    pub action: Action,
    /// What differs in the arguments; empty unless [`Action::Update`] or [`Action::Replace`].
    pub arguments: Vec<ArgumentChange>,
    /// Where the block stands: `file:line:column`; where it stood, for [`Action::Destroy`].
    pub location: String,
    /// Remarks, such as what is known only after preparing.
    pub notes: Vec<String>,
}

/// One argument that differs.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ArgumentChange {
    /// The attribute, dots between nested names, `[n]` in lists.
    pub path: String,
    /// Its value before, as text; none if it was not set. Secrets print as `(secret)`.
    pub old: Option<String>,
    /// Its value after, as text; none if no longer set.
    pub new: Option<String>,
}

impl Plan {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.iter().all(|change| change.action == Action::Keep)
    }

    /// How many nodes have this action.
    #[must_use]
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }
}
