//! What an offset in a text is about: which body it lies in, what may stand there, and of what type a value has to be.

use std::sync::Arc;

use invar_reference::Reference;
use invar_syntax::lexer::TokenKind;
use invar_syntax::{Field, FieldKind, MapScope, Source, Span, Type, Value, evaluate, parse_expression};

use crate::document::{Analysis, DefinitionKind, Scope};
use crate::outline::NodeKind;
use crate::position::Encoding;
use crate::workspace::{Project, ProjectFile, Workspace};

/// One question about one place.
pub(crate) struct Context<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) workspace: &'a mut Workspace,
    pub(crate) project: Project,
    pub(crate) file: ProjectFile,
    pub(crate) offset: u32,
    pub(crate) encoding: Encoding,
}

/// What may stand in a body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Components and configuration blocks.
    Pipeline,
    /// The arguments of a component or block.
    Fields(Vec<Field>),
    /// The arguments of a component that is declared in the configuration.
    Custom(Vec<Parameter>),
    Unknown,
}

/// An `argument` or `export` of a `declare`.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) optional: bool,
    pub(crate) comment: String,
    pub(crate) span: Span,
}

/// Where in a value an offset lies.
#[derive(Debug)]
pub(crate) struct ValuePlace {
    /// What is needed there.
    pub(crate) wanted: Type,
    /// The string around the offset, quotes included.
    pub(crate) string: Option<Span>,
    /// Whether the key of an object is being written.
    pub(crate) key: bool,
    /// Whether the value so far is nothing but what is being written.
    pub(crate) whole: bool,
}

