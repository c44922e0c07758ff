//! `[secrets.NAME]` of the settings: which stores there are beside those that every host has, and the making of them all.
//! A store may need credentials of another one; those are made first, and a store that needs itself, by whatever detour,
//! is an error before anything runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::age::{AgeSettings, AgeStore};
use crate::credential::Credential;
use crate::environment::EnvironmentStore;
use crate::exec::{ExecSettings, ExecStore};
use crate::file::FileStore;
use crate::kubernetes::KubernetesSettings;
use crate::missing::WhenMissing;
use crate::snapshot_files::SnapshotFiles;
use crate::store::SecretStore;
use crate::stores::SecretStores;
use crate::systemd::SystemdStore;
use crate::vault::{VaultSettings, VaultStore};

/// The stores of the settings, by the name that stands before the first slash of a reference.
pub type StoreTable = BTreeMap<String, StoreSettings>;

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StoreSettings {
    /// Files of this host.
    File(FileSettings),
    /// Variables of the agent's environment.
    Env(EnvironmentSettings),
    /// Credentials that systemd hands to the agent.
    Systemd(SystemdSettings),
    /// What commands print; needs `[policy] exec = true`.
    Exec(ExecSettings),
    /// Encrypted files that come with the configuration.
    Age(AgeSettings),
    /// Secrets of a Kubernetes cluster.
    Kubernetes(Box<KubernetesSettings>),
    /// A Vault or `OpenBao` server.
    Vault(Box<VaultSettings>),
}

/// `[secrets.NAME]` of the kind `file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The folder that paths are relative to, and that none leads out of.
    pub root: PathBuf,
    /// What users of a file get once that is deleted.
    #[serde(default)]
    pub missing: WhenMissing,
}

/// `[secrets.NAME]` of the kind `env`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironmentSettings {
    /// The variables that may be read; all by default.
    pub variables: Option<Vec<String>>,
}

/// `[secrets.NAME]` of the kind `systemd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SystemdSettings {
    /// The folder that holds them; the one of `$CREDENTIALS_DIRECTORY` by default.
    pub directory: Option<PathBuf>,
}

/// What stores are made with.
#[derive(Clone, Debug)]
pub struct StoreEnvironment {
    /// Whether commands may be run; else the sentence that refuses it.
    pub exec: Result<(), String>,
    /// Where systemd put credentials for this process.
    pub credentials_directory: Option<PathBuf>,
    /// The files of the configuration.
    pub snapshot: SnapshotFiles,
}

impl StoreEnvironment {
    /// That of this process.
    #[must_use]
    pub fn of_process(exec: Result<(), String>, snapshot: SnapshotFiles) -> Self {
        Self { exec, credentials_directory: SystemdStore::directory_of_process(), snapshot }
    }
}

/// What is wrong with `[secrets]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreSettingsError {
    /// The name cannot be one.
    #[error(
        "`[secrets.{0}]`: the name of a store has at most 64 lower case letters, digits, dashes and underscores, and begins with a letter"
    )]
    Name(String),
    /// The name is that of a store that every host has, of another kind.
    #[error(
        "`[secrets.{0}]` is of another kind than its name says; only a store of the kind `{0}` is called so"
    )]
    Reserved(String),
    /// The keys contradict each other, or miss something.
    #[error("`[secrets.{store}]`: {problem}")]
    Settings {
        /// The store.
        store: String,
        /// A sentence.
        problem: String,
    },
    /// A credential is in a store that there is not.
    #[error("`{key}` is in the store `{store}`, which there is not; there are: {known}")]
    Unknown {
        /// Where the credential stands.
        key: String,
        /// The store.
        store: String,
        /// Those there are.
        known: String,
    },
    /// A store needs itself.
    #[error(
        "the stores need each other: {0}; one of them has to have its credential elsewhere, as in a file"
    )]
    Cycle(String),
}

