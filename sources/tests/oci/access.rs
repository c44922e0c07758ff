//! Who we are, to the registry.

use invar_sources::{AuthSettings, BasicSettings, TlsSettings};

use super::*;

/// The name `ada` and the bcrypt hash of [`MARKER`], as `htpasswd -B` makes it.
const USER: &str = "ada:$2b$05$abcdefghijklmnopqrstuuM6LdIRFtSO2kPdsnQR8QqPt6tFqthsy";

#[tokio::test]
async fn passwords_over_tls() {
    if !registry::is_available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let special = Special { tls: Some((&certificate, &key)), user: Some(USER) };
    let registry = DockerRegistry::start(&folder.path().join("registry"), &special).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap()]);
    let url = format!("https://{}", registry.host());
    let publisher = Publisher::with_client(client, &url, "obs/fleet", Some(("ada", MARKER)));
    publisher.push("latest", &[("a.alloy", "one")]).await;

    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &certificate).unwrap();
    let mut settings = settings(&format!("{}/obs/fleet", registry.host()));
    settings.tls = Some(TlsSettings { ca: Some(ca), ..TlsSettings::default() });
    let anonymous = failed(&open(folder.path(), &settings), None).await;
    assert_eq!(anonymous.class, ErrorClass::AuthExpired);
    assert!(anonymous.message.contains("asks for a credential"), "{anonymous}");
    let auth = |password: &str| {
        let basic = BasicSettings { username: "ada".to_owned(), password: text(password) };
        Some(AuthSettings { basic: Some(basic), ..AuthSettings::default() })
    };
    settings.auth = auth("wrong");
    assert_eq!(failed(&open(folder.path(), &settings), None).await.class, ErrorClass::AuthExpired);
    settings.auth = auth(MARKER);
    let source = open(folder.path(), &settings);
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let token = AuthSettings {
        token: Some(text(MARKER)),
        username: Some("ada".to_owned()),
        ..AuthSettings::default()
    };
    settings.auth = Some(token);
    changed(&open(folder.path(), &settings), None).await;
    settings.tls = Some(TlsSettings { server_name: Some("localhost".to_owned()), ..TlsSettings::default() });
    assert_eq!(
        failed(&open(folder.path(), &settings), None).await.class,
        ErrorClass::Transient,
        "an unknown authority"
    );
    let shown = format!("{source:?} {anonymous:?} {first:?} {}", source.description());
    assert!(!shown.contains(MARKER), "{shown}");
}

#[tokio::test]
async fn a_password_is_not_sent_without_encryption() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings("registry.example/x");
    settings.oci.as_mut().unwrap().insecure = true;
    settings.auth = Some(AuthSettings { token: Some(text(MARKER)), ..AuthSettings::default() });
    let environment =
        SourceEnvironment { state_directory: folder.path().to_path_buf(), secrets: SecretStores::local() };
    let error = OciSource::open(&settings, &environment).unwrap_err();
    assert!(error.message.contains("without encryption"), "{error}");
}
