//! From a name to where it is defined, and from there to everything that uses it.

use invar_syntax::Span;
use lsp_types::{Location, TextEdit, Url};

use crate::context::{Context, parameters};
use crate::document::{Definition, DefinitionKind};
use crate::outline::{NodeKind, PathUse};
use crate::workspace::ProjectFile;
use crate::{layers, variables};

/// What a place refers to.
pub(crate) struct Target {
    pub(crate) file: ProjectFile,
    pub(crate) span: Span,
    /// Known where everything that uses it can be found.
    pub(crate) definition: Option<Definition>,
}

/// A use of a definition.
pub(crate) struct Use {
    pub(crate) file: ProjectFile,
    /// The whole path.
    pub(crate) span: Span,
    /// The part that a new label would replace.
    pub(crate) label: Span,
}

/// What the name at the context's offset refers to.
pub(crate) fn target(context: &mut Context<'_>) -> Option<Target> {
    let analysis = context.analysis();
    let offset = context.offset;
    if let Some((path, part)) = path_at(&analysis.paths, offset) {
        let path = path.clone();
        return path_target(context, &path, part);
    }
    let node = analysis.outline.header_at(offset)?;
    let header = &analysis.outline.nodes[node];
    if let Some(definition) = analysis.definitions.iter().find(|definition| definition.node == node) {
        // On the name of a component that is declared here, its declaration; else itself.
        if header.name_span.start <= offset
            && offset <= header.name_span.end
            && let Some((file, declare)) = context.declare(&header.name, analysis.scope(node))
        {
            return declared(&file, declare);
        }
        let (span, definition) = (definition.span, Some(definition.clone()));
        return Some(Target { file: context.file.clone(), span, definition });
    }
    if header.kind == NodeKind::Block {
        let (file, declare) = context.declare(&header.name, analysis.scope(node))?;
        return declared(&file, declare);
    }
    // The attribute of a component that is declared here.
    let parent = header.parent?;
    let block = &analysis.outline.nodes[parent];
    let (file, declare) = context.declare(&block.name, analysis.scope(parent))?;
    let parameters = parameters(&file.analysis, declare, "argument");
    let span = parameters.into_iter().find(|parameter| parameter.name == header.name)?.span;
    Some(Target { file, span, definition: None })
}

fn declared(file: &ProjectFile, declare: usize) -> Option<Target> {
    let definition = file.analysis.definitions.iter().find(|definition| definition.node == declare)?;
    Some(Target { file: file.clone(), span: definition.span, definition: Some(definition.clone()) })
}

/// The path that an offset lies in, and in which part.
pub(crate) fn path_at(paths: &[PathUse], offset: u32) -> Option<(&PathUse, usize)> {
    paths.iter().find_map(|path| {
        let part = path.parts.iter().position(|(_, span)| span.start <= offset && offset <= span.end)?;
        Some((path, part))
    })
}

fn path_target(context: &mut Context<'_>, path: &PathUse, part: usize) -> Option<Target> {
    let scope = context.file.analysis.scope(path.attribute);
    if let Some((file, definition, taken)) = resolve(context, &context.file, scope, path) {
        let (file, definition) = (file.clone(), definition.clone());
        // On an export of a component that is declared here, the export.
        if part >= taken
            && let Some((name, _)) = path.parts.get(taken)
        {
            let block = file.analysis.outline.nodes[definition.node].name.clone();
            if let Some((declared, declare)) = context.declare(&block, scope)
                && let Some(export) = parameters(&declared.analysis, declare, "export")
                    .into_iter()
                    .find(|export| export.name == *name)
            {
                return Some(Target { file: declared, span: export.span, definition: None });
            }
        }
        return Some(Target { file, span: definition.span, definition: Some(definition) });
    }
    if let [(first, _), (name, _), ..] = path.parts.as_slice()
        && first == "var"
    {
        let folder = context.project.folder.clone()?;
        for path in layers::variables(&folder) {
            let Some(file) = context.workspace.file(&path) else { continue };
            let variables = variables::read(&file.analysis.text);
            if let Some(variable) = variables.into_iter().find(|variable| variable.name == *name) {
                return Some(Target { file, span: variable.span, definition: None });
            }
        }
    }
    None
}

