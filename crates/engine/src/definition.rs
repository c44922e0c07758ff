//! The erased form of a component type: the one place where typed arguments, instances and states turn into opaque ones and
//! back, and where futures are boxed.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use invar_syntax::arguments::{Arguments, DecodeError, Exports};
use invar_syntax::convert::ToValue;
use invar_syntax::evaluate::EvaluatedBody;
use invar_syntax::schema::{Schema, Stability, Type};
use invar_syntax::value::Value;
use invar_telemetry::MetricBatch;

use crate::call::{Call, Flow};
use crate::component::{Component, Transition, VitalGroup};
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError, RunError};
use crate::instance::InstanceCell;
use crate::receiver::{Receiver, Signal};
use crate::run::RunContext;
use crate::{Request, Response};

/// Arguments, an instance or a state whose type only its definition knows.
pub(crate) type AnyArc = Arc<dyn Any + Send + Sync>;

/// A component type without its types.
pub(crate) trait Definition: Send + Sync {
    fn name(&self) -> &'static str;
    fn stability(&self) -> Stability;
    fn is_community(&self) -> bool;
    fn summary(&self) -> &'static str;
    fn is_settings(&self) -> bool;
    fn arguments_schema(&self) -> &Schema;
    fn exports_schema(&self) -> &Schema;
    /// What references see where the exports are not known yet.
    fn unknown_exports(&self) -> &Value;
    /// What references see of a node that could not be prepared: nothing, but receivers that lead to it.
    fn placeholder_exports(&self, context: &ExportContext) -> Value;
    fn decode(&self, body: &EvaluatedBody, errors: &mut Vec<DecodeError>) -> Option<AnyArc>;
    /// As `decode`, of a body in which not everything is known; also the fields that are empty because of that.
    fn decode_known(
        &self,
        body: &EvaluatedBody,
        errors: &mut Vec<DecodeError>,
    ) -> Option<(AnyArc, Vec<&'static str>)>;
    fn check(&self, arguments: &AnyArc, check: &mut Check);
    fn receivers(&self, arguments: &AnyArc) -> Vec<(&'static str, Receiver)>;
    fn equal_arguments(&self, left: &AnyArc, right: &AnyArc) -> bool;
    fn arguments_value(&self, arguments: &AnyArc) -> Value;
    fn identity(&self, arguments: &AnyArc) -> u64;
    fn instance(&self, arguments: &AnyArc, context: &InstanceContext) -> Result<AnyArc, PrepareError>;
    fn state(
        &self,
        arguments: &AnyArc,
        instance: &AnyArc,
        context: StateContext,
    ) -> BoxFuture<'static, Result<AnyArc, PrepareError>>;
    fn exports(&self, instance: &AnyArc, state: &AnyArc, context: &ExportContext) -> Value;
    fn metrics(
        &self,
        flow: Flow,
        port: &'static str,
        batch: Arc<MetricBatch>,
    ) -> BoxFuture<'static, Result<(), DeliveryError>>;
    fn serve(&self, flow: Flow, request: Request) -> BoxFuture<'static, Response>;
    fn run(&self, cell: &Arc<InstanceCell>) -> BoxFuture<'static, Result<(), RunError>>;
    fn transition(&self, instance: &AnyArc, transition: ErasedTransition<'_>);
    fn plan_notes(&self, before: Option<&AnyArc>, after: Option<&AnyArc>) -> Vec<String>;
    fn vital_groups(&self, state: &AnyArc) -> Vec<VitalGroup>;
    fn debug_info(&self, instance: &AnyArc) -> Value;
}

/// [`Transition`] without its types.
#[derive(Copy, Clone)]
pub(crate) enum ErasedTransition<'a> {
    Started { state: &'a AnyArc, digest: &'a str, candidate: bool },
    Swapped { from: Option<&'a AnyArc>, to: &'a AnyArc, digest: &'a str, candidate: bool },
    Parked,
    Unparked,
    Committed { state: &'a AnyArc, digest: &'a str },
    RolledBack { to: Option<&'a AnyArc>, digest: &'a str },
    Retired,
}

/// The definition of component type `C`.
pub(crate) struct Erased<C> {
    arguments: Schema,
    exports: Schema,
    unknown_exports: Value,
    component: PhantomData<fn() -> C>,
}

/// Back from the opaque form.
///
/// # Panics
/// Never: a slot's parts are made by the definition that reads them.
pub(crate) fn typed<T: Any + Send + Sync>(any: &AnyArc) -> Arc<T> {
    Arc::clone(any)
        .downcast()
        .unwrap_or_else(|_| unreachable!("a slot's parts are made by its own definition"))
}

// === impl Erased ===

impl<C: Component> Erased<C> {
    pub(crate) fn new() -> Self {
        Self {
            arguments: C::Arguments::schema(),
            exports: C::Exports::schema(),
            unknown_exports: C::Exports::unknown_value(),
            component: PhantomData,
        }
    }
}

impl<C: Component> Definition for Erased<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn stability(&self) -> Stability {
        C::STABILITY
    }

    fn is_community(&self) -> bool {
        C::COMMUNITY
    }

    fn summary(&self) -> &'static str {
        C::SUMMARY
    }

    fn is_settings(&self) -> bool {
        C::SETTINGS
    }

    fn arguments_schema(&self) -> &Schema {
        &self.arguments
    }

    fn exports_schema(&self) -> &Schema {
        &self.exports
    }

    fn unknown_exports(&self) -> &Value {
        &self.unknown_exports
    }

    fn placeholder_exports(&self, context: &ExportContext) -> Value {
        let zero = C::Exports::zero_value();
        let fields = self.exports.fields.iter().map(|field| {
            let signal = match field.ty {
                Type::Capsule(name) => Signal::of_receiver_type(name),
                _ => None,
            };
            let value = match signal {
                Some(Signal::Metrics) => context.receiver(field.name).to_value(),
                None => {
                    zero.to_object().and_then(|zero| zero.get(field.name).cloned()).unwrap_or(Value::Null)
                }
            };
            (field.name, value)
        });
        Value::object(fields)
    }

    fn decode(&self, body: &EvaluatedBody, errors: &mut Vec<DecodeError>) -> Option<AnyArc> {
        C::Arguments::decode(body, errors).map(|arguments| Arc::new(arguments) as AnyArc)
    }

    fn decode_known(
        &self,
        body: &EvaluatedBody,
        errors: &mut Vec<DecodeError>,
    ) -> Option<(AnyArc, Vec<&'static str>)> {
        let (arguments, empty) = C::Arguments::decode_known(body, errors)?;
        Some((Arc::new(arguments) as AnyArc, empty))
    }

    fn check(&self, arguments: &AnyArc, check: &mut Check) {
        C::check(&typed::<C::Arguments>(arguments), check);
    }

    fn receivers(&self, arguments: &AnyArc) -> Vec<(&'static str, Receiver)> {
        let mut receivers = Vec::new();
        typed::<C::Arguments>(arguments).visit_capsules(&mut |field, capsule| {
            if let Some(receiver) = capsule.downcast_ref::<Receiver>() {
                receivers.push((field, receiver.clone()));
            }
        });
        receivers
    }

    fn equal_arguments(&self, left: &AnyArc, right: &AnyArc) -> bool {
        typed::<C::Arguments>(left) == typed::<C::Arguments>(right)
    }

    fn arguments_value(&self, arguments: &AnyArc) -> Value {
        typed::<C::Arguments>(arguments).to_value()
    }

    fn identity(&self, arguments: &AnyArc) -> u64 {
        C::identity(&typed::<C::Arguments>(arguments))
    }

    fn instance(&self, arguments: &AnyArc, context: &InstanceContext) -> Result<AnyArc, PrepareError> {
        C::instance(&typed::<C::Arguments>(arguments), context).map(|instance| Arc::new(instance) as AnyArc)
    }

    fn state(
        &self,
        arguments: &AnyArc,
        instance: &AnyArc,
        context: StateContext,
    ) -> BoxFuture<'static, Result<AnyArc, PrepareError>> {
        let (arguments, instance) = (typed(arguments), typed(instance));
        Box::pin(async move {
            C::state(arguments, instance, context).await.map(|state| Arc::new(state) as AnyArc)
        })
    }

