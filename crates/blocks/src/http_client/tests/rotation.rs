//! A thousand rotations under load, through real stores and over real connections: what a client presents and what a server
//! presents change while requests are made, by way of wrong values too, and no request fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use invar_secrets::{BoxFuture, SecretError, SecretSnapshot, SecretStore, SecretStores, StoreKind};
use invar_syntax::{LiveSecret, LiveText};
use invar_tls::{Origin, Origins, ServerSettings, ServerTls};

use super::*;
use crate::http_client::credentials::basic_header;

/// A store that has what it is told to have.
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, Secret>>);

impl SecretStore for Told {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, _path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async { Ok(SecretSnapshot::new(self.0.lock().clone())) })
    }
}

/// The stores of a test, with one path in one of them.
struct Vault {
    told: Arc<Told>,
    stores: SecretStores,
}

impl Vault {
    fn new(fields: &[(&str, &str)]) -> Self {
        let told = Arc::new(Told::default());
        let store: Arc<dyn SecretStore> = told.clone();
        let stores = SecretStores::new(BTreeMap::from([("vault".to_owned(), store)]));
        let vault = Self { told, stores };
        vault.tell(fields);
        vault
    }

    fn tell(&self, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text)));
        *self.told.0.lock() = fields.collect();
    }

    /// Has other values, and everybody knows of it; an error where they are not taken into use.
    async fn turn(&self, fields: &[(&str, &str)]) -> Result<(), SecretError> {
        self.tell(fields);
        self.stores.rotate_now("vault", "kv/x").await
    }

    async fn live(&self, field: &str) -> LiveSecret {
        self.stores.live(&format!("vault/kv/x#{field}").parse().unwrap()).await.unwrap()
    }

    async fn text(&self, field: &str) -> LiveText {
        LiveText::Secret(self.live(field).await)
    }
}

/// Answers 200 to those requests that pass, 401 to others; over TLS if it has some, which each connection asks for anew.
async fn judge(
    passes: impl Fn(&str) -> bool + Send + Sync + 'static,
    tls: Option<Arc<ServerTls>>,
) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (passes, refused) = (Arc::new(passes), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (passes, tls, refused) = (Arc::clone(&passes), tls.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, &*passes, &refused).await,
                    Some(tls) => {
                        if let Ok(stream) = TlsAcceptor::from(tls.current().await).accept(stream).await {
                            answer(stream, &*passes, &refused).await;
                        }
                    }
                }
            });
        }
    });
    (address, refused)
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    passes: &(dyn Fn(&str) -> bool + Send + Sync),
    refused: &AtomicU64,
) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..read]);
        if !received.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut received)).unwrap();
        let passed = passes(&text);
        if !passed {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        let answer = if passed { ok("") } else { status("401 Unauthorized", "") };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Requests without pause, by several at a time, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// How many each has made.
    made: Vec<Arc<AtomicU64>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(url: &Url, clients: impl Iterator<Item = HttpClient>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = clients.map(|client| {
            let (stop, made, url) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)), url.clone());
            let count = Arc::clone(&made);
            let task = tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get(url.clone()).await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    response.bytes().await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            (made, task)
        });
        let (made, tasks) = begun.unzip();
        Self { stop, made, tasks }
    }

    /// Waits until each has ended the request that it had begun, and one more. All of them: who stands still while the
    /// others see turn after turn is refused with what nobody accepts any more.
    async fn go_on(&self) {
        let upto: Vec<u64> = self.made.iter().map(|made| made.load(Ordering::Relaxed) + 2).collect();
        while self.made.iter().zip(&upto).any(|(made, upto)| made.load(Ordering::Relaxed) < *upto) {
            assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a request failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.made.iter().map(|made| made.load(Ordering::Relaxed)).sum()
    }
}

/// The two versions that a server accepts: it is before, in, or after a change.
#[derive(Default)]
struct Accepted(AtomicU64, AtomicU64);

impl Accepted {
    fn set(&self, one: u64, other: u64) {
        self.0.store(one, Ordering::SeqCst);
        self.1.store(other, Ordering::SeqCst);
    }

    fn contains(&self, version: u64) -> bool {
        [&self.0, &self.1].iter().any(|accepted| accepted.load(Ordering::SeqCst) == version)
    }
}

