//! What failures mean for when to ask again, and what they say.

use invar_sources::{AuthSettings, NoticeKind};

use super::*;

#[tokio::test]
async fn each_status_has_its_class() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    let limited = |after: Option<u64>| ErrorClass::RateLimited { after: after.map(Duration::from_secs) };
    for (status, header, class) in [
        (401, None, ErrorClass::AuthExpired),
        (403, None, ErrorClass::Forbidden),
        (403, Some(("retry-after", "7")), limited(Some(7))),
        (403, Some(("x-ratelimit-remaining", "0")), limited(None)),
        (404, None, ErrorClass::NotFound),
        (410, None, ErrorClass::NotFound),
        (408, None, ErrorClass::Transient),
        (412, None, ErrorClass::Transient),
        (425, None, ErrorClass::Transient),
        (429, None, limited(None)),
        (429, Some(("retry-after", "120")), limited(Some(120))),
        (500, None, ErrorClass::Transient),
        (502, None, ErrorClass::Transient),
        (503, None, ErrorClass::Transient),
        (503, Some(("retry-after", "30")), limited(Some(30))),
        (504, None, ErrorClass::Transient),
        // A gateway may have its moods.
        (400, None, ErrorClass::Transient),
        (405, None, ErrorClass::Transient),
        (418, None, ErrorClass::Transient),
    ] {
        server.set(move |_| {
            let reply = Reply::status(status);
            header.map_or(Reply::status(status), |(name, value)| reply.with(name, value))
        });
        let error = failed(&source, Some(&first)).await;
        assert_eq!(error.class, class, "{status} {header:?}");
        assert!(error.message.contains(&status.to_string()), "{error}");
    }
    // Each of them is over when it is over.
    server.set(|_| Reply::ok(CONTENT));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn a_retry_date_is_measured_against_the_answers_own() {
    let world = world();
    let server = Scripted::start(|_| {
        Reply::status(429)
            .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .with("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")
    });
    let error = failed(&world.at(&server.url("/x")), None).await;
    assert_eq!(error.class, ErrorClass::RateLimited { after: Some(Duration::from_secs(30)) });
}

#[tokio::test]
async fn a_404_says_that_it_may_be_hidden() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let error = failed(&world.at(&server.url("/nowhere.alloy?sig=hunter2-hunter2")), None).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.contains("needs a credential"), "{error}");
    assert!(!format!("{error:?}").contains(MARKER));
}

#[tokio::test]
async fn broken_connections_are_asked_again() {
    let world = world();
    let nobody = Scripted::start(|_| Reply::ok(CONTENT)).url("/x");
    assert_eq!(failed(&world.at(&nobody), None).await.class, ErrorClass::Transient, "nobody listens");
    assert_eq!(
        failed(&world.at("http://no-such-host.invalid/x"), None).await.class,
        ErrorClass::Transient,
        "no such name"
    );
    for (what, reply) in [
        ("closed without an answer", Reply::close as fn() -> Reply),
        ("cut in the body", || Reply::ok(CONTENT).cut(5)),
        ("cut before the body", || Reply::ok(CONTENT).cut(0)),
        ("a length that is too large", || Reply::ok(CONTENT).with("content-length", "1000").cut(1000)),
        ("a length that is no number", || Reply::ok(CONTENT).with("content-length", "x")),
        ("a broken gzip", || Reply::ok(CONTENT).with("content-encoding", "gzip")),
    ] {
        let server = Scripted::start(move |_| reply());
        let source = world.at(&server.url("/x"));
        assert_eq!(failed(&source, None).await.class, ErrorClass::Transient, "{what}");
        server.set(|_| Reply::ok(CONTENT));
        changed(&source, None).await;
    }
}

#[tokio::test]
async fn max_age_lengthens_the_interval_and_never_shortens_it() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let source = world.at(&server.url("/x"));
    let first = changed(&source, None).await;
    assert_eq!((source.interval(), source.suggested_interval()), (Duration::from_secs(60), None));
    // The poller keeps to the interval at least and to ten times that at most.
    for (header, expected) in [
        ("max-age=5", Some(5)),
        ("public, max-age=300, immutable", Some(300)),
        ("no-cache, max-age=300", None),
    ] {
        server.set(move |_| Reply::ok(CONTENT).with("cache-control", header));
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
        assert_eq!(source.suggested_interval(), expected.map(Duration::from_secs), "{header}");
        assert_eq!(source.interval(), Duration::from_secs(60));
    }
    server.set(|_| Reply::ok(CONTENT).with("cache-control", "max-age=300"));
    poll(&source, Some(&first)).await.unwrap();
    server.set(|_| Reply::status(404));
    failed(&source, Some(&first)).await;
    assert_eq!(source.suggested_interval(), None, "a failure is looked after at the usual pace");
}

#[tokio::test]
async fn plain_http_is_noticed_and_gets_no_credential() {
    let world = world();
    let mut remote = settings("http://config.example/x?sig=hunter2-hunter2");
    remote.auth = Some(AuthSettings { token: Some(text(MARKER)), ..AuthSettings::default() });
    let mut headers = settings("http://config.example/x");
    headers.http.as_mut().unwrap().headers.insert("x-key".to_owned(), text(MARKER));
    for settings in [&remote, &headers] {
        let error = HttpSource::open(settings, &world.environment()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Stalled);
        assert!(error.message.contains("without encryption"), "{error}");
        assert!(!format!("{error:?}").contains(MARKER));
    }
    // A name that is not this host's, at an address that is, behind a proxy that a test can stand for.
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let mut proxied = settings("http://config.example/x.alloy");
    proxied.proxy = Some(invar_sources::ProxySettings {
        url: server.url(""),
        no_proxy: Vec::new(),
        username: None,
        password: None,
    });
    let first = changed(&world.open(&proxied), None).await;
    let [notice] = first.notices.as_slice() else { panic!("{:?}", first.notices) };
    assert_eq!(notice.kind, NoticeKind::InsecureTransport);
    assert_eq!(server.take_log()[0].target, "http://config.example/x.alloy");
}

#[tokio::test]
async fn settings_that_cannot_work_say_so() {
    let world = world();
    type Change = fn(&mut HttpSettings);
    let cases: [(Change, &str); 8] = [
        (|http| http.url = "ftp://host/x".to_owned(), "https://"),
        (|http| http.url = "nonsense".to_owned(), "not an address"),
        (|http| http.url = "https://me:hunter2-hunter2@host/x".to_owned(), "use `auth`"),
        (|http| http.sha256 = Some("abc".to_owned()), "64 hexadecimal digits"),
        (
            |http| {
                http.headers.insert("a b".to_owned(), text("x"));
            },
            "no name",
        ),
        (
            |http| {
                http.headers.insert("Host".to_owned(), text("x"));
            },
            "by the agent itself",
        ),
        (
            |http| {
                http.headers.insert("If-None-Match".to_owned(), text("x"));
            },
            "by the agent itself",
        ),
        (
            |http| {
                http.notify = Some(invar_sources::Notify::Sse);
                http.notify_url = Some("https://me:hunter2-hunter2@host/x".to_owned());
            },
            "use `auth`",
        ),
    ];
    for (change, says) in cases {
        let mut settings = settings("https://host/x");
        change(settings.http.as_mut().unwrap());
        let error = HttpSource::open(&settings, &world.environment()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Stalled);
        assert!(error.message.contains(says), "{error}");
        assert!(!format!("{error:?}").contains(MARKER));
    }
}
