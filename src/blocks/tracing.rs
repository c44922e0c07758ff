//! `tracing`: where the agent's own spans go. Spans can go to `otelcol` consumers only; while none is built in, the block is
//! checked, and without a consumer it does what it does in Alloy, too: nothing leaves the agent.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::{Component, ExportContext, InstanceContext, PrepareError, Stability, StateContext};
use invar_syntax::arguments::Arguments;
use invar_syntax::value::Value;

/// The block.
pub(crate) struct Tracing;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub(crate) struct TracingArguments {
    /// The share of traces that are kept, from 0 to 1.
    #[argument(default = "0.1")]
    sampling_fraction: f64,
    /// Consumers of the agent's own spans.
    write_to: Vec<Value>,
    /// Whether outgoing requests carry the trace they belong to.
    send_traceparent: bool,
    /// Who decides which traces are kept, instead of `sampling_fraction`.
    #[argument(block)]
    sampler: Option<SamplerBlock>,
}

/// `sampler`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct SamplerBlock {
    /// A Jaeger remote sampler.
    #[argument(block)]
    jaeger_remote: Option<JaegerRemoteBlock>,
}

/// `jaeger_remote`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct JaegerRemoteBlock {
    /// Where the strategies come from.
    #[argument(default = "\"http://127.0.0.1:5778/sampling\"", names = "destination")]
    url: String,
    /// How many operations are told apart.
    #[argument(default = "256")]
    max_operations: i64,
    /// How often strategies are fetched.
    #[argument(default = "\"1m\"")]
    refresh_interval: Duration,
}

impl TracingArguments {
    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        if !(0.0..=1.0).contains(&self.sampling_fraction) {
            errors.push(("sampling_fraction", "must be between 0 and 1".to_owned()));
        }
        errors
    }
}

impl Component for Tracing {
    const NAME: &'static str = "tracing";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Where the agent's own traces go, and how many of them.";
    const SETTINGS: bool = true;

    type Arguments = TracingArguments;
    type Exports = ();
    type Instance = ();
    type State = ();

    fn instance(_: &TracingArguments, _: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<TracingArguments>,
        _: Arc<()>,
        _: StateContext,
    ) -> Result<(), PrepareError> {
        if !arguments.write_to.is_empty() {
            return Err(PrepareError::invalid(
                "write_to: no component of this version takes spans: remove it",
            ));
        }
        Ok(())
    }

    fn exports((): &(), (): &(), _: &ExportContext) {}
}
