//! What a component author writes. The engine sees only the erased form, made once at registration.

use std::future::Future;
use std::sync::Arc;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::MetricBatch;

use crate::call::Call;
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError, RunError};
use crate::run::RunContext;
use crate::{Request, Response};

/// A type of component.
///
/// The life of one: arguments are decoded and [checked](Component::check), an [instance](Component::instance) is made or found
/// by its [identity](Component::identity), a [state](Component::state) is built from the arguments. Only then, after the swap,
/// is the instance's [task](Component::run) started. Data calls and requests arrive with the state of the generation under
/// which they run. Preparing spawns nothing, and dropping what it made undoes it.
pub trait Component: Sized + Send + Sync + 'static {
    /// The block name, such as `prometheus.scrape`. No registered name may be a dotted prefix of another.
    const NAME: &'static str;
    /// How settled the interface is.
    const STABILITY: Stability;

    /// Whether it is a community component, which must be enabled.
    const COMMUNITY: bool = false;

    /// What it is for, in one sentence: the first line of its reference.
    const SUMMARY: &'static str = "";

    /// Whether the block configures the agent itself: it has no label, stands at most once, and only at the top of a
    /// configuration.
    const SETTINGS: bool = false;

    /// What the block says.
    type Arguments: Arguments;
    /// What other blocks may refer to; `()` if nothing.
    type Exports: Exports;
    /// What outlives generations: queues, caches, positions.
    type Instance: Send + Sync + 'static;
    /// What the arguments mean: compiled rules, client settings, borrowed resources. Immutable, one per generation.
    type State: Send + Sync + 'static;

    /// Checks that a schema cannot express. Pure: no I/O, no clock.
    fn check(_arguments: &Self::Arguments, _check: &mut Check) {}

    /// A fingerprint of the arguments that cannot change on a live instance: another value means another instance.
    fn identity(_arguments: &Self::Arguments) -> u64 {
        0
    }

    /// Makes an instance for a node that has none of this identity. Spawns nothing.
    ///
    /// # Errors
    /// When the instance cannot be made; the configuration is then refused.
    fn instance(
        arguments: &Self::Arguments,
        context: &InstanceContext,
    ) -> Result<Self::Instance, PrepareError>;

    /// Builds the state of a node whose arguments changed. Fallible, revocable, spawns nothing: what it borrows through the
    /// context belongs to the state and is given back when that is dropped.
    fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Self::Instance>,
        context: StateContext,
    ) -> impl Future<Output = Result<Self::State, PrepareError>> + Send;

    /// What other nodes see of this one under `state`.
    fn exports(instance: &Self::Instance, state: &Self::State, context: &ExportContext) -> Self::Exports;

    /// Takes a batch of metrics. `Ok` means accepted with this component's promise of durability.
    fn metrics(
        call: Call<Self>,
        _batch: Arc<MetricBatch>,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send {
        let reason = format!("{} does not take metrics", call.node());
        async move { Err(DeliveryError::Permanent { reason }) }
    }

    /// Answers a request on a borrowed listener, or on `/api/v0/component/<node>/…` (the path is then the rest).
    fn serve(_call: Call<Self>, _request: Request) -> impl Future<Output = Response> + Send {
        async {
            let mut response = Response::default();
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        }
    }

    /// The instance's task. Returns when told to stop and drained. A task that returns while it should run is restarted with
    /// backoff; one that returned when parked is started again when unparked.
    fn run(
        _instance: Arc<Self::Instance>,
        context: RunContext<Self>,
    ) -> impl Future<Output = Result<(), RunError>> + Send {
        async move {
            context.stopped().await;
            Ok(())
        }
    }

    /// A notice of what the swap protocol did with this node. Runs on the writer right after the store: quick, infallible.
    fn transition(_instance: &Arc<Self::Instance>, _transition: Transition<'_, Self>) {}

    /// What else a person should know before a change is applied: what is kept, handed on or lost. Either side is none where
    /// the node is new or goes. Pure, as [`Component::check`]. Listening sockets and parting instances the engine tells of.
    fn plan_notes(_before: Option<&Self::Arguments>, _after: Option<&Self::Arguments>) -> Vec<String> {
        Vec::new()
    }

    /// The endpoints or target groups for which vitals are kept; none means one group for the whole node.
    fn vital_groups(_state: &Self::State) -> Vec<VitalGroup> {
        Vec::new()
    }

    /// Details for the user interface, on demand. Must not lock data paths.
    fn debug_info(_instance: &Self::Instance) -> Value {
        Value::Null
    }
}

/// An endpoint or target group of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VitalGroup {
    /// Names it within the node; the key of its counters.
    pub key: String,
    /// Differs when the group's settings differ: whether it counts as changed.
    pub fingerprint: u64,
}

/// What the swap protocol did with a node.
pub enum Transition<'a, C: Component> {
    /// The node is in the pipeline for the first time; its task starts next.
    Started {
        /// Its state.
        state: &'a Arc<C::State>,
        /// The digest of the configuration.
        digest: &'a str,
        /// Whether the configuration is on probation.
        candidate: bool,
    },
    /// The node goes on under another state.
    Swapped {
        /// Its state before; none if it was parked.
        from: Option<&'a Arc<C::State>>,
        /// Its state from now on.
        to: &'a Arc<C::State>,
        /// The digest of the configuration.
        digest: &'a str,
        /// Whether the configuration is on probation.
        candidate: bool,
    },
    /// The pipeline no longer has the node, but a rollback may bring it back.
    Parked,
    /// A rollback or a newer candidate brought the node back.
    Unparked,
    /// The configuration passed its probation.
    Committed {
        /// The state that stays.
        state: &'a Arc<C::State>,
        /// The digest of the configuration.
        digest: &'a str,
    },
    /// The configuration was undone.
    RolledBack {
        /// The state that holds again; none if only the undone configuration had the node.
        to: Option<&'a Arc<C::State>>,
        /// The digest of the configuration that holds again.
        digest: &'a str,
    },
    /// The node left the pipeline for good; its task drains and ends next.
    Retired,
}
