#![allow(clippy::unwrap_used)]

use super::{Lexed, TokenKind, is_identifier, lex, unescape};
use crate::source::Source;

/// `kind:text` of every token but the last.
fn tokens(text: &str) -> Vec<String> {
    let Lexed { tokens, errors, .. } = lex(text);
    assert!(errors.is_empty(), "{text:?}: {errors:?}");
    shown(text, &tokens)
}

fn shown(text: &str, tokens: &[super::Token]) -> Vec<String> {
    assert_eq!(tokens.last().unwrap().kind, TokenKind::EndOfFile);
    tokens[..tokens.len() - 1]
        .iter()
        .map(|token| {
            let written = &text[token.span.start as usize..token.span.end as usize];
            if token.kind == TokenKind::Terminator {
                format!("TERMINATOR@{}", token.span.start)
            } else if token.kind.as_str() == written {
                written.to_owned()
            } else {
                format!("{}:{written}", token.kind)
            }
        })
        .collect()
}

/// `line:column message` of every error.
fn errors(text: &str) -> Vec<String> {
    let source = Source::new("t", text);
    lex(text)
        .errors
        .into_iter()
        .map(|error| {
            let position = source.position(error.span.start);
            format!("{}:{} {}", position.line, position.column, error.message)
        })
        .collect()
}

#[test]
fn every_kind_of_token() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("name", &["IDENT:name", "TERMINATOR@4"]),
        (
            "_x9 true false null truer",
            &["IDENT:_x9", "BOOL:true", "BOOL:false", "NULL:null", "IDENT:truer", "TERMINATOR@25"],
        ),
        ("ŝfoo foo६४", &["IDENT:ŝfoo", "IDENT:foo६४", "TERMINATOR@15"]),
        (
            "0 010 123456789012345678890",
            &["NUMBER:0", "NUMBER:010", "NUMBER:123456789012345678890", "TERMINATOR@27"],
        ),
        (
            "0. .0 3.14 1e0 1E+10 2.5e-3 .5e1",
            &[
                "FLOAT:0.",
                "FLOAT:.0",
                "FLOAT:3.14",
                "FLOAT:1e0",
                "FLOAT:1E+10",
                "FLOAT:2.5e-3",
                "FLOAT:.5e1",
                "TERMINATOR@32",
            ],
        ),
        // No hexadecimal numbers: a number and a name.
        ("0x10", &["NUMBER:0", "IDENT:x10", "TERMINATOR@4"]),
        (r#""a\"b" `c\`"#, &[r#"STRING:"a\"b""#, r"STRING:`c\`", "TERMINATOR@11"]),
        (
            "|| && ! = == != < <= > >= + - * / % ^ {",
            &["||", "&&", "!", "=", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "^", "{"],
        ),
        ("( [ , . ..", &["(", "[", ",", ".", ".", "."]),
        ("a-b", &["IDENT:a", "-", "IDENT:b", "TERMINATOR@3"]),
        // A byte order mark is skipped at the start.
        ("\u{feff}a", &["IDENT:a", "TERMINATOR@4"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&tokens(text), expected, "{text:?}");
    }
}

#[test]
fn line_breaks_end_statements_only_after_values_and_closing_brackets() {
    for last in ["a", "null", "true", "1", "1.", "\"s\"", "`r`", "}", ")", "]"] {
        let text = format!("{last}\n\n+");
        let expected = format!("TERMINATOR@{}", last.len());
        assert_eq!(shown(&text, &lex(&text).tokens)[1], expected, "{last}");
    }
    for last in ["{", "(", "[", ",", ".", "=", "+", "!", "||"] {
        let text = format!("{last}\n");
        assert_eq!(tokens(&text), [last], "{last}");
    }
    // Carriage returns are blanks.
    assert_eq!(tokens("a\r\nb\r\n"), ["IDENT:a", "TERMINATOR@2", "IDENT:b", "TERMINATOR@5"]);
}

