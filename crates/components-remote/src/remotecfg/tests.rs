//! The exchange with a server that speaks the protocol, on loopback.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use invar_sources::{ErrorClass, Poll, PollContext, Rejection, Snapshot, Source as _, SourceError};
use invar_syntax::Value;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::protocol::{GetConfigRequest, GetConfigResponse, RegisterCollectorRequest, Status};
use super::{RemoteConfigArguments, RemoteConfigSource, RemoteConfigVerdict, collector_id};

/// A server that answers `GetConfig` from a script, and notes what it is asked.
#[derive(Default)]
struct Server {
    answers: Mutex<VecDeque<Response<Full<Bytes>>>>,
    registered: Mutex<Vec<RegisterCollectorRequest>>,
    asked: Mutex<Vec<GetConfigRequest>>,
    others: Mutex<Vec<String>>,
}

fn answer(response: &GetConfigResponse) -> Response<Full<Bytes>> {
    Response::builder()
        .header("content-type", "application/proto")
        .body(response.encode_to_vec().into())
        .unwrap()
}

fn content(text: &str, hash: &str) -> Response<Full<Bytes>> {
    answer(&GetConfigResponse { content: text.to_owned(), hash: hash.to_owned(), not_modified: false })
}

fn not_modified() -> Response<Full<Bytes>> {
    answer(&GetConfigResponse { not_modified: true, ..GetConfigResponse::default() })
}

fn error(status: u16, body: &str) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(Bytes::copy_from_slice(body.as_bytes()).into()).unwrap()
}

