//! The component: what it keeps, when it listens anew, how a request is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use invar_engine::listener::RemoteAddress;
use invar_engine::vitals::{Outcome, VitalCounters};
use invar_engine::{
    Call, Check, Component, DeliveryError, ExportContext, Health, InstanceContext, ListenRequest,
    ListenerLoan, PrepareError, Request, Response, RunContext, RunError, Stability, StateContext,
};
use invar_telemetry::remote_write::{DecodedRequest, Protocol, RequestCounts};
use invar_tls::ServerTls;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::arguments::ReceiveHttpArguments;
use super::intake::{BODY_LIMIT, Intake, PATIENCE, Refusal, Taken};
use super::meters::Meters;
use super::{negotiation, type_and_unit};

/// Where requests go.
const PATH: &str = "/api/v1/metrics/write";
/// How long senders are told to wait where nothing else is known.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often the files of the certificates are looked at although nobody connects.
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(10);
/// Series that were not sent for twice as long are forgotten.
const MEMORY_AGE: Duration = Duration::from_secs(15 * 60);

/// The component type.
#[derive(Debug)]
pub struct ReceiveHttp;

/// What outlives configurations.
#[derive(Debug)]
pub struct Instance {
    intake: Intake,
    meters: Meters,
    registry: Option<Arc<prometheus::Registry>>,
}

/// What the arguments mean, with the socket.
pub struct State {
    arguments: Arc<ReceiveHttpArguments>,
    protocols: Vec<Protocol>,
    pub(super) listen: ListenRequest,
    loan: ListenerLoan,
}

/// What became of a request.
enum Verdict {
    /// All of it was accepted.
    Accepted(RequestCounts),
    /// What was valid of it was accepted.
    Partial(RequestCounts, String),
    /// It cannot be read.
    Refused(Refusal),
    /// Receivers did not accept it.
    Undelivered(DeliveryError),
}

impl Component for ReceiveHttp {
    const NAME: &'static str = "prometheus.receive_http";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Listens for remote write requests and passes the metrics on.";

    type Arguments = ReceiveHttpArguments;
    type Exports = ();
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        let address = arguments.server.address();
        // Any number of components may ask for a port that is free.
        if !address.ends_with(":0") {
            check.listen(address);
        }
        if arguments.enable_type_and_unit_labels {
            check.stability("enable_type_and_unit_labels", Stability::Experimental);
        }
    }

    fn instance(_arguments: &Self::Arguments, context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance {
            intake: Intake::new(PATIENCE),
            meters: Meters::new(context.node().as_str()),
            registry: context.services().get(),
        })
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let listen = match context.previous::<Self>() {
            // The same settings, not merely equal ones: those of another TLS would close connections.
            Some(previous) if previous.arguments.server == arguments.server => previous.listen.clone(),
            _ => arguments.server.listen_request(BODY_LIMIT, context.access()).await?,
        };
        let loan = context.listeners().borrow(listen.clone())?;
        Ok(State { protocols: arguments.protocols(), arguments, listen, loan })
    }

    fn exports(_instance: &Instance, _state: &State, _context: &ExportContext) {}

    async fn serve(call: Call<Self>, request: Request) -> Response {
        let started = Instant::now();
        let (method, bytes) = (request.method().clone(), request.body().len());
        // Only what came through the component's own server: whoever may not connect to that may not write.
        let own = request.extensions().get::<RemoteAddress>().is_some();
        let known = own && request.uri().path() == PATH;
        let response = if !known {
            text(StatusCode::NOT_FOUND, &format!("remote write requests go to {PATH}"))
        } else if method != Method::POST {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "remote write requests are sent by POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            response
        } else {
            write(&call, request).await
        };
        call.instance().meters.answered(&method, known, bytes, response.status(), started.elapsed());
        response
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let _registration = instance.meters.register(instance.registry.clone());
        let mut ages = interval(MEMORY_AGE);
        ages.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(CERTIFICATES_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = context.stopped() => break,
                _ = ages.tick() => instance.intake.memory().age(),
                _ = looks.tick() => {
                    let tls = context.enter().state().listen.tls.clone();
                    context.set_health(certificates(tls.as_deref()).await);
                }
            }
        }
        // Twice is all of it: nothing more is sent here.
        instance.intake.memory().age();
        instance.intake.memory().age();
        Ok(())
    }
}

