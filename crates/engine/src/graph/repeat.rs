//! `foreach`: a body that is made once for each item of a collection.

use std::sync::Arc;

use invar_syntax::ast::{Attribute, Block, Body, Statement};
use invar_syntax::check::{UnknownTypes, check_body_at};
use invar_syntax::diagnostic::Diagnostic;
use invar_syntax::evaluate::{evaluate, references_of};
use invar_syntax::schema::{Field, FieldKind, Schema, Stability, Type};
use invar_syntax::value::Value;

use super::build::{Builder, Purpose};
use super::names::Names;
use super::{Expansion, FrameKind, ItemKey, NodeKind, item_keys};
use crate::block::BlockRef;
use crate::codes;
use crate::configuration::is_constant;
use crate::evaluate::decode_diagnostics;
use crate::modules::TEMPLATE;

/// What of a `foreach` block has to be known before anything runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForeachArguments {
    /// The name of the item in the template.
    pub(crate) variable: String,
    /// The field of items that tells them apart; the whole item does if empty.
    pub(crate) id: String,
    /// Whether texts are hashed rather than made fit for a name.
    pub(crate) hash_string_id: bool,
}

/// The name of the argument with the items.
const COLLECTION: &str = "collection";
const VARIABLE: &str = "var";
const ID: &str = "id";
const HASH: &str = "hash_string_id";
const METRICS: &str = "enable_metrics";

