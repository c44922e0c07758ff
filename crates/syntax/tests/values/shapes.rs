//! Argument structs that the tests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::convert::from_capsule;
use invar_syntax::value::CapsuleValue;
use invar_syntax::{
    ArgumentEnum, Arguments, BlockEnum, ByteSize, ConvertError, EvaluatedBody, Exports, FromValue,
    OptionalSecret, Scope, Secret, Source, ToValue, Type, Value, ast, evaluate_body, parse_file,
};

/// A capsule like those of the components.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Receiver(pub(crate) &'static str);

impl CapsuleValue for Receiver {
    fn type_name(&self) -> &'static str {
        "metrics receiver"
    }

    fn equals(&self, other: &dyn CapsuleValue) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl FromValue for Receiver {
    fn value_type() -> Type {
        Type::Capsule("metrics receiver")
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        from_capsule(value, "metrics receiver")
    }
}

impl ToValue for Receiver {
    fn to_value(&self) -> Value {
        Value::capsule(self.clone())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ArgumentEnum)]
pub(crate) enum Action {
    #[default]
    Replace,
    KeepEqual,
    #[argument(name = "labeldrop", alias = "label_drop")]
    LabelDrop,
}

#[derive(Clone, Debug, PartialEq, Arguments)]
#[arguments(validate = "Self::validate")]
pub(crate) struct Tls {
    /// Whether certificates are believed unseen.
    #[argument(default = false)]
    pub(crate) insecure: bool,
    pub(crate) ca_file: String,
    pub(crate) key: Secret,
}

impl Tls {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.insecure && !self.ca_file.is_empty() {
            return Err(("ca_file", "has no effect with insecure".to_owned()));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct Rule {
    pub(crate) source_labels: Vec<String>,
    #[argument(default = "\";\"")]
    pub(crate) separator: String,
    pub(crate) action: Action,
    #[argument(required)]
    pub(crate) target: String,
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct HttpClient {
    #[argument(default = true)]
    pub(crate) follow_redirects: bool,
    #[argument(block)]
    pub(crate) tls_config: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct Match {
    #[argument(required)]
    pub(crate) selector: String,
    #[argument(block_enum, name = "stage", recursive)]
    pub(crate) stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct Drop {
    #[argument(default = "\"\"")]
    pub(crate) expression: String,
}

#[derive(Clone, Debug, PartialEq, BlockEnum)]
pub(crate) enum Stage {
    Drop(Drop),
    #[argument(name = "match")]
    Matching(Match),
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct Named {
    #[argument(label)]
    pub(crate) name: String,
    pub(crate) value: i64,
}

#[derive(Clone, Debug, PartialEq, Arguments)]
pub(crate) struct Queue {
    #[argument(default = 10)]
    pub(crate) shards: u32,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

#[derive(Clone, Debug, PartialEq, Arguments)]
#[arguments(validate = "Scrape::validate")]
pub(crate) struct Scrape {
    /// What to scrape.
    #[argument(required)]
    pub(crate) targets: Vec<BTreeMap<String, String>>,
    #[argument(required, type_note = "any<storage.Appendable>")]
    pub(crate) forward_to: Vec<Receiver>,
    #[argument(default = "\"60s\"")]
    pub(crate) scrape_interval: Duration,
    #[argument(default_fn = ten_seconds)]
    pub(crate) scrape_timeout: Duration,
    #[argument(default = "[\"a\", \"b\"]")]
    pub(crate) protocols: Vec<String>,
    #[argument(name = "type")]
    pub(crate) kind: String,
    #[argument(type_note = "config.URL")]
    pub(crate) proxy_url: String,
    pub(crate) body_size_limit: ByteSize,
    #[argument(default = "-1")]
    pub(crate) offset: i64,
    #[argument(default = "1.5")]
    pub(crate) factor: f64,
    pub(crate) limit: Option<u32>,
    pub(crate) password: Secret,
    pub(crate) content: OptionalSecret,
    pub(crate) anything: Value,
    #[argument(flatten)]
    pub(crate) client: HttpClient,
    #[argument(block, name = "rule")]
    pub(crate) rules: Vec<Rule>,
    #[argument(block, name = "queue_config")]
    pub(crate) queue: Queue,
    #[argument(block_enum, name = "stage")]
    pub(crate) stages: Vec<Stage>,
    #[argument(block, name = "named")]
    pub(crate) named: Vec<Named>,
}

impl Scrape {
    fn validate(&self) -> Result<(), String> {
        if self.scrape_timeout > self.scrape_interval {
            return Err("scrape_timeout exceeds scrape_interval".to_owned());
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Exports)]
pub(crate) struct ScrapeExports {
    #[argument(type_note = "any<storage.Appendable>")]
    pub(crate) receiver: Receiver,
    /// How many.
    pub(crate) count: i64,
}

pub(crate) fn parse(text: &str) -> ast::File {
    let (file, diagnostics) = parse_file(Arc::new(Source::new("test.alloy", text)));
    file.unwrap_or_else(|| panic!("{diagnostics}"))
}

pub(crate) fn evaluated(text: &str, scope: &dyn Scope) -> EvaluatedBody {
    evaluate_body(&parse(text).body, scope).unwrap()
}
