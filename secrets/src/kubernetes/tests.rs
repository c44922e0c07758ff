//! Against a scripted API server, for what a real one says only seldom; time is the runtime's own, paused.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::store::{BoxFuture, SecretStore as _};
use crate::{SecretError, SecretReference, SecretStores};

/// How the scripted server answers one request.
enum Answer {
    /// With this status and body.
    Body(u16, String),
    /// With this status and body, and then nothing, without an end.
    Open(String),
    /// With nothing.
    Refused,
}

type Script = dyn Fn(&ApiRequest) -> Answer + Send + Sync;

/// Answers by a function and remembers what was asked.
#[derive(Clone)]
struct Scripted {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(script: impl Fn(&ApiRequest) -> Answer + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: Arc::default() }
    }

    fn api(&self) -> KubernetesApi {
        KubernetesApi::new(self.clone())
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().iter().filter(|path| path.contains(part)).count()
    }
}

impl ApiTransport for Scripted {
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
        Box::pin(async move {
            self.asked.lock().push(request.path_and_query.clone());
            let part = |text: String| stream::iter([Ok(Bytes::from(text))]);
            match (self.script)(request) {
                Answer::Body(status, text) => Ok(ApiResponse { status, body: Box::pin(part(text)) }),
                Answer::Open(text) => {
                    Ok(ApiResponse { status: 200, body: Box::pin(part(text).chain(stream::pending())) })
                }
                Answer::Refused => Err(TransportError::Connection("connection refused".to_owned())),
            }
        })
    }

    fn server(&self) -> String {
        "the API server https://kube.example".to_owned()
    }
}

const SECRET: &str = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s","managedFields":[{"x":1}]},
    "data":{"password":"aHVudGVyMg==","user":"bWU="},"type":"Opaque","later":{"unknown":true}}"#;

fn status(code: u16, message: &str) -> String {
    format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"{message}","code":{code}}}"#)
}

fn event(kind: &str, name: &str, version: u32) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"object\":{{\"kind\":\"PartialObjectMetadata\",\
         \"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
}

fn name() -> ObjectName {
    "team-a/s".parse().unwrap()
}

async fn read(scripted: &Scripted) -> Result<Object, ApiError> {
    scripted.api().read(ObjectKind::Secret, &name(), Duration::from_secs(15)).await
}

/// Follows a watch for as long as the script goes, and gives what it told.
async fn told(scripted: &Scripted, watch_for: Duration) -> Vec<WatchNotice> {
    let notices = Mutex::new(Vec::new());
    let watch = ObjectWatch::object(scripted.api(), ObjectKind::Secret, &name());
    let followed = tokio::time::timeout(watch_for, watch.follow(|notice| notices.lock().push(notice))).await;
    assert!(followed.is_err(), "a watch never ends by itself");
    notices.into_inner()
}

#[test]
fn values_are_decoded_once_and_unknown_fields_ignored() {
    let object = decode_object(ObjectKind::Secret, SECRET.as_bytes()).unwrap();
    assert_eq!(object.fields["password"].expose(), "hunter2");
    assert_eq!(object.fields["user"].expose(), "me");
    assert!(!format!("{object:?}").contains("hunter2"));
    let twice = r#"{"kind":"Secret","data":{"a":"YUhWdWRHVnlNZz09"}}"#;
    let object = decode_object(ObjectKind::Secret, twice.as_bytes()).unwrap();
    assert_eq!(object.fields["a"].expose(), "aHVudGVyMg==", "only once");
    let map = r#"{"kind":"ConfigMap","data":{"a":"plain \"text\"\n"},"binaryData":{"b":"/w=="}}"#;
    let object = decode_object(ObjectKind::ConfigMap, map.as_bytes()).unwrap();
    assert_eq!(object.fields["a"].expose(), "plain \"text\"\n");
    assert_eq!(object.fields.len(), 1);
}

