//! `invar sources`: a line for each source with what it holds and how the asking goes; with a name, everything that is
//! known of one.

use invar_rollout::{SourceDetail, SourceState, Timestamp};
use serde::Serialize;

use super::client::{Client, ClientError};
use super::output::{self, Styling, Table, Tone, line, short_revision, size, span};
use super::status::now;
use super::{Format, Remote};
use crate::exit::Exit;
use crate::server::{SourceAnswer, SourceDeclaration};

#[derive(Debug, clap::Args)]
pub(crate) struct SourcesArguments {
    /// Show everything about this one
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// What `invar sources -o json` prints; changes are additive.
#[derive(Serialize)]
struct SourceList {
    version: u32,
    sources: Vec<SourceState>,
}

pub(crate) async fn main(arguments: SourcesArguments, styling: Styling) -> Result<Exit, ClientError> {
    let client = Client::new(&arguments.remote)?;
    let format = arguments.remote.output.format;
    let Some(name) = &arguments.name else {
        let sources: Vec<SourceState> = client.get("/api/v1/sources").await?;
        match format {
            Format::Json => output::json(&SourceList { version: 1, sources }),
            Format::Text => list(&sources, now(), styling).iter().for_each(line),
        }
        return Ok(Exit::Done);
    };
    let escaped: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    // That is the form of queries, where a space is a plus.
    let source: SourceAnswer =
        client.get(&format!("/api/v1/sources/{}", escaped.replace('+', "%20"))).await?;
    match format {
        Format::Json => output::json(&source),
        Format::Text => detail(&source, now(), styling).iter().for_each(line),
    }
    Ok(Exit::Done)
}

/// How a source is doing, in a word or two.
fn state(source: &SourceState, now: Timestamp) -> (Tone, String) {
    match &source.error {
        Some(error) if source.alarm => {
            (Tone::Bad, format!("ALARM: {} for {}", error.class, span(now.since(error.since))))
        }
        Some(error) => (Tone::Bad, format!("{} for {}", error.class, span(now.since(error.since)))),
        None if source.checked.is_none() && source.revision.is_some() => {
            (Tone::Attention, "from the cache".to_owned())
        }
        None if source.checked.is_none() => (Tone::Attention, "not asked yet".to_owned()),
        None => (Tone::Good, "ok".to_owned()),
    }
}

fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{} ago", span(now.since(time))))
}

fn list(sources: &[SourceState], now: Timestamp, styling: Styling) -> Vec<String> {
    let mut table = Table::new(&["NAME", "KIND", "REVISION", "CHECKED", "CHANGED", "STATE"]);
    for source in sources {
        let (tone, word) = state(source, now);
        table.row([
            (Tone::Plain, source.name.clone()),
            (Tone::Plain, source.kind.clone()),
            (Tone::Plain, source.revision.as_deref().map_or_else(|| "–".to_owned(), short_revision)),
            (Tone::Plain, ago(source.checked, now)),
            (Tone::Plain, ago(source.changed, now)),
            (tone, word),
        ]);
    }
    let mut lines = table.lines(styling).into_iter();
    let mut told: Vec<String> = lines.next().into_iter().collect();
    for (source, text) in sources.iter().zip(lines) {
        told.push(text);
        if let Some(error) = &source.error {
            let mut message = error.message.lines();
            told.push(format!("  └ {}", message.next().unwrap_or_default()));
            told.extend(message.map(|text| format!("    {text}")));
        }
    }
    if let Some(failing) = sources.iter().find(|source| source.error.is_some()) {
        told.push(format!("next: invar sources {} · invar doctor", failing.name));
    }
    told
}

