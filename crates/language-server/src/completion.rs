//! What could be written at the cursor. Works on tokens, so that it works where it is needed: in texts that are not
//! finished.

use invar_reference::{Holes, field_markdown, function_markdown, snippet, value_hole};
use invar_syntax::lexer::TokenKind;
use invar_syntax::{Field, FieldKind, Span, Type, may_convert};
use lsp_types::{
    CompletionItem, CompletionItemKind, CompletionList, CompletionTextEdit, Documentation, InsertTextFormat,
    MarkupContent, MarkupKind, TextEdit,
};

use crate::context::{Body, Context, parameters, value_place, word_before};
use crate::document::DefinitionKind;
use crate::outline::NodeKind;
use crate::{layers, variables};

/// More candidates than this help nobody; typing on narrows them.
const MAX_ITEMS: usize = 500;

/// What the client can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CompletionOptions {
    /// Whether it understands tab stops.
    pub(crate) snippets: bool,
}

/// Something that could be written.
struct Candidate {
    label: String,
    kind: CompletionItemKind,
    detail: String,
    documentation: String,
    /// What is written: with tab stops, and without.
    snippet: Option<String>,
    plain: String,
    /// Better ones are smaller.
    rank: u8,
    /// Whether the editor should complete again behind it.
    more: bool,
}

impl Candidate {
    fn new(label: impl Into<String>, kind: CompletionItemKind, rank: u8) -> Self {
        let label = label.into();
        Self {
            plain: label.clone(),
            label,
            kind,
            detail: String::new(),
            documentation: String::new(),
            snippet: None,
            rank,
            more: false,
        }
    }
}

/// What could stand at the context's offset.
pub(crate) fn complete(context: &mut Context<'_>, options: CompletionOptions) -> CompletionList {
    let (candidates, replaced) = candidates(context);
    let analysis = context.analysis();
    let typed = analysis.slice(Span::new(replaced.start, context.offset)).trim_matches('"').to_lowercase();
    let mut candidates: Vec<Candidate> = candidates
        .into_iter()
        .filter(|candidate| resembles(&candidate.label.to_lowercase(), &typed))
        .collect();
    candidates.sort_by(|left, right| (left.rank, &left.label).cmp(&(right.rank, &right.label)));
    let is_incomplete = candidates.len() > MAX_ITEMS;
    candidates.truncate(MAX_ITEMS);
    let range = analysis.range(replaced, context.encoding);
    let items = candidates.into_iter().enumerate().map(|(order, candidate)| {
        let (text, format) = match candidate.snippet.filter(|_| options.snippets) {
            Some(snippet) => (snippet, InsertTextFormat::SNIPPET),
            None => (candidate.plain, InsertTextFormat::PLAIN_TEXT),
        };
        CompletionItem {
            filter_text: Some(candidate.label.clone()),
            label: candidate.label,
            kind: Some(candidate.kind),
            detail: Some(candidate.detail).filter(|detail| !detail.is_empty()),
            documentation: Some(candidate.documentation).filter(|text| !text.is_empty()).map(markdown),
            sort_text: Some(format!("{order:04}")),
            insert_text_format: Some(format),
            text_edit: Some(CompletionTextEdit::Edit(TextEdit::new(range, text))),
            command: candidate.more.then(|| {
                lsp_types::Command::new("Suggest".to_owned(), "editor.action.triggerSuggest".to_owned(), None)
            }),
            ..CompletionItem::default()
        }
    });
    CompletionList { is_incomplete, items: items.collect() }
}

fn markdown(value: String) -> Documentation {
    Documentation::MarkupContent(MarkupContent { kind: MarkupKind::Markdown, value })
}

/// Whether the typed letters occur in a name in their order, as editors match.
fn resembles(name: &str, typed: &str) -> bool {
    let mut letters = name.chars();
    typed.chars().all(|wanted| letters.any(|letter| letter == wanted))
}

