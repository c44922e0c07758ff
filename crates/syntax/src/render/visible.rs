//! Text made safe and measurable for a terminal: no control sequences, no invisible reordering, known widths.

use std::borrow::Cow;

/// How many columns a tab takes.
const TAB: &str = "    ";

/// The text with everything that would move the cursor, change colours or reorder the line replaced by a sign for it.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().all(|character| shown(character).is_none()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match shown(character) {
            Some(Shown::Text(text)) => out.push_str(text),
            Some(Shown::Character(character)) => out.push(character),
            None => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Columns that [`visible`] text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars()
        .map(|character| match shown(character) {
            Some(Shown::Text(text)) => text.len(),
            Some(Shown::Character(_)) => 1,
            None => columns(character),
        })
        .sum()
}

enum Shown {
    Text(&'static str),
    Character(char),
}

/// What to print in a character's place, if not itself.
fn shown(character: char) -> Option<Shown> {
    let code = u32::from(character);
    match character {
        '\t' => Some(Shown::Text(TAB)),
        '\r' | '\u{feff}' => Some(Shown::Text("")),
        // Unicode has a picture for each control character of ASCII.
        '\0'..='\u{1f}' => Some(Shown::Character(char::from_u32(0x2400 + code).unwrap_or('\u{fffd}'))),
        '\u{7f}' => Some(Shown::Character('\u{2421}')),
        '\u{80}'..='\u{9f}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(Shown::Character('\u{fffd}'))
        }
        _ => None,
    }
}

/// Columns of a character that is printed as it is; the wide ranges are those of East Asian scripts and emoji.
fn columns(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
