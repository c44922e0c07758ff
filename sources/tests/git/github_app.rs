//! A GitHub App as the identity: a scripted API that checks what it is sent, and a real repository that wants its tokens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use http_backend::Access;
use invar_secrets::{Credential, Secret};
use invar_sources::{AuthSettings, GithubAppSettings};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const DATE: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const IN_AN_HOUR: &str = "1994-11-06T09:00:00Z";
const IN_FIVE_MINUTES: &str = "1994-11-06T08:05:00Z";

/// What the API was asked, and what it is to say: status and body.
#[derive(Default)]
struct Script {
    asked: Vec<(String, String)>,
    answers: VecDeque<(u16, String)>,
}

struct Api {
    url: String,
    script: Arc<Mutex<Script>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v3/", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    loop {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            let Ok(byte) = stream.read_u8().await else { return };
                            head.push(byte);
                        }
                        let head = String::from_utf8(head).unwrap();
                        let length = head
                            .lines()
                            .find_map(|line| {
                                line.to_ascii_lowercase()
                                    .strip_prefix("content-length: ")
                                    .map(|n| n.parse().unwrap())
                            })
                            .unwrap_or(0);
                        let mut body = vec![0; length];
                        stream.read_exact(&mut body).await.unwrap();
                        let (status, answer) = {
                            let mut script = shared.lock().unwrap();
                            script.asked.push((head, String::from_utf8(body).unwrap()));
                            script.answers.pop_front().unwrap_or((500, String::new()))
                        };
                        let answer = format!(
                            "HTTP/1.1 {status} X\r\ndate: {DATE}\r\ncontent-length: {}\r\n\r\n{answer}",
                            answer.len()
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { url, script, task }
    }

    fn will_say(&self, status: u16, body: &str) {
        self.script.lock().unwrap().answers.push_back((status, body.to_owned()));
    }

    fn will_grant(&self, token: &str, until: &str) {
        self.will_say(
            201,
            &format!(r#"{{"token":"{token}","expires_at":"{until}","repository_selection":"selected"}}"#),
        );
    }

    fn take_asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }
}

fn basic(token: &str) -> Access {
    let joined = format!("x-access-token:{token}");
    Access::Header(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(joined)))
}

/// A key of RSA in the form that GitHub gives out.
fn key(world: &World) -> Option<std::path::PathBuf> {
    let path = world.folder.path().join("app.pem");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"])
        .arg(&path)
        .status();
    if made.is_ok_and(|status| status.success()) {
        return Some(path);
    }
    skipped("ssh-keygen is not installed");
    None
}

fn settings(world: &World, api: &Api, key: Credential) -> SourceSettings {
    let app = GithubAppSettings {
        app_id: "Iv23x".to_owned(),
        installation_id: 4711,
        key,
        api_url: Some(api.url.clone()),
    };
    let auth = Some(AuthSettings { github_app: Some(app), ..AuthSettings::default() });
    SourceSettings { auth, ..world.settings() }
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_kept() {
    let Some(world) = world() else { return };
    let Some(key) = key(&world) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let api = Api::start().await;
    let source = world.open(&settings(&world, &api, Credential::File(key.clone())));
    world.server.set_access(basic("ghs_hunter2_1"));
    api.will_grant("ghs_hunter2_1", IN_AN_HOUR);
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");
    for _ in 0..3 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    }
    let asked = api.take_asked();
    assert_eq!(asked.len(), 1);
    let (head, body) = &asked[0];
    assert!(head.starts_with("POST /api/v3/app/installations/4711/access_tokens HTTP/1.1"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, serde_json::json!({"repositories": ["fleet"], "permissions": {"contents": "read"}}));

    // The assertion is signed by the App's key, and leaves room for clocks that differ.
    let assertion = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let pem = std::fs::read(&key).unwrap();
    let der = PrivatePkcs1KeyDer::from_pem_slice(&pem).unwrap();
    let pair = RsaKeyPair::from_der(der.secret_pkcs1_der()).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public())
        .verify(signed.as_bytes(), &decode(signature))
        .unwrap();
    let (_, claims) = signed.split_once('.').unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&decode(claims)).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(claims["iss"], "Iv23x");
    assert!((now - 120..=now - 60).contains(&iat), "{iat} {now}");
    assert!(exp - iat <= 9 * 60 && exp > now + 60, "{iat} {exp}");
    assert!(!format!("{source:?} {first:?} {}", source.description()).contains("hunter2"));
}

