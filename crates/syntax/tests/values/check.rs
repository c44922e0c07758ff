//! The static check: literals by value, references by type.

use invar_syntax::arguments::codes;
use invar_syntax::{Arguments, DecodeError, Type, TypeLookup, TypeScope, check_body, nearest};

use crate::shapes::{Scrape, parse};

/// One component, `local.file.a`, with the export `content`; one receiver `sink.receiver`; one secret `key`.
struct Names;

impl TypeScope for Names {
    fn type_of(&self, path: &[&str]) -> TypeLookup {
        match path {
            ["local", "file", "a", "content", ..] => TypeLookup::Known(Type::String, 4),
            ["local", "file", "a", other, ..] => TypeLookup::Missing {
                message: format!("component \"local.file.a\" has no export \"{other}\""),
                nearest: nearest(other, ["content"].into_iter()).map(str::to_owned),
            },
            ["sink", "receiver", ..] => TypeLookup::Known(Type::Capsule("metrics receiver"), 2),
            ["key", ..] => TypeLookup::Known(Type::Secret, 1),
            _ => TypeLookup::Unknown,
        }
    }
}

fn check(text: &str) -> Vec<DecodeError> {
    check_body(&parse(text).body, &Scrape::schema(), &Names)
}

const MINIMUM: &str = "targets = [{a = 1}]\nforward_to = [sink.receiver]\n";

/// The one error of a body that adds `line` to what is required: its code, place and message.
fn one(line: &str) -> (&'static str, String, String, Option<String>) {
    let text = format!("{MINIMUM}{line}\n");
    let mut errors = check(&text);
    assert_eq!(errors.len(), 1, "{line}: {errors:#?}");
    let error = errors.remove(0);
    (
        error.code,
        text[error.span.start as usize..error.span.end as usize].to_owned(),
        error.message,
        error.help,
    )
}

#[test]
fn accepts_what_is_right_or_cannot_be_known() {
    for line in [
        "",
        "scrape_interval = \"90s\"",
        "scrape_interval = something.unknown",
        "limit = \"7\"",
        "type = local.file.a.content + \"x\"",
        "password = key",
        "password = \"plain\"",
        "content = key",
        "anything = [key, {a = sink.receiver}]",
        "follow_redirects = 1 < 2",
        "type = string.join([\"a\"], \",\")",
        "protocols = string.split(\"a\", \",\")",
        "queue_config { }\nrule {\n  target = \"t\"\n}\nrule {\n  target = \"t\"\n  action = \"label_drop\"\n}",
        "stage.match {\n  selector = \"s\"\n  stage.match {\n    selector = \"s\"\n  }\n}",
        "named \"x\" { }",
        "offset = -5",
        "limit = null",
        "type = convert.nonsensitive(key)",
    ] {
        let errors = check(&format!("{MINIMUM}{line}\n"));
        assert!(errors.is_empty(), "{line}: {errors:#?}");
    }
}

