//! The client against servers of its own, plain and TLS.

#![allow(clippy::unwrap_used)]

mod rotation;

use std::collections::VecDeque;
use std::net::SocketAddr;

use invar_syntax::evaluate::evaluate_body;
use invar_syntax::scope::EmptyScope;
use invar_syntax::{Arguments, Secret, parse_bytes};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::http_server::ServerTlsBlock;
use invar_syntax::secret::REDACTED;

/// Answers in order from a list, each connection for as many requests as it sends, and keeps what was asked.
#[derive(Default)]
struct Server {
    answers: Mutex<VecDeque<String>>,
    requests: Mutex<Vec<String>>,
    names: Mutex<Vec<Option<String>>>,
}

impl Server {
    async fn start(answers: &[&str], tls: Option<Arc<rustls::ServerConfig>>) -> (Arc<Self>, SocketAddr) {
        let server = Arc::new(Self {
            answers: Mutex::new(answers.iter().map(|answer| (*answer).to_owned()).collect()),
            ..Self::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.converse(stream).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                server.names.lock().push(stream.get_ref().1.server_name().map(str::to_owned));
                                server.converse(stream).await;
                            }
                        }
                    }
                });
            }
        });
        (server, address)
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&received).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() < length {
                continue;
            }
            self.requests.lock().push(text);
            received.clear();
            let answer = self.answers.lock().pop_front().unwrap_or_else(|| ok("default"));
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn status(line: &str, headers: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n{headers}\r\n")
}

fn arguments(text: &str) -> Result<HttpClientArguments, Vec<String>> {
    decode(text)
}

fn decode<A: Arguments>(text: &str) -> Result<A, Vec<String>> {
    let (file, diagnostics) = parse_bytes("test", text.as_bytes());
    let body = evaluate_body(&file.unwrap_or_else(|| panic!("{diagnostics}")).body, &EmptyScope).unwrap();
    let mut errors = Vec::new();
    A::decode(&body, &mut errors).ok_or_else(|| errors.iter().map(ToString::to_string).collect())
}

async fn client(text: &str) -> HttpClient {
    HttpClient::new(&arguments(text).unwrap(), HttpClientOptions::under(Access::unrestricted()))
        .await
        .unwrap()
}

fn url(address: SocketAddr, path: &str) -> Url {
    Url::parse(&format!("http://{address}{path}")).unwrap()
}

// === arguments ===

#[test]
fn an_empty_group_has_the_usual_defaults() {
    let defaults = arguments("").unwrap();
    assert!(defaults.follow_redirects && defaults.enable_http2);
    assert!(defaults.tls_config.is_none() && defaults.authentication.methods().is_empty());
    assert!(!decode::<Http1ClientArguments>("").unwrap().enable_http2);
}

#[test]
fn what_excludes_each_other_is_refused_with_the_field() {
    for (text, parts) in [
        ("bearer_token = \"a\"\nbearer_token_file = \"b\"", ["bearer_token_file", "at most one"]),
        ("basic_auth { }\nauthorization { }", ["authorization", "at most one"]),
        ("basic_auth {\n password = \"a\"\n password_file = \"b\"\n}", ["password_file", "at most one"]),
        ("authorization {\n type = \"BASIC\"\n}", ["type", "basic_auth"]),
        ("oauth2 {\n token_url = \"https://x\"\n}", ["client_id", "must be set"]),
        ("oauth2 {\n client_id = \"a\"\n token_url = \"ftp://x\"\n}", ["token_url", "http"]),
        ("proxy_url = \"http://p\"\nproxy_from_environment = true", ["proxy_url", "proxy_from_environment"]),
        ("no_proxy = \"a\"", ["no_proxy", "proxy_url"]),
        ("proxy_connect_header = {\"a\" = [\"b\"]}", ["proxy_connect_header", "proxy_url"]),
        ("tls_config {\n cert_pem = \"a\"\n}", ["key_file", "certificate"]),
        ("tls_config {\n ca_pem = \"a\"\n ca_file = \"b\"\n}", ["ca_file", "ca_pem"]),
        ("tls_config {\n min_version = \"SSL3\"\n}", ["min_version", "TLS12"]),
        ("http_headers = {\"Authorization\" = [\"x\"]}", ["http_headers", "set by the client"]),
        ("http_headers = {\"a b\" = [\"x\"]}", ["http_headers", "no header name"]),
    ] {
        let errors = arguments(text).unwrap_err();
        assert!(
            errors.iter().any(|error| parts.iter().all(|part| error.contains(part))),
            "{text}: {parts:?} not in {errors:?}"
        );
    }
}

