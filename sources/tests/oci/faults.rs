//! What real registries cannot be made to do: to lie, to page their lists, to hand out tokens elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_sources::{AuthSettings, BasicSettings};

use super::*;
use crate::publish::{FLUX_CONTENT, MANIFEST, digest, manifest};
use crate::scripted::{Reply, Request, Scripted};

/// One artifact by the addresses of its parts, as a registry answers for them.
fn artifact(content: &str) -> (String, BTreeMap<String, (String, Vec<u8>)>) {
    let layer = archive(&[("a.alloy", content)]);
    let manifest = manifest(FLUX_CONTENT, &layer).into_bytes();
    let name = digest(&manifest);
    let parts = BTreeMap::from([
        ("/v2/fleet/manifests/latest".to_owned(), (MANIFEST.to_owned(), manifest.clone())),
        (format!("/v2/fleet/manifests/{name}"), (MANIFEST.to_owned(), manifest)),
        (format!("/v2/fleet/blobs/{}", digest(&layer)), ("application/octet-stream".to_owned(), layer)),
    ]);
    (name, parts)
}

fn serve(parts: &BTreeMap<String, (String, Vec<u8>)>, request: &Request) -> Reply {
    match parts.get(&request.target) {
        Some((kind, content)) => {
            let reply = Reply::ok(content.clone()).with("content-type", kind.as_str());
            reply.with("docker-content-digest", digest(content))
        }
        None => Reply::status(404),
    }
}

fn source(server: &Scripted, change: impl FnOnce(&mut SourceSettings)) -> OciSource {
    let mut settings = settings(&format!("{}/fleet", server.address()));
    change(&mut settings);
    open(Path::new("/nonexistent"), &settings)
}

fn ada() -> Option<AuthSettings> {
    let basic = BasicSettings { username: "ada".to_owned(), password: text(MARKER) };
    Some(AuthSettings { basic: Some(basic), ..AuthSettings::default() })
}

#[tokio::test]
async fn an_unchanged_poll_is_one_head_without_a_body() {
    let (_, parts) = artifact("one");
    let server = Scripted::start(move |request| serve(&parts, request));
    let source = source(&server, |_| {});
    let first = changed(&source, None).await;
    let (asked, bytes) = (server.take_log(), server.body_bytes());
    let methods: Vec<&str> = asked.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["HEAD", "GET", "GET"]);
    for _ in 0..3 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
        let [request] = server.take_log().try_into().unwrap();
        assert_eq!(request.method, "HEAD");
    }
    assert_eq!(server.body_bytes(), bytes);
}

