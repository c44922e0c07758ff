//! Looking at one source as a person would who wonders why it does not work: its settings, its credentials, the way to
//! its server, and then one poll from nothing, each of which gives findings with a fix.
//!
//! Used by `invar doctor`, without and beside a running agent; nothing here touches what an agent holds. A kind of
//! source needs no code here: the poll is its own, and [`Source::diagnose`] is there for those with more to say.

mod address;
mod certificate;
mod credentials;
mod network;
mod outcome;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_secrets::SecretStores;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::settings::SourceSettings;
use crate::source::{PollContext, Source};
use crate::{SourceEnvironment, open};

pub use self::certificate::{Validity, certificate_validity};
pub use self::credentials::credentials_of;
pub(crate) use self::outcome::findings_of;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works; something would make it better.
    Hint,
    /// It works now, and may not tomorrow or not everywhere.
    Warning,
    /// It does not work.
    Problem,
}

impl Severity {
    /// The word that output shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The check that finds credentials written out in the settings.
pub const WRITTEN_OUT: &str = "written_out";

/// One thing that was looked at. Nothing in it is ever a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `dns`, `tls`, `authentication` …
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is so, in one line.
    pub what: String,
    /// Why that matters, or what it comes from.
    pub why: Option<String>,
    /// What a person can do.
    pub fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Self { check, severity, what: what.into(), why: None, fix: None }
    }

    /// All is well.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what)
    }

    /// Something could be better.
    pub fn hint(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Hint, what)
    }

    /// Something will fail one day, or fails in part.
    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Warning, what)
    }

    /// Something does not work.
    pub fn problem(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Problem, what)
    }

    /// The same with its reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The same with its fix.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// How a source is looked at.
#[derive(Clone, Debug)]
pub struct Examiner {
    /// The stores that credentials come from.
    pub secrets: SecretStores,
    /// Where the poll may keep what it fetches: a folder of its own, gone afterwards.
    pub scratch: PathBuf,
    /// `[agent] environment`.
    pub environment: String,
    /// Whether only what needs no network is looked at.
    pub offline: bool,
    /// How long all of it may take.
    pub limit: Duration,
}

/// What was found out about a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// The findings, from its settings to its content.
    pub findings: Vec<Finding>,
    /// The host whose clock was seen, and by how many milliseconds it is ahead of this one's.
    pub clock: Option<(String, i64)>,
}

impl Examiner {
    /// Looks at the source that `settings` (normalized and with substitutions done) describe.
    pub async fn examine(&self, settings: &SourceSettings) -> Examination {
        let end = Instant::now() + self.limit;
        let mut examination = Examination::default();
        let findings = &mut examination.findings;
        findings.extend(settings::findings_of(settings, &self.environment));
        let credentials = credentials::findings_of(settings, &self.secrets);
        let usable = match tokio::time::timeout_at(end, credentials).await {
            Ok(found) => {
                let usable = found.iter().all(|finding| finding.severity != Severity::Problem);
                findings.extend(found);
                usable
            }
            Err(_) => {
                findings.push(
                    Finding::problem("credential", "the credentials could not be read in time")
                        .because("a file system or a secret store does not answer"),
                );
                false
            }
        };
        if !self.offline
            && let Some(server) = address::server_of(settings)
        {
            let now = SystemTime::now();
            let reading = network::read(&server, settings, end).await;
            examination.clock = reading.clock_offset.map(|offset| (server.host.clone(), offset));
            let reached = reading.obstacle.is_none();
            findings.extend(network::findings_of(&server, settings, &reading, now));
            if !reached {
                // A poll would only say the same in other words.
                return examination;
            }
        }
        // A source of this host needs no network.
        if usable && (!self.offline || settings.file.is_some()) {
            findings.extend(self.poll(settings, end).await);
        }
        examination
    }

    /// One poll of the source, from nothing, in a place of its own.
    async fn poll(&self, settings: &SourceSettings, end: Instant) -> Vec<Finding> {
        let environment =
            SourceEnvironment { state_directory: self.scratch.clone(), secrets: self.secrets.clone() };
        let source: Arc<dyn Source> = match open(settings, &environment) {
            Ok(source) => source,
            Err(error) => return findings_of(!settings.optional, Err(error)),
        };
        let cancellation = CancellationToken::new();
        let context =
            PollContext { deadline: end, cancellation: cancellation.clone(), now: SystemTime::now() };
        let _cancelled_at_the_end = cancellation.drop_guard();
        match tokio::time::timeout_at(end, source.diagnose(&context)).await {
            Ok(findings) => findings,
            Err(_) => vec![
                Finding::problem(
                    "connection",
                    format!("{} did not answer within {} s", source.description(), self.limit.as_secs()),
                )
                .fix("is it slow, or large? --timeout gives it longer"),
            ],
        }
    }
}

#[cfg(test)]
mod tests;