fn detail(source: &SourceAnswer, now: Timestamp, styling: Styling) -> Vec<String> {
    let SourceAnswer { detail, settings } = source;
    let (tone, word) = state(&detail.state, now);
    let mut lines = vec![format!(
        "{} {}   {}",
        styling.paint(Tone::Strong, &detail.state.name),
        detail.state.kind,
        styling.paint(tone, &word)
    )];
    let mut say = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("  {name:<10}{text}"));
        }
    };
    say("reads", &detail.description);
    if let Some(settings) = settings {
        say("paths", &settings.paths.join(", "));
    }
    say("revision", detail.state.revision.as_deref().unwrap_or("none yet"));
    content(detail, now, &mut say);
    let checked = match detail.state.checked {
        Some(_) => ago(detail.state.checked, now),
        None => "never answered since the start".to_owned(),
    };
    say("checked", &checked);
    say("changed", &ago(detail.state.changed, now));
    let next = match detail.next {
        _ if detail.polling => "now".to_owned(),
        Some(next) => format!("in {}", span(next.since(now))),
        None if detail.interval_seconds.is_none() => String::new(),
        None => "not by itself: `invar reconcile` asks".to_owned(),
    };
    let interval = detail
        .interval_seconds
        .map(|seconds| format!(" (every {}, give or take)", span(std::time::Duration::from_secs(seconds))));
    if !next.is_empty() {
        say("next", &format!("{next}{}", interval.unwrap_or_default()));
    }
    let checks = detail.state.checks;
    if let Some(mean) = checks.millis.checked_div(checks.total) {
        say(
            "checks",
            &format!(
                "{} since the start: {} changed, {} failed ({} aborted); {} ms each",
                checks.total, checks.changed, checks.failed, checks.aborted, mean
            ),
        );
    }
    if let Some(settings) = settings {
        declaration(settings, detail.required, &mut say);
    }
    if let Some(error) = &detail.state.error {
        let message = match &detail.help {
            // The message of the list ends with it.
            Some(help) => error.message.strip_suffix(&format!("; {help}")).unwrap_or(&error.message),
            None => &error.message,
        };
        let mut text = message.lines();
        say(
            "error",
            &styling.paint(Tone::Bad, &format!("{}: {}", error.class, text.next().unwrap_or_default())),
        );
        text.for_each(|text| say("", text));
        say("since", &ago(Some(error.since), now));
        if detail.missing_polls > 0 {
            say("missing", &format!("{} checks in a row", detail.missing_polls));
        }
        if let Some(help) = &detail.help {
            say("help", help);
        }
    }
    lines
}

fn content(detail: &SourceDetail, now: Timestamp, say: &mut impl FnMut(&str, &str)) {
    let Some(content) = &detail.content else { return };
    let written = [
        content.subject.as_ref().map(|subject| format!("\"{subject}\"")),
        content.author.clone(),
        content.committed.map(|at| format!("{} ago", span(now.since(at)))),
    ];
    say("written", &written.into_iter().flatten().collect::<Vec<_>>().join(" · "));
    say("signer", content.signer.as_deref().unwrap_or_default());
    let files = if content.files == 1 { "file" } else { "files" };
    say(
        "holds",
        &format!(
            "{} {files}, {} · sha256:{}",
            content.files,
            size(content.bytes),
            content.digest.get(..12).unwrap_or(&content.digest)
        ),
    );
    for notice in &content.notices {
        say("notice", &notice.message);
    }
}

fn declaration(settings: &SourceDeclaration, required: bool, say: &mut impl FnMut(&str, &str)) {
    say("needed", if required { "yes" } else { "no: a configuration may be composed without it" });
    say("auth", settings.auth.as_deref().unwrap_or("none"));
    say("proxy", settings.proxy.as_deref().unwrap_or_default());
    if let Some(verify) = &settings.verify {
        let mut text = verify.mode.clone();
        if !verify.trusted.is_empty() {
            text.push_str(&format!(" by {}", verify.trusted.join(", ")));
        }
        if !verify.signers.is_empty() {
            text.push_str(&format!(" ({})", verify.signers.join(", ")));
        }
        say("verify", &text);
    }
    say("history", settings.history.as_deref().unwrap_or_default());
    let limits = &settings.limits;
    say(
        "limits",
        &format!(
            "{} files, {} each, {} together, {} a fetch",
            limits.files,
            size(limits.file),
            size(limits.bytes),
            size(limits.pack)
        ),
    );
}

