//! `testcomponents.stringer` and `testcomponents.string_receiver`: values as Go would print them.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_syntax::arguments::Arguments;
use invar_syntax::number::Number;
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;

use super::numbers::TestReceiverExports;
use super::receiver::{Collected, TestReceiver};
use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::{PrepareError, RunError};
use crate::run::RunContext;

/// The component type that prints.
#[derive(Debug)]
pub struct TestStringer;

/// What the block says. Each of the inputs that is given is printed.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestStringerArguments {
    /// A text.
    pub input_string: Option<String>,
    /// An integer.
    pub input_int: Option<i64>,
    /// A float.
    pub input_float: Option<f64>,
    /// A truth.
    pub input_bool: Option<bool>,
    /// An object.
    pub input_map: Option<BTreeMap<String, Value>>,
    /// A list.
    pub input_array: Option<Vec<Value>>,
    /// Where the texts go.
    pub forward_to: Vec<TestReceiver>,
}

impl Component for TestStringer {
    const NAME: &'static str = "testcomponents.stringer";
    const SUMMARY: &'static str = "Turns a value into text as Go prints it, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestStringerArguments;
    type Exports = ();
    type Instance = ();
    type State = TestStringerArguments;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<()>,
        _context: StateContext,
    ) -> Result<TestStringerArguments, PrepareError> {
        Ok(TestStringerArguments::clone(&arguments))
    }

    fn exports(_instance: &(), _state: &TestStringerArguments, _context: &ExportContext) {}

    async fn run(_instance: Arc<()>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            for text in state.texts() {
                for receiver in &state.forward_to {
                    receiver.receive(Value::string(text.as_str()));
                }
            }
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
            }
        }
    }
}

impl TestStringerArguments {
    fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        texts.extend(self.input_string.as_ref().map(|text| format!("{text:?}")));
        texts.extend(self.input_int.map(|number| number.to_string()));
        texts.extend(self.input_float.map(|number| number.to_string()));
        texts.extend(self.input_bool.map(|flag| flag.to_string()));
        texts.extend(self.input_map.as_ref().map(|map| go_map(map.iter())));
        texts.extend(self.input_array.as_ref().map(|items| go_list(items)));
        texts
    }
}

fn go_list(items: &[Value]) -> String {
    let items: Vec<_> = items.iter().map(go_value).collect();
    format!("[]interface {{}}{{{}}}", items.join(", "))
}

fn go_map<'a, K: AsRef<str> + Ord>(fields: impl Iterator<Item = (K, &'a Value)>) -> String {
    let fields: BTreeMap<_, _> = fields.map(|(key, value)| (key, go_value(value))).collect();
    let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{:?}:{value}", key.as_ref())).collect();
    format!("map[string]interface {{}}{{{}}}", fields.join(", "))
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(Number::Float(number)) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => go_list(items),
        Value::Object(object) => go_map(object.iter()),
        other => other.describe(),
    }
}

/// The component type that keeps texts.
#[derive(Debug)]
pub struct TestStringReceiver;

impl Component for TestStringReceiver {
    const NAME: &'static str = "testcomponents.string_receiver";
    const SUMMARY: &'static str = "Keeps the text it is given, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = ();
    type Exports = TestReceiverExports;
    type Instance = Arc<Collected>;
    type State = ();

    fn instance((): &(), _context: &InstanceContext) -> Result<Arc<Collected>, PrepareError> {
        Ok(Arc::default())
    }

    async fn state(
        _arguments: Arc<()>,
        _instance: Arc<Arc<Collected>>,
        _context: StateContext,
    ) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports(instance: &Arc<Collected>, (): &(), _context: &ExportContext) -> TestReceiverExports {
        TestReceiverExports { receiver: TestReceiver(Arc::clone(instance)) }
    }

    fn debug_info(instance: &Arc<Collected>) -> Value {
        let lines: Vec<_> =
            instance.values().iter().filter_map(|value| value.as_str().map(str::to_owned)).collect();
        Value::string(lines.join("\n"))
    }
}
