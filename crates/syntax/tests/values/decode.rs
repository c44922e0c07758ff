//! Decoding bodies into argument structs: values, defaults, and every error of a body.

use std::time::Duration;

use invar_syntax::arguments::codes;
use invar_syntax::{
    Arguments, ByteSize, Capsule, DecodeError, Exports, MapScope, OptionalSecret, Secret, Value,
};

use crate::shapes::{Action, Receiver, Scrape, ScrapeExports, Stage, evaluated};

fn scope() -> MapScope<'static> {
    MapScope::new()
        .with("sink", Value::capsule(Receiver("sink")))
        .with("secret", Value::Secret(Secret::new("hunter2")))
}

fn decode(text: &str) -> Result<Scrape, Vec<DecodeError>> {
    let mut errors = Vec::new();
    let decoded = Scrape::decode(&evaluated(text, &scope()), &mut errors);
    match decoded {
        Some(arguments) if errors.is_empty() => Ok(arguments),
        _ => Err(errors),
    }
}

const MINIMUM: &str = "targets = [{a = 1}]\nforward_to = [sink]\n";

#[test]
fn fills_defaults() {
    let scrape = decode(MINIMUM).unwrap();
    assert_eq!(scrape.targets[0]["a"], "1");
    assert_eq!(scrape.scrape_interval, Duration::from_mins(1));
    assert_eq!(scrape.scrape_timeout, Duration::from_secs(10));
    assert_eq!(scrape.protocols, ["a", "b"]);
    assert_eq!((scrape.offset, scrape.factor), (-1, 1.5));
    assert_eq!(scrape.queue.shards, 10);
    assert!(scrape.client.follow_redirects);
    assert_eq!(scrape.client.tls_config, None);
}

#[test]
fn decodes_every_kind_of_field() {
    let text = r#"
        type = "x"
        body_size_limit = "1MiB512KiB"
        limit = "7"
        password = "p"
        content = secret
        anything = [1, {a = null}]
        scrape_timeout = "1.5s"
        follow_redirects = false
        tls_config {
            ca_file = "f"
        }
        rule {
            target = "t"
            action = "keep_equal"
        }
        rule {
            target = "u"
            action = "label_drop"
        }
        queue_config {
            shards = 3
        }
        stage.drop { }
        stage.match {
            selector = "{}"
            stage.drop {
                expression = "e"
            }
        }
        stage.drop { }
        named "first" {
            value = 1
        }
    "#;
    let scrape = decode(&format!("{MINIMUM}{text}")).unwrap();
    assert_eq!(scrape.kind, "x");
    assert_eq!(scrape.body_size_limit, ByteSize(1_572_864));
    assert_eq!(scrape.limit, Some(7));
    assert_eq!(scrape.content, OptionalSecret::Secret(Secret::new("hunter2")));
    assert_eq!(scrape.scrape_timeout, Duration::from_millis(1500));
    assert!(!scrape.client.follow_redirects);
    assert_eq!(scrape.client.tls_config.as_ref().unwrap().ca_file, "f");
    let actions: Vec<Action> = scrape.rules.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::KeepEqual, Action::LabelDrop]);
    assert_eq!(scrape.queue.shards, 3);
    let [Stage::Drop(_), Stage::Matching(inner), Stage::Drop(_)] = &scrape.stages[..] else {
        panic!("the order of stages is kept: {:?}", scrape.stages);
    };
    assert_eq!(inner.stages.len(), 1);
    assert_eq!((scrape.named[0].name.as_str(), scrape.named[0].value), ("first", 1));
}

