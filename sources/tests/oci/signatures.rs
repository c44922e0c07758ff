//! Artifacts that have to be signed, as `cosign sign --key` signs.

use std::path::PathBuf;

use base64::Engine as _;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::publish::{MANIFEST, digest};

/// What stands before the point of a P-256 key.
const PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

struct Signer {
    pair: EcdsaKeyPair,
    public: PathBuf,
}

fn signer(world: &World, name: &str) -> Signer {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let der = [&PREFIX[..], pair.public_key().as_ref()].concat();
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let public = world.folder.path().join(format!("{name}.pub"));
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n");
    std::fs::write(&public, pem).unwrap();
    Signer { pair, public }
}

impl Signer {
    /// Signs a statement about `about` and keeps it where the signatures of `manifest` are.
    async fn sign(&self, world: &World, manifest: &str, about: &str) {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":""}},"image":{{"docker-manifest-digest":"{about}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let signature = self.pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        world.publisher.blob(b"{}").await;
        world.publisher.blob(payload.as_bytes()).await;
        let layer = format!(
            r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{}","size":{},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#,
            digest(payload.as_bytes()),
            payload.len()
        );
        let config = publish::descriptor("application/vnd.oci.image.config.v1+json", b"{}");
        let text =
            format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layer}]}}"#);
        let tag = format!("{}.sig", manifest.replace(':', "-"));
        world.publisher.put_manifest(&tag, MANIFEST, &text).await;
    }
}

fn signed(world: &World, signers: &[&Signer]) -> OciSource {
    world.with(|settings| {
        settings.oci.as_mut().unwrap().cosign = signers.iter().map(|signer| signer.public.clone()).collect();
    })
}

#[tokio::test]
async fn only_what_a_trusted_key_signed_is_read() {
    let Some(world) = world() else { return };
    let (ada, eve) = (signer(&world, "ada"), signer(&world, "eve"));
    let one = world.publisher.push("latest", &[("a.alloy", "one")]).await;
    let source = signed(&world, &[&ada]);
    let refused = ErrorClass::Rejected(Rejection::Verification);
    assert_eq!(failed(&source, None).await.class, refused, "unsigned");
    eve.sign(&world, &one, &one).await;
    assert_eq!(failed(&source, None).await.class, refused, "by another key");
    let other = format!("sha256:{}", "ab".repeat(32));
    ada.sign(&world, &one, &other).await;
    assert_eq!(failed(&source, None).await.class, refused, "of another manifest");
    ada.sign(&world, &one, &one).await;
    let first = changed(&source, None).await;
    assert!(first.signer.as_deref().is_some_and(|signer| signer.starts_with("ada (")), "{:?}", first.signer);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);

    // Other keys are asked again about what is there.
    assert_eq!(failed(&signed(&world, &[&eve]), Some(&first)).await.class, refused);
    std::fs::copy(&eve.public, &ada.public).unwrap();
    assert_eq!(failed(&source, Some(&first)).await.class, refused);
    let both = signer(&world, "ada");
    both.sign(&world, &one, &one).await;
    let second = changed(&signed(&world, &[&eve, &both]), Some(&first)).await;
    assert_eq!(second.digest, first.digest);
    std::fs::remove_file(&both.public).unwrap();
    assert_eq!(failed(&signed(&world, &[&both]), Some(&second)).await.class, ErrorClass::Transient);
}
