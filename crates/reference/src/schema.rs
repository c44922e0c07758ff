//! The whole surface of the language as one JSON document, for editors and other programs. Versioned: within a version,
//! changes are additive.

use invar_engine::language::BlockInfo;
use invar_engine::registry::ComponentInfo;
use invar_syntax::stdlib::FunctionInfo;
use invar_syntax::{Field, FieldKind, Schema, Type, value_to_expression};
use serde_json::{Map, Value, json};

use crate::Reference;
use crate::page::{holds_secret, one_line};
use crate::snippet::{Holes, snippet};
use crate::type_text::plain_type_text;

/// The version of the document's form.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything a configuration can say; `release` is the version of the binary that says so.
#[must_use]
pub fn language_schema(reference: &Reference, release: &str) -> Value {
    let constants = reference.constants.iter();
    let names = reference.names.iter().map(|name| {
        let fields = name.fields.iter().map(|(field, text)| json!({ "name": field, "description": text }));
        json!({ "name": name.name, "description": name.summary, "fields": fields.collect::<Vec<_>>() })
    });
    json!({
        "version": SCHEMA_VERSION,
        "release": release,
        "components": reference.components.iter().map(component).collect::<Vec<_>>(),
        "blocks": reference.blocks.iter().map(block).collect::<Vec<_>>(),
        "functions": reference.functions.iter().map(function).collect::<Vec<_>>(),
        "constants": constants
            .map(|constant| json!({ "name": constant.name, "description": constant.summary }))
            .collect::<Vec<_>>(),
        "names": names.collect::<Vec<_>>(),
    })
}

fn component(component: &ComponentInfo) -> Value {
    json!({
        "name": component.name,
        "description": component.summary,
        "stability": component.stability.as_str(),
        "community": component.community,
        "usage": snippet(component.name, true, &component.arguments.fields, Holes::Types),
        "arguments": fields(&component.arguments),
        "exports": fields(&component.exports),
    })
}

fn block(block: &BlockInfo) -> Value {
    json!({
        "name": block.name,
        "description": block.summary,
        "stability": block.stability.as_str(),
        "labelled": block.labelled,
        "place": block.place.as_str(),
        "pipeline": block.body_is_pipeline,
        "arguments": fields(&block.arguments),
        "exports": fields(&block.exports),
    })
}

fn function(function: &FunctionInfo) -> Value {
    let parameters = function.parameters.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "type": parameter.ty,
            "optional": parameter.optional,
            "variadic": parameter.variadic,
        })
    });
    json!({
        "name": function.name,
        "description": function.summary,
        "signature": function.signature(),
        "stability": function.stability.as_str(),
        "parameters": parameters.collect::<Vec<_>>(),
        "result": ty(&function.result, &[]),
        "example": { "expression": function.example, "gives": function.gives },
        "deprecated_name": function.deprecated_name,
    })
}

fn fields(schema: &Schema) -> Value {
    schema.fields.iter().map(field).collect()
}

fn field(field: &Field) -> Value {
    let mut object = Map::new();
    let kind = match field.kind {
        FieldKind::Attribute => "attribute",
        FieldKind::Block => "block",
        FieldKind::EnumBlocks => "blocks",
        FieldKind::Label => "label",
    };
    object.insert("name".to_owned(), json!(field.name));
    object.insert("kind".to_owned(), json!(kind));
    object.insert("description".to_owned(), json!(one_line(field.documentation)));
    object.insert("required".to_owned(), json!(field.required));
    if field.kind == FieldKind::Attribute {
        object.insert("type".to_owned(), ty(&field.ty, field.choices()));
        object.insert("secret".to_owned(), json!(holds_secret(&field.ty)));
        if let Some(default) = field.default.as_ref().filter(|_| !holds_secret(&field.ty)) {
            object.insert("default".to_owned(), json!(value_to_expression(default)));
        }
    } else {
        object.insert("many".to_owned(), json!(field.many));
        object.insert("recursive".to_owned(), json!(field.recursive.is_some()));
        object.insert("fields".to_owned(), field.fields.iter().map(self::field).collect());
    }
    if let Some(stability) = field.stability {
        object.insert("stability".to_owned(), json!(stability.as_str()));
    }
    Value::Object(object)
}

/// A type as an object whose `kind` names it; choices stand on the innermost part.
fn ty(of: &Type, choices: &[&str]) -> Value {
    match of {
        Type::List(element) => json!({ "kind": "list", "element": ty(element, choices) }),
        Type::Map(element) => json!({ "kind": "map", "element": ty(element, choices) }),
        Type::Enum(names) => json!({ "kind": "enum", "values": names }),
        Type::Capsule(name) => json!({ "kind": "capsule", "name": name }),
        Type::Integer { name, minimum, maximum } => {
            // Beyond 64 bits JSON numbers are a gamble; these fit.
            let bound = |number: &i128| {
                i64::try_from(*number).map(Value::from).or_else(|_| u64::try_from(*number).map(Value::from))
            };
            json!({ "kind": "integer", "name": name, "minimum": bound(minimum).ok(), "maximum": bound(maximum).ok() })
        }
        Type::Object(known) if !known.is_empty() => {
            let fields: Map<String, Value> =
                known.iter().map(|(name, of)| ((*name).to_owned(), ty(of, &[]))).collect();
            json!({ "kind": "object", "fields": fields })
        }
        _ if !choices.is_empty() => json!({ "kind": "string", "values": choices }),
        other => json!({ "kind": plain_type_text(other) }),
    }
}