/// The candidates, and what one of them replaces.
fn candidates(context: &mut Context<'_>) -> (Vec<Candidate>, Span) {
    let analysis = context.analysis();
    let offset = context.offset;
    let nothing = (Vec::new(), Span::at(offset));
    if analysis.outline.in_comment(offset) {
        return nothing;
    }
    if let Some(attribute) = analysis.outline.attribute_at(offset) {
        return value_candidates(context, attribute);
    }
    let word = word_before(&analysis.text, offset);
    if !at_statement_start(context, word.start) {
        return nothing;
    }
    let block = analysis.outline.block_at(offset);
    let candidates = match context.body(block) {
        Body::Pipeline => pipeline_candidates(context, block),
        Body::Fields(fields) => field_candidates(context, block, &fields),
        Body::Custom(parameters) => parameters
            .into_iter()
            .map(|parameter| Candidate {
                detail: if parameter.optional { "optional" } else { "required" }.to_owned(),
                snippet: Some(format!("{} = $0", parameter.name)),
                plain: format!("{} = ", parameter.name),
                documentation: parameter.comment,
                more: true,
                ..Candidate::new(parameter.name, CompletionItemKind::PROPERTY, u8::from(parameter.optional))
            })
            .collect(),
        Body::Unknown => Vec::new(),
    };
    (candidates, word)
}

/// Whether a statement may begin at an offset: nothing but its own beginning stands before it on its line.
fn at_statement_start(context: &Context<'_>, start: u32) -> bool {
    let outline = &context.file.analysis.outline;
    let before = outline.tokens.partition_point(|token| token.span.start < start);
    let Some(token) = before.checked_sub(1).and_then(|index| outline.tokens.get(index)) else { return true };
    if matches!(token.kind, TokenKind::Terminator | TokenKind::OpenBrace | TokenKind::CloseBrace) {
        return true;
    }
    context.file.analysis.slice(Span::new(token.span.end, start)).contains(['\n', '\r'])
}

fn pipeline_candidates(context: &mut Context<'_>, block: Option<usize>) -> Vec<Candidate> {
    let scope = context.file.analysis.scope_within(block);
    let in_module = block.is_some();
    let mut candidates: Vec<Candidate> = Vec::new();
    for component in &context.reference.components {
        candidates.push(Candidate {
            detail: component.stability.to_string(),
            documentation: page(context, component.name),
            snippet: Some(snippet(component.name, true, &component.arguments.fields, Holes::TabStops)),
            ..Candidate::new(component.name, CompletionItemKind::CLASS, 1)
        });
    }
    for block in &context.reference.blocks {
        let fits = match block.place {
            invar_engine::language::Place::Root => !in_module,
            invar_engine::language::Place::Module => in_module,
            invar_engine::language::Place::Anywhere => true,
        };
        if fits {
            candidates.push(Candidate {
                detail: "configuration block".to_owned(),
                documentation: page(context, block.name),
                snippet: Some(snippet(block.name, block.labelled, &block.arguments.fields, Holes::TabStops)),
                ..Candidate::new(block.name, CompletionItemKind::MODULE, 2)
            });
        }
    }
    for (name, file, node) in context.custom_components(scope) {
        let required: Vec<_> =
            parameters(&file.analysis, node, "argument").into_iter().filter(|one| !one.optional).collect();
        let width = required.iter().map(|parameter| parameter.name.len()).max().unwrap_or(0);
        let mut text = format!("{name} \"${{1:default}}\" {{");
        for (index, parameter) in required.iter().enumerate() {
            text.push_str(&format!("\n  {:width$} = ${}", parameter.name, index + 2));
        }
        text.push_str(if required.is_empty() { "\n  $0\n}" } else { "\n}" });
        candidates.push(Candidate {
            detail: "declared in this configuration".to_owned(),
            snippet: Some(text),
            ..Candidate::new(name, CompletionItemKind::CLASS, 0)
        });
    }
    candidates
}

fn page(context: &Context<'_>, name: &str) -> String {
    context.reference.page(name).map(|page| page.to_short_markdown()).unwrap_or_default()
}

