#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;

use super::{parse_bytes, parse_expression, parse_file};
use crate::ast::{Body, Expr, ExprKind, Literal, Statement};
use crate::diagnostic::Diagnostics;
use crate::limits::{MAX_DIAGNOSTICS, MAX_EXPRESSION_HEIGHT, MAX_NESTING, MAX_SOURCE_BYTES};
use crate::source::Source;

/// The tree of an expression with all its brackets.
fn tree(expr: &Expr) -> String {
    let list = |exprs: &[Expr]| exprs.iter().map(tree).collect::<Vec<_>>().join(" ");
    match &expr.kind {
        ExprKind::Literal(Literal::Null) => "null".to_owned(),
        ExprKind::Literal(Literal::Bool(value)) => value.to_string(),
        ExprKind::Literal(Literal::Number { text } | Literal::Float { text }) => text.to_string(),
        ExprKind::Literal(Literal::String { raw, value }) => {
            format!("{}{value:?}", if *raw { "raw" } else { "" })
        }
        ExprKind::Identifier(name) => name.to_string(),
        ExprKind::Array(elements) => format!("[{}]", list(elements)),
        ExprKind::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| {
                    let quote = if field.quoted { "'" } else { "" };
                    format!("{quote}{}{quote}={}", field.name, tree(&field.value))
                })
                .collect();
            format!("{{{}}}", fields.join(" "))
        }
        ExprKind::Access { value, name } => format!("(. {} {name})", tree(value)),
        ExprKind::Index { value, index, .. } => format!("(at {} {})", tree(value), tree(index)),
        ExprKind::Call { callee, arguments, .. } => {
            format!(
                "(call {}{}{})",
                tree(callee),
                if arguments.is_empty() { "" } else { " " },
                list(arguments)
            )
        }
        ExprKind::Unary { op, operand } => format!("({op} {})", tree(operand)),
        ExprKind::Binary { op, left, right, .. } => format!("({op} {} {})", tree(left), tree(right)),
        ExprKind::Paren(inner) => format!("<{}>", tree(inner)),
    }
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new("t", text))
}

fn errors(text: &str) -> Vec<String> {
    positions(&parse_file(source(text)).1)
}

fn positions(diagnostics: &Diagnostics) -> Vec<String> {
    diagnostics.iter().map(|diagnostic| diagnostic.to_string().trim_start_matches("t:").to_owned()).collect()
}

fn body(text: &str) -> Body {
    let (file, diagnostics) = parse_file(source(text));
    file.unwrap_or_else(|| panic!("{text:?}: {diagnostics}")).body
}

fn outline(body: &Body) -> String {
    let mut out = String::new();
    for statement in &body.statements {
        match statement {
            Statement::Attribute(attribute) => {
                write!(out, "{}={};", attribute.name, tree(&attribute.value)).unwrap();
            }
            Statement::Block(block) => {
                let label = block.label.as_ref().map(|label| format!(" {}", label.text)).unwrap_or_default();
                write!(out, "{}{label}{{{}}}", block.dotted_name(), outline(&block.body)).unwrap();
            }
        }
    }
    out
}

