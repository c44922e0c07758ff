//! Escape sequences of double-quoted strings.

use std::borrow::Cow;

use super::{LexError, character_name};
use crate::codes;
use crate::span::Span;

/// The value of what stands between double quotes. Offsets in errors count from the start of `body`.
pub(super) fn unescape(body: &str) -> Result<Cow<'_, str>, LexError> {
    let Some(first) = body.find('\\') else { return Ok(Cow::Borrowed(body)) };
    let mut value = String::with_capacity(body.len());
    value.push_str(&body[..first]);
    let mut bytes = ByteRun::default();
    let mut rest = first;
    while let Some(character) = body[rest..].chars().next() {
        if character != '\\' {
            bytes.flush(&mut value, rest)?;
            value.push(character);
            rest += character.len_utf8();
            continue;
        }
        let (unit, end) = escape(body, rest + 1)?;
        match unit {
            Unit::Character(character) => {
                bytes.flush(&mut value, rest)?;
                value.push(character);
            }
            Unit::Byte(byte) => bytes.push(byte, rest),
        }
        rest = end;
    }
    bytes.flush(&mut value, body.len())?;
    Ok(Cow::Owned(value))
}

/// What one escape stands for. Byte escapes may spell one character only together.
enum Unit {
    Character(char),
    Byte(u8),
}

/// Neighbouring byte escapes, which must be UTF-8 together.
#[derive(Default)]
struct ByteRun {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteRun {
    fn push(&mut self, byte: u8, offset: usize) {
        if self.bytes.is_empty() {
            self.start = offset;
        }
        self.bytes.push(byte);
    }

    fn flush(&mut self, value: &mut String, end: usize) -> Result<(), LexError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let text = std::str::from_utf8(&self.bytes).map_err(|_| LexError {
            span: span(self.start, end),
            code: codes::ESCAPE_NOT_UTF8,
            message: "byte escapes do not form valid UTF-8".into(),
        })?;
        value.push_str(text);
        self.bytes.clear();
        Ok(())
    }
}

fn span(start: usize, end: usize) -> Span {
    let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    Span::new(clamp(start), clamp(end))
}

/// Reads the escape whose backslash ends at `start`; gives what it stands for and where it ends.
fn escape(body: &str, start: usize) -> Result<(Unit, usize), LexError> {
    let error = |end: usize, message: Cow<'static, str>| LexError {
        span: span(start, end),
        code: codes::INVALID_ESCAPE,
        message,
    };
    let Some(selector) = body[start..].chars().next() else {
        return Err(error(start, "escape sequence not terminated".into()));
    };
    let simple = |character| Ok((Unit::Character(character), start + 1));
    let (digits_start, count, radix) = match selector {
        'a' => return simple('\u{7}'),
        'b' => return simple('\u{8}'),
        'f' => return simple('\u{c}'),
        'n' => return simple('\n'),
        'r' => return simple('\r'),
        't' => return simple('\t'),
        'v' => return simple('\u{b}'),
        '\\' => return simple('\\'),
        '"' => return simple('"'),
        '0'..='7' => (start, 3, 8),
        'x' => (start + 1, 2, 16),
        'u' => (start + 1, 4, 16),
        'U' => (start + 1, 8, 16),
        _ => return Err(error(start + selector.len_utf8(), "unknown escape sequence".into())),
    };
    let mut code = 0_u32;
    let mut end = digits_start;
    for _ in 0..count {
        let Some(character) = body[end..].chars().next() else {
            return Err(error(end, "illegal character U+0022 '\"' in escape sequence".into()));
        };
        let Some(digit) = character.to_digit(radix) else {
            let message = format!("illegal character {} in escape sequence", character_name(character));
            return Err(error(end + character.len_utf8(), message.into()));
        };
        // At most eight hexadecimal digits: never overflows.
        code = code * radix + digit;
        end += 1;
    }
    let invalid = || error(end, "escape sequence is invalid Unicode code point".into());
    let unit = if matches!(selector, 'u' | 'U') {
        Unit::Character(char::from_u32(code).ok_or_else(invalid)?)
    } else {
        Unit::Byte(u8::try_from(code).map_err(|_| invalid())?)
    };
    Ok((unit, end))
}
