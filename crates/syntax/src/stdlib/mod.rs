//! The standard library: constants and functions that every expression can use. One table lists them all with their
//! arity, result type and what they do with secrets.

mod array;
mod encoding;
mod format;
mod go_float;
mod json_path;
mod json_text;
mod path;
mod reference;
mod select;
mod text;
mod yaml;
mod yaml_scalar;

use std::sync::LazyLock;

use indexmap::IndexMap;

use crate::convert::{ConvertError, text_from_value};
use crate::expression_text::value_to_expression;
use crate::function::{Function, FunctionError};
use crate::live_secret::LiveSecret;
use crate::schema::{Stability, Type};
use crate::secret::{OptionalSecret, Secret};
use crate::value::{Object, Value};

pub use reference::{ConstantInfo, FunctionInfo, Parameter, constants, function, functions};

type Outcome = Result<Value, FunctionError>;

/// How many arguments a function takes.
#[derive(Clone, Copy)]
enum Arity {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

/// What a function does when an argument is or holds a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    /// It works on the plain text, and all text in the result is secret.
    Taint,
    /// It only moves values around; secrets stay what they are.
    Carry,
    /// It refuses them, or deals with them itself.
    Own,
}

struct Definition {
    name: &'static str,
    arity: Arity,
    secrets: Secrets,
    result: Type,
    stability: Stability,
    body: fn(&[Value]) -> Outcome,
}

fn define(
    name: &'static str,
    arity: Arity,
    secrets: Secrets,
    result: Type,
    body: fn(&[Value]) -> Outcome,
) -> Definition {
    Definition { name, arity, secrets, result, stability: Stability::GenerallyAvailable, body }
}

fn experimental(definition: Definition) -> Definition {
    Definition { stability: Stability::Experimental, ..definition }
}

fn definitions() -> Vec<Definition> {
    use Arity::{AtLeast, Between, Exactly};
    use Secrets::{Carry, Own, Taint};
    let texts = || Type::list(Type::String);
    let any_list = || Type::list(Type::Any);
    vec![
        define("coalesce", AtLeast(0), Carry, Type::Any, select::coalesce),
        define("json_path", Exactly(2), Taint, any_list(), json_path::function),
        define("array.concat", AtLeast(0), Carry, any_list(), array::concat),
        experimental(define("array.combine_maps", Between(3, 4), Carry, any_list(), array::combine_maps)),
        experimental(define("array.group_by", Exactly(3), Carry, any_list(), array::group_by)),
        define("convert.nonsensitive", Exactly(1), Own, Type::String, select::nonsensitive),
        define("encoding.from_json", Exactly(1), Taint, Type::Any, json_text::decode),
        define("encoding.from_yaml", Exactly(1), Taint, Type::Any, yaml::decode),
        define("encoding.from_base64", Exactly(1), Taint, Type::Any, encoding::from_base64),
        define("encoding.from_URLbase64", Exactly(1), Taint, Type::Any, encoding::from_url_base64),
        define("encoding.to_base64", Exactly(1), Taint, Type::String, encoding::to_base64),
        define("encoding.to_URLbase64", Exactly(1), Taint, Type::String, encoding::to_url_base64),
        define("encoding.to_json", Exactly(1), Taint, Type::String, json_text::encode),
        define("encoding.url_encode", Exactly(1), Taint, Type::String, encoding::url_encode),
        define("encoding.url_decode", Exactly(1), Taint, Type::String, encoding::url_decode),
        define("file.path_join", AtLeast(0), Taint, Type::String, path::join),
        define("string.format", AtLeast(1), Taint, Type::String, format::function),
        define("string.join", Exactly(2), Taint, Type::String, text::join),
        define("string.replace", Exactly(3), Taint, Type::String, text::replace),
        define("string.split", Exactly(2), Taint, texts(), text::split),
        define("string.to_lower", Exactly(1), Taint, Type::String, text::to_lower),
        define("string.to_upper", Exactly(1), Taint, Type::String, text::to_upper),
        define("string.trim", Exactly(2), Taint, Type::String, text::trim),
        define("string.trim_prefix", Exactly(2), Taint, Type::String, text::trim_prefix),
        define("string.trim_suffix", Exactly(2), Taint, Type::String, text::trim_suffix),
        define("string.trim_space", Exactly(1), Taint, Type::String, text::trim_space),
        define("secret", Exactly(1), Own, Type::Secret, select::secret),
        define("sys.env", Exactly(1), Own, Type::String, select::environment),
    ]
}

