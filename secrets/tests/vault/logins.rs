//! Every login that needs no cloud.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::*;

const SERVICE_ACCOUNT: &str = "system:serviceaccount:obs:invar";

pub(super) fn prepare(vault: &Vault, folder: &Path) {
    vault.write("sys/auth/approle", &json!({ "type": "approle" }));
    vault.write("auth/approle/role/agent", &json!({ "token_policies": "obs" }));
    vault.write("auth/approle/role/agent/role-id", &json!({ "role_id": ROLE_ID }));

    let client = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["agent.example".to_owned()]).unwrap();
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let certificate = params.self_signed(&client).unwrap();
    std::fs::write(folder.join("client.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("client.key"), client.serialize_pem()).unwrap();
    vault.write("sys/auth/cert", &json!({ "type": "cert" }));
    vault.write(
        "auth/cert/certs/agent",
        &json!({ "certificate": certificate.pem(), "token_policies": "obs" }),
    );

    let signer = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.join("signer.der"), signer.serialize_der()).unwrap();
    vault.write("sys/auth/jwt", &json!({ "type": "jwt" }));
    vault.write("auth/jwt/config", &json!({ "jwt_validation_pubkeys": [signer.public_key_pem()] }));
    let role = json!({ "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": "obs" });
    vault.write("auth/jwt/role/agent", &role);

    let reviewer = server::serve(|line, body| {
        assert!(line.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews"), "{line}");
        let known = body["spec"]["token"].as_str().is_some_and(|token| token.split('.').count() == 3);
        (
            201,
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {
            "authenticated": known, "audiences": ["vault"], "user": { "username": SERVICE_ACCOUNT, "uid": "uid-of-invar" } } }),
        )
    });
    vault.write("sys/auth/kubernetes", &json!({ "type": "kubernetes" }));
    let config = json!({ "kubernetes_host": format!("http://{reviewer}"), "token_reviewer_jwt": "reviewer",
        "disable_local_ca_jwt": true });
    vault.write("auth/kubernetes/config", &config);
    let role = json!({ "bound_service_account_names": "invar", "bound_service_account_namespaces": "obs",
        "token_policies": "obs" });
    vault.write("auth/kubernetes/role/agent", &role);
}