#[tokio::test]
async fn an_unchanged_poll_of_a_range_is_one_list_of_tags_over_all_its_pages() {
    let (_, mut parts) = artifact("one");
    let latest = parts["/v2/fleet/manifests/latest"].clone();
    parts.insert("/v2/fleet/manifests/1.2.0".to_owned(), latest);
    let server = Scripted::start(move |request| match request.target.as_str() {
        "/v2/fleet/tags/list?n=1000" => Reply::ok(r#"{"name":"fleet","tags":["1.0.0","latest"]}"#)
            .with("link", "</v2/fleet/tags/list?n=1000&last=latest>; rel=\"next\""),
        "/v2/fleet/tags/list?n=1000&last=latest" => Reply::ok(r#"{"name":"fleet","tags":["1.2.0"]}"#),
        _ => serve(&parts, request),
    });
    let source = source(&server, |settings| settings.oci.as_mut().unwrap().semver = Some("1".to_owned()));
    let first = changed(&source, None).await;
    assert!(first.revision.text.starts_with("1.2.0@"), "{}", first.revision);
    server.take_log();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert!(server.take_log().iter().all(|request| request.target.contains("/tags/list")));
    server.set(|_| Reply::ok(r#"{"tags":[]}"#).with("link", "<https://elsewhere.example/x>; rel=\"next\""));
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::Integrity);
    server.set(|_| Reply::ok(r#"{"tags":null}"#));
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::NotFound);
    server.set(|_| Reply::ok("{}").with("link", "</v2/fleet/tags/list?n=1000>; rel=\"next\""));
    assert_eq!(
        failed(&source, Some(&first)).await.class,
        ErrorClass::Rejected(Rejection::Limits),
        "for ever"
    );
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused() {
    let (name, parts) = artifact("one");
    let (_, other) = artifact("two");
    for lie in ["manifest", "blob", "longer"] {
        let (name, parts, other) = (name.clone(), parts.clone(), other.clone());
        let server = Scripted::start(move |request| {
            let is_blob = request.target.contains("/blobs/");
            let by_digest = request.target.contains(&name);
            match lie {
                "manifest" if by_digest => Reply::ok(other["/v2/fleet/manifests/latest"].1.clone()),
                "blob" if is_blob => {
                    let mut content = parts[&request.target].1.clone();
                    content[20] ^= 1;
                    Reply::ok(content)
                }
                "longer" if is_blob => Reply::ok([parts[&request.target].1.as_slice(), b"x"].concat()),
                _ => serve(&parts, request),
            }
        });
        let error = failed(&source(&server, |_| {}), None).await;
        assert_eq!(error.class, ErrorClass::Integrity, "{lie}: {error}");
        assert!(error.message.contains("digest"), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_say_digests_is_read_as_well() {
    let (name, parts) = artifact("one");
    let server = Scripted::start(move |request| match parts.get(&request.target) {
        Some((_, content)) => Reply::ok(content.clone()),
        None => Reply::status(404),
    });
    let source = source(&server, |_| {});
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("latest@{name}"));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn tokens_are_fetched_where_the_registry_says_and_only_to_pull() {
    let tokens = Scripted::start(|request| {
        assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
        Reply::ok(r#"{"token":"t1","expires_in":300}"#)
    });
    let realm = tokens.url("/token");
    let (_, parts) = artifact("one");
    let server = Scripted::start(move |request| match request.header("authorization") {
        Some("Bearer t1") => serve(&parts, request),
        _ => Reply::status(401).with(
            "www-authenticate",
            format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:fleet:pull,push,delete\""),
        ),
    });
    let source = source(&server, |settings| settings.auth = ada());
    let first = changed(&source, None).await;
    let [request] = tokens.take_log().try_into().unwrap();
    assert_eq!(request.target, "/token?service=s&scope=repository%3Afleet%3Apull");
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert!(tokens.take_log().is_empty(), "the token is good for a while");
    // One that is refused is fetched anew, once.
    server.set({
        let realm = tokens.url("/token");
        move |_| Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\""))
    });
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::AuthExpired);
    assert_eq!(tokens.take_log().len(), 1);
}

#[tokio::test]
async fn tokens_of_places_that_are_not_encrypted_or_not_there_are_not_asked_for() {
    for realm in [
        "http://tokens.example/token",
        "ftp://127.0.0.1/token",
        "nonsense",
        "https://me:pw@tokens.example/token",
        "http://169.254.169.254/token",
    ] {
        let server = Scripted::start(move |_| {
            Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let error = failed(&source(&server, |settings| settings.auth = ada()), None).await;
        assert_eq!(error.class, ErrorClass::Integrity, "{realm}: {error}");
        assert!(!format!("{error:?}").contains(MARKER));
    }
    for (status, class) in
        [(401, ErrorClass::AuthExpired), (403, ErrorClass::Forbidden), (503, ErrorClass::Transient)]
    {
        let tokens = Scripted::start(move |_| Reply::status(status));
        let realm = tokens.url("/token");
        let server = Scripted::start(move |_| {
            Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\""))
        });
        let error = failed(&source(&server, |settings| settings.auth = ada()), None).await;
        assert_eq!(error.class, class, "{error}");
        assert!(error.message.contains("gives no token"), "{error}");
    }
}

#[tokio::test]
async fn blobs_that_are_elsewhere_are_fetched_without_our_credentials() {
    let (_, parts) = artifact("one");
    let stored = Arc::new(parts.clone());
    let store = {
        let stored = Arc::clone(&stored);
        Scripted::start(move |request| {
            assert_eq!(request.header("authorization"), None);
            let target = request.target.split('?').next().unwrap();
            Reply::ok(stored[target].1.clone())
        })
    };
    let base = store.url("");
    let server = Scripted::start(move |request| {
        if request.header("authorization").is_none() {
            Reply::status(401).with("www-authenticate", "Basic realm=\"x\"")
        } else if request.target.contains("/blobs/") {
            Reply::redirect(307, format!("{base}{}?signature=hunter2-hunter2", request.target))
        } else {
            serve(&parts, request)
        }
    });
    let source = source(&server, |settings| settings.auth = ada());
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one");
    assert_eq!(store.take_log().len(), 1);
    for location in ["ftp://x/", "http://169.254.169.254/x", "https://a:b@host/"] {
        server.set(move |_| Reply::redirect(307, location));
        assert_eq!(failed(&source, None).await.class, ErrorClass::Integrity, "{location}");
    }
}

#[tokio::test]
async fn each_status_has_its_class_and_each_failure_is_over_when_it_is_over() {
    let (_, parts) = artifact("one");
    let parts = Arc::new(parts);
    let whole = Arc::clone(&parts);
    let server = Scripted::start(move |request| serve(&whole, request));
    let source = source(&server, |_| {});
    let first = changed(&source, None).await;
    for (status, class) in [
        (401, ErrorClass::AuthExpired),
        (403, ErrorClass::Forbidden),
        (404, ErrorClass::NotFound),
        (429, ErrorClass::RateLimited { after: Some(Duration::from_secs(7)) }),
        (500, ErrorClass::Transient),
        (503, ErrorClass::RateLimited { after: Some(Duration::from_secs(7)) }),
        (204, shape()),
        (400, ErrorClass::Transient),
    ] {
        server.set(move |_| Reply::status(status).with("retry-after", "7"));
        if status == 403 || status == 500 {
            server.set(move |_| Reply::status(status));
        }
        assert_eq!(failed(&source, Some(&first)).await.class, class, "{status}");
    }
    for reply in [Reply::close as fn() -> Reply, || Reply::ok("{}").cut(1)] {
        server.set(move |request| match request.method.as_str() {
            "HEAD" => Reply::close(),
            _ => reply(),
        });
        assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::Transient);
    }
    server.set(|_| Reply::ok("<html>"));
    assert_eq!(failed(&source, None).await.class, shape());
    server.set(move |request| serve(&parts, request));
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}
