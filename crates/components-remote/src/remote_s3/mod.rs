//! `remote.s3`: exports the content of an object and keeps it current. An object that can be read when the component is
//! prepared and no longer later leaves its last content in place.

mod metrics;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use invar_engine::{
    Check, Component, ExportContext, Health, InstanceContext, PrepareError, RunContext, RunError,
    StateContext,
};
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::secret::{OptionalSecret, Secret};
use parking_lot::Mutex;

use self::metrics::Metrics;
use self::reader::{Reader, split};

/// What Alloy allows at least, exclusively: requests cost money.
const SHORTEST_POLL: Duration = Duration::from_secs(30);

/// The component type.
#[derive(Debug)]
pub struct RemoteS3;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RemoteS3Arguments {
    /// The object: `s3://bucket/key`; at most 16 MiB of it.
    #[argument(required, names = "nothing")]
    pub path: String,
    /// How often it is looked at; more than 30 s.
    #[argument(default = "\"10m\"")]
    pub poll_frequency: Duration,
    /// Whether the content is secret.
    pub is_secret: bool,
    /// How the store is reached.
    #[argument(block)]
    pub client: RemoteS3Client,
}

/// How the store is reached.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RemoteS3Client {
    /// The id of an access key; without one the chain of AWS's own libraries is asked.
    pub key: String,
    /// The access key itself.
    pub secret: Secret,
    /// The address of a compatible store.
    #[argument(names = "destination")]
    pub endpoint: String,
    /// Whether any certificate of the store is accepted.
    pub disable_ssl: bool,
    /// Whether the bucket is the first part of the path instead of a part of the host's name.
    pub use_path_style: bool,
    /// The region; that of `AWS_REGION`, else `us-east-1` where empty.
    pub region: String,
    /// The region that signatures are made for at an `endpoint`.
    pub signing_region: String,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RemoteS3Exports {
    /// The content, a secret where `is_secret` is set.
    pub content: OptionalSecret,
}

/// What was read last, by the arguments that say where; outlives configurations.
#[derive(Debug)]
pub struct Instance {
    last: Mutex<Option<(Place, Content)>>,
    metrics: metrics::OfComponent,
}

/// Which object of which store.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    path: String,
    endpoint: String,
    region: String,
}

/// A content with what names it at the store.
#[derive(Clone, Debug)]
struct Content {
    etag: String,
    text: Secret,
}

/// The arguments, the way to the store, and what the object held when they were prepared.
#[derive(Debug)]
pub struct State {
    arguments: Arc<RemoteS3Arguments>,
    place: Place,
    reader: Reader,
    content: Content,
}

impl Component for RemoteS3 {
    const NAME: &'static str = "remote.s3";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str =
        "Exports the content of an object of S3 or a compatible store and keeps it current.";

    type Arguments = RemoteS3Arguments;
    type Exports = RemoteS3Exports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if let Err(message) = split(&arguments.path) {
            check.error("path", message);
        }
        if arguments.poll_frequency <= SHORTEST_POLL {
            check.error("poll_frequency", "must be greater than 30s");
        }
        if arguments.client.key.is_empty() != arguments.client.secret.expose().is_empty() {
            check.error("client", "key and secret go together");
        }
    }

    fn instance(_arguments: &Self::Arguments, context: &InstanceContext) -> Result<Instance, PrepareError> {
        let metrics = Metrics::of(context.services()).of_component(context.node());
        Ok(Instance { last: Mutex::default(), metrics })
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let reader = Reader::new(&arguments, context.access()).await?;
        let client = &arguments.client;
        let place = Place {
            path: arguments.path.clone(),
            endpoint: client.endpoint.clone(),
            region: client.region.clone(),
        };
        let content = match instance.read(&reader, &place).await {
            Ok(content) => content,
            // A component that runs already goes on with what it has; its task tells that the object is gone.
            Err(error) => match instance.last_of(&place) {
                Some(content) if context.previous::<Self>().is_some() => content,
                _ => return Err(error),
            },
        };
        Ok(State { arguments, place, reader, content })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> RemoteS3Exports {
        state.exports(&state.content)
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
                () = follow(&instance, &state, &context) => {}
            }
        }
    }
}

/// Keeps the exports equal to the object's content until it is dropped. What was prepared was read just now.
async fn follow(instance: &Instance, state: &State, context: &RunContext<RemoteS3>) {
    let mut failed = instance.last_of(&state.place).is_none_or(|last| last.etag != state.content.etag);
    if !failed {
        context.set_health(Health::healthy("object read"));
    }
    loop {
        // After a failure when it was prepared it is looked for at once.
        if !std::mem::take(&mut failed) {
            tokio::time::sleep(state.arguments.poll_frequency).await;
        }
        match instance.read(&state.reader, &state.place).await {
            Ok(content) => {
                context.set_exports(&state.exports(&content));
                context.set_health(Health::healthy("object read"));
            }
            Err(error) => {
                let message = format!("{}; the content read last stays in use", error.message);
                context.set_health(Health::unhealthy(message));
            }
        }
    }
}

// === impl Instance ===

impl Instance {
    /// Reads the object, or finds that it is still what was read last.
    async fn read(&self, reader: &Reader, place: &Place) -> Result<Content, PrepareError> {
        let last = self.last_of(place);
        match reader.read(last.as_ref().map(|last| last.etag.as_str())).await {
            Ok(read) => {
                self.metrics.accessed();
                // Only a read on a condition brings nothing, and there is a condition only where there is a content.
                let content = read.or(last).ok_or_else(|| {
                    PrepareError::invalid(format!(
                        "{}: the store says that nothing changed, unasked",
                        place.path
                    ))
                })?;
                *self.last.lock() = Some((place.clone(), content.clone()));
                Ok(content)
            }
            Err(error) => {
                self.metrics.failed();
                Err(error)
            }
        }
    }

    fn last_of(&self, place: &Place) -> Option<Content> {
        self.last.lock().as_ref().filter(|(last, _)| last == place).map(|(_, content)| content.clone())
    }
}

// === impl State ===

impl State {
    fn exports(&self, content: &Content) -> RemoteS3Exports {
        let content = if self.arguments.is_secret {
            OptionalSecret::Secret(content.text.clone())
        } else {
            OptionalSecret::Plain(content.text.expose().to_owned())
        };
        RemoteS3Exports { content }
    }
}
