//! What the functions and constants of the standard library are for, in words: read by `invar functions`, the schema and
//! editors. Beside the table of implementations rather than in it, so that neither crowds the other; a test keeps the two
//! in step and runs every example.

use super::{Arity, DEPRECATED, definitions};
use crate::schema::{Stability, Type};

/// A function of the standard library.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// The full name: `string.join`.
    pub name: &'static str,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// What it gives.
    pub result: Type,
    /// How settled it is.
    pub stability: Stability,
    /// What it does, in a sentence or two.
    pub summary: &'static str,
    /// A call of it, complete and runnable.
    pub example: &'static str,
    /// What the example gives, as an expression.
    pub gives: &'static str,
    /// The name under which older configurations know it.
    pub deprecated_name: Option<&'static str>,
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, for people: calls give arguments by position.
    pub name: &'static str,
    /// Its type, for people.
    pub ty: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether any number of arguments may stand here.
    pub variadic: bool,
}

/// A constant of the standard library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConstantInfo {
    /// The full name: `constants.hostname`.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
}

impl FunctionInfo {
    /// `string.join(list: list, separator: string) -> string`.
    #[must_use]
    pub fn signature(&self) -> String {
        let parameters: Vec<String> = self.parameters.iter().map(Parameter::text).collect();
        format!("{}({}) -> {}", self.name, parameters.join(", "), self.result)
    }
}

impl Parameter {
    /// `name: type`, with `…` where it repeats and in brackets where it may be left out.
    #[must_use]
    pub fn text(&self) -> String {
        let text = format!("{}{}: {}", self.name, if self.variadic { "…" } else { "" }, self.ty);
        if self.optional { format!("[{text}]") } else { text }
    }
}

/// All functions, in the order of the library.
#[must_use]
pub fn functions() -> Vec<FunctionInfo> {
    definitions()
        .into_iter()
        .map(|definition| {
            let (summary, parameters, example, gives) = describe(definition.name);
            let deprecated = DEPRECATED.iter().find(|(_, instead)| *instead == definition.name);
            FunctionInfo {
                name: definition.name,
                parameters: with_arity(parameters, definition.arity),
                result: definition.result,
                stability: definition.stability,
                summary,
                example,
                gives,
                deprecated_name: deprecated.map(|(old, _)| *old),
            }
        })
        .collect()
}

/// The function of that name, deprecated names included.
#[must_use]
pub fn function(name: &str) -> Option<FunctionInfo> {
    functions().into_iter().find(|function| function.name == name || function.deprecated_name == Some(name))
}

/// All constants.
#[must_use]
pub const fn constants() -> &'static [ConstantInfo] {
    &[
        ConstantInfo {
            name: "constants.hostname",
            summary: "The name of the host, read when the agent starts.",
        },
        ConstantInfo { name: "constants.os", summary: "The operating system, as `linux`." },
        ConstantInfo {
            name: "constants.arch",
            summary: "The processor architecture, as `amd64` or `arm64`.",
        },
        ConstantInfo { name: "constants.version", summary: "The version of the agent, as `v0.1.0`." },
    ]
}

/// What an arity adds to the names: which arguments may be left out, and which repeat.
fn with_arity(parameters: &[(&'static str, &'static str)], arity: Arity) -> Vec<Parameter> {
    let (least, open) = match arity {
        Arity::Exactly(count) => (count, false),
        Arity::AtLeast(count) => (count, true),
        Arity::Between(least, _) => (least, false),
    };
    parameters
        .iter()
        .enumerate()
        .map(|(index, (name, ty))| {
            let variadic = open && index + 1 == parameters.len();
            Parameter { name, ty, optional: !variadic && index >= least, variadic }
        })
        .collect()
}

type Description = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

