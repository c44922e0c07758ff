//! What the name at the cursor means.

use invar_reference::{field_markdown, function_markdown};
use invar_syntax::{EmptyScope, FieldKind, MapScope, Span, Value, value_to_expression};

use crate::context::{Body, Context, block_field, constant, parameters};
use crate::document::DefinitionKind;
use crate::navigation::{path_at, resolve};
use crate::outline::{NodeKind, PathUse};
use crate::{layers, variables};

/// A value longer than this is cut.
const MAX_SHOWN: usize = 300;

/// Markdown, and what it is about.
pub(crate) fn hover(context: &mut Context<'_>) -> Option<(String, Span)> {
    let analysis = context.analysis();
    let offset = context.offset;
    if analysis.outline.in_comment(offset) {
        return None;
    }
    if let Some((path, part)) = path_at(&analysis.paths, offset) {
        let path = path.clone();
        return path_hover(context, &path, part);
    }
    let node = analysis.outline.header_at(offset)?;
    let header = &analysis.outline.nodes[node];
    let span = match &header.label {
        Some(label) if label.span.start <= offset && offset <= label.span.end => label.span,
        _ => header.name_span,
    };
    let text = match context.body(header.parent) {
        Body::Pipeline => block_text(context, node)?,
        Body::Fields(fields) => {
            let field = match header.kind {
                NodeKind::Block => block_field(&fields, &header.name)?,
                _ => fields
                    .into_iter()
                    .find(|field| field.name == header.name && field.kind != FieldKind::Label)?,
            };
            let mut text = field_markdown(&field);
            if let Some(value) = evaluated(context, node) {
                text.push_str(&format!("\n\nEvaluates to `{value}`"));
            }
            text
        }
        Body::Custom(parameters) => {
            let parameter = parameters.into_iter().find(|parameter| parameter.name == header.name)?;
            let presence = if parameter.optional { "optional" } else { "required" };
            format!("**{}** {presence}\n\n{}", parameter.name, parameter.comment)
        }
        Body::Unknown => return None,
    };
    Some((text, span))
}

/// A block at the top of a pipeline.
fn block_text(context: &mut Context<'_>, node: usize) -> Option<String> {
    let analysis = context.analysis();
    let name = &analysis.outline.nodes[node].name;
    if let Some((file, declare)) = context.declare(name, analysis.scope(node)) {
        let list = |kind: &str| {
            let parameters = parameters(&file.analysis, declare, kind);
            parameters
                .iter()
                .map(|parameter| format!("\n- {kind} `{}` {}", parameter.name, parameter.comment))
                .collect::<String>()
        };
        return Some(format!(
            "**{name}** — *declared in this configuration*\n{}{}",
            list("argument"),
            list("export")
        ));
    }
    context.reference.page(name).map(|page| page.to_short_markdown())
}

fn path_hover(context: &mut Context<'_>, path: &PathUse, part: usize) -> Option<(String, Span)> {
    let whole = path.parts.first()?.1.to(path.parts.last()?.1);
    let scope = context.file.analysis.scope(path.attribute);
    let found = resolve(context, &context.file, scope, path)
        .map(|(file, definition, taken)| (file.clone(), definition.clone(), taken));
    if let Some((file, definition, taken)) = found {
        let block = file.analysis.outline.nodes[definition.node].name.clone();
        let text = match definition.kind {
            DefinitionKind::Component if part >= taken => {
                let (name, _) = path.parts.get(taken)?;
                let component = context.reference.component(&block)?;
                let export = component.exports.fields.iter().find(|export| export.name == name)?;
                format!("{}\n\nExport of `{}`", field_markdown(export), definition.id)
            }
            DefinitionKind::Component => context.reference.page(&block)?.to_short_markdown(),
            DefinitionKind::Argument => {
                let comment = file.analysis.literal(definition.node, "comment").unwrap_or_default();
                format!("**{}** — argument of this module\n\n{comment}", definition.id)
            }
            _ => format!("**{}** — the current element of the collection", definition.id),
        };
        return Some((text, whole));
    }
    let names: Vec<&str> = path.parts.iter().map(|(part, _)| part.as_str()).collect();
    for taken in 1..=names.len().min(2) {
        let name = names[..taken].join(".");
        if let Some(function) = context.reference.function(&name) {
            return Some((function_markdown(function), whole));
        }
        if let Some(constant) = context.reference.constants.iter().find(|constant| constant.name == name) {
            return Some((format!("**{}**\n\n{}", constant.name, constant.summary), whole));
        }
    }
    if let ["var", name, ..] = names.as_slice() {
        let folder = context.project.folder.clone()?;
        for path in layers::variables(&folder) {
            let Some(file) = context.workspace.file(&path) else { continue };
            if let Some(variable) =
                variables::read(&file.analysis.text).into_iter().find(|one| one.name == *name)
            {
                let text = format!("**var.{name}** = `{}`\n\nSet in {}", variable.value, path.display());
                return Some((text, whole));
            }
        }
    }
    let first = context.reference.names.iter().find(|name| Some(&name.name) == names.first())?;
    let field = names.get(1).and_then(|name| first.fields.iter().find(|(field, _)| field == name));
    let text = match field {
        Some((field, summary)) => format!("**{}.{field}**\n\n{summary}", first.name),
        None => format!("**{}**\n\n{}", first.name, first.summary),
    };
    Some((text, whole))
}

/// What an attribute's value comes to, where that can be said here and is not what is written anyway.
fn evaluated(context: &Context<'_>, attribute: usize) -> Option<String> {
    let analysis = &context.file.analysis;
    let node = &analysis.outline.nodes[attribute];
    if node.kind != NodeKind::Attribute || node.value.len() < 2 {
        return None;
    }
    let written = analysis.slice(node.inside).trim();
    let value = constant(written, &MapScope::within(&EmptyScope))?;
    if value.has_secret() || matches!(value, Value::Function(_) | Value::Null) {
        return None;
    }
    let mut shown = value_to_expression(&value);
    if shown.split_whitespace().eq(written.split_whitespace()) {
        return None;
    }
    if let Some((cut, _)) = shown.char_indices().nth(MAX_SHOWN) {
        shown.truncate(cut);
        shown.push('…');
    }
    Some(shown.replace('`', "'"))
}
