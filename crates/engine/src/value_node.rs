//! The values of nodes that have no component: what an `argument` is given, what an `export` gives, the items of a `foreach`, the
//! content of an import.

use std::sync::Arc;

use invar_syntax::convert::FromValue;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::schema::Type;
use invar_syntax::secret::OptionalSecret;
use invar_syntax::value::Value;

use crate::codes;
use crate::evaluate::{NodeError, View, evaluate, evaluate_attribute};
use crate::graph::{Expansion, GraphNode, NodeKind, collection, item_keys};
use crate::modules::{ImportContent, Resolver, text_key};

/// The field under which an argument shows its value.
const VALUE: &str = "value";

/// What a node without a component comes to.
pub(crate) enum Valued {
    /// It exports this.
    Plain(Value),
    /// It exports this, and the graph has to be expanded with that; not known yet if none.
    Dynamic(Value, Option<Expansion>),
}

impl Valued {
    pub(crate) fn exports(self) -> Value {
        match self {
            Self::Plain(value) | Self::Dynamic(value, _) => value,
        }
    }
}

/// What references see of a node where nothing is known of its value.
pub(crate) fn unknown(node: &GraphNode) -> Value {
    let any = || Value::Unknown(Type::Any);
    match &node.kind {
        NodeKind::Component(definition) => definition.unknown_exports().clone(),
        NodeKind::Argument(_) => Value::object([(VALUE, any())]),
        NodeKind::Custom(custom) => match &custom.declare {
            Some(declare) => {
                Value::object(declare.interface().exports.iter().map(|(name, _)| (Arc::clone(name), any())))
            }
            None => any(),
        },
        NodeKind::Export | NodeKind::Item(_) | NodeKind::Foreach(_) | NodeKind::Import | NodeKind::Absent => {
            any()
        }
    }
}

/// What references see of a node that could not be evaluated, as far as it has no component.
pub(crate) fn placeholder(node: &GraphNode) -> Value {
    match &node.kind {
        NodeKind::Argument(_) => Value::object([(VALUE, Value::Null)]),
        NodeKind::Custom(_) | NodeKind::Foreach(_) => Value::object::<&str>([]),
        _ => Value::Null,
    }
}

/// Evaluates a node that has no component.
pub(crate) fn evaluate_value<E: Fn(u32) -> Value>(
    node: &GraphNode,
    view: &View<'_, E>,
) -> Result<Valued, NodeError> {
    let block = &node.block;
    let attribute = |name: &str| block.get().body.attributes().find(|found| &*found.name.name == name);
    let here = view.at(node.frame, block);
    let value = match &node.kind {
        NodeKind::Component(_) => Value::Null,
        NodeKind::Argument(Some(given)) => {
            let outside = view.at(given.frame, &given.block);
            let value = given.attribute().map(|found| evaluate_attribute(&given.block, found, &outside));
            Value::object([(VALUE, value.transpose()?.unwrap_or_default())])
        }
        NodeKind::Argument(None) => {
            let value = attribute("default").map(|found| evaluate_attribute(block, found, &here));
            Value::object([(VALUE, value.transpose()?.unwrap_or_default())])
        }
        NodeKind::Export => {
            let value = attribute(VALUE).map(|found| evaluate_attribute(block, found, &here));
            value.transpose()?.unwrap_or_default()
        }
        NodeKind::Custom(custom) if custom.exports.is_empty() && custom.declare.is_none() => {
            Value::Unknown(Type::Any)
        }
        NodeKind::Custom(custom) => {
            Value::object(custom.exports.iter().map(|(name, node)| (Arc::clone(name), (view.exports)(*node))))
        }
        NodeKind::Item(Some((foreach, key))) => {
            let items = (view.exports)(*foreach);
            match &items {
                Value::Unknown(_) => Value::Unknown(Type::Any),
                items => items.to_object().and_then(|items| items.get(key).cloned()).unwrap_or_default(),
            }
        }
        NodeKind::Item(None) | NodeKind::Absent => Value::Unknown(Type::Any),
        NodeKind::Foreach(arguments) => {
            let Some(found) = collection(block) else { return Ok(Valued::Plain(Value::Null)) };
            let value = evaluate_attribute(block, found, &here)?;
            if let Value::Unknown(_) = value {
                return Ok(Valued::Dynamic(value, None));
            }
            let Some(items) = value.to_items() else {
                let message = format!("collection should be list, got {}", value.describe());
                let diagnostic = Diagnostic::error(codes::ARGUMENT, message);
                return Err(NodeError::content(block.label(diagnostic, found.value.span, "").into()));
            };
            if items.iter().any(Value::has_unknown) {
                return Ok(Valued::Dynamic(Value::Unknown(Type::Any), None));
            }
            let items = item_keys(arguments, &items);
            let keys = items.keys().cloned().collect();
            return Ok(Valued::Dynamic(Value::object(items), Some(Expansion::Items(keys))));
        }
        NodeKind::Import => {
            let body = evaluate(block, &here)?;
            let content = body.attributes.iter().find(|attribute| &*attribute.name.name == "content");
            let Some(content) = content else { return Ok(Valued::Dynamic(Value::Null, None)) };
            if content.value.has_unknown() {
                return Ok(Valued::Dynamic(Value::Unknown(Type::Any), None));
            }
            let text = OptionalSecret::from_value(&content.value).map_err(|error| {
                let message = format!("content{} {}", error.path, error.message);
                let diagnostic = Diagnostic::error(codes::IMPORT, message);
                NodeError::content(block.label(diagnostic, content.value_span, "").into())
            })?;
            let module = module(node, view, &text)?;
            return Ok(Valued::Dynamic(Value::Null, Some(module)));
        }
    };
    Ok(Valued::Plain(value))
}

/// The module that a text is.
fn module<E>(node: &GraphNode, view: &View<'_, E>, content: &OptionalSecret) -> Result<Expansion, NodeError> {
    let module_path = &view.graph.frame(node.frame).module_path;
    let key = text_key(content.expose(), module_path);
    if let Some(Expansion::Module(present)) = view.graph.dynamics.get(&node.id)
        && present.key == key
    {
        return Ok(Expansion::Module(Arc::clone(present)));
    }
    let configuration = view.configuration;
    let mut resolver = Resolver::new(&configuration.inputs, &configuration.module_set);
    let namespace = node.block.get().label.as_ref().map_or("", |label| &*label.text);
    let content =
        resolver.text_module(&node.block, content.expose(), content.is_secret(), module_path, namespace);
    let found = resolver.finish();
    let mut diagnostics: Diagnostics = found.faults.into_iter().flat_map(|fault| fault.diagnostics).collect();
    for request in found.missing {
        let message = format!(
            "the content of module \"{}\" is not at hand: what only running components import cannot import in turn",
            request.namespace
        );
        diagnostics.push(request.diagnostic(message));
    }
    match content {
        ImportContent::Module(module) if !diagnostics.has_errors() => Ok(Expansion::Module(module)),
        _ => Err(NodeError::content(diagnostics)),
    }
}
