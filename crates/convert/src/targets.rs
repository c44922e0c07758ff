//! Target lists as expressions: literal targets beside what discovery components export.

use invar_syntax::expression_text::quote;

use crate::block::map_text;

/// One operand of a list of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// A list that a component exports.
    Export(String),
    /// One target, its labels in order.
    Literal(Vec<(String, String)>),
}

/// The list as one expression.
pub(crate) fn expression(targets: &[Targets]) -> String {
    let operand = |targets: &Targets| match targets {
        Targets::Export(reference) => reference.clone(),
        Targets::Literal(labels) => {
            format!("[{}]", map_text(labels.iter().map(|(name, value)| (name.as_str(), quote(value)))))
        }
    };
    match targets {
        [] => "[]".to_owned(),
        [single] => operand(single),
        several => {
            let operands: Vec<String> =
                several.iter().map(|targets| format!("{},\n", operand(targets))).collect();
            format!("array.concat(\n{})", operands.concat())
        }
    }
}
