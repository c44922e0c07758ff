//! Read models: what the API and the user interface show of the running pipeline.

use crate::health::{Health, HealthState};
use crate::node::NodeId;

/// One component.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ComponentStatus {
    /// The node.
    pub id: NodeId,
    /// The component type.
    pub name: String,
    /// The label of the block.
    pub label: Option<String>,
    /// How it is, the least healthy of all opinions.
    pub health: Health,
    /// Typed JSON, redacted; null if the node could not be prepared.
    pub arguments: serde_json::Value,
    /// Typed JSON, redacted.
    pub exports: serde_json::Value,
    /// Details of the component's own, on demand only.
    pub debug_info: serde_json::Value,
    /// An identity that changes when the instance does; none if the node could not be prepared.
    pub instance: Option<String>,
    /// The generation it runs in.
    pub generation: u64,
    /// The nodes its arguments refer to.
    pub references_to: Vec<NodeId>,
    /// The nodes whose arguments refer to it.
    pub referenced_by: Vec<NodeId>,
    /// The nodes it sends data to.
    pub data_flow_to: Vec<NodeId>,
    /// Where the block stands: `file:line:column`.
    pub location: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// How often its task was restarted.
    pub restarts: u64,
}

/// Where a block comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Provenance {
    /// The source, or all sources that had a hand in it: who uses a module, and who imports it. Empty where there is none.
    pub sources: Vec<String>,
    /// The file, without the name of its source.
    pub file: String,
    /// The line in it.
    pub line: u32,
}

/// The running generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GenerationStatus {
    /// Counts applied configurations.
    pub id: u64,
    /// Counts re-evaluations within it.
    pub epoch: u64,
    /// The digest of its configuration.
    pub digest: String,
    /// The revision of its configuration.
    pub revision: String,
    /// Whether a rollback is possible: it has not been committed yet.
    pub on_probation: bool,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Nodes and edges.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct GraphReport {
    /// The nodes in source order.
    pub nodes: Vec<GraphNodeReport>,
    /// References and data routes.
    pub edges: Vec<GraphEdge>,
}

/// A node of the graph.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GraphNodeReport {
    /// The node.
    pub id: NodeId,
    /// The component type.
    pub name: String,
    /// How it is.
    pub health: HealthState,
}

/// An edge of the graph.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct GraphEdge {
    /// Where it begins: for data the sender, for a reference the one that refers.
    pub from: NodeId,
    /// Where it ends.
    pub to: NodeId,
    /// What flows.
    pub kind: EdgeKind,
}

/// What an edge stands for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// Data flows from one to the other.
    Data,
    /// The arguments of one use the exports of the other.
    Reference,
}

/// How many components are in each state of health.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct HealthCounts {
    /// Healthy ones.
    pub healthy: usize,
    /// Those not started yet.
    pub unknown: usize,
    /// Unhealthy ones.
    pub unhealthy: usize,
    /// Those that ended.
    pub exited: usize,
}

impl HealthCounts {
    pub(crate) fn add(&mut self, state: HealthState) {
        match state {
            HealthState::Healthy => self.healthy += 1,
            HealthState::Unknown => self.unknown += 1,
            HealthState::Unhealthy => self.unhealthy += 1,
            HealthState::Exited => self.exited += 1,
        }
    }
}
