//! `testcomponents.passthrough`: gives what it is given.

use std::sync::Arc;
use std::time::Duration;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;

use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::PrepareError;

/// The component type.
#[derive(Debug)]
pub struct TestPassthrough;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestPassthroughArguments {
    /// What it gives.
    #[argument(required)]
    pub input: String,
    /// How long it takes to do so.
    pub lag: Duration,
}

/// What it exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestPassthroughExports {
    /// What it was given.
    pub output: String,
}

impl Component for TestPassthrough {
    const NAME: &'static str = "testcomponents.passthrough";
    const SUMMARY: &'static str = "Gives what it is given, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestPassthroughArguments;
    type Exports = TestPassthroughExports;
    type Instance = ();
    type State = String;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<()>,
        _context: StateContext,
    ) -> Result<String, PrepareError> {
        tokio::time::sleep(arguments.lag).await;
        Ok(arguments.input.clone())
    }

    fn exports(_instance: &(), state: &String, _context: &ExportContext) -> TestPassthroughExports {
        TestPassthroughExports { output: state.clone() }
    }

    fn debug_info(_instance: &()) -> Value {
        Value::object([("component_version", Value::string("passthrough"))])
    }
}