#[test]
fn a_comment_that_reaches_the_line_end_is_preceded_by_the_terminator() {
    let cases: &[(&str, &[&str])] = &[
        ("a // c\nb", &["IDENT:a", "TERMINATOR@2", "IDENT:b", "TERMINATOR@8"]),
        ("a // c", &["IDENT:a", "TERMINATOR@2"]),
        ("a /* c */\nb", &["IDENT:a", "TERMINATOR@2", "IDENT:b", "TERMINATOR@11"]),
        ("a /* c */ /* d */ \r\nb", &["IDENT:a", "TERMINATOR@2", "IDENT:b", "TERMINATOR@21"]),
        ("a /* c */ // d", &["IDENT:a", "TERMINATOR@2"]),
        ("a /* c\n */ b", &["IDENT:a", "TERMINATOR@2", "IDENT:b", "TERMINATOR@12"]),
        ("a /* c */ b", &["IDENT:a", "IDENT:b", "TERMINATOR@11"]),
        ("a /* c */ / b", &["IDENT:a", "/", "IDENT:b", "TERMINATOR@13"]),
        ("a /* c */", &["IDENT:a", "TERMINATOR@2"]),
        ("= /* c */\nb", &["=", "IDENT:b", "TERMINATOR@11"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&tokens(text), expected, "{text:?}");
    }
}

#[test]
fn comments_are_listed_without_their_line_end() {
    let text = "// one\r\na /* two\n*/ = 1 // three";
    let comments: Vec<&str> =
        lex(text).comments.iter().map(|c| &text[c.span.start as usize..c.span.end as usize]).collect();
    assert_eq!(comments, ["// one", "/* two\n*/", "// three"]);
}

#[test]
fn tokens_know_whether_they_begin_a_line() {
    let flags: Vec<bool> = lex("a b\n c /* \n */ d").tokens.iter().map(|token| token.on_new_line).collect();
    // a, b, terminator, c, terminator (before the comment), d, terminator, end
    assert_eq!(flags, [true, false, false, true, false, true, false, false]);
}

#[test]
fn errors_stand_where_the_language_says() {
    let cases: &[(&str, &[&str])] = &[
        ("\u{7}", &["1:1 illegal character U+0007"]),
        ("…", &["1:1 illegal character U+2026 '…'"]),
        ("a = 1;", &["1:6 illegal character U+003B ';'"]),
        ("a = 1; b = 2;\n#", &["1:6 illegal character U+003B ';'", "2:1 illegal character U+0023 '#'"]),
        ("x = 'text'", &["1:5 illegal single-quoted string; use double quotes"]),
        ("x = \"abc", &["1:5 string literal not terminated"]),
        ("x = \"abc\ny", &["1:5 string literal not terminated"]),
        ("x = \"abc\\", &["1:5 string literal not terminated"]),
        ("x = \"abc\\ü", &["1:5 string literal not terminated"]),
        ("\nx = `abc\n", &["2:5 string literal not terminated"]),
        ("/* abc", &["1:1 block comment not terminated"]),
        ("/*/", &["1:1 block comment not terminated"]),
        ("\"abc\0def\"", &["1:5 illegal character NUL"]),
        ("abc\0", &["1:4 illegal character NUL"]),
        ("\u{feff}\u{feff}", &["1:4 illegal byte order mark"]),
        ("//\u{feff}", &["1:3 illegal byte order mark"]),
        ("10E", &["1:1 exponent has no digits"]),
        ("a = 1e+", &["1:5 exponent has no digits"]),
        ("a | b", &["1:4 missing second | in ||"]),
        ("a & b", &["1:4 missing second & in &&"]),
        (r#""\q""#, &["1:3 unknown escape sequence"]),
        (r#""\'""#, &["1:3 unknown escape sequence"]),
        (r#""\xg0""#, &["1:3 illegal character U+0067 'g' in escape sequence"]),
        (r#""\x""#, &["1:3 illegal character U+0022 '\"' in escape sequence"]),
        (r#""\08""#, &["1:3 illegal character U+0038 '8' in escape sequence"]),
        (r#""\400""#, &["1:3 escape sequence is invalid Unicode code point"]),
        (r#""\ud800""#, &["1:3 escape sequence is invalid Unicode code point"]),
        (r#""\U00110000""#, &["1:3 escape sequence is invalid Unicode code point"]),
        (r#""a\xffb""#, &["1:3 byte escapes do not form valid UTF-8"]),
        (r#""\xc3é""#, &["1:2 byte escapes do not form valid UTF-8"]),
    ];
    for (text, expected) in cases {
        assert_eq!(&errors(text), expected, "{text:?}");
    }
}

#[test]
fn escapes_have_their_values() {
    let cases = [
        ("", ""),
        ("plain é", "plain é"),
        (r"\a\b\f\n\r\t\v\\\u0022", "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\""),
        (r#"\""#, "\""),
        (r"\101\x42\u0043\U00000044", "ABCD"),
        (r"\000", "\0"),
        // Byte escapes may spell one character together, whichever way they are written.
        (r"\xc3\xa9 \303\251 \xc3\251", "é é é"),
        (r"\U0001F600", "😀"),
    ];
    for (body, value) in cases {
        assert_eq!(unescape(body).unwrap(), value, "{body}");
    }
}

#[test]
fn identifiers_are_letters_digits_and_underscores() {
    for text in ["a", "_", "a1", "Größe", "ŝ", "a۰۱", "nullable"] {
        assert!(is_identifier(text), "{text}");
    }
    // Ⅷ and ² count as letter and digit elsewhere, not in this language.
    for text in
        ["", "1a", "a-b", "a b", "a.b", "true", "false", "null", "<LABEL>", "Ⅷ", "a²", "\u{feff}a", "a\n"]
    {
        assert!(!is_identifier(text), "{text}");
    }
}
