//! Signatures against the examples that AWS publishes, and every place that credentials come from.
#![allow(clippy::unwrap_used)]

use http::{HeaderValue, Method};

use super::*;
use crate::testing::{Endpoint, request, surroundings};

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn settings() -> AwsSettings {
    AwsSettings {
        region: "us-east-1".to_owned(),
        access_key: ID.to_owned(),
        secret_key: Secret::new(KEY),
        service_name: "service".to_owned(),
        ..AwsSettings::default()
    }
}

/// Settings that leave the credentials to the chain.
fn chain() -> AwsSettings {
    AwsSettings { access_key: String::new(), secret_key: Secret::default(), ..settings() }
}

async fn headers(
    settings: AwsSettings,
    variables: &[(&str, &str)],
) -> Result<(AwsIdentity, HeaderMap), IdentityError> {
    let identity = AwsIdentity::new(settings, surroundings(variables).await);
    let headers = identity.headers(&request("https://aps.example/write", "body")).await?;
    Ok((identity, headers))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers[name].to_str().unwrap()
}

/// An answer of STS that hands out a key with this id.
fn assumed(operation: &str, id: &str) -> (u16, String) {
    let xml = format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{operation}Result><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
         <SessionToken>session-{id}</SessionToken><Expiration>2015-08-30T13:36:00Z</Expiration>\
         </Credentials></{operation}Result></{operation}Response>"
    );
    (200, xml)
}

#[tokio::test]
async fn the_published_examples_are_signed_as_published() {
    let identity = AwsIdentity::new(settings(), surroundings(&[]).await);
    for (method, target, content_type, body, signed, signature) in [
        (
            Method::GET,
            "/",
            None,
            "",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            Method::POST,
            "/",
            None,
            "",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            Method::GET,
            "/?Param2=value2&Param1=value1",
            None,
            "",
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            Method::POST,
            "/",
            Some("application/x-www-form-urlencoded"),
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ] {
        let url = format!("https://example.amazonaws.com{target}");
        let mut request = reqwest::Request::new(method, url.parse().unwrap());
        if let Some(content_type) = content_type {
            request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        }
        *request.body_mut() = Some(body.into());
        let headers = identity.headers(&request).await.unwrap();
        assert_eq!(text(&headers, "x-amz-date"), "20150830T123600Z");
        assert_eq!(
            text(&headers, "authorization"),
            format!(
                "AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, \
                 Signature={signature}"
            ),
        );
        assert!(headers["authorization"].is_sensitive());
    }
}

#[tokio::test]
async fn what_remote_write_sends_is_signed_and_what_proxies_rewrite_is_not() {
    let (identity, headers) =
        headers(AwsSettings { service_name: String::new(), ..settings() }, &[]).await.unwrap();
    let authorization = text(&headers, "authorization");
    assert!(
        authorization.contains("/us-east-1/aps/aws4_request")
            && authorization
                .contains("SignedHeaders=content-type;host;x-amz-date;x-prometheus-remote-write-version,"),
        "{authorization}"
    );
    assert!(!headers.contains_key("x-amz-security-token"));
    assert!(!format!("{:?}", identity.credentials.settings).contains(KEY));
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_the_token_goes_along() {
    let sts = Endpoint::start(|asked| {
        assert!(asked.headers["authorization"].contains("Credential=AKIDEXAMPLE/20150830/us-east-1/sts/"));
        assumed("AssumeRole", "ASIAROLE")
    })
    .await;
    let role = AwsSettings {
        role_arn: "arn:aws:iam::1:role/write".to_owned(),
        external_id: "ours".to_owned(),
        ..settings()
    };
    let (identity, headers) = headers(role, &[("AWS_ENDPOINT_URL_STS", &sts.url)]).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=ASIAROLE/"));
    assert!(text(&headers, "authorization").contains("x-amz-security-token"));
    assert_eq!(text(&headers, "x-amz-security-token"), "session-ASIAROLE");
    assert!(headers["x-amz-security-token"].is_sensitive());
    let form = sts.asked()[0].form();
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], "arn:aws:iam::1:role/write");
    assert_eq!(form["ExternalId"], "ours");
    assert!(form["RoleSessionName"].starts_with("invar-"));
    // One exchange serves many requests.
    identity.headers(&request("https://aps.example/write", "more")).await.unwrap();
    assert_eq!(sts.asked().len(), 1);
}

#[tokio::test]
async fn a_refused_role_is_told_without_the_key() {
    let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                   <Message>not allowed</Message></Error><RequestId>r</RequestId></ErrorResponse>";
    let sts = Endpoint::start(move |_| (403, refusal.to_owned())).await;
    let role = AwsSettings { role_arn: "arn:aws:iam::1:role/write".to_owned(), ..settings() };
    let error = headers(role, &[("AWS_ENDPOINT_URL_STS", &sts.url)]).await.err().unwrap().to_string();
    assert!(error.starts_with("no AWS credentials") && error.contains("AccessDenied"), "{error}");
    assert!(!error.contains(KEY), "{error}");
}

#[tokio::test]
async fn keys_of_the_environment_serve_where_none_are_set() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDENV"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "session"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let (_, headers) = headers(AwsSettings { region: String::new(), ..chain() }, &variables).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=AKIDENV/20150830/eu-west-1/service/"));
    assert_eq!(text(&headers, "x-amz-security-token"), "session");
}

#[tokio::test]
async fn a_profile_of_the_shared_files_serves() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = hunter2\n")
        .unwrap();
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let (_, headers) = headers(chain(), &variables).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=AKIDFILE/"));
}

