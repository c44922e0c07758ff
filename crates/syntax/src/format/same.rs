//! Whether two files are the same configuration with the same comments, wherever things stand in them.

use crate::ast::{Attribute, Block, Body, Comment, Expr, ExprKind, File, ObjectField, Statement};

/// Compares names, values, parentheses and comments; not places, line breaks, or the quotes around names.
pub(super) fn same(a: &File, b: &File) -> bool {
    bodies(&a.body, &b.body)
        && lists(&a.comments, &b.comments, |left, right| comment(a, *left).eq(comment(b, *right)))
}

/// The characters of a comment that count.
fn comment(file: &File, comment: Comment) -> impl Iterator<Item = u8> {
    file.source.slice(comment.span).bytes().filter(|&byte| byte != b'\r')
}

fn lists<T>(a: &[T], b: &[T], mut equal: impl FnMut(&T, &T) -> bool) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

fn bodies(a: &Body, b: &Body) -> bool {
    lists(&a.statements, &b.statements, |a, b| match (a, b) {
        (Statement::Attribute(a), Statement::Attribute(b)) => attributes(a, b),
        (Statement::Block(a), Statement::Block(b)) => blocks(a, b),
        _ => false,
    })
}

fn attributes(a: &Attribute, b: &Attribute) -> bool {
    a.name.name == b.name.name && expressions(&a.value, &b.value)
}

fn blocks(a: &Block, b: &Block) -> bool {
    let label = |block: &Block| block.label.as_ref().map(|label| label.text.clone());
    lists(&a.name, &b.name, |a, b| a.name == b.name) && label(a) == label(b) && bodies(&a.body, &b.body)
}

fn fields(a: &ObjectField, b: &ObjectField) -> bool {
    a.name.name == b.name.name && a.quoted == b.quoted && expressions(&a.value, &b.value)
}

fn expressions(a: &Expr, b: &Expr) -> bool {
    match (&a.kind, &b.kind) {
        (ExprKind::Literal(a), ExprKind::Literal(b)) => a == b,
        (ExprKind::Identifier(a), ExprKind::Identifier(b)) => a == b,
        (ExprKind::Array(a), ExprKind::Array(b)) => lists(a, b, expressions),
        (ExprKind::Object(a), ExprKind::Object(b)) => lists(a, b, fields),
        (ExprKind::Access { value: a, name: a_name }, ExprKind::Access { value: b, name: b_name }) => {
            a_name.name == b_name.name && expressions(a, b)
        }
        (
            ExprKind::Index { value: a, index: a_index, open: _ },
            ExprKind::Index { value: b, index: b_index, open: _ },
        ) => expressions(a, b) && expressions(a_index, b_index),
        (
            ExprKind::Call { callee: a, arguments: a_arguments, open: _ },
            ExprKind::Call { callee: b, arguments: b_arguments, open: _ },
        ) => expressions(a, b) && lists(a_arguments, b_arguments, expressions),
        (ExprKind::Unary { op: a_op, operand: a }, ExprKind::Unary { op: b_op, operand: b }) => {
            a_op == b_op && expressions(a, b)
        }
        (
            ExprKind::Binary { op: a_op, left: a_left, right: a_right, op_span: _ },
            ExprKind::Binary { op: b_op, left: b_left, right: b_right, op_span: _ },
        ) => a_op == b_op && expressions(a_left, b_left) && expressions(a_right, b_right),
        (ExprKind::Paren(a), ExprKind::Paren(b)) => expressions(a, b),
        _ => false,
    }
}