#[test]
fn secrets_do_not_show() {
    let text = "proxy_url = \"http://user:hunter2@proxy\"\nbearer_token = \"hunter2\"\nhttp_headers = {\"X\" = [\"hunter2\"]}";
    let arguments = arguments(text).unwrap();
    let shown = format!("{arguments:?} {}", invar_syntax::value_to_json(&arguments.to_value()));
    assert!(!shown.contains("hunter2"), "{shown}");
    let error = self::arguments("proxy_url = \"http://user:hunter2@pro xy\"").unwrap_err().join(" ");
    assert!(!error.contains("hunter2"), "{error}");
}

// === authentication ===

#[tokio::test]
async fn each_way_to_authenticate_makes_its_header() {
    for (text, expected) in [
        ("", None),
        ("basic_auth {\n username = \"u\"\n password = \"p\"\n}", Some("Basic dTpw")),
        ("authorization {\n credentials = \"c\"\n}", Some("Bearer c")),
        ("authorization {\n type = \"Token\"\n credentials = \"c\"\n}", Some("Token c")),
        ("bearer_token = \"t\"", Some("Bearer t")),
    ] {
        let (server, address) = Server::start(&[], None).await;
        let response = client(text).await.get(url(address, "/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let request = server.requests().remove(0);
        assert_eq!(header(&request, "authorization"), expected, "{text}");
    }
}

#[tokio::test]
async fn a_credentials_file_is_read_for_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (server, address) = Server::start(&[], None).await;
    let client = client(&format!("bearer_token_file = {file:?}")).await;
    client.get(url(address, "/")).await.unwrap();
    std::fs::write(&file, " second ").unwrap();
    client.get(url(address, "/")).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = client.get(url(address, "/")).await.unwrap_err();
    assert!(matches!(error, HttpClientError::File { .. }) && error.is_retryable(), "{error}");
    let sent: Vec<_> = server
        .requests()
        .iter()
        .map(|request| header(request, "authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn configured_headers_are_sent() {
    let (server, address) = Server::start(&[], None).await;
    client("http_headers = {\"X-Scope-OrgID\" = [\"a\", \"b\"]}").await.get(url(address, "/")).await.unwrap();
    let request = server.requests().remove(0).to_ascii_lowercase();
    assert_eq!(request.matches("x-scope-orgid:").count(), 2, "{request}");
}

#[tokio::test]
async fn one_token_is_fetched_for_many_requests_and_again_after_a_refusal() {
    let token = |text: &str| {
        ok(&format!("{{\"access_token\":\"{text}\",\"token_type\":\"bearer\",\"expires_in\":3600}}"))
    };
    let (issuer, issuer_address) = Server::start(&[&token("one"), &token("two")], None).await;
    let (server, address) = Server::start(&[], None).await;
    let client = client(&format!(
        "oauth2 {{\n client_id = \"id/1\"\n client_secret = \"s p\"\n token_url = \"http://{issuer_address}/token\"\n scopes = [\"a\", \"b\"]\n endpoint_params = {{\"audience\" = \"x\"}}\n}}"
    ))
    .await;
    let requests = (0..8).map(|_| client.get(url(address, "/")));
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.requests().len(), 1, "single flight");
    let asked = issuer.requests().remove(0);
    assert!(asked.ends_with("grant_type=client_credentials&scope=a+b&audience=x"), "{asked}");
    // base64 of "id%2F1:s+p"
    assert_eq!(header(&asked, "authorization"), Some("Basic aWQlMkYxOnMrcA=="));
    assert!(server.requests().iter().all(|request| header(request, "authorization") == Some("Bearer one")));

    server.answers.lock().push_back(status("401 Unauthorized", ""));
    assert_eq!(client.get(url(address, "/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    client.get(url(address, "/")).await.unwrap();
    assert_eq!(header(server.requests().last().unwrap(), "authorization"), Some("Bearer two"));
}

#[tokio::test]
async fn a_token_endpoint_that_knows_only_parameters_gets_them() {
    let refused = status("401 Unauthorized", "");
    let (issuer, issuer_address) = Server::start(&[&refused, &ok("{\"access_token\":\"t\"}")], None).await;
    let (server, address) = Server::start(&[], None).await;
    let text = format!(
        "oauth2 {{\n client_id = \"i\"\n client_secret = \"s\"\n token_url = \"http://{issuer_address}/\"\n}}"
    );
    client(&text).await.get(url(address, "/")).await.unwrap();
    assert!(issuer.requests()[1].ends_with("&client_id=i&client_secret=s"));
    assert_eq!(header(&server.requests()[0], "authorization"), Some("Bearer t"));
}

#[tokio::test]
async fn a_refusing_token_endpoint_is_named_without_secrets() {
    let body = "{\"error\":\"invalid_client\",\"error_description\":\"hunter2 is wrong\"}";
    let refusal = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (_issuer, issuer_address) = Server::start(&[&refusal, &refusal], None).await;
    let text = format!(
        "oauth2 {{\n client_id = \"i\"\n client_secret = \"hunter2\"\n token_url = \"http://{issuer_address}/?k=hunter2\"\n}}"
    );
    let error =
        client(&text).await.get(Url::parse("http://127.0.0.1:1/").unwrap()).await.unwrap_err().to_string();
    assert!(
        error.contains("400") && error.contains("invalid_client") && !error.contains("hunter2"),
        "{error}"
    );
}

// === redirects and failures ===

#[tokio::test]
async fn credentials_stay_with_the_first_origin() {
    let (other, other_address) = Server::start(&[], None).await;
    let away = status("302 Found", &format!("location: http://{other_address}/there\r\n"));
    let (server, address) =
        Server::start(&[&status("307 Temporary Redirect", "location: /next\r\n"), &away], None).await;
    let text = "bearer_token = \"t\"\nhttp_headers = {\"X-Key\" = [\"k\"]}";
    let mut request = reqwest::Request::new(Method::POST, url(address, "/"));
    *request.body_mut() = Some("body".into());
    let response = client(text).await.execute(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let requests = server.requests();
    assert!(requests[1].starts_with("POST /next") && requests[1].ends_with("body"), "{}", requests[1]);
    assert_eq!(header(&requests[1], "authorization"), Some("Bearer t"));
    let there = other.requests().remove(0);
    assert!(there.starts_with("GET /there") && there.ends_with("\r\n\r\n"), "{there}");
    assert!(header(&there, "authorization").is_none() && header(&there, "x-key").is_none(), "{there}");
}

#[tokio::test]
async fn redirects_end() {
    let again = status("302 Found", "location: /\r\n");
    let answers = vec![again.as_str(); 20];
    let (server, address) = Server::start(&answers, None).await;
    let error = client("").await.get(url(address, "/")).await.unwrap_err();
    assert!(matches!(error, HttpClientError::Redirect { .. }), "{error}");
    assert_eq!(server.requests().len(), 11);
    let response = client("follow_redirects = false").await.get(url(address, "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
}

#[tokio::test]
async fn failures_tell_why_and_hide_the_url() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = Url::parse(&format!("http://user:hunter2@{gone}/?token=hunter2")).unwrap();
    let error = client("").await.get(target).await.unwrap_err();
    assert!(matches!(&error, HttpClientError::Connect { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("refused") && !text.contains("hunter2"), "{text}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = reqwest::Request::new(Method::GET, url(silent.local_addr().unwrap(), "/"));
    *request.timeout_mut() = Some(Duration::from_millis(50));
    assert!(client("").await.execute(request).await.unwrap_err().is_timeout());
}

// === TLS ===

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM form.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

async fn tls(certificate: &str, key: &str, client_authority: Option<&str>) -> Arc<rustls::ServerConfig> {
    let block = ServerTlsBlock {
        cert_pem: certificate.into(),
        key_pem: Secret::new(key).into(),
        client_ca: client_authority.unwrap_or_default().into(),
        client_auth_type: client_authority.map_or("", |_| "RequireAndVerifyClientCert").to_owned(),
        ..ServerTlsBlock::default()
    };
    block.server_tls(false, &Access::unrestricted()).await.unwrap().current().await
}

async fn tls_client(block: TlsConfigBlock) -> HttpClient {
    let arguments = HttpClientArguments { tls_config: Some(block), ..HttpClientArguments::defaults() };
    HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted())).await.unwrap()
}

fn secure(address: SocketAddr) -> Url {
    Url::parse(&format!("https://{address}/")).unwrap()
}

#[tokio::test]
async fn a_server_is_verified_against_the_authority_and_the_name() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("service.test");
    let (server, address) = Server::start(&[], Some(tls(&certificate, &key, None).await)).await;
    let trusting = TlsConfigBlock { ca_pem: authority.0.pem().into(), ..TlsConfigBlock::default() };

    // By address: the certificate bears another name.
    let error = tls_client(trusting.clone()).await.get(secure(address)).await.unwrap_err();
    assert!(
        matches!(&error, HttpClientError::Connect { message } if message.contains("certificate")),
        "{error}"
    );
    // With the name it bears: asked for in the handshake too.
    let named = TlsConfigBlock { server_name: "service.test".to_owned(), ..trusting };
    assert_eq!(tls_client(named.clone()).await.get(secure(address)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(server.names.lock().last().unwrap().as_deref(), Some("service.test"));
    assert_eq!(header(&server.requests()[0], "host"), Some(address.to_string().as_str()));
    // Another authority.
    let stranger = TlsConfigBlock { ca_pem: Authority::new().0.pem().into(), ..named };
    assert!(tls_client(stranger).await.get(secure(address)).await.is_err());
    // No verification at all.
    let blind = TlsConfigBlock { insecure_skip_verify: true, ..TlsConfigBlock::default() };
    assert!(tls_client(blind).await.get(secure(address)).await.is_ok());
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_the_authority() {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let (_server, address) =
        Server::start(&[], Some(tls(&certificate, &key.serialize_pem(), None).await)).await;
    let block = TlsConfigBlock { ca_pem: certificate.clone().into(), ..TlsConfigBlock::default() };
    assert_eq!(tls_client(block.clone()).await.get(secure(address)).await.unwrap().status(), StatusCode::OK);
    let other_name = TlsConfigBlock { server_name: "other.test".to_owned(), ..block };
    assert!(tls_client(other_name).await.get(secure(address)).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_is_presented_and_reloaded_when_its_file_changes() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("127.0.0.1");
    let clients = Authority::new();
    let (_server, address) =
        Server::start(&[], Some(tls(&certificate, &key, Some(&clients.0.pem())).await)).await;
    let directory = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (directory.path().join("cert"), directory.path().join("key"));
    let write = |authority: &Authority| {
        let (certificate, key) = authority.issue("client.test");
        std::fs::write(&cert_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
    };
    // Issued by somebody the server does not trust.
    write(&Authority::new());
    let client = tls_client(TlsConfigBlock {
        ca_pem: authority.0.pem().into(),
        cert_file: cert_file.to_str().unwrap().to_owned(),
        key_file: key_file.to_str().unwrap().to_owned(),
        ..TlsConfigBlock::default()
    })
    .await;
    assert!(client.get(secure(address)).await.is_err());
    write(&clients);
    // Files are looked at once a second, by the clock of the runtime.
    look_again().await;
    assert!(client.get(secure(address)).await.is_ok());
    // What cannot be used leaves the last good one in place.
    std::fs::write(&key_file, "nonsense").unwrap();
    look_again().await;
    assert!(client.get(secure(address)).await.is_ok());
}

/// Lets the second pass after which certificate files are looked at again, without waiting for it.
async fn look_again() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1100)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn every_client_auth_type_does_what_its_name_says() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (certificate, key) = servers.issue("127.0.0.1");
    let client = |identity: Option<(String, String)>| {
        let (cert_pem, key_pem) = identity.unwrap_or_default();
        let key_pem = Secret::new(key_pem);
        tls_client(TlsConfigBlock {
            ca_pem: servers.0.pem().into(),
            cert_pem: cert_pem.into(),
            key_pem: key_pem.into(),
            ..TlsConfigBlock::default()
        })
    };
    // Without a certificate, with one of a stranger, with one of an authority that is trusted.
    for (mode, expected) in [
        ("NoClientCert", [true, true, true]),
        ("RequestClientCert", [true, true, true]),
        ("RequireAnyClientCert", [false, true, true]),
        ("VerifyClientCertIfGiven", [true, false, true]),
        ("RequireAndVerifyClientCert", [false, false, true]),
    ] {
        let block = ServerTlsBlock {
            cert_pem: certificate.clone().into(),
            key_pem: Secret::new(key.as_str()).into(),
            client_ca: clients.0.pem().into(),
            client_auth_type: mode.to_owned(),
            cipher_suites: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned(),
            ..ServerTlsBlock::default()
        };
        let config = block.server_tls(false, &Access::unrestricted()).await.unwrap().current().await;
        let (_server, address) = Server::start(&[], Some(config)).await;
        let stranger = Authority::new().issue("client.test");
        let identities = [None, Some(stranger), Some(clients.issue("client.test"))];
        for (identity, expected) in identities.into_iter().zip(expected) {
            let who = identity.is_some();
            let answered = client(identity).await.get(secure(address)).await.is_ok();
            assert_eq!(answered, expected, "{mode}, with a certificate: {who}");
        }
    }
}

#[tokio::test]
async fn unusable_certificates_fail_when_the_client_is_built() {
    for (block, part) in [
        (TlsConfigBlock { ca_pem: "nonsense".into(), ..TlsConfigBlock::default() }, "ca_pem"),
        (
            TlsConfigBlock { ca_file: "/nonexistent/ca".to_owned(), ..TlsConfigBlock::default() },
            "/nonexistent/ca",
        ),
        (TlsConfigBlock { server_name: "a b".to_owned(), ..TlsConfigBlock::default() }, "server_name"),
    ] {
        let arguments = HttpClientArguments { tls_config: Some(block), ..HttpClientArguments::defaults() };
        let error = HttpClient::new(&arguments, HttpClientOptions::under(Access::unrestricted()))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }
}

// === proxies ===

#[tokio::test]
async fn requests_go_through_the_proxy_but_for_exceptions() {
    let (proxy, proxy_address) = Server::start(&[], None).await;
    let client =
        client(&format!("proxy_url = \"http://u:p@{proxy_address}\"\nno_proxy = \"direct.test\"")).await;
    let response = client.get(Url::parse("http://service.test/path").unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let request = proxy.requests().remove(0);
    assert!(request.starts_with("GET http://service.test/path"), "{request}");
    assert_eq!(header(&request, "proxy-authorization"), Some("Basic dTpw"));
    assert!(client.get(Url::parse("http://direct.test:1/").unwrap()).await.is_err());
    assert_eq!(proxy.requests().len(), 1);
}

/// A proxy that speaks SOCKS 5 (RFC 1928), demands user name and password (RFC 1929), and answers itself instead of
/// connecting. Returns what it was asked to connect to.
async fn socks_server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting).await.unwrap();
                stream.read_exact(&mut vec![0; usize::from(greeting[1])]).await.unwrap();
                stream.write_all(&[5, 2]).await.unwrap();
                let mut credentials = Vec::new();
                assert_eq!(stream.read_u8().await.unwrap(), 1);
                for _ in 0..2 {
                    let mut part = vec![0; usize::from(stream.read_u8().await.unwrap())];
                    stream.read_exact(&mut part).await.unwrap();
                    credentials.push(String::from_utf8(part).unwrap());
                }
                stream.write_all(&[1, u8::from(credentials != ["u", "p"])]).await.unwrap();
                let mut head = [0; 4];
                stream.read_exact(&mut head).await.unwrap();
                assert_eq!(head, [5, 1, 0, 3], "a name is asked for");
                let mut name = vec![0; usize::from(stream.read_u8().await.unwrap())];
                stream.read_exact(&mut name).await.unwrap();
                let port = stream.read_u16().await.unwrap();
                kept.lock().push(format!("{}:{port}", String::from_utf8(name).unwrap()));
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(ok("through").as_bytes()).await.unwrap();
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_socks_proxy_resolves_names_and_gets_credentials() {
    let (address, asked) = socks_server().await;
    for scheme in ["socks5", "socks5h"] {
        let client = client(&format!("proxy_url = \"{scheme}://u:p@{address}\"")).await;
        let response = client.get(Url::parse("http://service.test:8080/path").unwrap()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "through");
    }
    assert_eq!(*asked.lock(), ["service.test:8080", "service.test:8080"]);
    let wrong = client(&format!("proxy_url = \"socks5://u:hunter2@{address}\"")).await;
    let error = wrong.get(Url::parse("http://service.test/").unwrap()).await.unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let errors = arguments("proxy_url = \"socks4://x\"").unwrap_err();
    assert!(errors[0].contains("socks5://"), "{errors:?}");
}

// === the ceiling of the host ===

fn ceiling(settings: invar_policy::PolicySettings) -> Access {
    invar_policy::Policy::new(&settings, &[]).unwrap().general().clone()
}

fn egress(patterns: &[&str]) -> Access {
    let egress = Some(patterns.iter().map(|pattern| (*pattern).to_owned()).collect());
    ceiling(invar_policy::PolicySettings { egress, ..Default::default() })
}

#[tokio::test]
async fn what_a_server_quotes_of_credentials_is_concealed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2-file\n").unwrap();
    for (text, quoted) in [
        ("basic_auth {\n username = \"u\"\n password = \"hunter2:x\"\n}".to_owned(), "hunter2:x"),
        ("basic_auth {\n username = \"u\"\n password = \"hunter2:x\"\n}".to_owned(), "dTpodW50ZXIyOng="),
        ("bearer_token = \"hunter2\"".to_owned(), "Bearer hunter2"),
        (format!("bearer_token_file = \"{}\"", file.display()), "hunter2-file"),
        ("http_headers = { \"x-key\" = [\"hunter2\", \"hunter2-long\"] }".to_owned(), "hunter2-long"),
    ] {
        let said = client(&text).await.conceal(format!("you sent {quoted}, which is wrong")).await;
        assert!(said.contains(REDACTED), "{text}: {said}");
        assert!(
            !said.contains("hunter2") && !said.contains("dTpodW") && !said.contains("-long"),
            "{text}: {said}"
        );
    }
    let said = client("bearer_token = \"a\"").await.conceal("a tale".to_owned()).await;
    assert_eq!(said, "a tale");
}

async fn client_under(text: &str, access: Access) -> HttpClient {
    HttpClient::new(&arguments(text).unwrap(), HttpClientOptions::under(access)).await.unwrap()
}

#[tokio::test]
async fn a_redirect_leads_no_further_than_the_ceiling() {
    let (other, elsewhere) = Server::start(&[], None).await;
    let location = format!("location: http://localhost:{}/\r\n", elsewhere.port());
    let (_, address) = Server::start(&[&status("302 Found", &location)], None).await;
    let client = client_under("", egress(&[&address.to_string()])).await;
    let error = client.get(url(address, "/")).await.unwrap_err();
    assert!(matches!(error, HttpClientError::NotAllowed(_)), "{error}");
    assert!(error.to_string().contains("localhost"), "{error}");
    assert!(other.requests().is_empty(), "nothing was sent there");
}

#[tokio::test]
async fn a_name_is_connected_to_only_at_addresses_that_are_allowed() {
    let (server, address) = Server::start(&[], None).await;
    let named = Url::parse(&format!("http://localhost:{}/", address.port())).unwrap();
    let refused = client_under("", egress(&["10.0.0.0/8"])).await.get(named.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("may not be connected to"), "{refused}");
    assert!(server.requests().is_empty());
    let allowed = client_under("", egress(&["127.0.0.0/8"])).await.get(named.clone()).await.unwrap();
    assert_eq!(allowed.status(), StatusCode::OK);
    // A proxy looks names up by itself.
    let proxied = format!("proxy_url = \"http://{address}\"");
    let far = Url::parse("http://metrics.example/").unwrap();
    let error = client_under(&proxied, egress(&["127.0.0.0/8"])).await.get(far).await.unwrap_err();
    assert!(error.to_string().contains("through a proxy"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_credential_file_that_comes_to_lead_elsewhere_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("token"), "inside").unwrap();
    std::fs::write(&outside, "outside-marker").unwrap();
    let (server, address) = Server::start(&[], None).await;
    let access = ceiling(invar_policy::PolicySettings {
        file_roots: Some(vec![root.canonicalize().unwrap()]),
        ..Default::default()
    });
    let path = root.canonicalize().unwrap().join("token");
    let client = client_under(&format!("bearer_token_file = \"{}\"", path.display()), access).await;
    client.get(url(address, "/")).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    let error = client.get(url(address, "/")).await.unwrap_err();
    assert!(error.to_string().contains("may not be used"), "{error}");
    assert_eq!(server.requests().len(), 1);
    assert!(!server.requests().concat().contains("outside-marker"));
}
