#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[path = "../../../../integration/servers/git/gpg.rs"]
#[allow(dead_code, unreachable_pub)]
mod gpg;

use gpg::Gpg;

const ADA: &str = "Ada Lovelace <ada@example.com>";

fn at(text: &str) -> SystemTime {
    let moment: jiff::Timestamp = text.parse().unwrap();
    moment.try_into().unwrap()
}

fn now() -> SystemTime {
    at("2026-06-01T00:00:00Z")
}

/// Keys of 2026-01-01.
fn gpg() -> Option<Gpg> {
    let gpg = Gpg::start()?;
    gpg.set_time("20260101T000000");
    Some(gpg)
}

fn verify(keys: &[u8], signature: &[u8], content: &[u8]) -> Result<Signer, String> {
    verify_as(keys, signature, content, &[], now())
}

fn verify_as(
    keys: &[u8],
    signature: &[u8],
    content: &[u8],
    signers: &[&str],
    now: SystemTime,
) -> Result<Signer, String> {
    let signers: Vec<String> = signers.iter().map(|name| (*name).to_owned()).collect();
    OpenPgpSignature::parse(signature)
        .and_then(|signature| {
            signature.verify(content, &Keyring::parse(keys).unwrap(), &Signers::new(&signers), now)
        })
        .map_err(|error| error.to_string())
}

#[test]
fn signatures_of_several_kinds_of_keys() {
    let Some(gpg) = gpg() else { return };
    for (index, algorithm) in ["ed25519", "rsa2048", "nistp256"].into_iter().enumerate() {
        let user = format!("User {index} <user{index}@example.com>");
        let key = gpg.generate(&user, algorithm, "sign", "never");
        let keys = gpg.export(&["--armor"], &[&key]);
        for options in [&[][..], &["--textmode"], &["--digest-algo", "SHA512"]] {
            let signature = gpg.sign(&key, options, b"content\n");
            let signer = verify(&keys, &signature, b"content\n").unwrap();
            assert_eq!(signer.principal, user, "{algorithm}");
            assert_eq!(signer.key, format!("OpenPGP key {key}"));
            let error = verify(&keys, &signature, b"Content\n").unwrap_err();
            assert!(error.contains("is not of this content"), "{error}");
        }
        if algorithm == "nistp256" {
            continue;
        }
        let weak = gpg.sign(&key, &["--digest-algo", "SHA1"], b"content");
        let error = verify(&keys, &weak, b"content").unwrap_err();
        assert!(error.contains("weak hash"), "{error}");
    }
}

#[test]
fn files_of_keys_are_armored_or_not_and_hold_several() {
    let Some(gpg) = gpg() else { return };
    let ada = gpg.generate(ADA, "ed25519", "sign", "never");
    let bob = gpg.generate("Bob <bob@example.com>", "ed25519", "sign", "never");
    let signature = gpg.sign(&bob, &[], b"content");
    let blocks = [gpg.export(&["--armor"], &[&ada]), gpg.export(&["--armor"], &[&bob])].concat();
    let with_text = [b"Keys of the team:\n\n", blocks.as_slice()].concat();
    for keys in [
        gpg.export(&[], &[&ada, &bob]),
        gpg.export(&["--armor"], &[&ada, &bob]),
        with_text.replace_newlines(),
        blocks,
    ] {
        assert_eq!(verify(&keys, &signature, b"content").unwrap().principal, "Bob <bob@example.com>");
    }
    let error = verify(&gpg.export(&[], &[&ada]), &signature, b"content").unwrap_err();
    assert!(error.contains(&format!("OpenPGP key {bob}, which is not among the trusted keys")), "{error}");

    let secret = gpg.run(&["--batch", "--armor", "--export-secret-keys", &ada], b"");
    for (content, said) in [
        (secret.as_slice(), "private key"),
        (b"", "no public key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA", "no end"),
        (b"\x99\x00\x01", ""),
    ] {
        let error = Keyring::parse(content).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

/// Line ends of Windows, which people's files come to have.
trait ReplaceNewlines {
    fn replace_newlines(&self) -> Vec<u8>;
}

impl ReplaceNewlines for Vec<u8> {
    fn replace_newlines(&self) -> Vec<u8> {
        String::from_utf8(self.clone()).unwrap().replace('\n', "\r\n").into_bytes()
    }
}

#[test]
fn keys_expire_by_the_time_it_is_now() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "sign", "2026-03-01");
    let signature = gpg.sign(&key, &[], b"content");
    let keys = gpg.export(&[], &[&key]);
    let error = verify(&keys, &signature, b"content").unwrap_err();
    assert!(error.contains("not valid any more since 2026-03-01T"), "{error}");
    assert!(verify_as(&keys, &signature, b"content", &[], at("2026-02-01T00:00:00Z")).is_ok());
    let error = verify_as(&keys, &signature, b"content", &[], at("2025-12-01T00:00:00Z")).unwrap_err();
    assert!(error.contains("not valid before 2026-01-01T"), "{error}");
    // Its owner may prolong it, and take that back.
    gpg.set_time("20260201T000000");
    gpg.run(&["--batch", "--quick-set-expire", &key, "2027-01-01"], b"");
    let prolonged = gpg.export(&[], &[&key]);
    assert!(verify(&prolonged, &signature, b"content").is_ok());
    gpg.set_time("20260202T000000");
    gpg.run(&["--batch", "--quick-set-expire", &key, "2026-02-20"], b"");
    let shortened = gpg.export(&[], &[&key]);
    assert!(verify(&shortened, &signature, b"content").unwrap_err().contains("since 2026-02-20T"));
}

