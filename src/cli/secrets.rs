//! `invar secrets`: a line for each secret in use with how it does, who uses it and what a change costs; with a name,
//! everything about one; `test` reads one now, or asks a store; `rotate` has one read again. Values are never shown, and
//! never come this way.

use std::time::SystemTime;

use invar_rollout::Timestamp;
use invar_secrets::{
    SecretShape, SecretState, SecretStatus, SecretTrial, SecretUser, StoreKind, TrialOutcome,
};
use serde::Serialize;

use super::client::{Client, ClientError};
use super::output::{self, Styling, Table, Tone, line, span};
use super::status::now;
use super::{Format, Remote};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SecretsArguments {
    #[command(subcommand)]
    command: Option<SecretsCommand>,
    /// Show everything about this one: STORE/PATH, or PATH where that is clear
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Subcommand)]
enum SecretsCommand {
    /// Read a secret now, or ask a store who the agent is there; says the names of fields and never a value
    Test {
        /// STORE/PATH, a STORE, or the PATH of one in use
        #[arg(value_name = "NAME|STORE")]
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Have the agent read a secret again now, and take what is new into use
    Rotate {
        /// STORE/PATH, or PATH where that is clear
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// What `invar secrets -o json` prints; changes are additive.
#[derive(Serialize)]
struct SecretList {
    version: u32,
    secrets: Vec<SecretStatus>,
}

pub(crate) async fn main(arguments: SecretsArguments, styling: Styling) -> Result<Exit, ClientError> {
    match arguments.command {
        Some(SecretsCommand::Test { name, remote }) => {
            let trial: SecretTrial =
                Client::new(&remote)?.post(&format!("{}/test", path_of(&name)), &()).await?;
            match remote.output.format {
                Format::Json => output::json(&trial),
                Format::Text => tried(&trial, now(), styling).iter().for_each(line),
            }
            Ok(if worked(&trial) { Exit::Done } else { Exit::Failed })
        }
        Some(SecretsCommand::Rotate { name, remote }) => {
            let status: SecretStatus =
                Client::new(&remote)?.post(&format!("{}/rotate", path_of(&name)), &()).await?;
            match remote.output.format {
                Format::Json => output::json(&status),
                Format::Text => detail(&status, now(), styling).iter().for_each(line),
            }
            Ok(Exit::Done)
        }
        None => show(&arguments, styling).await,
    }
}

async fn show(arguments: &SecretsArguments, styling: Styling) -> Result<Exit, ClientError> {
    let client = Client::new(&arguments.remote)?;
    let format = arguments.remote.output.format;
    let Some(name) = &arguments.name else {
        let secrets: Vec<SecretStatus> = client.get("/api/v1/secrets").await?;
        match format {
            Format::Json => output::json(&SecretList { version: 1, secrets }),
            Format::Text => list(&secrets, now(), styling).iter().for_each(line),
        }
        return Ok(Exit::Done);
    };
    let status: SecretStatus = client.get(&path_of(name)).await?;
    match format {
        Format::Json => output::json(&status),
        Format::Text => detail(&status, now(), styling).iter().for_each(line),
    }
    Ok(Exit::Done)
}

/// Where the API has it, with everything in the name escaped.
fn path_of(name: &str) -> String {
    let escaped: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    // That is the form of queries, where a space is a plus.
    format!("/api/v1/secrets/{}", escaped.replace('+', "%20"))
}

fn list(secrets: &[SecretStatus], now: Timestamp, styling: Styling) -> Vec<String> {
    if secrets.is_empty() {
        return vec!["no secret is in use".to_owned()];
    }
    let mut table =
        Table::new(&["NAME", "STORE", "STATE", "VERSION", "AGE", "EXPIRES", "USED BY", "ON CHANGE"]);
    for secret in secrets {
        let (tone, word) = state(secret, now);
        let (used_by, on_change) = users(&secret.users);
        table.row([
            (Tone::Plain, secret.path.clone()),
            (Tone::Plain, secret.store.clone()),
            (tone, word),
            (Tone::Plain, version(secret)),
            (Tone::Plain, ago(secret.changed, now)),
            (Tone::Plain, until(secret.expires, now)),
            (Tone::Plain, used_by),
            (Tone::Plain, on_change),
        ]);
    }
    let mut lines = table.lines(styling).into_iter();
    let mut told: Vec<String> = lines.next().into_iter().collect();
    for (secret, text) in secrets.iter().zip(lines) {
        told.push(text);
        if let Some(reason) = &secret.reason {
            let fix = secret.fix.as_ref().map(|fix| format!(": {fix}")).unwrap_or_default();
            let text = format!("{reason}{fix}");
            told.extend(below(&text));
        }
        told.extend(secret.note.iter().flat_map(|note| below(note)));
    }
    if let Some(failing) = secrets.iter().find(|secret| secret.reason.is_some()) {
        told.push(format!("next: invar secrets {0} · invar secrets test {0}", failing.reference));
    }
    told
}

/// A text below the line that it is about.
fn below(text: &str) -> Vec<String> {
    let begin = |number| if number == 0 { "  └ " } else { "    " };
    text.lines().enumerate().map(|(number, part)| format!("{}{part}", begin(number))).collect()
}

fn detail(secret: &SecretStatus, now: Timestamp, styling: Styling) -> Vec<String> {
    let (tone, word) = state(secret, now);
    let mut lines = vec![format!(
        "{} {}   {}",
        styling.paint(Tone::Strong, &secret.reference),
        secret.kind.as_str(),
        styling.paint(tone, &word)
    )];
    let mut say = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("  {name:<10}{text}"));
        }
    };
    say("why", secret.reason.as_deref().unwrap_or_default());
    say("fix", secret.fix.as_deref().unwrap_or_default());
    say("note", secret.note.as_deref().unwrap_or_default());
    say("version", &version(secret));
    if secret.changed.is_some() {
        say("changed", &format!("{} ago", ago(secret.changed, now)));
    }
    if secret.read.is_some() {
        say("read", &format!("{} ago", ago(secret.read, now)));
    }
    if secret.expires.is_some() {
        say("expires", &until(secret.expires, now));
    }
    if let Some(next) = secret.next_read {
        let does = if secret.lease { "renewed" } else { "read again" };
        say("next", &format!("{does} in {}", span(timestamp(next).since(now))));
    }
    say("changes", &format!("{} since the start, {} failures", secret.rotations, secret.failures));
    for SecretUser { component, class } in &secret.users {
        say("used by", &format!("{component} ({class})"));
    }
    lines
}

