#![allow(clippy::unwrap_used)]

#[path = "../../../../integration/servers/http/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};

use invar_secrets::SecretStores;
use scripted::{Reply, Scripted};

use super::*;
use crate::SourceEnvironment;
use crate::connection::{Connection, Style};
use crate::settings::{HttpSettings, SourceSettings};

/// As in production, only that nothing takes long. What is waited for comes; what must not come would have come.
const QUICK: Timing = Timing {
    silence: Duration::from_secs(2),
    wait: Duration::from_secs(20),
    prompt: Duration::from_millis(50),
    head: Duration::from_secs(20),
    first_pause: Duration::from_millis(2),
    last_pause: Duration::from_millis(20),
    stable: Duration::from_secs(60),
};

fn push(kind: Notify, url: &str) -> Push {
    push_with(kind, url, QUICK)
}

fn push_with(kind: Notify, url: &str, timing: Timing) -> Push {
    let settings = SourceSettings::for_http(HttpSettings { url: url.to_owned(), ..HttpSettings::default() });
    let environment =
        SourceEnvironment { state_directory: std::path::PathBuf::new(), secrets: SecretStores::local() };
    let url = Url::parse(url).unwrap();
    let style = Style::documents(None, false).unwrap();
    let connection = Connection::with_style(url.clone(), &settings, "test", &environment, style).unwrap();
    let fetcher = Arc::new(Fetcher::new(connection, &BTreeMap::new()).unwrap());
    Push::of(Plan { kind, url, fetcher, timing })
}

