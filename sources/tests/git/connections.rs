//! How a server is reached over HTTPS: own authorities, client certificates, and proxies of every kind.

use std::sync::Arc;

use invar_secrets::{Credential, Secret};
use invar_sources::{AuthSettings, ProxySettings, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;

use super::proxy::{Proxy, ProxyKind};
use super::*;

/// A server with TLS that may want a certificate, and what a client needs to talk to it.
struct Secured {
    server: HttpBackend,
    tls: TlsSettings,
    /// What it shows, for a proxy before it.
    config: Arc<rustls::ServerConfig>,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

fn secured(world: &World, wants_certificate: bool) -> Secured {
    let authority = authority();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &authority).unwrap(), key)
    };
    let (certificate, key) = issue("localhost");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], der).unwrap());
    let root = world.repository.path().parent().unwrap();
    let server = HttpBackend::start_tls(root, Arc::clone(&config)).unwrap();
    let write = |name: &str, text: String| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = issue("agent.example");
    let tls = TlsSettings {
        ca: Some(write("ca.pem", authority.pem())),
        cert: Some(write("agent.pem", certificate.pem())),
        key: Some(write("agent.key", key.serialize_pem())),
        server_name: None,
    };
    Secured { server, tls, config }
}

fn settings(world: &World, secured: &Secured, tls: TlsSettings) -> SourceSettings {
    let mut settings = SourceSettings { tls: Some(tls), ..world.settings() };
    settings.git.as_mut().unwrap().url = secured.server.url("fleet.git");
    settings
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let secured = secured(&world, true);
    let without = TlsSettings { cert: None, key: None, ..secured.tls.clone() };
    let error = failed(&world.open(&settings(&world, &secured, without)), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    let source = world.open(&settings(&world, &secured, secured.tls.clone()));
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");

    // A certificate of an authority that the server does not know is refused; the right one is taken up when it is there.
    let stranger = authority();
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec!["agent.example".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &stranger).unwrap();
    let (cert_file, key_file) = (secured.tls.cert.clone().unwrap(), secured.tls.key.clone().unwrap());
    let right = (std::fs::read(&cert_file).unwrap(), std::fs::read(&key_file).unwrap());
    std::fs::write(&cert_file, format!("{}\n", certificate.pem())).unwrap();
    std::fs::write(&key_file, format!("{}\n", key.serialize_pem())).unwrap();
    assert!(poll(&source, Some(&first)).await.is_err());
    std::fs::write(&cert_file, &right.0).unwrap();
    std::fs::write(&key_file, &right.1).unwrap();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn https_goes_through_http_and_socks_proxies() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let secured = secured(&world, false);
    let port = secured.server.address().port();
    for (kind, scheme, host) in [
        (ProxyKind::Http, "http", "localhost"),
        (ProxyKind::Socks, "socks5", "127.0.0.1"),
        (ProxyKind::Socks, "socks5h", "localhost"),
    ] {
        for credential in [None, Some(("ada", "hunter2-hunter2"))] {
            let proxy = Proxy::start(kind, credential).await;
            let mut settings = settings(&world, &secured, secured.tls.clone());
            settings.proxy = Some(ProxySettings {
                url: proxy.url(scheme),
                no_proxy: Vec::new(),
                username: credential.map(|(user, _)| user.to_owned()),
                password: credential.map(|(_, password)| Credential::Text(Secret::new(password))),
            });
            let source = world.open(&settings);
            assert_eq!(changed(&source, None).await.files["a.alloy"], "one", "{scheme}");
            let targets = proxy.targets();
            assert!(targets.contains(&format!("{host}:{port}")), "{scheme}: {targets:?}");
            assert!(!format!("{source:?}").contains("hunter2"));

            settings.proxy.as_mut().unwrap().no_proxy = vec!["localhost".to_owned()];
            let direct = world.open(&settings);
            let before = proxy.targets().len();
            assert_eq!(changed(&direct, None).await.files["a.alloy"], "one");
            assert_eq!(proxy.targets().len(), before, "{scheme}: hosts of `no_proxy` are reached directly");
            if credential.is_some() {
                settings.proxy.as_mut().unwrap().no_proxy.clear();
                settings.proxy.as_mut().unwrap().password =
                    Some(Credential::Text(Secret::new("hunter2-wrong")));
                let error = failed(&world.open(&settings), None).await;
                assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_reached_over_tls_itself_is_trusted_as_the_server_is() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let secured = secured(&world, false);
    let port = secured.server.address().port();
    let proxy = Proxy::start_tls(Arc::clone(&secured.config), Some(("ada", "hunter2-hunter2"))).await;
    let mut settings = settings(&world, &secured, secured.tls.clone());
    settings.proxy = Some(ProxySettings {
        url: proxy.url("https"),
        no_proxy: Vec::new(),
        username: Some("ada".to_owned()),
        password: Some(Credential::Text(Secret::new("hunter2-hunter2"))),
    });
    let source = world.open(&settings);
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");
    assert!(proxy.targets().contains(&format!("localhost:{port}")), "{:?}", proxy.targets());
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);

    // Without the authority that it is signed by nothing is sent to it.
    let before = proxy.targets().len();
    settings.tls = None;
    let error = failed(&world.open(&settings), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert_eq!(proxy.targets().len(), before);
}

#[tokio::test]
async fn a_token_goes_to_the_configured_origin_alone() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let other = HttpBackend::start(world.repository.path().parent().unwrap()).unwrap();
    let token = Some(Credential::Text(Secret::new("hunter2-hunter2")));
    let auth = Some(AuthSettings { token, ..AuthSettings::default() });
    let source = world.open(&SourceSettings { auth, ..world.settings() });
    let location = format!("{}/info/refs?service=git-upload-pack", other.url("fleet.git"));
    world.server.inject([http_backend::Fault::Status(302, vec![("location", location)])]);
    changed(&source, None).await;
    assert!(world.server.take_log().iter().all(|request| request.authorization.is_some()));
    assert!(other.take_log().iter().all(|request| request.authorization.is_none()));
}
