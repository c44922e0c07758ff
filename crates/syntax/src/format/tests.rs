#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::{FormatError, format, settle};
use crate::ast::File;
use crate::limits::MAX_SOURCE_BYTES;
use crate::parser::parse_file;
use crate::source::Source;

fn parse(text: &str) -> File {
    let (file, diagnostics) = parse_file(Arc::new(Source::new("t", text)));
    file.unwrap_or_else(|| panic!("{text:?}: {diagnostics}"))
}

/// Formats, and checks that formatting again changes nothing.
fn formatted(text: &str) -> String {
    let once = settle(&parse(text)).unwrap().unwrap_or_else(|| panic!("{text:?} never settles"));
    assert_eq!(format(&parse(&once)).unwrap(), once, "formatted again, from {text:?}");
    once
}

/// Text and expected form of each case. `→` is a tab, and every text ends with a line end.
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let expected = format!("{}\n", expected.replace('→', "\t"));
        assert_eq!(formatted(&text.replace('→', "\t")), expected, "{text}");
    }
}

#[test]
fn statements_have_a_line_each_and_names_line_up() {
    check(&[
        ("", ""),
        ("\n\n a=1\n\n\n\n b = 2\n\n", "a = 1\n\nb = 2"),
        ("a=1\nlonger=2\n\nb=3", "a      = 1\nlonger = 2\n\nb = 3"),
        // Width is in characters.
        ("é=1\nab=2", "é  = 1\nab = 2"),
        // A statement of several lines ends the alignment.
        ("a = 1\nb = [\n1,\n]\nlonger = 2", "a = 1\nb = [\n→1,\n]\nlonger = 2"),
        ("a=1\r\nb=2\r\n", "a = 1\nb = 2"),
    ]);
}

#[test]
fn blocks_stand_apart() {
    check(&[
        ("a{}", "a { }"),
        ("a \"b\" {\n}", "a \"b\" { }"),
        ("a \"\" { x=1 }", "a {\n→x = 1\n}"),
        ("a . b \"l\" {\nx=1\nc{\ny=1\n}\nz=2\n}", "a.b \"l\" {\n→x = 1\n\n→c {\n→→y = 1\n→}\n→z = 2\n}"),
        ("a{}\nb{}", "a { }\n\nb { }"),
        ("a {\n\n\nx=1\n\n\n}", "a {\n→x = 1\n}"),
    ]);
}

#[test]
fn lists_keep_their_lines() {
    check(&[
        ("a=[ ]", "a = []"),
        ("a=[1,2,\n]", "a = [1, 2,\n]"),
        ("a=[1,\n2, 3]", "a = [1,\n→2, 3]"),
        ("a=[\n1,\n\n2,\n]", "a = [\n→1,\n→2,\n]"),
        ("a=[[\n1,\n],[\n2,\n]]", "a = [[\n→1,\n], [\n→2,\n]]"),
        ("a=f( 1,2 )", "a = f(1, 2)"),
        ("a=f(1,\n2,\n)", "a = f(1,\n→2,\n)"),
        ("a=f(\n)", "a = f()"),
    ]);
}

#[test]
fn objects_line_up_their_names() {
    check(&[
        ("a={}", "a = {}"),
        ("a={b=1,cc=2}", "a = {b = 1, cc = 2}"),
        ("a={\nb=1,\ncc=2 }", "a = {\n→b  = 1,\n→cc = 2}"),
        // A value of several lines ends the alignment, as it does for statements.
        ("a={\nb=1,\nc=[\n2,\n],\nlong=3,\n}", "a = {\n→b = 1,\n→c = [\n→→2,\n→],\n→long = 3,\n}"),
        ("a={ \"b c\"=1, `d`=2 }", "a = {\"b c\" = 1, \"d\" = 2}"),
    ]);
}

#[test]
fn expressions_have_their_blanks() {
    check(&[
        ("a=1+2 *3", "a = 1 + 2 * 3"),
        ("a=! ( b )", "a = !(b)"),
        ("a=- -1", "a = --1"),
        ("a=b . c [ 0 ] ( d )", "a = b.c[0](d)"),
        ("a=1 .b", "a = 1 .b"),
        ("a=\"x\\ty\"", "a = \"x\\ty\""),
    ]);
}

