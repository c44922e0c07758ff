//! What a machine of a cloud can show of itself: documents and tokens that its metadata service signs, and, for a service
//! account of Google, a statement that Google signs on its behalf. Others take them as proof of who the agent is.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderName, HeaderValue, Method};
use invar_syntax::secret::Secret;
use serde::Deserialize;
use url::Url;

use crate::surroundings::{Surroundings, sensitive};
use crate::{CloudIdentity, IdentityError};

/// Metadata services answer at once, or there is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// The metadata service of AWS and of Azure.
const LINK_HOST: &str = "http://169.254.169.254";
/// The metadata service of Google; `GCE_METADATA_HOST` replaces it.
const GOOGLE_HOST: &str = "metadata.google.internal";
/// Who signs for service accounts of Google.
const GOOGLE_SIGNER: &str = "https://iamcredentials.googleapis.com";

/// The documents that an instance of AWS has of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsDocument {
    /// PKCS #7 with a DSA signature, without line breaks.
    Pkcs7,
    /// PKCS #7 with an RSA signature, without line breaks.
    Rsa2048,
    /// The document itself, as it was signed.
    Document,
    /// The signature of it, without line breaks.
    Signature,
}

/// Where a virtual machine of Azure is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureInstance {
    /// The subscription.
    pub subscription_id: String,
    /// The group of resources.
    pub resource_group_name: String,
    /// The machine.
    pub name: String,
    /// The scale set it belongs to; empty for none.
    pub vm_scale_set_name: String,
}

