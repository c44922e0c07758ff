//! Whether a delivery comes from who knows the secret: the ways of the Git hosts, each compared in constant time.

use axum::http::HeaderMap;
use invar_secrets::Secret;
use ring::hmac;

use super::{WebhookKind, WebhookSettings};

/// Whether `headers` show that who sent `body` knows `secret`.
pub(super) fn verify(settings: &WebhookSettings, headers: &HeaderMap, body: &[u8], secret: &Secret) -> bool {
    let signed = |name: &str, prefix: Prefix| {
        only(headers, name)
            .and_then(|text| decode(text, prefix))
            .is_some_and(|shown| hmac::verify(&key(secret.expose()), body, &shown).is_ok())
    };
    match settings.kind {
        WebhookKind::GitHub => signed("x-hub-signature-256", Prefix::Required),
        WebhookKind::Bitbucket => signed("x-hub-signature", Prefix::Required),
        WebhookKind::Gitea => signed("x-gitea-signature", Prefix::Absent),
        WebhookKind::Generic => signed(settings.header.as_deref().unwrap_or("x-signature"), Prefix::Optional),
        WebhookKind::GitLab => only(headers, "x-gitlab-token").is_some_and(|shown| same(shown, secret)),
    }
}

/// Whether `sha256=` stands before the digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Required,
    Optional,
    Absent,
}

/// The value of a header that is there once: of several, who would say which was checked?
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The 32 bytes of a signature in hexadecimal digits.
pub(super) fn decode(text: &str, prefix: Prefix) -> Option<[u8; 32]> {
    let text = text.trim();
    let digits = match (text.strip_prefix("sha256="), prefix) {
        (Some(digits), Prefix::Required | Prefix::Optional) => digits,
        (None, Prefix::Absent | Prefix::Optional) => text,
        _ => return None,
    };
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// Whether two texts agree, in a time that does not tell how far: what each makes of the same message is compared.
fn same(shown: &str, secret: &Secret) -> bool {
    const MESSAGE: &[u8] = b"token";
    hmac::verify(&key(shown), MESSAGE, hmac::sign(&key(secret.expose()), MESSAGE).as_ref()).is_ok()
}
