//! Proofs that clouds give: signed requests, and documents and tokens of the machine. Which credentials a cloud's own
//! library would take is the business of [`invar_cloud_identity`].

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderName, HeaderValue, header};
use invar_cloud_identity::{
    AwsDocument, AwsSettings, AzureCloud, AzureCredential, AzureSettings, CloudIdentity, GoogleSettings,
    IdentityError, Surroundings, aws_document, azure_instance, google_instance_token, google_signed_token,
};
use invar_syntax::Secret;
use tokio::sync::OnceCell;
use url::Url;
use zeroize::Zeroizing;

use crate::vault::auth::{AwsAuth, AwsProof, AzureAuth, Ec2Signature, GcpAuth, GcpProof};
use crate::vault::body::{Field, object};
use crate::vault::failure::VaultFailure;

/// What a principal of AWS signs: that it wants to know who it is.
const CALLER_IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// The header that binds the signature to one server.
const SERVER_ID: HeaderName = HeaderName::from_static("x-vault-aws-iam-server-id");
/// What the agent has to be allowed to at Google to have something signed.
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The longest that such a token may live.
const GOOGLE_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// What a token of Azure is for by default.
const AZURE_RESOURCE: &str = "https://management.azure.com/";

/// The way to the clouds. Made when a login first needs it.
#[derive(Debug, Default)]
pub struct CloudAccess(OnceCell<Surroundings>);

impl CloudAccess {
    /// Through these surroundings, instead of those of the process.
    #[must_use]
    pub fn through(surroundings: Surroundings) -> Self {
        Self(OnceCell::new_with(Some(surroundings)))
    }

    async fn surroundings(&self) -> Result<&Surroundings, VaultFailure> {
        let made =
            self.0.get_or_try_init(|| Surroundings::of_process(concat!("Invar/", env!("CARGO_PKG_VERSION"))));
        made.await.map_err(|error| unusable("cloud", &error))
    }

    pub(super) async fn aws(
        &self,
        auth: &AwsAuth,
        nonce: &Secret,
    ) -> Result<Zeroizing<Vec<u8>>, VaultFailure> {
        let role = auth.role.iter().map(|role| ("role", Field::Plain(role.as_str())));
        match auth.proof {
            AwsProof::Iam => {
                let surroundings = self.surroundings().await?.clone();
                let [url, body, headers] =
                    caller_identity(auth, AwsSettings::default(), surroundings).await?;
                let fields = [
                    ("iam_http_request_method", Field::Plain("POST")),
                    ("iam_request_url", Field::Secret(&url)),
                    ("iam_request_body", Field::Secret(&body)),
                    ("iam_request_headers", Field::Secret(&headers)),
                ];
                Ok(object(role.chain(fields)))
            }
            AwsProof::Ec2 => {
                let surroundings = self.surroundings().await?;
                let get = async |document| {
                    aws_document(surroundings, document).await.map_err(|error| unusable("aws", &error))
                };
                let nonce = [("nonce", Field::Secret(nonce))];
                match auth.signature {
                    Ec2Signature::Identity => {
                        let document = get(AwsDocument::Document).await?;
                        let identity = Secret::new(BASE64.encode(document.expose()));
                        let signature = get(AwsDocument::Signature).await?;
                        let fields = [
                            ("identity", Field::Secret(&identity)),
                            ("signature", Field::Secret(&signature)),
                        ];
                        Ok(object(role.chain(fields).chain(nonce)))
                    }
                    signature => {
                        let rsa = signature == Ec2Signature::Rsa2048;
                        let document = if rsa { AwsDocument::Rsa2048 } else { AwsDocument::Pkcs7 };
                        let document = get(document).await?;
                        Ok(object(role.chain([("pkcs7", Field::Secret(&document))]).chain(nonce)))
                    }
                }
            }
        }
    }

    pub(super) async fn google(&self, auth: &GcpAuth) -> Result<Secret, VaultFailure> {
        let surroundings = self.surroundings().await?;
        let token = match (auth.proof, &auth.service_account) {
            (GcpProof::Gce, _) => {
                google_instance_token(surroundings, &format!("http://vault/{}", auth.role)).await
            }
            (GcpProof::Iam, Some(account)) => {
                let settings =
                    GoogleSettings { credentials_file: String::new(), scope: GOOGLE_SCOPE.to_owned() };
                let identity = CloudIdentity::google(settings, surroundings.clone());
                let ends = surroundings.now() + GOOGLE_LIFETIME;
                let ends = ends.duration_since(UNIX_EPOCH).unwrap_or_default();
                let claims = serde_json::json!({
                    "sub": account, "aud": format!("vault/{}", auth.role), "exp": ends.as_secs(),
                });
                google_signed_token(surroundings, &identity, account, &claims.to_string()).await
            }
            (GcpProof::Iam, None) => {
                return Err(VaultFailure::invalid("`auth.gcp`: the type `iam` needs a `service_account`"));
            }
        };
        token.map_err(|error| unusable("gcp", &error))
    }

