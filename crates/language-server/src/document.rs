//! A text and everything that is found in it without evaluating: made once per version, shared by all who ask.

use std::sync::Arc;

use invar_syntax::Span;
use lsp_types::{Range, TextDocumentContentChangeEvent};

use crate::outline::{NodeKind, Outline, PathUse};
use crate::position::{Encoding, LineIndex};

/// One version of a file.
#[derive(Debug)]
pub(crate) struct Analysis {
    pub(crate) text: Arc<str>,
    pub(crate) lines: LineIndex,
    pub(crate) outline: Outline,
    pub(crate) paths: Vec<PathUse>,
    pub(crate) definitions: Vec<Definition>,
    /// For each node the pipeline it stands in, see [`Scope`].
    scopes: Vec<Scope>,
}

/// The pipeline that a node belongs to: the configuration, or the body of a `declare` or `template` block.
pub(crate) type Scope = Option<usize>;

/// Something that expressions or block names can refer to.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) kind: DefinitionKind,
    /// What references begin with: `prometheus.scrape.default`, `argument.x`, the label of a `declare`.
    pub(crate) id: String,
    pub(crate) node: usize,
    /// Where it can be seen.
    pub(crate) scope: Scope,
    /// What an editor selects: the label, or the name.
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefinitionKind {
    Component,
    Argument,
    Declare,
    Import,
    /// The `var` of a `foreach`.
    LoopVariable,
}

impl Analysis {
    pub(crate) fn new(text: Arc<str>) -> Self {
        let outline = Outline::new(&text);
        let scopes = scopes(&outline);
        let definitions = definitions(&text, &outline, &scopes);
        let paths = outline.paths(&text);
        Self { lines: LineIndex::new(&text), outline, paths, definitions, scopes, text }
    }

    pub(crate) fn range(&self, span: Span, encoding: Encoding) -> Range {
        self.lines.range(&self.text, span, encoding)
    }

    pub(crate) fn slice(&self, span: Span) -> &str {
        crate::outline::slice(&self.text, span)
    }

    /// The pipeline that a node stands in.
    pub(crate) fn scope(&self, node: usize) -> Scope {
        self.scopes.get(node).copied().flatten()
    }

    /// The pipeline that a statement in the body of `block` belongs to.
    pub(crate) fn scope_within(&self, block: Option<usize>) -> Scope {
        let block = block?;
        if is_pipeline(&self.outline, block) { Some(block) } else { self.scope(block) }
    }

    /// The pipelines whose definitions a pipeline sees, itself first: a template sees what is around it, a `declare` does
    /// not.
    pub(crate) fn visible(&self, scope: Scope) -> Vec<Scope> {
        let mut visible = vec![scope];
        let mut next = scope;
        while let Some(block) = next.filter(|block| self.outline.nodes[*block].name == "template") {
            next = self.scope(block);
            visible.push(next);
        }
        visible
    }

    /// The value of an attribute that is a plain string.
    pub(crate) fn literal(&self, block: usize, attribute: &str) -> Option<&str> {
        literal(&self.text, &self.outline, block, attribute).map(|(text, _)| text)
    }
}

/// Applies a change as the client sends it. Whatever it says, the result is a text.
pub(crate) fn apply(text: &mut String, change: &TextDocumentContentChangeEvent, encoding: Encoding) {
    let Some(range) = change.range else {
        text.clone_from(&change.text);
        return;
    };
    let lines = LineIndex::new(text);
    let start = lines.offset(text, range.start, encoding);
    let end = lines.offset(text, range.end, encoding);
    text.replace_range(start.min(end)..start.max(end), &change.text);
}

/// Whether components stand in the body of a block.
fn is_pipeline(outline: &Outline, block: usize) -> bool {
    let node = &outline.nodes[block];
    match node.name.as_str() {
        "declare" => true,
        "template" => node.parent.is_some_and(|parent| outline.nodes[parent].name == "foreach"),
        _ => false,
    }
}

/// In one pass: parents stand before their children.
fn scopes(outline: &Outline) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = Vec::with_capacity(outline.nodes.len());
    for node in &outline.nodes {
        let scope = node.parent.and_then(|parent| {
            if is_pipeline(outline, parent) { Some(parent) } else { scopes.get(parent).copied().flatten() }
        });
        scopes.push(scope);
    }
    scopes
}

fn definitions(text: &str, outline: &Outline, scopes: &[Scope]) -> Vec<Definition> {
    let mut definitions = Vec::new();
    for (index, node) in outline.nodes.iter().enumerate() {
        let scope = scopes[index];
        // Blocks nested in a component are no statements of the pipeline.
        if node.kind != NodeKind::Block || node.parent != scope {
            continue;
        }
        let Some(label) = &node.label else { continue };
        let first = node.name.split('.').next().unwrap_or_default();
        let (kind, id) = match first {
            "declare" => (DefinitionKind::Declare, label.text.clone()),
            "import" => (DefinitionKind::Import, label.text.clone()),
            "argument" => (DefinitionKind::Argument, format!("argument.{}", label.text)),
            "export" => continue,
            "foreach" => {
                definitions.extend(loop_variable(text, outline, index));
                continue;
            }
            _ => (DefinitionKind::Component, format!("{}.{}", node.name, label.text)),
        };
        definitions.push(Definition { kind, id, node: index, scope, span: label.span });
    }
    definitions
}

/// The name that a `foreach` binds in its template.
fn loop_variable(text: &str, outline: &Outline, foreach: usize) -> Option<Definition> {
    let (id, span) = literal(text, outline, foreach, "var")?;
    let (template, _) = outline.children(Some(foreach)).find(|(_, node)| node.name == "template")?;
    let (kind, id) = (DefinitionKind::LoopVariable, id.to_owned());
    Some(Definition { kind, id, node: foreach, scope: Some(template), span })
}

fn literal<'t>(text: &'t str, outline: &Outline, block: usize, attribute: &str) -> Option<(&'t str, Span)> {
    let mut children = outline.children(Some(block));
    let (_, node) = children.find(|(_, node)| node.kind == NodeKind::Attribute && node.name == attribute)?;
    let [token] = outline.tokens.get(node.value.clone())? else { return None };
    let quoted = crate::outline::slice(text, token.span);
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    Some((inner, token.span))
}
