//! Exchanges the token of another identity provider, which the settings name a file of, for credentials of a role. The chain
//! of AWS's libraries does so for what the environment names, and only at the address that the environment names.

use std::path::Path;
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;

use super::credentials::{causes, unavailable};
use crate::IdentityError;

/// The largest token that is read, bytes.
const MAX_TOKEN: u64 = 64 * 1024;

/// Reads the token and exchanges it. The file is read each time: tokens are short-lived, and somebody renews them.
pub(super) async fn exchange(
    file: &Path,
    role: &str,
    session: &str,
    config: &SdkConfig,
) -> Result<Credentials, IdentityError> {
    let told = |what: &str| unavailable(&format!("the token in {} {what}", file.display()));
    let size = tokio::fs::metadata(file).await.map(|metadata| metadata.len());
    if size.is_ok_and(|size| size > MAX_TOKEN) {
        return Err(told("is longer than 64 KiB"));
    }
    let token = tokio::fs::read_to_string(file).await;
    let token = token.map_err(|error| told(&format!("cannot be read: {error}")))?;
    let client = aws_sdk_sts::Client::new(config);
    let request = client
        .assume_role_with_web_identity()
        .role_arn(role)
        .role_session_name(session)
        .web_identity_token(token.trim());
    let answer = request.send().await.map_err(|error| unavailable(&causes(&error)))?;
    let credentials = answer.credentials.ok_or_else(|| unavailable("the exchange brought none"))?;
    let expiry = SystemTime::try_from(credentials.expiration)
        .map_err(|_| unavailable("the exchange brought some without a time of expiry"))?;
    Ok(Credentials::new(
        credentials.access_key_id,
        credentials.secret_access_key,
        Some(credentials.session_token),
        Some(expiry),
        "web identity",
    ))
}