/// Deprecated names and the ones to use instead.
const DEPRECATED: &[(&str, &str)] = &[
    ("env", "sys.env"),
    ("nonsensitive", "convert.nonsensitive"),
    ("concat", "array.concat"),
    ("json_decode", "encoding.from_json"),
    ("yaml_decode", "encoding.from_yaml"),
    ("base64_decode", "encoding.from_base64"),
    ("format", "string.format"),
    ("join", "string.join"),
    ("replace", "string.replace"),
    ("split", "string.split"),
    ("to_lower", "string.to_lower"),
    ("to_upper", "string.to_upper"),
    ("trim", "string.trim"),
    ("trim_prefix", "string.trim_prefix"),
    ("trim_suffix", "string.trim_suffix"),
    ("trim_space", "string.trim_space"),
];

struct Library {
    /// Namespaces, functions without one, and deprecated names.
    names: IndexMap<&'static str, Value>,
    /// By full name.
    functions: IndexMap<&'static str, (Type, Stability, Arity)>,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let mut functions = IndexMap::new();
    let mut values: IndexMap<&'static str, Value> = IndexMap::new();
    for definition in definitions() {
        functions
            .insert(definition.name, (definition.result.clone(), definition.stability, definition.arity));
        values.insert(definition.name, function_value(definition));
    }
    for (name, value) in select::constants() {
        values.insert(name, value);
    }
    let mut spaces: IndexMap<&'static str, Object> = IndexMap::new();
    let mut names: IndexMap<&'static str, Value> = IndexMap::new();
    for (full_name, value) in &values {
        match full_name.split_once('.') {
            Some((space, name)) => spaces.entry(space).or_default().insert(name, value.clone()),
            None => {
                names.insert(full_name, value.clone());
            }
        }
    }
    for (space, mut object) in spaces {
        object.sort();
        names.insert(space, Value::from(object));
    }
    for (old, new) in DEPRECATED {
        if let Some(value) = values.get(new) {
            names.insert(old, value.clone());
        }
    }
    Library { names, functions }
});

/// The value of a name of the library: a namespace as an object, or a function without one.
#[must_use]
pub fn lookup(name: &str) -> Option<Value> {
    LIBRARY.names.get(name).cloned()
}

/// The names that are not deprecated: namespaces and functions without one.
pub fn namespaces() -> impl Iterator<Item = &'static str> {
    LIBRARY.names.keys().copied().filter(|name| deprecated(name).is_none())
}

/// The deprecated name and its replacement, if `name` is one.
#[must_use]
pub fn deprecated(name: &str) -> Option<(&'static str, &'static str)> {
    DEPRECATED.iter().find(|(old, _)| *old == name).copied()
}

/// The deprecated names.
pub fn deprecated_names() -> impl Iterator<Item = &'static str> {
    DEPRECATED.iter().map(|(old, _)| *old)
}

/// The type of what a function gives, by its full or deprecated name; `Any` for functions that are not of the library.
#[must_use]
pub fn result_type(name: &str) -> Type {
    let name = deprecated(name).map_or(name, |(_, instead)| instead);
    LIBRARY.functions.get(name).map_or(Type::Any, |(result, ..)| result.clone())
}

/// What is wrong with calling a function, named in full or by its deprecated name, with so many arguments.
#[must_use]
pub fn arity_error(name: &str, arguments: usize) -> Option<String> {
    let name = deprecated(name).map_or(name, |(_, instead)| instead);
    let (.., arity) = LIBRARY.functions.get(name)?;
    check_arity(*arity, arguments).err().map(|error| error.message)
}