    fn exports(&self, instance: &AnyArc, state: &AnyArc, context: &ExportContext) -> Value {
        C::exports(&typed::<C::Instance>(instance), &typed::<C::State>(state), context).to_value()
    }

    fn metrics(
        &self,
        flow: Flow,
        port: &'static str,
        batch: Arc<MetricBatch>,
    ) -> BoxFuture<'static, Result<(), DeliveryError>> {
        Box::pin(async move {
            match Call::<C>::under(flow, port) {
                Some(call) => C::metrics(call, batch).await,
                None => Err(DeliveryError::retryable("the component is not ready")),
            }
        })
    }

    fn serve(&self, flow: Flow, request: Request) -> BoxFuture<'static, Response> {
        Box::pin(async move {
            match Call::<C>::under(flow, "") {
                Some(call) => C::serve(call, request).await,
                None => crate::call::unavailable(),
            }
        })
    }

    fn run(&self, cell: &Arc<InstanceCell>) -> BoxFuture<'static, Result<(), RunError>> {
        let instance = typed::<C::Instance>(cell.instance());
        let context = RunContext::<C>::new(Arc::clone(cell));
        Box::pin(async move { C::run(instance, context).await })
    }

    fn transition(&self, instance: &AnyArc, transition: ErasedTransition<'_>) {
        let instance = typed::<C::Instance>(instance);
        match transition {
            ErasedTransition::Started { state, digest, candidate } => {
                let state = &typed::<C::State>(state);
                C::transition(&instance, Transition::Started { state, digest, candidate });
            }
            ErasedTransition::Swapped { from, to, digest, candidate } => {
                let (from, to) = (from.map(typed::<C::State>), &typed::<C::State>(to));
                C::transition(&instance, Transition::Swapped { from: from.as_ref(), to, digest, candidate });
            }
            ErasedTransition::Parked => C::transition(&instance, Transition::Parked),
            ErasedTransition::Unparked => C::transition(&instance, Transition::Unparked),
            ErasedTransition::Committed { state, digest } => {
                C::transition(&instance, Transition::Committed { state: &typed::<C::State>(state), digest });
            }
            ErasedTransition::RolledBack { to, digest } => {
                let to = to.map(typed::<C::State>);
                C::transition(&instance, Transition::RolledBack { to: to.as_ref(), digest });
            }
            ErasedTransition::Retired => C::transition(&instance, Transition::Retired),
        }
    }

    fn plan_notes(&self, before: Option<&AnyArc>, after: Option<&AnyArc>) -> Vec<String> {
        let (before, after) = (before.map(typed::<C::Arguments>), after.map(typed::<C::Arguments>));
        C::plan_notes(before.as_deref(), after.as_deref())
    }

    fn vital_groups(&self, state: &AnyArc) -> Vec<VitalGroup> {
        C::vital_groups(&typed::<C::State>(state))
    }

    fn debug_info(&self, instance: &AnyArc) -> Value {
        C::debug_info(&typed::<C::Instance>(instance))
    }
}
