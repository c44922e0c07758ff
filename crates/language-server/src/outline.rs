//! The structure of a text that need not be right: blocks, attributes and beginnings of either, found from tokens alone.
//! The parser keeps no tree of a file with errors, and a file that is being written has errors most of the time.
//!
//! Never fails and never recurses: nodes lie in one list, in the order of the text, and know their parents.

use std::ops::Range;

use invar_syntax::Span;
use invar_syntax::ast::Comment;
use invar_syntax::lexer::{Token, TokenKind, lex};

/// What stands in a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    /// For each node its first child, and the next child of its own parent: whoever asks for children need not look at all
    /// nodes. What stands outside of any block comes last in `first`.
    first: Vec<Option<usize>>,
    next: Vec<Option<usize>>,
}

/// Longest dotted name that is looked over to tell a statement from a value.
const LOOKAHEAD: usize = 32;

/// A block, an attribute, or what may become one.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The block around it.
    pub(crate) parent: Option<usize>,
    pub(crate) kind: NodeKind,
    /// The dotted name.
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) label: Option<Label>,
    /// Between the braces of a block, or behind the `=` of an attribute up to the next statement.
    pub(crate) inside: Span,
    /// The tokens of an attribute's value.
    pub(crate) value: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Block,
    Attribute,
    /// A name without what should follow.
    Incomplete,
}

/// The label of a block.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) text: String,
    /// With the quotes.
    pub(crate) span: Span,
}

/// A dotted name in an expression.
#[derive(Clone, Debug)]
pub(crate) struct PathUse {
    /// The attribute it stands in.
    pub(crate) attribute: usize,
    /// Each part with its place.
    pub(crate) parts: Vec<(String, Span)>,
}

impl Outline {
    pub(crate) fn new(text: &str) -> Self {
        let lexed = lex(text);
        let mut builder = Builder { text, tokens: &lexed.tokens, nodes: Vec::new(), open: Vec::new() };
        builder.run();
        let nodes = builder.nodes;
        let (mut first, mut next) = (vec![None; nodes.len() + 1], vec![None; nodes.len()]);
        for (index, node) in nodes.iter().enumerate().rev() {
            next[index] = first[node.parent.unwrap_or(nodes.len())].replace(index);
        }
        Self { nodes, tokens: lexed.tokens, comments: lexed.comments, first, next }
    }

    /// The innermost block around an offset.
    pub(crate) fn block_at(&self, offset: u32) -> Option<usize> {
        self.innermost(NodeKind::Block, offset)
    }

    /// The attribute in whose value an offset lies.
    pub(crate) fn attribute_at(&self, offset: u32) -> Option<usize> {
        let attribute = self.innermost(NodeKind::Attribute, offset)?;
        // The region of a value ends where the next statement begins, so a block within cannot be.
        (self.nodes[attribute].parent == self.block_at(offset)).then_some(attribute)
    }

    fn innermost(&self, kind: NodeKind, offset: u32) -> Option<usize> {
        let inside = |node: &Node| node.inside.start <= offset && offset <= node.inside.end;
        self.nodes.iter().rposition(|node| node.kind == kind && inside(node))
    }

    /// The node whose name or label an offset touches.
    pub(crate) fn header_at(&self, offset: u32) -> Option<usize> {
        let touches = |span: Span| span.start <= offset && offset <= span.end;
        self.nodes.iter().position(|node| {
            touches(node.name_span) || node.label.as_ref().is_some_and(|label| touches(label.span))
        })
    }