#[test]
fn expressions_have_their_trees() {
    let cases = [
        ("10", "10"),
        ("15.0", "15.0"),
        (r#""a\tb""#, r#""a\tb""#),
        ("`a\\\r\nb`", r#"raw"a\\\nb""#),
        ("other", "other"),
        ("null", "null"),
        ("[]", "[]"),
        ("[0, 1,]", "[0 1]"),
        ("[\n0,\n1,\n]", "[0 1]"),
        ("{}", "{}"),
        (r#"{ a = 1, "b" = 2, }"#, "{a=1 'b'=2}"),
        // Keys keep their escapes, and the empty key its quotes.
        (r#"{ "x\ty" = 1, "" = 2, `r` = 3 }"#, r#"{'x\ty'=1 '""'=2 'r'=3}"#),
        ("!true", "(! true)"),
        ("--a", "(- (- a))"),
        ("-2 ^ 2", "(^ (- 2) 2)"),
        ("2 ^ -2", "(^ 2 (- 2))"),
        ("1 ^ 2 ^ 3", "(^ 1 (^ 2 3))"),
        ("1 - 2 - 3", "(- (- 1 2) 3)"),
        ("1 + 2 * 3 ^ 4 % 5", "(+ 1 (% (* 2 (^ 3 4)) 5))"),
        ("a || b && c == d + e * f", "(|| a (&& b (== c (+ d (* e f)))))"),
        ("a * b + c == d && e || f", "(|| (&& (== (+ (* a b) c) d) e) f)"),
        ("1 == 2 != 3 < 4", "(< (!= (== 1 2) 3) 4)"),
        ("(5 * 2) + 5", "(+ <(* 5 2)> 5)"),
        ("a.b[0][c](d, e,).f", "(. (call (at (at (. a b) 0) c) d e) f)"),
        ("f()", "(call f)"),
        ("f(\n1,\n)", "(call f 1)"),
        ("1 +\n2", "(+ 1 2)"),
        ("a.\nb", "(. a b)"),
        ("-a.b", "(- (. a b))"),
        ("!f(x)", "(! (call f x))"),
        ("\n\n1\n\n", "1"),
        ("1.a", "error"),
        ("[1, 2][0]", "(at [1 2] 0)"),
        ("/* c */ 1 // d", "1"),
    ];
    for (text, expected) in cases {
        let tree = parse_expression(source(text)).map_or_else(|_| "error".to_owned(), |expr| tree(&expr));
        assert_eq!(tree, expected, "{text:?}");
    }
}

#[test]
fn expressions_stand_alone() {
    let cases = [
        ("", "1:1: expected expression, got EOF"),
        ("1 2", "1:3: expected EOF, got NUMBER"),
        ("1\n2", "2:1: expected EOF, got NUMBER"),
        ("(1", "1:3: expected ), got TERMINATOR"),
        ("a +", "1:4: expected expression, got EOF"),
    ];
    for (text, expected) in cases {
        assert_eq!(positions(&parse_expression(source(text)).unwrap_err()), [expected], "{text:?}");
    }
}

#[test]
fn files_have_their_statements() {
    let cases = [
        ("", ""),
        ("\n\n// only a comment\n", ""),
        ("a = 1", "a=1;"),
        ("a = 1\n\n\nb = 2\n", "a=1;b=2;"),
        ("a { }", "a{}"),
        ("a {\n}\n", "a{}"),
        ("a.b.c \"l\" { d = 1 }", "a.b.c l{d=1;}"),
        ("a \"\" {}", "a{}"),
        ("a {\n b \"x\" {\n c = 1\n }\n d = 2 }", "a{b x{c=1;}d=2;}"),
        ("a {} // c\nb = [ // d\n 1, /* e */\n]", "a{}b=[1];"),
        ("\u{feff}a = 1", "a=1;"),
        ("a = 1\r\nb = 2\r\n", "a=1;b=2;"),
    ];
    for (text, expected) in cases {
        assert_eq!(outline(&body(text)), expected, "{text:?}");
    }
}

#[test]
fn spans_name_the_text_of_their_node() {
    let text = "a.b \"l\" {\n  c = d.e[1] // note\n  \"k\"\n}";
    let (none, _) = parse_file(source(text));
    assert!(none.is_none());
    let text = "a.b \"l\" {\n  c = d.e[1] // note\n  o = { \"k\" = -(2) }\n}\n";
    let (file, _) = parse_file(source(text));
    let file = file.unwrap();
    let slice = |span| file.source.slice(span);
    let Statement::Block(block) = &file.body.statements[0] else { panic!("a block") };
    assert_eq!(slice(block.span), text.trim_end());
    assert_eq!((slice(block.open), slice(block.close)), ("{", "}"));
    assert_eq!(slice(block.name_span()), "a.b");
    assert_eq!(slice(block.label.as_ref().unwrap().span), "\"l\"");
    let attributes: Vec<_> = block.body.attributes().collect();
    assert_eq!(slice(attributes[0].span), "c = d.e[1]");
    let ExprKind::Index { value, open, index } = &attributes[0].value.kind else { panic!("an index") };
    assert_eq!((slice(value.span), slice(*open), slice(index.span)), ("d.e", "[", "1"));
    let ExprKind::Object(fields) = &attributes[1].value.kind else { panic!("an object") };
    assert_eq!(slice(fields[0].span), "\"k\" = -(2)");
    assert_eq!(slice(fields[0].name.span), "\"k\"");
    assert_eq!(slice(file.comments[0].span), "// note");
}

/// Every message, at its place, and nothing besides.
#[test]
fn each_error_is_reported_once() {
    let cases: &[(&str, &[&str])] = &[
        // Statements.
        ("= 1", &["1:1: expected identifier, got ="]),
        ("a. = 1", &["1:4: expected identifier, got ="]),
        ("a.true {\n b = \n}", &["1:3: expected identifier, got BOOL", "3:1: expected expression, got }"]),
        ("a", &["1:2: expected block label, got TERMINATOR"]),
        ("a b", &["1:3: expected block label, got IDENT"]),
        ("a b {\n c = )\n}", &["1:3: expected block label, got IDENT", "2:6: expected expression, got )"]),
        ("a \"l\" 1", &["1:7: expected block body, got NUMBER"]),
        ("a.b \"\" 1", &["1:8: expected block body, got NUMBER"]),
        ("a \"\" 1", &["1:6: expected attribute assignment or block body, got NUMBER"]),
        ("a `l` {}", &["1:3: expected block label to be a double quoted string, but got \"`l`\""]),
        ("a \"x y\" {}", &["1:3: expected block label to be a valid identifier, but got \"x y\""]),
        ("a \"true\" {}", &["1:3: expected block label to be a valid identifier, but got \"true\""]),
        ("a.b = 1", &["1:1: attribute names may only consist of a single identifier with no \".\""]),
        ("a \"l\" = 1", &["1:3: attribute names may not have labels"]),
        ("a = 1 2", &["1:7: expected TERMINATOR, got NUMBER"]),
        ("a = 1 }\nb = ]", &["1:7: expected TERMINATOR, got }", "2:5: expected expression, got ]"]),
        ("}\na = 1\n}", &["1:1: expected identifier, got }", "3:1: expected identifier, got }"]),
        ("a {", &["1:4: expected }, got EOF"]),
        ("a {\n b = 1\n", &["3:1: expected }, got EOF"]),
        // Expressions.
        ("a = ", &["1:5: expected expression, got EOF"]),
        ("a = 1 + + 2", &["1:9: expected expression, got +"]),
        ("a = f(())", &["1:8: expected expression, got )"]),
        ("a = b.true", &["1:7: expected IDENT, got BOOL"]),
        ("a = b.1", &["1:6: expected TERMINATOR, got FLOAT"]),
        ("a = b.[1]", &["1:7: expected IDENT, got ["]),
        ("a = (1\n)", &["1:7: expected ), got TERMINATOR"]),
        ("a = b[1\n]\nc = +", &["1:8: expected ], got TERMINATOR", "3:5: expected expression, got +"]),
        // Lists.
        ("a = [\n 1,\n 2\n]", &["3:3: missing ',' in expression list"]),
        ("a = {\n b = 1,\n c = 2\n}", &["3:7: missing ',' in field list"]),
        ("a = f(\n 1\n)\nb = 1", &["2:3: missing ',' in expression list"]),
        ("a = [1 2]\nb = +", &["1:8: missing ',' in expression list", "2:5: expected expression, got +"]),
        ("a = [\"x\" \"y\"]", &["1:10: missing ',' in expression list"]),
        ("a = [x \"y\"]", &["1:8: missing ',' in expression list"]),
        ("a = [1}", &["1:7: expected ], got }"]),
        (
            "a = { 1 = 2,\n b = + }",
            &[
                "1:7: expected field name (string or identifier), got NUMBER",
                "2:6: expected expression, got +",
            ],
        ),
        ("a = { b : 1 }\nc = 1", &["1:9: illegal character U+003A ':'"]),
        ("a = { b 1 }", &["1:9: expected =, got NUMBER"]),
        // A list that is never closed costs one error, and the statements after it are still read.
        ("a = [1,\nb = 2\nc = +", &["2:1: expected ], got IDENT", "3:5: expected expression, got +"]),
        (
            "a = [1,\n\nb.c \"l\" {\n d = +\n}",
            &["3:1: expected ], got IDENT", "4:6: expected expression, got +"],
        ),
        (
            "a = {\n x = 1,\n\nb.c \"l\" {\n d = +\n}",
            &["4:1: expected }, got IDENT", "5:6: expected expression, got +"],
        ),
        ("b {\n a = [1, \n}\nc = +", &["3:1: expected expression, got }", "4:5: expected expression, got +"]),
        // Blocks as values.
        ("a = b.c \"l\" {\n d = 1\n}\ne = 1", &["1:5: cannot use a block as an expression"]),
        (
            "a = b {\n d = +\n}",
            &["1:5: cannot use a block as an expression", "2:6: expected expression, got +"],
        ),
        ("a = b \"l\" \"m\" 1", &["1:11: expected {, got STRING"]),
        // Placeholders of documentation.
        ("a {\n ...\n b = 1\n}", &["2:2: expected identifier, got ."]),
        (
            "a \"<L>\" {\n b = <X>\n c = [<Y>,\n <Z>]\n d = ...\n}\ne = 1",
            &[
                "1:3: expected block label to be a valid identifier, but got \"<L>\"",
                "2:6: expected expression, got <",
                "3:7: expected expression, got <",
                "4:2: expected expression, got <",
                "5:6: expected expression, got .",
            ],
        ),
        (
            "{{ if x }}\na = {{ y }}\n{{ end }}",
            &[
                "1:1: expected identifier, got {",
                "2:6: expected field name (string or identifier), got {",
                "3:1: expected identifier, got {",
            ],
        ),
        // What the lexer found is not found again.
        ("a = 'x'\nb = 1", &["1:5: illegal single-quoted string; use double quotes"]),
        ("a = \"x\nb = +", &["1:5: string literal not terminated", "2:5: expected expression, got +"]),
        ("a {\n b = `x\n}\n", &["2:6: string literal not terminated"]),
        ("a {\n /* b\n}\n", &["2:2: block comment not terminated"]),
        ("a = 1; b = 2\nc = 1", &["1:6: illegal character U+003B ';'"]),
        ("A0000000000000000", &["1:18: expected block label, got TERMINATOR"]),
        ("A={A!0A\"", &["1:5: expected =, got !"]),
        ("A\"", &["1:2: string literal not terminated"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&errors(text), expected, "{text:?}");
        assert!(parse_file(source(text)).0.is_none(), "{text:?}");
    }
}

#[test]
fn help_and_labels_explain() {
    let (_, diagnostics) = parse_file(source("a = [\n 1\n]"));
    let help = diagnostics.0[0].help.as_deref().unwrap();
    assert_eq!(help, "the last element needs a comma too when the closing bracket is on another line");
    let (_, diagnostics) = parse_file(source("a {\n"));
    let label = &diagnostics.0[0].labels[1];
    assert_eq!((label.span.start, label.text.as_str()), (2, "this `{` is not closed"));
}

#[test]
fn nesting_is_bounded() {
    let limit = MAX_NESTING as usize;
    let shapes = [("[", "]"), ("(", ")"), ("{a=", "}"), ("f(", ")"), ("a[", "]"), ("-", "")];
    for (open, close) in shapes {
        let nested = |levels: usize| format!("a = {}1{}", open.repeat(levels), close.repeat(levels));
        assert_eq!(errors(&nested(limit)), [""; 0], "{open}");
        let over = errors(&nested(limit + 1));
        assert!(over.len() == 1 && over[0].contains("levels of nesting"), "{open}: {over:?}");
        assert_eq!(errors(&nested(100_000)).len(), 1, "{open}");
        // Never closed.
        assert!(!errors(&format!("a = {}", open.repeat(100_000))).is_empty(), "{open}");
    }
    let blocks = |levels: usize| format!("{}{}", "a {".repeat(levels), "}".repeat(levels));
    assert_eq!(errors(&blocks(limit)), [""; 0]);
    assert_eq!(errors(&blocks(limit + 1)).len(), 1);
    assert_eq!(errors(&blocks(100_000)).len(), 1);
    // The deepest grammar path at every level.
    let deepest = "1||1&&1==1+1*1^(";
    let deep = |levels: usize| format!("a = {}1{}", deepest.repeat(levels), ")".repeat(levels));
    assert_eq!(errors(&deep(60)), [""; 0]);
    assert_eq!(errors(&deep(10_000)).len(), 1);
}

#[test]
fn chains_are_bounded() {
    let most = MAX_EXPRESSION_HEIGHT as usize - 1;
    for link in [" + 1", ".b", "()", "[0]"] {
        let chain = |links: usize| format!("a = b{}\nc = 1", link.repeat(links));
        assert_eq!(errors(&chain(most)), [""; 0], "{link}");
        let over = errors(&chain(100_000));
        assert!(over.len() == 1 && over[0].contains("terms"), "{link}: {over:?}");
    }
    assert_eq!(errors(&format!("a = 1{}", " ^ 1".repeat(100_000))).len(), 1);
    // Nested chains add up.
    let nested = (0..150).fold("1".to_owned(), |inner, _| format!("({inner} + 1 + 1 + 1 + 1)"));
    let over = errors(&format!("a = {nested}"));
    assert!(over.len() == 1 && over[0].contains("terms"), "{over:?}");
}

/// Recovery reads on from where it stopped: inputs this long would take hours if it ever began again.
#[test]
fn recovery_is_linear() {
    for piece in [
        "a = [\n",
        "a {\n",
        "a = {\n",
        "[",
        "a = f(b \n",
        "}\n",
        "/**/ a ",
        "a.",
        "\"",
        "'x' ",
        "a = b {\n",
        ",\n",
    ] {
        let text = piece.repeat(400_000 / piece.len());
        assert!(!errors(&text).is_empty(), "{piece:?}");
    }
}

#[test]
fn the_list_of_errors_is_bounded() {
    for line in ["a = +\n", "#\n"] {
        let (_, diagnostics) = parse_file(source(&line.repeat(5_000)));
        assert_eq!(diagnostics.len(), MAX_DIAGNOSTICS + 1, "{line:?}");
        assert_eq!(diagnostics.0.last().unwrap().code, "E012");
    }
}

#[test]
fn bytes_must_be_utf8() {
    let cases: &[(&[u8], &str)] = &[
        (b"\xff\xfea\0", "t:1:1: configuration is encoded with UTF-16LE but must be UTF-8"),
        (b"\xfe\xff\0a", "t:1:1: configuration is encoded with UTF-16BE but must be UTF-8"),
        (b"\xff\xfe\0\0a\0\0\0", "t:1:1: configuration is encoded with UTF-32LE but must be UTF-8"),
        (b"\0\0\xfe\xff\0\0\0a", "t:1:1: configuration is encoded with UTF-32BE but must be UTF-8"),
        (b"a = 1\nb = \"\xe9\"\n", "t:2:6: invalid UTF-8 at byte offset 11, line 2: byte 0xE9"),
        (b"\xc3", "t:1:1: invalid UTF-8 at byte offset 0, line 1: byte 0xC3"),
    ];
    for (bytes, expected) in cases {
        let (file, diagnostics) = parse_bytes("t", bytes);
        assert!(file.is_none());
        assert_eq!(diagnostics.to_string(), *expected);
        assert_eq!(diagnostics.0[0].code, "E009");
    }
    let (file, _) = parse_bytes("t", b"\xef\xbb\xbfa = 1");
    assert_eq!(outline(&file.unwrap().body), "a=1;");
}

#[test]
fn a_quoted_key_that_is_not_closed_is_an_error_whatever_it_ends_with() {
    for key in ["`aů", "\"aů", "`ů", "\"ů", "`", "\""] {
        assert!(parse_bytes("t", format!("a = {{{key}").as_bytes()).1.has_errors(), "{key}");
    }
}

#[test]
fn size_is_bounded() {
    let bytes = vec![b'\n'; MAX_SOURCE_BYTES];
    assert!(parse_bytes("t", &bytes).0.is_some());
    let bytes = vec![b'\n'; MAX_SOURCE_BYTES + 1];
    let (file, diagnostics) = parse_bytes("t", &bytes);
    assert!(file.is_none());
    assert_eq!(diagnostics.0[0].code, "E010");
    let text = source(&"\n".repeat(MAX_SOURCE_BYTES + 1));
    assert_eq!(parse_file(Arc::clone(&text)).1.0[0].code, "E010");
    assert_eq!(parse_expression(text).unwrap_err().0[0].code, "E010");
}
