//! `testcomponents.experimental` and `testcomponents.community`: there to be refused.

use std::sync::Arc;

use invar_syntax::schema::Stability;

use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::PrepareError;

/// The component type that is experimental.
#[derive(Debug)]
pub struct TestExperimental;

/// The component type that is a community component.
#[derive(Debug)]
pub struct TestCommunity;

impl Component for TestExperimental {
    const NAME: &'static str = "testcomponents.experimental";
    const SUMMARY: &'static str = "Is experimental, for tests.";
    const STABILITY: Stability = Stability::Experimental;

    type Arguments = ();
    type Exports = ();
    type Instance = ();
    type State = ();

    fn instance((): &(), _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        _arguments: Arc<()>,
        _instance: Arc<()>,
        _context: StateContext,
    ) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports((): &(), (): &(), _context: &ExportContext) {}
}

impl Component for TestCommunity {
    const NAME: &'static str = "testcomponents.community";
    const SUMMARY: &'static str = "Is a community component, for tests.";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const COMMUNITY: bool = true;

    type Arguments = ();
    type Exports = ();
    type Instance = ();
    type State = ();

    fn instance((): &(), _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        _arguments: Arc<()>,
        _instance: Arc<()>,
        _context: StateContext,
    ) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports((): &(), (): &(), _context: &ExportContext) {}
}
