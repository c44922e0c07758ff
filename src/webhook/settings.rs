//! `[webhook.NAME]` of `invar.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderName;
use invar_secrets::Credential;
use schemars::JsonSchema;
use serde::Deserialize;

/// Longest jitter: a hint that comes much later than the next poll is none.
const LONGEST_JITTER: Duration = Duration::from_secs(5 * 60);

/// `[webhook.NAME]`: who may say that there is something new, and for which sources.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSettings {
    /// Who calls, and so how it shows who it is; `github` by default, which Gitea and Forgejo speak too.
    #[serde(default)]
    pub(crate) kind: WebhookKind,
    /// What the other side signs with, or shows. Read again at each delivery.
    pub(crate) secret: Credential,
    /// Names of the sources that are to look; all Git sources by default.
    #[serde(default)]
    pub(crate) sources: Vec<String>,
    /// Longest time, drawn at random, between a delivery and the look: a fleet that gets the same delivery says `5s`.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "String", regex(pattern = r"^([0-9]+(ms|s|m|h|d))+$"))]
    pub(crate) jitter: Duration,
    /// The header with the signature, for `generic`; `X-Signature` by default.
    #[serde(default)]
    pub(crate) header: Option<String>,
}

/// Who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WebhookKind {
    /// HMAC-SHA256 of the body in `X-Hub-Signature-256`.
    #[default]
    GitHub,
    /// The secret itself in `X-Gitlab-Token`.
    GitLab,
    /// HMAC-SHA256 of the body in `X-Gitea-Signature`.
    Gitea,
    /// HMAC-SHA256 of the body in `X-Hub-Signature`.
    Bitbucket,
    /// HMAC-SHA256 of the body in a header of your choice.
    Generic,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    invar_rollout::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Checks what the types do not. `sources` are the names of those that are configured.
///
/// # Errors
/// A sentence for each problem.
pub(crate) fn check(
    webhooks: &BTreeMap<String, WebhookSettings>,
    sources: &[String],
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for (name, webhook) in webhooks {
        let mut problem = |text: String| problems.push(format!("`[webhook.{name}]`: {text}"));
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(usual) {
            problem("a name has 1 to 64 letters, digits, `-`, `_` or `.`".to_owned());
        }
        for unknown in webhook.sources.iter().filter(|source| !sources.contains(source)) {
            problem(format!("there is no source `{unknown}`; there is {}", sources.join(", ")));
        }
        if webhook.jitter > LONGEST_JITTER {
            problem("`jitter` is at most 5m".to_owned());
        }
        match (&webhook.header, webhook.kind) {
            (None, _) => {}
            (Some(header), WebhookKind::Generic) => {
                if HeaderName::try_from(header.as_str()).is_err() {
                    problem(format!("`{header}` is not the name of a header"));
                }
            }
            (Some(_), _) => problem("`header` goes with `kind = \"generic\"`".to_owned()),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
