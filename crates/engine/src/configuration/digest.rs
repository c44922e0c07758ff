//! The digest of a configuration: what makes two of them mean the same.

use std::collections::BTreeSet;

use invar_syntax::ast::File;
use invar_syntax::evaluate::references;
use invar_syntax::lexer::lex;
use invar_syntax::value::Value;
use sha2::{Digest, Sha256};

use super::{INPUT_NAMES, Inputs};
use crate::modules::Module;

/// A file with the prefix of its root.
pub(super) type RootFile<'a> = (&'a str, &'a File);

/// The digest of a configuration: comments, blank lines and unused inputs make no difference, the order of files neither.
pub(super) fn digest(files: &[RootFile<'_>], modules: &[&Module], inputs: &Inputs) -> String {
    let mut hasher = Sha256::new();
    let mut used = BTreeSet::new();
    let mut by_path: Vec<_> = files.iter().collect();
    by_path.sort_by_key(|(prefix, file)| (*prefix, &file.source.name));
    for (prefix, file) in by_path {
        if !prefix.is_empty() {
            add_text(&mut hasher, prefix);
        }
        add_file(&mut hasher, file, &mut used);
    }
    let mut by_key: Vec<_> = modules.iter().collect();
    by_key.sort_by_key(|module| &module.key);
    for module in by_key {
        add_text(&mut hasher, module.key.as_str());
        add_text(&mut hasher, &module.lexicon.module_path);
        for file in module.files() {
            add_file(&mut hasher, file, &mut used);
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

/// Adds the tokens of a file, and notes the inputs that it uses.
fn add_file(hasher: &mut Sha256, file: &File, used: &mut BTreeSet<(String, Option<String>)>) {
    add_text(hasher, &file.source.name);
    for token in lex(&file.source.text).tokens {
        add_text(hasher, file.source.slice(token.span).trim());
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
        | Value::LiveSecret(_)
        | Value::Capsule(_)
        | Value::Unknown(_) => {}
    }
}
