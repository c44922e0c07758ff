//! Credentials, TLS and redirects.

use std::sync::Arc;

use base64::Engine as _;
use http_backend::{Access, Fault};
use invar_secrets::{Credential, Secret};
use invar_sources::{AuthSettings, BasicSettings, TlsSettings};

use super::*;

const PASSWORD: &str = "hunter2-hunter2";

fn basic(username: &str, password: &str) -> String {
    let joined = format!("{username}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(joined))
}

fn token(credential: Credential) -> Option<AuthSettings> {
    Some(AuthSettings { token: Some(credential), ..AuthSettings::default() })
}

#[tokio::test]
async fn tokens_and_passwords_open_a_private_repository() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    world.server.set_access(Access::Header(basic("x-access-token", PASSWORD)));
    let auth = token(Credential::Text(Secret::new(PASSWORD)));
    let source = world.open(&SourceSettings { auth, ..world.settings() });
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");

    world.server.set_access(Access::Header(basic("ada", PASSWORD)));
    let password = Credential::Text(Secret::new(PASSWORD));
    let basic = Some(BasicSettings { username: "ada".to_owned(), password });
    let auth = Some(AuthSettings { basic, ..AuthSettings::default() });
    let other = world.open(&SourceSettings { auth, ..world.settings() });
    assert_eq!(changed(&other, None).await.files["a.alloy"], "one");
    assert_eq!(world.clones().len(), 2, "each identity has its own clone");

    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::AuthExpired);
    let anonymous = failed(&world.source(), None).await;
    assert_eq!(anonymous.class, ErrorClass::AuthExpired);
    assert!(anonymous.message.contains("asks for a credential"), "{anonymous}");
    let shown =
        format!("{source:?} {error:?} {error} {first:?} {anonymous:?} {other:?} {}", source.description());
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn a_rotated_token_is_picked_up() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let file = world.folder.path().join("token");
    let auth = token(Credential::File(file.clone()));
    let source = world.open(&SourceSettings { auth, ..world.settings() });
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::AuthExpired);
    assert!(error.message.contains("there is no such file"), "{error}");

    std::fs::write(&file, "one-one-one\n").unwrap();
    world.server.set_access(Access::Header(basic("x-access-token", "one-one-one")));
    let first = changed(&source, None).await;
    world.server.set_access(Access::Header(basic("x-access-token", "two-two-two")));
    assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::AuthExpired);
    std::fs::write(&file, "three-three\n").unwrap();
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Transient, "right after a rotation servers may lag: {error}");
    std::fs::write(&file, "two-two-two\n").unwrap();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn a_redirect_to_another_origin_gets_no_credential() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let other = HttpBackend::start(world.repository.path().parent().unwrap()).unwrap();
    let auth = token(Credential::Text(Secret::new(PASSWORD)));
    let source = world.open(&SourceSettings { auth, ..world.settings() });
    let location = format!("{}/info/refs?service=git-upload-pack", other.url("fleet.git"));
    world.server.inject([Fault::Status(301, vec![("location", location)])]);
    let first = changed(&source, None).await;
    assert!(first.notices.iter().any(|notice| notice.kind == NoticeKind::Redirected));
    assert!(world.server.take_log().iter().all(|request| request.authorization.is_some()));
    let log = other.take_log();
    assert_eq!(log.len(), 3);
    assert!(log.iter().all(|request| request.authorization.is_none()));

    for location in ["https://login.example/", "ftp://x/info/refs", "/login"] {
        let source = world.source();
        world.server.inject([Fault::Status(302, vec![("location", location.to_owned())])]);
        assert_eq!(failed(&source, None).await.class, ErrorClass::Integrity, "{location}");
    }
}

#[tokio::test]
async fn a_server_that_says_the_credential_is_not_quoted() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let auth = token(Credential::Text(Secret::new("hunter2-hunter2")));
    let source = world.open(&SourceSettings { auth, ..world.settings() });
    let first = changed(&source, None).await;
    for said in ["no, hunter2-hunter2", "what is eC1hY2Nlc3MtdG9rZW46aHVudGVyMi1odW50ZXIy about"] {
        // Refused, the server is asked for its advertisement once more, and then again.
        let well = Fault::Delay(Duration::ZERO);
        world.server.inject([Fault::Refuse(said), well, Fault::Refuse(said)]);
        let error = failed(&source, Some(&first)).await;
        assert!(error.message.contains("(the credential)"), "{error}");
        assert!(!error.message.contains("hunter2") && !error.message.contains("eC1hY2Nlc3"), "{error}");
        world.server.clear_faults();
    }
}

#[tokio::test]
async fn credentials_are_not_sent_in_the_clear() {
    let Some(world) = world() else { return };
    let mut settings = world.settings();
    settings.auth = token(Credential::Text(Secret::new(PASSWORD)));
    settings.git.as_mut().unwrap().url = "http://git.example/x".to_owned();
    let error = GitSource::open(&settings, &world.environment()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Stalled);
    assert!(error.message.contains("without encryption"), "{error}");
    for url in
        ["https://me:hunter2@git.example/x", "ssh://me:hunter2@git.example/x", "ext::sh -c x", "git://h/x"]
    {
        settings.git.as_mut().unwrap().url = url.to_owned();
        settings.auth = None;
        let error = GitSource::open(&settings, &world.environment()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Stalled, "{url}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[tokio::test]
async fn tls_with_an_own_authority() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let made = rcgen::generate_simple_self_signed(vec!["git.internal".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let root = world.repository.path().parent().unwrap();
    let server = HttpBackend::start_tls(root, Arc::new(config)).unwrap();
    let ca = world.folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let mut settings = world.settings();
    settings.git.as_mut().unwrap().url = server.url("fleet.git");

    let error = failed(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "an unknown authority");
    settings.tls = Some(TlsSettings { ca: Some(ca), ..TlsSettings::default() });
    assert!(poll(&world.open(&settings), None).await.is_err(), "the certificate is for another name");
    settings.tls.as_mut().unwrap().server_name = Some("git.internal".to_owned());
    let first = changed(&world.open(&settings), None).await;
    assert_eq!(first.files["a.alloy"], "one");
    assert!(first.notices.is_empty());
}
