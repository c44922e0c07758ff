//! What holds for every text, sensible or not: nothing panics, tokens cover the text, spans nest.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use invar_syntax::ast::{Body, Expr, ExprKind, Statement};
use invar_syntax::lexer::{TokenKind, lex};
use invar_syntax::{Source, Span, Style, parse_bytes, parse_expression, parse_file, render};
use proptest::prelude::*;

/// Fragments that make texts look like configurations, so that the parser's inner rules are reached.
const FRAGMENTS: &[&str] = &[
    "a",
    "b.c",
    "prometheus.scrape",
    "\"label\"",
    "\"\"",
    "\"x\\ty\"",
    "\"\\xc3\\xa9\"",
    "`raw\r\n`",
    "1",
    "010",
    "2.5",
    "1e3",
    "true",
    "null",
    "=",
    "==",
    "!",
    "!=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "<",
    ">=",
    "||",
    "&&",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "\n",
    "\n",
    "\r\n",
    " ",
    "\t",
    "// c\n",
    "/* d */",
    "/* e\n */",
    "a = ",
    "b {\n",
    "}\n",
    "a = [",
    "{ k = 1 }",
    "c = f(1, x.y[0])\n",
    "'",
    "\"",
    "`",
    "\\",
    "|",
    ";",
    "#",
    "é",
    "日",
    "\u{feff}",
    "\0",
];

fn texts() -> impl Strategy<Value = String> {
    let fragments =
        prop::collection::vec(prop::sample::select(FRAGMENTS), 0..60).prop_map(|parts| parts.concat());
    prop_oneof![4 => fragments, 1 => any::<String>(), 1 => "[ -~\n]{0,80}"]
}

/// Expressions that are correct by construction.
fn expressions() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["a", "1", "2.5", "\"s\"", "`r`", "true", "null", "[]", "{}", "x.y.z"]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 4, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "^", "==", "!=", "<", "<=", ">", ">=", "&&", "||",
        ]);
        prop_oneof![
            (inner.clone(), binary, inner.clone())
                .prop_map(|(left, op, right)| format!("{left} {op} {right}")),
            inner.clone().prop_map(|value| format!("({value})")),
            inner.clone().prop_map(|value| format!("-{value}")),
            inner.clone().prop_map(|value| format!("!{value}")),
            inner.clone().prop_map(|value| format!("f({value}).g[0]")),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            prop::collection::vec(inner, 0..4).prop_map(|values| {
                let fields: Vec<String> = values.iter().map(|value| format!("  k = {value},\n")).collect();
                format!("{{\n{}}}", fields.concat())
            }),
        ]
    })
}

fn within(inner: Span, outer: Span) {
    assert!(
        outer.start <= inner.start && inner.start <= inner.end && inner.end <= outer.end,
        "{inner:?} in {outer:?}"
    );
}

fn check_body(body: &Body, outer: Span) {
    let mut last = outer.start;
    for statement in &body.statements {
        let span = statement.span();
        within(span, outer);
        assert!(span.start >= last, "statements in order");
        last = span.end;
        match statement {
            Statement::Attribute(attribute) => {
                within(attribute.name.span, span);
                check_expr(&attribute.value, span);
            }
            Statement::Block(block) => {
                within(block.open, span);
                within(block.close, span);
                check_body(&block.body, Span::new(block.open.end, block.close.start));
            }
        }
    }
}

fn check_expr(expr: &Expr, outer: Span) {
    within(expr.span, outer);
    assert!(!expr.span.is_empty());
    let inside = expr.span;
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Identifier(_) => {}
        ExprKind::Array(elements) => elements.iter().for_each(|element| check_expr(element, inside)),
        ExprKind::Object(fields) => fields.iter().for_each(|field| {
            within(field.span, inside);
            within(field.name.span, field.span);
            check_expr(&field.value, field.span);
        }),
        ExprKind::Access { value, name } => {
            check_expr(value, inside);
            within(name.span, inside);
        }
        ExprKind::Index { value, open, index } => {
            check_expr(value, inside);
            within(*open, inside);
            check_expr(index, inside);
        }
        ExprKind::Call { callee, open, arguments } => {
            check_expr(callee, inside);
            within(*open, inside);
            arguments.iter().for_each(|argument| check_expr(argument, inside));
        }
        ExprKind::Unary { operand, .. } => check_expr(operand, inside),
        ExprKind::Binary { op_span, left, right, .. } => {
            check_expr(left, inside);
            within(*op_span, inside);
            check_expr(right, inside);
        }
        ExprKind::Paren(inner) => check_expr(inner, inside),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) })]

    #[test]
    fn tokens_and_comments_cover_the_text(text in texts()) {
        let lexed = lex(&text);
        let mut pieces: Vec<Span> = lexed.tokens.iter().map(|token| token.span).collect();
        pieces.extend(lexed.comments.iter().map(|comment| comment.span));
        // An empty terminator stands before the comment at the same place.
        pieces.sort_by_key(|span| (span.start, span.end));
        let mut offset = 0;
        for span in pieces {
            prop_assert!(span.start >= offset, "tokens overlap in {text:?}");
            let gap = &text[offset as usize..span.start as usize];
            let mark = offset == 0 && gap.starts_with('\u{feff}');
            let gap = if mark { &gap[3..] } else { gap };
            prop_assert!(gap.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n')), "{gap:?} left out of {text:?}");
            prop_assert!(text.is_char_boundary(span.end as usize));
            offset = span.end;
        }
        prop_assert_eq!(offset as usize, text.len());
        prop_assert_eq!(lexed.tokens.last().unwrap().kind, TokenKind::EndOfFile);
    }

    #[test]
    fn any_text_yields_a_tree_or_errors_at_places_in_it(text in texts()) {
        let source = Arc::new(Source::new("t", text.clone()));
        let (file, diagnostics) = parse_file(Arc::clone(&source));
        prop_assert_eq!(file.is_none(), diagnostics.has_errors());
        if let Some(file) = &file {
            check_body(&file.body, Span::new(0, u32::try_from(text.len()).unwrap()));
        }
        let mut last_line = 0;
        for diagnostic in &diagnostics {
            prop_assert!(!diagnostic.message.contains('\n'));
            for label in &diagnostic.labels {
                prop_assert!(label.span.start <= label.span.end && label.span.end as usize <= text.len());
            }
            let line = source.position(diagnostic.labels[0].span.start).line;
            prop_assert!(line > last_line, "two errors on line {line}, or out of order: {diagnostics}");
            last_line = line;
        }
        let printed = render(&diagnostics, Style { color: false });
        prop_assert!(printed.chars().all(|c| c == '\n' || !c.is_control()), "{printed:?}");
        prop_assert_eq!(parse_file(source).1, diagnostics);
    }

    #[test]
    fn any_bytes_yield_a_tree_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let (file, diagnostics) = parse_bytes("t", &bytes);
        prop_assert_eq!(file.is_none(), diagnostics.has_errors());
        prop_assert_eq!(render(&diagnostics, Style { color: true }).is_empty(), diagnostics.is_empty());
    }

    #[test]
    fn correct_expressions_are_accepted(text in expressions()) {
        let source = Arc::new(Source::new("t", text.clone()));
        let expr = parse_expression(source);
        prop_assert!(expr.is_ok(), "{text}: {}", expr.unwrap_err());
        check_expr(&expr.unwrap(), Span::new(0, u32::try_from(text.len()).unwrap()));
    }
}
