//! `invar doctor`: looks for what is wrong, without and beside a running agent, and says of each thing what it is, why it
//! matters and what to do. Sources are looked at through their own code, at the same time and each within a limit; what is
//! printed comes in the order of the settings whatever answers first.

mod host;
mod report;
mod server;
mod settings;
mod state;
mod stores;

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use invar_secrets::SecretStores;
use invar_sources::{Examination, Examiner, Finding, SourceSettings};

use self::report::{Area, Entry, Report};
use super::output::{self, Styling, complain, line, span};
use super::{Format, Output, run};
use crate::exit::Exit;
use crate::settings::{Closed, Settings};

/// Where settings lie if nothing else is said.
const USUAL_PLACES: [&str; 2] = ["invar.toml", "/etc/invar/invar.toml"];
/// A clock this far off is worth a warning; this far, signatures and tokens are refused. In seconds.
const CLOCK_WARNING: u64 = 10;
const CLOCK_PROBLEM: u64 = 300;

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArguments {
    /// What `invar run` is started with; by default invar.toml here, else /etc/invar/invar.toml
    #[arg(value_name = "PATH|ADDRESS|SETTINGS")]
    what: Option<String>,
    /// Environment of the agent, as in `[agent] environment`
    #[arg(long, visible_alias = "env", value_name = "NAME")]
    environment: Option<String>,
    /// Name of the agent, as in `[agent] name`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Look at nothing that needs the network
    #[arg(long)]
    offline: bool,
    /// How long the look at each source may take
    #[arg(long, default_value = "30s", value_parser = output::parse_duration, value_name = "DURATION")]
    timeout: Duration,
    /// Exit with 3 if there are warnings
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn main(arguments: &DoctorArguments, styling: Styling) -> Exit {
    crate::tls::install_provider();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("invar: cannot start: {error}"));
            return Exit::Failed;
        }
    };
    let report = runtime.block_on(examine(arguments));
    // A file or a name that is still being waited for must not keep the answer back.
    runtime.shutdown_background();
    match arguments.output.format {
        Format::Json => output::json(&report),
        Format::Text => report.lines(styling).iter().for_each(line),
    }
    report.exit(arguments.deny_warnings)
}

async fn examine(arguments: &DoctorArguments) -> Report {
    let usual = || USUAL_PLACES.into_iter().find(|place| Path::new(place).is_file()).map(str::to_owned);
    let Some(what) = arguments.what.clone().or_else(usual) else {
        let finding =
            Finding::hint("settings", "there are no settings to look at: only the host is looked at")
                .because(format!("neither {} is there", USUAL_PLACES.join(" nor ")))
                .fix("invar doctor SETTINGS, or an address as `invar run` takes it");
        let mut entries = vec![entry(Area::Settings, finding)];
        entries.extend(about_the_host(None, None, true).await);
        return Report::new(entries);
    };
    let shown = invar_sources::redact(&what);
    // A pipeline that is not there yet is waited for, settings are not.
    if what.ends_with(".toml") && !run::is_address(&what) && !Path::new(&what).is_file() {
        let finding = Finding::problem("settings", format!("there is no {shown}"))
            .fix("correct the path; `invar schema --settings` prints what settings can say");
        let mut entries = vec![entry(Area::Settings, finding)];
        entries.extend(about_the_host(None, None, true).await);
        return Report { settings: Some(shown), ..Report::new(entries) };
    }
    let mut settings = match run::settings_of(&what, Closed::default()) {
        Ok(settings) => settings,
        Err(error) => {
            let mut entries = vec![entry(Area::Settings, settings::refused(&shown, &error))];
            entries.extend(about_the_host(None, None, true).await);
            return Report { settings: Some(shown), ..Report::new(entries) };
        }
    };
    if let Some(environment) = &arguments.environment {
        settings.agent.environment.clone_from(environment);
    }
    if arguments.name.is_some() {
        settings.agent.name.clone_from(&arguments.name);
    }
    let entries = about(&what, &shown, &settings, arguments).await;
    Report {
        settings: Some(shown),
        agent: Some(settings.agent_name()),
        environment: Some(settings.agent.environment).filter(|environment| !environment.is_empty()),
        ..Report::new(entries)
    }
}

fn entry(area: Area, finding: Finding) -> Entry {
    Entry { area, subject: None, finding }
}