#[test]
fn comments_stay_where_they_are() {
    check(&[
        ("// a\n\n\n// b", "// a\n\n// b"),
        ("a=1// x\nlonger=2   /* y */", "a      = 1 // x\nlonger = 2 /* y */"),
        ("a=1 // x\nb=\"long\" // y", "a = 1      // x\nb = \"long\" // y"),
        ("a {\n// x\nb=1\n\n// y\n}", "a {\n→// x\n→b = 1\n\n→// y\n}"),
        ("a { // x\n}", "a { // x\n}"),
        ("a=[\n// x\n1, // y\n// z\n]", "a = [\n→// x\n→1, // y\n→// z\n]"),
        ("/*  x  \n y*/ a=1", "/*  x  \n y*/ a = 1"),
        ("a = /* x */ 1", "a = /* x */ 1"),
        // Trailing blanks of a comment are its own.
        ("a = 1 // x  ", "a = 1 // x  "),
    ]);
}

/// Alloy takes a tab in a string for layout and trims what looks like the end of a line in it.
#[test]
fn strings_stay_as_they_are() {
    check(&[
        ("a=`x→y`", "a = `x→y`"),
        ("a=\"x→y\"\nlonger=1", "a      = \"x→y\"\nlonger = 1"),
        ("a=`x  \n→→y\u{c}z→\n  `", "a = `x  \n→→y\u{c}z→\n  `"),
        ("a {\nb=`\nx\n`\n}", "a {\n→b = `\nx\n`\n}"),
    ]);
}

