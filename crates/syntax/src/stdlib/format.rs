//! `string.format`: the verbs of Go's `Sprintf`. It never fails on a mismatch; the mismatch shows in the text, as in
//! `%!d(string=x)`.

use super::{Outcome, go_float, text_argument};
use crate::function::FunctionError;
use crate::number::Number;
use crate::secret::OptionalSecret;
use crate::value::Value;

/// Largest width or precision; a larger one is a mistake and shows as such.
const MAX_WIDTH: usize = 1_000_000;
/// Longest text the function makes.
const MAX_LENGTH: usize = 16 * 1024 * 1024;

pub(super) fn function(arguments: &[Value]) -> Outcome {
    let pattern = text_argument(arguments, 0)?;
    let values = arguments.get(1..).unwrap_or_default();
    for (index, value) in values.iter().enumerate() {
        check_printable(value).map_err(|message| FunctionError::argument(index + 1, message))?;
    }
    let mut printer = Printer { out: String::new(), values, next: 0, reordered: false };
    printer.print(&pattern)?;
    Ok(Value::string(printer.out))
}

fn check_printable(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(check_printable),
        Value::Object(object) => object.values().try_for_each(check_printable),
        Value::Capsule(capsule) => match capsule.to_object() {
            Some(object) => object.values().try_for_each(check_printable),
            None => Err(format!("is or holds a {}, which has no text", value.describe())),
        },
        Value::Function(_) | Value::Unknown(_) | Value::Secret(_) | Value::LiveSecret(_) => {
            Err(format!("is a {}", value.describe()))
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Flags {
    /// With `%+v` the plus asks for names of fields, which there are none of; it is no sign.
    fn without_plus(self, verb: char) -> Self {
        Self { plus: self.plus && verb != 'v', ..self }
    }
}

struct Printer<'a> {
    out: String,
    values: &'a [Value],
    next: usize,
    reordered: bool,
}

impl Printer<'_> {
    fn print(&mut self, pattern: &str) -> Result<(), FunctionError> {
        let mut rest = pattern;
        while let Some(start) = rest.find('%') {
            self.out.push_str(&rest[..start]);
            rest = self.directive(&rest[start + 1..]);
            if self.out.len() > MAX_LENGTH {
                return Err(FunctionError::call("the text grows beyond 16 MiB"));
            }
        }
        self.out.push_str(rest);
        if !self.reordered && self.next < self.values.len() {
            self.extra();
        }
        Ok(())
    }

    fn extra(&mut self) {
        self.out.push_str("%!(EXTRA ");
        for (index, value) in self.values.iter().enumerate().skip(self.next) {
            if index > self.next {
                self.out.push_str(", ");
            }
            if matches!(value, Value::Null) {
                self.out.push_str("<nil>");
            } else {
                self.out.push_str(go_type(value));
                self.out.push('=');
                self.value(value, 'v', Flags::default(), 0);
            }
        }
        self.out.push(')');
    }

    /// One directive behind its `%`; returns what follows it.
    fn directive<'p>(&mut self, pattern: &'p str) -> &'p str {
        let mut flags = Flags::default();
        let mut rest = pattern;
        loop {
            match rest.as_bytes().first() {
                Some(b'+') => flags.plus = true,
                Some(b'-') => {
                    flags.minus = true;
                    flags.zero = false;
                }
                Some(b'#') => flags.sharp = true,
                Some(b' ') => flags.space = true,
                Some(b'0') => flags.zero = !flags.minus,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut bad_index = false;
        let mut after_index = false;
        rest = self.index(rest, &mut bad_index, &mut after_index);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match self.take_width() {
                Some(width) if width < 0 => {
                    flags.minus = true;
                    flags.zero = false;
                    flags.width = usize::try_from(-width).ok();
                }
                Some(width) => flags.width = usize::try_from(width).ok(),
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            after_index = false;
        } else {
            let (width, after) = number(rest);
            if width.is_some() && after_index {
                bad_index = true;
            }
            flags.width = width;
            rest = after;
        }
        // A point at the very end is no precision, but a verb that there is not.
        if let Some(after) = rest.strip_prefix('.').filter(|after| !after.is_empty()) {
            if after_index {
                bad_index = true;
            }
            rest = self.index(after, &mut bad_index, &mut after_index);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match self.take_width() {
                    Some(precision) if precision >= 0 => flags.precision = usize::try_from(precision).ok(),
                    _ => self.out.push_str("%!(BADPREC)"),
                }
                after_index = false;
            } else {
                let (precision, after) = number(rest);
                flags.precision = Some(precision.unwrap_or(0));
                rest = after;
            }
        }
        if !after_index {
            rest = self.index(rest, &mut bad_index, &mut after_index);
        }
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        let following = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push('%');
        } else if bad_index {
            self.note(format_args!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = self.values.get(self.next) {
            self.next += 1;
            self.value(value, verb, flags, 0);
        } else {
            self.note(format_args!("%!{verb}(MISSING)"));
        }
        following
    }

    /// An explicit argument index `[n]`.
    fn index<'p>(&mut self, pattern: &'p str, bad: &mut bool, after: &mut bool) -> &'p str {
        let Some(inner) = pattern.strip_prefix('[') else { return pattern };
        self.reordered = true;
        let Some(close) = inner.find(']') else {
            *bad = true;
            return inner;
        };
        match inner[..close].parse::<usize>() {
            Ok(position) if (1..=self.values.len()).contains(&position) => self.next = position - 1,
            _ => *bad = true,
        }
        *after = true;
        &inner[close + 1..]
    }

    fn take_width(&mut self) -> Option<i64> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        let Value::Number(number) = value else { return None };
        let width = i64::try_from(number.as_wide()?).ok()?;
        usize::try_from(width.unsigned_abs()).ok().filter(|width| *width <= MAX_WIDTH).map(|_| width)
    }

    fn note(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.out.push_str(&arguments.to_string());
    }

    fn value(&mut self, value: &Value, verb: char, flags: Flags, depth: usize) {
        if verb == 'T' && depth == 0 {
            return self.padded(go_type(value), flags);
        }
        match value {
            // Within a list or an object nothing is said about the verb.
            Value::Null if verb == 'v' || depth > 0 => self.padded("<nil>", flags),
            Value::Null => self.note(format_args!("%!{verb}(<nil>)")),
            Value::Bool(flag) if matches!(verb, 't' | 'v') => {
                self.padded(if *flag { "true" } else { "false" }, flags)
            }
            Value::Number(Number::Float(number)) => self.float(value, *number, verb, flags),
            Value::Number(number) => self.integer(value, number.as_wide().unwrap_or(0), verb, flags),
            Value::String(text) => self.text(value, text, verb, flags),
            Value::OptionalSecret(OptionalSecret::Plain(text)) => self.text(value, text, verb, flags),
            Value::Array(_) | Value::Object(_) if verb == 'v' && flags.sharp => self.source(value),
            Value::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push(' ');
                    }
                    self.value(item, verb, flags, depth + 1);
                }
                self.out.push(']');
            }
            Value::Bytes(bytes) => {
                let items = bytes.iter().map(|byte| Value::from(i64::from(*byte)));
                self.value(&Value::array(items), verb, flags, depth);
            }
            Value::Object(object) => {
                let mut fields: Vec<(&str, &Value)> =
                    object.iter().map(|(key, item)| (&**key, item)).collect();
                fields.sort_unstable_by_key(|(key, _)| *key);
                self.out.push_str("map[");
                for (index, (key, item)) in fields.into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(' ');
                    }
                    self.value(&Value::string(key), verb, flags, depth + 1);
                    self.out.push(':');
                    self.value(item, verb, flags, depth + 1);
                }
                self.out.push(']');
            }
            Value::Capsule(capsule) => {
                if let Some(object) = capsule.to_object() {
                    self.value(&Value::from(object), verb, flags, depth);
                }
            }
            other => self.bad_verb(other, verb),
        }
    }

    /// A list or object as Go source text, for `%#v`.
    fn source(&mut self, value: &Value) {
        self.out.push_str(go_type(value));
        self.out.push('{');
        let items = value.to_items().unwrap_or_default();
        let object = value.to_object().unwrap_or_default();
        let mut fields: Vec<(&str, &Value)> = object.iter().map(|(key, item)| (&**key, item)).collect();
        fields.sort_unstable_by_key(|(key, _)| *key);
        let entries = items
            .iter()
            .map(|item| (None, item))
            .chain(fields.into_iter().map(|(key, item)| (Some(key), item)));
        for (index, (key, item)) in entries.enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            if let Some(key) = key {
                self.out.push_str(&quoted(key, false));
                self.out.push(':');
            }
            match item {
                Value::Null => self.out.push_str("interface {}(nil)"),
                item => self.value(item, 'v', Flags { sharp: true, ..Flags::default() }, 1),
            }
        }
        self.out.push('}');
    }

    fn bad_verb(&mut self, value: &Value, verb: char) {
        self.note(format_args!("%!{verb}("));
        if matches!(value, Value::Null) {
            self.out.push_str("<nil>");
        } else {
            self.out.push_str(go_type(value));
            self.out.push('=');
            self.value(value, 'v', Flags::default(), 1);
        }
        self.out.push(')');
    }

    /// Text padded to the width.
    fn padded(&mut self, text: &str, flags: Flags) {
        let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        if flags.minus {
            self.out.push_str(text);
            self.out.extend(std::iter::repeat_n(' ', missing));
        } else {
            let filler = if flags.zero { '0' } else { ' ' };
            self.out.extend(std::iter::repeat_n(filler, missing));
            self.out.push_str(text);
        }
    }

    /// A number with its sign: zeros go between the two.
    fn signed(&mut self, sign: &str, digits: &str, flags: Flags) {
        if flags.zero && !flags.minus {
            self.out.push_str(sign);
            let width = flags.width.map(|width| width.saturating_sub(sign.chars().count()));
            self.padded(digits, Flags { width, ..flags });
        } else {
            self.padded(&format!("{sign}{digits}"), Flags { zero: false, ..flags });
        }
    }

    fn text(&mut self, value: &Value, text: &str, verb: char, flags: Flags) {
        let shortened: String = match flags.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        match verb {
            'v' if flags.sharp => self.padded(&quoted(&shortened, false), flags),
            'v' | 's' => self.padded(&shortened, flags),
            'q' if flags.sharp
                && !shortened.contains(['`', '\u{feff}'])
                && !shortened.chars().any(|c| c.is_control() && c != '\t') =>
            {
                self.padded(&format!("`{shortened}`"), flags);
            }
            'q' => self.padded(&quoted(&shortened, flags.plus), flags),
            'x' | 'X' => {
                let limit = flags.precision.unwrap_or(usize::MAX);
                let hexadecimal = hexadecimal(text.as_bytes(), limit, verb == 'X', flags);
                self.padded(&hexadecimal, flags);
            }
            _ => self.bad_verb(value, verb),
        }
    }

    fn integer(&mut self, value: &Value, wide: i128, verb: char, flags: Flags) {
        let flags = flags.without_plus(verb);
        let (radix, upper) = match verb {
            'v' | 'd' => (10, false),
            'b' => (2, false),
            'o' | 'O' => (8, false),
            'x' => (16, false),
            'X' => (16, true),
            'c' | 'q' | 'U' => return self.character(wide, verb, flags),
            _ => return self.bad_verb(value, verb),
        };
        let magnitude = wide.unsigned_abs();
        let mut digits = in_radix(magnitude, radix, upper);
        let mut flags = flags;
        if let Some(precision) = flags.precision {
            flags.zero = false;
            if precision == 0 && magnitude == 0 {
                return self.padded("", flags);
            }
            digits = format!("{}{digits}", "0".repeat(precision.min(MAX_WIDTH).saturating_sub(digits.len())));
        }
        let mut sign = if wide < 0 {
            "-".to_owned()
        } else if flags.plus {
            "+".to_owned()
        } else if flags.space {
            " ".to_owned()
        } else {
            String::new()
        };
        let zero_padding = flags.zero && flags.width.is_some();
        match verb {
            'b' if flags.sharp => sign.push_str("0b"),
            'x' if flags.sharp => sign.push_str("0x"),
            'X' if flags.sharp => sign.push_str("0X"),
            'o' if flags.sharp && !digits.starts_with('0') => digits.insert(0, '0'),
            'O' => sign.push_str("0o"),
            _ => {}
        }
        // The width that zeros fill counts the sign, but not a radix prefix.
        if zero_padding && sign.len() > 1 {
            let width = flags.width.map(|width| width + sign.trim_start_matches(['-', '+', ' ']).len());
            flags.width = width;
        }
        self.signed(&sign, &digits, flags);
    }

    fn character(&mut self, wide: i128, verb: char, flags: Flags) {
        let character =
            u32::try_from(wide).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
        match verb {
            'c' => self.padded(&character.to_string(), flags),
            'q' => {
                let inner = quoted(&character.to_string(), flags.plus);
                let inner = inner.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
                let inner = match character {
                    '"' => "\"".to_owned(),
                    '\'' => "\\'".to_owned(),
                    _ => inner,
                };
                self.padded(&format!("'{inner}'"), flags);
            }
            _ => {
                // Of a negative number the 64 bits.
                let bits = u64::try_from(wide).unwrap_or(wide as u64);
                let mut text = format!("U+{bits:04X}");
                if flags.sharp && !character.is_control() {
                    text.push_str(&format!(" '{character}'"));
                }
                self.padded(&text, Flags { zero: false, ..flags });
            }
        }
    }

    fn float(&mut self, value: &Value, number: f64, verb: char, flags: Flags) {
        let flags = flags.without_plus(verb);
        if matches!(verb, 'x' | 'X' | 'b') && number.is_finite() {
            let digits = match verb {
                'b' => go_float::binary(number.abs()),
                _ => go_float::hexadecimal(number.abs(), verb == 'X'),
            };
            let sign = if number.is_sign_negative() { "-" } else { "" };
            return self.signed(sign, &digits, flags);
        }
        let (form, precision) = match verb {
            'v' => ('g', flags.precision),
            'e' | 'E' | 'f' | 'F' => (verb, Some(flags.precision.unwrap_or(6))),
            'g' | 'G' => (verb, flags.precision),
            _ => return self.bad_verb(value, verb),
        };
        let precision = precision.map(|precision| precision.min(1_000));
        let mut digits = go_float::verb(number.abs(), form, precision, flags.sharp && verb != 'v');
        if flags.sharp && verb != 'v' && number.is_finite() {
            let wanted = if matches!(verb, 'g' | 'G') { precision.unwrap_or(6) } else { 0 };
            digits = with_point(&digits, wanted);
        }
        let sign = if number.is_sign_negative() && !number.is_nan() {
            "-"
        } else if flags.plus || number.is_infinite() && verb == 'v' {
            "+"
        } else if flags.space {
            " "
        } else {
            ""
        };
        let zero = flags.zero && number.is_finite();
        self.signed(sign, &digits, Flags { zero, ..flags });
    }
}

