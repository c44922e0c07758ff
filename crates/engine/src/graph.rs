//! The graph of a configuration: its nodes in source order, what each refers to, and the order in which to evaluate them.

mod build;
mod order;

use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::schema::Stability;

use crate::block::BlockRef;
use crate::definition::Definition;
use crate::node::NodeId;

/// The nodes of a configuration. A node's index is that of its slot.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    index: HashMap<NodeId, u32>,
    /// Indices, dependencies before dependants, else in source order.
    order: Vec<u32>,
    /// For each index its place in `order`.
    rank: Vec<u32>,
    /// The `logging` block, if there is one.
    pub(crate) logging: Option<BlockRef>,
}

/// A node: a component block.
pub(crate) struct GraphNode {
    pub(crate) id: NodeId,
    pub(crate) definition: Arc<dyn Definition>,
    pub(crate) block: BlockRef,
    /// The least stable of what its arguments may use.
    pub(crate) minimum_stability: Stability,
    /// The nodes it refers to, each once.
    pub(crate) references: Vec<u32>,
    /// The nodes that refer to it, each once, in source order.
    pub(crate) dependants: Vec<u32>,
}

/// Which component types a configuration may use.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) minimum_stability: Stability,
    pub(crate) community: bool,
}

// === impl Graph ===

impl Graph {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn find(&self, node: &str) -> Option<u32> {
        self.index.get(node).copied()
    }

    pub(crate) fn node(&self, index: u32) -> &GraphNode {
        &self.nodes[index as usize]
    }

    /// Dependencies before dependants.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    pub(crate) fn rank(&self, index: u32) -> u32 {
        self.rank[index as usize]
    }

    /// The node that the shortest prefix of `path` names, and how many names it takes.
    pub(crate) fn resolve<S: AsRef<str>>(&self, path: &[S]) -> Option<(u32, usize)> {
        resolve(&self.index, path)
    }
}

/// The node that the shortest prefix of `path` names, and how many names it takes.
fn resolve<S: AsRef<str>>(index: &HashMap<NodeId, u32>, path: &[S]) -> Option<(u32, usize)> {
    let mut prefix = String::new();
    for (position, name) in path.iter().enumerate() {
        if position > 0 {
            prefix.push('.');
        }
        prefix.push_str(name.as_ref());
        // A component's name has at least one dot and a label.
        if position > 0
            && let Some(node) = index.get(prefix.as_str())
        {
            return Some((*node, position + 1));
        }
    }
    None
}
