//! `testcomponents.summation`: adds its input at every change of it.

use std::sync::Arc;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;

use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::PrepareError;

/// The component type.
#[derive(Debug)]
pub struct TestSummation;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestSummationArguments {
    /// What is added.
    #[argument(required)]
    pub input: i64,
}

/// What it exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestSummationExports {
    /// All inputs so far.
    pub sum: i64,
    /// The last of them.
    pub last_added: i64,
}

impl Component for TestSummation {
    const NAME: &'static str = "testcomponents.summation";
    const SUMMARY: &'static str = "Adds up its input at every change, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestSummationArguments;
    type Exports = TestSummationExports;
    type Instance = ();
    type State = TestSummationExports;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<()>,
        context: StateContext,
    ) -> Result<TestSummationExports, PrepareError> {
        let before = context.previous::<Self>().map_or(0, |before| before.sum);
        Ok(TestSummationExports { sum: before.saturating_add(arguments.input), last_added: arguments.input })
    }

    fn exports(
        _instance: &(),
        state: &TestSummationExports,
        _context: &ExportContext,
    ) -> TestSummationExports {
        state.clone()
    }
}