#[test]
fn signatures_expire_too() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "sign", "never");
    let signature = gpg.sign(&key, &["--default-sig-expire", "2026-02-01"], b"content");
    let keys = gpg.export(&[], &[&key]);
    assert!(verify(&keys, &signature, b"content").unwrap_err().contains("since 2026-02-01T"));
    assert!(verify_as(&keys, &signature, b"content", &[], at("2026-01-20T00:00:00Z")).is_ok());
}

#[test]
fn revoked_keys_do_not_sign() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "sign", "never");
    let signature = gpg.sign(&key, &[], b"content");
    assert!(verify(&gpg.export(&[], &[&key]), &signature, b"content").is_ok());
    gpg.revoke(&key);
    let error = verify(&gpg.export(&[], &[&key]), &signature, b"content").unwrap_err();
    assert!(error.contains("which is revoked"), "{error}");
}

#[test]
fn subkeys_sign_where_they_are_for_that() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "cert", "never");
    let sub = gpg.add_subkey(&key, "ed25519", "sign", "never");
    let signature = gpg.sign(&sub, &[], b"content");
    let keys = gpg.export(&[], &[&key]);
    let signer = verify(&keys, &signature, b"content").unwrap();
    assert_eq!(signer, Signer { principal: ADA.to_owned(), key: format!("OpenPGP key {sub}") });
    for signers in [[key.as_str()], [sub.as_str()]] {
        assert!(verify_as(&keys, &signature, b"content", &signers, now()).is_ok());
    }
    // The primary key is there to certify only.
    gpg.set_time("20260102T000000");
    let expiring = gpg.add_subkey(&key, "ed25519", "sign", "2026-02-01");
    let old = gpg.sign(&format!("{expiring}!"), &[], b"content");
    let keys = gpg.export(&[], &[&key]);
    assert!(verify(&keys, &old, b"content").unwrap_err().contains("since 2026-02-01T"));
    assert!(verify(&keys, &signature, b"content").is_ok());
    gpg.revoke_subkey(&key);
    let keys = gpg.export(&[], &[&key]);
    assert!(verify(&keys, &signature, b"content").unwrap_err().contains("revoked"));
    // Without the primary key's word for it a subkey is nobody's.
    gpg.revoke(&key);
    let keys = gpg.export(&[], &[&key]);
    assert!(verify(&keys, &old, b"content").unwrap_err().contains("revoked"));
}

#[test]
fn signers_are_fingerprints_addresses_or_names() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "sign", "never");
    gpg.set_time("20260102T000000");
    gpg.run(&["--batch", "--quick-add-uid", &key, "Ada <ada@work.example>"], b"");
    let signature = gpg.sign(&key, &[], b"content");
    let keys = gpg.export(&[], &[&key]);
    let spaced: String = key
        .chars()
        .enumerate()
        .flat_map(|(index, c)| {
            let blank = (index % 4 == 0 && index > 0).then_some(' ');
            blank.into_iter().chain([c.to_ascii_lowercase()])
        })
        .collect();
    for signer in [key.as_str(), &spaced, &format!("0x{key}"), "Ada@Example.com", ADA, "ada@work.example"] {
        assert!(verify_as(&keys, &signature, b"content", &[signer], now()).is_ok(), "{signer}");
    }
    for signer in ["bob@example.com", &key[24..], "", "ada"] {
        let error = verify_as(&keys, &signature, b"content", &[signer], now()).unwrap_err();
        assert!(error.contains("who is not among the `signers`"), "{signer}: {error}");
    }
    // A name that its owner took back is none.
    gpg.set_time("20260103T000000");
    gpg.run(&["--batch", "--quick-revoke-uid", &key, "Ada <ada@work.example>"], b"");
    let keys = gpg.export(&[], &[&key]);
    assert!(verify_as(&keys, &signature, b"content", &["ada@work.example"], now()).is_err());
    assert!(verify_as(&keys, &signature, b"content", &["ada@example.com"], now()).is_ok());
}

#[test]
fn what_is_no_single_signature() {
    let Some(gpg) = gpg() else { return };
    let key = gpg.generate(ADA, "ed25519", "sign", "never");
    let keys = gpg.export(&[], &[&key]);
    let signature = gpg.sign(&key, &[], b"content");
    let text = String::from_utf8(signature.clone()).unwrap();
    for damaged in
        [text.replace("-----END", "----END"), text.replace("SIGNATURE", "MESSAGE"), BEGIN.to_owned()]
    {
        let error = verify(&keys, damaged.as_bytes(), b"content").unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }
    let other = gpg.generate("Bob <bob@example.com>", "ed25519", "sign", "never");
    let both = ["--batch", "--armor", "--local-user", &key, "--local-user", &other, "--detach-sign"];
    let error = verify(&keys, &gpg.run(&both, b"content"), b"content").unwrap_err();
    assert!(error.contains("it holds more than one"), "{error}");
    for index in 0..signature.len() {
        let mut damaged = signature.clone();
        damaged[index] ^= 0x40;
        if let Ok(signer) = verify(&keys, &damaged, b"content") {
            // What is not signed of it: the checksum of the armor, and hints for who looks for the key.
            assert_eq!(signer.key, format!("OpenPGP key {key}"));
        }
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(Keyring::parse(&bytes));
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
        let armored = format!("{BEGIN}\n\n{encoded}\n-----END PGP SIGNATURE-----\n");
        if let Ok(signature) = OpenPgpSignature::parse(armored.as_bytes()) {
            prop_assert!(signature.verify(b"x", &Keyring::default(), &Signers::any(), now()).is_err());
        }
        drop(Keyring::parse(format!("{BEGIN_KEYS}\n\n{encoded}\n{END_KEYS}\n").as_bytes()));
    }
}