fn field_candidates(context: &Context<'_>, block: Option<usize>, fields: &[Field]) -> Vec<Candidate> {
    let outline = &context.file.analysis.outline;
    // What is being written does not count as given.
    let given: Vec<&str> = outline
        .children(block)
        .filter(|(_, node)| node.kind != NodeKind::Incomplete && node.name_span.end != context.offset)
        .map(|(_, node)| node.name.as_str())
        .collect();
    let mut candidates = Vec::new();
    for field in fields.iter().filter(|field| field.many || !given.contains(&field.name)) {
        let rank = if field.required { 0 } else { 2 };
        match field.kind {
            FieldKind::Attribute => {
                let hole = value_hole(field, 1);
                candidates.push(Candidate {
                    detail: invar_reference::type_text(field),
                    documentation: field_markdown(field),
                    more: hole.contains('|') || !hole.contains(':'),
                    snippet: Some(format!("{} = {hole}", field.name)),
                    plain: format!("{} = ", field.name),
                    ..Candidate::new(field.name, CompletionItemKind::PROPERTY, rank)
                });
            }
            FieldKind::Block => candidates.push(block_candidate(field.name.to_owned(), field, rank + 1)),
            FieldKind::EnumBlocks => {
                for kind in field.nested() {
                    candidates.push(block_candidate(
                        format!("{}.{}", field.name, kind.name),
                        &kind,
                        rank + 1,
                    ));
                }
            }
            FieldKind::Label => {}
        }
    }
    candidates
}

fn block_candidate(name: String, field: &Field, rank: u8) -> Candidate {
    let nested = field.nested();
    let labelled = nested.iter().any(|field| field.kind == FieldKind::Label);
    Candidate {
        detail: "block".to_owned(),
        documentation: field_markdown(field),
        snippet: Some(snippet(&name, labelled, &nested, Holes::TabStops)),
        ..Candidate::new(name, CompletionItemKind::STRUCT, rank)
    }
}

