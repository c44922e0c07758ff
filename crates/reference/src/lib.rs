//! What people and editors learn from the declarations: one model of everything a configuration can say (components,
//! configuration blocks, functions, names in scope), made from what the code declares, and its forms: a page for a
//! terminal or in Markdown, a snippet to start from, and a schema for programs.
//!
//! Invariants: nothing is described here that is not declared below; this crate does no I/O and knows no component by name.

mod markdown;
mod page;
mod schema;
mod snippet;
mod terminal;
mod type_text;

use invar_engine::Registry;
use invar_engine::language::{BlockInfo, NameInfo, configuration_blocks, names_in_scope};
use invar_engine::registry::ComponentInfo;
use invar_syntax::stdlib::{self, ConstantInfo, FunctionInfo};
use invar_syntax::{Field, FieldKind, nearest};

pub use markdown::{field_markdown, function_markdown};
pub use page::{Entry, Page, Section};
pub use schema::{SCHEMA_VERSION, language_schema};
pub use snippet::{Holes, snippet, value_hole};
pub use terminal::Emphasis;
pub use type_text::type_text;

/// Everything a configuration can say.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Components, by name.
    pub components: Vec<ComponentInfo>,
    /// Blocks that are no components, by name.
    pub blocks: Vec<BlockInfo>,
    /// Functions of the standard library.
    pub functions: Vec<FunctionInfo>,
    /// Constants of the standard library.
    pub constants: &'static [ConstantInfo],
    /// Other names that expressions can use.
    pub names: &'static [NameInfo],
}

impl Reference {
    /// The reference of a binary with these components.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            components: registry.iter().filter(|component| !component.settings).collect(),
            blocks: configuration_blocks(registry),
            functions: stdlib::functions(),
            constants: stdlib::constants(),
            names: names_in_scope(),
        }
    }

    /// The component of that name.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentInfo> {
        self.components.iter().find(|component| component.name == name)
    }

    /// The configuration block of that name.
    #[must_use]
    pub fn block(&self, name: &str) -> Option<&BlockInfo> {
        self.blocks.iter().find(|block| block.name == name)
    }

    /// The function of that name, deprecated names included.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&FunctionInfo> {
        self.functions.iter().find(|function| function.name == name || function.deprecated_name == Some(name))
    }

    /// The page of a component or block, or of a block nested in one: `prometheus.remote_write.endpoint.wal`.
    #[must_use]
    pub fn page(&self, path: &str) -> Option<Page> {
        if let Some(component) = self.component(path) {
            return Some(Page::of_component(component));
        }
        if let Some(block) = self.block(path) {
            return Some(Page::of_block(block));
        }
        let roots = self
            .components
            .iter()
            .map(|component| (component.name, &component.arguments.fields))
            .chain(self.blocks.iter().map(|block| (block.name, &block.arguments.fields)));
        roots
            .filter_map(|(name, fields)| Some((fields, path.strip_prefix(name)?.strip_prefix('.')?)))
            .find_map(|(fields, rest)| nested(fields, rest))
            .map(|field| Page::of_field(path, &field))
    }

    /// The names most like a wrong one: components, blocks and functions that are near it, or that hold it as a part.
    #[must_use]
    pub fn suggestions(&self, wrong: &str) -> Vec<&'static str> {
        let names = || {
            let components = self.components.iter().map(|component| component.name);
            components.chain(self.blocks.iter().map(|block| block.name))
        };
        suggestions(wrong, names)
    }

    /// The functions with a name most like a wrong one.
    #[must_use]
    pub fn function_suggestions(&self, wrong: &str) -> Vec<&'static str> {
        suggestions(wrong, || self.functions.iter().map(|function| function.name))
    }
}

/// How many names are suggested at most.
const SUGGESTIONS: usize = 5;

fn suggestions<I: Iterator<Item = &'static str>>(wrong: &str, names: impl Fn() -> I) -> Vec<&'static str> {
    let last = wrong.rsplit('.').next().unwrap_or(wrong);
    let same_last = names().filter(|name| name.rsplit('.').next() == Some(last));
    let containing = names().filter(|name| wrong.len() > 2 && name.contains(wrong));
    let mut found: Vec<&'static str> = Vec::new();
    for name in nearest(wrong, names()).into_iter().chain(same_last).chain(containing) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found.truncate(SUGGESTIONS);
    found
}

/// The field that a dotted path leads to through blocks. Names may themselves be dotted.
fn nested(fields: &[Field], path: &str) -> Option<Field> {
    fields.iter().filter(|field| field.kind != FieldKind::Label).find_map(|field| {
        let rest = path.strip_prefix(field.name)?;
        if rest.is_empty() {
            return Some(field.clone());
        }
        nested(&field.nested(), rest.strip_prefix('.')?)
    })
}

#[cfg(test)]
mod tests;
