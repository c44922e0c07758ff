//! Holds what a block says against what its authors may use: names in expressions that read the host, and arguments whose
//! text names a file, a destination or an address. What is opened later is held against the same by whoever opens it.

use std::path::Path;

use invar_policy::{Access, Refusal};
use invar_syntax::diagnostic::Diagnostic;
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody};
use invar_syntax::function::{Function, FunctionError};
use invar_syntax::schema::{Field, FieldKind, Names, Schema, Type};
use invar_syntax::secret::OptionalSecret;
use invar_syntax::stdlib;
use invar_syntax::value::{Object, Value};

use crate::codes;

/// What an object of a target is reached under.
const ADDRESS: &str = "__address__";

/// Whether targets are looked at: those that are written down are, those that are found later are looked at one by one when
/// they are connected to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// Where the configuration is checked.
    Checked,
    /// Where its arguments are known.
    Decoded,
}

/// A field that names what may not be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    /// As in [`crate::Check::error`].
    pub(crate) field: String,
    pub(crate) refusal: Refusal,
}

/// A diagnostic of a refusal, without a place.
pub(crate) fn diagnostic(refusal: Refusal) -> Diagnostic {
    Diagnostic::error(codes::NOT_ALLOWED, refusal.message).with_help(refusal.help)
}

/// What is said of the first component beyond a limit.
pub(crate) fn too_many_components(limit: usize, table: &str) -> Refusal {
    Refusal {
        message: format!("there are more than {limit} components, the most that `limits` of {table} allows"),
        help: format!("raise `components` in `limits` of {table} in this host's settings"),
    }
}

/// The value of a name of the standard library that reads the host or reveals a secret, in the form in which these authors may
/// use it; none where they may use it as it is. With `known` unset a value that only the host knows is unknown.
pub(crate) fn guarded_name(path: &[&str], access: &Access, known: bool) -> Option<(Value, usize)> {
    match path {
        ["env", ..] if access.restricts_environment() => Some((environment(access, known), 1)),
        ["sys", "env", ..] if access.restricts_environment() => Some((environment(access, known), 2)),
        // Also where it is only reached into later, as by `sys["env"]`.
        ["sys"] if access.restricts_environment() => {
            Some((with_member("sys", "env", environment(access, known)), 1))
        }
        ["nonsensitive", ..] if access.restricts_nonsensitive() => Some((nonsensitive(access), 1)),
        ["convert", "nonsensitive", ..] if access.restricts_nonsensitive() => Some((nonsensitive(access), 2)),
        ["convert"] if access.restricts_nonsensitive() => {
            Some((with_member("convert", "nonsensitive", nonsensitive(access)), 1))
        }
        _ => None,
    }
}

/// `sys.env` for names that may be read.
fn environment(access: &Access, known: bool) -> Value {
    let access = access.clone();
    Value::Function(Function::new("sys.env", move |arguments| {
        if let [name] = arguments
            && let Some(name) = text(name)
        {
            access.environment_variable(&name).map_err(|refusal| FunctionError::call(refusal.to_string()))?;
        }
        if known { call("env", arguments) } else { Ok(Value::Unknown(Type::String)) }
    }))
}