fn tried(trial: &SecretTrial, now: Timestamp, styling: Styling) -> Vec<String> {
    let mut lines = vec![match &trial.access {
        TrialOutcome::Ok(said) => format!(
            "{} {} {}",
            styling.paint(Tone::Good, "ok"),
            styling.paint(Tone::Strong, &format!("store {} ({}):", trial.store, trial.kind.as_str())),
            said
        ),
        TrialOutcome::Failed { state, reason } => format!(
            "{} {} {reason}",
            styling.paint(Tone::Bad, state.as_str()),
            styling.paint(Tone::Strong, &format!("store {} ({}):", trial.store, trial.kind.as_str())),
        ),
    }];
    match &trial.read {
        None => {}
        Some(TrialOutcome::Failed { state, reason }) => {
            lines.push(format!("{} reading it: {reason}", styling.paint(Tone::Bad, state.as_str())));
        }
        Some(TrialOutcome::Ok(SecretShape { reference, fields, store_version, expires, lease })) => {
            lines.push(format!(
                "{} {} has {} field{}: {}",
                styling.paint(Tone::Good, "ok"),
                styling.paint(Tone::Strong, reference),
                fields.len(),
                if fields.len() == 1 { "" } else { "s" },
                fields.join(", ")
            ));
            if let Some(version) = store_version {
                lines.push(format!("  version   {}", of_store(trial.kind, version)));
            }
            if expires.is_some() {
                lines.push(format!("  expires   in {}", until(*expires, now)));
            }
            if *lease {
                lines.push("  lease     yes; that of this trial was given back".to_owned());
            }
        }
    }
    lines
}

fn worked(trial: &SecretTrial) -> bool {
    matches!(trial.access, TrialOutcome::Ok(_)) && !matches!(trial.read, Some(TrialOutcome::Failed { .. }))
}

