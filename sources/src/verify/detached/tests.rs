#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

// The key and the two signatures of `test` that minisign's documentation publishes.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const PREHASHED: &str = "untrusted comment: signature from minisign secret key\n\
    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
    trusted comment: timestamp:1556193335\tfile:test\n\
    y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n";
const LEGACY: &str = "untrusted comment: signature from minisign secret key\n\
    RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n\
    trusted comment: timestamp:1555779966\tfile:test\n\
    QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==\n";

fn minisign(keys: &[&str]) -> Result<DetachedKeys, KeyError> {
    let minisign = keys.iter().map(|key| (*key).to_owned()).collect();
    DetachedKeys::load(&SignatureSettings { minisign, ..SignatureSettings::default() })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn minisign_prehashed_and_legacy() {
    let file = format!("untrusted comment: minisign public key E7620F1842B4E81F\n{KEY}\n");
    for key in [KEY, &file] {
        let keys = minisign(&[key]).unwrap();
        for signature in [PREHASHED, LEGACY, &LEGACY.replace('\n', "\r\n")] {
            let signer = verify_detached(&keys, b"test", signature.as_bytes(), now()).unwrap();
            assert_eq!(signer.principal, "E7620F1842B4E81F");
            let error = verify_detached(&keys, b"Test", signature.as_bytes(), now()).unwrap_err();
            assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");
        }
        // The trusted comment is signed too.
        let other = PREHASHED.replace("file:test", "file:best");
        let error = verify_detached(&keys, b"test", other.as_bytes(), now()).unwrap_err();
        assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");
    }
}

#[test]
fn minisign_keys_that_are_not_trusted_or_no_keys() {
    // The same key under another id.
    let other = KEY.replacen("RWQf6", "RWQg6", 1);
    let keys = minisign(&[&other]).unwrap();
    let error = verify_detached(&keys, b"test", PREHASHED.as_bytes(), now()).unwrap_err();
    assert_eq!(error, SignatureError::UnknownKey { key: "minisign key E7620F1842B4E81F".to_owned() });
    assert!(
        verify_detached(&minisign(&[&other, KEY]).unwrap(), b"test", PREHASHED.as_bytes(), now()).is_ok()
    );
    for key in
        ["", "nonsense", "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GF", "untrusted comment: x"]
    {
        assert!(minisign(&[key]).is_err(), "{key}");
    }
    assert!(minisign(&[]).unwrap_err().to_string().contains("no key"));
    assert_ne!(minisign(&[KEY]).unwrap().digest(), minisign(&[&other]).unwrap().digest());
}

#[test]
fn what_is_no_signature() {
    let keys = minisign(&[KEY]).unwrap();
    assert_eq!(verify_detached(&keys, b"test", b" \n", now()), Err(SignatureError::Unsigned));
    for text in ["<html>Not found</html>", "untrusted comment: x\nAAAA\n", &PREHASHED[..100]] {
        let error = verify_detached(&keys, b"test", text.as_bytes(), now()).unwrap_err();
        assert!(matches!(error, SignatureError::Malformed(_)), "{text}: {error}");
    }
}

/// A folder with a key of ssh-keygen; `None`, with a note, where that is not installed.
fn ssh_key(kind: &[&str]) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "comment with blanks", "-f"])
        .arg(folder.path().join("key"))
        .arg("-t")
        .args(kind)
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(folder)
        }
        Err(_) => {
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "ssh-keygen is not installed");
            eprintln!("skipped: ssh-keygen is not installed");
            None
        }
    }
}

fn sign(folder: &Path, key: &str, namespace: &str, content: &[u8]) -> Vec<u8> {
    let document = folder.join("document");
    std::fs::write(&document, content).unwrap();
    drop(std::fs::remove_file(folder.join("document.sig")));
    let output = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .args([folder.join(key), document])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(folder.join("document.sig")).unwrap()
}

/// Keys from a line in which `KEY` stands for the public key.
fn allowing(folder: &Path, line: &str) -> Result<DetachedKeys, KeyError> {
    let key = std::fs::read_to_string(folder.join("key.pub")).unwrap();
    let path = folder.join("allowed_signers");
    std::fs::write(&path, line.replace("KEY", key.trim())).unwrap();
    DetachedKeys::load(&SignatureSettings { ssh: Some(path), ..SignatureSettings::default() })
}

