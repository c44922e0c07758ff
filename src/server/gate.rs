//! Who may use the agent's HTTP API: the name and password that the `http` block of the running configuration asks for, and
//! for which paths. Changes with a swap; connections stay.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invar_syntax::LiveSecret;
use invar_tls::ServerTls;
use sha2::{Digest, Sha256};

/// What a caller must show.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: LiveSecret,
    pub(crate) paths: Paths,
}

/// The paths that credentials are asked for. A path stands for all that begin with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Paths {
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

/// What holds now. Without credentials everyone may come in; without TLS connections are plain.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    credentials: ArcSwapOption<Credentials>,
    tls: ArcSwapOption<ServerTls>,
}

impl Paths {
    fn cover(&self, path: &str) -> bool {
        let among = |prefixes: &[String]| prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()));
        match self {
            Self::All => true,
            Self::Only(prefixes) => among(prefixes),
            Self::AllBut(prefixes) => !among(prefixes),
        }
    }
}

impl Gate {
    /// Asks for other credentials from now on, or for none.
    pub(crate) fn set(&self, credentials: Option<Arc<Credentials>>) {
        self.credentials.store(credentials);
    }

    /// Speaks TLS on connections that come from now on, or no longer does. Those that exist stay.
    pub(crate) fn set_tls(&self, tls: Option<Arc<ServerTls>>) {
        self.tls.store(tls);
    }

    /// The TLS of a connection that comes now.
    pub(super) fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.load_full()
    }

    fn admits(&self, path: &str, headers: &HeaderMap) -> bool {
        let credentials = self.credentials.load();
        let Some(credentials) = credentials.as_deref().filter(|credentials| credentials.paths.cover(path))
        else {
            return true;
        };
        shown(headers).is_some_and(|(username, password)| {
            // Digests of equal length: how far two texts agree shows in no timing.
            let same = |left: &str, right: &str| Sha256::digest(left) == Sha256::digest(right);
            same(&username, &credentials.username) & same(&password, credentials.password.read().expose())
        })
    }
}

/// The name and password of a request (RFC 7617).
fn shown(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    text.split_once(':').map(|(username, password)| (username.to_owned(), password.to_owned()))
}

/// Lets a request through, or asks for credentials.
pub(crate) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    if gate.admits(request.uri().path(), request.headers()) {
        return next.run(request).await;
    }
    let mut response = (StatusCode::UNAUTHORIZED, "credentials are required\n").into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Restricted\""));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_syntax::Secret;

    use super::*;

    fn gate(paths: Paths) -> Gate {
        let gate = Gate::default();
        let (username, password) = ("ana".to_owned(), LiveSecret::from(Secret::new("pass:word")));
        gate.set(Some(Arc::new(Credentials { username, password, paths })));
        gate
    }

    fn headers(text: &str) -> HeaderMap {
        let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(text))).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[test]
    fn only_the_right_name_and_password_pass() {
        let gate = gate(Paths::All);
        assert!(gate.admits("/metrics", &headers("ana:pass:word")));
        for wrong in ["ana:pass", "leo:pass:word", "ana:", "ana", ""] {
            assert!(!gate.admits("/metrics", &headers(wrong)), "{wrong:?}");
        }
        assert!(!gate.admits("/metrics", &HeaderMap::new()));
        let bearer = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer x"))]);
        assert!(!gate.admits("/metrics", &bearer));
        gate.set(None);
        assert!(gate.admits("/metrics", &HeaderMap::new()));
    }

    #[test]
    fn a_filter_says_where_credentials_are_asked_for() {
        let none = HeaderMap::new();
        let only = gate(Paths::Only(vec!["/api".to_owned(), "/metrics".to_owned()]));
        assert!(!only.admits("/api/v1/status", &none) && only.admits("/-/ready", &none));
        let but = gate(Paths::AllBut(vec!["/-/".to_owned()]));
        assert!(but.admits("/-/ready", &none) && !but.admits("/metrics", &none));
        assert!(gate(Paths::Only(Vec::new())).admits("/metrics", &none), "an empty list covers nothing");
    }
}
