//! Any text that parses: its canonical form is the same configuration, with the same comments, and is its own canonical
//! form. The comparison is of tokens, so that it does not share the formatter's own idea of what is the same.
#![no_main]

use std::sync::Arc;

use invar_syntax::lexer::{TokenKind, lex};
use invar_syntax::{File, Source, format, parse_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(file) = parse(text) else { return };
    let Ok(once) = format(&file) else { return };
    let Some(again) = parse(&once) else { panic!("{text:?} became {once:?}, which is no configuration") };
    assert_eq!(tokens(text), tokens(&once));
    assert_eq!(format(&again).as_deref(), Ok(&*once));
});

fn parse(text: &str) -> Option<File> {
    parse_file(Arc::new(Source::new("fuzz", text))).0
}

/// Tokens, then comments. Left out is what a formatter may add or drop: line ends, the comma behind a last element,
/// the quotes of names, and labels without content.
fn tokens(text: &str) -> Vec<String> {
    let lexed = lex(text);
    let slice = |start: u32, end: u32| text[start as usize..end as usize].to_owned();
    let mut tokens = Vec::new();
    for (index, token) in lexed.tokens.iter().enumerate() {
        let next = lexed.tokens[index + 1..].iter().find(|next| next.kind != TokenKind::Terminator);
        let next = next.map_or(TokenKind::EndOfFile, |next| next.kind);
        let written = slice(token.span.start, token.span.end);
        match token.kind {
            TokenKind::Terminator => {}
            TokenKind::Comma
                if matches!(
                    next,
                    TokenKind::CloseBrace | TokenKind::CloseBracket | TokenKind::CloseParen
                ) => {}
            TokenKind::String if next == TokenKind::OpenBrace && written == "\"\"" => {}
            TokenKind::String if next == TokenKind::Assign => {
                tokens.push(written[1..written.len() - 1].to_owned());
            }
            _ => tokens.push(written),
        }
    }
    let comments = lexed.comments.iter();
    tokens.extend(comments.map(|comment| slice(comment.span.start, comment.span.end).replace('\r', "")));
    tokens
}