    pub(super) async fn azure(&self, auth: &AzureAuth) -> Result<Zeroizing<Vec<u8>>, VaultFailure> {
        let surroundings = self.surroundings().await?;
        let resource = auth.resource.as_deref().filter(|resource| !resource.is_empty());
        let settings = AzureSettings {
            cloud: AzureCloud::Public,
            scope: format!("{}/.default", resource.unwrap_or(AZURE_RESOURCE)),
            credential: AzureCredential::Environment { tenant_id: String::new() },
        };
        let identity = CloudIdentity::azure(settings, surroundings.clone());
        // A workload identity need not run on a machine that says where it is; what the role demands, the server checks.
        let instance = azure_instance(surroundings).await.unwrap_or_default();
        let asked = reqwest::Request::new(
            http::Method::GET,
            Url::parse(AZURE_RESOURCE).map_err(|_| VaultFailure::invalid("no resource"))?,
        );
        let headers = identity.headers(&asked).await.map_err(|error| unusable("azure", &error))?;
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(Secret::new);
        let token = token.ok_or_else(|| VaultFailure::unavailable("`auth.azure`: Azure gives no token"))?;
        let fields = [("role", Field::Plain(auth.role.as_str())), ("jwt", Field::Secret(&token))];
        // A machine of a scale set is named by the set.
        let machine = match instance.vm_scale_set_name.as_str() {
            "" => ("vm_name", instance.name.as_str()),
            set => ("vmss_name", set),
        };
        let place = [
            ("subscription_id", instance.subscription_id.as_str()),
            ("resource_group_name", instance.resource_group_name.as_str()),
            machine,
        ];
        let place = place.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(object(fields.into_iter().chain(place.map(|(name, value)| (name, Field::Plain(value))))))
    }
}

fn unusable(method: &str, error: &IdentityError) -> VaultFailure {
    VaultFailure::unavailable(format!("`auth.{method}`: {error}"))
}

/// The address, the body and the headers of a signed request, which the server sends on to AWS, each in base64.
async fn caller_identity(
    auth: &AwsAuth,
    credentials: AwsSettings,
    surroundings: Surroundings,
) -> Result<[Secret; 3], VaultFailure> {
    let (region, host) = match auth.region.as_deref().filter(|region| !region.is_empty()) {
        Some(region) if region != "us-east-1" => (region, format!("sts.{region}.amazonaws.com")),
        // The global service lives there.
        _ => ("us-east-1", "sts.amazonaws.com".to_owned()),
    };
    let url = Url::parse(&format!("https://{host}/"))
        .map_err(|_| VaultFailure::invalid("`auth.aws.region` is not a region"))?;
    let settings = AwsSettings { region: region.to_owned(), service_name: "sts".to_owned(), ..credentials };
    let identity = CloudIdentity::aws(settings, surroundings);
    let mut request = reqwest::Request::new(http::Method::POST, url.clone());
    let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
    request.headers_mut().insert(header::CONTENT_TYPE, form);
    if let Some(id) = &auth.server_id {
        let id = HeaderValue::from_str(id)
            .map_err(|_| VaultFailure::invalid("`auth.aws.server_id` cannot be sent in a header"))?;
        request.headers_mut().insert(SERVER_ID, id);
    }
    *request.body_mut() = Some(CALLER_IDENTITY.into());
    let signed = identity.headers(&request).await.map_err(|error| unusable("aws", &error))?;
    let mut headers = serde_json::Map::new();
    for (name, value) in request.headers().iter().chain(&signed) {
        let value = value.to_str().map_err(|_| VaultFailure::invalid("a signed header is not text"))?;
        headers.insert(name.as_str().to_owned(), serde_json::json!([value]));
    }
    let headers = serde_json::Value::Object(headers).to_string();
    Ok([url.as_str(), CALLER_IDENTITY, &headers].map(|part| Secret::new(BASE64.encode(part))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(part: &Secret) -> String {
        String::from_utf8(BASE64.decode(part.expose()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_principal_of_aws_signs_who_it_is_and_for_which_server() {
        for (region, address, scope) in [
            (None, "https://sts.amazonaws.com/", "us-east-1"),
            (Some("us-east-1"), "https://sts.amazonaws.com/", "us-east-1"),
            (Some("eu-central-1"), "https://sts.eu-central-1.amazonaws.com/", "eu-central-1"),
        ] {
            let auth = AwsAuth {
                proof: AwsProof::Iam,
                role: None,
                region: region.map(str::to_owned),
                server_id: Some("vault.example".to_owned()),
                signature: Ec2Signature::Pkcs7,
                nonce: None,
                mount: None,
            };
            let credentials = AwsSettings {
                access_key: "AKIDTEST".to_owned(),
                secret_key: Secret::new("marker-secret-key"),
                ..AwsSettings::default()
            };
            let clock = || UNIX_EPOCH + Duration::from_secs(1_440_938_160);
            let surroundings = Surroundings::new("test", |_| None, clock).await.unwrap();
            let [url, body, headers] = caller_identity(&auth, credentials, surroundings).await.unwrap();
            assert_eq!((decoded(&url).as_str(), decoded(&body).as_str()), (address, CALLER_IDENTITY));
            let headers: serde_json::Value = serde_json::from_str(&decoded(&headers)).unwrap();
            assert_eq!(headers["x-vault-aws-iam-server-id"][0], "vault.example");
            assert_eq!(headers["x-amz-date"][0], "20150830T123600Z");
            let authorization = headers["authorization"][0].as_str().unwrap();
            assert!(
                authorization.contains(&format!("AKIDTEST/20150830/{scope}/sts/aws4_request")),
                "{authorization}"
            );
            assert!(
                authorization
                    .contains("SignedHeaders=content-type;host;x-amz-date;x-vault-aws-iam-server-id"),
                "{authorization}"
            );
            assert!(!headers.to_string().contains("marker"));
        }
    }
}
