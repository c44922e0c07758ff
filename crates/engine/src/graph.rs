//! The graph of a configuration: its nodes in source order, what each refers to, and the order in which to evaluate them.

use std::sync::Arc;

use foldhash::HashMap;

/// The nodes of a configuration. A node's index is that of its slot.
#[derive(Default)]
pub(crate) struct Graph {
    index: HashMap<Arc<str>, u32>,
}

impl Graph {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn find(&self, node: &str) -> Option<u32> {
        self.index.get(node).copied()
    }
}
