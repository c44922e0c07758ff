//! Tables of texts, as commands print them and files hold them: a JSON object or a TOML table in which each value is a
//! string. Values go from the text straight into [`Secret`]s, and no error repeats a part of either.

use std::collections::BTreeMap;
use std::fmt;

use invar_syntax::Secret;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The most fields that one secret has.
const MOST_FIELDS: usize = 1024;

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFormat {
    /// A JSON object.
    Json,
    /// A TOML document without tables.
    Toml,
}

/// The fields of `text`.
///
/// # Errors
/// What is wrong with it; never a part of it.
pub fn decode_fields(format: FieldFormat, text: &str) -> Result<BTreeMap<String, Secret>, String> {
    let Fields(fields) = match format {
        FieldFormat::Json => serde_json::from_str(text).map_err(|error| {
            format!("it is not a JSON object of strings: line {} column {}", error.line(), error.column())
        })?,
        // The parser's own words may repeat a value.
        FieldFormat::Toml => toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => {
                let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
                format!("it is not a TOML table of strings: line {line}")
            }
            None => "it is not a TOML table of strings".to_owned(),
        })?,
    };
    if fields.is_empty() {
        return Err("it has no fields".to_owned());
    }
    if let Some((name, _)) = fields.iter().find(|(_, value)| value.is_empty()) {
        return Err(format!("its field `{name}` is empty"));
    }
    Ok(fields)
}

struct Fields(BTreeMap<String, Secret>);

/// A string that is a secret from the moment it is read.
pub(crate) struct Value(pub(crate) Secret);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(Secret::new(text)))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
                Ok(Value(Secret::new(text)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, Value(value))) = map.next_entry::<String, Value>()? {
                    if fields.len() == MOST_FIELDS {
                        return Err(de::Error::custom("too many fields"));
                    }
                    if fields.insert(name, value).is_some() {
                        return Err(de::Error::custom("a field twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_and_tables_of_strings_are_fields() {
        let json = decode_fields(FieldFormat::Json, r#"{"user": "ana", "password": "a\"b\u00e9"}"#).unwrap();
        assert_eq!((json["user"].expose(), json["password"].expose()), ("ana", "a\"bé"));
        let toml = decode_fields(FieldFormat::Toml, "user = 'ana'\npassword = \"a\\\"bé\"\n").unwrap();
        assert_eq!(json, toml);
    }

    #[test]
    fn other_shapes_are_refused_without_a_part_of_them() {
        for (format, text) in [
            (FieldFormat::Json, r#"["hunter2"]"#),
            (FieldFormat::Json, r#""hunter2""#),
            (FieldFormat::Json, r#"{"a": {"hunter2": "hunter2"}}"#),
            (FieldFormat::Json, r#"{"a": "hunter2", "a": "hunter2"}"#),
            (FieldFormat::Json, r#"{"a": "hunter2""#),
            (FieldFormat::Json, "{}"),
            (FieldFormat::Json, r#"{"a": ""}"#),
            (FieldFormat::Toml, "a = 'hunter2'\nb = 1"),
            (FieldFormat::Toml, "a = ['hunter2']"),
            (FieldFormat::Toml, "[hunter2]\na = 'hunter2'"),
            (FieldFormat::Toml, "hunter2"),
        ] {
            let error = decode_fields(format, text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(decode_fields(FieldFormat::Toml, "a = 'x'\nb = 1").unwrap_err().ends_with("line 2"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~é\n]{0,60}") {
            for format in [FieldFormat::Json, FieldFormat::Toml] {
                if let Ok(fields) = decode_fields(format, &text) {
                    prop_assert!(fields.values().all(|value| !value.is_empty()));
                }
            }
        }

        #[test]
        fn what_is_written_as_json_is_read(fields in proptest::collection::btree_map(".{0,8}", ".{1,20}", 1..5)) {
            let text = serde_json::to_string(&fields).unwrap();
            let read = decode_fields(FieldFormat::Json, &text).unwrap();
            let read: BTreeMap<String, String> =
                read.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
            prop_assert_eq!(read, fields);
        }
    }
}