/// Whether a name, full or deprecated, is that of a function that gives the same for the same arguments on every host.
#[must_use]
pub fn is_pure(name: &str) -> bool {
    let name = deprecated(name).map_or(name, |(_, instead)| instead);
    !matches!(name, "sys.env" | "secret") && LIBRARY.functions.contains_key(name)
}

/// How mature the function at the beginning of a path is; none if the path names no function of the library.
#[must_use]
pub fn stability(path: &[&str]) -> Option<Stability> {
    let full_name = path.get(..2).map(|two| two.join("."));
    let by_name = |name: &str| LIBRARY.functions.get(name).map(|(_, stability, _)| *stability);
    full_name.and_then(|name| by_name(&name)).or_else(|| path.first().and_then(|name| by_name(name)))
}

/// Full names of all functions.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    LIBRARY.functions.keys().copied()
}

fn function_value(definition: Definition) -> Value {
    let Definition { name, arity, secrets, body, .. } = definition;
    Value::Function(Function::new(name, move |arguments: &[Value]| {
        check_arity(arity, arguments.len())?;
        if secrets != Secrets::Taint || !arguments.iter().any(Value::has_secret) {
            return body(arguments);
        }
        let mut secrets = Vec::new();
        let revealed: Vec<Value> = arguments
            .iter()
            .map(|argument| reveal(argument, &mut |secret| take(secret, &mut secrets)))
            .collect();
        match body(&revealed) {
            Ok(result) if secrets.iter().any(LiveSecret::is_live) => {
                Ok(follow(&result, &mut Vec::new(), &Call { name, body, arguments, secrets: &secrets }))
            }
            Ok(result) => taint(&result),
            // The message of a parser quotes what it read.
            Err(error) => Err(FunctionError {
                message: "is not accepted; the reason is withheld because an argument is secret".to_owned(),
                argument: Some(error.argument.unwrap_or(0)),
                path: String::new(),
            }),
        }
    }))
}

fn check_arity(arity: Arity, got: usize) -> Result<(), FunctionError> {
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let message = match arity {
        Arity::Exactly(count) if got != count => format!("expected {count} {}, got {got}", plural(count)),
        Arity::AtLeast(count) if got < count => {
            format!("expected at least {count} {}, got {got}", plural(count))
        }
        Arity::Between(least, most) if got < least || got > most => {
            format!("expected {least} to {most} arguments, got {got}")
        }
        _ => return Ok(()),
    };
    Err(FunctionError::call(message))
}

