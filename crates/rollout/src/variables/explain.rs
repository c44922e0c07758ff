//! Where a variable comes from, as the API and `invar explain` tell it.

use invar_engine::{Definition, Variables};
use invar_syntax::value::Value;
use invar_syntax::{nearest, value_to_expression};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::credential;

/// A variable, or a field of one, with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariableReport {
    /// Its path as expressions write it: `var.db.host`.
    pub name: String,
    /// `string`, `number`, `bool`, `array` or `object`.
    pub r#type: String,
    /// The value; whole numbers are exact.
    pub value: Json,
    /// The value as an expression of the language.
    pub expression: String,
    /// Where the value comes from. A table comes from every layer that adds to it; its last one stands here.
    pub defined: Option<VariablePlace>,
    /// What that overrode, the nearest layer first. For a table, the other layers that add to it.
    pub overrode: Vec<VariablePlace>,
    /// What is in a table, each with its own provenance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Self>,
    /// What deserves attention.
    #[serde(default)]
    pub warning: Option<String>,
}

/// A place in a `variables.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariablePlace {
    /// The source of the configuration, as in the settings.
    pub source: String,
    /// The folder that is the layer; empty for the root.
    pub layer: String,
    /// The file.
    pub file: String,
    /// Line of the key, from 1.
    pub line: u32,
    /// Byte column of the key, from 1.
    pub column: u32,
    /// The value as it stands there; none for tables.
    pub text: Option<String>,
}

/// Explains `var.NAME` (`var.` may be left out); `var` alone is all of them.
///
/// # Errors
/// There is no such variable; a sentence for people.
pub fn explain_variable(variables: &Variables, name: &str) -> Result<VariableReport, String> {
    let path: Vec<&str> = match name.strip_prefix("var.").unwrap_or(name) {
        "var" | "" => Vec::new(),
        path => path.split('.').collect(),
    };
    match variables.get(&path) {
        Some(value) => Ok(report(variables, &path, &value)),
        None => {
            let first = path.first().copied().unwrap_or_default();
            let all = variables.paths().map(|path| path.join(".")).collect::<Vec<_>>();
            let near = nearest(&path.join("."), all.iter().map(String::as_str));
            let help = match (near, variables.searched()) {
                (Some(near), _) => format!("did you mean var.{near}?"),
                (None, []) => "no variables.toml belongs to this configuration".to_owned(),
                (None, searched) => format!("searched {}", searched.join(", ")),
            };
            let whole =
                if path.len() > 1 && variables.get(&[first]).is_none() { first } else { &path.join(".") };
            Err(format!("var.{whole} is not defined; {help}"))
        }
    }
}

fn report(variables: &Variables, path: &[&str], value: &Value) -> VariableReport {
    let is_table = matches!(value, Value::Object(_)) && (path.is_empty() || has_fields(variables, path));
    let mut places: Vec<_> =
        variables.definitions(path).iter().rev().map(|definition| place(definition, is_table)).collect();
    let defined = if places.is_empty() { None } else { Some(places.remove(0)) };
    let fields = match value {
        Value::Object(object) if is_table => object
            .iter()
            .map(|(key, value)| {
                let mut below = path.to_vec();
                below.push(key);
                report(variables, &below, value)
            })
            .collect(),
        _ => Vec::new(),
    };
    let warning = (!is_table && credential::looks_like_one(path.last().unwrap_or(&""), value)).then(|| {
        "this looks like a credential, and everyone who may read the repository can read it".to_owned()
    });
    VariableReport {
        name: std::iter::once("var").chain(path.iter().copied()).collect::<Vec<_>>().join("."),
        r#type: value.type_name().to_owned(),
        value: plain(value),
        expression: value_to_expression(value),
        defined,
        overrode: places,
        fields,
        warning,
    }
}

/// Whether the keys of a table have places of their own; those of a table within a list have not.
fn has_fields(variables: &Variables, path: &[&str]) -> bool {
    variables.get(path).and_then(|value| value.to_object()).is_some_and(|object| {
        object.keys().all(|key| {
            let mut below = path.to_vec();
            below.push(key);
            !variables.definitions(&below).is_empty()
        })
    })
}

fn place(definition: &Definition, is_table: bool) -> VariablePlace {
    let position = definition.source.position(definition.key.start);
    VariablePlace {
        source: definition.origin.to_string(),
        layer: definition.layer.to_string(),
        file: definition.source.name.to_string(),
        line: position.line,
        column: position.column,
        text: (!is_table).then(|| definition.text().to_owned()),
    }
}

/// The value as JSON of the same shape. Variables have no other types than these.
fn plain(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => json!(flag),
        Value::Number(invar_syntax::Number::Int(number)) => json!(number),
        Value::Number(invar_syntax::Number::Uint(number)) => json!(number),
        Value::Number(number) => json!(number.as_f64()),
        Value::String(text) => json!(&**text),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| (key.to_string(), plain(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        _ => Json::Null,
    }
}
