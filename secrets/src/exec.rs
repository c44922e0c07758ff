//! The store `exec`: what a command prints. Commands have names in the settings, and a reference names a command and
//! nothing else of it: no configuration can say what is run. A command runs without a shell, with no environment but the
//! variables that are named, for a limited time, and with a limited output. What it says on standard error is not even
//! read, because programs put into it whatever they have in hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use invar_syntax::Secret;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::duration::{DurationText, positive};
use crate::error::SecretError;
use crate::fields::{FieldFormat, decode_fields};
use crate::file::without_line_break;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// The longest output, in bytes.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// As many commands of a store run at once.
const AT_ONCE: usize = 4;

/// `[secrets.NAME]` of the kind `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecSettings {
    /// The commands, by the name that stands after the first slash of a reference.
    pub commands: BTreeMap<String, ExecCommand>,
    /// How long one may run.
    #[serde(default = "default_timeout", deserialize_with = "positive")]
    #[schemars(with = "DurationText", extend("default" = "10s"))]
    pub timeout: Duration,
    /// How often each is run again.
    #[serde(default = "default_refresh", deserialize_with = "positive")]
    #[schemars(with = "DurationText", extend("default" = "5m"))]
    pub refresh: Duration,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCommand {
    /// The program, as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// The variables of the agent's environment that it gets; no others.
    #[serde(default)]
    pub environment: Vec<String>,
    /// What it prints.
    #[serde(default)]
    pub output: ExecOutput,
}

/// What a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecOutput {
    /// The value, perhaps with a line break after it.
    #[default]
    Text,
    /// A JSON object of strings: the fields.
    Json,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_refresh() -> Duration {
    Duration::from_secs(300)
}

impl ExecSettings {
    /// What is wrong with them, in one sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.commands.is_empty() {
            return Some("it has no `commands`".to_owned());
        }
        for (name, command) in &self.commands {
            if name.is_empty() || name.contains(['#', '\0']) || name.chars().any(char::is_control) {
                return Some(format!("`{}` cannot be the name of a command", name.escape_debug()));
            }
            match command.command.first() {
                Some(program) if Path::new(program).is_absolute() => {}
                Some(program) => {
                    return Some(format!(
                        "the program of `{name}`, `{program}`, has to be an absolute path: there is no PATH to look in"
                    ));
                }
                None => {
                    return Some(format!(
                        "`command` of `{name}` is empty: it is a program and its arguments"
                    ));
                }
            }
        }
        None
    }
}

/// Runs commands of the settings.
pub struct ExecStore {
    settings: ExecSettings,
    running: Semaphore,
}

impl ExecStore {
    /// With these commands.
    #[must_use]
    pub fn new(settings: ExecSettings) -> Self {
        Self { settings, running: Semaphore::new(AT_ONCE) }
    }

    async fn run(&self, name: &str) -> Result<SecretSnapshot, SecretError> {
        let reference = || name.to_owned();
        let Some(command) = self.settings.commands.get(name) else {
            let known: Vec<&str> = self.settings.commands.keys().map(String::as_str).collect();
            return Err(SecretError::Missing {
                reference: reference(),
                reason: format!("the settings have no such command; there are: {}", known.join(", ")),
            });
        };
        let Ok(_permit) = self.running.acquire().await else {
            return Err(SecretError::unavailable(name, "the store has ended"));
        };
        let program = Path::new(command.command.first().map_or("", String::as_str));
        let looked_at = program.to_owned();
        if let Ok(Some(problem)) = tokio::task::spawn_blocking(move || writable_by_others(&looked_at)).await {
            let reason = format!("{}: {problem}", program.display());
            return Err(SecretError::Denied { reference: reference(), reason });
        }
        let mut running = Running::start(program, command).map_err(|error| {
            let reason = format!("{}: {error}", program.display());
            match error.kind() {
                std::io::ErrorKind::NotFound => SecretError::Missing { reference: reference(), reason },
                std::io::ErrorKind::PermissionDenied => {
                    SecretError::Denied { reference: reference(), reason }
                }
                _ => SecretError::unavailable(name, reason),
            }
        })?;
        let ended = tokio::time::timeout(self.settings.timeout, running.output()).await;
        let (status, output) = match ended {
            Err(_) => {
                let reason = format!("{} did not end within {:?}", program.display(), self.settings.timeout);
                return Err(SecretError::unavailable(name, reason));
            }
            Ok(Err(error)) => {
                return Err(SecretError::unavailable(name, format!("{}: {error}", program.display())));
            }
            Ok(Ok(ended)) => ended,
        };
        let invalid = |reason: String| SecretError::Invalid { reference: reference(), reason };
        let Some(output) = output else {
            return Err(invalid(format!("the output is longer than {} KiB", OUTPUT_LIMIT / 1024)));
        };
        if !status.success() {
            return Err(SecretError::unavailable(
                name,
                format!(
                    "{} ended with {status}; what it says is not kept, since it may hold the secret: run it by hand as the \
                     agent's user",
                    program.display()
                ),
            ));
        }
        let text =
            std::str::from_utf8(&output).map_err(|_| invalid("the output is not UTF-8 text".to_owned()))?;
        match command.output {
            ExecOutput::Json => decode_fields(FieldFormat::Json, text)
                .map(SecretSnapshot::new)
                .map_err(|reason| invalid(format!("of the output: {reason}"))),
            ExecOutput::Text => {
                let value = Secret::new(without_line_break(text.to_owned()));
                match value.is_empty() {
                    true => Err(invalid("the output is empty".to_owned())),
                    false => Ok(SecretSnapshot::single(value)),
                }
            }
        }
    }
}

