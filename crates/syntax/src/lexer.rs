//! Text to tokens: the lexical grammar, automatic terminators included. Never fails; what is wrong with the text is
//! listed beside the tokens, which always end in [`TokenKind::EndOfFile`].

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::ast::{Comment, CommentKind};
use crate::codes;
use crate::span::Span;
pub use crate::token::{Token, TokenKind};

mod escape;

/// What the lexer makes of a text.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lexed {
    /// The tokens, the last of which is the end of the file.
    pub tokens: Vec<Token>,
    /// The comments, in order.
    pub comments: Vec<Comment>,
    /// What is wrong, at most one a line, in order.
    pub errors: Vec<LexError>,
    /// Whether a string or comment swallowed the rest of the text for want of its end.
    pub unterminated: bool,
}

/// Text that breaks a lexical rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LexError {
    /// Where.
    pub span: Span,
    /// One of [`codes`].
    pub code: &'static str,
    /// What is wrong.
    pub message: Cow<'static, str>,
}

/// Splits a text into tokens. Texts longer than `u32::MAX` bytes must be refused before.
#[must_use]
pub fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        offset: 0,
        pending: false,
        new_line: true,
        error_line_end: 0,
        out: Lexed::default(),
    };
    // A guess from ordinary configurations, to spare most reallocations.
    lexer.out.tokens.reserve(text.len() / 6 + 2);
    if text.starts_with(BYTE_ORDER_MARK) {
        lexer.offset = BYTE_ORDER_MARK.len_utf8();
    }
    lexer.run();
    lexer.report_forbidden_characters();
    lexer.out
}

/// Whether a text is one identifier and no keyword.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(is_identifier_start)
        && characters.all(is_identifier_continue)
        && keyword(text).is_none()
}

/// The value of a double-quoted string, given what stands between the quotes.
///
/// # Errors
/// The first escape that is wrong, with its offsets in `body`.
pub fn unescape(body: &str) -> Result<Cow<'_, str>, LexError> {
    escape::unescape(body)
}

const BYTE_ORDER_MARK: char = '\u{feff}';

static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}$").ok());
static DECIMAL_DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Nd}$").ok());

/// General category L or Nd: narrower than `char::is_alphabetic` and `char::is_numeric`.
fn in_class(class: &LazyLock<Option<Regex>>, character: char) -> bool {
    class.as_ref().is_some_and(|class| class.is_match(character.encode_utf8(&mut [0; 4])))
}

fn is_identifier_start(character: char) -> bool {
    character == '_'
        || character.is_ascii_alphabetic()
        || (!character.is_ascii() && in_class(&LETTER, character))
}

fn is_identifier_continue(character: char) -> bool {
    character.is_ascii_digit()
        || is_identifier_start(character)
        || (!character.is_ascii() && in_class(&DECIMAL_DIGIT, character))
}

fn keyword(text: &str) -> Option<TokenKind> {
    match text {
        "true" | "false" => Some(TokenKind::Bool),
        "null" => Some(TokenKind::Null),
        _ => None,
    }
}

/// `U+003B ';'`, the quoted form only where the character shows.
fn character_name(character: char) -> String {
    let code = u32::from(character);
    let invisible = character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(code, 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb)
        || matches!(code, 0xe000..=0xf8ff | 0xf0000..);
    if invisible { format!("U+{code:04X}") } else { format!("U+{code:04X} '{character}'") }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    offset: usize,
    /// Whether a line break here would end a statement.
    pending: bool,
    /// Whether a line break stands before the next token.
    new_line: bool,
    /// Where the line of the latest error ends.
    error_line_end: usize,
    out: Lexed,
}

