//! `prometheus.remote_write`: takes samples into a log and sends them from there, per endpoint.
//!
//! [`RemoteWrite`] is the component; the log and its legs ([`crate::wal`]) belong to a resource that outlives it, and a
//! [`sender`] per leg reads the log back. Whatever the engine does to the node reaches the legs through `transition`.

mod aging;
mod arguments;
mod endpoint;
mod handover;
mod identity;
mod load;
mod metrics;
mod node_log;
mod plan_notes;
mod sender;
mod shards;
mod siblings;
mod supervisor;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_blocks::http_client::http_url;
use invar_engine::{
    Call, Check, Component, DeliveryError, ExportContext, InstanceContext, Loan, NodeId, PrepareError,
    RunContext, RunError, Stability, StateContext, Transition, VitalGroup,
};
use invar_syntax::value::Value;
use invar_telemetry::{Labels, MetricBatch};
use tokio::time::Instant;

pub use arguments::{RemoteWriteArguments, RemoteWriteExports};
use endpoint::Endpoint;
use metrics::Metrics;
use node_log::{NodeLog, Owner};
use siblings::Siblings;
pub use sweep::keep_closed_logs;

use crate::LogLimit;
use crate::wal::AppendError;

/// How long an append waits for room before the caller is told to come back.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// The component.
#[derive(Debug)]
pub struct RemoteWrite;

/// What outlives generations: the log.
pub struct RemoteWriteInstance {
    node: NodeId,
    log: Loan<Arc<NodeLog>>,
    siblings: Arc<Siblings>,
    /// Tells it from other instances that have the same log one after the other.
    owner: Owner,
    metrics: Arc<Metrics>,
    directory: PathBuf,
}

/// What the arguments mean.
pub struct RemoteWriteState {
    endpoints: Vec<Arc<Endpoint>>,
    wal: arguments::WalArguments,
}