    /// The blocks around a node, outermost first, the node itself last.
    pub(crate) fn chain(&self, node: Option<usize>) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut next = node;
        while let Some(index) = next {
            chain.push(index);
            next = self.nodes.get(index).and_then(|node| node.parent);
        }
        chain.reverse();
        chain
    }

    /// What stands directly in a block, in order; in the text itself without one.
    pub(crate) fn children(&self, parent: Option<usize>) -> impl Iterator<Item = (usize, &Node)> {
        let first = self.first.get(parent.unwrap_or(self.nodes.len())).copied().flatten();
        std::iter::successors(first, |index| self.next[*index]).map(|index| (index, &self.nodes[index]))
    }

    /// Whether an offset lies within a comment.
    pub(crate) fn in_comment(&self, offset: u32) -> bool {
        self.comments.iter().any(|comment| comment.span.start < offset && offset <= comment.span.end)
    }

    /// Every dotted name in every value.
    pub(crate) fn paths(&self, text: &str) -> Vec<PathUse> {
        let mut paths = Vec::new();
        for (attribute, node) in self.nodes.iter().enumerate() {
            if node.kind == NodeKind::Attribute {
                self.paths_of(text, attribute, node.value.clone(), &mut paths);
            }
        }
        paths
    }

    fn paths_of(&self, text: &str, attribute: usize, value: Range<usize>, paths: &mut Vec<PathUse>) {
        let mut index = value.start;
        while index < value.end {
            let token = self.tokens[index];
            let follows_dot = index > value.start && self.tokens[index - 1].kind == TokenKind::Dot;
            if token.kind != TokenKind::Identifier || follows_dot {
                index += 1;
                continue;
            }
            let mut parts = vec![(slice(text, token.span).to_owned(), token.span)];
            index += 1;
            while index + 1 < value.end
                && self.tokens[index].kind == TokenKind::Dot
                && self.tokens[index + 1].kind == TokenKind::Identifier
            {
                let part = self.tokens[index + 1].span;
                parts.push((slice(text, part).to_owned(), part));
                index += 2;
            }
            let next = self.tokens.get(index).filter(|_| index < value.end).map(|token| token.kind);
            // `name =` within braces is the key of an object.
            if next != Some(TokenKind::Assign) {
                paths.push(PathUse { attribute, parts });
            }
        }
    }
}

pub(crate) fn slice(text: &str, span: Span) -> &str {
    text.get(span.start as usize..span.end as usize).unwrap_or_default()
}

struct Builder<'a> {
    text: &'a str,
    tokens: &'a [Token],
    nodes: Vec<Node>,
    /// The blocks that are open, as indices of nodes.
    open: Vec<usize>,
}