impl Lexer<'_> {
    fn run(&mut self) {
        loop {
            self.skip_blanks();
            let start = self.offset;
            let Some(byte) = self.peek() else { break };
            match byte {
                // Reached only while a terminator is pending: otherwise line breaks are blanks.
                b'\n' => {
                    self.offset += 1;
                    self.terminate(start, self.offset);
                    self.new_line = true;
                }
                b'/' if matches!(self.peek_at(1), Some(b'/' | b'*')) => {
                    if self.pending && self.comment_ends_line() {
                        self.terminate(start, start);
                    }
                    self.comment();
                    self.pending = false;
                }
                _ => {
                    let kind = self.token(byte);
                    self.push(kind, start);
                    if kind != TokenKind::Illegal {
                        self.pending = kind.ends_statement();
                    }
                }
            }
        }
        if self.pending {
            self.terminate(self.offset, self.offset);
        }
        self.push(TokenKind::EndOfFile, self.offset);
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.offset).copied()
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.offset + ahead).copied()
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Span::new(clamp(start), clamp(end))
    }

    fn push(&mut self, kind: TokenKind, start: usize) {
        let token = Token { kind, span: self.span(start, self.offset), on_new_line: self.new_line };
        self.out.tokens.push(token);
        self.new_line = false;
    }

    fn terminate(&mut self, start: usize, end: usize) {
        let token = Token { kind: TokenKind::Terminator, span: self.span(start, end), on_new_line: false };
        self.out.tokens.push(token);
        self.pending = false;
    }

    fn error(&mut self, start: usize, end: usize, code: &'static str, message: impl Into<Cow<'static, str>>) {
        // One a line is enough, and bounds the list by the number of lines.
        let same_line = start < self.error_line_end;
        if !same_line {
            let span = self.span(start, end);
            self.out.errors.push(LexError { span, code, message: message.into() });
            let rest = &self.bytes[start.min(self.bytes.len())..];
            let line_end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            self.error_line_end = start + line_end + 1;
        }
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => {}
                b'\n' if !self.pending => self.new_line = true,
                _ => return,
            }
            self.offset += 1;
        }
    }

    /// Whether nothing but comments and blanks stands between here, the start of a comment, and the end of the line.
    fn comment_ends_line(&self) -> bool {
        let mut rest = &self.bytes[self.offset..];
        loop {
            match rest {
                [b'/', b'/', ..] | [] | [b'\n', ..] => return true,
                [b'/', b'*', inside @ ..] => {
                    let end = inside.windows(2).position(|pair| pair == b"*/");
                    let body = &inside[..end.unwrap_or(inside.len())];
                    if body.contains(&b'\n') {
                        return true;
                    }
                    rest = end.map_or(&[], |end| &inside[end + 2..]);
                    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
                    rest = &rest[blanks..];
                }
                _ => return false,
            }
        }
    }

    fn comment(&mut self) {
        let start = self.offset;
        let rest = &self.bytes[start + 2..];
        let kind = if self.bytes[start + 1] == b'/' { CommentKind::Line } else { CommentKind::Block };
        self.offset = match kind {
            CommentKind::Line => {
                let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                let carriage_return = usize::from(rest[..end].last() == Some(&b'\r'));
                start + 2 + end - carriage_return
            }
            CommentKind::Block => {
                let end = rest.windows(2).position(|pair| pair == b"*/");
                if end.is_none() {
                    self.error(start, start + 2, codes::UNTERMINATED_COMMENT, "block comment not terminated");
                    self.out.unterminated = true;
                }
                end.map_or(self.bytes.len(), |end| start + 2 + end + 2)
            }
        };
        self.new_line |= self.bytes[start..self.offset].contains(&b'\n');
        let span = self.span(start, self.offset);
        self.out.comments.push(Comment { span, kind });
    }

    /// Consumes one token, at whose first byte the lexer stands.
    fn token(&mut self, byte: u8) -> TokenKind {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.identifier(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek_at(1).is_some_and(|next| next.is_ascii_digit()) => self.number(),
            b'"' => self.quoted_string(),
            b'`' => self.raw_string(),
            b'\'' => self.single_quoted_string(),
            b'|' => self.double(b'|', TokenKind::Or, "missing second | in ||"),
            b'&' => self.double(b'&', TokenKind::And, "missing second & in &&"),
            b'!' => self.with_equals(TokenKind::Not, TokenKind::NotEqual),
            b'=' => self.with_equals(TokenKind::Assign, TokenKind::Equal),
            b'<' => self.with_equals(TokenKind::Less, TokenKind::LessOrEqual),
            b'>' => self.with_equals(TokenKind::Greater, TokenKind::GreaterOrEqual),
            b'+' => self.single(TokenKind::Plus),
            b'-' => self.single(TokenKind::Minus),
            b'*' => self.single(TokenKind::Star),
            b'/' => self.single(TokenKind::Slash),
            b'%' => self.single(TokenKind::Percent),
            b'^' => self.single(TokenKind::Caret),
            b'{' => self.single(TokenKind::OpenBrace),
            b'}' => self.single(TokenKind::CloseBrace),
            b'(' => self.single(TokenKind::OpenParen),
            b')' => self.single(TokenKind::CloseParen),
            b'[' => self.single(TokenKind::OpenBracket),
            b']' => self.single(TokenKind::CloseBracket),
            b',' => self.single(TokenKind::Comma),
            b'.' => self.single(TokenKind::Dot),
            _ => self.other(),
        }
    }

    fn single(&mut self, kind: TokenKind) -> TokenKind {
        self.offset += 1;
        kind
    }

    fn with_equals(&mut self, alone: TokenKind, with_equals: TokenKind) -> TokenKind {
        self.offset += 1;
        if self.peek() == Some(b'=') { self.single(with_equals) } else { alone }
    }

    fn double(&mut self, second: u8, kind: TokenKind, message: &'static str) -> TokenKind {
        self.offset += 1;
        if self.peek() == Some(second) {
            return self.single(kind);
        }
        self.error(self.offset, self.offset, codes::HALF_OPERATOR, message);
        kind
    }

    fn identifier(&mut self) -> TokenKind {
        let start = self.offset;
        while self.peek().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
            self.offset += 1;
        }
        if self.peek().is_some_and(|byte| !byte.is_ascii()) {
            let rest = &self.text[self.offset..];
            self.offset += rest.find(|character| !is_identifier_continue(character)).unwrap_or(rest.len());
        }
        keyword(&self.text[start..self.offset]).unwrap_or(TokenKind::Identifier)
    }

    fn other(&mut self) -> TokenKind {
        let start = self.offset;
        // The lexer only ever stops between characters, so there is one.
        let Some(character) = self.text[start..].chars().next() else { return TokenKind::EndOfFile };
        if is_identifier_start(character) {
            return self.identifier();
        }
        self.offset += character.len_utf8();
        // Reported with all others of their kind, inside strings and comments too.
        if character != BYTE_ORDER_MARK && character != '\0' {
            let message = format!("illegal character {}", character_name(character));
            self.error(start, self.offset, codes::ILLEGAL_CHARACTER, message);
        }
        TokenKind::Illegal
    }

    fn digits(&mut self) -> usize {
        let start = self.offset;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.offset += 1;
        }
        self.offset - start
    }

    fn number(&mut self) -> TokenKind {
        let start = self.offset;
        let mut kind = TokenKind::Number;
        self.digits();
        if self.peek() == Some(b'.') {
            kind = TokenKind::Float;
            self.offset += 1;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            kind = TokenKind::Float;
            self.offset += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.offset += 1;
            }
            if self.digits() == 0 {
                self.error(start, self.offset, codes::MISSING_EXPONENT, "exponent has no digits");
            }
        }
        kind
    }

    /// Moves past the closing quote, or to the end of the line without one. Says whether there was one.
    fn skip_quoted(&mut self, quote: u8) -> bool {
        self.offset += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => return false,
                b'\\' if self.peek_at(1).is_some_and(|next| next != b'\n') => self.offset += 2,
                _ => self.offset += 1,
            }
            if byte == quote {
                return true;
            }
        }
        false
    }

    fn quoted_string(&mut self) -> TokenKind {
        let start = self.offset;
        let closed = self.skip_quoted(b'"');
        // A backslash may have stepped into the middle of a character.
        while !self.text.is_char_boundary(self.offset) {
            self.offset += 1;
        }
        let body = start + 1..self.offset - usize::from(closed);
        if !closed {
            let message = "string literal not terminated";
            self.error(start, self.offset, codes::UNTERMINATED_STRING, message);
        } else if let Err(mut error) = unescape(&self.text[body.clone()]) {
            let within = |offset: u32| body.start + offset as usize;
            let (start, end) = (within(error.span.start), within(error.span.end));
            self.error(start, end, error.code, std::mem::take(&mut error.message));
        }
        TokenKind::String
    }

    fn raw_string(&mut self) -> TokenKind {
        let start = self.offset;
        let rest = &self.bytes[start + 1..];
        match rest.iter().position(|&byte| byte == b'`') {
            Some(end) => self.offset = start + 1 + end + 1,
            None => {
                self.offset = self.bytes.len();
                self.error(start, start + 1, codes::UNTERMINATED_STRING, "string literal not terminated");
                self.out.unterminated = true;
            }
        }
        TokenKind::String
    }

    fn single_quoted_string(&mut self) -> TokenKind {
        let start = self.offset;
        self.skip_quoted(b'\'');
        while !self.text.is_char_boundary(self.offset) {
            self.offset += 1;
        }
        let message = "illegal single-quoted string; use double quotes";
        self.error(start, self.offset, codes::SINGLE_QUOTED_STRING, message);
        // A string in all but its quotes: the line may end after it.
        self.pending = true;
        TokenKind::Illegal
    }

    /// NUL and byte order marks are allowed nowhere, not even in strings and comments.
    fn report_forbidden_characters(&mut self) {
        let first = BYTE_ORDER_MARK.len_utf8() * usize::from(self.text.starts_with(BYTE_ORDER_MARK));
        let mut found = self.take_errors();
        for (offset, _) in self.bytes.iter().enumerate().filter(|&(_, &byte)| byte == 0) {
            self.error(offset, offset + 1, codes::ILLEGAL_CHARACTER, "illegal character NUL");
        }
        found.append(&mut self.take_errors());
        for (offset, mark) in self.text[first..].match_indices(BYTE_ORDER_MARK) {
            let start = first + offset;
            self.error(start, start + mark.len(), codes::ILLEGAL_CHARACTER, "illegal byte order mark");
        }
        found.append(&mut self.take_errors());
        found.sort_by_key(|error| error.span.start);
        for error in found {
            let (start, end) = (error.span.start as usize, error.span.end as usize);
            self.error(start, end, error.code, error.message);
        }
    }

    fn take_errors(&mut self) -> Vec<LexError> {
        self.error_line_end = 0;
        std::mem::take(&mut self.out.errors)
    }
}

#[cfg(test)]
mod tests;
