//! Blocks that nothing uses: `declare`, `import.*`, and the `argument` of a `declare`.

use std::collections::HashSet;
use std::sync::Arc;

use invar_syntax::ast::{Block, Body, File};
use invar_syntax::diagnostic::Diagnostic;
use invar_syntax::evaluate::references;

use crate::codes;

/// The unused blocks of a configuration.
pub(super) fn unused(files: &[Arc<File>]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let blocks = || files.iter().flat_map(|file| file.body.blocks().map(move |block| (file, block)));
    let mut used = HashSet::new();
    blocks().for_each(|(_, block)| uses(block, &mut used));
    // What only declares is a module, and its declarations are for those who import it.
    let module = blocks().all(|(_, block)| is_declarative(block));
    for (file, block) in blocks() {
        let Some(label) = &block.label else { continue };
        if !used.contains(&*label.text) && (is_import(block) || (is_declare(block) && !module)) {
            found.push(warning(file, block));
        }
        within(file, block, &mut found);
    }
    found
}

/// The unused blocks inside one that may hold others.
fn within(file: &Arc<File>, block: &Block, found: &mut Vec<Diagnostic>) {
    let body = match &*block.dotted_name() {
        "declare" => &block.body,
        "foreach" => match block.body.blocks().find(|block| block.dotted_name() == "template") {
            Some(template) => &template.body,
            None => return,
        },
        _ => return,
    };
    let mut used = HashSet::new();
    body.blocks().for_each(|block| uses(block, &mut used));
    let arguments = used_arguments(body);
    for inner in body.blocks() {
        let Some(label) = &inner.label else { continue };
        let unused = match &*inner.dotted_name() {
            "argument" => {
                is_declare(block)
                    && arguments.as_ref().is_some_and(|arguments| !arguments.contains(&*label.text))
            }
            _ => (is_declare(inner) || is_import(inner)) && !used.contains(&*label.text),
        };
        if unused {
            found.push(warning(file, inner));
        }
        within(file, inner, found);
    }
}

/// The first names of all blocks at and below one: what may be the use of a declaration of that name.
fn uses<'a>(block: &'a Block, used: &mut HashSet<&'a str>) {
    used.extend(block.name.first().map(|name| &*name.name));
    block.body.blocks().for_each(|inner| uses(inner, used));
}

/// The arguments that expressions within a body refer to; none if that cannot be said.
fn used_arguments(body: &Body) -> Option<HashSet<String>> {
    let mut used = HashSet::new();
    for reference in references(body) {
        match &reference.path[..] {
            [root, name, ..] if &**root == "argument" => {
                used.insert(name.to_string());
            }
            [root] if &**root == "argument" => return None,
            _ => {}
        }
    }
    Some(used)
}

fn is_declare(block: &Block) -> bool {
    block.dotted_name() == "declare"
}

fn is_import(block: &Block) -> bool {
    matches!(&*block.dotted_name(), "import.file" | "import.git" | "import.http" | "import.string")
}

fn is_declarative(block: &Block) -> bool {
    is_declare(block) || is_import(block) || matches!(&*block.dotted_name(), "argument" | "export")
}

fn warning(file: &Arc<File>, block: &Block) -> Diagnostic {
    let name = block.dotted_name();
    let label = block.label.as_ref().map_or("", |label| &*label.text);
    let (code, what) = match &*name {
        "declare" => (codes::UNUSED_DECLARE, "no component of that name is made"),
        "argument" => (codes::UNUSED_ARGUMENT, "no expression reads its value"),
        _ => (codes::UNUSED_IMPORT, "no component of that namespace is made"),
    };
    Diagnostic::warning(code, format!("{name} \"{label}\" is unused: {what}"))
        .with_help("remove it")
        .with_label(&file.source, block.name_span(), "")
}