impl SecretStore for ExecStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Exec
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(self.run(path))
    }

    /// Looks at the programs and runs none.
    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async move {
            for (name, command) in &self.settings.commands {
                let program = PathBuf::from(command.command.first().map_or("", String::as_str));
                let shown = program.display().to_string();
                let problem = tokio::task::spawn_blocking(move || program_problem(&program)).await;
                if let Ok(Some(problem)) = problem {
                    let reason = format!("the program of `{name}`, {shown}: {problem}");
                    return Err(SecretError::Denied { reference: name.clone(), reason });
                }
            }
            let commands = self.settings.commands.len();
            Ok(format!("{commands} command{}", if commands == 1 { "" } else { "s" }))
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.settings.refresh)
    }
}

/// Why a program cannot, or should not, be run.
fn program_problem(program: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = match std::fs::metadata(program) {
        Ok(metadata) => metadata,
        Err(error) => return Some(error.to_string()),
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Some("it is no program".to_owned());
    }
    writable_by_others(program)
}

/// Whether somebody else could put another program there.
fn writable_by_others(program: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    // What is wrong otherwise, running it says.
    let mode = std::fs::metadata(program).ok()?.permissions().mode();
    (mode & 0o022 != 0)
        .then(|| format!("others than its owner may write it (mode {:04o}); chmod go-w", mode & 0o7777))
}

/// A command and all that it starts. Those that are left end when it is dropped.
struct Running {
    child: Child,
    group: Option<rustix::process::Pid>,
}

