//! What of the language belongs to the engine and to no component: the blocks that configure the agent itself, and the
//! names that expressions find in scope. For documentation and editors; the graph decides what is accepted.

use invar_syntax::schema::{Field, FieldKind, Schema, Stability, Type};
use invar_syntax::value::Value;

use crate::logging;
use crate::modules::ModuleKind;
use crate::registry::Registry;

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

/// The blocks that are no components, in the order of their names: the language's own, and those of a registry that
/// configure the agent.
#[must_use]
pub fn configuration_blocks(registry: &Registry) -> Vec<BlockInfo> {
    let mut blocks = vec![
        BlockInfo {
            place: Place::Module,
            exports: Schema { fields: vec![value("What the module was given, or the default.")] },
            ..block("argument", "Something that whoever uses the module gives to it.", argument())
        },
        BlockInfo {
            body_is_pipeline: true,
            ..block("declare", "A component made of others: the label is its name.", Vec::new())
        },
        BlockInfo {
            place: Place::Module,
            ..block(
                "export",
                "Something that the module gives to whoever uses it.",
                vec![value("What it gives.")],
            )
        },
        BlockInfo {
            stability: Stability::Experimental,
            ..block(
                "foreach",
                "Runs the pipeline of its template once for each element of a list.",
                foreach(),
            )
        },
    ];
    for kind in ModuleKind::ALL {
        let (name, summary) = match kind {
            ModuleKind::File => ("import.file", "Components that files on this host declare."),
            ModuleKind::Git => ("import.git", "Components that files of a Git repository declare."),
            ModuleKind::Http => ("import.http", "Components that the text at an address declares."),
            ModuleKind::String => ("import.string", "Components that a text declares."),
            // A block of the binary's.
            ModuleKind::RemoteConfig => continue,
        };
        let mut fields = kind.schema().fields;
        if kind == ModuleKind::Http {
            let documentation =
                "How to connect and who to be: the arguments that components with an HTTP client take.";
            fields.push(described("client", FieldKind::Block, Type::Object(Vec::new()), documentation));
        }
        blocks.push(block(name, summary, fields));
    }
    blocks.push(BlockInfo {
        labelled: false,
        place: Place::Root,
        arguments: logging::schema(),
        ..block("logging", "How the agent writes its own log.", Vec::new())
    });
    blocks.extend(registry.iter().filter(|info| info.settings).map(|info| BlockInfo {
        stability: info.stability,
        labelled: false,
        place: Place::Root,
        exports: info.exports,
        ..block(info.name, info.summary, info.arguments.fields)
    }));
    blocks.sort_by_key(|block| block.name);
    blocks
}

/// A labelled block that may stand anywhere.
fn block(name: &'static str, summary: &'static str, fields: Vec<Field>) -> BlockInfo {
    BlockInfo {
        name,
        summary,
        stability: Stability::GenerallyAvailable,
        labelled: true,
        place: Place::Anywhere,
        arguments: Schema { fields },
        exports: Schema::default(),
        body_is_pipeline: false,
    }
}

fn described(name: &'static str, kind: FieldKind, ty: Type, documentation: &'static str) -> Field {
    Field { documentation, ..Field::new(name, kind, ty) }
}

fn attribute(name: &'static str, ty: Type, documentation: &'static str) -> Field {
    described(name, FieldKind::Attribute, ty, documentation)
}

fn value(documentation: &'static str) -> Field {
    Field { required: true, ..attribute("value", Type::Any, documentation) }
}

fn argument() -> Vec<Field> {
    vec![
        Field {
            default: Some(Value::Bool(false)),
            ..attribute("optional", Type::Bool, "Whether the module can be used without it.")
        },
        attribute("default", Type::Any, "What it is where it is not given."),
        attribute("comment", Type::String, "What it is for, for people."),
    ]
}

fn foreach() -> Vec<Field> {
    let collection =
        attribute("collection", Type::list(Type::Any), "The list whose elements the template is run for.");
    let variable = attribute("var", Type::String, "The name under which the template sees the element.");
    let template = described(
        "template",
        FieldKind::Block,
        Type::Object(Vec::new()),
        "The pipeline. It sees the components around the foreach; nothing outside sees into it.",
    );
    let no = Some(Value::Bool(false));
    vec![
        Field { required: true, ..collection },
        Field { required: true, ..variable },
        attribute(
            "id",
            Type::String,
            "The field of an element that tells it from the others; the whole element where empty.",
        ),
        Field {
            default: no.clone(),
            ..attribute(
                "hash_string_id",
                Type::Bool,
                "Whether ids are hashes of texts rather than the texts.",
            )
        },
        Field {
            default: no,
            ..attribute(
                "enable_metrics",
                Type::Bool,
                "Whether the components in the template have metrics of their own.",
            )
        },
        Field { required: true, ..template },
    ]
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