#[test]
fn ssh_signatures_of_every_kind_of_key() {
    let kinds: [&[&str]; 5] = [
        &["ed25519"],
        &["ecdsa", "-b", "256"],
        &["ecdsa", "-b", "384"],
        &["ecdsa", "-b", "521"],
        &["rsa", "-b", "2048"],
    ];
    for kind in kinds {
        let Some(folder) = ssh_key(kind) else { return };
        let signature = sign(folder.path(), "key", "file", b"content");
        let keys = allowing(folder.path(), "ada@example.com,other KEY").unwrap();
        let signer = verify_detached(&keys, b"content", &signature, now()).unwrap();
        assert_eq!(signer.principal, "ada@example.com", "{kind:?}");
        assert!(signer.key.starts_with("SHA256:"), "{signer:?}");
        let error = verify_detached(&keys, b"Content", &signature, now()).unwrap_err();
        assert!(matches!(error, SignatureError::Mismatch { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn ssh_lines_say_what_may_be_signed_and_when() {
    let Some(folder) = ssh_key(&["ed25519"]) else { return };
    let folder = folder.path();
    let signature = sign(folder, "key", "file", b"content");
    let verify = |line: &str, signature: &[u8]| {
        verify_detached(&allowing(folder, line).unwrap(), b"content", signature, now())
            .map_err(|error| error.to_string())
    };
    // 2027-01-15 is now.
    for line in [
        "ada namespaces=\"git,file\" KEY",
        "ada valid-after=\"20270101\",valid-before=\"20280101\" KEY",
        "bob valid-before=\"20260101\" KEY\nada KEY",
    ] {
        assert_eq!(verify(line, &signature).unwrap().principal, "ada", "{line}");
    }
    for (line, said) in [
        ("ada namespaces=\"git\" KEY", "where `file` is asked for"),
        ("ada valid-after=\"20280101Z\" KEY", "not valid before 2028-01-01T00:00:00Z"),
        ("ada valid-before=\"20260101Z\" KEY", "not valid any more since 2026-01-01T00:00:00Z"),
        ("ada cert-authority KEY", "not among the trusted keys"),
    ] {
        let error = verify(line, &signature).unwrap_err();
        assert!(error.contains(said), "{line}: {error}");
    }
    let error = verify("ada KEY", &sign(folder, "key", "git", b"content")).unwrap_err();
    assert!(error.contains("for the namespace `git`"), "{error}");
    let error = allowing(folder, "\nada").unwrap_err().to_string();
    assert!(error.contains("allowed_signers, line 2"), "{error}");
}

#[test]
fn ssh_certificates_of_an_authority() {
    let Some(folder) = ssh_key(&["ed25519"]) else { return };
    let folder = folder.path();
    let keygen = |arguments: &[&str]| {
        let output = Command::new("ssh-keygen").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", "person"]);
    let certify = |options: &[&str]| {
        drop(std::fs::remove_file(folder.join("person-cert.pub")));
        let mut arguments = vec!["-q", "-s", "key", "-I", "person"];
        arguments.extend_from_slice(options);
        arguments.push("person.pub");
        keygen(&arguments);
        sign(folder, "person-cert.pub", "file", b"content")
    };
    let verify = |line: &str, signature: &[u8]| {
        verify_detached(&allowing(folder, line).unwrap(), b"content", signature, now())
            .map_err(|error| error.to_string())
    };
    let within = ["-V", "20270101:20280101"];
    let good = certify(&[&["-n", "eve@example.org,ada@example.com"][..], &within].concat());
    let line = "*@example.com cert-authority,namespaces=\"file\" KEY";
    assert_eq!(verify(line, &good).unwrap().principal, "ada@example.com");
    for (line, signature, said) in [
        ("*@example.com KEY", good.clone(), "not among the trusted keys"),
        ("*@example.net cert-authority KEY", good, "for no principal"),
        (line, certify(&[&["-n", "eve@example.org"][..], &within].concat()), "for no principal"),
        (line, certify(&["-n", "ada@example.com", "-V", "20260101:20260201"]), "not valid any more"),
        (line, certify(&["-n", "ada@example.com", "-V", "20280101:20280201"]), "not valid before"),
        (line, certify(&[&["-h", "-n", "ada@example.com"][..], &within].concat()), "of a host"),
        (
            line,
            certify(&[&["-n", "ada@example.com", "-O", "force-command=x"][..], &within].concat()),
            "restricted by `force-command`",
        ),
    ] {
        let error = verify(line, &signature).unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn weak_ssh_keys_are_refused() {
    let Some(folder) = ssh_key(&["rsa", "-b", "1024"]) else { return };
    let signature = sign(folder.path(), "key", "file", b"content");
    let keys = allowing(folder.path(), "ada KEY").unwrap();
    let error = verify_detached(&keys, b"content", &signature, now()).unwrap_err().to_string();
    assert!(error.contains("an RSA key of 1024 bits"), "{error}");
}

#[test]
fn damaged_ssh_signatures_are_refused() {
    let Some(folder) = ssh_key(&["ed25519"]) else { return };
    let signature = sign(folder.path(), "key", "file", b"content");
    let keys = allowing(folder.path(), "ada KEY").unwrap();
    let text = String::from_utf8(signature.clone()).unwrap();
    for damaged in [
        text.replace("-----END SSH SIGNATURE-----", ""),
        text.replacen("U1NIU0lH", "U1NIU0lI", 1),
        format!("{text}{text}"),
        text.replacen('\n', "\n*", 1),
    ] {
        assert!(verify_detached(&keys, b"content", damaged.as_bytes(), now()).is_err(), "{damaged}");
    }
    // How its lines are broken is of no importance.
    let (body, long) = (text.replace('\n', "\r\n"), text.lines().collect::<Vec<_>>());
    let one_line = format!("{}\n{}\n{}", long[0], long[1..long.len() - 1].concat(), long[long.len() - 1]);
    for same in [body, one_line] {
        assert!(verify_detached(&keys, b"content", same.as_bytes(), now()).is_ok(), "{same}");
    }
    for index in 0..signature.len() {
        let mut damaged = signature.clone();
        damaged[index] ^= 1;
        if let Ok(signer) = verify_detached(&keys, b"content", &damaged, now()) {
            // What is left is a line break that became another blank, at most.
            assert!(signature[index].is_ascii_whitespace(), "byte {index}: {signer:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_signature_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let keys = minisign(&[KEY]).unwrap();
        prop_assert!(verify_detached(&keys, b"content", &bytes, now()).is_err());
        let mut armored = ssh::BEGIN.as_bytes().to_vec();
        armored.extend(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes).bytes());
        armored.extend(b"\n-----END SSH SIGNATURE-----");
        prop_assert!(verify_detached(&keys, b"content", &armored, now()).is_err());
    }
}
