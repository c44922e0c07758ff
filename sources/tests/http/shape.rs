//! What is not a document, although a server gives it.

use super::*;

#[tokio::test]
async fn only_200_and_304_are_success() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    for status in [201, 202, 203, 204, 205, 206, 226] {
        server.set(move |_| with_status(status));
        let error = failed(&source, Some(&first)).await;
        assert_eq!(error.class, shape(), "{status}");
        assert!(error.message.contains(&status.to_string()), "{error}");
    }
    for status in [300, 305, 306] {
        server.set(move |_| with_status(status));
        assert_eq!(failed(&source, Some(&first)).await.class, shape(), "{status}");
    }
    for status in [301, 302, 303, 307, 308] {
        server.set(move |_| with_status(status));
        let error = failed(&source, Some(&first)).await;
        assert_eq!(error.class, shape(), "{status} without a location");
        assert!(error.message.contains("without saying where to"), "{error}");
    }
}

/// A status with a whole document, as if nothing were wrong.
fn with_status(status: u16) -> Reply {
    let body = if status == 204 { "" } else { CONTENT };
    Reply::of(status, body)
}

#[tokio::test]
async fn a_web_page_is_no_configuration() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    server.publish("login.html", "<!DOCTYPE html><html><body>Please sign in</body></html>").unwrap();
    let error = failed(&world.at(&server.url("/login.html")), None).await;
    assert_eq!(error.class, shape());
    assert!(error.message.contains("a web page"), "{error}");
    assert!(error.help.unwrap().contains("login page"));
    // Even where the server says that it is something else.
    server.publish("login.alloy", "\n <!DOCTYPE html><html></html>").unwrap();
    assert_eq!(failed(&world.at(&server.url("/login.alloy")), None).await.class, shape());
}

#[tokio::test]
async fn types_of_web_pages_are_refused_whatever_the_body_is() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let source = world.at(&server.url("/x"));
    for kind in ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml"] {
        server.set(move |_| Reply::ok(CONTENT).with("content-type", kind));
        assert_eq!(failed(&source, None).await.class, shape(), "{kind}");
    }
    for kind in ["text/plain", "application/octet-stream", "application/vnd.alloy", "text/htmlx"] {
        server.set(move |_| Reply::ok(CONTENT).with("content-type", kind));
        let found = world.at(&server.url("/x"));
        changed(&found, None).await;
    }
}

#[tokio::test]
async fn an_empty_body_is_no_configuration() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let source = world.at(&server.url("/fleet.alloy"));
    let first = changed(&source, None).await;
    for empty in ["", " \n\t\n", "\u{feff}"] {
        server.publish("fleet.alloy", empty).unwrap();
        let error = failed(&source, Some(&first)).await;
        assert_eq!(error.class, shape(), "{empty:?}");
        assert!(error.message.contains("nothing"), "{error}");
    }
    server.publish("fleet.alloy", OTHER).unwrap();
    assert_eq!(changed(&source, Some(&first)).await.files["fleet.alloy"], OTHER);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_no_configuration() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(b"\x7fELF\xff\xfe".to_vec()));
    let error = failed(&world.at(&server.url("/x")), None).await;
    assert_eq!(error.class, shape());
}

#[tokio::test]
async fn an_encoding_that_was_not_asked_for_is_refused() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let source = world.at(&server.url("/x"));
    for encoding in ["br", "zstd", "deflate", "gzip, gzip", "x"] {
        server.set(move |_| Reply::ok(CONTENT).with("content-encoding", encoding));
        assert_eq!(failed(&source, None).await.class, shape(), "{encoding}");
    }
    server.set(|_| Reply::ok(CONTENT).with("content-encoding", "identity"));
    changed(&source, None).await;
}