/// The digits of a float with a point in any case, and with zeros up to so many significant digits.
fn with_point(digits: &str, significant: usize) -> String {
    let (mantissa, exponent) = digits.find(['e', 'E']).map_or((digits, ""), |at| digits.split_at(at));
    let mut text = mantissa.to_owned();
    if !text.contains('.') {
        text.push('.');
    }
    let given = text.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    let given = if given == 0 { text.bytes().filter(u8::is_ascii_digit).count() } else { given };
    text.extend(std::iter::repeat_n('0', significant.saturating_sub(given)));
    text + exponent
}

fn number(pattern: &str) -> (Option<usize>, &str) {
    let length = pattern.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = pattern.split_at(length);
    // One digit more than the largest is let through, as in Go.
    (digits.parse::<usize>().ok().filter(|value| value / 10 <= MAX_WIDTH), rest)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(Number::Int(_)) => "int",
        Value::Number(Number::Uint(_)) => "uint64",
        Value::Number(Number::Float(_)) => "float64",
        Value::String(_) | Value::Secret(_) | Value::OptionalSecret(_) | Value::LiveSecret(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Bytes(_) => "[]uint8",
        Value::Object(_) | Value::Capsule(_) => "map[string]interface {}",
        Value::Function(_) => "func",
        Value::Unknown(_) => "unknown",
    }
}

