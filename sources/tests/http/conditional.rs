//! Asking again: what did not change does not travel, and what is only said not to have changed is not believed.

use super::*;

#[tokio::test]
async fn an_unchanged_poll_moves_no_body() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let source = world.at(&server.url("/fleet.alloy"));
    let first = changed(&source, None).await;
    assert_eq!(first.files["fleet.alloy"], CONTENT);
    assert_eq!(first.paths, ["fleet.alloy"]);
    assert!(first.notices.is_empty(), "{:?}", first.notices);
    for _ in 0..3 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    }
    let served = server.served(4).unwrap();
    assert_eq!((served[0].status, served[0].bytes.1), (200, CONTENT.len() as u64));
    for again in &served[1..4] {
        assert_eq!((again.status, again.bytes.1), (304, 0));
        assert!(again.bytes.0 < 250, "{} bytes in all", again.bytes.0);
    }

    server.publish("fleet.alloy", OTHER).unwrap();
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["fleet.alloy"], OTHER);
    assert_ne!(second.revision.text, first.revision.text);
    assert!(second.revision.text.starts_with("http:sha256:"), "{}", second.revision);
}

#[tokio::test]
async fn a_restart_moves_no_body_either() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let url = server.url("/fleet.alloy");
    let first = changed(&world.at(&url), None).await;
    // Whether the agent remembers a snapshot or not.
    let again = changed(&world.at(&url), None).await;
    assert_eq!((&again.files, &again.revision), (&first.files, &first.revision));
    assert_eq!(poll(&world.at(&url), Some(&first)).await.unwrap(), None);
    let served = server.served(3).unwrap();
    assert_eq!(served.iter().map(|served| served.status).collect::<Vec<_>>(), [200, 304, 304]);
}

#[tokio::test]
async fn validators_go_along_only_with_a_content_whose_hash_is_right() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let url = server.url("/fleet.alloy");
    let first = changed(&world.at(&url), None).await;
    let [kept] = world.kept().try_into().unwrap();
    let whole = std::fs::read(&kept).unwrap();
    for damage in [&whole[..whole.len() - 1], &[&whole[..whole.len() - 1], b"x"].concat(), b""] {
        std::fs::write(&kept, damage).unwrap();
        assert_eq!(poll(&world.at(&url), Some(&first)).await.unwrap(), None);
    }
    std::fs::remove_file(&kept).unwrap();
    assert_eq!(poll(&world.at(&url), Some(&first)).await.unwrap(), None);
    assert!(server.served(5).unwrap().iter().all(|served| served.status == 200));
    // Under other settings the content was read with other eyes.
    let pinned = world.with(&url, |http| http.sha256 = Some(first.revision.text.replace("http:sha256:", "")));
    changed(&pinned, Some(&first)).await;
    assert_eq!(server.served(6).unwrap()[5].status, 200);
}

#[tokio::test]
async fn both_validators_are_sent_and_dates_as_they_came() {
    let date = "Sunday, 06-Nov-94 08:49:37 GMT";
    let server =
        Scripted::start(move |_| Reply::ok(CONTENT).with("etag", "\"one\"").with("last-modified", date));
    let world = world();
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    server.set(|_| Reply::status(304));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let log = server.take_log();
    assert_eq!((log[0].header("if-none-match"), log[0].header("if-modified-since")), (None, None));
    assert_eq!(log[1].header("if-none-match"), Some("\"one\""));
    assert_eq!(log[1].header("if-modified-since"), Some(date));
}

#[tokio::test]
async fn a_weak_etag_serves_as_well_and_one_that_changes_alone_changes_nothing() {
    let server = Scripted::start(|_| Reply::ok(CONTENT).with("etag", "W/\"replica-1\""));
    let world = world();
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    // Another replica, another name for the same content: a download, never a change.
    server.set(|_| Reply::ok(CONTENT).with("etag", "W/\"replica-2\""));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    server.set(|_| Reply::status(304));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let log = server.take_log();
    assert_eq!(log[1].header("if-none-match"), Some("W/\"replica-1\""));
    assert_eq!(log[2].header("if-none-match"), Some("W/\"replica-2\""));
}

#[tokio::test]
async fn a_304_without_asking_is_an_error() {
    let server = Scripted::start(|_| Reply::status(304));
    let world = world();
    let source = world.at(&server.url("/x"));
    let error = failed(&source, None).await;
    assert_eq!(error.class, shape());
    assert!(error.message.contains("without having been asked"), "{error}");
    // An answer without validators leaves nothing to ask with.
    server.set(|_| Reply::ok(CONTENT));
    let first = changed(&source, None).await;
    server.set(|_| Reply::status(304));
    assert_eq!(failed(&source, Some(&first)).await.class, shape());
}

#[tokio::test]
async fn a_gateway_that_takes_the_conditions_wrong_is_asked_without_them() {
    let server = Scripted::start(|_| Reply::ok(CONTENT).with("etag", "\"one\""));
    let world = world();
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    server.set(|request| match request.header("if-none-match") {
        Some(_) => Reply::status(412),
        None => Reply::ok(CONTENT),
    });
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    server.set(|_| Reply::status(412));
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::Transient);
}

#[tokio::test]
async fn a_document_of_another_kind_or_name_is_no_unchanged_one() {
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let world = world();
    let first = changed(&world.at(&server.url("/a.alloy")), None).await;
    let other = changed(&world.at(&server.url("/b.alloy")), Some(&first)).await;
    assert_ne!(other.digest, first.digest);
    assert_eq!(other.revision, first.revision, "the content is the same");
}

#[tokio::test]
async fn what_a_failure_leaves_is_as_good_as_before() {
    let server = Scripted::start(|_| Reply::ok(CONTENT).with("etag", "\"one\""));
    let world = world();
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    for status in [500, 404, 403, 204] {
        server.set(move |_| Reply::status(status));
        failed(&source, Some(&first)).await;
        server.set(|_| Reply::status(304));
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None, "after {status}");
    }
}

/// Longer than the list of C3 asks, but what an agent does in a week.
#[tokio::test]
async fn ten_thousand_polls_take_no_more_connections_and_descriptors_than_one() {
    let server = Scripted::start(|request| match request.header("if-none-match") {
        Some(_) => Reply::status(304),
        None => Reply::ok(CONTENT).with("etag", "\"one\""),
    });
    let world = world();
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map(|entries| entries.count());
    let before = descriptors();
    for _ in 0..10_000 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(server.body_bytes(), CONTENT.len());
    if let (Ok(before), Ok(after)) = (before, descriptors()) {
        // Other tests of this process open some of their own.
        assert!(after < before + 100, "{before} then, {after} now");
    }
}