impl StoreSettings {
    /// The kind, as the settings call it.
    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Env(_) => "env",
            Self::Systemd(_) => "systemd",
            Self::Exec(_) => "exec",
            Self::Age(_) => "age",
            Self::Kubernetes(_) => "kubernetes",
            Self::Vault(_) => "vault",
        }
    }

    /// The credentials in it, by the key they stand under.
    #[must_use]
    pub fn credentials(&self) -> Vec<(String, &Credential)> {
        let named = |(key, credential): (&'static str, _)| (key.to_owned(), credential);
        match self {
            Self::File(_) | Self::Env(_) | Self::Systemd(_) | Self::Exec(_) => Vec::new(),
            Self::Age(settings) => std::iter::once(("identity", &settings.identity))
                .chain(settings.passphrase.as_ref().map(|passphrase| ("passphrase", passphrase)))
                .map(named)
                .collect(),
            Self::Kubernetes(settings) => settings.credentials().into_iter().map(named).collect(),
            Self::Vault(settings) => settings.credentials(),
        }
    }

    /// What is wrong with it by itself.
    fn problem(&self, environment: &StoreEnvironment) -> Option<String> {
        match self {
            Self::File(settings) => (!settings.root.is_absolute())
                .then(|| format!("`root` has to be an absolute path, not {}", settings.root.display())),
            Self::Systemd(SystemdSettings { directory: None }) => {
                environment.credentials_directory.is_none().then(|| {
                    "the agent was started without credentials: there is no $CREDENTIALS_DIRECTORY".to_owned()
                })
            }
            Self::Exec(settings) => match &environment.exec {
                Ok(()) => settings.problem(),
                Err(refusal) => Some(format!("it runs programs: {refusal}")),
            },
            Self::Kubernetes(settings) => settings.problem().map(str::to_owned),
            Self::Vault(settings) => settings.validate().err(),
            Self::Env(_) | Self::Systemd(_) | Self::Age(_) => None,
        }
    }

    fn build(
        &self,
        environment: &StoreEnvironment,
        stores: &SecretStores,
    ) -> Result<Arc<dyn SecretStore>, String> {
        Ok(match self {
            Self::File(settings) => Arc::new(FileStore::new(&settings.root).when_missing(settings.missing)),
            Self::Env(settings) => {
                let process = EnvironmentStore::process();
                Arc::new(match &settings.variables {
                    Some(variables) => process.only(variables.clone()),
                    None => process,
                })
            }
            Self::Systemd(settings) => {
                let of_process = environment.credentials_directory.clone();
                Arc::new(SystemdStore::new(settings.directory.clone().or(of_process).unwrap_or_default()))
            }
            Self::Exec(settings) => Arc::new(ExecStore::new(settings.clone())),
            Self::Age(settings) => {
                Arc::new(AgeStore::new(settings.clone(), environment.snapshot.clone(), stores.clone()))
            }
            Self::Kubernetes(settings) => Arc::new(settings.store(stores.clone())),
            Self::Vault(settings) => Arc::new(VaultStore::new(settings, stores.clone())?),
        })
    }
}