#[cfg(test)]
mod tests {
    use invar_rollout::{ContentDetail, NoticeDetail, SourceChecks, SourceErrorState};
    use invar_sources::{NoticeKind, SourceSettings};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn before(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 - seconds * 1000)
    }

    fn platform() -> SourceState {
        SourceState {
            name: "platform".to_owned(),
            kind: "git".to_owned(),
            revision: Some(format!("main@sha1:{}", "4be21c09".repeat(5))),
            checked: Some(before(12)),
            changed: Some(before(7_200)),
            error: None,
            checks: SourceChecks { total: 40, changed: 2, failed: 1, aborted: 0, millis: 4_000 },
            alarm: false,
        }
    }

    fn failing() -> SourceState {
        SourceState {
            name: "team-pay".to_owned(),
            revision: None,
            checked: None,
            changed: None,
            error: Some(SourceErrorState {
                class: "not_found".to_owned(),
                message: "https://git.example/pay has no `mian`; did you mean `main`?".to_owned(),
                since: before(240),
                rejection: None,
            }),
            alarm: true,
            ..platform()
        }
    }

    #[test]
    fn a_line_for_each_source_and_its_error_below() {
        let shown = list(&[platform(), failing()], NOW, Styling::PLAIN).join("\n");
        assert_eq!(
            shown,
            "NAME      KIND  REVISION            CHECKED   CHANGED  STATE\n\
             platform  git   main@sha1:4be21c09  12 s ago  2 h ago  ok\n\
             team-pay  git   –                   –         –        ALARM: not_found for 4 m\n  \
               └ https://git.example/pay has no `mian`; did you mean `main`?\n\
             next: invar sources team-pay · invar doctor"
        );
    }

    #[test]
    fn everything_about_one_source() {
        let settings: SourceSettings = toml::from_str(
            "name = 'platform'\ngit = { url = 'https://git.example/fleet' }\npath = ['base', 'hosts/web-17']\n\
             auth = { token = 'hunter2' }\nhistory = 'fast-forward'\n\
             verify = { mode = 'head', ssh = '/etc/invar/allowed_signers' }",
        )
        .expect("the settings are right");
        let detail_of = SourceDetail {
            description: "https://git.example/fleet main".to_owned(),
            required: true,
            interval_seconds: Some(60),
            next: Some(Timestamp::from_millis(1_000_000_000 + 48_000)),
            content: Some(ContentDetail {
                digest: "ab".repeat(32),
                files: 14,
                bytes: 40_960,
                paths: vec!["base".to_owned()],
                author: Some("Ana <ana@example.org>".to_owned()),
                subject: Some("raise batch size".to_owned()),
                signer: Some("ana".to_owned()),
                committed: Some(before(7_260)),
                fetched: before(7_200),
                notices: vec![NoticeDetail {
                    kind: NoticeKind::Redirected,
                    message: "https://git.example/fleet has moved".to_owned(),
                }],
            }),
            ..SourceDetail::of(platform())
        };
        let answer = SourceAnswer { detail: detail_of, settings: Some(SourceDeclaration::of(&settings)) };
        let shown = detail(&answer, NOW, Styling::PLAIN).join("\n");
        let revision = "4be21c09".repeat(5);
        assert_eq!(
            shown,
            format!(
                "platform git   ok
  reads     https://git.example/fleet main
  paths     base, hosts/web-17
  revision  main@sha1:{revision}
  written   \"raise batch size\" · Ana <ana@example.org> · 2 h 1 m ago
  signer    ana
  holds     14 files, 40 KiB · sha256:abababababab
  notice    https://git.example/fleet has moved
  checked   12 s ago
  changed   2 h ago
  next      in 48 s (every 1 m, give or take)
  checks    40 since the start: 2 changed, 1 failed (0 aborted); 100 ms each
  needed    yes
  auth      token
  verify    head by /etc/invar/allowed_signers
  history   fast-forward
  limits    10000 files, 8 MiB each, 64 MiB together, 256 MiB a fetch"
            )
        );
    }

    #[test]
    fn an_error_says_since_when_and_what_to_do() {
        let answer = SourceAnswer {
            detail: SourceDetail {
                help: Some("did you mean `main`?".to_owned()),
                missing_polls: 3,
                ..SourceDetail::of(failing())
            },
            settings: None,
        };
        let shown = detail(&answer, NOW, Styling::PLAIN).join("\n");
        assert!(
            shown.ends_with(
                "  error     not_found: https://git.example/pay has no `mian`
  since     4 m ago
  missing   3 checks in a row
  help      did you mean `main`?"
            ),
            "{shown}"
        );
    }
}
