//! What `invar doctor` found, in the order in which it is told, for people and for programs.

use std::collections::BTreeSet;

use invar_sources::{Finding, Severity};
use serde::Serialize;

use super::super::output::{Styling, Tone};
use crate::exit::Exit;

/// What a finding is about; in this order they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    /// `invar.toml`.
    Settings,
    /// The HTTP API, and the agent behind it.
    Agent,
    /// The state directory.
    State,
    /// The machine.
    Host,
    /// One secret store.
    Store,
    /// One source.
    Source,
}

/// A finding with its place.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) area: Area,
    /// The source or the store, for those of one.
    pub(super) subject: Option<String>,
    #[serde(flatten)]
    pub(super) finding: Finding,
}

/// How many findings of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    ok: usize,
    hints: usize,
    warnings: usize,
    problems: usize,
}

/// All of it; changes to the shape are additive.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of this shape.
    pub(super) version: u32,
    /// The settings that were looked at.
    pub(super) settings: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) invar: &'static str,
    pub(super) summary: Summary,
    pub(super) findings: Vec<Entry>,
}

impl Report {
    /// The entries come in the order of their areas, and within one as they are given.
    pub(super) fn new(mut findings: Vec<Entry>) -> Self {
        findings.sort_by_key(|entry| entry.area);
        let mut summary = Summary::default();
        for entry in &findings {
            match entry.finding.severity {
                Severity::Ok => summary.ok += 1,
                Severity::Hint => summary.hints += 1,
                Severity::Warning => summary.warnings += 1,
                Severity::Problem => summary.problems += 1,
            }
        }
        Self {
            version: 1,
            settings: None,
            agent: None,
            environment: None,
            invar: env!("CARGO_PKG_VERSION"),
            summary,
            findings,
        }
    }

    /// Problems fail; warnings do only if asked for (as for configurations).
    pub(super) fn exit(&self, deny_warnings: bool) -> Exit {
        match (self.summary.problems, self.summary.warnings) {
            (0, warnings) if warnings > 0 && deny_warnings => Exit::Warnings,
            (0, _) => Exit::Done,
            _ => Exit::Failed,
        }
    }

    /// The lines for people.
    pub(super) fn lines(&self, styling: Styling) -> Vec<String> {
        let who = [
            Some("invar doctor".to_owned()),
            self.settings.clone(),
            self.agent.as_ref().map(|agent| format!("host {agent}")),
            self.environment.clone(),
            Some(format!("invar {}", self.invar)),
        ];
        let who = who.into_iter().flatten().collect::<Vec<_>>().join(" · ");
        let mut lines = vec![styling.paint(Tone::Strong, &who)];
        let mut told = BTreeSet::new();
        for entry in &self.findings {
            let heading = match (&entry.area, &entry.subject) {
                (Area::Source, Some(name)) => format!("source {name}"),
                (Area::Store, name) => format!("secret store {}", name.as_deref().unwrap_or_default()),
                (Area::Settings, _) => "settings".to_owned(),
                (Area::Agent, _) => "agent".to_owned(),
                (Area::State, _) => "state".to_owned(),
                (Area::Host, _) => "host".to_owned(),
                (Area::Source, None) => "sources".to_owned(),
            };
            if told.insert(heading.clone()) {
                lines.push(String::new());
                lines.push(styling.paint(Tone::Strong, &heading));
            }
            lines.extend(finding(&entry.finding, styling));
        }
        lines.push(String::new());
        lines.push(self.verdict(styling));
        lines
    }