/// Alloy doubles the backslashes of a name in quotes, which is another name.
#[test]
fn quoted_names_stay_as_they_are() {
    check(&[
        (r#"a={"x\ty"=1}"#, r#"a = {"x\ty" = 1}"#),
        (r#"a={""=1}"#, r#"a = {"" = 1}"#),
        ("a={``=1}", "a = {`` = 1}"),
        // Neither can stand between double quotes.
        (r#"a={`x\dy`=1, `x"y`=2}"#, r#"a = {`x\dy` = 1, `x"y` = 2}"#),
    ]);
}

/// Alloy first takes the two lines for a reason to end the alignment, and only when run again sees the one it made.
#[test]
fn what_becomes_one_line_is_aligned_at_once() {
    check(&[
        ("a = 1 +\n2\nlonger = 3", "a      = 1 + 2\nlonger = 3"),
        ("a {\nb = c.\nd\nlonger = 3\n}", "a {\n→b      = c.d\n→longer = 3\n}"),
    ]);
}

/// Alloy guesses where some tokens stand, and a comment may end up where it breaks the text.
#[test]
fn comments_never_break_the_text() {
    check(&[
        ("a = b. // x\nc + 1", "a = b. // x\nc + 1"),
        ("a = f(1, // x\n) + 2", "a = f(1, // x\n) + 2"),
        ("a. // x\nb { }", "a. // x\nb { }"),
    ]);
}

#[test]
fn what_grows_beyond_a_source_is_refused() {
    let long = "x".repeat(MAX_SOURCE_BYTES / 16);
    let aligned = format!("{long} = 1\n{}", "a = 1\n".repeat(100_000));
    assert_eq!(format(&parse(&aligned)), Err(FormatError::TooLarge));
    let deep = format!("{}{}{}", "b {\n".repeat(190), "a = 1\n".repeat(100_000), "}\n".repeat(190));
    assert_eq!(format(&parse(&deep)), Err(FormatError::TooLarge));
}

/// Each would take minutes if any step looked at it again and again.
#[test]
fn cost_grows_with_the_text_only() {
    for text in [
        format!("a = [{}]", "1, ".repeat(200_000)),
        format!("a = [\n{}]", "1, // c\n".repeat(100_000)),
        format!("a = \"{}\"", "x".repeat(1_000_000)),
        format!("a = `{}`", "\tx \n".repeat(200_000)),
        "/* c */".repeat(100_000),
        "// c\n".repeat(100_000),
        format!("a = {}1{}", "[\n".repeat(150), ",\n]".repeat(150)),
        "a = 1 /* c */ /* d */\n".repeat(50_000),
    ] {
        formatted(&text);
    }
}

/// Pieces that make correct files when put together, with odd blanks, line ends and comments between them.
fn files() -> impl Strategy<Value = String> {
    let gap = prop::sample::select(vec![
        "",
        "",
        "",
        " ",
        "\t",
        " /* c */ ",
        "\n",
        "\n\n\n",
        " // d  \n",
        "\n// e\n\n// f\n",
        "/* g\n h */",
        "\r\n",
    ]);
    let inline = prop::sample::select(vec!["", "", " ", "/* i */", " /* j */ /* k */ "]);
    let leaf = prop::sample::select(vec![
        "a",
        "1",
        "2.5",
        "\"s\"",
        "\"t\tu\"",
        "`r`",
        "`v\tw  \n\tx\r\n`",
        "`\n\n`",
        "null",
        "[]",
        "{}",
        "f(\n)",
        "é",
    ]);
    let name =
        prop::sample::select(vec!["b", "longer_name", "\"q\"", "\"x\\ty\"", "\"\"", "`r`", "`r\"s`", "`\n`"]);
    let expression = leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, {
        let (gap, inline) = (gap.clone(), inline.clone());
        move |inner| {
            let piece = (gap.clone(), inner.clone(), inline.clone(), gap.clone());
            let pieces = prop::collection::vec(piece, 1..4);
            let list = |pieces: Vec<(&str, String, &str, &str)>| -> String {
                pieces
                    .iter()
                    .map(|(before, value, after, next)| format!("{before}{value}{after},{next}"))
                    .collect()
            };
            let fields =
                prop::collection::vec((gap.clone(), name.clone(), inner.clone(), inline.clone()), 1..4);
            prop_oneof![
                pieces.clone().prop_map(move |pieces| format!("[{}]", list(pieces))),
                pieces.prop_map(move |pieces| format!("f({})", list(pieces))),
                fields.prop_map(|fields| {
                    let fields = fields.iter().map(|(gap, name, value, inline)| {
                        format!("{gap}{name}{inline}={gap}{value}{inline},{gap}")
                    });
                    format!("{{{}}}", fields.collect::<String>())
                }),
                (inner.clone(), inline.clone(), gap.clone(), inner.clone())
                    .prop_map(|(left, inline, gap, right)| format!("{left}{inline} + {gap}{right}")),
                (inner.clone(), inline.clone(), gap.clone())
                    .prop_map(|(value, inline, gap)| format!("({gap}{value}{inline}).{gap}m")),
                (inner, gap.clone()).prop_map(|(value, gap)| format!("-{gap}x[{gap}{value}]")),
            ]
        }
    });
    let attribute = (gap.clone(), inline.clone(), expression)
        .prop_map(|(gap, inline, value)| format!("n{inline} ={gap}{value}{inline}\n"));
    let statement = attribute.prop_recursive(3, 12, 4, {
        let gap = gap.clone();
        move |inner| {
            (gap.clone(), inline.clone(), prop::collection::vec((inner, gap.clone()), 0..4)).prop_map(
                |(gap, inline, inner)| {
                    let inner: String = inner.into_iter().map(|(inner, gap)| inner + gap).collect();
                    format!("c.{gap}d{inline} \"l\"{inline}{{{gap}{inner}}}{inline}\n")
                },
            )
        }
    });
    prop::collection::vec((gap, statement), 0..5).prop_map(|statements| {
        statements.into_iter().map(|(gap, statement)| gap.to_owned() + &statement).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn every_file_settles_on_the_same_configuration(text in files()) {
        // Not all of them are correct: a comment of two lines may end a statement early.
        let (Some(file), _) = parse_file(Arc::new(Source::new("t", text.as_str()))) else { return Ok(()) };
        let once = settle(&file).unwrap();
        prop_assert!(once.is_some(), "{:?} never settles", text);
        let once = once.unwrap();
        let (again, diagnostics) = parse_file(Arc::new(Source::new("t", once.as_str())));
        prop_assert!(again.is_some(), "{:?} became {:?}: {}", text, once, diagnostics);
        let again = again.unwrap();
        prop_assert!(super::same::same(&file, &again), "{:?} became {:?}", text, once);
        prop_assert_eq!(format(&again).unwrap(), once, "formatted again, from {:?}", text);
    }
}