impl Component for RemoteWrite {
    const NAME: &'static str = "prometheus.remote_write";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str =
        "Sends metrics to remote write endpoints from a log on disk that survives restarts.";
    type Arguments = RemoteWriteArguments;
    type Exports = RemoteWriteExports;
    type Instance = RemoteWriteInstance;
    type State = RemoteWriteState;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        for name in arguments.duplicate_names() {
            check.error("endpoint", format!("the name {name:?} is given to more than one endpoint"));
        }
        // Documentation has placeholders for addresses: no error before an agent is to send there (decision 0025).
        for (index, endpoint) in arguments.endpoints.iter().enumerate() {
            if let Err(message) = http_url(&endpoint.url) {
                let field = format!("endpoint[{index}].url");
                check.warning(field, format!("the url {message}: an agent refuses it"));
            }
        }
    }

    fn plan_notes(before: Option<&Self::Arguments>, after: Option<&Self::Arguments>) -> Vec<String> {
        plan_notes::notes(before, after)
    }

    fn instance(_: &Self::Arguments, context: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        let directory = context.data_directory().join("wal");
        let limit = context.services().get::<LogLimit>().map_or(2 << 30, |limit| limit.0);
        let key = context.node().to_string();
        let siblings = Siblings::of(context.services());
        let log = context.resources().borrow(&key, || siblings.open(&directory, limit))?;
        let metrics = Metrics::of(context.services());
        static NEXT_OWNER: AtomicU64 = AtomicU64::new(0);
        let owner = NEXT_OWNER.fetch_add(1, Ordering::Relaxed);
        Ok(RemoteWriteInstance { node: context.node().clone(), log, siblings, owner, metrics, directory })
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _: Arc<Self::Instance>,
        context: StateContext,
    ) -> Result<Self::State, PrepareError> {
        let external: Labels = arguments.external_labels.iter().collect();
        let previous = context.previous::<Self>();
        let mut ordinals: HashMap<&str, usize> = HashMap::new();
        let mut endpoints = Vec::with_capacity(arguments.endpoints.len());
        for (index, endpoint) in arguments.endpoints.iter().enumerate() {
            let ordinal = match endpoint.name.as_str() {
                "" => {
                    let count = ordinals.entry(&endpoint.url).or_default();
                    *count += 1;
                    *count - 1
                }
                _ => 0,
            };
            let before =
                previous.as_ref().and_then(|state| state.endpoints.get(index)).map(|before| &**before);
            let endpoint =
                Endpoint::new(endpoint, &external, ordinal, before, context.services(), context.access())
                    .await?;
            endpoints.push(Arc::new(endpoint));
        }
        Ok(RemoteWriteState { endpoints, wal: arguments.wal() })
    }

    fn exports(_: &Self::Instance, _: &Self::State, context: &ExportContext) -> Self::Exports {
        RemoteWriteExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let deadline = Instant::now() + FULL_PATIENCE;
        let log = call.instance().log.log.clone();
        if tokio::time::timeout_at(deadline, call.instance().log.accepting()).await.is_err() {
            return Err(DeliveryError::Retryable {
                after: Some(Duration::from_secs(5)),
                reason: "the disk does not take the positions of the write-ahead log".to_owned(),
            });
        }
        loop {
            match log.append(&batch) {
                Ok(appended) if appended.samples == 0 && appended.out_of_order > 0 => {
                    return Err(DeliveryError::permanent(
                        "out of order: the log has newer samples of all these series",
                    ));
                }
                Ok(_) => return Ok(()),
                Err(AppendError::Full) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => {
                    return Err(DeliveryError::Retryable {
                        after: Some(Duration::from_secs(5)),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        supervisor::Supervisor::new(instance, context).run().await;
        Ok(())
    }

    fn transition(instance: &Arc<Self::Instance>, transition: Transition<'_, Self>) {
        let (log, siblings, node) = (&instance.log, &instance.siblings, &instance.node);
        // On the engine's writer: the legs change in memory here, the instance's task stores them.
        let keep = |state: &RemoteWriteState| state.wal.max_keepalive_time;
        match transition {
            Transition::Started { state, digest, candidate } => {
                let replaces = siblings.entered(node, log, candidate);
                log.started(instance.owner, &state.endpoints, keep(state), (digest, candidate), replaces);
            }
            Transition::Swapped { to, digest, candidate, .. } => {
                log.swapped(&to.endpoints, keep(to), digest, candidate)
            }
            Transition::Parked => siblings.parked(node),
            Transition::Unparked => siblings.unparked(node),
            Transition::Committed { .. } => {
                siblings.committed(node);
                log.committed();
            }
            Transition::RolledBack { to: Some(to), digest } => {
                log.rolled_back(&to.endpoints, keep(to), digest);
            }
            Transition::RolledBack { to: None, .. } => log.orphaned(),
            Transition::Retired => {
                siblings.retired(node);
                log.closed(instance.owner, jiff::Timestamp::now());
            }
        }
    }

    fn vital_groups(state: &Self::State) -> Vec<VitalGroup> {
        let group = |endpoint: &Arc<Endpoint>| VitalGroup {
            key: endpoint.identity.key.clone(),
            fingerprint: endpoint.identity.settings,
        };
        state.endpoints.iter().map(group).collect()
    }

    fn debug_info(instance: &Self::Instance) -> Value {
        use invar_syntax::number::Number;
        use invar_syntax::value::Object;
        let log = &instance.log.log;
        let number = |value: u64| Value::Number(Number::Uint(value));
        let mut legs = Vec::new();
        for (leg, _) in instance.log.legs() {
            let mut object = Object::new();
            object.insert("key", Value::String(leg.key.as_str().into()));
            object.insert("url", Value::String(leg.url.as_str().into()));
            object.insert("position", Value::String(leg.position.to_string().into()));
            object.insert("bytes_behind", number(log.bytes_between(leg.position, log.end())));
            legs.push(Value::from(object));
        }
        let mut object = Object::new();
        object.insert("log_bytes", number(log.bytes()));
        object.insert("samples_appended", number(log.counters().samples.load(Ordering::Relaxed)));
        object.insert("series", number(log.series() as u64));
        object.insert("out_of_order_samples", number(log.counters().out_of_order.load(Ordering::Relaxed)));
        object.insert("legs", Value::Array(legs.into()));
        Value::from(object)
    }
}
