//! Tokens of a GitHub App's installation: asked for with a signed assertion (a JWT by RS256), kept until shortly before they
//! expire, and asked for anew once when one is refused. A token reads the contents of one repository and nothing else.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode, header};
use invar_secrets::{Secret, SecretStores};
use parking_lot::Mutex;
use reqwest::{Client, Response};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::connection::{chain, is_loopback, secret_failure};
use crate::error::{ErrorClass, Failure, Rejection};
use crate::http_status::{self, parse_date, parse_timestamp};
use crate::settings::GithubAppSettings;

const DEFAULT_API: &str = "https://api.github.com";
/// How far in the past an assertion begins, so that a clock that is ahead does no harm.
const BACKDATED: Duration = Duration::from_secs(60);
/// How long an assertion holds from now on; with what it is backdated by, nine minutes of the ten that are allowed.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(8 * 60);
/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// The longest a token is believed to hold.
const LIFETIME_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Time for the answer of the API.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// More than this between the clocks is worth a word.
const CLOCK_TOLERANCE: u64 = 30;

/// An App, installed where the repository is.
pub(crate) struct GithubApp {
    settings: GithubAppSettings,
    endpoint: Url,
    /// The repository's name, without its owner's.
    repository: String,
    secrets: SecretStores,
    held: Mutex<Option<Token>>,
    /// Who has it asks for a token; the others wait for that one.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Token {
    secret: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: String,
}

impl fmt::Debug for GithubApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GithubApp({} {})", self.settings.app_id, self.settings.installation_id)
    }
}