#[test]
fn reports_every_error_with_its_place() {
    let text = "target = []\nforward_to = [1]\nscrape_interval = \"1d\"\ntls_config = 1\nprotocols { }\nlimit = -1\n\
                rule {\n  targett = 1\n  action = \"keepequal\"\n}\nstage.dropp { }\nnamed {\n  value = true\n}\nqueue_config \"x\" { }\n\
                queue_config { }\nfollow_redirects = true\nfollow_redirects = false\npassword = []\n";
    let errors = decode(text).unwrap_err();
    let found: Vec<(&str, &str, &str)> = errors
        .iter()
        .map(|error| {
            let place = &text[error.span.start as usize..error.span.end as usize];
            (error.code, place.split('\n').next().unwrap(), error.message.as_str())
        })
        .collect();
    let expected = [
        (codes::MISSING, "target = []", "missing required attribute \"targets\""),
        (codes::WRONG_TYPE, "[1]", "forward_to[0] should be capsule(\"metrics receiver\"), got number"),
        (
            codes::WRONG_TYPE,
            "\"1d\"",
            "scrape_interval should be a duration such as \"1m30s\", got \"1d\": \"d\" is no unit; use ns, us, ms, s, m or h",
        ),
        (codes::WRONG_TYPE, "-1", "limit should be between 0 and 4294967295, got -1"),
        (codes::WRONG_TYPE, "[]", "password should be secret, got array"),
        (codes::DUPLICATE, "follow_redirects", "attribute \"follow_redirects\" may only be provided once"),
        (
            codes::WRONG_TYPE,
            "\"keepequal\"",
            "action should be one of \"replace\", \"keep_equal\", \"labeldrop\", got \"keepequal\"; did you mean \"keep_equal\"?",
        ),
        (codes::MISSING, "rule", "missing required attribute \"target\""),
        (codes::UNKNOWN_NAME, "targett", "unrecognized attribute name \"targett\""),
        (codes::DUPLICATE, "queue_config", "block \"queue_config\" may only be specified once"),
        (codes::LABEL, "\"x\"", "this block does not support a label"),
        (codes::MISSING, "named", "this block requires a label (name)"),
        (codes::WRONG_TYPE, "true", "value should be number, got bool"),
        (codes::UNKNOWN_NAME, "target", "unrecognized attribute name \"target\""),
        (codes::WRONG_KIND, "tls_config", "\"tls_config\" must be a block, but is used as an attribute"),
        (codes::WRONG_KIND, "protocols", "\"protocols\" must be an attribute, but is used as a block"),
        (codes::UNKNOWN_NAME, "stage.dropp", "unrecognized block name \"stage.dropp\""),
    ];
    for wanted in &expected {
        assert!(found.contains(wanted), "{wanted:?} is not among {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let help =
        |message: &str| errors.iter().find(|error| error.message.contains(message)).unwrap().help.clone();
    assert_eq!(help("name \"target\"").unwrap(), "did you mean \"targets\"?");
    assert_eq!(help("stage.dropp").unwrap(), "did you mean \"stage.drop\"?");
}

#[test]
fn validates_after_decoding() {
    let errors = decode(&format!("{MINIMUM}scrape_timeout = \"2m\"\n")).unwrap_err();
    assert_eq!(errors[0].code, codes::INVALID);
    assert_eq!(errors[0].message, "scrape_timeout exceeds scrape_interval");

    let text = format!("{MINIMUM}tls_config {{\n  insecure = true\n  ca_file = \"f\"\n}}\n");
    let errors = decode(&text).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(&text[errors[0].span.start as usize..errors[0].span.end as usize], "\"f\"");
}

#[test]
fn visits_capsules_by_field() {
    let scrape = decode(MINIMUM).unwrap();
    let mut visited = Vec::new();
    scrape.visit_capsules(&mut |field, capsule: &Capsule| {
        visited.push((field, capsule.downcast_ref::<Receiver>().cloned()));
    });
    assert_eq!(visited, [("forward_to", Some(Receiver("sink")))]);
}

#[test]
fn secrets_do_not_show_in_values_and_errors() {
    let scrape = decode(&format!("{MINIMUM}password = secret\n")).unwrap();
    assert_eq!(scrape.password.expose(), "hunter2");
    assert!(!format!("{scrape:?}").contains("hunter2"));
    assert!(!invar_syntax::value_to_json(&scrape.to_value()).to_string().contains("hunter2"));
    let errors =
        decode(&format!("{MINIMUM}type = secret\nscrape_interval = secret\nlimit = secret\n")).unwrap_err();
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|error| !error.message.contains("hunter2")), "{errors:?}");
}

#[test]
fn exports_give_values() {
    let exports = ScrapeExports { receiver: Receiver("r"), count: 2 };
    let value = exports.to_value().to_object().unwrap();
    assert_eq!(value.get("count"), Some(&Value::from(2_i64)));
    assert!(ScrapeExports::unknown_value().has_unknown());
    assert_eq!(ScrapeExports::zero_value().to_object().unwrap().get("count"), Some(&Value::from(0_i64)));
}