/// Summary, parameters, an example and what it gives.
fn describe(name: &str) -> Description {
    match name {
        "coalesce" => (
            "The first argument that says something: not null, false, zero, or empty. The last one if none does.",
            &[("values", "any")],
            r#"coalesce("", null, "fallback")"#,
            r#""fallback""#,
        ),
        "json_path" => (
            "Everything in a JSON document that a JSONPath expression selects, as a list; empty if nothing does.",
            &[("document", "string"), ("path", "string")],
            r#"json_path("{\"hosts\": [\"a\", \"b\"]}", "$.hosts[0]")"#,
            r#"["a"]"#,
        ),
        "array.concat" => (
            "One list of the elements of all lists, in order.",
            &[("lists", "list(any)")],
            "array.concat([1, 2], [3])",
            "[1, 2, 3]",
        ),
        "array.combine_maps" => (
            "Joins two lists of objects: every pair that agrees in all `keys` becomes one object, in which the right \
             one wins. With `passthrough`, left objects without a partner are kept.",
            &[
                ("left", "list(map(any))"),
                ("right", "list(map(any))"),
                ("keys", "list(string)"),
                ("passthrough", "bool"),
            ],
            r#"array.combine_maps([{id = "1", host = "a"}], [{id = "1", zone = "x"}], ["id"])"#,
            r#"[{id = "1", host = "a", zone = "x"}]"#,
        ),
        "array.group_by" => (
            "Sorts objects into groups by the text of one field: a list of objects with that field and `items`. \
             Objects without the field make a group of their own, or are left out with `drop_missing`.",
            &[("list", "list(map(any))"), ("key", "string"), ("drop_missing", "bool")],
            r#"array.group_by([{team = "a", n = 1}, {team = "a", n = 2}], "team", false)"#,
            r#"[{team = "a", items = [{team = "a", n = 1}, {team = "a", n = 2}]}]"#,
        ),
        "convert.nonsensitive" => (
            "The plain text of a secret. What it gives is shown like any other text: use it only for what is none.",
            &[("secret", "secret")],
            r#"convert.nonsensitive("not secret at all")"#,
            r#""not secret at all""#,
        ),
        "secret" => (
            "A secret of one of the agent's stores, by `store/path#field`. It may be used where text that is kept from \
             sight may stand, joined and encoded; a rotation reaches what uses it. The reference has to be known before \
             anything runs: text, variables, attributes of the agent.",
            &[("reference", "string")],
            r#"secret("vault/kv/team/mimir#password")"#,
            "(secret)",
        ),
        "encoding.from_json" => (
            "The value that a JSON text says.",
            &[("text", "string")],
            r#"encoding.from_json("{\"port\": 9090}").port"#,
            "9090",
        ),
        "encoding.from_yaml" => (
            "The value that the first document of a YAML text says.",
            &[("text", "string")],
            r#"encoding.from_yaml("port: 9090")["port"]"#,
            "9090",
        ),
        "encoding.from_base64" => (
            "What a Base64 text with padding encodes.",
            &[("text", "string")],
            r#"string.join([encoding.from_base64("aGVsbG8=")], "")"#,
            r#""hello""#,
        ),
        "encoding.from_URLbase64" => (
            "What a Base64 text in the alphabet for URLs, with padding, encodes.",
            &[("text", "string")],
            r#"string.join([encoding.from_URLbase64("aGVsbG8=")], "")"#,
            r#""hello""#,
        ),
        "encoding.to_base64" => (
            "The text in Base64, with padding.",
            &[("text", "string")],
            r#"encoding.to_base64("hello")"#,
            r#""aGVsbG8=""#,
        ),
        "encoding.to_URLbase64" => (
            "The text in Base64 with the alphabet for URLs, with padding.",
            &[("text", "string")],
            r#"encoding.to_URLbase64("hello")"#,
            r#""aGVsbG8=""#,
        ),
        "encoding.to_json" => (
            "An object as JSON, its keys in order.",
            &[("object", "map(any)")],
            r#"encoding.to_json({port = 9090, host = "a"})"#,
            r#""{\"host\":\"a\",\"port\":9090}""#,
        ),
        "encoding.url_encode" => (
            "The text as it stands in the query of a URL.",
            &[("text", "string")],
            r#"encoding.url_encode("a b&c")"#,
            r#""a+b%26c""#,
        ),
        "encoding.url_decode" => (
            "The text that stands encoded in the query of a URL.",
            &[("text", "string")],
            r#"encoding.url_decode("a+b%26c")"#,
            r#""a b&c""#,
        ),
        "file.path_join" => (
            "One path of all parts, `.` and `..` resolved. It does not look at the disk.",
            &[("parts", "string")],
            r#"file.path_join("/etc/invar", "../tls", "ca.pem")"#,
            r#""/etc/tls/ca.pem""#,
        ),
        "string.format" => (
            "The text with its verbs (`%s`, `%d`, `%q`, `%v` …) replaced by the values, in order.",
            &[("format", "string"), ("values", "any")],
            r#"string.format("%s:%d", "host", 9090)"#,
            r#""host:9090""#,
        ),
        "string.join" => (
            "The elements as one text, with the separator between them.",
            &[("list", "list(string)"), ("separator", "string")],
            r#"string.join(["a", "b"], "-")"#,
            r#""a-b""#,
        ),
        "string.replace" => (
            "The text with every occurrence of `old` replaced.",
            &[("text", "string"), ("old", "string"), ("new", "string")],
            r#"string.replace("web-1", "-", "_")"#,
            r#""web_1""#,
        ),
        "string.split" => (
            "The parts of the text between separators.",
            &[("text", "string"), ("separator", "string")],
            r#"string.split("a,b", ",")"#,
            r#"["a", "b"]"#,
        ),
        "string.to_lower" => {
            ("The text in lower case.", &[("text", "string")], r#"string.to_lower("WEB")"#, r#""web""#)
        }
        "string.to_upper" => {
            ("The text in upper case.", &[("text", "string")], r#"string.to_upper("web")"#, r#""WEB""#)
        }
        "string.trim" => (
            "The text without any of the given characters at its two ends.",
            &[("text", "string"), ("characters", "string")],
            r#"string.trim("--web--", "-")"#,
            r#""web""#,
        ),
        "string.trim_prefix" => (
            "The text without the given beginning, if it has it.",
            &[("text", "string"), ("prefix", "string")],
            r#"string.trim_prefix("v1.2", "v")"#,
            r#""1.2""#,
        ),
        "string.trim_suffix" => (
            "The text without the given end, if it has it.",
            &[("text", "string"), ("suffix", "string")],
            r#"string.trim_suffix("web.local", ".local")"#,
            r#""web""#,
        ),
        "string.trim_space" => (
            "The text without blanks and line breaks at its two ends.",
            &[("text", "string")],
            "string.trim_space(\"  web\\n\")",
            r#""web""#,
        ),
        "sys.env" => (
            "A variable of the process's environment; empty if it is not set.",
            &[("name", "string")],
            r#"sys.env("INVAR_UNSET_IN_EVERY_TEST")"#,
            r#""""#,
        ),
        _ => ("", &[], "", ""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::parser::parse_expression;
    use crate::scope::EmptyScope;
    use crate::source::Source;

    fn value(text: &str) -> crate::value::Value {
        let expression = parse_expression(Arc::new(Source::new("example", text))).unwrap();
        crate::evaluate::evaluate(&expression, &EmptyScope)
            .unwrap_or_else(|error| panic!("{text}: {}", error.message))
    }

    #[test]
    fn every_function_and_constant_is_described() {
        for function in functions() {
            assert!(function.summary.ends_with('.'), "{}: {:?}", function.name, function.summary);
            assert!(!function.parameters.is_empty(), "{}", function.name);
            assert!(function.example.contains(function.name), "{}", function.name);
        }
        for constant in constants() {
            assert!(constant.summary.ends_with('.'));
            let (space, name) = constant.name.split_once('.').unwrap();
            let names = crate::stdlib::lookup(space).unwrap().to_object().unwrap();
            assert!(names.get(name).is_some(), "{}", constant.name);
        }
        let object = crate::stdlib::lookup("constants").unwrap().to_object().unwrap();
        assert_eq!(object.iter().count(), constants().len());
    }

    #[test]
    fn parameters_agree_with_the_arity() {
        for definition in definitions() {
            let described = describe(definition.name).1.len();
            let (least, most) = match definition.arity {
                Arity::Exactly(count) => (count, count),
                Arity::AtLeast(count) => (count.max(1), count + 1),
                Arity::Between(least, most) => (least, most),
            };
            assert!(described >= least && described <= most, "{}: {described}", definition.name);
        }
    }

    #[test]
    fn every_example_gives_what_it_says() {
        // Secrets are the host's.
        for function in functions().into_iter().filter(|function| function.name != "secret") {
            assert_eq!(value(function.example), value(function.gives), "{}", function.example);
        }
    }

    #[test]
    fn signatures_show_what_may_be_left_out_and_what_repeats() {
        let signature = |name: &str| function(name).unwrap().signature();
        assert_eq!(signature("string.format"), "string.format(format: string, values…: any) -> string");
        assert_eq!(signature("coalesce"), "coalesce(values…: any) -> any");
        assert!(signature("array.combine_maps").contains("[passthrough: bool]"));
        assert_eq!(function("to_lower").unwrap().name, "string.to_lower");
    }
}
