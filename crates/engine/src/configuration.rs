//! A configuration: parsed files and the inputs they are evaluated with. Immutable; what generations are made of.

use std::collections::BTreeSet;
use std::sync::Arc;

use invar_syntax::ast::File;
use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::evaluate::references;
use invar_syntax::lexer::lex;
use invar_syntax::parser::parse_bytes;
use invar_syntax::value::{Object, Value};
use sha2::{Digest, Sha256};

/// The names by which expressions reach the inputs.
pub(crate) const INPUT_NAMES: [&str; 3] = ["var", "agent", "module_path"];

/// What the expressions of a configuration may use beside the components.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// `var`: typed variables, an object.
    pub variables: Value,
    /// `agent`: name, environment, labels; an object.
    pub agent: Value,
    /// `module_path`: where relative paths in the files begin.
    pub module_path: String,
}

/// Parsed files with their inputs.
#[derive(Debug)]
pub struct Configuration {
    /// The files in composition order.
    pub files: Vec<Arc<File>>,
    /// What expressions may use.
    pub inputs: Inputs,
    /// SHA-256, in hexadecimal, over the tokens of each file without comments, its path, and the inputs that the files use: two
    /// configurations of one digest mean the same.
    pub digest: String,
    /// The revision it came from, for people.
    pub revision: String,
}

// === impl Inputs ===

impl Default for Inputs {
    fn default() -> Self {
        Self {
            variables: Value::from(Object::new()),
            agent: Value::from(Object::new()),
            module_path: String::new(),
        }
    }
}

impl Inputs {
    /// The value of an input name.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        match name {
            "var" => Some(self.variables.clone()),
            "agent" => Some(self.agent.clone()),
            "module_path" => Some(Value::string(self.module_path.as_str())),
            _ => None,
        }
    }
}

// === impl Configuration ===

impl Configuration {
    /// Parses files given as path and content, in composition order.
    ///
    /// # Errors
    /// All syntax errors of all files.
    pub fn parse<N: AsRef<str>, B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (N, B)>,
        inputs: Inputs,
        revision: impl Into<String>,
    ) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut parsed = Vec::new();
        for (name, content) in files {
            let (file, found) = parse_bytes(name.as_ref(), content.as_ref());
            diagnostics.0.extend(found.0);
            parsed.extend(file.map(Arc::new));
        }
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        Ok(Self::of_files(parsed, inputs, revision))
    }

    /// A configuration of files that are parsed already, in composition order.
    #[must_use]
    pub fn of_files(files: Vec<Arc<File>>, inputs: Inputs, revision: impl Into<String>) -> Self {
        let digest = digest(&files, &inputs);
        Self { files, inputs, digest, revision: revision.into() }
    }

    /// A configuration without files.
    #[must_use]
    pub fn empty() -> Self {
        Self::of_files(Vec::new(), Inputs::default(), "")
    }
}

/// The digest of a configuration: comments, blank lines and unused inputs make no difference, the order of files neither.
fn digest(files: &[Arc<File>], inputs: &Inputs) -> String {
    let mut hasher = Sha256::new();
    let mut used = BTreeSet::new();
    let mut by_path: Vec<_> = files.iter().collect();
    by_path.sort_by(|left, right| left.source.name.cmp(&right.source.name));
    for file in by_path {
        add_text(&mut hasher, &file.source.name);
        for token in lex(&file.source.text).tokens {
            add_text(&mut hasher, file.source.slice(token.span).trim());
        }
        for reference in references(&file.body) {
            let path: Vec<&str> = reference.path.iter().map(|name| &**name).collect();
            if let [root, rest @ ..] = &*path
                && INPUT_NAMES.contains(root)
            {
                used.insert((String::from(*root), rest.first().map(|name| String::from(*name))));
            }
        }
    }
    for (root, field) in used {
        add_text(&mut hasher, &root);
        let value = inputs.get(&root).unwrap_or(Value::Null);
        match field {
            Some(field) => {
                add_text(&mut hasher, &field);
                let object = value.to_object();
                add_value(
                    &mut hasher,
                    object.as_deref().and_then(|object| object.get(&field)).unwrap_or(&Value::Null),
                );
            }
            None => add_value(&mut hasher, &value),
        }
    }
    hexadecimal(&hasher.finalize())
}

/// Lowercase hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn add_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn add_value(hasher: &mut Sha256, value: &Value) {
    add_text(hasher, value.type_name());
    match value {
        Value::Bool(value) => hasher.update([u8::from(*value)]),
        Value::Number(number) => add_text(hasher, &number.to_string()),
        Value::String(text) => add_text(hasher, text),
        Value::Bytes(bytes) => {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        Value::Array(items) => {
            hasher.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| add_value(hasher, item));
        }
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_by(|left, right| left.0.cmp(right.0));
            hasher.update((fields.len() as u64).to_le_bytes());
            for (name, value) in fields {
                add_text(hasher, name);
                add_value(hasher, value);
            }
        }
        // Secrets are compared by the expression that names them, which is in the tokens; the rest cannot be an input.
        Value::Null
        | Value::Function(_)
        | Value::Secret(_)
        | Value::OptionalSecret(_)
        | Value::Capsule(_)
        | Value::Unknown(_) => {}
    }
}