impl Running {
    fn start(program: &Path, command: &ExecCommand) -> std::io::Result<Self> {
        let passed = command.environment.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let child = Command::new(program)
            .args(command.command.iter().skip(1))
            .env_clear()
            .envs(passed)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that what it starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// How it ended, and what it printed; none if that was too much.
    async fn output(&mut self) -> std::io::Result<(ExitStatus, Option<Zeroizing<Vec<u8>>>)> {
        // As large as it can become: growing would leave copies behind.
        let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_LIMIT + 1));
        if let Some(stdout) = self.child.stdout.take() {
            let limit = u64::try_from(OUTPUT_LIMIT + 1).unwrap_or(u64::MAX);
            stdout.take(limit).read_to_end(&mut output).await?;
        }
        if output.len() > OUTPUT_LIMIT {
            self.kill();
            return Ok((self.child.wait().await?, None));
        }
        Ok((self.child.wait().await?, Some(output)))
    }

    fn kill(&self) {
        if let Some(group) = self.group {
            // There may be nobody left in it.
            let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store(script: &str, output: &str) -> ExecStore {
        let settings: ExecSettings = toml::from_str(&format!(
            "timeout = '5s'\n[commands.one]\ncommand = ['/bin/sh', '-c', '''{script}''', 'name', 'argument $HOME']\n\
             environment = ['PATH']\noutput = '{output}'"
        ))
        .unwrap();
        assert_eq!(settings.problem(), None);
        ExecStore::new(settings)
    }

    async fn printed(script: &str) -> Result<String, SecretError> {
        let snapshot = store(script, "text").read("one").await?;
        Ok(snapshot.fields["value"].expose().to_owned())
    }

    #[tokio::test]
    async fn what_a_command_prints_is_the_value() {
        assert_eq!(printed("echo abc").await.unwrap(), "abc");
        assert_eq!(printed("printf 'a\\n\\n'").await.unwrap(), "a\n");
        assert_eq!(printed("echo \"$1\"").await.unwrap(), "argument $HOME", "no shell looks at arguments");
    }

    #[tokio::test]
    async fn fields_come_as_json() {
        let snapshot =
            store(r#"echo '{"user": "ana", "password": "abc"}'"#, "json").read("one").await.unwrap();
        assert_eq!(snapshot.fields["password"].expose(), "abc");
        let error = store("echo '{\"user\": [\"hunter2\"]}'", "json").read("one").await.unwrap_err();
        assert!(matches!(error, SecretError::Invalid { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn only_named_variables_are_passed_on() {
        // Cargo sets others than PATH in every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let passed = printed("env").await.unwrap();
        let names: Vec<&str> = passed.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"PATH"), "{names:?}");
        assert!(!names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
    }

    #[tokio::test]
    async fn failures_repeat_nothing_of_what_was_printed() {
        let error = printed("echo hunter2; echo hunter2 >&2; exit 3").await.unwrap_err();
        assert!(error.is_transient());
        let text = format!("{error} {error:?}");
        assert!(text.contains("exit status: 3") && !text.contains("hunter2"), "{text}");
        let error = printed("printf 'hunter2\\377'").await.unwrap_err();
        assert!(matches!(error, SecretError::Invalid { .. }));
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(matches!(printed("true").await, Err(SecretError::Invalid { .. })));
    }

    #[tokio::test]
    async fn an_output_without_an_end_is_cut_off() {
        let error = printed("while :; do echo hunter2hunter2hunter2hunter2; done").await.unwrap_err();
        assert!(error.to_string().contains("longer than 64 KiB"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_ends_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let mut store = store(&format!("sleep 1000 & echo $! > {}; wait", file.display()), "text");
        store.settings.timeout = Duration::from_secs(2);
        let error = store.read("one").await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("within 2s"), "{error}");
        let child = std::fs::read_to_string(&file).unwrap();
        let status = PathBuf::from("/proc").join(child.trim()).join("stat");
        // Killed is at once; gone is when its new parent has looked.
        let dead = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z"));
        while !dead() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn only_commands_of_the_settings_run() {
        let store = store("echo abc", "text");
        for path in ["two", "/bin/sh", "one/two", "../one"] {
            let error = store.read(path).await.unwrap_err();
            assert!(matches!(error, SecretError::Missing { .. }), "{path}");
            assert!(error.to_string().contains("there are: one"), "{error}");
        }
    }

    #[tokio::test]
    async fn programs_are_looked_at_without_being_run() {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(store("exit 1", "text").check().await.unwrap(), "1 command");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let with = |path: &Path| {
            let settings = format!("[commands.one]\ncommand = ['{}']", path.display());
            ExecStore::new(toml::from_str(&settings).unwrap())
        };
        assert!(with(&path).check().await.unwrap_err().to_string().contains("No such file"));
        assert!(matches!(with(&path).read("one").await, Err(SecretError::Missing { .. })));
        for (mode, said) in [(0o600, "no program"), (0o777, "may write it")] {
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = with(&path).check().await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(matches!(with(&path).read("one").await, Err(SecretError::Denied { .. })));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let problem = |text: &str| toml::from_str::<ExecSettings>(text).unwrap().problem().unwrap();
        assert!(problem("commands = {}").contains("no `commands`"));
        assert!(problem("[commands.a]\ncommand = []").contains("is empty"));
        assert!(problem("[commands.a]\ncommand = ['aws']").contains("absolute path"));
        assert!(problem("[commands.'a#b']\ncommand = ['/bin/true']").contains("name of a command"));
        assert!(toml::from_str::<ExecSettings>("[commands.a]\ncommand = '/bin/true'").is_err());
    }
}