async fn about(what: &str, shown: &str, settings: &Settings, arguments: &DoctorArguments) -> Vec<Entry> {
    let declared = crate::agent::declared_sources(settings, &crate::agent::identity(settings));
    let mut entries: Vec<Entry> = settings::findings_of(shown, settings, &declared)
        .into_iter()
        .map(|finding| entry(Area::Settings, finding))
        .collect();
    let sources = declared.unwrap_or_default();

    let directory = settings.state.dir.clone();
    let state = tokio::task::spawn_blocking(move || state::read(&directory)).await;
    let running = state.as_ref().ok().and_then(|state| state.holder);
    if let Ok(state) = state {
        let found = state::findings_of(&state, settings.limits.log);
        entries.extend(found.into_iter().map(|finding| entry(Area::State, finding)));
    }
    let api = server::findings_of(&server::read(&settings.server.listen).await, running);
    entries.extend(api.into_iter().map(|finding| entry(Area::Agent, finding)));
    let has_proxy = sources.iter().all(|source| source.proxy.is_some() || source.file.is_some());
    entries.extend(about_the_host(running, settings.limits.memory, has_proxy).await);

    let secrets = match crate::secrets::Secrets::of(settings) {
        Ok(secrets) => secrets.stores,
        Err(problems) => {
            entries.extend(problems.into_iter().map(|problem| {
                entry(
                    Area::Settings,
                    Finding::problem("secrets", problem).fix(format!("correct it in {shown}")),
                )
            }));
            // The sources may well need none of it.
            SecretStores::local()
        }
    };
    entries.extend(stores::entries_of(settings, &secrets, arguments).await);

    let examinations = about_sources(settings, &sources, secrets.clone(), arguments).await;
    // What was granted for this look alone is not to live on.
    secrets.shutdown().await;
    let clocks: Vec<(String, i64)> =
        examinations.iter().filter_map(|(_, examination)| examination.clock.clone()).collect();
    entries.extend(clock(&clocks).map(|finding| entry(Area::Host, finding)));
    let written_out = examinations.iter().any(|(_, examination)| {
        examination.findings.iter().any(|finding| finding.check == invar_sources::WRITTEN_OUT)
    });
    if written_out {
        let found = settings::readable_by_others(Path::new(what));
        entries.extend(found.map(|finding| entry(Area::Settings, finding)));
    }
    for (name, examination) in examinations {
        entries.extend(examination.findings.into_iter().map(|finding| Entry {
            area: Area::Source,
            subject: Some(name.clone()),
            finding,
        }));
    }
    entries
}

/// The host, and the process of the agent that runs on it.
async fn about_the_host(running: Option<u32>, memory: Option<u64>, has_proxy: bool) -> Vec<Entry> {
    let Ok(reading) = tokio::task::spawn_blocking(move || host::read(running)).await else {
        return Vec::new();
    };
    let found = host::findings_of(&reading, memory, has_proxy);
    found.into_iter().map(|finding| entry(Area::Host, finding)).collect()
}

/// All sources at the same time, in a place of their own that is gone afterwards.
async fn about_sources(
    settings: &Settings,
    sources: &[SourceSettings],
    secrets: SecretStores,
    arguments: &DoctorArguments,
) -> Vec<(String, Examination)> {
    let environment = crate::agent::source_environment(settings, secrets);
    let scratch = match tempfile::Builder::new().prefix("invar-doctor-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            let finding = Finding::problem("temporary", "there is no place for a trial")
                .because(format!("{}: {error}", std::env::temp_dir().display()))
                .fix("make room there, or set TMPDIR");
            let examination = Examination { findings: vec![finding], clock: None };
            return vec![("all".to_owned(), examination)];
        }
    };
    let trials = sources.iter().enumerate().map(|(index, source)| {
        let examiner = Examiner {
            secrets: environment.secrets.clone(),
            scratch: scratch.path().join(index.to_string()),
            environment: settings.agent.environment.clone(),
            offline: arguments.offline,
            limit: arguments.timeout,
        };
        async move { (source.source_name().to_string(), examiner.examine(source).await) }
    });
    let examinations = join_all(trials).await;
    if let Err(error) = scratch.close() {
        complain(format!("invar: what the trial fetched could not be removed: {error}"));
    }
    examinations
}

/// This host's clock against those of the servers, of which one alone may be wrong itself.
fn clock(offsets: &[(String, i64)]) -> Option<Finding> {
    let mut sorted: Vec<i64> = offsets.iter().map(|(_, offset)| *offset).collect();
    sorted.sort_unstable();
    let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let off = Duration::from_millis(median.unsigned_abs());
    let servers = offsets.iter().map(|(host, _)| host.as_str()).collect::<std::collections::BTreeSet<_>>();
    let servers = servers.into_iter().collect::<Vec<_>>().join(", ");
    let direction = if median > 0 { "behind" } else { "ahead of" };
    let what = format!("this clock is {} {direction} that of {servers}", span(off));
    let fix = "keep it with an NTP client: timedatectl set-ntp true; see chronyc tracking or timedatectl timesync-status";
    Some(match off.as_secs() {
        0..CLOCK_WARNING => Finding::ok("clock", format!("this clock agrees with that of {servers}")),
        CLOCK_WARNING..CLOCK_PROBLEM => Finding::warning("clock", what)
            .because("samples bear the wrong time, and signed requests are refused before long")
            .fix(fix),
        _ => Finding::problem("clock", what)
            .because("signed requests and tokens are refused, certificates seem expired, samples too old or too new")
            .fix(fix),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_sources::Severity;

    use super::*;

    #[test]
    fn the_clock_is_judged_by_the_middle_of_what_servers_say() {
        let of = |offsets: &[i64]| {
            let offsets: Vec<(String, i64)> =
                offsets.iter().enumerate().map(|(index, offset)| (format!("h{index}"), *offset)).collect();
            clock(&offsets).map(|finding| finding.severity)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[900]), Some(Severity::Ok));
        assert_eq!(of(&[-12_000]), Some(Severity::Warning));
        assert_eq!(of(&[400_000]), Some(Severity::Problem));
        assert_eq!(of(&[i64::MIN]), Some(Severity::Problem));
        assert_eq!(of(&[100, 4_000_000, -200]), Some(Severity::Ok), "one server is wrong, not this host");
        let said = clock(&[("git.example".to_owned(), 90_000)]).unwrap();
        assert_eq!(said.what, "this clock is 1 m 30 s behind that of git.example");
        assert!(said.fix.is_some());
    }
}