#[tokio::test]
async fn a_token_is_renewed_five_minutes_before_its_end() {
    let Some(world) = world() else { return };
    let Some(key) = key(&world) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let api = Api::start().await;
    let source = world.open(&settings(&world, &api, Credential::File(key)));
    world.server.set_access(basic("ghs_1"));
    // Each request uses a token that is at its end already, by the server's clock and not by ours.
    for _ in 0..3 {
        api.will_grant("ghs_1", IN_FIVE_MINUTES);
    }
    changed(&source, None).await;
    assert_eq!(api.take_asked().len(), 3, "one for each of the three requests");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let Some(world) = world() else { return };
    let Some(key) = key(&world) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let api = Api::start().await;
    let source = world.open(&settings(&world, &api, Credential::File(key)));
    world.server.set_access(basic("ghs_1"));
    api.will_grant("ghs_1", IN_AN_HOUR);
    let first = changed(&source, None).await;
    api.take_asked();
    world.server.set_access(basic("ghs_2"));
    api.will_grant("ghs_2", IN_AN_HOUR);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None, "nobody notices");
    assert_eq!(api.take_asked().len(), 1);

    // A server that quotes the token is not quoted. The first refusal makes the advertisement be asked for anew.
    let refuse = || http_backend::Fault::Refuse("no access with ghs_2");
    world.server.inject([refuse(), http_backend::Fault::Delay(Duration::ZERO), refuse()]);
    let error = failed(&source, Some(&first)).await;
    assert!(error.message.contains("no access with") && !format!("{error:?}").contains("ghs_2"), "{error:?}");

    world.server.take_log();
    world.server.set_access(basic("ghs_3"));
    api.will_grant("ghs_4", IN_AN_HOUR);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Transient, "right after a rotation: {error}");
    assert!(error.message.contains("(401)"), "{error}");
    assert_eq!(api.take_asked().len(), 1);
    assert_eq!(world.server.take_log().len(), 2, "the request is tried twice, not more");
}

#[tokio::test]
async fn what_the_api_refuses_has_a_class_and_a_fix() {
    let Some(world) = world() else { return };
    let Some(key) = key(&world) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let api = Api::start().await;
    let text = std::fs::read_to_string(&key).unwrap();
    let source = world.open(&settings(&world, &api, Credential::Text(Secret::new(text))));
    for (status, body, class, part) in [
        (401, "", ErrorClass::AuthExpired, "the clock of this host"),
        (404, "", ErrorClass::Forbidden, "no installation 4711"),
        (422, "", ErrorClass::Forbidden, "contents of `fleet`"),
        (503, "", ErrorClass::Transient, "not available"),
        (201, "<html>", ErrorClass::Rejected(Rejection::Shape), "like GitHub"),
        (201, r#"{"token":"x","expires_at":"soon"}"#, ErrorClass::Rejected(Rejection::Shape), "like GitHub"),
    ] {
        api.will_say(status, body);
        let error = failed(&source, None).await;
        assert_eq!(error.class, class, "{status}: {error}");
        let shown = format!("{error} {}", error.help.clone().unwrap_or_default());
        assert!(shown.contains(part) || status == 503, "{status}: {shown}");
    }
    assert!(world.server.take_log().is_empty(), "the repository is not asked without a token");
    let nonsense = Credential::Text(Secret::new("hunter2-hunter2"));
    let error = failed(&world.open(&settings(&world, &api, nonsense)), None).await;
    assert_eq!(error.class, ErrorClass::AuthExpired);
    assert!(
        error.message.contains("no private key in PEM form") && !format!("{error:?}").contains("hunter2")
    );
    let mut insecure = settings(&world, &api, Credential::File(key));
    insecure.auth.as_mut().unwrap().github_app.as_mut().unwrap().api_url =
        Some("http://api.example".to_owned());
    let error = GitSource::open(&insecure, &world.environment()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Stalled, "{error}");
}