/// A token as identity providers sign them.
fn jwt(folder: &Path, claims: &Value) -> String {
    let random = SystemRandom::new();
    let key = std::fs::read(folder.join("signer.der")).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap();
    let (header, mut claims) = (json!({ "alg": "ES256", "typ": "JWT" }), claims.clone());
    for (claim, seconds) in [("iat", now()), ("nbf", now()), ("exp", now() + 600)] {
        claims[claim] = json!(seconds);
    }
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Writes a file with a credential.
fn file(shared: &Shared, name: &str, content: &str) -> PathBuf {
    let file = shared.folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    file
}

async fn logs_in(shared: &Shared, auth: &str) {
    let store = store(&shared.vault, &format!("auth = {{ {auth} }}\n"));
    let read = password(&store).await;
    assert!(read.as_ref().is_ok_and(|value| value == VALUE), "{auth}: {read:?}\n{}", shared.vault.log());
    store.shutdown().await;
}

#[tokio::test]
async fn by_token() {
    let Some(shared) = shared() else { return };
    let made = shared.vault.write("auth/token/create", &json!({ "policies": ["obs"], "ttl": "1h" }));
    logs_in(&shared, &format!("token = '{}'", made["auth"]["client_token"].as_str().unwrap())).await;
    let wrong = store(&shared.vault, "auth = { token = 'hvs.wrong' }\n");
    assert!(matches!(password(&wrong).await, Err(SecretError::Denied { .. })));
}

#[tokio::test]
async fn by_token_file_that_is_rewritten() {
    let Some(shared) = shared() else { return };
    let make = || {
        let made = shared.vault.write("auth/token/create", &json!({ "policies": ["obs"], "ttl": "1h" }));
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let first = make();
    let sink = file(&shared, "sink", &format!("{first}\n"));
    let store = store(&shared.vault, &format!("auth = {{ token = {{ file = '{}' }} }}\n", sink.display()));
    assert_eq!(password(&store).await.unwrap(), VALUE);
    std::fs::write(&sink, make()).unwrap();
    shared.vault.write("auth/token/revoke", &json!({ "token": first }));
    assert_eq!(password(&store).await.unwrap(), VALUE, "the new token is found when the old one is refused");
}

#[tokio::test]
async fn by_userpass() {
    let Some(shared) = shared() else { return };
    logs_in(&shared, &format!("userpass = {{ username = 'agent', password = '{PASSWORD}' }}")).await;
    let wrong = store(&shared.vault, "auth = { userpass = { username = 'agent', password = 'wrong' } }\n");
    match password(&wrong).await {
        Err(SecretError::Denied { reason, .. }) => {
            assert!(reason.contains("invalid username or password"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn by_approle() {
    let Some(shared) = shared() else { return };
    let made = shared.vault.write("auth/approle/role/agent/secret-id", &json!({}));
    let id = file(&shared, "secret-id", made["data"]["secret_id"].as_str().unwrap());
    let auth = format!("approle = {{ role_id = '{ROLE_ID}', secret_id = {{ file = '{}' }} }}", id.display());
    logs_in(&shared, &auth).await;
}

#[tokio::test]
async fn by_approle_with_a_wrapped_secret_id() {
    let Some(shared) = shared() else { return };
    let wrapping = shared.vault.write_wrapped("auth/approle/role/agent/secret-id", &json!({}));
    let id = file(&shared, "wrapped-id", &wrapping);
    let auth = format!(
        "auth = {{ approle = {{ role_id = '{ROLE_ID}', secret_id = {{ file = '{}' }}, wrapped = true }} }}\n",
        id.display()
    );
    let store = store(&shared.vault, &auth);
    assert_eq!(password(&store).await.unwrap(), VALUE);
    // Another process finds it used: the second to unwrap it is told, whoever was the first.
    let second = super::store(&shared.vault, &auth);
    for _ in 0..3 {
        match password(&second).await {
            Err(error @ SecretError::Compromised { .. }) => {
                assert!(!error.to_string().contains(&wrapping), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_wrapping_token_of_another_path_is_not_taken() {
    let Some(shared) = shared() else { return };
    let forged = shared.vault.write_wrapped("sys/wrapping/wrap", &json!({ "secret_id": "forged" }));
    let auth = format!(
        "auth = {{ approle = {{ role_id = '{ROLE_ID}', secret_id = '{forged}', wrapped = true }} }}\n"
    );
    match password(&store(&shared.vault, &auth)).await {
        Err(SecretError::Compromised { reason, .. }) => {
            assert!(reason.contains("sys/wrapping/wrap"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn by_wrapped_token() {
    let Some(shared) = shared() else { return };
    let wrapping =
        shared.vault.write_wrapped("auth/token/create", &json!({ "policies": ["obs"], "ttl": "1h" }));
    logs_in(
        &shared,
        &format!("wrapped_token = {{ token = '{wrapping}', creation_path = 'auth/token/create' }}"),
    )
    .await;
}

#[tokio::test]
async fn a_wrapped_answer_is_read_once_and_kept() {
    let Some(shared) = shared() else { return };
    let wrapping = shared.vault.write_wrapped("sys/wrapping/wrap", &json!({ "api_key": "marker-gift" }));
    let settings =
        format!("{}[read.gift]\nwrapped = '{wrapping}'\ncreation_path = 'sys/wrapping/wrap'\n", userpass());
    let store = store(&shared.vault, &settings);
    for _ in 0..3 {
        assert_eq!(store.read("@gift").await.unwrap().fields["api_key"].expose(), "marker-gift");
    }
    let second = super::store(&shared.vault, &settings);
    assert!(matches!(second.read("@gift").await, Err(SecretError::Compromised { .. })));
}

#[tokio::test]
async fn by_certificate() {
    let Some(shared) = shared() else { return };
    let at = |name: &str| shared.folder.path().join(name).display().to_string();
    let settings = format!(
        "address = '{}'\nauth = {{ cert = {{ name = 'agent' }} }}\ntls = {{ ca = '{}', cert = '{}', key = '{}' }}\n",
        shared.vault.encrypted_url(),
        at("server.pem"),
        at("client.pem"),
        at("client.key")
    );
    let store = quick(&toml::from_str(&settings).unwrap());
    assert_eq!(password(&store).await.unwrap(), VALUE);
    // Without the authority, the server is not believed.
    let settings = format!("address = '{}'\n{}", shared.vault.encrypted_url(), userpass());
    match password(&quick(&toml::from_str(&settings).unwrap())).await {
        Err(SecretError::Unavailable { reason, .. }) => assert!(reason.contains("certificate"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn by_jwt() {
    let Some(shared) = shared() else { return };
    let claims = json!({ "sub": "invar", "aud": "vault" });
    let token = file(&shared, "jwt", &jwt(shared.folder.path(), &claims));
    logs_in(&shared, &format!("jwt = {{ role = 'agent', token = {{ file = '{}' }} }}", token.display()))
        .await;
    let claims = json!({ "sub": "invar", "aud": "elsewhere" });
    let wrong = jwt(shared.folder.path(), &claims);
    let wrong =
        store(&shared.vault, &format!("auth = {{ jwt = {{ role = 'agent', token = '{wrong}' }} }}\n"));
    assert!(matches!(password(&wrong).await, Err(SecretError::Denied { .. })));
}

#[tokio::test]
async fn by_kubernetes_service_account() {
    let Some(shared) = shared() else { return };
    let claims = json!({ "sub": SERVICE_ACCOUNT, "aud": ["vault"], "kubernetes.io": {
        "namespace": "obs", "serviceaccount": { "name": "invar", "uid": "uid-of-invar" } } });
    let token = file(&shared, "service-account", &jwt(shared.folder.path(), &claims));
    let auth = format!("kubernetes = {{ role = 'agent', token = {{ file = '{}' }} }}", token.display());
    logs_in(&shared, &auth).await;
}