/// `convert.nonsensitive` where it is switched off.
fn nonsensitive(access: &Access) -> Value {
    let access = access.clone();
    Value::Function(Function::new("convert.nonsensitive", move |arguments| {
        access.nonsensitive().map_err(|refusal| FunctionError::call(refusal.to_string()))?;
        call("nonsensitive", arguments)
    }))
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, FunctionError> {
    match stdlib::lookup(name) {
        Some(Value::Function(function)) => function.call(arguments),
        _ => Err(FunctionError::call("is not available")),
    }
}

/// A namespace of the standard library with another member.
fn with_member(namespace: &str, name: &'static str, member: Value) -> Value {
    let mut object =
        stdlib::lookup(namespace).and_then(|value| value.to_object().map(|object| Object::clone(&object)));
    let object = object.get_or_insert_default();
    object.insert(name, member);
    Value::from(std::mem::take(object))
}

/// What arguments name and their authors may not use. `arguments` is the object of all arguments, defaults included.
pub(crate) fn refused(
    schema: &Schema,
    arguments: impl FnOnce() -> Value,
    access: &Access,
    when: When,
) -> Vec<Refused> {
    let mut found = Vec::new();
    if (access.restricts_files() || access.restricts_egress())
        && let Some(object) = arguments().to_object()
    {
        Walk { access, when, found: &mut found }.fields(&schema.fields, &object, "");
    }
    found
}

/// As [`refused`], of a body of which not everything is known: only what it gives is looked at.
pub(crate) fn refused_in(schema: &Schema, body: &EvaluatedBody, access: &Access) -> Vec<Refused> {
    refused(schema, || Value::from(given(&schema.fields, body)), access, When::Checked)
}

/// A body as the object that its arguments would be.
fn given(fields: &[Field], body: &EvaluatedBody) -> Object {
    let mut object = Object::new();
    for attribute in &body.attributes {
        object.insert(attribute.name.name.clone(), attribute.value.clone());
    }
    for field in fields {
        let inner = |block: &EvaluatedBlock, fields: &[Field]| Value::from(given(fields, &block.body));
        let value = match field.kind {
            FieldKind::Block => {
                let nested = field.nested_fields();
                let blocks = body.blocks.iter().filter(|block| block.dotted_name() == field.name);
                let mut values: Vec<Value> = blocks.map(|block| inner(block, &nested)).collect();
                match (values.pop(), values.is_empty()) {
                    (None, _) => continue,
                    (Some(only), true) if !field.many => only,
                    (Some(last), _) => Value::array(values.into_iter().chain([last])),
                }
            }
            FieldKind::EnumBlocks => {
                let kinds = field.nested_fields();
                let elements = body.blocks.iter().filter_map(|block| {
                    let name = block.dotted_name();
                    let kind = name.strip_prefix(field.name)?.strip_prefix('.')?;
                    let of_kind = kinds.iter().find(|known| known.name == kind)?;
                    Some(Value::object([(of_kind.name, inner(block, &of_kind.nested_fields()))]))
                });
                Value::array(elements.collect::<Vec<_>>())
            }
            FieldKind::Attribute | FieldKind::Label => continue,
        };
        object.insert(field.name, value);
    }
    object
}

struct Walk<'a> {
    access: &'a Access,
    when: When,
    found: &'a mut Vec<Refused>,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field], object: &Object, path: &str) {
        for field in fields {
            let Some(value) = object.get(field.name) else { continue };
            let here = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
            match field.kind {
                FieldKind::Attribute => {
                    if let Some(names) = field.names {
                        self.value(names, value, &here);
                    }
                }
                FieldKind::Block => self.blocks(&field.nested_fields(), value, &here),
                FieldKind::EnumBlocks => {
                    let kinds = field.nested_fields();
                    for element in value.to_items().iter().flat_map(|items| items.iter()) {
                        let Some(element) = element.to_object() else { continue };
                        for kind in kinds.iter() {
                            if let Some(value) = element.get(kind.name) {
                                self.blocks(&kind.nested_fields(), value, &format!("{here}.{}", kind.name));
                            }
                        }
                    }
                }
                FieldKind::Label => {}
            }
        }
    }

    fn blocks(&mut self, fields: &[Field], value: &Value, path: &str) {
        if let Value::Array(items) = value {
            for (index, item) in items.iter().enumerate() {
                if let Some(object) = item.to_object() {
                    self.fields(fields, &object, &format!("{path}[{index}]"));
                }
            }
        } else if let Some(object) = value.to_object() {
            self.fields(fields, &object, path);
        }
    }

    fn value(&mut self, names: Names, value: &Value, path: &str) {
        match (names, value) {
            (Names::Listen | Names::Nothing, _) => {}
            (Names::Targets, _) if self.when == When::Decoded => {}
            (Names::Targets, Value::Array(items)) => {
                for address in items.iter().filter_map(|item| item.to_object()?.get(ADDRESS).cloned()) {
                    self.value(Names::Destination, &address, path);
                }
            }
            (Names::Targets, _) => {}
            (_, Value::Array(items)) => items.iter().for_each(|item| self.value(names, item, path)),
            (_, Value::Object(object)) => object.iter().for_each(|(_, item)| self.value(names, item, path)),
            (Names::File | Names::Destination, value) => {
                let Some(named) = text(value).filter(|text| !text.is_empty()) else { return };
                let checked = match (names, named.strip_prefix("file://")) {
                    // Within a snapshot; whoever opens files of the host knows no such names.
                    (Names::File, _) if named.starts_with("/@") => Ok(()),
                    (Names::File, _) => self.access.file_named(Path::new(&named)),
                    (_, Some(path)) => self.access.file_named(Path::new(path)),
                    (_, None) if named.starts_with('/') => self.access.file_named(Path::new(&named)),
                    (_, None) => self.access.destination_text(&named).map(drop),
                };
                if let Err(mut refusal) = checked {
                    if is_secret(value) {
                        refusal.message = "what this secret names may not be used".to_owned();
                        refusal.help = "the ceiling is in [policy] of this host's settings".to_owned();
                    }
                    let refused = Refused { field: path.to_owned(), refusal };
                    if !self.found.contains(&refused) {
                        self.found.push(refused);
                    }
                }
            }
        }
    }
}