impl Builder<'_> {
    fn kind(&self, index: usize) -> TokenKind {
        self.tokens.get(index).map_or(TokenKind::EndOfFile, |token| token.kind)
    }

    fn span(&self, index: usize) -> Span {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.tokens.get(index).map_or(Span::at(end), |token| token.span)
    }

    fn run(&mut self) {
        let mut index = 0;
        loop {
            match self.kind(index) {
                TokenKind::EndOfFile => break,
                TokenKind::Identifier => index = self.statement(index),
                TokenKind::OpenBrace => {
                    // A block without a name keeps the braces in balance.
                    let span = self.span(index);
                    self.block(String::new(), Span::at(span.start), None, span);
                    index += 1;
                }
                TokenKind::CloseBrace => {
                    if let Some(block) = self.open.pop() {
                        self.nodes[block].inside.end = self.span(index).start;
                    }
                    index += 1;
                }
                _ => index += 1,
            }
        }
    }

    fn block(&mut self, name: String, name_span: Span, label: Option<Label>, brace: Span) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let parent = self.open.last().copied();
        self.open.push(self.nodes.len());
        let inside = Span::new(brace.end, end);
        self.nodes.push(Node { parent, kind: NodeKind::Block, name, name_span, label, inside, value: 0..0 });
    }

    /// What begins with the name at `index`; returns where the next statement may begin.
    fn statement(&mut self, index: usize) -> usize {
        let mut name = slice(self.text, self.span(index)).to_owned();
        let mut name_span = self.span(index);
        let mut next = index + 1;
        while self.kind(next) == TokenKind::Dot {
            let part = self
                .tokens
                .get(next + 1)
                .filter(|token| token.kind == TokenKind::Identifier && !token.on_new_line);
            name.push('.');
            name_span = name_span.to(self.span(next));
            next += 1;
            let Some(part) = part else { break };
            name.push_str(slice(self.text, part.span));
            name_span = name_span.to(part.span);
            next += 1;
        }
        let mut label = None;
        if self.kind(next) == TokenKind::String {
            let span = self.span(next);
            let text = slice(self.text, span).trim_matches(['"', '`']).to_owned();
            label = Some(Label { text, span });
            next += 1;
        }
        match self.kind(next) {
            TokenKind::OpenBrace => {
                self.block(name, name_span, label, self.span(next));
                next + 1
            }
            TokenKind::Assign => {
                let (end, value_end) = self.value_end(next + 1);
                let inside = Span::new(self.span(next).end, value_end);
                let parent = self.open.last().copied();
                let value = next + 1..end;
                self.nodes.push(Node {
                    parent,
                    kind: NodeKind::Attribute,
                    name,
                    name_span,
                    label,
                    inside,
                    value,
                });
                end
            }
            _ => {
                let inside = Span::at(name_span.end);
                let parent = self.open.last().copied();
                let kind = NodeKind::Incomplete;
                self.nodes.push(Node { parent, kind, name, name_span, label, inside, value: 0..0 });
                next
            }
        }
    }

    /// The token at which the value that begins at `index` ends, and the offset up to which more of it could be written.
    fn value_end(&self, mut index: usize) -> (usize, u32) {
        let mut brackets: Vec<TokenKind> = Vec::new();
        loop {
            let kind = self.kind(index);
            match kind {
                TokenKind::EndOfFile => break,
                TokenKind::Terminator if brackets.is_empty() => break,
                TokenKind::Identifier if self.at_head(index, brackets.last()) => break,
                TokenKind::OpenBrace | TokenKind::OpenBracket | TokenKind::OpenParen => brackets.push(kind),
                TokenKind::CloseBrace => {
                    while brackets.pop_if(|open| *open != TokenKind::OpenBrace).is_some() {}
                    if brackets.pop().is_none() {
                        break;
                    }
                }
                TokenKind::CloseBracket | TokenKind::CloseParen => {
                    brackets.pop_if(|open| open.closing() == Some(kind));
                }
                _ => {}
            }
            index += 1;
        }
        let end = self.span(index).start;
        (index, end)
    }

    /// Whether a line begins here with what can only be the next statement.
    fn at_head(&self, index: usize, around: Option<&TokenKind>) -> bool {
        let on_new_line = self.tokens.get(index).is_some_and(|token| token.on_new_line);
        if !on_new_line {
            return false;
        }
        let mut next = index + 1;
        while next < index + LOOKAHEAD
            && self.kind(next) == TokenKind::Dot
            && self.kind(next + 1) == TokenKind::Identifier
        {
            next += 2;
        }
        match self.kind(next) {
            TokenKind::Assign => next == index + 1 && around != Some(&TokenKind::OpenBrace),
            TokenKind::OpenBrace => true,
            TokenKind::String => self.kind(next + 1) == TokenKind::OpenBrace,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let outline = Outline::new(text);
        let shown = outline.nodes.iter().map(|node| {
            let depth = outline.chain(node.parent).len();
            let label = node.label.as_ref().map_or_else(String::new, |label| format!(" {:?}", label.text));
            format!("{}{}{label} {:?}", "  ".repeat(depth), node.name, node.kind)
        });
        shown.collect()
    }

    #[test]
    fn a_broken_value_does_not_swallow_what_follows() {
        let text = "a.b \"x\" {\n  forward_to = [c.d.\n  other = 1\n}\ne.f \"y\" {\n  g =\n  h = {k = 1}\n";
        assert_eq!(
            shown(text),
            [
                "a.b \"x\" Block",
                "  forward_to Attribute",
                "  other Attribute",
                "e.f \"y\" Block",
                "  g Attribute",
                "  h Attribute",
            ]
        );
    }

    #[test]
    fn beginnings_are_kept() {
        assert_eq!(
            shown("prometheus.\nlogging {\n  lev\n}"),
            ["prometheus. Incomplete", "logging Block", "  lev Incomplete"]
        );
    }

    #[test]
    fn paths_are_names_not_keys_or_fields_of_results() {
        let text = "a = {key = b.c, x = f(d.e)[0].g}";
        let outline = Outline::new(text);
        let paths: Vec<String> = outline
            .paths(text)
            .iter()
            .map(|path| path.parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>().join("."))
            .collect();
        assert_eq!(paths, ["b.c", "f", "d.e"]);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let text = "a {".repeat(200_000);
        assert_eq!(Outline::new(&text).nodes.len(), 200_000);
    }
}
