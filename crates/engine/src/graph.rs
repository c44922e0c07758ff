//! The graph of a configuration: its nodes in source order, what each refers to, and the order in which to evaluate them.
//!
//! There is one flat graph. Custom components and `foreach` items are expanded into it: their nodes stand in a frame of their
//! own, which gives them the prefix of their names and decides what their expressions see. What an `argument` is given and what
//! an `export` gives are nodes too, without a component, so that values flow in and out of a frame along ordinary edges.

mod build;
mod connect;
mod custom;
mod dynamic;
mod names;
mod order;
mod repeat;

use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::ast::Attribute;
use invar_syntax::schema::Stability;

use crate::block::BlockRef;
use crate::definition::Definition;
use crate::modules::Declare;
use crate::node::NodeId;

pub(crate) use build::duplicate;
pub(crate) use dynamic::{Dynamics, Expansion, ItemKey, item_keys};
pub(crate) use repeat::{ForeachArguments, collection};

/// The nodes of a configuration. A node's index is that of its slot.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) frames: Vec<Frame>,
    index: HashMap<NodeId, u32>,
    /// Indices, dependencies before dependants, else in source order.
    order: Vec<u32>,
    /// For each index its place in `order`.
    rank: Vec<u32>,
    /// The `logging` block, if there is one.
    pub(crate) logging: Option<BlockRef>,
    /// What dynamic nodes were expanded with.
    pub(crate) dynamics: Dynamics,
}

/// A scope: the nodes that expressions in it see, and the prefix of their names.
pub(crate) struct Frame {
    /// What stands before the names of its nodes: empty, or ends with a slash.
    pub(crate) prefix: Arc<str>,
    pub(crate) kind: FrameKind,
    /// The node whose inside this is.
    pub(crate) owner: Option<u32>,
    /// The frame whose nodes are visible as well.
    pub(crate) outer: Option<u32>,
    /// What its expressions see as `module_path`.
    pub(crate) module_path: Arc<str>,
    /// The node that has to be evaluated before any of this frame: what the frame consists of depends on its value.
    anchor: Option<u32>,
}

/// What a frame is the inside of.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum FrameKind {
    /// The files of the local root.
    Local,
    /// The files of another root.
    Remote,
    /// A custom component.
    Module,
    /// An item of a `foreach`.
    Item,
}

/// A node: a component block, or a value.
pub(crate) struct GraphNode {
    pub(crate) id: NodeId,
    pub(crate) kind: NodeKind,
    pub(crate) block: BlockRef,
    pub(crate) frame: u32,
    /// How long the prefix of its frame is within its name.
    prefix: usize,
    /// The least stable of what its arguments may use.
    pub(crate) minimum_stability: Stability,
    /// The nodes it has to come after, each once: those it refers to, and the anchor of its frame.
    pub(crate) references: Vec<u32>,
    /// The nodes that have it among their references, each once, in source order.
    pub(crate) dependants: Vec<u32>,
}

/// What a node is.
pub(crate) enum NodeKind {
    /// A component.
    Component(Arc<dyn Definition>),
    /// A custom component: the object of its exports.
    Custom(Custom),
    /// An `argument` of a custom component: an object with its `value`.
    Argument(Option<Given>),
    /// An `export` of a custom component: its value.
    Export,
    /// A `foreach`: an object of its items by key.
    Foreach(Box<ForeachArguments>),
    /// An item of a `foreach`: its value. None where the items are not told apart: in the static check.
    Item(Option<(u32, ItemKey)>),
    /// An import whose content is a value.
    Import,
    /// A component that the binary lacks, in the static check only: nothing can be said of it and of what refers to it.
    Absent,
}

/// A custom component.
pub(crate) struct Custom {
    /// What it is an instance of; none if that is not known.
    pub(crate) declare: Option<Arc<Declare>>,
    /// What it was given and the nodes of that; none in the static check.
    pub(crate) arguments: Vec<(Arc<str>, u32)>,
    /// Its exports and their nodes; none in the static check.
    pub(crate) exports: Vec<(Arc<str>, u32)>,
    /// The node of the import it comes from, where that is one.
    pub(crate) import: Option<u32>,
}