#[test]
fn reports_what_is_wrong() {
    let cases = [
        ("scrape_interval = \"1d\"", codes::WRONG_TYPE, "\"1d\""),
        ("scrape_interval = 5", codes::WRONG_TYPE, "5"),
        ("scrape_interval = true", codes::WRONG_TYPE, "true"),
        ("body_size_limit = \"10\"", codes::WRONG_TYPE, "\"10\""),
        ("limit = -1", codes::WRONG_TYPE, "-1"),
        ("follow_redirects = \"true\"", codes::WRONG_TYPE, "\"true\""),
        ("follow_redirects = 1 + local.file.a.contents", codes::UNKNOWN_REFERENCE, "local.file.a.contents"),
        ("protocols = \"a\"", codes::WRONG_TYPE, "\"a\""),
        ("protocols = [\"a\", [1]]", codes::WRONG_TYPE, "[1]"),
        ("type = {}", codes::WRONG_TYPE, "{}"),
        ("type = key", codes::WRONG_TYPE, "key"),
        ("type = sink.receiver", codes::WRONG_TYPE, "sink.receiver"),
        ("type = 1 < 2", codes::WRONG_TYPE, "1 < 2"),
        ("scrape_interval = \"1\" + \"d\"", codes::WRONG_TYPE, "\"1\" + \"d\""),
        ("limit = string.to_lower(\"X\")", codes::WRONG_TYPE, "string.to_lower(\"X\")"),
        ("limit = 1 + \"a\"", codes::EVALUATION, "\"a\""),
        ("anything = [local.file.a.content, encoding.from_json(\"{\")]", codes::EVALUATION, "\"{\""),
        ("anything = local.file.a.content + encoding.url_decode(\"%z\")", codes::EVALUATION, "\"%z\""),
        ("type = string.trim(local.file.a.content)", codes::EVALUATION, "string.trim(local.file.a.content)"),
        (
            "follow_redirects = string.to_upper(local.file.a.content)",
            codes::WRONG_TYPE,
            "string.to_upper(local.file.a.content)",
        ),
        (
            "follow_redirects = local.file.a.content + something",
            codes::WRONG_TYPE,
            "local.file.a.content + something",
        ),
        ("protocols = [\"a\", something, [1]]", codes::WRONG_TYPE, "[1]"),
        ("type = string.jion([\"a\"], \",\")", codes::UNKNOWN_REFERENCE, "string.jion"),
        ("typo = 1", codes::UNKNOWN_NAME, "typo"),
        ("queue_conf { }", codes::UNKNOWN_NAME, "queue_conf"),
        ("queue_config = 1", codes::WRONG_KIND, "queue_config"),
        ("protocols { }", codes::WRONG_KIND, "protocols"),
        ("type = \"a\"\ntype = \"b\"", codes::DUPLICATE, "type"),
        ("queue_config \"x\" { }", codes::LABEL, "\"x\""),
        ("named { }", codes::MISSING, "named"),
        ("rule { }", codes::MISSING, "rule"),
        ("rule {\n  target = \"t\"\n  action = \"kep_equal\"\n}", codes::WRONG_TYPE, "\"kep_equal\""),
        ("stage.match {\n  selector = \"s\"\n  stage.dorp { }\n}", codes::UNKNOWN_NAME, "stage.dorp"),
    ];
    for (line, code, place) in cases {
        let (found_code, found_place, message, _) = one(line);
        assert_eq!((found_code, found_place.as_str()), (code, place), "{line}: {message}");
    }
}

#[test]
fn receivers_are_given_as_such() {
    for value in
        ["\"text\"", "local.file.a.content", "{a = 1}", "{a = something}", "1", "string.to_upper(something)"]
    {
        let errors = check(&format!("targets = [{{a = 1}}]\nforward_to = [{value}]\n"));
        assert_eq!(errors.len(), 1, "{value}: {errors:#?}");
        assert_eq!(errors[0].code, codes::WRONG_TYPE, "{value}: {errors:#?}");
        assert_eq!(errors[0].span.len() as usize, value.len(), "{value}: {errors:#?}");
    }
}

#[test]
fn of_blocks_that_may_stand_once_each_is_pointed_at() {
    let errors = check(&format!("{MINIMUM}queue_config {{ }}\nqueue_config {{\n typo = 1\n}}\n"));
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["block \"queue_config\" may only be specified once"; 2]);
}

#[test]
fn suggests_the_nearest_name() {
    let (_, _, message, help) = one("type = local.file.a.contents");
    assert_eq!(message, "component \"local.file.a\" has no export \"contents\"");
    assert_eq!(help.unwrap(), "did you mean \"content\"?");
    assert_eq!(one("unlike { }").3, None);
    assert_eq!(one("queue_conf { }").3.unwrap(), "did you mean \"queue_config\"?");
}

#[test]
fn reports_missing_fields_together() {
    let errors = check("type = 1\n");
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        ["missing required attribute \"targets\"", "missing required attribute \"forward_to\""]
    );
}