/// Makes the stores of the settings, and those that every host has: `env`, `file` (all absolute paths), and `systemd` where
/// the agent was handed credentials. Reads nothing and connects to nothing.
///
/// # Errors
/// All that is wrong with the settings.
pub fn build(
    settings: &StoreTable,
    environment: &StoreEnvironment,
) -> Result<BTreeMap<String, Arc<dyn SecretStore>>, Vec<StoreSettingsError>> {
    let mut wanted: StoreTable = defaults(environment);
    wanted.extend(settings.iter().map(|(name, store)| (name.clone(), store.clone())));
    let mut errors = Vec::new();
    for (name, store) in settings {
        if !is_name(name) {
            errors.push(StoreSettingsError::Name(name.escape_debug().to_string()));
        } else if matches!(name.as_str(), "env" | "file" | "systemd") && store.kind() != name {
            errors.push(StoreSettingsError::Reserved(name.clone()));
        } else if let Some(problem) = store.problem(environment) {
            errors.push(StoreSettingsError::Settings { store: name.clone(), problem });
        }
        for (key, credential) in store.credentials() {
            let known = wanted.keys().map(String::as_str);
            errors.extend(unknown_store(&format!("secrets.{name}.{key}"), credential, known));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut built = BTreeMap::new();
    for name in wanted.keys() {
        build_one(name, &wanted, environment, &mut Vec::new(), &mut built).map_err(|error| vec![error])?;
    }
    Ok(built)
}

/// What is wrong with a credential that is in none of the stores `known`.
pub fn unknown_store<'a>(
    key: &str,
    credential: &Credential,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<StoreSettingsError> {
    let Credential::Secret(reference) = credential else { return None };
    let known: Vec<&str> = known.into_iter().collect();
    (!known.contains(&reference.store.as_str())).then(|| StoreSettingsError::Unknown {
        key: key.to_owned(),
        store: reference.store.clone(),
        known: known.join(", "),
    })
}

/// The stores that need no settings.
fn defaults(environment: &StoreEnvironment) -> StoreTable {
    let mut table = BTreeMap::from([
        ("env".to_owned(), StoreSettings::Env(EnvironmentSettings::default())),
        (
            "file".to_owned(),
            StoreSettings::File(FileSettings { root: PathBuf::from("/"), missing: WhenMissing::Keep }),
        ),
    ]);
    if environment.credentials_directory.is_some() {
        table.insert("systemd".to_owned(), StoreSettings::Systemd(SystemdSettings::default()));
    }
    table
}

/// Makes a store after those that it needs.
fn build_one(
    name: &str,
    wanted: &StoreTable,
    environment: &StoreEnvironment,
    under_way: &mut Vec<String>,
    built: &mut BTreeMap<String, Arc<dyn SecretStore>>,
) -> Result<(), StoreSettingsError> {
    if built.contains_key(name) {
        return Ok(());
    }
    let Some(settings) = wanted.get(name) else { return Ok(()) };
    if let Some(start) = under_way.iter().position(|needing| needing == name) {
        let chain: Vec<&str> =
            under_way.iter().skip(start).map(String::as_str).chain(std::iter::once(name)).collect();
        return Err(StoreSettingsError::Cycle(chain.join(" → ")));
    }
    under_way.push(name.to_owned());
    let mut needed = BTreeMap::new();
    for (_, credential) in settings.credentials() {
        let Credential::Secret(reference) = credential else { continue };
        build_one(&reference.store, wanted, environment, under_way, built)?;
        if let Some(store) = built.get(&reference.store) {
            needed.insert(reference.store.clone(), Arc::clone(store));
        }
    }
    under_way.pop();
    let store = settings
        .build(environment, &SecretStores::new(needed))
        .map_err(|problem| StoreSettingsError::Settings { store: name.to_owned(), problem })?;
    built.insert(name.to_owned(), store);
    Ok(())
}

/// Whether a reference can begin with it, and it reads as one word.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SecretReference;

    fn environment() -> StoreEnvironment {
        StoreEnvironment { exec: Ok(()), credentials_directory: None, snapshot: SnapshotFiles::default() }
    }

    fn built(text: &str) -> Result<BTreeMap<String, Arc<dyn SecretStore>>, String> {
        let table: StoreTable = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        build(&table, &environment()).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            errors.join("\n")
        })
    }

    fn refusal(text: &str) -> String {
        built(text).map(|stores| stores.into_keys().collect::<Vec<_>>()).unwrap_err()
    }

    #[test]
    fn every_kind_is_made_beside_what_every_host_has() {
        let stores = built(
            "[k8s]\nkind = 'kubernetes'\n\
             [team]\nkind = 'file'\nroot = '/run/secrets'\n\
             [vault]\nkind = 'vault'\naddress = 'https://vault.example:8200'\nauth = { token = { secret = 'team/token' } }\n\
             [shell]\nkind = 'exec'\ncommands = { one = { command = ['/bin/true'] } }\n\
             [creds]\nkind = 'systemd'\ndirectory = '/run/credentials/x'\n\
             [vars]\nkind = 'env'\nvariables = ['TOKEN']\n\
             [age]\nkind = 'age'\nidentity = { secret = 'team/identity' }\n",
        )
        .unwrap();
        let names: Vec<&str> = stores.keys().map(String::as_str).collect();
        assert_eq!(names, ["age", "creds", "env", "file", "k8s", "shell", "team", "vars", "vault"]);
        assert!(!built("").unwrap().contains_key("systemd"));
        let started =
            StoreEnvironment { credentials_directory: Some("/run/credentials/x".into()), ..environment() };
        assert!(build(&StoreTable::new(), &started).unwrap().contains_key("systemd"));
    }

    #[tokio::test]
    async fn a_store_reads_its_credential_from_another_one() {
        use ::age::secrecy::ExposeSecret as _;
        let folder = tempfile::tempdir().unwrap();
        let identity = ::age::x25519::Identity::generate();
        std::fs::write(folder.path().join("identity"), identity.to_string().expose_secret()).unwrap();
        let stores = built(&format!(
            "[a]\nkind = 'age'\nidentity = {{ secret = 'z/identity' }}\n[z]\nkind = 'file'\nroot = '{}'",
            folder.path().display()
        ))
        .unwrap();
        let said = stores["a"].check().await.unwrap();
        assert!(said.contains(&identity.to_public().to_string()), "{said}");
        let stores = SecretStores::new(stores);
        let reference: SecretReference = "z/identity".parse().unwrap();
        assert!(stores.read(&reference).await.unwrap().expose().starts_with("AGE-SECRET-KEY-1"));
    }

    #[test]
    fn stores_that_need_themselves_are_refused() {
        let age =
            |name: &str, of: &str| format!("[{name}]\nkind = 'age'\nidentity = {{ secret = '{of}/x' }}\n");
        assert!(refusal(&age("a", "a")).contains("a → a;"));
        let cycle = [age("c", "a"), age("a", "b"), age("b", "a")].concat();
        assert!(refusal(&cycle).contains("a → b → a;"), "{}", refusal(&cycle));
        assert!(built(&[age("a", "b"), age("b", "c"), age("c", "file")].concat()).is_ok());
    }

    #[test]
    fn what_becomes_of_what_is_missing_is_said_by_the_store_and_known_to_editors() {
        let stores = built(
            "[a]\nkind = 'file'\nroot = '/a'\nmissing = 'empty'\n[b]\nkind = 'file'\nroot = '/b'\n\
             [k]\nkind = 'kubernetes'\nmissing = 'empty'\n\
             [v]\nkind = 'vault'\naddress = 'https://vault.example:8200'\nauth = { token = 't' }\nmissing = 'empty'\n",
        )
        .unwrap();
        let of = |name: &str| stores[name].when_missing();
        assert_eq!(["a", "k", "v"].map(of), [WhenMissing::Empty; 3]);
        assert_eq!((of("b"), of("env")), (WhenMissing::Keep, WhenMissing::Keep));
        let schema = serde_json::to_string(&schemars::schema_for!(StoreTable)).unwrap();
        assert!(schema.contains("\"const\":\"keep\"") && schema.contains("\"const\":\"empty\""), "{schema}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("[x]\nkind = 'valt'", "unknown variant `valt`"),
            ("[x]\nroot = '/x'", "missing field `kind`"),
            ("[x]\nkind = 'file'\nrot = '/x'", "unknown field `rot`"),
            ("[x]\nkind = 'file'", "missing field `root`"),
            (
                "[x]\nkind = 'kubernetes'\nmissing = 'drop'",
                "unknown variant `drop`, expected `keep` or `empty`",
            ),
            ("[x]\nkind = 'file'\nroot = 'x'", "absolute path"),
            ("['X/y']\nkind = 'env'", "name of a store"),
            ("[file]\nkind = 'env'", "only a store of the kind `file`"),
            ("[x]\nkind = 'systemd'", "no $CREDENTIALS_DIRECTORY"),
            ("[x]\nkind = 'exec'\ncommands = { a = { command = ['x'] } }", "absolute path"),
            ("[x]\nkind = 'kubernetes'\ncontext = 'x'", "`[secrets.x]`: `context`"),
            (
                "[x]\nkind = 'age'\nidentity = { secret = 'bao/x' }",
                "`secrets.x.identity` is in the store `bao`, which there is not; there are: env, file, x",
            ),
        ] {
            assert!(refusal(text).contains(said), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn commands_run_only_where_the_policy_allows_it() {
        let table: StoreTable =
            toml::from_str("[x]\nkind = 'exec'\ncommands = { a = { command = ['/bin/true'] } }").unwrap();
        let refused = StoreEnvironment { exec: Err("no program may be run".to_owned()), ..environment() };
        let Err(errors) = build(&table, &refused) else { panic!("it is refused") };
        assert_eq!(errors[0].to_string(), "`[secrets.x]`: it runs programs: no program may be run");
        assert!(build(&table, &environment()).is_ok());
    }
}