impl Context<'_> {
    pub(crate) fn analysis(&self) -> Arc<Analysis> {
        Arc::clone(&self.file.analysis)
    }

    /// What may stand in the body of a block of this file; of the file itself without one.
    pub(crate) fn body(&mut self, block: Option<usize>) -> Body {
        let analysis = self.analysis();
        let mut body = Body::Pipeline;
        for index in analysis.outline.chain(block) {
            let node = &analysis.outline.nodes[index];
            if analysis.scope_within(Some(index)) == Some(index) {
                body = Body::Pipeline;
                continue;
            }
            body = match body {
                Body::Pipeline => self.top_body(&node.name, analysis.scope(index)),
                Body::Fields(fields) => nested_body(&fields, &node.name),
                Body::Custom(_) | Body::Unknown => return Body::Unknown,
            };
        }
        body
    }

    fn top_body(&mut self, name: &str, scope: Scope) -> Body {
        // What a configuration declares hides what is built in.
        if let Some((file, declare)) = self.declare(name, scope) {
            return Body::Custom(parameters(&file.analysis, declare, "argument"));
        }
        if let Some(component) = self.reference.component(name) {
            return Body::Fields(component.arguments.fields.clone());
        }
        match self.reference.block(name) {
            Some(block) => Body::Fields(block.arguments.fields.clone()),
            None => Body::Unknown,
        }
    }

    /// The `declare` that a block of that name uses, and its file.
    pub(crate) fn declare(&mut self, name: &str, scope: Scope) -> Option<(ProjectFile, usize)> {
        let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
        let (file, definition) = self.project.custom(&self.file, scope, first)?;
        match (definition.kind, rest) {
            (DefinitionKind::Declare, None) => Some((file.clone(), definition.node)),
            (DefinitionKind::Import, Some(rest)) => {
                let (file, node) = (file.clone(), definition.node);
                self.module(&file, node).into_iter().find_map(|module| {
                    let found = module.analysis.definitions.iter().find(|candidate| {
                        candidate.kind == DefinitionKind::Declare
                            && candidate.scope.is_none()
                            && candidate.id == rest
                    })?;
                    let node = found.node;
                    Some((module, node))
                })
            }
            _ => None,
        }
    }

    /// The files of an import, where they lie on this disk.
    pub(crate) fn module(&mut self, file: &ProjectFile, import: usize) -> Vec<ProjectFile> {
        if file.analysis.outline.nodes[import].name != "import.file" {
            return Vec::new();
        }
        let Some(folder) = crate::workspace::folder(&file.url) else { return Vec::new() };
        let Some(filename) = text_of(file, import, "filename", &folder) else { return Vec::new() };
        self.workspace.module(&folder, &filename)
    }

    /// The definitions of `declare` blocks that are usable as block names here: name, file and node.
    pub(crate) fn custom_components(&mut self, scope: Scope) -> Vec<(String, ProjectFile, usize)> {
        let mut scopes = vec![scope];
        while let Some(block) = scopes.last().copied().flatten() {
            scopes.push(self.file.analysis.scope(block));
        }
        let mut found = Vec::new();
        for scope in scopes {
            let definitions: Vec<(ProjectFile, crate::document::Definition)> = self
                .project
                .visible(&self.file, scope)
                .map(|(file, definition)| (file.clone(), definition.clone()))
                .collect();
            for (file, definition) in definitions {
                match definition.kind {
                    DefinitionKind::Declare => found.push((definition.id, file, definition.node)),
                    DefinitionKind::Import => {
                        for module in self.module(&file, definition.node) {
                            for declared in &module.analysis.definitions {
                                if declared.kind == DefinitionKind::Declare && declared.scope.is_none() {
                                    let name = format!("{}.{}", definition.id, declared.id);
                                    found.push((name, module.clone(), declared.node));
                                }
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// The field of an attribute of this file.
    pub(crate) fn field(&mut self, attribute: usize) -> Option<Field> {
        let analysis = self.analysis();
        let node = analysis.outline.nodes.get(attribute)?;
        match self.body(node.parent) {
            Body::Fields(fields) => {
                fields.into_iter().find(|field| field.name == node.name && field.kind == FieldKind::Attribute)
            }
            _ => None,
        }
    }
}

/// The body of a block within a body of these fields.
fn nested_body(fields: &[Field], name: &str) -> Body {
    block_field(fields, name).map_or(Body::Unknown, |field| Body::Fields(field.nested()))
}

/// The field of a nested block, kinds of an enum of blocks included.
pub(crate) fn block_field(fields: &[Field], name: &str) -> Option<Field> {
    fields.iter().find_map(|field| match field.kind {
        FieldKind::Block if field.name == name => Some(field.clone()),
        FieldKind::EnumBlocks => {
            let kind = name.strip_prefix(field.name)?.strip_prefix('.')?;
            field.nested().into_iter().find(|nested| nested.name == kind)
        }
        _ => None,
    })
}

/// The blocks `argument` or `export` in a `declare`.
pub(crate) fn parameters(analysis: &Analysis, declare: usize, kind: &str) -> Vec<Parameter> {
    let blocks = analysis.outline.children(Some(declare));
    blocks
        .filter(|(_, node)| node.kind == NodeKind::Block && node.name == kind)
        .filter_map(|(index, node)| {
            let label = node.label.as_ref()?;
            let optional = analysis.outline.children(Some(index)).any(|(_, attribute)| {
                attribute.name == "optional"
                    && analysis.outline.tokens.get(attribute.value.clone()).is_some_and(|value| {
                        value.first().is_some_and(|token| analysis.slice(token.span) == "true")
                    })
            });
            let comment = analysis.literal(index, "comment").unwrap_or_default().to_owned();
            Some(Parameter { name: label.text.clone(), optional, comment, span: label.span })
        })
        .collect()
}

/// Expressions longer than this are not evaluated for a hint.
const MAX_EVALUATED: usize = 2_000;

/// The text that an attribute gives, where that follows from nothing but literals, `module_path` and functions.
fn text_of(file: &ProjectFile, block: usize, attribute: &str, folder: &std::path::Path) -> Option<String> {
    let analysis = &file.analysis;
    let (_, node) = analysis.outline.children(Some(block)).find(|(_, node)| node.name == attribute)?;
    let scope = MapScope::new().with("module_path", Value::string(folder.to_str()?));
    match constant(analysis.slice(node.inside).trim(), &scope)? {
        Value::String(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The value of an expression that says the same on every host.
pub(crate) fn constant(expression: &str, scope: &MapScope<'_>) -> Option<Value> {
    if expression.is_empty() || expression.len() > MAX_EVALUATED {
        return None;
    }
    let parsed = parse_expression(Arc::new(Source::new("expression", expression))).ok()?;
    // What the editor's host happens to have in its environment says nothing about the agents.
    let foreign = ["sys", "env", "constants", "nonsensitive", "convert"];
    let outline = crate::outline::Outline::new(&format!("x = {expression}"));
    let paths = outline.paths(&format!("x = {expression}"));
    if paths.iter().any(|path| path.parts.first().is_some_and(|(first, _)| foreign.contains(&first.as_str())))
    {
        return None;
    }
    evaluate(&parsed, scope).ok()
}

/// What is needed at an offset in the value of an attribute whose type is `ty`.
pub(crate) fn value_place(analysis: &Analysis, attribute: usize, ty: &Type, offset: u32) -> ValuePlace {
    enum Frame {
        List(Type),
        Object(Type),
        Other,
    }
    let tokens = &analysis.outline.tokens;
    let value = analysis.outline.nodes[attribute].value.clone();
    let mut frames: Vec<(Frame, Type)> = Vec::new();
    let mut wanted = ty.clone();
    let mut key = false;
    let mut whole = true;
    let mut last_identifier = Span::default();
    let mut previous = TokenKind::Assign;
    for token in tokens.get(value).unwrap_or_default() {
        if token.span.end > offset
            || (token.span.end == offset && matches!(token.kind, TokenKind::Identifier | TokenKind::String))
        {
            let inside = token.kind == TokenKind::String && token.span.start < offset;
            // Behind the closing quote the string is over.
            let closed =
                token.span.end == offset && token.span.len() > 1 && analysis.slice(token.span).ends_with('"');
            let string = (inside && !closed).then_some(token.span);
            return ValuePlace { wanted, string, key, whole };
        }
        match token.kind {
            TokenKind::OpenBracket => {
                let element = match (&wanted, previous) {
                    // An index, not a list.
                    (_, TokenKind::Identifier | TokenKind::CloseBracket | TokenKind::CloseParen) => Type::Any,
                    (Type::List(element), _) => (**element).clone(),
                    _ => Type::Any,
                };
                frames.push((Frame::List(element.clone()), wanted));
                wanted = element;
                whole = false;
            }
            TokenKind::OpenBrace => {
                frames.push((Frame::Object(wanted.clone()), wanted));
                wanted = Type::Any;
                key = true;
                whole = false;
            }
            TokenKind::OpenParen => {
                let inner = if previous == TokenKind::Identifier { Type::Any } else { wanted.clone() };
                frames.push((Frame::Other, wanted));
                wanted = inner;
                whole = false;
            }
            TokenKind::CloseBracket | TokenKind::CloseBrace | TokenKind::CloseParen => {
                if let Some((_, outer)) = frames.pop() {
                    wanted = outer;
                }
                key = false;
            }
            TokenKind::Comma => match frames.last() {
                Some((Frame::List(element), _)) => wanted = element.clone(),
                Some((Frame::Object(_), _)) => {
                    wanted = Type::Any;
                    key = true;
                }
                _ => wanted = Type::Any,
            },
            TokenKind::Assign => {
                if let Some((Frame::Object(object), _)) = frames.last() {
                    wanted = field_of(object, analysis.slice(last_identifier));
                    key = false;
                }
            }
            TokenKind::Identifier => {
                last_identifier = token.span;
                whole &= previous == TokenKind::Assign || previous == TokenKind::Dot;
            }
            TokenKind::Dot => {}
            kind if kind.binary_operator().is_some() => {
                wanted = Type::Any;
                whole = false;
            }
            _ => whole = false,
        }
        previous = token.kind;
    }
    ValuePlace { wanted, string: None, key, whole }
}

fn field_of(object: &Type, name: &str) -> Type {
    match object {
        Type::Map(element) => (**element).clone(),
        Type::Object(fields) => {
            fields.iter().find(|(field, _)| *field == name).map_or(Type::Any, |(_, ty)| ty.clone())
        }
        // A target is made of texts.
        Type::Capsule(_) => Type::String,
        _ => Type::Any,
    }
}

/// The dotted word that ends at an offset.
pub(crate) fn word_before(text: &str, offset: u32) -> Span {
    let before = text.get(..offset as usize).unwrap_or_default();
    let word = |character: char| character == '_' || character == '.' || character.is_alphanumeric();
    let start = before.char_indices().rev().take_while(|(_, character)| word(*character)).last();
    let start = start.map_or(before.len(), |(start, _)| start);
    Span::new(u32::try_from(start).unwrap_or(offset), offset)
}