    fn verdict(&self, styling: Styling) -> String {
        let count = |number: usize, one: &str, several: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{number} {several}")),
        };
        let Summary { ok, hints, warnings, problems } = self.summary;
        let (checks, are) = if ok == 1 { ("check", "is") } else { ("checks", "are") };
        let parts: Vec<String> = [
            count(problems, "problem", "problems"),
            count(warnings, "warning", "warnings"),
            count(hints, "hint", "hints"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let tone = match (problems, warnings) {
            (0, 0) => Tone::Good,
            (0, _) => Tone::Attention,
            _ => Tone::Bad,
        };
        if parts.is_empty() {
            return styling.paint(tone, &format!("All is well: {ok} {checks}."));
        }
        format!("{}; {ok} {checks} {are} fine.", styling.paint(tone, &parts.join(", ")))
    }
}

fn finding(finding: &Finding, styling: Styling) -> Vec<String> {
    let tone = match finding.severity {
        Severity::Ok => Tone::Good,
        Severity::Hint => Tone::Plain,
        Severity::Warning => Tone::Attention,
        Severity::Problem => Tone::Bad,
    };
    let word = format!("{:<8}", finding.severity.as_str());
    let mut lines = vec![format!("  {} {}", styling.paint(tone, &word), finding.what)];
    for (name, text) in [("why", &finding.why), ("fix", &finding.fix)] {
        let mut text = text.iter().flat_map(|text| text.lines());
        if let Some(first) = text.next() {
            lines.push(format!("           {name}  {first}"));
            lines.extend(text.map(|more| format!("                {more}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(area: Area, subject: Option<&str>, finding: Finding) -> Entry {
        Entry { area, subject: subject.map(str::to_owned), finding }
    }

    fn report() -> Report {
        let mut report = Report::new(vec![
            entry(Area::Source, Some("platform"), Finding::ok("connect", "git.example:443 is reached")),
            entry(
                Area::Source,
                Some("platform"),
                Finding::problem("authentication", "the credential is not accepted (401)")
                    .because("it may have expired\nor never been")
                    .fix("make a new token"),
            ),
            entry(
                Area::Source,
                Some("team-pay"),
                Finding::hint("verify", "nobody has to sign").fix("verify = …"),
            ),
            entry(Area::Settings, None, Finding::ok("settings", "2 sources")),
            entry(Area::Host, None, Finding::warning("files", "1024 open files").fix("LimitNOFILE=65536")),
        ]);
        report.settings = Some("invar.toml".to_owned());
        report.agent = Some("web-17".to_owned());
        report.environment = Some("production".to_owned());
        report
    }

    #[test]
    fn findings_are_told_by_place_with_their_reason_and_fix() {
        let shown = report().lines(Styling::PLAIN).join("\n");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            shown,
            format!(
                "invar doctor · invar.toml · host web-17 · production · invar {version}

settings
  ok       2 sources

host
  warning  1024 open files
           fix  LimitNOFILE=65536

source platform
  ok       git.example:443 is reached
  problem  the credential is not accepted (401)
           why  it may have expired
                or never been
           fix  make a new token

source team-pay
  hint     nobody has to sign
           fix  verify = …

1 problem, 1 warning, 1 hint; 2 checks are fine."
            )
        );
    }

    #[test]
    fn problems_fail_and_warnings_only_if_asked_for() {
        let of = |findings: Vec<Finding>| {
            Report::new(findings.into_iter().map(|finding| entry(Area::Host, None, finding)).collect())
        };
        let warned = of(vec![Finding::warning("x", "y"), Finding::hint("x", "y")]);
        assert_eq!((warned.exit(false), warned.exit(true)), (Exit::Done, Exit::Warnings));
        let well = of(vec![Finding::ok("x", "y"), Finding::hint("x", "y")]);
        assert_eq!((well.exit(false), well.exit(true)), (Exit::Done, Exit::Done));
        assert_eq!((report().exit(false), report().exit(true)), (Exit::Failed, Exit::Failed));
        let lines = of(vec![Finding::ok("x", "y")]).lines(Styling::PLAIN);
        assert_eq!(lines.last().map(String::as_str), Some("All is well: 1 check."));
    }

    #[test]
    fn programs_get_the_same_with_a_version() {
        let json = serde_json::to_value(report()).expect("it is plain data");
        assert_eq!(json["version"], 1);
        assert_eq!(json["summary"]["problems"], 1);
        assert_eq!(json["findings"][0]["area"], "settings");
        let problem = &json["findings"][3];
        assert_eq!(problem["severity"], "problem");
        assert_eq!(problem["subject"], "platform");
        assert_eq!(problem["check"], "authentication");
        assert_eq!(problem["fix"], "make a new token");
    }
}
