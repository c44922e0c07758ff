//! What each method sends, and secrets that arrive wrapped.
use invar_cloud_identity::Surroundings;
use url::Url;

use super::*;

/// Logs in once by `auth` and gives what was sent.
async fn sent(auth: &str, parts: impl FnOnce(ClientParts) -> ClientParts) -> Asked {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        path if path.starts_with("auth/") && path.contains("login") => grant("t", 3600, true),
        _ => ordinary(asked, &mut logins),
    });
    let settings = format!("address = 'https://vault.example'\nnamespace = 'obs'\nauth = {{ {auth} }}\n");
    let settings: VaultSettings = toml::from_str(&settings).unwrap();
    let store = VaultStore::with(&settings, parts(server.parts(&Fate::default()))).unwrap();
    store.read("kv/a").await.unwrap();
    server.asked("auth/")[0].clone()
}

async fn as_sent(auth: &str) -> (String, Value) {
    let asked = sent(auth, |parts| parts).await;
    assert_eq!((asked.namespace.as_str(), asked.token.as_str()), ("obs", ""));
    (asked.path, asked.body)
}

#[tokio::test]
async fn methods_send_what_they_have_where_they_are_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    std::fs::write(&file, "header.claims.signature\n").unwrap();
    let file = file.display();
    for (auth, path, body) in [
        (
            "userpass = { username = 'u', password = 'p' }".to_owned(),
            "auth/userpass/login/u",
            json!({ "password": "p" }),
        ),
        (
            "ldap = { username = 'u', password = 'p', mount = 'ad/' }".to_owned(),
            "auth/ad/login/u",
            json!({ "password": "p" }),
        ),
        (
            "approle = { role_id = 'r', secret_id = 's' }".to_owned(),
            "auth/approle/login",
            json!({ "role_id": "r", "secret_id": "s" }),
        ),
        ("approle = { role_id = 'r' }".to_owned(), "auth/approle/login", json!({ "role_id": "r" })),
        (
            format!("kubernetes = {{ role = 'r', token = {{ file = '{file}' }}, mount = 'k8s/east' }}"),
            "auth/k8s/east/login",
            json!({ "role": "r", "jwt": "header.claims.signature" }),
        ),
        (
            format!("jwt = {{ role = 'r', token = {{ file = '{file}' }} }}"),
            "auth/jwt/login",
            json!({ "role": "r", "jwt": "header.claims.signature" }),
        ),
        (
            format!("oidc = {{ token = {{ file = '{file}' }}, mount = 'oidc' }}"),
            "auth/oidc/login",
            json!({ "jwt": "header.claims.signature" }),
        ),
        (
            "custom = { path = '/auth/x/login', data = { a = 'b' } }".to_owned(),
            "auth/x/login",
            json!({ "a": "b" }),
        ),
    ] {
        assert_eq!(as_sent(&auth).await, (path.to_owned(), body), "{auth}");
    }
    let asked =
        sent("custom = { path = 'auth/x/login', data = {}, namespace = 'admin' }", |parts| parts).await;
    assert_eq!(asked.namespace, "admin");
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/cert/login" => grant("t", 3600, true),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store("auth = { cert = { name = 'web' } }\ntls = { cert = '/c', key = '/k' }\n");
    store.read("kv/a").await.unwrap();
    assert_eq!(server.asked("auth/cert/login")[0].body, json!({ "name": "web" }));
}

#[tokio::test]
async fn file_credentials_are_read_again_at_every_login() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    std::fs::write(&file, "first").unwrap();
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/kubernetes/login" => grant(&format!("of-{}", asked.body["jwt"].as_str().unwrap()), 3600, true),
        _ if asked.token == "of-first" && asked.path == "kv/data/b" => errors(403, "permission denied"),
        "auth/token/lookup-self" if asked.token == "of-first" => errors(403, "permission denied"),
        _ => ordinary(asked, &mut logins),
    });
    let auth =
        format!("auth = {{ kubernetes = {{ role = 'r', token = {{ file = '{}' }} }} }}\n", file.display());
    let store = server.store(&auth);
    store.read("kv/a").await.unwrap();
    std::fs::write(&file, "second").unwrap();
    store.read("kv/b").await.unwrap();
    assert_eq!(server.asked("kv/data/b").last().unwrap().token, "of-second");
}