/// What could stand in the value of an attribute.
fn value_candidates(context: &mut Context<'_>, attribute: usize) -> (Vec<Candidate>, Span) {
    let analysis = context.analysis();
    let offset = context.offset;
    let field = context.field(attribute);
    let ty = field.as_ref().map_or(Type::Any, |field| field.ty.clone());
    let place = value_place(&analysis, attribute, &ty, offset);
    let choices = field.as_ref().map_or(&[][..], Field::choices);
    if let Some(string) = place.string {
        // An unterminated string reaches to the end of its line; what stands behind the cursor may be anything.
        let closed = string.len() > 1 && analysis.slice(string).ends_with('"');
        let replaced = Span::new(string.start, if closed { string.end } else { offset });
        return (choices.iter().map(|choice| choice_candidate(choice)).collect(), replaced);
    }
    let word = word_before(&analysis.text, offset);
    if place.key {
        return (Vec::new(), word);
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    let direct = place.whole || matches!(ty, Type::List(_));
    if direct {
        candidates.extend(choices.iter().map(|choice| choice_candidate(choice)));
    }
    if place.wanted == Type::Bool {
        candidates.extend(["true", "false"].map(|word| Candidate::new(word, CompletionItemKind::KEYWORD, 0)));
    }
    references(context, attribute, &place.wanted, place.whole, &mut candidates);
    names(context, attribute, &mut candidates);
    library(context, &place.wanted, &mut candidates);
    (candidates, word)
}

fn choice_candidate(choice: &str) -> Candidate {
    Candidate {
        plain: format!("\"{choice}\""),
        ..Candidate::new(format!("\"{choice}\""), CompletionItemKind::ENUM_MEMBER, 0)
    }
}

/// How well a type fits where another is needed; smaller is better.
fn fit(got: &Type, wanted: &Type) -> u8 {
    match (got, wanted) {
        (_, Type::Any) => 4,
        (got, wanted) if got == wanted => 1,
        (Type::Any, _) => 5,
        (got, wanted) if may_convert(got, wanted) => 3,
        _ => 8,
    }
}

/// The exports of other components.
fn references(
    context: &mut Context<'_>,
    attribute: usize,
    wanted: &Type,
    whole: bool,
    candidates: &mut Vec<Candidate>,
) {
    let analysis = context.analysis();
    let scope = analysis.scope(attribute);
    let own = analysis.outline.chain(Some(attribute));
    let definitions: Vec<_> = context
        .project
        .visible(&context.file, scope)
        .map(|(file, definition)| (file.clone(), definition.clone()))
        .collect();
    for (file, definition) in definitions {
        if definition.kind != DefinitionKind::Component {
            continue;
        }
        if file.url == context.file.url && own.contains(&definition.node) {
            continue;
        }
        let name = file.analysis.outline.nodes[definition.node].name.clone();
        if let Some(component) = context.reference.component(&name) {
            for export in &component.exports.fields {
                let label = format!("{}.{}", definition.id, export.name);
                // A single receiver where a list of them is needed.
                let single = match wanted {
                    Type::List(element) if whole && fit(&export.ty, wanted) == 8 => {
                        fit(&export.ty, element) < 4
                    }
                    _ => false,
                };
                let rank = if single { 1 } else { fit(&export.ty, wanted) };
                candidates.push(Candidate {
                    detail: invar_reference::type_text(export),
                    documentation: field_markdown(export),
                    plain: if single { format!("[{label}]") } else { label.clone() },
                    ..Candidate::new(label, CompletionItemKind::REFERENCE, rank)
                });
            }
        } else if let Some((declared, node)) = context.declare(&name, scope) {
            for export in parameters(&declared.analysis, node, "export") {
                let label = format!("{}.{}", definition.id, export.name);
                candidates.push(Candidate {
                    documentation: export.comment,
                    ..Candidate::new(label, CompletionItemKind::REFERENCE, 4)
                });
            }
        }
    }
}

/// Variables, arguments of a module, loop variables and the other names in scope.
fn names(context: &mut Context<'_>, attribute: usize, candidates: &mut Vec<Candidate>) {
    let analysis = context.analysis();
    let scope = analysis.scope(attribute);
    for (_, definition) in context.project.visible(&context.file, scope) {
        match definition.kind {
            DefinitionKind::Argument => candidates.push(Candidate::new(
                format!("{}.value", definition.id),
                CompletionItemKind::VARIABLE,
                4,
            )),
            DefinitionKind::LoopVariable => {
                candidates.push(Candidate::new(definition.id.clone(), CompletionItemKind::VARIABLE, 3));
            }
            _ => {}
        }
    }
    let files = context.project.folder.as_deref().map(layers::variables).unwrap_or_default();
    for path in files {
        let Some(file) = context.workspace.file(&path) else { continue };
        for variable in variables::read(&file.analysis.text) {
            let label = format!("var.{}", variable.name);
            if !candidates.iter().any(|candidate| candidate.label == label) {
                candidates.push(Candidate {
                    detail: variable.value,
                    documentation: format!("Set in {}", path.display()),
                    ..Candidate::new(label, CompletionItemKind::VARIABLE, 4)
                });
            }
        }
    }
    for name in context.reference.names {
        if name.fields.is_empty() && name.name != "var" {
            candidates.push(Candidate {
                documentation: name.summary.to_owned(),
                ..Candidate::new(name.name, CompletionItemKind::VARIABLE, 6)
            });
        }
        for (field, summary) in name.fields {
            candidates.push(Candidate {
                documentation: (*summary).to_owned(),
                ..Candidate::new(format!("{}.{field}", name.name), CompletionItemKind::VARIABLE, 6)
            });
        }
    }
}

fn library(context: &Context<'_>, wanted: &Type, candidates: &mut Vec<Candidate>) {
    for function in &context.reference.functions {
        candidates.push(Candidate {
            detail: function.signature(),
            documentation: function_markdown(function),
            snippet: Some(format!("{}($1)", function.name)),
            plain: format!("{}(", function.name),
            ..Candidate::new(
                function.name,
                CompletionItemKind::FUNCTION,
                5 + u8::from(fit(&function.result, wanted) > 5) * 4,
            )
        });
    }
    for constant in context.reference.constants {
        candidates.push(Candidate {
            documentation: constant.summary.to_owned(),
            ..Candidate::new(constant.name, CompletionItemKind::CONSTANT, 7)
        });
    }
}