#[tokio::test]
async fn a_web_identity_is_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "jwt").unwrap();
    let sts = Endpoint::start(|_| assumed("AssumeRoleWithWebIdentity", "ASIAWEB")).await;
    let variables = [
        ("AWS_ENDPOINT_URL_STS", sts.url.as_str()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let (_, headers) = headers(chain(), &variables).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=ASIAWEB/"));
    let form = sts.asked()[0].form();
    assert_eq!(
        (form["Action"].as_str(), form["WebIdentityToken"].as_str()),
        ("AssumeRoleWithWebIdentity", "jwt")
    );
}

#[tokio::test]
async fn the_token_of_a_temporary_key_goes_along() {
    let temporary = AwsSettings { session_token: Secret::new("session"), ..settings() };
    let (_, headers) = headers(temporary, &[]).await.unwrap();
    assert_eq!(text(&headers, "x-amz-security-token"), "session");
}

#[tokio::test]
async fn what_the_settings_say_of_the_exchange_goes_before_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "jwt-of-the-settings\n").unwrap();
    let sts = Endpoint::start(|asked| {
        let operation = &asked.form()["Action"];
        assumed(operation, "ASIAOURS")
    })
    .await;
    let variables =
        [("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent")];
    let named = |settings: AwsSettings| AwsSettings {
        role_arn: "arn:aws:iam::1:role/ours".to_owned(),
        role_session_name: "invar-on-web-17".to_owned(),
        sts_endpoint: sts.url.clone(),
        ..settings
    };
    let web = named(AwsSettings { web_identity_token_file: Some(file), ..chain() });
    for settings in [named(settings()), web] {
        let (_, headers) = headers(settings, &variables).await.unwrap();
        assert!(text(&headers, "authorization").contains("Credential=ASIAOURS/"));
    }
    let forms: Vec<_> = sts.asked().iter().map(crate::testing::Asked::form).collect();
    assert_eq!(forms.len(), 2);
    assert_eq!(forms[1]["WebIdentityToken"], "jwt-of-the-settings");
    assert!(forms.iter().all(|form| form["RoleSessionName"] == "invar-on-web-17"));
}

#[tokio::test]
async fn credentials_are_handed_to_the_libraries_kept_and_forgotten_when_they_have_expired() {
    let sts = Endpoint::start(|_| assumed("AssumeRole", "ASIAROLE")).await;
    let role = AwsSettings { role_arn: "arn:aws:iam::1:role/read".to_owned(), ..settings() };
    let surroundings = surroundings(&[("AWS_ENDPOINT_URL_STS", &sts.url)]).await;
    let credentials = Arc::new(AwsCredentials::new(role));
    let provider = credentials.provider(surroundings.clone());
    credentials.refresh(&surroundings).await.unwrap();
    assert_eq!(provider.provide_credentials().await.unwrap().access_key_id(), "ASIAROLE");
    assert_eq!(sts.asked().len(), 1);
    credentials.expired();
    provider.provide_credentials().await.unwrap();
    assert_eq!(sts.asked().len(), 2);
    assert!(!format!("{credentials:?} {provider:?}").contains("hunter2"));
}

fn keys(id: &str) -> (u16, String) {
    let json = format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"hunter2\",\
         \"Token\":\"session-{id}\",\"Expiration\":\"2015-08-30T18:36:00Z\",\"LastUpdated\":\"2015-08-30T12:00:00Z\"}}"
    );
    (200, json)
}

#[tokio::test]
async fn a_container_and_a_pod_get_theirs_from_their_agent() {
    let agent = Endpoint::start(|asked| {
        assert_eq!(asked.headers["authorization"], "pod-token");
        keys("ASIAPOD")
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "pod-token").unwrap();
    let address = format!("{}/v1/credentials", agent.url);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let (_, headers) = headers(chain(), &variables).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=ASIAPOD/"));
    assert_eq!(text(&headers, "x-amz-security-token"), "session-ASIAPOD");
}

#[tokio::test]
async fn a_machine_gets_its_own_from_the_metadata_service_by_a_session() {
    let metadata = Endpoint::start(|asked| match asked.line.as_str() {
        "PUT /latest/api/token" => (200, "imds".to_owned()),
        line if asked.headers.get("x-aws-ec2-metadata-token").map(String::as_str) != Some("imds") => {
            (401, line.to_owned())
        }
        line if line.ends_with("security-credentials/")
            || line.ends_with("security-credentials-extended/") =>
        {
            (200, "role".to_owned())
        }
        line if line.ends_with("/role") => keys("ASIAEC2"),
        line => (404, line.to_owned()),
    })
    .await;
    let variables = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url.as_str()),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let (_, headers) = headers(chain(), &variables).await.unwrap();
    assert!(text(&headers, "authorization").contains("Credential=ASIAEC2/"), "{:?}", metadata.asked());
}

#[tokio::test]
async fn without_credentials_or_region_the_error_says_so() {
    let variables = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ];
    let error = headers(chain(), &variables).await.err().unwrap().to_string();
    assert!(error.starts_with("no AWS credentials"), "{error}");
    let nowhere = AwsSettings { region: String::new(), ..settings() };
    let error = headers(nowhere, &variables).await.err().unwrap().to_string();
    assert!(error.contains("no region: set region"), "{error}");
}

#[tokio::test]
async fn a_stream_cannot_be_signed() {
    let identity = AwsIdentity::new(settings(), surroundings(&[]).await);
    let mut streaming = request("https://aps.example/write", "");
    *streaming.body_mut() = Some(reqwest::Body::wrap(reqwest::Body::from("x")));
    assert!(matches!(identity.headers(&streaming).await, Err(IdentityError::Unsignable { .. })));
}