fn in_radix(mut magnitude: u128, radix: u128, upper: bool) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(magnitude % radix)
            .ok()
            .and_then(|digit| char::from_digit(digit, 16))
            .unwrap_or('0');
        digits.push(if upper { digit.to_ascii_uppercase() } else { digit });
        magnitude /= radix;
        if magnitude == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

fn hexadecimal(bytes: &[u8], limit: usize, upper: bool, flags: Flags) -> String {
    let mut text = String::new();
    let prefix = if upper { "0X" } else { "0x" };
    for (index, byte) in bytes.iter().take(limit).enumerate() {
        if flags.space && index > 0 {
            text.push(' ');
        }
        if flags.sharp && (flags.space || index == 0) {
            text.push_str(prefix);
        }
        text.push_str(&if upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
    }
    text
}

/// Text in double quotes, escaped as Go escapes it.
fn quoted(text: &str, ascii: bool) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        let code = u32::from(character);
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{07}' => quoted.push_str("\\a"),
            '\u{08}' => quoted.push_str("\\b"),
            '\u{0c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{0b}' => quoted.push_str("\\v"),
            _ if code < 0x20 || code == 0x7f => quoted.push_str(&format!("\\x{code:02x}")),
            _ if code >= 0x10000 && ascii => quoted.push_str(&format!("\\U{code:08x}")),
            _ if code >= 0x80 && (ascii || character.is_control()) => {
                quoted.push_str(&format!("\\u{code:04x}"))
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
