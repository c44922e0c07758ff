//! What of the language belongs to the engine and to no component: the blocks that configure the agent itself, and the
//! names that expressions find in scope. For documentation and editors; the graph decides what is accepted.

use invar_syntax::schema::{Schema, Stability};

use crate::logging;

/// A block that is no component.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    /// The block name.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub summary: &'static str,
    /// How settled it is.
    pub stability: Stability,
    /// Whether it bears a label.
    pub labelled: bool,
    /// Where it may stand.
    pub place: Place,
    /// What it takes. Empty where its body is a pipeline, see `body_is_pipeline`.
    pub arguments: Schema,
    /// What references to it find.
    pub exports: Schema,
    /// Whether components stand in its body.
    pub body_is_pipeline: bool,
}

/// Where a block may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of the configuration only.
    Root,
    /// In the body of a `declare` only.
    Module,
    /// Wherever components may.
    Anywhere,
}

/// A name that every expression can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameInfo {
    /// The name.
    pub name: &'static str,
    /// What it holds, in one sentence.
    pub summary: &'static str,
    /// The fields that are known.
    pub fields: &'static [(&'static str, &'static str)],
}

/// The blocks that are no components, in the order of their names.
#[must_use]
pub fn configuration_blocks() -> Vec<BlockInfo> {
    vec![BlockInfo {
        name: "logging",
        summary: "How the agent writes its own log.",
        stability: Stability::GenerallyAvailable,
        labelled: false,
        place: Place::Root,
        arguments: logging::schema(),
        exports: Schema::default(),
        body_is_pipeline: false,
    }]
}

/// The names that are no components and not of the standard library.
#[must_use]
pub const fn names_in_scope() -> &'static [NameInfo] {
    &[
        NameInfo {
            name: "agent",
            summary: "The agent that runs the configuration, as its settings describe it.",
            fields: &[
                ("name", "The agent's name; by default that of the host."),
                ("environment", "The environment it belongs to."),
                ("labels", "Its labels, an object of texts."),
            ],
        },
        NameInfo {
            name: "module_path",
            summary: "The folder that relative paths of this configuration or module begin in.",
            fields: &[],
        },
        NameInfo {
            name: "var",
            summary: "The variables of this environment, from the variables.toml files along the path.",
            fields: &[],
        },
    ]
}

impl Place {
    /// As the schema says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Module => "module",
            Self::Anywhere => "anywhere",
        }
    }
}