/// Turns what a vault has so often, in the ways in which rotations go: old and new accepted for a time; the store ahead of
/// the server; a wrong value in between.
async fn turn_under_load(
    vault: &Vault,
    load: &Load,
    accepted: &Accepted,
    turns: u64,
    fields: impl Fn(&str) -> Vec<(&'static str, String)>,
) {
    let turn = async |name: &str| {
        let fields = fields(name);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(field, text)| (*field, text.as_str())).collect();
        vault.turn(&fields).await
    };
    for version in 1..=turns {
        let before = version - 1;
        match version % 3 {
            0 => {
                accepted.set(before, version);
                turn(&version.to_string()).await.unwrap();
                load.go_on().await;
            }
            1 => {
                // Users may have had it refused by the time it is looked at.
                drop(turn(&version.to_string()).await);
                load.go_on().await;
            }
            _ => {
                drop(turn("wrong").await);
                load.go_on().await;
                let status = vault.stores.status().remove(0);
                assert_eq!(status.state, invar_secrets::SecretState::Rejected, "{:?}", status.reason);
                assert!(status.reason.unwrap().contains("refused"));
                drop(turn(&version.to_string()).await);
                load.go_on().await;
            }
        }
        // From here on the old one is refused.
        accepted.set(version, version);
        load.go_on().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_password_turn_four_hundred_times_and_no_request_fails() {
    let fields = |name: &str| vec![("user", format!("u{name}")), ("password", format!("p{name}"))];
    let vault = Vault::new(&[("user", "u0"), ("password", "p0")]);
    let accepted = Arc::new(Accepted::default());
    let seen = Arc::clone(&accepted);
    let (address, refused) = judge(
        move |request| {
            let credentials = header(request, "authorization").unwrap().strip_prefix("Basic ").unwrap();
            let pair = String::from_utf8(BASE64.decode(credentials).unwrap()).unwrap();
            let (user, password) = pair.split_once(':').unwrap();
            let (user, password) = (user.strip_prefix('u').unwrap(), password.strip_prefix('p').unwrap());
            assert_eq!(user, password, "of one version");
            user.parse().is_ok_and(|version| seen.contains(version))
        },
        None,
    )
    .await;
    let mut arguments = arguments("basic_auth { }").unwrap();
    let basic = arguments.authentication.basic_auth.as_mut().unwrap();
    (basic.username, basic.password) = (vault.text("user").await, vault.live("password").await);
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap();
    let load = Load::start(&url(address, "/"), (0..3).map(|_| client.clone()));
    turn_under_load(&vault, &load, &accepted, 400, fields).await;
    let made = load.end().await;
    assert!(made > 400 && refused.load(Ordering::Relaxed) > 0, "{made} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_and_a_header_beside_it_turn_three_hundred_times_and_no_request_fails() {
    let fields = |name: &str| vec![("token", format!("t{name}")), ("tenant", format!("x{name}"))];
    let vault = Vault::new(&[("token", "t0"), ("tenant", "x0")]);
    let accepted = Arc::new(Accepted::default());
    let seen = Arc::clone(&accepted);
    let (address, refused) = judge(
        move |request| {
            let token = header(request, "authorization").unwrap().strip_prefix("Bearer t").unwrap();
            let tenant = header(request, "x-tenant").unwrap().strip_prefix('x').unwrap();
            assert_eq!(token, tenant, "of one version");
            token.parse().is_ok_and(|version| seen.contains(version))
        },
        None,
    )
    .await;
    let mut arguments = arguments("").unwrap();
    arguments.authentication.bearer_token = vault.live("token").await;
    arguments.http_headers.insert("X-Tenant".to_owned(), vec![vault.live("tenant").await]);
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap();
    let load = Load::start(&url(address, "/"), (0..3).map(|_| client.clone()));
    turn_under_load(&vault, &load, &accepted, 300, fields).await;
    let made = load.end().await;
    assert!(made > 300 && refused.load(Ordering::Relaxed) > 0, "{made} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_turns_a_hundred_and_fifty_times_and_no_request_fails() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = servers.issue("127.0.0.1");
    let block = ServerTlsBlock {
        cert_pem: certificate.into(),
        key_pem: Secret::new(key).into(),
        client_ca: clients.0.pem().into(),
        client_auth_type: "RequireAndVerifyClientCert".to_owned(),
        ..ServerTlsBlock::default()
    };
    let tls = Arc::new(block.server_tls(false, &Access::unrestricted()).await.unwrap());
    let (address, _) = judge(|_| true, Some(tls)).await;
    let (certificate, key) = clients.issue("client.test");
    let vault = Vault::new(&[("crt", &certificate), ("key", &key)]);
    let block = TlsConfigBlock {
        ca_pem: servers.0.pem().into(),
        cert_pem: vault.text("crt").await,
        key_pem: vault.live("key").await,
        ..TlsConfigBlock::default()
    };
    let client = tls_client(block).await;
    let load = Load::start(&secure(address), (0..2).map(|_| client.clone()));
    turn_certificates(&vault, &load, || clients.issue("client.test"), 150).await;
    assert!(load.end().await > 150);
}

#[tokio::test]
async fn a_client_certificate_that_the_server_does_not_accept_gives_way_to_the_one_before() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = servers.issue("127.0.0.1");
    let block = ServerTlsBlock {
        cert_pem: certificate.into(),
        key_pem: Secret::new(key).into(),
        client_ca: clients.0.pem().into(),
        client_auth_type: "RequireAndVerifyClientCert".to_owned(),
        ..ServerTlsBlock::default()
    };
    let tls = Arc::new(block.server_tls(false, &Access::unrestricted()).await.unwrap());
    let (address, _) = judge(|_| true, Some(tls)).await;
    let (certificate, key) = clients.issue("client.test");
    let vault = Vault::new(&[("crt", &certificate), ("key", &key)]);
    let client = tls_client(TlsConfigBlock {
        ca_pem: servers.0.pem().into(),
        cert_pem: vault.text("crt").await,
        key_pem: vault.live("key").await,
        ..TlsConfigBlock::default()
    })
    .await;
    let ask = async || client.get(secure(address)).await.unwrap().status();
    assert_eq!(ask().await, StatusCode::OK);
    let (certificate, key) = Authority::new().issue("client.test");
    vault.turn(&[("crt", &certificate), ("key", &key)]).await.unwrap();
    assert_eq!(ask().await, StatusCode::OK);
    assert_eq!(vault.stores.status()[0].state, invar_secrets::SecretState::Rejected);
    let (certificate, key) = clients.issue("client.test");
    vault.turn(&[("crt", &certificate), ("key", &key)]).await.unwrap();
    assert_eq!(ask().await, StatusCode::OK);
    assert_eq!(vault.stores.status()[0].state, invar_secrets::SecretState::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_certificate_turns_a_hundred_and_fifty_times_and_no_connection_fails() {
    let servers = Authority::new();
    let (certificate, key) = servers.issue("127.0.0.1");
    let vault = Vault::new(&[("crt", &certificate), ("key", &key)]);
    let origins = Origins {
        certificate: Origin::new("cert_pem", vault.live("crt").await, ""),
        key: Origin::new("key_pem", vault.live("key").await, ""),
        ..Origins::default()
    };
    let tls = Arc::new(ServerTls::new(origins, ServerSettings::default()).await.unwrap());
    let (address, _) = judge(|_| true, Some(Arc::clone(&tls))).await;
    let trusting = || TlsConfigBlock { ca_pem: servers.0.pem().into(), ..TlsConfigBlock::default() };
    // One keeps its connection over all turns, the other makes a new one for each request.
    let kept = tls_client(trusting()).await;
    let options =
        HttpClientOptions { pool_max_idle_per_host: 0, ..HttpClientOptions::under(Access::unrestricted()) };
    let arguments = HttpClientArguments { tls_config: Some(trusting()), ..HttpClientArguments::defaults() };
    let fresh = HttpClient::new(&arguments, options).await.unwrap();
    let load = Load::start(&secure(address), [kept, fresh].into_iter());
    let first = tls.current().await;
    turn_certificates(&vault, &load, || servers.issue("127.0.0.1"), 150).await;
    assert!(load.end().await > 150);
    assert!(!Arc::ptr_eq(&first, &tls.current().await));
}

/// Every third pair does not fit: then the pair before stays in use, and the store's value is said to be rejected.
async fn turn_certificates(vault: &Vault, load: &Load, issue: impl Fn() -> (String, String), turns: u64) {
    for turn in 0..turns {
        let (certificate, key) = issue();
        let (_, other) = issue();
        if turn % 3 == 0 {
            drop(vault.turn(&[("crt", &certificate), ("key", &other)]).await);
            load.go_on().await;
            let rejected = || vault.stores.status()[0].state == invar_secrets::SecretState::Rejected;
            // The next handshake or request looks at it; a kept connection alone does not.
            while !rejected() {
                load.go_on().await;
            }
        }
        vault.turn(&[("crt", &certificate), ("key", &key)]).await.unwrap();
        load.go_on().await;
        assert_eq!(vault.stores.status()[0].state, invar_secrets::SecretState::Ready);
    }
}

#[tokio::test]
async fn a_certificate_and_its_key_in_two_paths_change_one_after_the_other() {
    let servers = Authority::new();
    let (first, second) = (servers.issue("127.0.0.1"), servers.issue("127.0.0.1"));
    let (of_crt, of_key) = (Vault::new(&[("value", &first.0)]), Vault::new(&[("value", &first.1)]));
    // Two stores, so that their paths differ.
    let stores: BTreeMap<String, Arc<dyn SecretStore>> = BTreeMap::from([
        ("a".to_owned(), of_crt.told.clone() as _),
        ("b".to_owned(), of_key.told.clone() as _),
    ]);
    let stores = SecretStores::new(stores);
    let live = async |reference: &str| stores.live(&reference.parse().unwrap()).await.unwrap();
    let origins = Origins {
        certificate: Origin::new("cert_pem", live("a/crt").await, ""),
        key: Origin::new("key_pem", live("b/key").await, ""),
        ..Origins::default()
    };
    let tls = ServerTls::new(origins, ServerSettings::default()).await.unwrap();
    let before = tls.current().await;
    of_crt.tell(&[("value", &second.0)]);
    stores.rotate_now("a", "crt").await.unwrap();
    assert!(Arc::ptr_eq(&before, &tls.current().await), "what does not fit yet is not used");
    assert!(tls.problem().unwrap().contains("certificate and key cannot be used"));
    of_key.tell(&[("value", &second.1)]);
    stores.rotate_now("b", "key").await.unwrap();
    assert!(!Arc::ptr_eq(&before, &tls.current().await), "both are new, and neither was given up");
    assert_eq!(tls.problem(), None);
}

#[tokio::test]
async fn a_refusal_of_everything_is_a_rotation_for_a_minute_and_asks_the_store() {
    let vault = Vault::new(&[("token", "t0")]);
    let (address, _) = judge(|request| request.contains("Bearer t1"), None).await;
    let mut arguments = arguments("").unwrap();
    arguments.authentication.bearer_token = vault.live("token").await;
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap();
    let ask = async || client.get(url(address, "/")).await.unwrap().status();
    assert!(!client.rotated_lately());
    // The server is ahead of the store.
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    assert!(client.rotated_lately(), "the refusal may be due to a rotation that is not known yet");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(!client.rotated_lately());
    tokio::time::resume();
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    assert!(!client.rotated_lately(), "once for each version");
    vault.turn(&[("token", "t1")]).await.unwrap();
    assert_eq!(ask().await, StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_cannot_be_sent_again_says_nothing_of_other_credentials() {
    let vault = Vault::new(&[("token", "t0")]);
    let (address, _) = judge(|_| false, None).await;
    let mut arguments = arguments("follow_redirects = false").unwrap();
    arguments.authentication.bearer_token = vault.live("token").await;
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap();
    vault.turn(&[("token", "t1")]).await.unwrap();
    let mut request = reqwest::Request::new(Method::POST, url(address, "/"));
    let empty = futures_util::stream::empty::<Result<bytes::Bytes, io::Error>>();
    *request.body_mut() = Some(reqwest::Body::wrap_stream(empty));
    assert_eq!(client.execute(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        vault.live("token").await.read().expose(),
        "t1",
        "that the one before is accepted was not seen"
    );
}

#[tokio::test]
async fn a_client_secret_that_the_token_endpoint_refuses_gives_way_to_the_one_before() {
    let vault = Vault::new(&[("secret", "good")]);
    let good = basic_header(&Secret::new("i"), &Secret::new("good")).unwrap();
    let good = good.to_str().unwrap().to_owned();
    let token = ok("{\"access_token\":\"t\"}");
    let (issuer, issuer_address) =
        Server::start(&[&token, &status("401 Unauthorized", ""), &token], None).await;
    let (_server, address) = Server::start(&[&ok(""), &status("401 Unauthorized", ""), &ok("")], None).await;
    let text = format!("oauth2 {{\n client_id = \"i\"\n token_url = \"http://{issuer_address}/\"\n}}");
    let mut arguments = arguments(&text).unwrap();
    arguments.authentication.oauth2.as_mut().unwrap().client_secret = vault.live("secret").await;
    let client = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap();
    assert_eq!(client.get(url(address, "/")).await.unwrap().status(), StatusCode::OK);
    vault.turn(&[("secret", "wrong")]).await.unwrap();
    // The token ends; with the wrong secret there is none.
    assert_eq!(client.get(url(address, "/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(client.rotated_lately());
    assert_eq!(client.get(url(address, "/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(header(issuer.requests().last().unwrap(), "authorization"), Some(good.as_str()));
    assert_eq!(vault.stores.status()[0].state, invar_secrets::SecretState::Rejected);
}