/// The definition that the shortest prefix of a path names in a pipeline, and how many parts that takes.
pub(crate) fn resolve<'p>(
    context: &'p Context<'_>,
    file: &'p ProjectFile,
    scope: Option<usize>,
    path: &PathUse,
) -> Option<(&'p ProjectFile, &'p Definition, usize)> {
    let mut prefix = String::new();
    for (index, (part, _)) in path.parts.iter().enumerate() {
        if index > 0 {
            prefix.push('.');
        }
        prefix.push_str(part);
        let found = context.project.visible(file, scope).find(|(_, definition)| {
            definition.id == prefix
                && matches!(
                    definition.kind,
                    DefinitionKind::Component | DefinitionKind::Argument | DefinitionKind::LoopVariable
                )
        });
        if let Some((file, definition)) = found {
            return Some((file, definition, index + 1));
        }
    }
    None
}

/// Everything that refers to a definition.
pub(crate) fn uses(context: &Context<'_>, of: &ProjectFile, definition: &Definition) -> Vec<Use> {
    let same = |file: &ProjectFile, candidate: &Definition| {
        file.url == of.url && candidate.node == definition.node && candidate.kind == definition.kind
    };
    let mut uses = Vec::new();
    for file in &context.project.files {
        let analysis = &file.analysis;
        if matches!(definition.kind, DefinitionKind::Declare | DefinitionKind::Import) {
            for (index, node) in analysis.outline.nodes.iter().enumerate() {
                let first = node.name.split('.').next().unwrap_or_default();
                if node.kind == NodeKind::Block
                    && first == definition.id
                    && node.parent == analysis.scope(index)
                    && context
                        .project
                        .custom(file, analysis.scope(index), first)
                        .is_some_and(|(file, found)| same(file, found))
                {
                    let length = u32::try_from(first.len()).unwrap_or_default();
                    let label = Span::new(node.name_span.start, node.name_span.start + length);
                    uses.push(Use { file: file.clone(), span: node.name_span, label });
                }
            }
            continue;
        }
        let last = definition.id.rsplit('.').next().unwrap_or_default();
        for path in &analysis.paths {
            // Cheap first: most paths are about something else.
            if !path.parts.iter().any(|(part, _)| part == last) {
                continue;
            }
            let scope = analysis.scope(path.attribute);
            if let Some((found_file, found, taken)) = resolve(context, file, scope, path)
                && same(found_file, found)
                && let (Some((_, first)), Some((_, label))) = (path.parts.first(), path.parts.get(taken - 1))
            {
                uses.push(Use { file: file.clone(), span: first.to(*label), label: *label });
            }
        }
    }
    uses
}

/// The edits that give a definition another label, by file.
pub(crate) fn rename(
    context: &Context<'_>,
    of: &ProjectFile,
    definition: &Definition,
    label: &str,
) -> Vec<(Url, Vec<TextEdit>)> {
    let mut edits: Vec<(Url, Vec<TextEdit>)> = Vec::new();
    let mut add = |file: &ProjectFile, span: Span, text: String| {
        let edit = TextEdit::new(file.analysis.range(span, context.encoding), text);
        match edits.iter_mut().find(|(url, _)| *url == file.url) {
            Some((_, list)) => list.push(edit),
            None => edits.push((file.url.clone(), vec![edit])),
        }
    };
    add(of, definition.span, format!("\"{label}\""));
    for used in uses(context, of, definition) {
        add(&used.file, used.label, label.to_owned());
    }
    edits
}

pub(crate) fn location(file: &ProjectFile, span: Span, context: &Context<'_>) -> Location {
    Location::new(file.url.clone(), file.analysis.range(span, context.encoding))
}
