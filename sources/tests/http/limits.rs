//! How long an answer may take and how large it may be.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn too_much() -> ErrorClass {
    ErrorClass::Rejected(Rejection::Limits)
}

#[tokio::test]
async fn a_body_of_more_than_eight_mebibytes_is_refused() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let line = "// Everybody writes a comment now and then.\n";
    let long = line.repeat((8 << 20) / line.len() + 1);
    server.publish("fleet.alloy", &long).unwrap();
    let error = failed(&world.at(&server.url("/fleet.alloy")), None).await;
    assert_eq!(error.class, too_much());
    assert!(error.message.contains("8 MiB"), "{error}");
    // Its length is said, so that hardly anything of it is read.
    let mut raised = settings(&server.url("/fleet.alloy"));
    raised.limits.file = 16 << 20;
    assert_eq!(changed(&world.open(&raised), None).await.size(), long.len() as u64);
}

#[tokio::test]
async fn a_body_whose_length_is_not_said_is_read_as_far_as_the_limit() {
    let world = world();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let server = Scripted::start(move |_| match receiver.lock().unwrap().take() {
        Some(receiver) => Reply::stream(receiver),
        None => Reply::status(500),
    });
    // Without end: the thread ends when nobody listens any more.
    let writer = std::thread::spawn(move || while sender.send(vec![b'x'; 1 << 16]).is_ok() {});
    let error = failed(&world.at(&server.url("/x")), None).await;
    assert_eq!(error.class, too_much());
    // The connection is closed by a task of this runtime, which must not be held up.
    tokio::task::spawn_blocking(move || writer.join()).await.unwrap().unwrap();
}

#[tokio::test]
async fn compressed_answers_are_read_and_bombs_are_not() {
    let world = world();
    let Some(server) = nginx(&world, &Special { directives: "gzip on;", ..Special::default() }) else {
        return;
    };
    let text: String = (0..5000).map(|n| format!("// {}\n", n * 7919)).collect();
    server.publish("fleet.alloy", &text).unwrap();
    let source = world.at(&server.url("/fleet.alloy"));
    let first = changed(&source, None).await;
    assert_eq!(first.files["fleet.alloy"], text);
    let served = server.served(1).unwrap();
    assert!(served[0].bytes.1 < text.len() as u64 / 2, "it was compressed on the way");
    // nginx calls what it compresses by a weak tag.
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(server.served(2).unwrap()[1].status, 304);

    let bomb = gzip(&vec![b' '; 32 << 20]);
    let server = Scripted::start(move |_| Reply::ok(bomb.clone()).with("content-encoding", "gzip"));
    let error = failed(&world.at(&server.url("/x")), None).await;
    assert_eq!(error.class, too_much());
    assert!(error.message.contains("100 times"), "{error}");
}

#[tokio::test]
async fn a_decompressed_document_has_a_limit_of_its_own() {
    let world = world();
    let text: String = (0..500).map(|n| format!("// {}\n", n * 7919)).collect();
    let sent = gzip(text.as_bytes());
    let server = Scripted::start(move |_| Reply::ok(sent.clone()).with("content-encoding", "gzip"));
    let mut small = settings(&server.url("/x"));
    small.limits.bytes = 1000;
    let error = failed(&world.open(&small), None).await;
    assert_eq!(error.class, too_much());
    assert!(error.message.contains("when decompressed"), "{error}");
}

#[tokio::test]
async fn all_of_it_has_a_time() {
    let world = world();
    let source = world.at("http://127.0.0.1:1/x");
    assert_eq!(source.timeout(true), Duration::from_secs(30));
    assert_eq!(source.timeout(false), Duration::from_secs(30));
    // A server that never answers, and one whose answer never ends.
    for reply in
        [Reply::hang as fn() -> Reply, || Reply::ok(CONTENT.repeat(100)).drip(Duration::from_millis(20))]
    {
        let server = Scripted::start(move |_| reply());
        let source = world.at(&server.url("/x"));
        let error = source.poll(None, &within(Duration::from_millis(300))).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("in time"), "{error}");
        // And it recovers by itself.
        server.set(|_| Reply::ok(CONTENT));
        changed(&source, None).await;
    }
}

#[tokio::test]
async fn a_cancelled_poll_ends_at_once() {
    let world = world();
    let server = Scripted::start(|_| Reply::hang());
    let source = world.at(&server.url("/x"));
    let context = context();
    let cancellation = context.cancellation.clone();
    let (result, ()) = tokio::join!(source.poll(None, &context), async { cancellation.cancel() });
    assert!(result.unwrap_err().message.contains("cancelled"));
}
