//! Values for people: an expression that gives the value again, on several lines where one would be long.

use std::sync::Arc;

use invar_syntax::expression_text::quote;
use invar_syntax::lexer::is_identifier;
use invar_syntax::{Source, Value, format, parse_file, value_to_expression};

/// Longest list or object that stays on one line.
const LINE: usize = 80;

/// What stands for a value that exists only once something runs.
const UNKNOWN: &str = "(known after apply)";

/// The value as an expression. Secrets print as `(secret)`.
pub(super) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    aligned(&text).unwrap_or(text)
}

/// The text as the formatter has it, if it is an expression at all.
fn aligned(text: &str) -> Option<String> {
    const NAME: &str = "v = ";
    let (file, _) = parse_file(Arc::new(Source::new("value", format!("{NAME}{text}"))));
    let formatted = format(&file?).ok()?;
    Some(formatted.strip_prefix(NAME)?.trim_end_matches('\n').to_owned())
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Unknown(_) => text.push_str(UNKNOWN),
        Value::Array(items) => list(text, '[', ']', items.iter(), write),
        Value::Object(object) => {
            let fields: Vec<_> = object.iter().collect();
            list(text, '{', '}', fields.into_iter(), |text, (name, item)| {
                text.push_str(&key(name));
                text.push_str(" = ");
                write(text, item);
            });
        }
        other => text.push_str(&value_to_expression(other)),
    }
}

/// The elements between brackets, each on a line of its own if all of them are too long for one.
fn list<T>(
    text: &mut String,
    open: char,
    close: char,
    elements: impl ExactSizeIterator<Item = T>,
    mut element: impl FnMut(&mut String, T),
) {
    let written: Vec<String> = elements
        .map(|item| {
            let mut one = String::new();
            element(&mut one, item);
            one
        })
        .collect();
    let length: usize = written.iter().map(|one| one.chars().count() + 2).sum();
    text.push(open);
    if length <= LINE && !written.iter().any(|one| one.contains('\n')) {
        text.push_str(&written.join(", "));
    } else {
        text.push('\n');
        for one in written {
            for line in one.lines() {
                text.push('\t');
                text.push_str(line);
                text.push('\n');
            }
            text.pop();
            text.push_str(",\n");
        }
    }
    text.push(close);
}

/// A name between quotes has no escapes; backticks hold what quotes cannot.
fn key(name: &str) -> String {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if is_identifier(name) {
        name.to_owned()
    } else if !name.is_empty() && !name.bytes().all(plain) && !name.contains('`') {
        format!("`{name}`")
    } else {
        quote(name)
    }
}

#[cfg(test)]
mod tests {
    use invar_syntax::{Number, Secret, Type, Value};

    use super::pretty;

    #[test]
    fn short_values_are_on_one_line() {
        let number = |value: i64| Value::Number(Number::Int(value));
        assert_eq!(pretty(&Value::array([number(1), number(-2)])), "[1, -2]");
        let object = Value::object([("a", number(1)), ("b c", Value::string("x\n")), ("d\"e", Value::Null)]);
        assert_eq!(pretty(&object), "{a = 1, \"b c\" = \"x\\n\", `d\"e` = null}");
        assert_eq!(pretty(&Value::array([])), "[]");
    }

    #[test]
    fn long_values_are_laid_out() {
        let long = Value::string("x".repeat(60));
        let object = Value::object([("a", long.clone()), ("bcd", Value::array([long.clone(), long]))]);
        let x = "x".repeat(60);
        let expected = format!("{{\n\ta   = \"{x}\",\n\tbcd = [\n\t\t\"{x}\",\n\t\t\"{x}\",\n\t],\n}}");
        assert_eq!(pretty(&object), expected);
    }

    #[test]
    fn what_cannot_be_shown_says_so() {
        assert_eq!(pretty(&Value::Secret(Secret::new("hunter2"))), "(secret)");
        assert_eq!(pretty(&Value::Unknown(Type::String)), "(known after apply)");
        let object = Value::object([("a", Value::Unknown(Type::String))]);
        assert_eq!(pretty(&object), "{a = (known after apply)}");
    }
}