impl Server {
    async fn serve(
        answers: impl IntoIterator<Item = Response<Full<Bytes>>>,
    ) -> (Arc<Self>, RemoteConfigSource) {
        // Some other test may have been first.
        drop(rustls::crypto::ring::default_provider().install_default());
        let server = Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let served = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let served = Arc::clone(&served);
                    async move { Ok::<_, Infallible>(served.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let arguments = arguments(&[
            ("url", Value::string(url)),
            ("name", Value::string("edge")),
            ("attributes", Value::object([("region", Value::string("eu"))])),
        ])
        .unwrap();
        (
            server,
            RemoteConfigSource::new(
                "remotecfg".into(),
                arguments,
                "an-id",
                "1.2.3",
                invar_policy::Access::unrestricted(),
            )
            .unwrap(),
        )
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        assert_eq!(request.headers()["content-type"], "application/proto");
        assert_eq!(request.headers()["connect-protocol-version"], "1");
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match path.strip_prefix("/base/collector.v1.CollectorService/").unwrap() {
            "RegisterCollector" => {
                self.registered.lock().push(RegisterCollectorRequest::decode(body).unwrap());
                answer(&GetConfigResponse::default())
            }
            "GetConfig" => {
                self.asked.lock().push(GetConfigRequest::decode(body).unwrap());
                self.answers.lock().pop_front().unwrap_or_else(|| error(503, ""))
            }
            other => {
                self.others.lock().push(other.to_owned());
                answer(&GetConfigResponse::default())
            }
        }
    }
}

fn arguments(fields: &[(&str, Value)]) -> Result<RemoteConfigArguments, String> {
    let text: String = fields
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", invar_syntax::value_to_expression(value)))
        .collect();
    let source = Arc::new(invar_syntax::Source::new("test", text));
    let file = invar_syntax::parse_file(source).0.unwrap();
    let body = invar_syntax::evaluate_body(&file.body, &invar_syntax::EmptyScope).unwrap();
    let mut errors = Vec::new();
    let decoded = <RemoteConfigArguments as invar_syntax::Arguments>::decode(&body, &mut errors);
    match errors.first() {
        Some(error) => Err(error.message.clone()),
        None => Ok(decoded.unwrap()),
    }
}

async fn poll(source: &RemoteConfigSource, previous: Option<&Snapshot>) -> Result<Poll, SourceError> {
    let context = PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        cancellation: CancellationToken::new(),
        now: SystemTime::UNIX_EPOCH,
    };
    source.poll(previous, &context).await
}

fn changed(poll: Result<Poll, SourceError>) -> Box<Snapshot> {
    match poll {
        Ok(Poll::Changed(snapshot)) => snapshot,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn registers_once_and_asks_for_what_is_new() {
    let (server, source) =
        Server::serve([content("logging {}", "h1"), not_modified(), content("// two", "h2")]).await;
    let first = changed(poll(&source, None).await);
    assert_eq!(first.files["remotecfg.alloy"], "logging {}");
    assert!(first.revision.text.starts_with("remotecfg:sha256:"), "{}", first.revision.text);
    assert!(matches!(poll(&source, Some(&first)).await, Ok(Poll::Unchanged)));
    let second = changed(poll(&source, Some(&first)).await);
    assert_ne!(first.digest, second.digest);

    let registered = server.registered.lock();
    assert_eq!(registered.len(), 1);
    assert_eq!((registered[0].id.as_str(), registered[0].name.as_str()), ("an-id", "edge"));
    let attributes = &registered[0].local_attributes;
    assert_eq!(attributes["region"], "eu");
    assert_eq!(attributes["collector.version"], "v1.2.3");
    assert_eq!(attributes["collector.os"], std::env::consts::OS);
    let hashes: Vec<String> = server.asked.lock().iter().map(|request| request.hash.clone()).collect();
    assert_eq!(hashes, ["", "h1", "h1"]);
}

/// Without the content at hand (a restart, a snapshot of another server) a hash would only say "not modified".
#[tokio::test]
async fn without_the_content_no_hash_is_sent() {
    let (server, source) = Server::serve([content("// one", "h1"), content("// one", "h1")]).await;
    changed(poll(&source, None).await);
    changed(poll(&source, None).await);
    assert!(server.asked.lock().iter().all(|request| request.hash.is_empty()));
}

#[tokio::test]
async fn verdicts_reach_the_server_once_each() {
    let (server, source) = Server::serve([
        content("// one", "h1"),
        not_modified(),
        not_modified(),
        error(503, ""),
        not_modified(),
    ])
    .await;
    let reporter = source.reporter();
    let mut nudges = source.watch().unwrap();
    nudges.mark_unchanged();
    let snapshot = changed(poll(&source, None).await);
    reporter.report(RemoteConfigVerdict::Applied);
    assert!(nudges.has_changed().unwrap(), "the server is to hear of it at once");
    nudges.mark_unchanged();
    reporter.report(RemoteConfigVerdict::Applied);
    assert!(!nudges.has_changed().unwrap(), "and not of what it heard already");
    for _ in 0..2 {
        poll(&source, Some(&snapshot)).await.unwrap();
    }
    reporter.report(RemoteConfigVerdict::Failed { message: "remotecfg.alloy:1: no".to_owned() });
    poll(&source, Some(&snapshot)).await.unwrap_err();
    poll(&source, Some(&snapshot)).await.unwrap();

    let statuses: Vec<_> = server
        .asked
        .lock()
        .iter()
        .map(|request| {
            request.remote_config_status.clone().map(|status| (status.status(), status.error_message))
        })
        .collect();
    let failed = Some((Status::Failed, "remotecfg.alloy:1: no".to_owned()));
    let applied = Some((Status::Applied, String::new()));
    assert_eq!(statuses, [None, applied, None, failed.clone(), failed], "what got lost is said again");
}

#[tokio::test]
async fn what_goes_wrong_is_told_apart() {
    for (response, class) in [
        (content("  \n", "h"), ErrorClass::Rejected(Rejection::EmptySource)),
        (error(401, r#"{"code":"unauthenticated","message":"who?"}"#), ErrorClass::AuthExpired),
        (error(403, r#"{"code":"permission_denied"}"#), ErrorClass::Forbidden),
        (error(404, "<html>"), ErrorClass::NotFound),
        (error(429, r#"{"code":"resource_exhausted"}"#), ErrorClass::RateLimited { after: None }),
        (error(503, r#"{"code":"unavailable"}"#), ErrorClass::Transient),
        (error(200, "<html>login</html>"), ErrorClass::Stalled),
    ] {
        let (_server, source) = Server::serve([response]).await;
        let failure = poll(&source, None).await.unwrap_err();
        assert_eq!(failure.class, class, "{failure}");
    }
}

#[tokio::test]
async fn says_goodbye_only_if_it_was_there() {
    let (server, source) = Server::serve([content("// one", "h1")]).await;
    source.unregister().await;
    assert!(server.others.lock().is_empty());
    changed(poll(&source, None).await);
    source.unregister().await;
    assert_eq!(*server.others.lock(), ["UnregisterCollector"]);
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    let refused = |name: &'static str, value: Value| arguments(&[(name, value)]).unwrap_err();
    assert!(refused("poll_frequency", Value::string("9s")).contains("at least \"10s\""));
    let attributes = Value::object([("collector.id", Value::string("x"))]);
    assert!(refused("attributes", attributes).contains("reserved"));
    assert!(!refused("url", Value::string("ftp://x")).is_empty());
    assert!(arguments(&[]).unwrap().url.is_empty());
}

#[test]
fn an_agent_keeps_its_identifier() {
    let directory = tempfile::tempdir().unwrap();
    let first = collector_id(directory.path(), "1").unwrap();
    assert_eq!(first.len(), 36);
    assert_eq!(collector_id(directory.path(), "2").unwrap(), first);
    std::fs::write(directory.path().join("alloy_seed.json"), r#"{"UID":"from-alloy","created_at":"x"}"#)
        .unwrap();
    assert_eq!(collector_id(directory.path(), "2").unwrap(), "from-alloy");
    std::fs::write(directory.path().join("alloy_seed.json"), "torn").unwrap();
    assert_ne!(collector_id(directory.path(), "2").unwrap(), first);
}
