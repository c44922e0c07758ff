//! `invar run`: starts the agent. It takes a pipeline (a file or a directory, as Alloy does), an address
//! (`git+https://…`) or a settings file (`invar.toml`). Alloy's own flags work and override the settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_sources::SourceSettings;

use super::output::{self, Styling, complain};
use crate::exit::Exit;
use crate::settings::{Closed, Settings};

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "Alloy's flags are what they are")]
pub(crate) struct RunArguments {
    /// A pipeline (file or directory), an address (git+https://host/repo.git//path?branch=main), or invar.toml
    #[arg(value_name = "PATH|ADDRESS|SETTINGS")]
    what: String,

    /// Environment of this agent, as in `[agent] environment`
    #[arg(long, visible_alias = "env", value_name = "NAME")]
    environment: Option<String>,
    /// Name of this agent, as in `[agent] name`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How often an address is asked for changes
    #[arg(long, value_parser = output::parse_duration, value_name = "DURATION")]
    interval: Option<Duration>,
    /// How long a new configuration is watched before it becomes the last known good
    #[arg(long, value_parser = output::parse_duration, value_name = "DURATION")]
    probation: Option<Duration>,

    /// Let what an address brings use files of this host
    #[arg(long)]
    allow_host_files: bool,
    /// Let what an address brings read this environment variable; * stands for any text, and the flag may be repeated
    #[arg(long, value_name = "NAME")]
    allow_environment_variable: Vec<String>,

    /// Address the HTTP API listens on
    #[arg(long = "server.http.listen-addr", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address under which components reach each other in process
    #[arg(long = "server.http.memory-addr", value_name = "ADDRESS")]
    memory_address: Option<String>,
    /// Folder for state: the last known good, logs, clones
    #[arg(long = "storage.path", value_name = "FOLDER")]
    storage: Option<PathBuf>,
    /// Least stability that a component may have
    #[arg(long = "stability.level", value_name = "LEVEL", value_parser = ["experimental", "public-preview", "generally-available"])]
    stability: Option<String>,
    /// Allow community components
    #[arg(long = "feature.community-components.enabled", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    community: Option<bool>,
    /// How long components may take to shut down
    #[arg(long = "feature.component-shutdown-deadline", value_parser = output::parse_duration, value_name = "DURATION")]
    shutdown_deadline: Option<Duration>,
    #[command(flatten)]
    accepted: AcceptedFlags,
}

/// Alloy's flags that name what Invar does not have or need: accepted, so that a unit file works unchanged.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Accepted for Alloy's sake, without effect")]
struct AcceptedFlags {
    #[arg(long = "disable-reporting", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    disable_reporting: Option<bool>,
    #[arg(long = "server.http.ui-path-prefix", hide = true)]
    ui_path_prefix: Option<String>,
    #[arg(long = "server.http.enable-pprof", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    pprof: Option<bool>,
    #[arg(long = "server.http.disable-support-bundle", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    support_bundle: Option<bool>,
    #[arg(long = "feature.prometheus.direct-fanout.enabled", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    direct_fanout: Option<bool>,
    #[arg(long = "feature.prometheus.metric-validation-scheme", hide = true)]
    validation_scheme: Option<String>,
    #[arg(long = "cluster.use-discovery-v1", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    discovery_v1: Option<bool>,
    #[arg(long = "config.format", value_parser = ["alloy"], hide = true)]
    format: Option<String>,
    #[arg(long = "cluster.enabled", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    cluster: Option<bool>,
}

pub(crate) fn main(arguments: RunArguments, styling: Styling) -> Exit {
    let shutdown_deadline = arguments.shutdown_deadline;
    if arguments.accepted.cluster == Some(true) {
        complain("invar: clustering is not supported by this version; run without --cluster.enabled");
        return Exit::Usage;
    }
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(error) => {
            report(&error, styling);
            return Exit::Usage;
        }
    };
    crate::agent::main(settings, shutdown_deadline)
}

/// Prints an error in settings with its place in the file.
fn report(error: &miette::Report, styling: Styling) {
    let theme = if styling.errors() {
        miette::GraphicalTheme::unicode()
    } else {
        miette::GraphicalTheme::unicode_nocolor()
    };
    let handler = miette::GraphicalReportHandler::new_themed(theme);
    let mut text = String::new();
    match handler.render_report(&mut text, error.as_ref()) {
        Ok(()) => complain(text.trim_end()),
        Err(_) => complain(format!("invar: {error}")),
    }
}

