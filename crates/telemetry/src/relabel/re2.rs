//! RE2 syntax, as Go reads it, in terms of the `regex` crate.
//!
//! The two agree on most of it. What differs is translated: `\d`, `\w`, `\s` and `\b` are ASCII, `\Q…\E` quotes, `\12` is octal, `\<` is
//! a character, `{` that begins no repetition is itself, and classes know no set operations. What only the `regex` crate has (verbose
//! mode, doubled repetition operators, repetitions above 1000) is refused.

use std::iter::Peekable;
use std::str::Chars;

/// More repetitions than this are refused.
const REPETITION_LIMIT: u32 = 1000;

/// Translates an expression. Errors that both syntaxes share are left for the `regex` crate to find.
pub(super) fn translate(expression: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: expression.chars().peekable(),
        out: String::with_capacity(expression.len()),
        repeated: false,
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'e> {
    rest: Peekable<Chars<'e>>,
    out: String,
    /// Whether the last thing was a repetition operator.
    repeated: bool,
}

/// One member of a character class, or a class in itself.
enum ClassItem {
    Character(char),
    Class(String),
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(character) = self.rest.next() {
            let was_repeated = std::mem::take(&mut self.repeated);
            match character {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '*' | '+' | '?' => self.repetition(character.to_string(), was_repeated)?,
                '{' => match self.counted_repetition()? {
                    Some(operator) => self.repetition(operator, was_repeated)?,
                    None => self.out.push_str("\\{"),
                },
                '}' => self.out.push_str("\\}"),
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    fn repetition(&mut self, operator: String, was_repeated: bool) -> Result<(), String> {
        if was_repeated {
            return Err(format!("a repetition operator follows another: {operator:?}"));
        }
        self.out.push_str(&operator);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.repeated = true;
        Ok(())
    }

    /// What follows `{`, if it counts: `n}`, `n,}` or `n,m}`.
    fn counted_repetition(&mut self) -> Result<Option<String>, String> {
        let text: String = self.rest.clone().take_while(|&c| c != '}').take(32).collect();
        let (least, most) = text.split_once(',').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
        let is_number = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let counts = is_number(least)
            && most.is_none_or(|most| most.is_empty() || is_number(most))
            && self.rest.clone().nth(text.len()) == Some('}');
        if !counts {
            return Ok(None);
        }
        for number in [least, most.unwrap_or_default()] {
            if !number.is_empty() && number.parse::<u32>().map_or(true, |number| number > REPETITION_LIMIT) {
                return Err(format!("a repetition of more than {REPETITION_LIMIT}: {{{text}}}"));
            }
        }
        for _ in 0..=text.len() {
            self.rest.next();
        }
        Ok(Some(format!("{{{text}}}")))
    }

    /// What follows `(`: flags are checked, the rest stays.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.peek() == Some(&'?') {
            let head: String =
                self.rest.clone().skip(1).take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect();
            let named = head == "P" && self.rest.clone().nth(2) == Some('<');
            if !named && let Some(flag) = head.chars().find(|flag| !"imsU-".contains(*flag)) {
                return Err(format!("unknown flag {flag:?}"));
            }
            self.rest.next();
            self.out.push('?');
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(&next) = self.rest.peek() else { return Err("trailing backslash".to_owned()) };
        match next {
            'Q' => {
                self.rest.next();
                while let Some(character) = self.rest.next() {
                    if character == '\\' && self.rest.peek() == Some(&'E') {
                        self.rest.next();
                        break;
                    }
                    push_literal(&mut self.out, character);
                }
            }
            'E' => {
                // The end of a quotation that was not begun.
                return Err("\\E without \\Q".to_owned());
            }
            'b' | 'B' => {
                self.rest.next();
                self.out.push_str(if next == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
            }
            'A' | 'z' => {
                self.rest.next();
                self.out.push('\\');
                self.out.push(next);
            }
            _ => match self.escaped_item()? {
                ClassItem::Character(character) => push_literal(&mut self.out, character),
                ClassItem::Class(class) => self.out.push_str(&class),
            },
        }
        Ok(())
    }

    /// What follows a backslash, inside or outside of a class.
    fn escaped_item(&mut self) -> Result<ClassItem, String> {
        let Some(next) = self.rest.next() else { return Err("trailing backslash".to_owned()) };
        let class = match next {
            'd' => "[0-9]".to_owned(),
            'D' => "[^0-9]".to_owned(),
            'w' => "[0-9A-Za-z_]".to_owned(),
            'W' => "[^0-9A-Za-z_]".to_owned(),
            's' => "[\\t\\n\\x0C\\r ]".to_owned(),
            'S' => "[^\\t\\n\\x0C\\r ]".to_owned(),
            'p' | 'P' => self.unicode_class(next)?,
            _ => return self.escaped_character(next).map(ClassItem::Character),
        };
        Ok(ClassItem::Class(class))
    }

    fn unicode_class(&mut self, kind: char) -> Result<String, String> {
        match self.rest.next() {
            Some('{') => {
                let name: String = self.rest.by_ref().take_while(|&c| c != '}').collect();
                Ok(format!("\\{kind}{{{name}}}"))
            }
            Some(letter) if letter.is_ascii_alphabetic() => Ok(format!("\\{kind}{letter}")),
            _ => Err(format!("\\{kind} without a class")),
        }
    }

    fn escaped_character(&mut self, next: char) -> Result<char, String> {
        Ok(match next {
            'a' => '\x07',
            'f' => '\x0c',
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'v' => '\x0b',
            'x' => return self.hexadecimal(),
            '0'..='7' => {
                if next != '0' && !self.rest.peek().is_some_and(|c| ('0'..='7').contains(c)) {
                    return Err("back-references are not supported".to_owned());
                }
                let mut code = next as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c)) else { break };
                    code = code * 8 + (digit as u32 - '0' as u32);
                }
                char::from_u32(code).ok_or_else(|| "octal escape out of range".to_owned())?
            }
            other if other.is_ascii_alphanumeric() => return Err(format!("unknown escape \\{other}")),
            other if other.is_ascii() => other,
            other => return Err(format!("unknown escape \\{other}")),
        })
    }

    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits: String = if self.rest.next_if_eq(&'{').is_some() {
            self.rest.by_ref().take_while(|&c| c != '}').collect()
        } else {
            self.rest.by_ref().take(2).collect()
        };
        if digits.len() < 2 && digits.is_empty() {
            return Err("\\x without digits".to_owned());
        }
        u32::from_str_radix(&digits, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(|| format!("\\x{{{digits}}} is no character"))
    }

    /// What follows `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(character) = self.rest.next() else { return Err("missing closing ]".to_owned()) };
            if character == ']' && !first {
                break;
            }
            first = false;
            if character == '['
                && self.rest.peek() == Some(&':')
                && let Some(class) = self.named_class()?
            {
                self.out.push_str(&class);
                continue;
            }
            let low = match self.class_item(character)? {
                ClassItem::Character(low) => low,
                ClassItem::Class(class) => {
                    self.out.push_str(&class);
                    continue;
                }
            };
            push_literal(&mut self.out, low);
            let mut ahead = self.rest.clone();
            if ahead.next() == Some('-') && ahead.peek().is_some_and(|&after| after != ']') {
                self.rest.next();
                let Some(end) = self.rest.next() else { return Err("missing closing ]".to_owned()) };
                let ClassItem::Character(high) = self.class_item(end)? else {
                    return Err("a range ends in a class".to_owned());
                };
                if high < low {
                    return Err(format!("the range {low:?} to {high:?} is empty"));
                }
                self.out.push('-');
                push_literal(&mut self.out, high);
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn class_item(&mut self, character: char) -> Result<ClassItem, String> {
        if character == '\\' { self.escaped_item() } else { Ok(ClassItem::Character(character)) }
    }

    /// `[:name:]` behind its opening bracket, if it is one.
    fn named_class(&mut self) -> Result<Option<String>, String> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        let text: String = self.rest.clone().skip(1).take(16).collect();
        let Some((name, _)) = text.split_once(":]") else { return Ok(None) };
        if !NAMES.contains(&name.trim_start_matches('^')) {
            return Err(format!("unknown class [:{name}:]"));
        }
        for _ in 0..name.len() + 3 {
            self.rest.next();
        }
        Ok(Some(format!("[:{name}:]")))
    }
}

fn push_literal(out: &mut String, character: char) {
    if character.is_ascii_alphanumeric() || !character.is_ascii() {
        out.push(character);
    } else {
        out.push_str(&format!("\\x{:02X}", character as u32));
    }
}
