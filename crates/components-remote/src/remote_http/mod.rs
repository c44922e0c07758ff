//! `remote.http`: exports what an address answers and keeps it current. An address that answers when the component is
//! prepared and no longer later leaves its last content in place; one that does not answer at first is an error.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_blocks::HttpClientArguments;
use invar_engine::{
    Check, Component, ExportContext, Health, InstanceContext, PrepareError, RunContext, RunError,
    StateContext,
};
use invar_policy::Access;
use invar_sources::{SourceError, SourceName};
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::secret::{OptionalSecret, Secret};
use parking_lot::Mutex;

use crate::document::{Content, Document, Request, is_address};

/// Polling faster than this only burns CPU.
const SHORTEST_POLL: Duration = Duration::from_millis(100);

/// The component type.
#[derive(Debug)]
pub struct RemoteHttp;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct RemoteHttpArguments {
    /// The address: `http://` or `https://`; at most 8 MiB of its answer.
    #[argument(required, names = "destination")]
    pub url: String,
    /// How often it is asked.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
    /// How long it may take to answer.
    #[argument(default = "\"10s\"")]
    pub poll_timeout: Duration,
    /// Whether the content is secret.
    pub is_secret: bool,
    /// The method of the request.
    #[argument(default = "\"GET\"")]
    pub method: String,
    /// Headers of the request.
    pub headers: BTreeMap<String, String>,
    /// The body of the request.
    pub body: String,
    /// How the server is reached, and who asks.
    #[argument(block)]
    pub client: HttpClientArguments,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct RemoteHttpExports {
    /// The content, a secret where `is_secret` is set.
    pub content: OptionalSecret,
}

/// What was read last, with the question that it answers; outlives configurations.
#[derive(Default)]
pub struct Instance {
    last: Mutex<Option<(Question, Content)>>,
}

/// What decides about an answer.
#[derive(Clone, Debug, PartialEq)]
struct Question {
    url: String,
    method: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// The arguments, the way to the document, and what it was when they were prepared.
pub struct State {
    arguments: Arc<RemoteHttpArguments>,
    question: Question,
    document: Document,
    content: Content,
    /// Whether the content is of an earlier answer, and why.
    stale: Option<String>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("place", &self.document.place()).finish_non_exhaustive()
    }
}

impl Component for RemoteHttp {
    const NAME: &'static str = "remote.http";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Exports what an address answers and keeps it current.";

    type Arguments = RemoteHttpArguments;
    type Exports = RemoteHttpExports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.poll_frequency.is_zero() {
            check.error("poll_frequency", "must be greater than 0");
        }
        if arguments.poll_timeout.is_zero() {
            check.error("poll_timeout", "must be greater than 0");
        } else if arguments.poll_timeout >= arguments.poll_frequency {
            check.error("poll_timeout", "must be less than poll_frequency");
        }
        // Documentation has placeholders for addresses: no error before an agent is to ask there (decision 0025).
        if !is_address(&arguments.url) {
            check.warning("url", "the url is not an http:// or https:// address: an agent refuses it");
        } else if let Err(message) = document(arguments, Access::unrestricted()) {
            check.error("url", message);
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        // What was read before does not make up for a ceiling that is lower by now.
        context.access().destination_text(&arguments.url).map_err(PrepareError::not_allowed)?;
        let document = document(&arguments, context.access().clone()).map_err(PrepareError::invalid)?;
        let question = Question {
            url: arguments.url.clone(),
            method: arguments.method.clone(),
            headers: arguments.headers.clone(),
            body: arguments.body.clone(),
        };
        let (content, stale) = match instance.ask(&document, &question).await {
            Ok(content) => (content, None),
            // A component that runs already goes on with what it has; its task tells that the address fails.
            Err(error) => match instance.last_answer(&question) {
                Some(content) if context.previous::<Self>().is_some() => (content, Some(error.message)),
                _ => {
                    return Err(PrepareError::resource(error.message).with_help(error.help.unwrap_or_else(|| {
                        "the address must answer when the configuration is applied; afterwards it may come and go"
                            .to_owned()
                    })));
                }
            },
        };
        Ok(State { arguments, question, document, content, stale })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> RemoteHttpExports {
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

/// Keeps the exports equal to the answer until it is dropped. What was prepared was read just now.
async fn follow(instance: &Instance, state: &State, context: &RunContext<RemoteHttp>) {
    match &state.stale {
        None => context.set_health(Health::healthy("content read")),
        Some(why) => context.set_health(stale(why)),
    }
    loop {
        tokio::time::sleep(state.arguments.poll_frequency.max(SHORTEST_POLL)).await;
        match instance.ask(&state.document, &state.question).await {
            Ok(content) => {
                context.set_exports(&state.exports(&content));
                context.set_health(Health::healthy("content read"));
            }
            Err(error) => context.set_health(stale(&error.message)),
        }
    }
}

fn stale(why: &str) -> Health {
    Health::unhealthy(format!("{why}; the content read last stays in use"))
}

fn document(arguments: &RemoteHttpArguments, access: Access) -> Result<Document, String> {
    let request = Request {
        url: &arguments.url,
        method: &arguments.method,
        headers: &arguments.headers,
        body: &arguments.body,
        timeout: arguments.poll_timeout,
    };
    Document::new(SourceName::new(RemoteHttp::NAME), &request, arguments.client.clone(), access)
}

// === impl Instance ===

impl Instance {
    /// Reads the answer, or finds that it is still the last one.
    async fn ask(&self, document: &Document, question: &Question) -> Result<Content, SourceError> {
        let last = self.last_answer(question);
        let now = SystemTime::now();
        // Only a question on a condition brings nothing, and there is a condition only where there is a content.
        let Some(content) = document.get(last.as_ref(), now).await?.or(last) else {
            let message = format!("{} says that nothing changed, unasked", document.place());
            return Err(document.error(invar_sources::ErrorClass::Transient, message));
        };
        *self.last.lock() = Some((question.clone(), content.clone()));
        Ok(content)
    }

    fn last_answer(&self, question: &Question) -> Option<Content> {
        self.last.lock().as_ref().filter(|(last, _)| last == question).map(|(_, content)| content.clone())
    }
}

// === impl State ===

impl State {
    fn exports(&self, content: &Content) -> RemoteHttpExports {
        // Checked when it was read.
        let text = String::from_utf8_lossy(&content.text).into_owned();
        let content = if self.arguments.is_secret {
            OptionalSecret::Secret(Secret::new(text))
        } else {
            OptionalSecret::Plain(text)
        };
        RemoteHttpExports { content }
    }
}
