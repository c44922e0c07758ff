//! The outline that an editor shows beside a text.

use lsp_types::{DocumentSymbol, Range, SymbolKind};

use crate::document::Analysis;
use crate::outline::NodeKind;
use crate::position::Encoding;

/// Blocks nested deeper are left out: the answer is nested as they are, and has to be written by recursion.
const MAX_DEPTH: usize = 32;

/// The blocks and attributes of a text.
pub(crate) fn symbols(analysis: &Analysis, encoding: Encoding) -> Vec<DocumentSymbol> {
    let outline = &analysis.outline;
    let mut depths: Vec<usize> = Vec::with_capacity(outline.nodes.len());
    let mut children: Vec<Vec<DocumentSymbol>> = Vec::new();
    for node in &outline.nodes {
        depths.push(node.parent.map_or(0, |parent| depths.get(parent).map_or(0, |depth| depth + 1)));
    }
    children.resize_with(outline.nodes.len(), Vec::new);
    let mut top = Vec::new();
    // Children stand behind their parents: from the end, each is complete when its parent takes it.
    for (index, node) in outline.nodes.iter().enumerate().rev() {
        let mut nested = std::mem::take(&mut children[index]);
        if node.kind == NodeKind::Incomplete || node.name.is_empty() || depths[index] > MAX_DEPTH {
            continue;
        }
        nested.reverse();
        let name = match &node.label {
            Some(label) => format!("{} \"{}\"", node.name, label.text),
            None => node.name.clone(),
        };
        let selection = analysis.range(node.name_span, encoding);
        let mut end = analysis.range(node.inside, encoding).end;
        if node.kind == NodeKind::Block && (node.inside.end as usize) < analysis.text.len() {
            // With the closing brace.
            end.character += 1;
        }
        #[allow(deprecated, reason = "the field has no default")]
        let symbol = DocumentSymbol {
            name,
            detail: None,
            kind: if node.kind == NodeKind::Block { SymbolKind::CLASS } else { SymbolKind::PROPERTY },
            tags: None,
            deprecated: None,
            range: Range::new(selection.start, end.max(selection.end)),
            selection_range: selection,
            children: Some(nested).filter(|nested| !nested.is_empty()),
        };
        match node.parent {
            Some(parent) => children[parent].push(symbol),
            None => top.push(symbol),
        }
    }
    top.reverse();
    top
}