/// The value with its secrets as the plain text that `text` gives for each, in the order of the value.
fn reveal(value: &Value, text: &mut dyn FnMut(LiveSecret) -> Secret) -> Value {
    match value {
        Value::Secret(secret) | Value::OptionalSecret(OptionalSecret::Secret(secret)) => {
            Value::string(text(secret.clone().into()).expose())
        }
        Value::LiveSecret(live) => Value::string(text(live.clone()).expose()),
        Value::Array(items) => Value::array(items.iter().map(|item| reveal(item, text)).collect::<Vec<_>>()),
        Value::Object(object) => {
            let fields: Vec<_> = object.iter().map(|(key, item)| (key.clone(), reveal(item, text))).collect();
            Value::object(fields)
        }
        Value::Capsule(capsule) => match capsule.to_object() {
            Some(object) => reveal(&Value::from(object), text),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

/// The text of a secret now; it joins those that are used.
fn take(secret: LiveSecret, secrets: &mut Vec<LiveSecret>) -> Secret {
    let text = secret.read();
    secrets.push(secret);
    text
}

/// A call with secrets among its arguments that may change.
struct Call<'a> {
    name: &'static str,
    body: fn(&[Value]) -> Outcome,
    arguments: &'a [Value],
    secrets: &'a [LiveSecret],
}

/// The result with every text in it as a secret that changes as those of the call do. `path` leads there from the whole
/// result.
fn follow(value: &Value, path: &mut Vec<Step>, call: &Call<'_>) -> Value {
    match value {
        Value::Null | Value::Function(_) | Value::Secret(_) | Value::LiveSecret(_) | Value::Unknown(_) => {
            value.clone()
        }
        Value::Array(items) => {
            let mut followed = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                followed.push(follow(item, path, call));
                path.pop();
            }
            Value::Array(followed.into())
        }
        Value::Object(object) => {
            let mut followed = Object::new();
            for (key, item) in object.iter() {
                path.push(Step::Key(key.clone()));
                followed.insert(key.clone(), follow(item, path, call));
                path.pop();
            }
            Value::from(followed)
        }
        _ => {
            let (body, arguments, path) = (call.body, call.arguments.to_vec(), path.clone());
            let shown: Vec<String> = arguments.iter().map(value_to_expression).collect();
            let operation = format!("{}({})@{path:?}", call.name, shown.join(", "));
            let made = LiveSecret::derived(&operation, call.secrets.to_vec(), move |texts| {
                let mut texts = texts.iter().cloned();
                let revealed: Vec<Value> = arguments
                    .iter()
                    .map(|argument| reveal(argument, &mut |_| texts.next().unwrap_or_default()))
                    .collect();
                let result = body(&revealed).ok()?;
                match taint(path.iter().try_fold(&result, |value, step| step.within(value))?).ok()? {
                    Value::Secret(secret) => Some(secret),
                    _ => None,
                }
            });
            made.map_or(Value::Null, Value::LiveSecret)
        }
    }
}

/// One step into a value.
#[derive(Clone, Debug)]
enum Step {
    Index(usize),
    Key(std::sync::Arc<str>),
}

impl Step {
    fn within<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match (self, value) {
            (Self::Index(index), Value::Array(items)) => items.get(*index),
            (Self::Key(key), Value::Object(object)) => object.get(key),
            _ => None,
        }
    }
}

/// The value with everything that could tell about a secret turned into one. The names of fields stay: without them
/// nothing could be taken out of a decoded document.
fn taint(value: &Value) -> Outcome {
    Ok(match value {
        Value::Null
        | Value::Function(_)
        | Value::Secret(_)
        | Value::LiveSecret(_)
        | Value::Capsule(_)
        | Value::Unknown(_) => value.clone(),
        Value::Bool(flag) => Value::Secret(Secret::new(flag.to_string())),
        Value::Array(items) => {
            Value::Array(items.iter().map(taint).collect::<Result<Vec<Value>, FunctionError>>()?.into())
        }
        Value::Object(object) => {
            let mut tainted = Object::new();
            for (key, item) in object.iter() {
                tainted.insert(key.clone(), taint(item)?);
            }
            Value::from(tainted)
        }
        Value::OptionalSecret(optional) => Value::Secret(Secret::new(optional.expose())),
        Value::String(_) | Value::Number(_) | Value::Bytes(_) => {
            let text = text_from_value(value).map_err(|_| {
                FunctionError::argument(0, "holds bytes that are not UTF-8, which a secret cannot be")
            })?;
            Value::Secret(Secret::new(&*text))
        }
    })
}

/// The argument as text.
fn text_argument(arguments: &[Value], index: usize) -> Result<std::sync::Arc<str>, FunctionError> {
    text_from_value(arguments.get(index).unwrap_or(&Value::Null))
        .map_err(|error| argument_error(index, error))
}

fn argument_error(index: usize, error: ConvertError) -> FunctionError {
    FunctionError { argument: Some(index), path: error.path, message: error.message }
}

/// The argument as a list.
fn list_argument(arguments: &[Value], index: usize) -> Result<std::sync::Arc<[Value]>, FunctionError> {
    let value = arguments.get(index).unwrap_or(&Value::Null);
    value
        .to_items()
        .ok_or_else(|| FunctionError::argument(index, format!("should be array, got {}", value.describe())))
}