/// The settings that an argument stands for: an address, a settings file, or a pipeline. `closed` is how far what an
/// address brings may reach.
pub(crate) fn settings_of(what: &str, closed: Closed) -> miette::Result<Settings> {
    let path = Path::new(what);
    if is_address(what) {
        let source = invar_sources::parse_address(what).map_err(|error| miette::miette!("{error}"))?;
        Ok(Settings { closed: Some(closed), ..on_the_command_line(source) })
    } else if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
        Settings::read(path)
    } else {
        // A path that is not there yet is waited for: configuration never ends the process.
        let absolute =
            std::path::absolute(path).map_err(|error| miette::miette!("{}: {error}", path.display()))?;
        Ok(on_the_command_line(SourceSettings::for_file(absolute)))
    }
}

/// The settings that an argument stands for, with the flags on top.
fn settings(arguments: RunArguments) -> miette::Result<Settings> {
    let closed = Closed {
        host_files: arguments.allow_host_files,
        environment_variables: arguments.allow_environment_variable.clone(),
    };
    let mut settings = settings_of(&arguments.what, closed)?;
    if let Some(environment) = arguments.environment {
        settings.agent.environment = environment;
    }
    if arguments.name.is_some() {
        settings.agent.name = arguments.name;
    }
    if let Some(interval) = arguments.interval {
        for source in &mut settings.source {
            source.interval = Some(interval);
        }
    }
    if let Some(window) = arguments.probation {
        settings.rollout.probation.window = window;
    }
    if let Some(listen) = arguments.listen {
        settings.server.listen = listen;
    }
    if let Some(address) = arguments.memory_address {
        settings.server.memory_address = address;
    }
    if let Some(storage) = arguments.storage {
        settings.state.dir = storage;
    }
    if let Some(stability) = arguments.stability {
        settings.features.stability = stability;
    }
    if let Some(community) = arguments.community {
        settings.features.community_components = community;
    }
    Ok(settings)
}

/// Whether the text is an address and not a path.
pub(crate) fn is_address(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
    })
}

/// Settings with one source and, as `alloy run` has it, state beside the working directory.
fn on_the_command_line(source: SourceSettings) -> Settings {
    let mut settings = Settings { source: vec![source], ..Settings::default() };
    settings.state.dir = PathBuf::from("data-invar");
    settings
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    fn of(line: &[&str]) -> Settings {
        let line = Line::try_parse_from(std::iter::once(&"run").chain(line)).expect("the flags are known");
        settings(line.run).expect("the settings fit")
    }

    #[test]
    fn alloys_flags_set_the_keys_they_mean() {
        let settings = of(&[
            "config.alloy",
            "--server.http.listen-addr=127.0.0.1:1",
            "--storage.path=/tmp/x",
            "--stability.level=experimental",
            "--disable-reporting",
            "--server.http.enable-pprof=false",
        ]);
        assert_eq!(settings.server.listen, "127.0.0.1:1");
        assert_eq!(settings.state.dir, Path::new("/tmp/x"));
        assert_eq!(settings.features.stability, "experimental");
        assert!(settings.source[0].file.is_some());
    }

    #[test]
    fn an_address_is_a_source() {
        let settings =
            of(&["git+https://host/obs/fleet.git//environments/dev?ref=main", "--environment", "dev"]);
        assert!(settings.source[0].git.is_some());
        assert_eq!(settings.agent.environment, "dev");
        let policy = settings.policy().expect("there is nothing to be wrong with");
        let file = Path::new("/etc/hostname");
        assert!(policy.general().file(file).is_err(), "an address may not read files of the host");
        assert!(policy.general().environment_variable("HOME").is_err());
        assert!(policy.general().exec().is_err());
        let allowed =
            of(&["git+https://host/obs/fleet.git", "--allow-host-files", "--allow-environment-variable=HO*"]);
        let policy = allowed.policy().expect("the patterns can be read");
        assert_eq!(policy.general().file(file), Ok(()));
        assert_eq!(policy.general().environment_variable("HOME"), Ok(()));
        assert!(policy.general().environment_variable("PATH").is_err());
        let local = of(&["config.alloy"]).policy().expect("there is none");
        assert_eq!(local.general().file(file), Ok(()));
        assert!(!is_address("C:/x") && !is_address("conf.d/a.alloy"));
    }
}