#[derive(Deserialize)]
struct AzureAnswer {
    compute: AzureInstance,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignedAnswer {
    signed_jwt: String,
}

/// A document of the instance of AWS that this process runs on, got by the second version of its protocol.
///
/// # Errors
/// When there is no such service, or it has no such document.
pub async fn aws_document(
    surroundings: &Surroundings,
    document: AwsDocument,
) -> Result<Secret, IdentityError> {
    let host = surroundings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let host = host.as_deref().unwrap_or(LINK_HOST).trim_end_matches('/');
    let lifetime =
        (HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"), HeaderValue::from_static("60"));
    let url = format!("{host}/latest/api/token");
    let session = ask("AWS", surroundings, Method::PUT, &url, HeaderMap::from_iter([lifetime]), None).await?;
    let session =
        (HeaderName::from_static("x-aws-ec2-metadata-token"), sensitive(text("AWS", &session)?.trim())?);
    let name = match document {
        AwsDocument::Pkcs7 => "pkcs7",
        AwsDocument::Rsa2048 => "rsa2048",
        AwsDocument::Document => "document",
        AwsDocument::Signature => "signature",
    };
    let url = format!("{host}/latest/dynamic/instance-identity/{name}");
    let answer = ask("AWS", surroundings, Method::GET, &url, HeaderMap::from_iter([session]), None).await?;
    let found = text("AWS", &answer)?;
    Ok(match document {
        AwsDocument::Document => Secret::new(found),
        _ => Secret::new(found.replace(['\r', '\n'], "")),
    })
}

/// Where the virtual machine of Azure is that this process runs on.
///
/// # Errors
/// When there is no such service.
pub async fn azure_instance(surroundings: &Surroundings) -> Result<AzureInstance, IdentityError> {
    let host = surroundings.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    let host = host.as_deref().unwrap_or(LINK_HOST).trim_end_matches('/');
    let url = format!("{host}/metadata/instance?api-version=2021-02-01");
    let metadata = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
    let answer =
        ask("Azure", surroundings, Method::GET, &url, HeaderMap::from_iter([metadata]), None).await?;
    let answer: AzureAnswer = serde_json::from_slice(&answer)
        .map_err(|_| unavailable("Azure", "the machine does not say where it is"))?;
    Ok(answer.compute)
}

/// A token by which the instance of Google that this process runs on says who it is to `audience`.
///
/// # Errors
/// When there is no such service.
pub async fn google_instance_token(
    surroundings: &Surroundings,
    audience: &str,
) -> Result<Secret, IdentityError> {
    let host = surroundings.variable("GCE_METADATA_HOST");
    let host = host.as_deref().unwrap_or(GOOGLE_HOST);
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/identity");
    let mut url = Url::parse(&url).map_err(|_| unavailable("Google", "GCE_METADATA_HOST is no host"))?;
    url.query_pairs_mut().append_pair("audience", audience).append_pair("format", "full");
    let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
    let answer = ask("Google", surroundings, Method::GET, url.as_str(), HeaderMap::from_iter([flavor]), None);
    Ok(Secret::new(text("Google", &answer.await?)?.trim()))
}

/// `claims`, an object in JSON, as a token that Google signs on behalf of `account`, which `identity` must be allowed to
/// act as.
///
/// # Errors
/// When `identity` has no credentials, or Google does not sign.
pub async fn google_signed_token(
    surroundings: &Surroundings,
    identity: &CloudIdentity,
    account: &str,
    claims: &str,
) -> Result<Secret, IdentityError> {
    let host = surroundings.variable("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS");
    let host = host.as_deref().unwrap_or(GOOGLE_SIGNER).trim_end_matches('/');
    let unusable = || unavailable("Google", "the service account has no name that can be asked for");
    let mut url = Url::parse(host).map_err(|_| unusable())?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        path.extend(["v1", "projects", "-", "serviceAccounts", &format!("{account}:signJwt")]);
    }
    let body = serde_json::json!({ "payload": claims }).to_string();
    let mut headers = identity.headers(&reqwest::Request::new(Method::POST, url.clone())).await?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = ask("Google", surroundings, Method::POST, url.as_str(), headers, Some(body)).await?;
    let answer: SignedAnswer = serde_json::from_slice(&answer)
        .map_err(|_| unavailable("Google", "the answer holds no signed token"))?;
    Ok(Secret::new(answer.signed_jwt))
}

async fn ask(
    cloud: &'static str,
    surroundings: &Surroundings,
    method: Method,
    url: &str,
    headers: HeaderMap,
    body: Option<String>,
) -> Result<bytes::Bytes, IdentityError> {
    let url = Url::parse(url).map_err(|_| unavailable(cloud, "the environment's endpoint is no URL"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    // What is posted goes to a service that is further away.
    let timeout = body.is_none().then_some(METADATA_TIMEOUT);
    let mut request = reqwest::Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = body.map(Into::into);
    let answer = surroundings.send(request, timeout).await;
    let answer = answer.map_err(|error| unavailable(cloud, &format!("{host}: {error}")))?;
    match answer.status.is_success() {
        true => Ok(answer.body),
        false => Err(unavailable(cloud, &format!("{host} answered {}", answer.status))),
    }
}

fn text(cloud: &'static str, body: &[u8]) -> Result<String, IdentityError> {
    let text = String::from_utf8(body.to_vec()).map_err(|_| unavailable(cloud, "the answer is no text"))?;
    if text.trim().is_empty() { Err(unavailable(cloud, "the answer is empty")) } else { Ok(text) }
}

fn unavailable(cloud: &'static str, message: &str) -> IdentityError {
    IdentityError::Unavailable { cloud, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::GoogleSettings;
    use crate::testing::{Endpoint, surroundings, token};

    #[tokio::test]
    async fn an_instance_of_aws_opens_a_session_before_it_asks() {
        let metadata = Endpoint::start(|asked| match asked.line.as_str() {
            "PUT /latest/api/token" => (200, "session".to_owned()),
            _ if asked.headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != "session") => {
                (401, String::new())
            }
            "GET /latest/dynamic/instance-identity/pkcs7" => (200, "MIAG\nCSqG\n".to_owned()),
            "GET /latest/dynamic/instance-identity/document" => (200, "{\n}".to_owned()),
            _ => (404, String::new()),
        })
        .await;
        let surroundings = surroundings(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url)]).await;
        let found = aws_document(&surroundings, AwsDocument::Pkcs7).await.unwrap();
        assert_eq!(found.expose(), "MIAGCSqG");
        let found = aws_document(&surroundings, AwsDocument::Document).await.unwrap();
        assert_eq!(found.expose(), "{\n}", "the signature is over the line breaks as well");
        assert!(
            aws_document(&surroundings, AwsDocument::Rsa2048).await.unwrap_err().to_string().contains("404")
        );
    }

    #[tokio::test]
    async fn a_machine_of_azure_says_where_it_is() {
        let metadata = Endpoint::start(|asked| {
            assert_eq!(asked.line, "GET /metadata/instance?api-version=2021-02-01");
            assert_eq!(asked.headers["metadata"], "true");
            let compute = r#"{"compute":{"subscriptionId":"s","resourceGroupName":"g","name":"vm","vmScaleSetName":""}}"#;
            (200, compute.to_owned())
        })
        .await;
        let surroundings = surroundings(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &metadata.url)]).await;
        let instance = azure_instance(&surroundings).await.unwrap();
        assert_eq!((instance.subscription_id.as_str(), instance.name.as_str()), ("s", "vm"));
    }

    #[tokio::test]
    async fn google_signs_for_a_machine_and_for_an_account() {
        let google = Endpoint::start(|asked| {
            if asked.line.starts_with("GET /computeMetadata/v1/instance/service-accounts/default/token") {
                return token("access", "3600");
            }
            if asked.line.starts_with("GET /computeMetadata") {
                assert_eq!(asked.headers["metadata-flavor"], "Google");
                assert!(
                    asked.line.ends_with("/identity?audience=http%3A%2F%2Fvault%2Fr&format=full"),
                    "{}",
                    asked.line
                );
                return (200, "jwt-of-machine\n".to_owned());
            }
            assert_eq!(asked.line, "POST /v1/projects/-/serviceAccounts/a@b.example:signJwt");
            assert_eq!(asked.headers["authorization"], "Bearer access");
            assert_eq!(asked.body, r#"{"payload":"{\"sub\":\"a\"}"}"#);
            (200, r#"{"keyId":"k","signedJwt":"jwt-of-account"}"#.to_owned())
        })
        .await;
        let host = google.url.trim_start_matches("http://");
        let variables = [
            ("GCE_METADATA_HOST", host),
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", google.url.as_str()),
        ];
        let surroundings = surroundings(&variables).await;
        let found = google_instance_token(&surroundings, "http://vault/r").await.unwrap();
        assert_eq!(found.expose(), "jwt-of-machine");
        let settings = GoogleSettings { credentials_file: String::new(), scope: "s".to_owned() };
        let identity = CloudIdentity::google(settings, surroundings.clone());
        let found =
            google_signed_token(&surroundings, &identity, "a@b.example", r#"{"sub":"a"}"#).await.unwrap();
        assert_eq!(found.expose(), "jwt-of-account");
    }
}
