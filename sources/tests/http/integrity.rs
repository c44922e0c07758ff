//! Whether the content is what was promised.

use base64::Engine as _;
use sha2::{Digest as _, Sha256, Sha512};

use super::*;

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_pinned_digest_has_to_be_right() {
    let world = world();
    let Some(server) = nginx(&world, &Special::default()) else { return };
    let url = server.url("/fleet.alloy");
    let digest = hexadecimal(&Sha256::digest(CONTENT));
    let source = world.with(&url, |http| http.sha256 = Some(format!("sha256:{}", digest.to_uppercase())));
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("http:sha256:{digest}"));
    server.publish("fleet.alloy", OTHER).unwrap();
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains(&digest), "{error}");
    assert!(error.message.contains(&hexadecimal(&Sha256::digest(OTHER))), "{error}");
    server.publish("fleet.alloy", CONTENT).unwrap();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn digests_that_the_server_names_are_checked() {
    let world = world();
    let encode = |digest: &[u8]| base64::engine::general_purpose::STANDARD.encode(digest);
    let right256 = format!("sha-256=:{}:", encode(&Sha256::digest(CONTENT)));
    let right512 = format!("sha-512=:{}:", encode(&Sha512::digest(CONTENT)));
    let wrong = format!("sha-256=:{}:", encode(&Sha256::digest(OTHER)));
    for field in ["repr-digest", "content-digest"] {
        for (value, fits) in [
            (right256.clone(), true),
            (right512.clone(), true),
            (format!("{right256}, {right512}"), true),
            ("unixsum=:AA==:".to_owned(), true),
            (wrong.clone(), false),
            (format!("{right512}, {wrong}"), false),
            ("sha-256=:AAAA:".to_owned(), false),
        ] {
            let shown = format!("{field}: {value}");
            let server = Scripted::start(move |_| Reply::ok(CONTENT).with(field, value.clone()));
            let result = poll(&world.at(&server.url("/x")), None).await;
            match result {
                Ok(_) => assert!(fits, "{shown}"),
                Err(error) => {
                    assert!(!fits, "{shown}");
                    assert_eq!(error.class, ErrorClass::Integrity, "{shown}");
                }
            }
        }
    }
}