impl Builder<'_> {
    pub(super) fn foreach(&mut self, block: &Block, place: BlockRef, frame: u32, names: &Names) {
        self.admit_stability(&place, "block \"foreach\"", Stability::Experimental);
        let Some(label) = &block.label else {
            let diagnostic = Diagnostic::error(codes::MISSING_LABEL, "foreach block must have a label");
            return self.report(place.label(diagnostic, place.header(), "no label"));
        };
        let template = self.template(&place);
        let arguments = self.foreach_arguments(&place, frame);
        let (Some(template), Some(arguments)) = (template, arguments) else { return };
        let variable = arguments.variable.clone();
        let kind = NodeKind::Foreach(Box::new(arguments.clone()));
        let Some(node) = self.node(kind, &format!("foreach.{}", label.text), place.clone(), frame) else {
            return;
        };
        let Some(lexicon) = names.lexicon().templates.get(&label.text).cloned() else { return };
        let items: Vec<Option<ItemKey>> = match self.purpose {
            Purpose::Check => vec![None],
            Purpose::Run => self.items(node, &place, &arguments).iter().cloned().map(Some).collect(),
        };
        self.nested(&place, |builder| {
            for key in items {
                let id = &builder.graph.node(node).id;
                // In the static check, a prefix that no name has.
                let prefix = format!("{id}/{}/", key.as_deref().unwrap_or("#"));
                let module_path = &lexicon.module_path;
                let inner = builder.frame(&prefix, FrameKind::Item, Some(node), Some(frame), module_path);
                let kind = NodeKind::Item(key.map(|key| (node, key)));
                let Some(item) = builder.node(kind, &variable, place.clone(), inner) else { return };
                builder.anchor(inner, item);
                builder.body(&template.body(), inner, &names.within(&lexicon, inner));
            }
        });
    }

    /// The items the graph is expanded with: those it was told, or those that can be known without.
    fn items(&mut self, node: u32, place: &BlockRef, arguments: &ForeachArguments) -> Arc<[ItemKey]> {
        let id = self.graph.node(node).id.clone();
        if let Some(Expansion::Items(items)) = self.graph.dynamics.get(&id) {
            return Arc::clone(items);
        }
        let value = attribute(&place.get().body, COLLECTION)
            .filter(|attribute| all_constant(attribute))
            .and_then(|attribute| {
                evaluate(&attribute.value, &self.inputs_at(self.graph.node(node).frame, place)).ok()
            })
            .and_then(|value| value.to_items().filter(|_| !value.has_unknown()));
        let items: Arc<[ItemKey]> =
            value.map(|items| item_keys(arguments, &items).into_keys().collect()).unwrap_or_default();
        self.graph.dynamics.insert(id, Expansion::Items(Arc::clone(&items)));
        items
    }

    fn template(&mut self, place: &BlockRef) -> Option<BlockRef> {
        let mut templates = Vec::new();
        for (inner, block) in place.body().blocks() {
            if block.dotted_name() == TEMPLATE {
                templates.push(inner);
            } else {
                let message = format!("unrecognized block name \"{}\"", block.dotted_name());
                let diagnostic = Diagnostic::error(invar_syntax::arguments::codes::UNKNOWN_NAME, message)
                    .with_help("components stand in the block template");
                self.report(inner.label(diagnostic, inner.header(), ""));
            }
        }
        if let [first, second, ..] = &*templates {
            let message = format!("block \"{TEMPLATE}\" may only be specified once");
            let diagnostic = Diagnostic::error(codes::DUPLICATE, message);
            let diagnostic = second.label(diagnostic, second.header(), "");
            self.report(first.label(diagnostic, first.header(), "the first"));
        }
        if templates.is_empty() {
            let message = "the block template is missing in the foreach block";
            let diagnostic = Diagnostic::error(codes::ARGUMENT, message);
            self.report(place.label(diagnostic, place.header(), ""));
        }
        templates.into_iter().next()
    }

    /// The arguments beside the collection. None, and errors, if they are not as they should be.
    fn foreach_arguments(&mut self, place: &BlockRef, frame: u32) -> Option<ForeachArguments> {
        let body = &place.get().body;
        let attributes = Body {
            statements: body.attributes().map(|attribute| Statement::Attribute(attribute.clone())).collect(),
        };
        let errors = check_body_at(&attributes, &schema(), &UnknownTypes, place.header());
        if !errors.is_empty() {
            for diagnostic in decode_diagnostics(place, errors) {
                self.report(diagnostic);
            }
            return None;
        }
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let variable = text(self.constant(place, VARIABLE, frame)?);
        let id = text(self.constant(place, ID, frame)?);
        let hash = self.constant(place, HASH, frame)?;
        Some(ForeachArguments {
            variable: variable.unwrap_or_default(),
            id: id.unwrap_or_default(),
            hash_string_id: hash == Some(Value::Bool(true)),
        })
    }

    /// The value of an argument that must not depend on components; the outer option is none after an error.
    #[allow(clippy::option_option)]
    fn constant(&mut self, place: &BlockRef, name: &str, frame: u32) -> Option<Option<Value>> {
        let Some(attribute) = attribute(&place.get().body, name) else { return Some(None) };
        if !all_constant(attribute) {
            let message = format!("{name} must be known before anything runs");
            let diagnostic = Diagnostic::error(codes::ARGUMENT, message);
            self.report(place.label(diagnostic, attribute.value.span, ""));
            return None;
        }
        match evaluate(&attribute.value, &self.inputs_at(frame, place)) {
            Ok(value) => Some(Some(value)),
            Err(error) => {
                let diagnostic = Diagnostic::error(invar_syntax::arguments::codes::EVALUATION, error.message);
                self.report(place.label(diagnostic, error.span, ""));
                None
            }
        }
    }
}

/// What a `foreach` takes beside its template.
pub(crate) fn schema() -> Schema {
    let field = |name, ty, required| Field { required, ..Field::new(name, FieldKind::Attribute, ty) };
    Schema {
        fields: vec![
            field(COLLECTION, Type::list(Type::Any), true),
            field(VARIABLE, Type::String, true),
            field(ID, Type::String, false),
            field(HASH, Type::Bool, false),
            field(METRICS, Type::Bool, false),
        ],
    }
}

pub(crate) fn collection(block: &BlockRef) -> Option<&Attribute> {
    attribute(&block.get().body, COLLECTION)
}

fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Attribute> {
    body.attributes().find(|attribute| &*attribute.name.name == name)
}

fn all_constant(attribute: &Attribute) -> bool {
    let mut references = Vec::new();
    references_of(&attribute.value, &mut references);
    references.iter().all(is_constant)
}