fn is_secret(value: &Value) -> bool {
    matches!(
        value,
        Value::Secret(_) | Value::LiveSecret(_) | Value::OptionalSecret(OptionalSecret::Secret(_))
    )
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string()),
        Value::Secret(secret) => Some(secret.expose().to_owned()),
        Value::LiveSecret(live) => Some(live.read().expose().to_owned()),
        Value::OptionalSecret(optional) => Some(optional.expose().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use invar_policy::{Policy, PolicySettings};
    use invar_syntax::arguments::Arguments;
    use invar_syntax::evaluate::{evaluate, evaluate_body};
    use invar_syntax::scope::{EmptyScope, Scope};
    use invar_syntax::secret::Secret;
    use invar_syntax::source::Source;
    use invar_syntax::{parse_bytes, parse_expression};

    use super::*;

    #[derive(Arguments, Clone, Debug, Default, PartialEq)]
    struct Inner {
        #[argument(names = "file")]
        key_file: String,
        #[argument(default = "\"unix.example:1\"", names = "destination")]
        server: String,
    }

    #[derive(Arguments, Clone, Debug, PartialEq)]
    struct Outer {
        #[argument(names = "file")]
        files: Vec<String>,
        #[argument(names = "destination")]
        urls: BTreeMap<String, Secret>,
        #[argument(names = "targets")]
        targets: Vec<BTreeMap<String, String>>,
        #[argument(names = "nothing")]
        path: String,
        #[argument(block)]
        only: Option<Inner>,
        #[argument(block)]
        many: Vec<Inner>,
    }

    fn access(settings: PolicySettings) -> Access {
        Policy::new(&settings, &[]).unwrap().general().clone()
    }

    fn ceiling() -> Access {
        let text = |text: &str| Some(vec![text.to_owned()]);
        access(PolicySettings {
            environment_variables: text("ALLOWED"),
            file_roots: Some(vec!["/allowed".into()]),
            egress: text("*.example"),
            nonsensitive: Some(false),
            ..PolicySettings::default()
        })
    }

    fn body(text: &str) -> EvaluatedBody {
        let (file, found) = parse_bytes("test", text.as_bytes());
        evaluate_body(&file.unwrap_or_else(|| panic!("{found}")).body, &EmptyScope).unwrap()
    }

    fn fields(refused: &[Refused]) -> Vec<&str> {
        refused.iter().map(|refused| &*refused.field).collect()
    }

    #[test]
    fn what_a_body_gives_is_looked_at_wherever_it_stands() {
        let body = body(
            "files = [\"/allowed/a\", \"/etc/a\"]\npath = \"/etc/b\"\nurls = {a = \"http://evil.test/\", b = \"http://x.example\"}\n\
             targets = [{__address__ = \"10.0.0.1:80\"}, {__address__ = \"t.example:80\"}]\n\
             only {\n server = \"evil.test:1\"\n}\nmany {\n key_file = \"/allowed/k\"\n}\nmany {\n key_file = \"/etc/k\"\n}\n",
        );
        let found = refused_in(&Outer::schema(), &body, &ceiling());
        assert_eq!(fields(&found), ["files", "urls", "targets", "only.server", "many[1].key_file"]);
        assert!(refused_in(&Outer::schema(), &body, &Access::unrestricted()).is_empty());
    }

    #[test]
    fn defaults_are_looked_at_where_the_arguments_are_known() {
        let mut errors = Vec::new();
        let arguments = Outer::decode(&body("only { }\n"), &mut errors).unwrap();
        let narrow = access(PolicySettings { egress: Some(Vec::new()), ..PolicySettings::default() });
        let found = refused(&Outer::schema(), || arguments.to_value(), &narrow, When::Decoded);
        assert_eq!(fields(&found), ["only.server"]);
        assert!(refused(&Outer::schema(), || arguments.to_value(), &ceiling(), When::Decoded).is_empty());
    }

    #[test]
    fn a_secret_that_is_refused_is_not_shown() {
        let mut errors = Vec::new();
        let body = body("urls = {a = \"http://user:hidden@evil.test/\"}\n");
        let arguments = Outer::decode(&body, &mut errors).unwrap();
        let found = refused(&Outer::schema(), || arguments.to_value(), &ceiling(), When::Decoded);
        assert_eq!(fields(&found), ["urls"]);
        assert!(!format!("{found:?}").contains("evil.test") && !format!("{found:?}").contains("hidden"));
    }

    struct Guarded(Access);

    impl Scope for Guarded {
        fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
            guarded_name(path, &self.0, true)
        }
    }

    #[test]
    fn no_way_of_writing_it_reads_a_variable_that_is_not_allowed() {
        let scope = Guarded(ceiling());
        let run =
            |text: &str| evaluate(&parse_expression(Arc::new(Source::new("test", text))).unwrap(), &scope);
        for text in [
            "sys.env(\"HOME\")",
            "env(\"HOME\")",
            "sys[\"env\"](\"HOME\")",
            "(sys.env)(\"HOME\")",
            "[sys.env][0](\"HOME\")",
            "{f = env}.f(\"HOME\")",
            "{s = sys}.s.env(\"HOME\")",
            "sys.env(string.join([\"HO\", \"ME\"], \"\"))",
            "convert.nonsensitive(\"x\")",
            "nonsensitive(\"x\")",
            "convert[\"nonsensitive\"](\"x\")",
        ] {
            let refused = run(text).unwrap_err();
            assert!(refused.message.contains("may not be"), "{text}: {}", refused.message);
        }
        assert_eq!(run("sys.env(\"ALLOWED\")").unwrap(), Value::string(""));
        assert_eq!(run("string.to_upper(\"a\")").unwrap(), Value::string("A"));
        assert!(guarded_name(&["sys", "env"], &Access::unrestricted(), true).is_none());
    }
}
