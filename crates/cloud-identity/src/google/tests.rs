//! The ways to a token, each against an endpoint of its own.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use base64::engine::general_purpose::STANDARD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::*;
use crate::testing::{Endpoint, surroundings, token};

const SCOPE: &str = "https://www.googleapis.com/auth/monitoring.write";
/// Made for this test; it opens nothing.
const KEY: &str = include_str!("service_account_key.pem");

async fn headers(file: &str, variables: &[(&str, &str)]) -> Result<HeaderMap, IdentityError> {
    let settings = GoogleSettings { credentials_file: file.to_owned(), scope: SCOPE.to_owned() };
    GoogleIdentity::new(settings, surroundings(variables).await).headers().await
}

fn write(directory: &Path, name: &str, content: serde_json::Value) -> String {
    let file = directory.join(name).display().to_string();
    std::fs::write(&file, content.to_string()).unwrap();
    file
}

fn decode(part: &str) -> HashMap<String, serde_json::Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_account_proves_itself_by_its_signature() {
    let issuer = Endpoint::start(|_| token("sa", "3599")).await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{}/token", issuer.url);
    let content = serde_json::json!({
        "type": "service_account", "client_email": "agent@project.example", "private_key": KEY,
        "private_key_id": "kid-1", "token_uri": url,
    });
    let file = write(directory.path(), "account.json", content);
    let headers = headers(&file, &[]).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer sa");
    assert!(headers[AUTHORIZATION].is_sensitive());

    let form = issuer.asked()[0].form();
    assert_eq!(form["grant_type"], JWT_GRANT);
    let assertion = form["assertion"].as_str();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let (header, claims) = (decode(header), decode(claims));
    assert_eq!((header["alg"].as_str(), header["kid"].as_str()), (Some("RS256"), Some("kid-1")));
    assert_eq!(claims["iss"], "agent@project.example");
    assert_eq!(claims["scope"], SCOPE);
    assert_eq!(claims["aud"], url);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    assert_eq!(claims["iat"], 1_440_938_160);

    let der: String = KEY.lines().filter(|line| !line.starts_with("---")).collect();
    let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public().as_ref());
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn a_user_refreshes_a_token_and_names_who_is_charged() {
    let issuer = Endpoint::start(|_| token("user", "3599")).await;
    let directory = tempfile::tempdir().unwrap();
    let content = serde_json::json!({
        "type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "hunter2",
        "token_uri": issuer.url, "quota_project_id": "payer",
    });
    let file = write(directory.path(), "adc.json", content);
    // Application default credentials: by the variable, or in gcloud's own place.
    let headers = headers("", &[("GOOGLE_APPLICATION_CREDENTIALS", &file)]).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer user");
    assert_eq!(headers["x-goog-user-project"], "payer");
    let form = issuer.asked()[0].form();
    assert_eq!((form["grant_type"].as_str(), form["refresh_token"].as_str()), ("refresh_token", "hunter2"));
    std::fs::rename(&file, directory.path().join("application_default_credentials.json")).unwrap();
    let place = directory.path().to_str().unwrap();
    assert!(self::headers("", &[("CLOUDSDK_CONFIG", place)]).await.is_ok());
}

#[tokio::test]
async fn a_machine_asks_its_metadata_service() {
    let metadata = Endpoint::start(|asked| {
        assert_eq!(asked.headers["metadata-flavor"], "Google");
        token("gce", "3599")
    })
    .await;
    let host = metadata.url.trim_start_matches("http://");
    let headers = headers("", &[("GCE_METADATA_HOST", host), ("HOME", "/nonexistent")]).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer gce");
    assert_eq!(
        metadata.asked()[0].line,
        "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fmonitoring.write"
    );
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named_without_their_content() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content, part) in [
        ("kind", serde_json::json!({"type": "external_account"}), "\"external_account\" are not supported"),
        (
            "key",
            serde_json::json!({"type": "service_account", "private_key": "hunter2"}),
            "private_key is no RSA key",
        ),
        (
            "uri",
            serde_json::json!({"type": "authorized_user", "token_uri": "hunter2"}),
            "token_uri is no URL",
        ),
        ("json", serde_json::json!("hunter2"), "is no JSON with credentials"),
    ] {
        let file = write(directory.path(), name, content);
        let error = headers(&file, &[]).await.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&file) && !error.contains("hunter2"), "{error}");
    }
    let error = headers("/nonexistent/key.json", &[]).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/key.json"), "{error}");
}
