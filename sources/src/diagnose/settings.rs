//! What the settings of a source let happen: no encryption, no signatures, a rewritten history. All of it works, which is
//! why only somebody who looks for it finds it.

use super::Finding;
use crate::connection::is_loopback;
use crate::settings::{HistoryPolicy, SourceSettings, VerifyMode};

/// Findings that need the settings alone.
pub(super) fn findings_of(settings: &SourceSettings, environment: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(address) = unencrypted(settings) {
        findings.push(
            Finding::warning("encryption", format!("{address} is reached without encryption"))
                .because("whoever is on the way can read the configuration, and replace it")
                .fix("use https://"),
        );
    }
    let Some(git) = &settings.git else { return findings };
    // A commit or a tag does not move by itself; without any reference it is the branch behind HEAD.
    let follows_branch = git.commit.is_none() && git.tag.is_none() && git.semver.is_none();
    if is_production(environment) && follows_branch && settings.history != HistoryPolicy::FastForward {
        let now = match settings.history {
            HistoryPolicy::Any => "any",
            _ => "warn",
        };
        findings.push(
            Finding::warning("history", format!("`history = \"{now}\"` lets a force push change production"))
                .because("a rewritten branch is applied; what was reviewed before may be gone from it")
                .fix("history = \"fast-forward\": a rewritten branch waits until a person accepts it"),
        );
    }
    if settings.verify.mode == VerifyMode::None {
        findings.push(
            Finding::hint("verify", "nobody has to have signed what is read (`verify.mode = \"none\"`)")
                .because("whoever may push decides what this host runs")
                .fix("verify = { mode = \"head\", ssh = \"/etc/invar/allowed_signers\" }"),
        );
    }
    findings
}

/// Whether an environment is one where a mistake is dear.
fn is_production(environment: &str) -> bool {
    let name = environment.to_ascii_lowercase();
    name.split(|character: char| !character.is_ascii_alphanumeric())
        .any(|word| matches!(word, "prod" | "production" | "prd" | "live"))
}

/// The address of the source if it is reached over plain HTTP, other than on this host.
fn unencrypted(settings: &SourceSettings) -> Option<String> {
    let plain = |address: &str| {
        let url = url::Url::parse(address).ok().filter(|url| url.scheme() == "http" && !is_loopback(url))?;
        Some(format!("http://{}", url.host_str()?))
    };
    let oci = settings.oci.as_ref().filter(|oci| oci.insecure);
    let addresses = [
        settings.git.as_ref().map(|git| git.url.clone()),
        settings.http.as_ref().map(|http| http.url.clone()),
        settings.s3.as_ref().and_then(|s3| s3.endpoint.clone()),
        oci.map(|oci| format!("http://{}", oci.repository)),
    ];
    addresses.iter().flatten().find_map(|address| plain(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Severity;
    use super::*;

    fn found(text: &str, environment: &str) -> Vec<(&'static str, Severity)> {
        let settings: SourceSettings = toml::from_str(text).unwrap();
        findings_of(&settings, environment).iter().map(|found| (found.check, found.severity)).collect()
    }

    const GIT: &str = "git = { url = 'https://git.example/x', branch = 'main' }\nverify = { mode = 'head' }";

    #[test]
    fn a_branch_in_production_should_not_be_rewritten() {
        let warned = [("history", Severity::Warning)];
        for environment in ["production", "prod", "PROD", "eu-prod-1", "prod_eu"] {
            assert_eq!(found(GIT, environment), warned, "{environment}");
        }
        for environment in ["", "staging", "product-tests", "preprod"] {
            assert_eq!(found(GIT, environment), [], "{environment}");
        }
        assert_eq!(found(&format!("{GIT}\nhistory = 'any'"), "production"), warned);
        assert_eq!(found(&format!("{GIT}\nhistory = 'fast-forward'"), "production"), []);
        let tag = GIT.replace("branch", "tag");
        assert_eq!(found(&tag, "production"), []);
    }

    #[test]
    fn without_signatures_is_a_hint() {
        let text = "git = { url = 'https://git.example/x' }";
        assert_eq!(found(text, "dev"), [("verify", Severity::Hint)]);
        assert_eq!(found("file = { path = '/etc/invar' }", "production"), []);
    }

    #[test]
    fn without_encryption_is_a_warning() {
        let warned = [("encryption", Severity::Warning)];
        assert_eq!(found("http = { url = 'http://conf.example/a' }", ""), warned);
        assert_eq!(found("s3 = { bucket = 'b', endpoint = 'http://s3.example' }", ""), warned);
        assert_eq!(found("oci = { repository = 'reg.example/a', insecure = true }", ""), warned);
        assert_eq!(found(&GIT.replace("https", "http"), ""), warned);
        for safe in ["http = { url = 'https://conf.example/a' }", "http = { url = 'http://127.0.0.1:1/a' }"] {
            assert_eq!(found(safe, ""), [], "{safe}");
        }
        let settings: SourceSettings =
            toml::from_str("http = { url = 'http://conf.example/a?token=hunter2' }").unwrap();
        assert!(!format!("{:?}", findings_of(&settings, "")).contains("hunter2"));
    }
}
