//! SSH through proxies: HTTP `CONNECT` and SOCKS 5.

use std::sync::Arc;

use invar_sources::{ProxySettings, TlsSettings};

use super::super::proxy::{Proxy, ProxyKind};
use super::*;

fn through(world: &SshWorld, url: String, credential: bool) -> SourceSettings {
    let proxy = ProxySettings {
        url,
        no_proxy: Vec::new(),
        username: credential.then(|| "ada".to_owned()),
        password: credential.then(|| Credential::Text(Secret::new("hunter2-hunter2"))),
    };
    SourceSettings { proxy: Some(proxy), ..world.settings(world.ssh()) }
}

#[tokio::test]
async fn ssh_goes_through_http_and_socks_proxies() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    for (kind, scheme) in
        [(ProxyKind::Http, "http"), (ProxyKind::Socks, "socks5"), (ProxyKind::Socks, "socks5h")]
    {
        for credential in [None, Some(("ada", "hunter2-hunter2"))] {
            let proxy = Proxy::start(kind, credential).await;
            let settings = through(&world, proxy.url(scheme), credential.is_some());
            let source = GitSource::open(&settings, &world.environment()).unwrap();
            assert_eq!(changed(&source, None).await.files["a.alloy"], "one", "{scheme}");
            assert_eq!(proxy.targets(), [world.server.address().to_string()], "{scheme}");
        }
        let proxy = Proxy::start(kind, Some(("ada", "another"))).await;
        for credential in [false, true] {
            let source =
                GitSource::open(&through(&world, proxy.url(scheme), credential), &world.environment());
            let source = source.unwrap();
            let error = failed(&source, None).await;
            assert_eq!(error.class, ErrorClass::Forbidden, "{scheme}: {error}");
            assert!(!format!("{error:?} {source:?}").contains("hunter2"));
        }
    }
}

#[tokio::test]
async fn ssh_goes_through_a_proxy_that_is_reached_over_tls() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let proxy = Proxy::start_tls(Arc::new(config), Some(("ada", "hunter2-hunter2"))).await;
    let mut settings = through(&world, proxy.url("https"), true);
    let error = failed(&GitSource::open(&settings, &world.environment()).unwrap(), None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(proxy.targets().is_empty() && !format!("{error:?}").contains("hunter2"), "{error:?}");
    let ca = world.folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    settings.tls = Some(TlsSettings { ca: Some(ca), ..TlsSettings::default() });
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one");
    assert_eq!(proxy.targets(), [world.server.address().to_string()]);
}

#[tokio::test]
async fn hosts_of_no_proxy_are_reached_directly() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let proxy = Proxy::start(ProxyKind::Http, None).await;
    let mut settings = through(&world, proxy.url("http"), false);
    settings.proxy.as_mut().unwrap().no_proxy = vec!["127.0.0.0/8".to_owned()];
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one");
    assert!(proxy.targets().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_transient() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = through(&world, format!("http://{gone}"), false);
    let error = failed(&GitSource::open(&settings, &world.environment()).unwrap(), None).await;
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("the proxy http://"), "{error}");
}