/// What the user of a custom component gives for an argument.
pub(crate) struct Given {
    /// The block of the custom component.
    pub(crate) block: BlockRef,
    /// Which of its statements.
    statement: usize,
    /// The frame of that block.
    pub(crate) frame: u32,
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

    /// The node of that name in a frame.
    fn node_in(&self, frame: u32, name: &str) -> Option<u32> {
        let prefix = &self.frame(frame).prefix;
        if prefix.is_empty() { self.find(name) } else { self.find(&format!("{prefix}{name}")) }
    }

    pub(crate) fn node(&self, index: u32) -> &GraphNode {
        &self.nodes[index as usize]
    }

    pub(crate) fn frame(&self, index: u32) -> &Frame {
        &self.frames[index as usize]
    }

    /// Dependencies before dependants.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    pub(crate) fn rank(&self, index: u32) -> u32 {
        self.rank[index as usize]
    }

    /// The node that the shortest prefix of `path` names where it stands in `frame`, and how many names it takes.
    pub(crate) fn resolve<S: AsRef<str>>(&self, frame: u32, path: &[S]) -> Option<(u32, usize)> {
        let mut name = String::new();
        let mut next = Some(frame);
        while let Some(at) = next {
            let frame = self.frame(at);
            name.clear();
            name.push_str(&frame.prefix);
            for (position, part) in path.iter().enumerate() {
                if position > 0 {
                    name.push('.');
                }
                name.push_str(part.as_ref());
                if let Some(index) = self.index.get(name.as_str())
                    && self.node(*index).is_referable()
                {
                    return Some((*index, position + 1));
                }
            }
            next = frame.outer;
        }
        None
    }

    /// The names that expressions in a frame can use for nodes, in source order.
    pub(crate) fn names(&self, frame: u32) -> impl Iterator<Item = &str> {
        let mut frames = vec![frame];
        while let Some(outer) = frames.last().and_then(|last| self.frame(*last).outer) {
            frames.push(outer);
        }
        let visible = move |node: &&GraphNode| frames.contains(&node.frame) && node.is_referable();
        self.nodes.iter().filter(visible).map(GraphNode::local_name)
    }

    /// The custom component or `foreach` that a node is part of.
    pub(crate) fn owner(&self, index: u32) -> Option<u32> {
        self.frame(self.node(index).frame).owner
    }

    /// The node whose value decides whether this one exists.
    pub(crate) fn anchor(&self, index: u32) -> Option<u32> {
        self.frame(self.node(index).frame).anchor
    }
}

// === impl Frame ===

impl Frame {
    /// The node that has to be evaluated before any of it.
    pub(crate) fn anchor(&self) -> Option<u32> {
        self.anchor
    }
}

// === impl GraphNode ===

impl GraphNode {
    /// The component type, if it is a component.
    pub(crate) fn component(&self) -> Option<&Arc<dyn Definition>> {
        match &self.kind {
            NodeKind::Component(definition) => Some(definition),
            _ => None,
        }
    }

    /// Its name within its frame.
    pub(crate) fn local_name(&self) -> &str {
        &self.id.as_str()[self.prefix..]
    }

    /// The name of its block.
    pub(crate) fn type_name(&self) -> String {
        match &self.kind {
            NodeKind::Component(definition) => definition.name().to_owned(),
            NodeKind::Item(_) => "foreach.item".to_owned(),
            _ => self.block.get().dotted_name(),
        }
    }

    /// Whether people think of it as a thing that runs, rather than as a value.
    pub(crate) fn is_shown(&self) -> bool {
        matches!(
            self.kind,
            NodeKind::Component(_) | NodeKind::Custom(_) | NodeKind::Foreach(_) | NodeKind::Import
        )
    }

    /// Whether expressions can use it.
    fn is_referable(&self) -> bool {
        matches!(
            self.kind,
            NodeKind::Component(_)
                | NodeKind::Custom(_)
                | NodeKind::Argument(_)
                | NodeKind::Item(_)
                | NodeKind::Absent
        )
    }
}

// === impl Given ===

impl Given {
    /// The attribute.
    pub(crate) fn attribute(&self) -> Option<&Attribute> {
        match &self.block.get().body.statements[self.statement] {
            invar_syntax::ast::Statement::Attribute(attribute) => Some(attribute),
            invar_syntax::ast::Statement::Block(_) => None,
        }
    }
}