#[tokio::test(start_paused = true)]
async fn credentials_may_be_secrets_of_other_stores() {
    let files: Arc<dyn crate::SecretStore> = Arc::new(crate::EnvironmentStore::process());
    let path = std::env::vars().find(|(_, value)| !value.trim().is_empty()).unwrap();
    let stores = SecretStores::new(BTreeMap::from([("env".to_owned(), files)]));
    let auth = format!("userpass = {{ username = 'u', password = {{ secret = 'env/{}' }} }}", path.0);
    let asked = sent(&auth, |parts| ClientParts { credentials: stores, ..parts }).await;
    assert_eq!(asked.body, json!({ "password": path.1.trim() }));
}

/// A store whose only secret is what a test says it is.
#[derive(Default)]
struct Kept {
    text: Mutex<String>,
    reads: AtomicU64,
}

impl crate::SecretStore for Kept {
    fn kind(&self) -> crate::StoreKind {
        crate::StoreKind::Exec
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<crate::SecretSnapshot, SecretError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let text = crate::Secret::new(self.text.lock().as_str());
        Box::pin(async move { Ok(crate::SecretSnapshot::single(text)) })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_of_another_store_is_read_again_when_the_login_is_refused() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "auth/userpass/login/u" if asked.body["password"] != "second" => {
            errors(400, "invalid username or password")
        }
        _ => ordinary(asked, &mut logins),
    });
    let kept = Arc::new(Kept::default());
    *kept.text.lock() = "first".to_owned();
    let dynamic: Arc<dyn crate::SecretStore> = kept.clone();
    let credentials = SecretStores::new(BTreeMap::from([("kept".to_owned(), dynamic)]));
    let settings = "address = 'https://vault.example'\n\
                    auth = { userpass = { username = 'u', password = { secret = 'kept/p' } } }";
    let parts = ClientParts { credentials, ..server.parts(&Fate::default()) };
    let store = VaultStore::with(&toml::from_str(settings).unwrap(), parts).unwrap();
    assert!(is_denied(store.read("kv/a").await).contains("is refused"));
    // Refused again and again, and read at most every ten seconds.
    for _ in 0..60 {
        is_denied(store.read("kv/a").await);
        pass(1).await;
    }
    let reads = kept.reads.load(Ordering::Relaxed);
    assert!((3..=7).contains(&reads), "{reads} reads within a minute");
    *kept.text.lock() = "second".to_owned();
    let began = Instant::now();
    while store.read("kv/a").await.is_err() {
        pass(1).await;
    }
    // The first attempt to log in after it was read again; by time alone it would be read after five minutes.
    assert!(began.elapsed() < Duration::from_secs(180), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_missing_names_its_place() {
    let server = Scripted::new(|asked| panic!("{asked:?}"));
    let store = server.store("auth = { jwt = { token = { env = 'INVAR_TEST_NOT_SET' } } }\n");
    let reason = is_missing(store.read("kv/a").await);
    assert!(reason.contains("`auth.jwt.token`") && reason.contains("INVAR_TEST_NOT_SET"), "{reason}");
}

fn approle(asked: &Asked, unwrapped: &mut u32, logins: &mut u32, path: &str) -> Say {
    match asked.path.as_str() {
        "sys/wrapping/lookup" => {
            ok(json!({ "data": { "creation_path": path, "creation_ttl": 60, "creation_time": "x" } }))
        }
        "sys/wrapping/unwrap" => {
            *unwrapped += 1;
            assert_eq!(asked.token, "marker-wrapping");
            match unwrapped {
                1 => ok(json!({ "data": { "secret_id": "marker-id", "secret_id_accessor": "a" } })),
                _ => errors(400, "wrapping token is not valid or does not exist"),
            }
        }
        "auth/approle/login" => {
            assert_eq!(asked.body, json!({ "role_id": "r", "secret_id": "marker-id" }));
            grant("t", 100, false)
        }
        _ => ordinary(asked, logins),
    }
}

const WRAPPED: &str =
    "auth = { approle = { role_id = 'r', secret_id = 'marker-wrapping', wrapped = true } }\n";

#[tokio::test(start_paused = true)]
async fn a_wrapped_secret_id_is_unwrapped_once_for_all_logins() {
    let (mut unwrapped, mut logins) = (0, 0);
    let path = "auth/approle/role/invar/secret-id";
    let server = Scripted::new(move |asked| approle(asked, &mut unwrapped, &mut logins, path));
    let store = server.store(WRAPPED);
    store.read("kv/a").await.unwrap();
    pass(200).await;
    assert_eq!(server.count("auth/approle/login"), 3);
    assert_eq!((server.count("sys/wrapping/lookup"), server.count("sys/wrapping/unwrap")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_nobody_waits_for_any_more_still_keeps_what_it_unwrapped() {
    let (mut unwrapped, mut logins) = (0, 0);
    let path = "auth/approle/role/invar/secret-id";
    let mut server = Scripted::new(move |asked| approle(asked, &mut unwrapped, &mut logins, path));
    server.takes = Duration::from_millis(100);
    let store = server.store(WRAPPED);
    let gone = tokio::time::timeout(Duration::from_millis(150), store.read("kv/a")).await;
    assert!(gone.is_err(), "whoever asked went away while it was unwrapped");
    store.read("kv/a").await.unwrap();
    assert_eq!(server.count("sys/wrapping/unwrap"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrapping_token_that_somebody_used_is_told_and_never_tried_again() {
    let (mut unwrapped, mut logins) = (1, 0);
    let path = "auth/approle/role/invar/secret-id";
    let server = Scripted::new(move |asked| approle(asked, &mut unwrapped, &mut logins, path));
    let store = server.store(WRAPPED);
    for _ in 0..100 {
        match store.read("kv/a").await {
            Err(error @ SecretError::Compromised { .. }) => {
                let text = format!("{error} {error:?}");
                assert!(text.contains("used before") && !text.contains("marker"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        pass(30).await;
    }
    assert_eq!(server.count("sys/wrapping/unwrap"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrapping_token_that_something_else_made_is_not_unwrapped() {
    let (mut unwrapped, mut logins) = (0, 0);
    let path = "sys/wrapping/wrap";
    let server = Scripted::new(move |asked| approle(asked, &mut unwrapped, &mut logins, path));
    let store = server.store(WRAPPED);
    assert!(matches!(store.read("kv/a").await, Err(SecretError::Compromised { .. })));
    assert_eq!(server.count("sys/wrapping/unwrap"), 0);
}

#[tokio::test(start_paused = true)]
async fn wrapped_tokens_and_wrapped_answers() {
    let mut logins = 0;
    let server = Scripted::new(move |asked| match asked.path.as_str() {
        "sys/wrapping/lookup" if asked.body["token"] == "w1" => {
            ok(json!({ "data": { "creation_path": "auth/token/create" } }))
        }
        "sys/wrapping/lookup" => ok(json!({ "data": { "creation_path": "kv/data/gift" } })),
        "sys/wrapping/unwrap" if asked.token == "w1" => grant("inner", 3600, true),
        "sys/wrapping/unwrap" => kv2(json!({ "p": "gift" }), 4),
        _ => ordinary(asked, &mut logins),
    });
    let store = server.store(
        "auth = { wrapped_token = { token = 'w1', creation_path = 'auth/token/create' } }\n\
         [read.gift]\nwrapped = 'w2'\ncreation_path = 'kv/data/gift'\n\
         [read.forged]\nwrapped = 'w3'\ncreation_path = 'kv/data/other'\n",
    );
    store.read("kv/a").await.unwrap();
    assert_eq!(server.asked("kv/data")[0].token, "inner");
    for _ in 0..3 {
        assert_eq!(store.read("@gift").await.unwrap().fields["p"].expose(), "gift");
    }
    assert!(matches!(store.read("@forged").await, Err(SecretError::Compromised { .. })));
    assert_eq!(server.count("sys/wrapping/unwrap"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_repeats_what_it_was_told_is_not_quoted() {
    let server = Scripted::new(|asked| {
        let told = asked.body["password"].as_str().unwrap();
        errors(400, &format!("the password {told} of the user is wrong"))
    });
    let store = server.store(USERPASS);
    let reason = is_denied(store.read("kv/a").await);
    assert!(reason.contains("the password (secret) of the user is wrong"), "{reason}");
}

/// The metadata services of all clouds at once, and Google's signer.
fn clouds() -> Url {
    connection::serve(|heard| {
        let path = heard.line.split(' ').nth(1).unwrap();
        let body = match path.split('?').next().unwrap() {
            "/latest/api/token" => "session".to_owned(),
            "/latest/dynamic/instance-identity/pkcs7" => "MII\nPKCS7\n".to_owned(),
            "/latest/dynamic/instance-identity/rsa2048" => "MII\nRSA\n".to_owned(),
            "/latest/dynamic/instance-identity/document" => "{\n}".to_owned(),
            "/latest/dynamic/instance-identity/signature" => "SIG\nNED".to_owned(),
            "/metadata/instance" => {
                json!({ "compute": { "subscriptionId": "sub", "resourceGroupName": "group",
                "name": "vm", "vmScaleSetName": if path.contains("none") { "" } else { "set" } } })
                .to_string()
            }
            "/metadata/identity/oauth2/token" => {
                assert!(path.contains("resource=https%3A%2F%2Fmanagement.azure.com%2F"), "{path}");
                json!({ "access_token": "azure-token", "expires_in": "3600" }).to_string()
            }
            "/computeMetadata/v1/instance/service-accounts/default/token" => {
                json!({ "access_token": "google-token", "expires_in": 3600 }).to_string()
            }
            "/computeMetadata/v1/instance/service-accounts/default/identity" => {
                assert!(path.contains("audience=http%3A%2F%2Fvault%2Fr"), "{path}");
                "jwt-of-the-machine".to_owned()
            }
            "/v1/projects/-/serviceAccounts/a@b.example:signJwt" => {
                let asked: Value = serde_json::from_str(&heard.body).unwrap();
                let claims: Value = serde_json::from_str(asked["payload"].as_str().unwrap()).unwrap();
                assert_eq!(claims, json!({ "sub": "a@b.example", "aud": "vault/r", "exp": 1900 }));
                json!({ "signedJwt": "jwt-of-the-account" }).to_string()
            }
            _ => panic!("{}", heard.line),
        };
        connection::response("200 OK", "", &body)
    })
}

async fn surroundings(url: &Url) -> Surroundings {
    let (address, host) = (url.as_str().trim_end_matches('/').to_owned(), url.authority().to_owned());
    let variable = move |name: &str| match name {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT" | "AZURE_POD_IDENTITY_AUTHORITY_HOST" => Some(address.clone()),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS" => Some(address.clone()),
        "GCE_METADATA_HOST" => Some(host.clone()),
        _ => None,
    };
    Surroundings::new("test", variable, || UNIX_EPOCH + Duration::from_secs(1000)).await.unwrap()
}

#[tokio::test]
async fn machines_of_the_clouds_prove_what_they_are() {
    let url = clouds();
    for (auth, path, body) in [
        (
            "aws = { type = 'ec2', role = 'r', nonce = 'n' }",
            "auth/aws/login",
            json!({ "role": "r", "pkcs7": "MIIPKCS7", "nonce": "n" }),
        ),
        (
            "aws = { type = 'ec2', signature = 'rsa2048', nonce = 'n' }",
            "auth/aws/login",
            json!({ "pkcs7": "MIIRSA", "nonce": "n" }),
        ),
        (
            "aws = { type = 'ec2', signature = 'identity', nonce = 'n' }",
            "auth/aws/login",
            json!({ "identity": "ewp9", "signature": "SIGNED", "nonce": "n" }),
        ),
        (
            "gcp = { type = 'gce', role = 'r' }",
            "auth/gcp/login",
            json!({ "role": "r", "jwt": "jwt-of-the-machine" }),
        ),
        (
            "gcp = { type = 'iam', role = 'r', service_account = 'a@b.example' }",
            "auth/gcp/login",
            json!({ "role": "r", "jwt": "jwt-of-the-account" }),
        ),
        (
            "azure = { role = 'r', mount = 'entra' }",
            "auth/entra/login",
            json!({ "role": "r", "jwt": "azure-token", "subscription_id": "sub", "resource_group_name": "group",
                "vmss_name": "set" }),
        ),
    ] {
        let cloud = CloudAccess::through(surroundings(&url).await);
        let asked = sent(auth, |parts| ClientParts { cloud, ..parts }).await;
        assert_eq!((asked.path.as_str(), &asked.body), (path, &body), "{auth}");
    }
    // Without a nonce of the settings, all logins of a process have the same one.
    let cloud = CloudAccess::through(surroundings(&url).await);
    let asked = sent("aws = { type = 'ec2' }", |parts| ClientParts { cloud, ..parts }).await;
    assert_eq!(asked.body["nonce"].as_str().unwrap().len(), 32);
}
