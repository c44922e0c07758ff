//! Who we are, to the server, and who it is to us.

use std::sync::Arc;

use base64::Engine as _;
use invar_sources::{AuthSettings, AuthorizationSettings, BasicSettings, OAuth2Settings, TlsSettings};
use rcgen::CertifiedKey;

use super::*;

pub(crate) type Made = CertifiedKey<rcgen::KeyPair>;

/// A server that shows this certificate.
pub(crate) fn server_config(made: &Made) -> Arc<rustls::ServerConfig> {
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key);
    Arc::new(config.unwrap())
}

/// Settings that trust it.
pub(crate) fn trusting(world: &World, made: &Made) -> TlsSettings {
    let ca = world.folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    TlsSettings { ca: Some(ca), ..TlsSettings::default() }
}

fn basic_header(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

#[tokio::test]
async fn basic_authentication_over_tls() {
    let world = world();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let special = Special {
        tls: Some((certificate.as_str(), key.as_str())),
        basic: Some(("ada", MARKER)),
        ..Special::default()
    };
    let Some(server) = nginx(&world, &special) else { return };
    let mut settings = settings(&server.url("/fleet.alloy"));
    let error = failed(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "an unknown authority: {error}");
    settings.tls = Some(trusting(&world, &made));
    let error = failed(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::AuthExpired);
    assert!(error.help.unwrap().contains("`auth`"));
    let basic = |password: &str| BasicSettings { username: "ada".to_owned(), password: text(password) };
    settings.auth = Some(AuthSettings { basic: Some(basic("wrong")), ..AuthSettings::default() });
    assert_eq!(failed(&world.open(&settings), None).await.class, ErrorClass::AuthExpired);
    settings.auth = Some(AuthSettings { basic: Some(basic(MARKER)), ..AuthSettings::default() });
    let source = world.open(&settings);
    let first = changed(&source, None).await;
    assert!(first.notices.is_empty());
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let shown = format!("{source:?} {settings:?} {first:?} {}", source.description());
    assert!(!shown.contains(MARKER), "{shown}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_a_new_one_is_not() {
    let world = world();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let made = Made { cert: parameters.self_signed(&signing_key).unwrap(), signing_key };
    let server = Scripted::start_tls(server_config(&made), |_| Reply::ok(CONTENT));
    let mut settings = settings(&server.url("/x"));
    settings.tls = Some(trusting(&world, &made));
    let error = failed(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.to_lowercase().contains("expired"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_opens_the_door() {
    let world = world();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let client = rcgen::generate_simple_self_signed(vec!["agent".to_owned()]).unwrap();
    let (certificate, key, authority) =
        (made.cert.pem(), made.signing_key.serialize_pem(), client.cert.pem());
    let special = Special {
        tls: Some((certificate.as_str(), key.as_str())),
        client_authority: Some(authority.as_str()),
        ..Special::default()
    };
    let Some(server) = nginx(&world, &special) else { return };
    let mut settings = settings(&server.url("/fleet.alloy"));
    settings.tls = Some(trusting(&world, &made));
    assert!(poll(&world.open(&settings), None).await.is_err());
    let (cert, key) = (world.folder.path().join("client.pem"), world.folder.path().join("client.key"));
    std::fs::write(&cert, client.cert.pem()).unwrap();
    std::fs::write(&key, client.signing_key.serialize_pem()).unwrap();
    settings.tls = Some(TlsSettings { cert: Some(cert), key: Some(key), ..trusting(&world, &made) });
    changed(&world.open(&settings), None).await;
}

#[tokio::test]
async fn each_way_of_authentication_sends_its_header() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let ways = [
        (AuthSettings { token: Some(text(MARKER)), ..AuthSettings::default() }, format!("Bearer {MARKER}")),
        (
            AuthSettings {
                token: Some(text(MARKER)),
                username: Some("oauth2".to_owned()),
                ..AuthSettings::default()
            },
            basic_header("oauth2", MARKER),
        ),
        (
            AuthSettings {
                basic: Some(BasicSettings { username: "ada".to_owned(), password: text(MARKER) }),
                ..AuthSettings::default()
            },
            basic_header("ada", MARKER),
        ),
        (
            AuthSettings {
                authorization: Some(AuthorizationSettings {
                    scheme: "Token".to_owned(),
                    credentials: text(MARKER),
                }),
                ..AuthSettings::default()
            },
            format!("Token {MARKER}"),
        ),
    ];
    for (auth, expected) in ways {
        let source = world.open(&SourceSettings { auth: Some(auth), ..settings(&server.url("/x")) });
        changed(&source, None).await;
        assert_eq!(server.take_log()[0].header("authorization"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn a_rotated_token_is_used_at_once_and_servers_may_lag_behind() {
    let world = world();
    let file = world.folder.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let server = Scripted::start(|request| match request.header("authorization") {
        Some("Bearer one" | "Bearer three") => Reply::ok(CONTENT),
        _ => Reply::status(401),
    });
    let auth = AuthSettings { token: Some(Credential::File(file.clone())), ..AuthSettings::default() };
    let source = world.open(&SourceSettings { auth: Some(auth), ..settings(&server.url("/x")) });
    let first = changed(&source, None).await;
    std::fs::write(&file, "two\n").unwrap();
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::Transient, "right after a rotation");
    // What cannot even be sent is read again as well.
    std::fs::write(&file, "three\nand a note\n").unwrap();
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
    assert!(error.help.unwrap().contains("on one line") && !error.message.contains("three"));
    std::fs::write(&file, "three\n").unwrap();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

fn client_credentials(token_url: &str) -> AuthSettings {
    AuthSettings {
        oauth2: Some(OAuth2Settings {
            client_id: "agent 7".to_owned(),
            client_secret: text(MARKER),
            token_url: token_url.to_owned(),
            scopes: vec!["read".to_owned(), "list".to_owned()],
            endpoint_params: [("audience".to_owned(), "fleet".to_owned())].into(),
        }),
        ..AuthSettings::default()
    }
}

#[tokio::test]
async fn a_token_of_oauth2_is_fetched_once_and_again_when_it_is_refused() {
    let world = world();
    let issued = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&issued);
    let tokens = Scripted::start(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        Reply::ok(format!(r#"{{"access_token":"t{number}","token_type":"bearer","expires_in":3600}}"#))
    });
    let server = Scripted::start(|_| Reply::ok(CONTENT).with("etag", "\"one\""));
    let auth = client_credentials(&tokens.url("/token"));
    let source = world.open(&SourceSettings { auth: Some(auth), ..settings(&server.url("/x")) });
    let first = changed(&source, None).await;
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert!(server.take_log().iter().all(|request| request.header("authorization") == Some("Bearer t1")));
    let [request] = tokens.take_log().try_into().unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("authorization"), Some(basic_header("agent+7", MARKER).as_str()));
    let form = String::from_utf8(request.body).unwrap();
    assert_eq!(form, "grant_type=client_credentials&scope=read+list&audience=fleet");

    // A token that is refused is fetched anew, once; then the server means it.
    server.set(|request| match request.header("authorization") {
        Some("Bearer t2") => Reply::ok(CONTENT),
        _ => Reply::status(401),
    });
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    server.set(|_| Reply::status(401));
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Forbidden, "{error}");
    assert_eq!(issued.load(std::sync::atomic::Ordering::SeqCst), 3);
    assert!(!format!("{error:?} {source:?}").contains(MARKER));
}

#[tokio::test]
async fn a_server_of_tokens_that_knows_the_body_alone_is_understood() {
    let world = world();
    let tokens = Scripted::start(|request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        if form.contains("client_id=agent+7") && form.contains(MARKER) {
            Reply::ok(r#"{"access_token":"t","expires_in":"60"}"#)
        } else {
            Reply::status(400)
        }
    });
    let server = Scripted::start(|_| Reply::ok(CONTENT));
    let auth = client_credentials(&tokens.url("/token"));
    changed(&world.open(&SourceSettings { auth: Some(auth), ..settings(&server.url("/x")) }), None).await;
    assert_eq!(server.take_log()[0].header("authorization"), Some("Bearer t"));
}

#[tokio::test]
async fn failures_of_the_server_of_tokens_have_their_classes() {
    let world = world();
    for (reply, class) in [
        (Reply::status as fn(u16) -> Reply, ErrorClass::AuthExpired),
        (|_| Reply::status(503), ErrorClass::Transient),
        (|_| Reply::close(), ErrorClass::Transient),
        (|_| Reply::ok("<html>"), ErrorClass::Transient),
        (|_| Reply::ok(r#"{"access_token":""}"#), ErrorClass::Transient),
        (|_| Reply::ok(r#"{"access_token":"x","token_type":"mac"}"#), ErrorClass::Transient),
    ] {
        let tokens = Scripted::start(move |_| reply(401));
        let server = Scripted::start(|_| Reply::ok(CONTENT));
        let auth = client_credentials(&tokens.url("/token"));
        let source = world.open(&SourceSettings { auth: Some(auth), ..settings(&server.url("/x")) });
        let error = failed(&source, None).await;
        assert_eq!(error.class, class, "{error}");
        assert!(server.take_log().is_empty(), "nothing is asked for without the token");
        assert!(!format!("{error:?}").contains(MARKER));
    }
    let auth = Some(client_credentials("http://tokens.example/token"));
    let settings = SourceSettings { auth, ..settings("https://host/x") };
    let error = HttpSource::open(&settings, &world.environment()).unwrap_err();
    assert!(error.message.contains("not encrypted"), "{error}");
}

#[tokio::test]
async fn nothing_that_is_shown_or_kept_holds_what_an_address_or_a_credential_hides() {
    let world = world();
    let server = Scripted::start(|_| Reply::ok(CONTENT).with("etag", "\"one\""));
    let mut settings = settings(&server.url("/fleet.alloy?X-Signature=hunter2-hunter2"));
    settings.auth = Some(AuthSettings { token: Some(text(MARKER)), ..AuthSettings::default() });
    settings.http.as_mut().unwrap().headers.insert("x-key".to_owned(), text(MARKER));
    let source = world.open(&settings);
    let first = changed(&source, None).await;
    let mut shown = format!("{source:?} {first:?} {} {:?}", source.description(), first.notices);
    for reply in [
        Reply::status as fn(u16) -> Reply,
        |_| Reply::close(),
        |_| Reply::hang(),
        |_| Reply::redirect(302, "ftp://x/?hunter2-hunter2"),
        |_| Reply::ok(""),
        |_| Reply::ok(CONTENT).with("content-digest", "sha-256=:AAAA:"),
    ] {
        server.set(move |_| reply(500));
        let error = source.poll(Some(&first), &within(Duration::from_millis(300))).await.unwrap_err();
        shown.push_str(&format!("{error} {error:?}"));
    }
    for kept in world.kept() {
        shown.push_str(&kept.display().to_string());
        shown.push_str(&String::from_utf8_lossy(&std::fs::read(kept).unwrap()));
    }
    assert!(!shown.contains(MARKER), "{shown}");
    let seen = server.take_log();
    assert!(seen[0].target.contains(MARKER), "the query does get there");
}