async fn hinted(hints: &mut watch::Receiver<u64>) {
    timeout(Duration::from_secs(20), hints.changed()).await.expect("there is a hint").unwrap();
    hints.mark_unchanged();
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let looking = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

/// A server of events: each connection gives the test its other end.
fn events() -> (Scripted, std::sync::mpsc::Receiver<Sender<Vec<u8>>>) {
    let (connected, connections) = channel();
    let server = Scripted::start(move |_| {
        let (sender, receiver) = channel();
        connected.send(sender).unwrap();
        Reply::stream(receiver).with("content-type", "text/event-stream; charset=utf-8")
    });
    (server, connections)
}

#[test]
fn pauses_double_up_to_five_minutes_and_half_of_each_is_random() {
    let pause = |n, unit| TIMING.pause(TIMING.first_pause, n, unit).as_millis();
    assert_eq!([0, 1, 2, 3, 4].map(|n| pause(n, 1.0)), [1000, 2000, 4000, 8000, 16_000]);
    assert_eq!(pause(11, 1.0), 300_000);
    assert_eq!([0, 1, 2].map(|n| pause(n, 0.0)), [500, 1000, 2000]);
    assert_eq!(TIMING.pause(TIMING.last_pause, u32::MAX, 1.0), TIMING.last_pause);
    // What the specification says of heartbeats and waiting.
    assert_eq!((TIMING.silence.as_secs(), TIMING.wait.as_secs()), (45, 70));
}

async fn connection(connections: &std::sync::mpsc::Receiver<Sender<Vec<u8>>>) -> Sender<Vec<u8>> {
    let mut found = None;
    until("a connection", || {
        found = connections.try_recv().ok();
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn an_event_means_look_now_and_a_heartbeat_means_nothing() {
    let (server, connections) = events();
    let push = push(Notify::Sse, &server.url("/events"));
    assert!(!push.is_healthy());
    let mut hints = push.subscribe();
    let stream = connection(&connections).await;
    until("the stream is there", || push.is_healthy()).await;
    stream.send(b": heartbeat\n\n".to_vec()).unwrap();
    stream.send(b"id: 7\ndata: anything at all\n\n".to_vec()).unwrap();
    hinted(&mut hints).await;
    assert_eq!(*hints.borrow(), 1, "one hint for one event");
    let [request] = server.take_log().try_into().unwrap();
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.header("last-event-id"), None);
    // Subscribing again does not connect again.
    drop(push.subscribe());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_lost_stream_is_taken_up_where_it_ended() {
    let (server, connections) = events();
    let push = push(Notify::Sse, &server.url("/events"));
    let mut hints = push.subscribe();
    let stream = connection(&connections).await;
    stream.send(b"id: 7\ndata: x\n\n".to_vec()).unwrap();
    hinted(&mut hints).await;
    drop(stream);
    // Losing touch is worth a look, and so is what was missed meanwhile.
    hinted(&mut hints).await;
    let stream = connection(&connections).await;
    until("the stream is there again", || push.is_healthy()).await;
    until("what was missed is looked for", || *hints.borrow() >= 3).await;
    let log = server.take_log();
    assert_eq!(log.last().unwrap().header("last-event-id"), Some("7"));
    drop(stream);
}

#[tokio::test]
async fn a_silent_stream_is_dead_and_one_with_heartbeats_is_not() {
    let (server, connections) = events();
    let push = push(Notify::Sse, &server.url("/events"));
    let mut hints = push.subscribe();
    let stream = connection(&connections).await;
    until("the stream is there", || push.is_healthy()).await;
    // Longer than the silence in all.
    for _ in 0..12 {
        stream.send(b":\n".to_vec()).unwrap();
        tokio::time::sleep(QUICK.silence / 10).await;
    }
    assert!(push.is_healthy() && *hints.borrow() == 0);
    // From here on nothing comes, although the connection stays.
    hinted(&mut hints).await;
    connection(&connections).await;
}

#[tokio::test]
async fn an_answer_that_is_no_stream_of_events_is_none() {
    for reply in [
        Reply::status as fn(u16) -> Reply,
        |_| Reply::status(204),
        |_| Reply::ok("data: x\n\n").with("content-type", "text/plain"),
        |_| Reply::close(),
    ] {
        let server = Scripted::start(move |_| reply(503));
        let push = push(Notify::Sse, &server.url("/events"));
        let hints = push.subscribe();
        let mut requests = 0;
        until("it is tried again", || {
            requests += server.take_log().len();
            requests >= 3
        })
        .await;
        assert!(!push.is_healthy() && *hints.borrow() == 0);
    }
}

#[tokio::test]
async fn a_task_ends_with_its_source() {
    let (server, connections) = events();
    let push = push(Notify::Sse, &server.url("/events"));
    let hints = push.subscribe();
    let stream = connection(&connections).await;
    drop(push);
    until("nobody listens any more", || {
        stream.send(b":\n".to_vec()).is_err() || hints.has_changed().is_err()
    })
    .await;
}

#[tokio::test]
async fn a_late_answer_means_look_now() {
    let late = QUICK.prompt * 4;
    let version = Arc::new(std::sync::atomic::AtomicU32::new(1));
    let seen = Arc::clone(&version);
    let server = Scripted::start(move |request| {
        let tag = format!("\"{}\"", seen.load(Ordering::SeqCst));
        let known = request.header("if-none-match") == Some(tag.as_str());
        if known { Reply::status(304).late(late) } else { Reply::ok("x").with("etag", tag) }
    });
    let push = push(Notify::LongPoll, &server.url("/x"));
    let mut hints = push.subscribe();
    // What is there when it starts is new to it.
    hinted(&mut hints).await;
    until("the server waits", || push.is_healthy()).await;
    assert_eq!(*hints.borrow(), 1, "no change, no hint");
    version.store(2, Ordering::SeqCst);
    hinted(&mut hints).await;
    let log = server.take_log();
    assert!(log.iter().all(|request| request.header("prefer") == Some("wait=55")));
    assert_eq!((log[0].header("if-none-match"), log[1].header("if-none-match")), (None, Some("\"1\"")));
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_no_push() {
    // One that says at once that nothing changed, and one that always has something new.
    let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let always_new = Scripted::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Reply::ok("x").with("etag", format!("\"{number}\""))
    });
    let never_new = Scripted::start(|request| match request.header("if-none-match") {
        Some(_) => Reply::status(304),
        None => Reply::ok("x").with("etag", "\"one\""),
    });
    // An answer that a busy host brings late is none for which the server waited.
    let timing = Timing { prompt: Duration::from_secs(20), ..QUICK };
    for server in [always_new, never_new] {
        let push = push_with(Notify::LongPoll, &server.url("/x"), timing);
        let _hints = push.subscribe();
        let mut requests = 0;
        until("it is tried a few times", || {
            requests += server.take_log().len();
            requests > 6
        })
        .await;
        assert!(!push.is_healthy());
    }
}