/// How it does, with since when where that matters.
fn state(secret: &SecretStatus, now: Timestamp) -> (Tone, String) {
    let tone = match secret.state {
        SecretState::Ready => Tone::Good,
        SecretState::Stale | SecretState::Rotating => Tone::Attention,
        SecretState::Rejected
        | SecretState::Missing
        | SecretState::Denied
        | SecretState::Unavailable
        | SecretState::Expired => Tone::Bad,
    };
    let word = secret.state.as_str();
    match (secret.state, secret.since) {
        (SecretState::Ready | SecretState::Rotating, _) | (_, None) => (tone, word.to_owned()),
        (_, Some(since)) => (tone, format!("{word} {}", span(now.since(timestamp(since))))),
    }
}

/// The store's name for the version where it has one, else how often it changed.
fn version(secret: &SecretStatus) -> String {
    match (&secret.store_version, secret.version) {
        (Some(version), _) => of_store(secret.kind, version),
        (None, _) if secret.lease => "lease".to_owned(),
        (None, Some(version)) => format!("v{version}"),
        (None, None) => "–".to_owned(),
    }
}

/// A version as people of that kind of store write it.
fn of_store(kind: StoreKind, version: &str) -> String {
    match kind {
        StoreKind::Vault => format!("v{version}"),
        StoreKind::Kubernetes => format!("rv {version}"),
        _ => version.to_owned(),
    }
}

/// All who use it, and the dearest of what a change costs them.
fn users(users: &[SecretUser]) -> (String, String) {
    let Some(class) = users.iter().map(|user| user.class).max() else {
        return ("–".to_owned(), "–".to_owned());
    };
    let used_by = match users {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{}, {}, {} and {} more", first.component, second.component, third.component, rest.len())
        }
        users => users.iter().map(|user| user.component.as_str()).collect::<Vec<_>>().join(", "),
    };
    (used_by, class.to_string())
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn ago(time: Option<SystemTime>, now: Timestamp) -> String {
    time.map_or_else(|| "–".to_owned(), |time| span(now.since(timestamp(time))))
}