/// Answers a remote write request.
async fn write(call: &Call<ReceiveHttp>, request: Request) -> Response {
    let vitals = call.vitals("");
    let attempt = vitals.attempt();
    let protocol = negotiation::protocol(request.headers(), &call.state().protocols);
    let (verdict, samples) = match &protocol {
        Ok(protocol) => match call.instance().intake.take(*protocol, request.into_body()).await {
            Ok(taken) => forward(call, *protocol, taken, &vitals).await,
            Err(refusal) => (Verdict::Refused(refusal), 0),
        },
        Err(refusal) => (Verdict::Refused(refusal.clone()), 0),
    };
    attempt.finish(verdict.outcome(), samples);
    let mut response = verdict.response();
    if protocol == Ok(Protocol::V2) {
        let counts = verdict.written();
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", counts.samples),
            ("x-prometheus-remote-write-histograms-written", counts.histograms),
            ("x-prometheus-remote-write-exemplars-written", counts.exemplars),
        ] {
            response.headers_mut().insert(name, HeaderValue::from(count));
        }
    }
    if let Verdict::Refused(refusal) = &verdict {
        tracing::debug!(node = %call.node(), status = refusal.status.as_u16(), reason = %refusal.text, "request refused");
    }
    response
}

/// Forwards what was read; the number is that of its samples.
async fn forward(
    call: &Call<ReceiveHttp>,
    protocol: Protocol,
    taken: Taken,
    vitals: &VitalCounters,
) -> (Verdict, u64) {
    let (instance, arguments) = (call.instance(), &call.state().arguments);
    // The share of the budget is held until the receivers have answered.
    let Taken { request, share: _share } = taken;
    let DecodedRequest { mut batch, counts, invalid_series, first_invalid } = request;
    let samples = counts.points() as u64;
    if protocol == Protocol::V2 && arguments.enable_type_and_unit_labels {
        type_and_unit::add_labels(&mut batch, instance.intake.memory());
    }
    if !arguments.append_metadata {
        batch.metadata.clear();
    }
    vitals.add_in(samples);
    instance.meters.invalid_series.inc_by(invalid_series as u64);
    if !batch.is_empty() {
        let began = Instant::now();
        let forwarded = call.flow().forward_metrics(Arc::new(batch)).await;
        instance.meters.fanout_latency.observe(began.elapsed().as_secs_f64());
        if let Err(error) = forwarded {
            if !error.is_retryable() {
                vitals.add_dropped(samples);
            }
            return (Verdict::Undelivered(error), samples);
        }
        vitals.add_out(samples);
        instance.meters.forwarded_samples.inc_by(samples);
    }
    if invalid_series == 0 {
        return (Verdict::Accepted(counts), samples);
    }
    let first = first_invalid.unwrap_or_default();
    let reason = format!("{invalid_series} series are invalid and were left out, the first of them: {first}");
    (Verdict::Partial(counts, reason), samples)
}

/// How the certificates are, after a look at their files. While the previous ones serve, the component works.
async fn certificates(tls: Option<&ServerTls>) -> Health {
    let Some(tls) = tls else { return Health::healthy("listening") };
    drop(tls.current().await);
    match tls.problem() {
        None => Health::healthy("listening"),
        Some(problem) => Health::healthy(format!(
            "listening with the previous certificate, the new one is unusable: {problem}"
        )),
    }
}

fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Bytes::from(format!("{text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn retry_after(mut response: Response, pause: Duration) -> Response {
    let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

// === impl State ===

impl State {
    /// The address that is bound, its port resolved.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.loan.address()
    }
}

// === impl Verdict ===

impl Verdict {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted(_) => Outcome::Ok,
            Self::Partial(counts, _) if counts.points() > 0 => Outcome::Ok,
            Self::Refused(refusal) if refusal.status.is_server_error() => Outcome::Retryable,
            Self::Undelivered(error) if error.is_retryable() => Outcome::Retryable,
            Self::Partial(..) | Self::Refused(_) | Self::Undelivered(_) => Outcome::Permanent,
        }
    }

    /// What receivers have accepted.
    fn written(&self) -> RequestCounts {
        match self {
            Self::Accepted(counts) | Self::Partial(counts, _) => *counts,
            Self::Refused(_) | Self::Undelivered(_) => RequestCounts::default(),
        }
    }

    /// What the sender is told. It sends again what a 5xx answers, and gives up what a 4xx does.
    fn response(&self) -> Response {
        match self {
            Self::Accepted(_) => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Self::Partial(_, reason) => text(StatusCode::BAD_REQUEST, reason),
            Self::Refused(refusal) => {
                let response = text(refusal.status, &refusal.text);
                match refusal.status {
                    StatusCode::SERVICE_UNAVAILABLE => retry_after(response, RETRY_PAUSE),
                    _ => response,
                }
            }
            Self::Undelivered(DeliveryError::Permanent { reason }) => text(StatusCode::BAD_REQUEST, reason),
            Self::Undelivered(DeliveryError::Retryable { after, reason }) => {
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, reason), after.unwrap_or(RETRY_PAUSE))
            }
            // The next generation takes it at once.
            Self::Undelivered(error @ DeliveryError::Cancelled) => {
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()), Duration::ZERO)
            }
        }
    }
}