#[test]
fn what_is_empty_or_not_text_is_no_failure_of_the_whole() {
    for empty in
        [r#"{"kind":"Secret"}"#, r#"{"kind":"Secret","data":null}"#, r#"{"kind":"Secret","data":{}}"#]
    {
        assert!(decode_object(ObjectKind::Secret, empty.as_bytes()).unwrap().fields.is_empty());
    }
    let mixed = r#"{"kind":"Secret","data":{"keystore":"/v8=","password":"aHVudGVyMg==","nothing":""}}"#;
    let object = decode_object(ObjectKind::Secret, mixed.as_bytes()).unwrap();
    assert_eq!(object.binary, ["keystore"]);
    assert_eq!(object.fields.keys().collect::<Vec<_>>(), ["nothing", "password"]);
}

#[test]
fn what_is_no_object_is_refused_without_repeating_it() {
    for text in [
        r#"{"kind":"ConfigMap","data":{"a":"aHVudGVyMg=="}}"#,
        r#"{"kind":"Secret","data":"hunter2"}"#,
        r#"{"kind":"Secret","data":{"a":"hunter2 is no base64"}}"#,
        r#"{"kind":"Secret","data":{"a":7}}"#,
        r#"{"kind":"Secret","data":{"a":"aHVudGVyMg=="#,
        "<html>hunter2</html>",
        "",
    ] {
        let error = decode_object(ObjectKind::Secret, text.as_bytes()).unwrap_err();
        assert!(error.contains("is not a Secret") && !error.contains("hunter2"), "{text}: {error}");
        assert!(!error.contains("aHVudGVy"), "{error}");
    }
}

#[test]
fn an_object_holds_at_most_a_mebibyte() {
    use base64::Engine as _;
    let object = |length: usize| {
        let value = base64::engine::general_purpose::STANDARD.encode("x".repeat(length));
        format!(r#"{{"kind":"Secret","metadata":{{}},"data":{{"k":"{value}"}}}}"#)
    };
    let most = (1 << 20) - "k".len();
    assert!(decode_object(ObjectKind::Secret, object(most).as_bytes()).is_ok());
    let refused = decode_object(ObjectKind::Secret, object(most + 1).as_bytes()).unwrap_err();
    assert!(refused.contains("larger than 1 MiB"), "{refused}");
}

#[test]
fn names_are_those_a_server_would_take() {
    for good in ["a/b", "team-a/a.b-c.9", "0/0"] {
        assert_eq!(good.parse::<ObjectName>().unwrap().to_string(), good);
    }
    for bad in [
        "a",
        "/",
        "a/",
        "/b",
        "A/b",
        "a/B",
        "a.b/c",
        "a/..",
        "a/b/../c",
        "a/b?watch=true",
        "a/-b",
        "a/b%2f",
        "ä/b",
    ] {
        assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
    }
    assert!(ObjectName::new(&"n".repeat(64), "b").unwrap_err().starts_with("namespace"));
    assert!(ObjectName::new("n", &"b".repeat(254)).unwrap_err().starts_with("name "));
}

proptest! {
    #[test]
    fn any_text_is_decoded_or_refused(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(decode_object(ObjectKind::Secret, &text));
        drop(decode_object(ObjectKind::ConfigMap, &text));
        drop(decode_watch_event(&text));
    }

    #[test]
    fn any_data_comes_back_as_it_was(data in proptest::collection::btree_map("[-._a-zA-Z0-9]{1,9}", ".*", 0..5)) {
        use base64::Engine as _;
        let encode = |text: &String| base64::engine::general_purpose::STANDARD.encode(text);
        let encoded: std::collections::BTreeMap<_, _> = data.iter().map(|(key, text)| (key, encode(text))).collect();
        for (kind, entries) in [
            (ObjectKind::Secret, serde_json::to_value(&encoded).unwrap()),
            (ObjectKind::ConfigMap, serde_json::to_value(&data).unwrap()),
        ] {
            let text = serde_json::json!({ "kind": kind.to_string(), "data": entries }).to_string();
            let object = decode_object(kind, text.as_bytes()).unwrap();
            prop_assert!(object.binary.is_empty());
            let found: std::collections::BTreeMap<_, _> =
                object.fields.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect();
            prop_assert_eq!(&found, &data);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_say_what_to_do() {
    for (code, body, class, parts) in [
        (404, status(404, "secrets s not found"), "missing", vec!["team-a/s", "does not exist"]),
        (404, "<html>".to_owned(), "invalid", vec!["check its address"]),
        (
            403,
            status(403, "User x cannot get"),
            "denied",
            vec![
                "User x cannot get",
                "namespace team-a",
                r#"{apiGroups: [""], resources: ["secrets"], resourceNames: ["s"], verbs: ["get"]}"#,
            ],
        ),
        (401, status(401, "Unauthorized"), "denied", vec!["does not accept the credentials", "renew"]),
        (429, String::new(), "unavailable", vec!["429"]),
        (503, status(503, "starting"), "unavailable", vec!["503: starting"]),
        (302, String::new(), "invalid", vec!["302"]),
        (200, "{}".to_owned(), "invalid", vec!["is not a Secret"]),
        (200, " ".repeat(5 << 20), "unavailable", vec!["larger than 4 MiB"]),
    ] {
        let scripted = Scripted::new(move |_| Answer::Body(code, body.clone()));
        let error = read(&scripted).await.unwrap_err();
        let found = match &error {
            ApiError::Missing(_) => "missing",
            ApiError::Denied(_) => "denied",
            ApiError::Unavailable(_) => "unavailable",
            ApiError::Invalid(_) => "invalid",
            ApiError::Gone(_) => "gone",
        };
        assert_eq!(found, class, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
    let error = read(&Scripted::new(|_| Answer::Refused)).await.unwrap_err();
    assert!(error.to_string().contains("https://kube.example: connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_server_quotes_of_credentials_is_not_repeated() {
    // A token of a service account has three parts, of which two are found by their looks.
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkE5eHcifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3Rlc3QiLCJhIjo3fQ.Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE1O";
    for code in [401, 403, 503] {
        let said = status(code, &format!("the header was Bearer {token}"));
        let error = read(&Scripted::new(move |_| Answer::Body(code, said.clone()))).await.unwrap_err();
        let text = error.to_string();
        assert!(token.split('.').all(|part| !text.contains(part)), "{text}");
        assert_eq!(text.contains("the header was Bearer (secret)"), code != 401, "{text}");
    }
    let said = status(401, "your token hunter2 is wrong");
    let error = read(&Scripted::new(move |_| Answer::Body(401, said.clone()))).await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let long =
        "system:serviceaccount:a-very-long-namespace-of-the-team-7:and-a-very-long-name-of-it-12345678";
    let said = status(403, &format!("User {long:} cannot get"));
    let error = read(&Scripted::new(move |_| Answer::Body(403, said.clone()))).await.unwrap_err();
    assert!(error.to_string().contains(long), "{error}");
}

/// Answers any request with 403, and quotes its `Authorization`.
async fn quoting_server() -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let text = String::from_utf8(request).unwrap();
            let header = text.lines().find(|line| line.to_lowercase().starts_with("authorization")).unwrap();
            let body = status(403, &format!("refused: {header}"));
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_token_from_anywhere_is_concealed_where_the_server_quotes_it() {
    let address = quoting_server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2-in-a-file").unwrap();
    let server = |token: Option<&str>, token_file: Option<std::path::PathBuf>| {
        ClusterSettings::Server(Box::new(ServerSettings {
            api_server: address.clone(),
            token: token.map(crate::Secret::new),
            token_file,
            ..ServerSettings::default()
        }))
    };
    for settings in [server(Some("hunter2-as-text"), None), server(None, Some(file))] {
        let api = KubernetesApi::new(ClusterTransport::new(settings));
        let error = api.read(ObjectKind::Secret, &name(), Duration::from_secs(5)).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("refused: ") && text.contains("(secret)") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_given_up() {
    let scripted = Scripted::new(|_| Answer::Open("{\"kind\":".to_owned()));
    let error = read(&scripted).await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Unavailable(reason) if reason.contains("did not end in time")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_changes_of_its_name_without_asking_for_values() {
    let text = event("ADDED", "s", 1)
        + &event("BOOKMARK", "", 1)
        + &event("MODIFIED", "s", 2)
        + &event("DELETED", "s", 3);
    let scripted = Scripted::new(move |request| {
        assert!(request.accept.contains("PartialObjectMetadata"), "{request:?}");
        Answer::Open(text.clone())
    });
    let changed = |version: &str| WatchNotice::Changed(Some(version.to_owned()));
    let expected = [WatchNotice::Open, changed("1"), changed("2"), WatchNotice::Changed(None)];
    assert_eq!(told(&scripted, Duration::from_secs(60)).await, expected);
    assert_eq!(scripted.asked("&fieldSelector=metadata.name%3Ds"), 1);
    assert_eq!(scripted.asked("timeoutSeconds=290"), 1);
    assert_eq!(scripted.asked("resourceVersion"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_begins_anew_without_a_word() {
    // By an event within the stream, by the status of the answer, and by its end.
    let answers = Mutex::new(VecDeque::from([
        Answer::Body(
            200,
            format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status(410, "too old resource version")),
        ),
        Answer::Body(410, status(410, "Expired")),
        Answer::Body(200, String::new()),
    ]));
    let scripted = Scripted::new(move |_| answers.lock().pop_front().unwrap_or(Answer::Open(String::new())));
    let told = told(&scripted, Duration::from_secs(60)).await;
    assert_eq!(told, [WatchNotice::Open, WatchNotice::Open, WatchNotice::Open]);
    assert_eq!(scripted.asked("watch=true"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_watch_is_tried_again_soon_and_then_once_a_minute() {
    let scripted = Scripted::new(|_| Answer::Body(403, status(403, "cannot watch")));
    let told = told(&scripted, Duration::from_secs(300)).await;
    // 3.2 s doubling to a minute: 5 in the first minute, then one a minute, all with a quarter of jitter.
    assert!((6..=12).contains(&told.len()), "{told:?}");
    for notice in told {
        let WatchNotice::Denied(reason) = notice else { panic!("{notice:?}") };
        assert!(reason.contains(r#"verbs: ["watch"]"#), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_asked_ever_less_often() {
    let scripted = Scripted::new(|_| Answer::Refused);
    let told = told(&scripted, Duration::from_secs(600)).await;
    assert!(matches!(&told[0], WatchNotice::Interrupted(reason) if reason.contains("connection refused")));
    // 800 ms doubling to 30 s: 5 in the first half minute, then 2 a minute, all with a quarter of jitter.
    assert!((16..=40).contains(&told.len()), "{}", told.len());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lasts_makes_the_next_one_come_soon() {
    let scripted = Scripted::new(|_| Answer::Open(String::new()));
    // The server's time is over after 290 s; it does not end the stream, so the client does.
    let told = told(&scripted, Duration::from_secs(1000)).await;
    let opened = told.iter().filter(|notice| **notice == WatchNotice::Open).count();
    assert_eq!(opened, 4, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn events_may_be_cut_anywhere() {
    for at in 0..event("ADDED", "s", 1).len() {
        let parts = Mutex::new(Some(event("ADDED", "s", 1)));
        struct Cut(Mutex<Option<String>>, usize);
        impl ApiTransport for Cut {
            fn get<'a>(&'a self, _: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
                Box::pin(async move {
                    let text = self.0.lock().take().unwrap_or_default();
                    let (head, tail) = text.split_at(self.1.min(text.len()));
                    let parts = [Ok(Bytes::from(head.to_owned())), Ok(Bytes::from(tail.to_owned()))];
                    Ok(ApiResponse {
                        status: 200,
                        body: Box::pin(stream::iter(parts).chain(stream::pending())),
                    })
                })
            }

            fn server(&self) -> String {
                "here".to_owned()
            }
        }
        let api = KubernetesApi::new(Cut(parts, at));
        let mut stream =
            api.watch(ObjectKind::Secret, "team-a", None, None, Duration::from_secs(1)).await.unwrap();
        let event = stream.next().await.unwrap();
        let expected = WatchEvent::Changed { name: "s".to_owned(), version: "1".to_owned(), gone: false };
        assert_eq!(event, Some(expected), "cut at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_reads_by_path_and_completes_errors() {
    let scripted = Scripted::new(|_| Answer::Body(200, SECRET.to_owned()));
    let store: Arc<dyn crate::SecretStore> = Arc::new(KubernetesStore::new(scripted.api()));
    let stores = SecretStores::new([("k8s".to_owned(), store)].into());
    let reference: SecretReference = "k8s/team-a/s#password".parse().unwrap();
    assert_eq!(stores.read(&reference).await.unwrap().expose(), "hunter2");
    let missing = stores.read(&"k8s/team-a/s#pasword".parse().unwrap()).await.unwrap_err();
    assert!(
        missing.to_string().contains("`k8s/team-a/s#pasword`") && missing.to_string().contains("`pasword`")
    );
    let invalid = stores.read(&"k8s/s#password".parse().unwrap()).await.unwrap_err();
    assert!(matches!(invalid, SecretError::Invalid { .. }), "{invalid}");
    assert_eq!(scripted.asked("/api/v1/namespaces/team-a/secrets/s"), 1, "one path, one read");
}

/// Waits until something holds; time passes by itself.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

fn states(store: &KubernetesStore) -> Vec<WatchState> {
    store.watched().into_iter().map(|(_, state)| state).collect()
}

#[tokio::test(start_paused = true)]
async fn a_few_names_are_watched_alone_and_many_by_their_namespace() {
    let scripted = Scripted::new(|request| match request.path_and_query.as_str() {
        path if path.contains("limit=100") => {
            Answer::Body(200, r#"{"metadata":{"resourceVersion":"41"},"items":[]}"#.to_owned())
        }
        path if path.contains("resourceVersion=41") => {
            Answer::Open(event("MODIFIED", "s3", 42) + &event("MODIFIED", "other", 43))
        }
        _ => Answer::Open(String::new()),
    });
    let store = KubernetesStore::new(scripted.api());
    let mut receivers: Vec<_> =
        (0..8).map(|index| store.watch(&format!("team-a/s{index}")).unwrap()).collect();
    until("eight watches", || states(&store).iter().all(|state| *state == WatchState::Watching)).await;
    assert_eq!((scripted.asked("fieldSelector"), scripted.asked("limit=100")), (8, 0));
    let before = *receivers[3].borrow_and_update();
    receivers.push(store.watch("team-a/s8").unwrap());
    until("a watch of the namespace", || scripted.asked("resourceVersion=41") == 1).await;
    // Once told that it is open, once of the change.
    until("the change is told", || *receivers[3].borrow() == before + 2).await;
    assert_eq!(states(&store), vec![WatchState::Watching; 9]);
    drop(receivers);
    until("nothing is watched", || store.watched().is_empty()).await;
    store.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_permission_to_list_names_are_watched_up_to_a_limit() {
    let scripted = Scripted::new(|request| match request.path_and_query.as_str() {
        path if path.contains("limit=100") => Answer::Body(403, status(403, "cannot list")),
        _ => Answer::Open(String::new()),
    });
    let store = KubernetesStore::new(scripted.api());
    let receivers: Vec<_> = (0..70).map(|index| store.watch(&format!("team-a/s{index}")).unwrap()).collect();
    let count = |wanted: fn(&WatchState) -> bool| states(&store).iter().filter(|state| wanted(state)).count();
    until("64 are watched, 6 polled", || {
        count(|state| *state == WatchState::Watching) == 64
            && count(|state| matches!(state, WatchState::Polling(_))) == 6
    })
    .await;
    assert_eq!(scripted.asked("fieldSelector"), 64);
    drop(receivers);
    until("nothing is watched", || store.watched().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn where_a_watch_is_forbidden_a_minute_passes_at_most_and_people_are_told_why() {
    let value = Arc::new(Mutex::new("b25l"));
    let current = Arc::clone(&value);
    let scripted = Scripted::new(move |request| match request.path_and_query.contains("watch=true") {
        true => Answer::Body(403, status(403, "cannot watch")),
        false => Answer::Body(
            200,
            format!(r#"{{"kind":"Secret","metadata":{{}},"data":{{"p":"{}"}}}}"#, current.lock()),
        ),
    });
    let store: Arc<dyn crate::SecretStore> = Arc::new(KubernetesStore::new(scripted.api()));
    let stores = SecretStores::new([("k8s".to_owned(), store)].into());
    let secret = stores.live(&"k8s/team-a/s#p".parse().unwrap()).await.unwrap();
    let note = || stores.status().remove(0).note;
    until("it is said", || note().is_some()).await;
    let said = note().unwrap();
    assert!(said.contains("once a minute") && said.contains(r#"verbs: ["watch"]"#), "{said}");
    assert_eq!(stores.status()[0].state, crate::SecretState::Ready);
    *value.lock() = "dHdv";
    let began = tokio::time::Instant::now();
    until("the new value", || secret.read().expose() == "two").await;
    assert!(began.elapsed() <= Duration::from_secs(67), "{:?}", began.elapsed());
    stores.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_ends_its_watches() {
    let scripted = Scripted::new(|_| Answer::Refused);
    let store = KubernetesStore::new(scripted.api());
    let mut changes = store.watch("team-a/s").unwrap();
    until("the watch is tried", || matches!(states(&store)[0], WatchState::Interrupted(_))).await;
    drop(store);
    while changes.changed().await.is_ok() {}
    let asked = scripted.asked("watch=true");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(scripted.asked("watch=true"), asked);
}

#[test]
fn settings_never_show_what_they_hold() {
    let server = ServerSettings {
        api_server: "https://me:hunter2@kube.example".to_owned(),
        token: Some(crate::Secret::new("hunter2")),
        proxy_url: Some(crate::Secret::new("http://me:hunter2@proxy")),
        ..ServerSettings::default()
    };
    let transport = ClusterTransport::new(ClusterSettings::Server(Box::new(server)));
    assert_eq!(transport.server(), "the API server https://kube.example");
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let user = |user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:1'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    };
    let get = |context: Option<&str>| {
        let settings =
            ClusterSettings::Kubeconfig { file: file.clone(), context: context.map(str::to_owned) };
        KubernetesApi::new(ClusterTransport::new(settings))
    };
    let error = async |context: Option<&str>| {
        let read = get(context).read(ObjectKind::Secret, &name(), Duration::from_secs(5)).await;
        read.unwrap_err().to_string()
    };
    assert!(error(None).await.contains("config"));
    std::fs::write(&file, "users: [hunter2\n  token").unwrap();
    let text = error(None).await;
    assert!(text.contains("not valid YAML") && !text.contains("hunter2"), "{text}");
    std::fs::write(&file, user("{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}"))
        .unwrap();
    assert!(error(None).await.contains("does not run"));
    std::fs::write(&file, user("{token: hunter2}")).unwrap();
    assert!(error(Some("other")).await.contains("other"));
    let text = error(None).await;
    assert!(text.contains("refused") && !text.contains("hunter2"), "{text}");
}
