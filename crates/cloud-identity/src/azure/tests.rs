//! The ways to a token, each against an endpoint of its own.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{Endpoint, surroundings, token};

const TENANT: &str = "tenant-1";

fn settings(credential: AzureCredential) -> AzureSettings {
    AzureSettings { cloud: AzureCloud::Public, scope: String::new(), credential }
}

fn oauth() -> AzureCredential {
    AzureCredential::Oauth {
        client_id: "app".to_owned(),
        client_secret: Secret::new("hunter2"),
        tenant_id: TENANT.to_owned(),
    }
}

async fn bearer(settings: AzureSettings, variables: &[(&str, &str)]) -> Result<String, IdentityError> {
    let identity = AzureIdentity::new(settings, surroundings(variables).await);
    let headers = identity.headers().await?;
    assert!(headers[AUTHORIZATION].is_sensitive());
    // A second request finds the token.
    assert_eq!(headers, identity.headers().await?);
    Ok(headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_secret_gets_a_token_for_the_ingestion_of_the_cloud() {
    let authority = Endpoint::start(|_| token("t", "3600")).await;
    let variables = [("AZURE_AUTHORITY_HOST", authority.url.as_str())];
    assert_eq!(bearer(settings(oauth()), &variables).await.unwrap(), "Bearer t");
    let asked = authority.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "POST /tenant-1/oauth2/v2.0/token");
    let form = asked[0].form();
    assert_eq!(form["grant_type"], "client_credentials");
    assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), ("app", "hunter2"));
    assert_eq!(form["scope"], "https://monitor.azure.com//.default");
    // The other clouds have their own, and a scope replaces it.
    for (cloud, scope, wanted) in [
        (AzureCloud::China, "", "https://monitor.azure.cn//.default"),
        (AzureCloud::Government, "", "https://monitor.azure.us//.default"),
        (AzureCloud::Public, "api://mine/.default", "api://mine/.default"),
    ] {
        let settings = AzureSettings { cloud, scope: scope.to_owned(), credential: oauth() };
        bearer(settings, &variables).await.unwrap();
        assert_eq!(authority.asked().last().unwrap().form()["scope"], wanted);
    }
}

#[tokio::test]
async fn a_refusal_names_the_code_and_no_secret() {
    let body = "{\"error\":\"invalid_client\",\"error_description\":\"hunter2 is wrong\"}";
    let authority = Endpoint::start(move |_| (401, body.to_owned())).await;
    let variables = [("AZURE_AUTHORITY_HOST", authority.url.as_str())];
    let error = bearer(settings(oauth()), &variables).await.unwrap_err().to_string();
    assert!(error.starts_with("no Azure credentials") && error.contains("invalid_client"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(!format!("{:?}", oauth()).contains("hunter2"));
}

#[tokio::test]
async fn a_managed_identity_asks_the_metadata_service() {
    let metadata = Endpoint::start(|asked| {
        assert_eq!(asked.headers["metadata"], "true");
        token("m", "\"86399\"")
    })
    .await;
    let variables = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url.as_str())];
    let identity = AzureCredential::ManagedIdentity { client_id: "id".to_owned() };
    assert_eq!(bearer(settings(identity), &variables).await.unwrap(), "Bearer m");
    assert_eq!(
        metadata.asked()[0].line,
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmonitor.azure.com%2F&client_id=id"
    );
}

#[tokio::test]
async fn a_managed_identity_of_an_app_service_asks_its_endpoint() {
    let service = Endpoint::start(|asked| {
        assert_eq!(asked.headers["x-identity-header"], "hunter2");
        token("a", "3600")
    })
    .await;
    let address = format!("{}/msi/token", service.url);
    let variables = [("IDENTITY_ENDPOINT", address.as_str()), ("IDENTITY_HEADER", "hunter2")];
    let identity = AzureCredential::ManagedIdentity { client_id: String::new() };
    assert_eq!(bearer(settings(identity), &variables).await.unwrap(), "Bearer a");
    assert!(service.asked()[0].line.starts_with("GET /msi/token?api-version=2019-08-01&resource="));
}

#[tokio::test]
async fn a_workload_exchanges_the_token_of_its_file_as_it_is_then() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token").display().to_string();
    std::fs::write(&file, "first\n").unwrap();
    let authority = Endpoint::start(|asked| token(&asked.form()["client_assertion"], "3600")).await;
    let variables = [("AZURE_AUTHORITY_HOST", authority.url.as_str())];
    let workload = || AzureCredential::WorkloadIdentity {
        client_id: "app".to_owned(),
        tenant_id: TENANT.to_owned(),
        token_file: file.clone(),
    };
    assert_eq!(bearer(settings(workload()), &variables).await.unwrap(), "Bearer first");
    assert_eq!(authority.asked()[0].form()["client_assertion_type"], JWT_BEARER);
    std::fs::write(&file, "second").unwrap();
    assert_eq!(bearer(settings(workload()), &variables).await.unwrap(), "Bearer second");
    std::fs::remove_file(&file).unwrap();
    let error = bearer(settings(workload()), &variables).await.unwrap_err().to_string();
    assert!(error.contains(&file), "{error}");
}

#[tokio::test]
async fn the_environment_decides_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token").display().to_string();
    std::fs::write(&file, "federated").unwrap();
    let authority = Endpoint::start(|asked| {
        token(if asked.body.contains("client_secret") { "secret" } else { "federated" }, "3600")
    })
    .await;
    let metadata = Endpoint::start(|_| token("managed", "3600")).await;
    let sdk = || settings(AzureCredential::Environment { tenant_id: TENANT.to_owned() });
    let mut variables = vec![
        ("AZURE_AUTHORITY_HOST", authority.url.as_str()),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url.as_str()),
    ];
    assert_eq!(bearer(sdk(), &variables).await.unwrap(), "Bearer managed");
    variables.extend([("AZURE_CLIENT_ID", "app"), ("AZURE_FEDERATED_TOKEN_FILE", file.as_str())]);
    assert_eq!(bearer(sdk(), &variables).await.unwrap(), "Bearer federated");
    assert_eq!(authority.asked()[0].line, "POST /tenant-1/oauth2/v2.0/token");
    variables.extend([("AZURE_CLIENT_SECRET", "hunter2"), ("AZURE_TENANT_ID", "tenant-2")]);
    assert_eq!(bearer(sdk(), &variables).await.unwrap(), "Bearer secret");
    assert_eq!(authority.asked()[1].line, "POST /tenant-2/oauth2/v2.0/token");
}