fn until(time: Option<SystemTime>, now: Timestamp) -> String {
    match time.map(timestamp) {
        None => "–".to_owned(),
        Some(end) if end.as_millis() <= now.as_millis() => "over".to_owned(),
        Some(end) => span(end.since(now)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use invar_secrets::ChangeClass;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000_000);

    fn moment(seconds: i64) -> Option<SystemTime> {
        let millis = NOW.as_millis() + seconds * 1000;
        Some(SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default()))
    }

    fn secret(reference: &str, kind: StoreKind) -> SecretStatus {
        let (store, path) = reference.split_once('/').expect("a reference");
        SecretStatus {
            reference: reference.to_owned(),
            store: store.to_owned(),
            path: path.to_owned(),
            kind,
            state: SecretState::Ready,
            since: None,
            reason: None,
            fix: None,
            note: None,
            version: Some(7),
            store_version: None,
            changed: moment(-3 * 86_400),
            read: moment(-20),
            expires: None,
            next_read: moment(280),
            lease: false,
            rotations: 6,
            failures: 0,
            renewals: 0,
            failed_renewals: 0,
            users: vec![SecretUser { component: "sinks.es".to_owned(), class: ChangeClass::PerUse }],
        }
    }

    fn several() -> Vec<SecretStatus> {
        let user = |component: &str, class| SecretUser { component: component.to_owned(), class };
        let lease = SecretStatus {
            lease: true,
            changed: moment(-21 * 60),
            expires: moment(39 * 60),
            users: vec![user("sources.pg", ChangeClass::Reconnect)],
            ..secret("vault/db/creds/ro", StoreKind::Vault)
        };
        let stale = SecretStatus {
            state: SecretState::Stale,
            since: moment(-240),
            reason: Some("watch broken off".to_owned()),
            note: Some("changes are not told of for now".to_owned()),
            fix: Some("ask the cluster".to_owned()),
            store_version: Some("8812".to_owned()),
            changed: moment(-60 * 86_400),
            expires: moment(12 * 86_400),
            users: vec![
                user("sources.otlp", ChangeClass::TlsReload),
                user("sinks.otlp", ChangeClass::PerUse),
            ],
            ..secret("k8s/obs/otlp-tls", StoreKind::Kubernetes)
        };
        let never = SecretStatus {
            state: SecretState::Denied,
            since: moment(-30),
            reason: Some("403 with a valid token: policy \"agent\" lacks read on kv/data/sasl".to_owned()),
            version: None,
            changed: None,
            read: None,
            users: Vec::new(),
            ..secret("vault/sasl", StoreKind::Vault)
        };
        vec![secret("vault/kv/pay/es", StoreKind::Vault), lease, stale, never]
    }

    #[test]
    fn a_line_for_each_secret_and_its_reason_below() {
        assert_eq!(
            list(&several(), NOW, Styling::PLAIN).join("\n"),
            "NAME          STORE  STATE        VERSION  AGE   EXPIRES  USED BY                   ON CHANGE
kv/pay/es     vault  ready        v7       3 d   –        sinks.es                  per use
db/creds/ro   vault  ready        lease    21 m  39 m     sources.pg                reconnect
obs/otlp-tls  k8s    stale 4 m    rv 8812  60 d  12 d     sources.otlp, sinks.otlp  tls reload
  └ watch broken off: ask the cluster
  └ changes are not told of for now
sasl          vault  denied 30 s  –        –     –        –                         –
  └ 403 with a valid token: policy \"agent\" lacks read on kv/data/sasl
next: invar secrets k8s/obs/otlp-tls · invar secrets test k8s/obs/otlp-tls"
        );
        assert_eq!(list(&[], NOW, Styling::PLAIN), ["no secret is in use"]);
    }

    #[test]
    fn everything_about_one() {
        let secrets = several();
        assert_eq!(
            detail(&secrets[2], NOW, Styling::PLAIN).join("\n"),
            "k8s/obs/otlp-tls kubernetes   stale 4 m
  why       watch broken off
  fix       ask the cluster
  note      changes are not told of for now
  version   rv 8812
  changed   60 d ago
  read      20 s ago
  expires   12 d
  next      read again in 4 m 40 s
  changes   6 since the start, 0 failures
  used by   sources.otlp (tls reload)
  used by   sinks.otlp (per use)"
        );
    }

    #[test]
    fn many_users_are_counted_and_the_dearest_change_is_named() {
        let of = |class| SecretUser { component: "a.b".to_owned(), class };
        let all = [
            ChangeClass::PerUse,
            ChangeClass::Rebuild,
            ChangeClass::TlsReload,
            ChangeClass::PerUse,
            ChangeClass::PerUse,
        ];
        let all: Vec<SecretUser> = all.map(of).into();
        assert_eq!(users(&all), ("a.b, a.b, a.b and 2 more".to_owned(), "rebuild".to_owned()));
    }

    #[test]
    fn a_trial_tells_who_one_is_and_what_fields_there_are() {
        let shape = SecretShape {
            reference: "vault/db/creds/ro".to_owned(),
            fields: vec!["password".to_owned(), "username".to_owned()],
            store_version: None,
            expires: moment(3600),
            lease: true,
        };
        let mut trial = SecretTrial {
            store: "vault".to_owned(),
            kind: StoreKind::Vault,
            access: TrialOutcome::Ok("as approle invar, policies agent".to_owned()),
            read: Some(TrialOutcome::Ok(shape)),
        };
        assert_eq!(
            tried(&trial, NOW, Styling::PLAIN).join("\n"),
            "ok store vault (vault): as approle invar, policies agent
ok vault/db/creds/ro has 2 fields: password, username
  expires   in 1 h
  lease     yes; that of this trial was given back"
        );
        assert!(worked(&trial));
        let reason = "policy lacks read".to_owned();
        trial.read = Some(TrialOutcome::Failed { state: SecretState::Denied, reason });
        assert_eq!(tried(&trial, NOW, Styling::PLAIN)[1], "denied reading it: policy lacks read");
        assert!(!worked(&trial));
    }

    #[test]
    fn names_are_escaped_in_the_path() {
        assert_eq!(path_of("vault/kv/a b#c"), "/api/v1/secrets/vault%2Fkv%2Fa%20b%23c");
    }
}
