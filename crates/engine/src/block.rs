//! Places in parsed files: a body of statements, and a block within one. Nodes and scopes hold these instead of parts of the
//! tree.

use std::sync::Arc;

use invar_syntax::ast::{Attribute, Block, Body, File, Statement};
use invar_syntax::diagnostic::Diagnostic;
use invar_syntax::span::Span;

/// The statements of a file, or of a block in it.
#[derive(Clone, Debug)]
pub(crate) struct BodyRef {
    file: Arc<File>,
    /// Which statement leads to the body at each level; empty for the file itself.
    path: Arc<[u32]>,
}

/// A block of a body.
#[derive(Clone, Debug)]
pub(crate) struct BlockRef {
    body: BodyRef,
    statement: u32,
}

// === impl BodyRef ===

impl BodyRef {
    /// All of a file.
    pub(crate) fn file(file: &Arc<File>) -> Self {
        Self { file: Arc::clone(file), path: Arc::default() }
    }

    /// The file it is of.
    pub(crate) fn file_of(&self) -> &File {
        &self.file
    }

    /// The statements.
    pub(crate) fn get(&self) -> &Body {
        let mut body = &self.file.body;
        for statement in &*self.path {
            body = &block_at(body, *statement).body;
        }
        body
    }

    /// The blocks in source order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (BlockRef, &Block)> {
        (0_u32..).zip(&self.get().statements).filter_map(|(statement, found)| match found {
            Statement::Block(block) => Some((BlockRef { body: self.clone(), statement }, block)),
            Statement::Attribute(_) => None,
        })
    }

    /// The attributes in source order.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.get().attributes()
    }

    /// Adds a place in this body's file to a diagnostic.
    pub(crate) fn label(&self, diagnostic: Diagnostic, span: Span, text: impl Into<String>) -> Diagnostic {
        diagnostic.with_label(&self.file.source, span, text)
    }

    /// Whether both are the same place of the same file.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.path == other.path
    }
}

/// The block at a statement.
///
/// # Panics
/// Never: references are made for block statements only, and files are immutable.
fn block_at(body: &Body, statement: u32) -> &Block {
    match &body.statements[statement as usize] {
        Statement::Block(block) => block,
        Statement::Attribute(_) => unreachable!("a block reference names a block"),
    }
}

// === impl BlockRef ===

impl BlockRef {
    pub(crate) fn get(&self) -> &Block {
        block_at(self.body.get(), self.statement)
    }

    /// What stands between its braces.
    pub(crate) fn body(&self) -> BodyRef {
        let path = self.body.path.iter().copied().chain([self.statement]).collect();
        BodyRef { file: Arc::clone(&self.body.file), path }
    }

    /// Whether both are the same block of the same file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.statement == other.statement && self.body.is(&other.body)
    }

    /// Name and label, joined by a dot.
    pub(crate) fn name_with_label(&self) -> String {
        let block = self.get();
        let mut name = block.dotted_name();
        if let Some(label) = &block.label {
            name.push('.');
            name.push_str(&label.text);
        }
        name
    }

    /// The name of its file.
    pub(crate) fn file_name(&self) -> &str {
        &self.body.file.source.name
    }

    /// `file:line:column` of the block.
    pub(crate) fn location(&self) -> String {
        self.body.file.source.location(self.get().span.start)
    }

    /// The line it begins at.
    pub(crate) fn line(&self) -> u32 {
        self.body.file.source.position(self.get().span.start).line
    }

    /// The text of the block.
    pub(crate) fn text(&self) -> &str {
        self.body.file.source.slice(self.get().span)
    }

    /// The place of the block's name.
    pub(crate) fn header(&self) -> Span {
        self.get().name_span()
    }

    /// Adds a place in this block's file to a diagnostic.
    pub(crate) fn label(&self, diagnostic: Diagnostic, span: Span, text: impl Into<String>) -> Diagnostic {
        self.body.label(diagnostic, span, text)
    }
}