impl GithubApp {
    /// Does no input or output. `repository` is the address of the repository.
    pub(crate) fn new(
        settings: &GithubAppSettings,
        repository: &Url,
        secrets: &SecretStores,
    ) -> Result<Self, Failure> {
        let api = settings.api_url.as_deref().unwrap_or(DEFAULT_API);
        let unusable = |what: &str| Failure::stalled(format!("`auth.github_app.api_url` {what}"));
        let mut endpoint = Url::parse(api).map_err(|_| unusable("is not an address"))?;
        if endpoint.scheme() != "https" && !(endpoint.scheme() == "http" && is_loopback(&endpoint)) {
            return Err(unusable("is not an https:// address"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(unusable("holds a credential"));
        }
        let path = endpoint.path().trim_end_matches('/').to_owned();
        endpoint.set_path(&format!("{path}/app/installations/{}/access_tokens", settings.installation_id));
        endpoint.set_query(None);
        let name = repository.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".git").unwrap_or(name);
        Ok(Self {
            settings: settings.clone(),
            endpoint,
            repository: name.to_owned(),
            secrets: secrets.clone(),
            held: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// Whether its API is reached over TLS.
    pub(crate) fn needs_tls(&self) -> bool {
        self.endpoint.scheme() == "https"
    }

    /// The token that was given last.
    pub(crate) fn held(&self) -> Option<Secret> {
        self.held.lock().as_ref().map(|token| token.secret.clone())
    }

    /// A token that holds for a while; asks for one if need be. One that was `refused` is not given again.
    pub(crate) async fn token(
        &self,
        client: &Client,
        refused: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Secret, Failure> {
        let usable = || {
            let held = self.held.lock().clone()?;
            let is_refused = refused.is_some_and(|refused| refused.expose() == held.secret.expose());
            (held.until > Instant::now() && !is_refused).then_some(held.secret)
        };
        if let Some(secret) = usable() {
            return Ok(secret);
        }
        let _asking = self.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(secret) = usable() {
            return Ok(secret);
        }
        let token = self.ask(client, deadline).await?;
        let secret = token.secret.clone();
        *self.held.lock() = Some(token);
        Ok(secret)
    }

    async fn ask(&self, client: &Client, deadline: Instant) -> Result<Token, Failure> {
        let key = self.settings.key.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?;
        let now = SystemTime::now();
        let assertion = assertion(&self.settings.app_id, &key, now)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", assertion.expose()))
            .map_err(|_| Failure::stalled("`auth.github_app.app_id` does not fit into an HTTP header"))?;
        bearer.set_sensitive(true);
        let body = serde_json::json!({
            "repositories": [self.repository],
            "permissions": { "contents": "read" },
        });
        let request = client
            .post(self.endpoint.clone())
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-github-api-version", "2022-11-28")
            .body(body.to_string());
        let place = self.endpoint.as_str();
        let deadline = deadline.min(Instant::now() + TIMEOUT);
        let late = || Failure::transient(format!("{place} does not answer in time"));
        let response = timeout_at(deadline, request.send()).await.map_err(|_| late())?.map_err(|error| {
            Failure::transient(format!("{place} cannot be reached: {}", chain(&error.without_url())))
        })?;
        if response.status() != StatusCode::CREATED {
            return Err(self.refusal(&response, now));
        }
        let date =
            response.headers().get(header::DATE).and_then(|value| value.to_str().ok()).and_then(parse_date);
        let bytes = timeout_at(deadline, read(response, place)).await.map_err(|_| late())??;
        let odd = || Failure::rejected(Rejection::Shape, format!("{place} does not answer like GitHub"));
        let granted: Granted = serde_json::from_slice(&bytes).map_err(|_| odd())?;
        let expires = parse_timestamp(&granted.expires_at).ok_or_else(odd)?;
        // Measured against the server's clock, since the time is the server's.
        let server_now = date.unwrap_or_else(|| seconds(now));
        let lifetime = Duration::from_secs(expires.saturating_sub(server_now)).min(LIFETIME_LIMIT);
        Ok(Token {
            secret: Secret::new(granted.token),
            until: Instant::now() + lifetime.saturating_sub(MARGIN),
        })
    }

    fn refusal(&self, response: &Response, now: SystemTime) -> Failure {
        let place = self.endpoint.as_str();
        let (app, installation) = (&self.settings.app_id, self.settings.installation_id);
        let date =
            response.headers().get(header::DATE).and_then(|value| value.to_str().ok()).and_then(parse_date);
        match response.status().as_u16() {
            401 => {
                let message = format!("{place} does not accept the key of the App {app} (401)");
                let off = date.map(|date| date.abs_diff(seconds(now))).filter(|off| *off > CLOCK_TOLERANCE);
                let help = match off {
                    Some(off) => format!("the clock of this host is {off} s away from the server's; set it"),
                    None => "check that the key belongs to the App, and was not revoked".to_owned(),
                };
                self.settings.key.refused(&self.secrets);
                Failure::new(ErrorClass::AuthExpired, message).with_help(help)
            }
            404 => Failure::new(
                ErrorClass::Forbidden,
                format!("the App {app} has no installation {installation}, or it was taken away (404)"),
            )
            .with_help(
                "the id is the number at the end of the installation's address in the settings of GitHub",
            ),
            422 => Failure::new(
                ErrorClass::Forbidden,
                format!(
                    "the installation {installation} may not read the contents of `{}` (422)",
                    self.repository
                ),
            )
            .with_help(
                "give the installation access to the repository, and the App the permission `contents: read`",
            ),
            _ => http_status::failure(response.status(), response.headers(), place, true, now),
        }
    }
}

async fn read(mut response: Response, place: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            Failure::transient(format!("{place} broke the connection off: {}", chain(&error.without_url())))
        })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Failure::rejected(Rejection::Shape, format!("{place} does not answer like GitHub")));
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The App's word on who it is, signed with its key.
fn assertion(app: &str, key: &Secret, now: SystemTime) -> Result<Secret, Failure> {
    let unusable = |what: &str| {
        Failure::new(ErrorClass::AuthExpired, format!("the key of `auth.github_app` {what}"))
            .with_help("it is the file that GitHub gives out when a private key is made for the App")
    };
    let der = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| unusable("is no private key in PEM form"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(unusable("is not one of RSA")),
    };
    let pair = pair.map_err(|_| unusable("is not a usable one of RSA"))?;
    let claims = serde_json::json!({
        "iat": seconds(now).saturating_sub(BACKDATED.as_secs()),
        "exp": seconds(now) + ASSERTION_LIFETIME.as_secs(),
        "iss": app,
    });
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let mut text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| unusable("cannot sign"))?;
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use invar_secrets::Credential;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that counts what it is asked, and answers only when everybody who wants a token waits for it.
    async fn api(asked: Arc<AtomicUsize>, go: Arc<tokio::sync::Notify>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = [0; 4096];
                assert!(stream.read(&mut bytes).await.unwrap() > 0);
                let number = asked.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                let body = format!(r#"{{"token":"ghs_{number}","expires_at":"1994-11-06T09:00:00Z"}}"#);
                let answer = format!(
                    "HTTP/1.1 201 X\r\ndate: Sun, 06 Nov 1994 08:00:00 GMT\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    fn key() -> Option<Secret> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"])
            .arg(&path)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "ssh-keygen is missing");
            eprintln!("skipped: ssh-keygen is not installed");
            return None;
        }
        Some(Secret::new(std::fs::read_to_string(path).unwrap()))
    }

    #[tokio::test]
    async fn who_wants_a_token_at_the_same_time_gets_the_same_one() {
        let Some(key) = key() else { return };
        let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        let settings = GithubAppSettings {
            app_id: "1".to_owned(),
            installation_id: 2,
            key: Credential::Text(key),
            api_url: Some(api(Arc::clone(&asked), Arc::clone(&go)).await.to_string()),
        };
        let repository = "https://git.example/obs/fleet.git".parse().unwrap();
        let app = Arc::new(GithubApp::new(&settings, &repository, &SecretStores::local()).unwrap());
        let client = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(invar_tls::ClientSettings::plain_text_only().unwrap());
        let client = client.build().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let together = |refused: Option<Secret>| {
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    let (app, client, refused) = (Arc::clone(&app), client.clone(), refused.clone());
                    tokio::spawn(async move { app.token(&client, refused.as_ref(), deadline).await.unwrap() })
                })
                .collect();
            waiting
        };
        let all = async |waiting: Vec<tokio::task::JoinHandle<Secret>>, token: &str| {
            for one in waiting {
                assert_eq!(one.await.unwrap().expose(), token);
            }
        };
        go.notify_one();
        all(together(None), "ghs_0").await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        all(together(None), "ghs_0").await;
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it is kept");
        go.notify_one();
        all(together(Some(Secret::new("ghs_0"))), "ghs_1").await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "a refused one is replaced once for all");
    }
}
