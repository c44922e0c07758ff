//! What is allowed to whom: a [`Policy`] made of ceilings, the [`Access`] of one author or several, and what is said to one
//! who is refused.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::files;
use crate::pattern::{Destination, ListenPattern, NamePattern};
use crate::settings::{PolicyError, PolicyLimits, PolicySettings, SourcePolicySettings};

/// What was refused, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused, by which setting.
    pub message: String,
    /// What allows it.
    pub help: String,
}

/// Whether a host may be connected to, before its addresses are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whatever its addresses are.
    Anywhere,
    /// Only where its addresses are allowed.
    ByAddress,
}

/// The ceilings of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    general: Option<Arc<Ceiling>>,
    sources: BTreeMap<String, Arc<Ceiling>>,
    /// The access of an author without a ceiling of its own.
    everybody: Access,
}

/// What somebody may use: all of these ceilings have to allow it. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Access {
    ceilings: Option<Arc<[Arc<Ceiling>]>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Ceiling {
    owner: Owner,
    environment_variables: Option<Vec<NamePattern>>,
    file_roots: Option<Vec<PathBuf>>,
    listen: Option<Vec<ListenPattern>>,
    egress: Option<Vec<Destination>>,
    components: Option<Vec<NamePattern>>,
    deny_components: Vec<NamePattern>,
    secrets: Option<Vec<NamePattern>>,
    nonsensitive: Option<bool>,
    exec: Option<bool>,
    limits: PolicyLimits,
}

/// Who set a ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// A table of the settings.
    Table(String),
    /// An address on the command line, which comes with no settings.
    Address,
}

// === impl Policy ===

impl Policy {
    /// The ceilings of the settings.
    ///
    /// # Errors
    /// All patterns that cannot be read, and all sources that do not exist.
    pub fn new(settings: &PolicySettings, sources: &[String]) -> Result<Self, Vec<PolicyError>> {
        let mut errors = Vec::new();
        let general = "policy".to_owned();
        let mut general =
            Ceiling::read(Owner::Table(general), &SourcePolicySettings::general(settings), &mut errors);
        let mut by_source: BTreeMap<String, Ceiling> = BTreeMap::new();
        let unknown = |table: &str, name: &str| PolicyError::UnknownSource {
            table: table.to_owned(),
            name: name.to_owned(),
            sources: sources.to_vec(),
        };
        for (name, narrower) in &settings.source {
            let table = format!("policy.source.{name}");
            if !sources.contains(name) {
                errors.push(unknown(&table, name));
            }
            by_source.insert(name.clone(), Ceiling::read(Owner::Table(table), narrower, &mut errors));
        }
        if let Some(secrets) = &settings.secrets {
            let table = "policy.secrets";
            // Who is not named may name none, whoever it is.
            general.secrets = None;
            for name in secrets.keys().filter(|name| !sources.contains(name)) {
                errors.push(unknown(table, name));
            }
            for name in sources {
                let ceiling = by_source
                    .entry(name.clone())
                    .or_insert_with(|| Ceiling::unlimited(Owner::Table(format!("policy.source.{name}"))));
                let patterns = secrets.get(name).map(Vec::as_slice).unwrap_or_default();
                ceiling.secrets = Some(patterns_of(table, "secrets", patterns, &mut errors));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self::of(
            general,
            by_source.into_iter().map(|(name, ceiling)| (name, Arc::new(ceiling))).collect(),
        ))
    }

    /// For what an address on the command line brings: no environment variables but `environment_variables`, no files
    /// outside of `file_roots` where there are any, no programs.
    ///
    /// # Errors
    /// All patterns that cannot be read.
    pub fn closed(
        environment_variables: &[String],
        file_roots: Option<Vec<PathBuf>>,
    ) -> Result<Self, Vec<PolicyError>> {
        let mut errors = Vec::new();
        let settings = SourcePolicySettings {
            environment_variables: Some(environment_variables.to_vec()),
            file_roots,
            exec: Some(false),
            ..SourcePolicySettings::default()
        };
        let ceiling = Ceiling::read(Owner::Address, &settings, &mut errors);
        if errors.is_empty() { Ok(Self::of(ceiling, BTreeMap::new())) } else { Err(errors) }
    }

    fn of(general: Ceiling, sources: BTreeMap<String, Arc<Ceiling>>) -> Self {
        let general = Arc::new(general);
        let everybody = Access { ceilings: Some(Arc::from([Arc::clone(&general)])) };
        Self { general: Some(general), sources, everybody }
    }

    /// Whether sources differ in what they may.
    #[must_use]
    pub fn tells_sources_apart(&self) -> bool {
        !self.sources.is_empty()
    }

    /// What may be used by something in which these sources had a hand.
    #[must_use]
    pub fn access<'a>(&self, authors: impl IntoIterator<Item = &'a str>) -> Access {
        if self.sources.is_empty() {
            return self.everybody.clone();
        }
        let mut own: Vec<&Arc<Ceiling>> = Vec::new();
        for author in authors {
            if let Some(ceiling) = self.sources.get(author)
                && !own.iter().any(|known| Arc::ptr_eq(known, ceiling))
            {
                own.push(ceiling);
            }
        }
        if own.is_empty() {
            return self.everybody.clone();
        }
        own.sort_by_key(|ceiling| Arc::as_ptr(ceiling));
        let ceilings: Vec<_> = self.general.iter().chain(own).cloned().collect();
        Access { ceilings: Some(ceilings.into()) }
    }

    /// What all sources together may use.
    #[must_use]
    pub fn general(&self) -> &Access {
        &self.everybody
    }

    /// How much there may be in all.
    #[must_use]
    pub fn limits(&self) -> PolicyLimits {
        self.general.as_ref().map(|ceiling| ceiling.limits).unwrap_or_default()
    }

    /// How much there may be from a source.
    #[must_use]
    pub fn limits_of(&self, source: &str) -> PolicyLimits {
        self.sources.get(source).map(|ceiling| ceiling.limits).unwrap_or_default()
    }
}

// === impl Access ===

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        match (&self.ceilings, &other.ceilings) {
            (None, None) => true,
            (Some(left), Some(right)) => {
                Arc::ptr_eq(left, right)
                    || (left.len() == right.len()
                        && left
                            .iter()
                            .zip(&**right)
                            .all(|(left, right)| Arc::ptr_eq(left, right) || left == right))
            }
            _ => false,
        }
    }
}

impl Access {
    /// Everything is allowed.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self::default()
    }

    fn ceilings(&self) -> &[Arc<Ceiling>] {
        self.ceilings.as_deref().unwrap_or_default()
    }

    /// Whether some environment variables may not be read.
    #[must_use]
    pub fn restricts_environment(&self) -> bool {
        self.ceilings().iter().any(|ceiling| ceiling.environment_variables.is_some())
    }

    /// Whether some files may not be used.
    #[must_use]
    pub fn restricts_files(&self) -> bool {
        self.ceilings().iter().any(|ceiling| ceiling.file_roots.is_some())
    }

    /// Whether some hosts may not be connected to.
    #[must_use]
    pub fn restricts_egress(&self) -> bool {
        self.ceilings().iter().any(|ceiling| ceiling.egress.is_some())
    }

    /// Whether `convert.nonsensitive` may not be used.
    #[must_use]
    pub fn restricts_nonsensitive(&self) -> bool {
        self.ceilings().iter().any(|ceiling| ceiling.nonsensitive == Some(false))
    }

    /// Whether an environment variable may be read.
    ///
    /// # Errors
    /// It may not.
    pub fn environment_variable(&self, name: &str) -> Result<(), Refusal> {
        self.all(|ceiling| match &ceiling.environment_variables {
            Some(allowed) if !allowed.iter().any(|pattern| pattern.matches(name)) => {
                let what = format!("the environment variable \"{name}\" may not be read");
                Err(ceiling.refusal(
                    &what,
                    "environment_variables",
                    Some(name),
                    Some("--allow-environment-variable"),
                ))
            }
            _ => Ok(()),
        })
    }

    /// Whether a file may be used as it is named; nothing is looked at. A relative path is not decided here.
    ///
    /// # Errors
    /// It may not.
    pub fn file_named(&self, path: &Path) -> Result<(), Refusal> {
        if !path.is_absolute() {
            return Ok(());
        }
        let written = files::normal(path);
        self.all(|ceiling| match &ceiling.file_roots {
            Some(roots) if !roots.iter().any(|root| written.starts_with(root)) => {
                Err(ceiling.no_file(path, &written))
            }
            _ => Ok(()),
        })
    }

    /// Whether a file may be used, which looks at where it leads. Blocks.
    ///
    /// # Errors
    /// It may not, or it cannot be told.
    pub fn file(&self, path: &Path) -> Result<(), Refusal> {
        if !self.restricts_files() {
            return Ok(());
        }
        let unclear = |error: io::Error| Refusal {
            message: format!(
                "the file {} may not be used: where it leads cannot be told: {error}",
                path.display()
            ),
            help: "the settings allow files below `file_roots` of [policy] only".to_owned(),
        };
        let written = files::written(path).map_err(unclear)?;
        self.file_named(&written)?;
        let real = files::leads_to(&written).map_err(unclear)?;
        self.leads_within(path, &real)
    }

    /// Opens a file for reading. Blocks.
    ///
    /// # Errors
    /// It may not be used, or cannot be opened.
    pub fn open_blocking(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, OpenOptions::new().read(true))
    }

    /// As [`Self::open_blocking`], in another way than for reading.
    ///
    /// # Errors
    /// As [`Self::open_blocking`].
    pub fn open_with(&self, path: &Path, options: &OpenOptions) -> io::Result<File> {
        if !self.restricts_files() {
            return options.open(path);
        }
        self.file(path).map_err(io::Error::from)?;
        let file = options.open(path)?;
        // What the links on the way led to may have changed since.
        let place = files::place_of(&file, path)?;
        self.leads_within(path, &place).map_err(io::Error::from)?;
        Ok(file)
    }

    /// As [`Self::open_blocking`], off the runtime's workers.
    ///
    /// # Errors
    /// As [`Self::open_blocking`].
    pub async fn open(&self, path: &Path) -> io::Result<tokio::fs::File> {
        if !self.restricts_files() {
            return tokio::fs::File::open(path).await;
        }
        let (access, path) = (self.clone(), path.to_owned());
        let opened = tokio::task::spawn_blocking(move || access.open_blocking(&path)).await;
        opened.map_err(io::Error::other)?.map(tokio::fs::File::from_std)
    }

    fn leads_within(&self, path: &Path, real: &Path) -> Result<(), Refusal> {
        self.all(|ceiling| match &ceiling.file_roots {
            Some(roots) if !roots.iter().any(|root| within(real, root)) => Err(ceiling.no_file(path, real)),
            _ => Ok(()),
        })
    }

    /// Whether an address may be listened on.
    ///
    /// # Errors
    /// It may not.
    pub fn listen(&self, address: &str) -> Result<(), Refusal> {
        self.all(|ceiling| match &ceiling.listen {
            Some(allowed) if !allowed.iter().any(|pattern| pattern.matches(address)) => {
                let what = format!("{address} may not be listened on");
                Err(ceiling.refusal(&what, "listen", Some(address), None))
            }
            _ => Ok(()),
        })
    }

    /// Whether a host may be connected to.
    ///
    /// # Errors
    /// It may not.
    pub fn destination(&self, host: &str, port: Option<u16>) -> Result<Reach, Refusal> {
        let mut reach = Reach::Anywhere;
        for ceiling in self.ceilings() {
            let Some(allowed) = &ceiling.egress else { continue };
            if allowed.iter().any(|pattern| pattern.matches(host, port)) {
                continue;
            }
            if !allowed.iter().any(|pattern| pattern.may_match(host, port)) {
                return Err(ceiling.no_destination(host, port));
            }
            reach = Reach::ByAddress;
        }
        Ok(reach)
    }

    /// Whether a host may be connected to at one of its addresses.
    ///
    /// # Errors
    /// It may not.
    pub fn destination_at(&self, host: &str, address: IpAddr) -> Result<(), Refusal> {
        self.all(|ceiling| match &ceiling.egress {
            Some(allowed)
                if !allowed
                    .iter()
                    .any(|pattern| pattern.matches(host, None) || pattern.matches_address(address)) =>
            {
                Err(ceiling.no_destination(&format!("{host} ({address})"), None))
            }
            _ => Ok(()),
        })
    }

    /// Whether what a text names may be connected to: a URL, or `host:port`. A text that names no host is left to whoever
    /// reads it.
    ///
    /// # Errors
    /// It may not.
    pub fn destination_text(&self, text: &str) -> Result<Reach, Refusal> {
        if !self.restricts_egress() {
            return Ok(Reach::Anywhere);
        }
        match host_and_port(text) {
            Some((host, port)) => self.destination(host, port),
            None => Ok(Reach::Anywhere),
        }
    }

    /// Whether a component type may be used.
    ///
    /// # Errors
    /// It may not.
    pub fn component(&self, name: &str) -> Result<(), Refusal> {
        self.all(|ceiling| {
            let what = format!("component \"{name}\" may not be used");
            let names = |pattern: &&NamePattern| pattern.matches(name);
            if let Some(pattern) = ceiling.deny_components.iter().find(names) {
                let table = ceiling.owner.table();
                return Err(Refusal {
                    message: format!("{what}: `deny_components` of {table} names it"),
                    help: format!(
                        "take \"{pattern}\" out of `deny_components` in {table} of this host's settings"
                    ),
                });
            }
            match &ceiling.components {
                Some(allowed) if !allowed.iter().any(|pattern| pattern.matches(name)) => {
                    Err(ceiling.refusal(&what, "components", Some(name), None))
                }
                _ => Ok(()),
            }
        })
    }

    /// Whether a secret may be named: `vault/kv/platform/db#password`. Those that every host has, without settings, are no way
    /// around what may be read otherwise: `env/NAME` is a variable, `file/PATH` and `systemd/NAME` are files. Blocks where
    /// files are restricted.
    ///
    /// # Errors
    /// It may not.
    pub fn secret(&self, path: &str) -> Result<(), Refusal> {
        let plain = path.rsplit_once('#').map_or(path, |(plain, _)| plain);
        match plain.split_once('/') {
            Some(("env", name)) => self.environment_variable(name)?,
            Some(("file", file)) => self.file(&Path::new("/").join(file))?,
            Some(("systemd", name)) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_default();
                self.file(&Path::new("/").join(folder).join(name))?;
            }
            _ => {}
        }
        self.all(|ceiling| match &ceiling.secrets {
            Some(allowed) if !allowed.iter().any(|pattern| pattern.matches(path)) => {
                let what = format!("the secret \"{path}\" may not be named");
                let mut refusal = ceiling.refusal(&what, "secrets", Some(path), None);
                refusal.help = "allow it in `secrets` of [policy], under the name of the source".to_owned();
                Err(refusal)
            }
            _ => Ok(()),
        })
    }

    /// Whether `convert.nonsensitive` may be used.
    ///
    /// # Errors
    /// It may not.
    pub fn nonsensitive(&self) -> Result<(), Refusal> {
        self.all(|ceiling| match ceiling.nonsensitive {
            Some(false) => Err(ceiling.switched_off("convert.nonsensitive may not be used", "nonsensitive")),
            _ => Ok(()),
        })
    }

    /// Whether programs may be run.
    ///
    /// # Errors
    /// They may not.
    pub fn exec(&self) -> Result<(), Refusal> {
        self.all(|ceiling| match ceiling.exec {
            Some(false) => Err(ceiling.switched_off("no program may be run", "exec")),
            _ => Ok(()),
        })
    }

    fn all(&self, allowed: impl Fn(&Ceiling) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.ceilings().iter().try_for_each(|ceiling| allowed(ceiling))
    }
}

/// Whether a real path lies below a root, wherever that is by now.
fn within(real: &Path, root: &Path) -> bool {
    real.starts_with(root) || files::leads_to(root).is_ok_and(|root| real.starts_with(root))
}

/// Host and port of a URL or of `host:port`.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match authority.split_once(':') {
            // More than one colon and no brackets: an address without a port.
            Some((_, rest)) if rest.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let usual = match scheme.map(str::to_ascii_lowercase).as_deref() {
        Some("http" | "ws") => Some(80),
        Some("https" | "wss") => Some(443),
        Some("ssh" | "git+ssh") => Some(22),
        Some("git") => Some(9418),
        _ => None,
    };
    let port = port.and_then(|port| port.parse().ok()).or(usual);
    (!host.is_empty()).then_some((host, port))
}

// === impl Refusal ===

impl Refusal {
    /// The refusal behind an error of reading or writing, if one is.
    #[must_use]
    pub fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refusal)
    }
}

// === impl Ceiling ===

impl Ceiling {
    fn unlimited(owner: Owner) -> Self {
        Self {
            owner,
            environment_variables: None,
            file_roots: None,
            listen: None,
            egress: None,
            components: None,
            deny_components: Vec::new(),
            secrets: None,
            nonsensitive: None,
            exec: None,
            limits: PolicyLimits::default(),
        }
    }

    fn read(owner: Owner, settings: &SourcePolicySettings, errors: &mut Vec<PolicyError>) -> Self {
        let table = match &owner {
            Owner::Table(table) => table.clone(),
            Owner::Address => "policy".to_owned(),
        };
        let roots = settings.file_roots.as_ref().map(|roots| {
            for root in roots.iter().filter(|root| !root.is_absolute()) {
                errors.push(PolicyError::RelativeRoot {
                    table: table.clone(),
                    root: root.display().to_string(),
                });
            }
            roots.iter().map(|root| files::normal(root)).collect()
        });
        Self {
            environment_variables: optional(
                &table,
                "environment_variables",
                &settings.environment_variables,
                errors,
            ),
            file_roots: roots,
            listen: optional(&table, "listen", &settings.listen, errors),
            egress: optional(&table, "egress", &settings.egress, errors),
            components: optional(&table, "components", &settings.components, errors),
            deny_components: patterns_of(&table, "deny_components", &settings.deny_components, errors),
            secrets: None,
            nonsensitive: settings.nonsensitive,
            exec: settings.exec,
            limits: settings.limits,
            owner,
        }
    }

    /// What is said to one who is refused: the setting, and the entry or flag that allows it.
    fn refusal(&self, what: &str, key: &str, entry: Option<&str>, flag: Option<&str>) -> Refusal {
        match (&self.owner, flag) {
            (Owner::Address, Some(flag)) => Refusal {
                message: format!("{what} by what an address on the command line brings"),
                help: match entry {
                    Some(entry) => format!("start the agent with {flag}={entry}"),
                    None => format!("start the agent with {flag}"),
                },
            },
            (Owner::Address, None) | (Owner::Table(_), _) => {
                let table = self.owner.table();
                Refusal {
                    message: format!("{what}: `{key}` of {table} does not allow it"),
                    help: match entry {
                        Some(entry) => {
                            format!("allow it with \"{entry}\" in `{key}` of {table} in this host's settings")
                        }
                        None => format!("allow it in `{key}` of {table} in this host's settings"),
                    },
                }
            }
        }
    }

    fn no_file(&self, path: &Path, real: &Path) -> Refusal {
        let leads =
            if path == real { String::new() } else { format!(", which leads to {},", real.display()) };
        let what = format!("the file {}{leads} may not be used", path.display());
        match self.owner {
            Owner::Address => self.refusal(&what, "file_roots", None, Some("--allow-host-files")),
            Owner::Table(_) => {
                let folder = real.parent().unwrap_or(real).display().to_string();
                self.refusal(&what, "file_roots", Some(&folder), None)
            }
        }
    }

    fn no_destination(&self, host: &str, port: Option<u16>) -> Refusal {
        let entry = match port {
            Some(port) if host.contains(':') => format!("[{host}]:{port}"),
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        self.refusal(&format!("{entry} may not be connected to"), "egress", Some(&entry), None)
    }

    fn switched_off(&self, what: &str, key: &str) -> Refusal {
        let table = self.owner.table();
        Refusal {
            message: format!("{what}: `{key}` of {table} does not allow it"),
            help: format!("set `{key} = true` in {table} of this host's settings"),
        }
    }
}

impl Owner {
    fn table(&self) -> String {
        match self {
            Self::Table(table) => format!("[{table}]"),
            Self::Address => "[policy]".to_owned(),
        }
    }
}

fn optional<T: FromStr<Err = crate::PatternError>>(
    table: &str,
    key: &'static str,
    texts: &Option<Vec<String>>,
    errors: &mut Vec<PolicyError>,
) -> Option<Vec<T>> {
    texts.as_ref().map(|texts| patterns_of(table, key, texts, errors))
}

fn patterns_of<T: FromStr<Err = crate::PatternError>>(
    table: &str,
    key: &'static str,
    texts: &[String],
    errors: &mut Vec<PolicyError>,
) -> Vec<T> {
    let mut patterns = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => errors.push(PolicyError::Pattern { table: table.to_owned(), key, error }),
        }
    }
    patterns
}

#[cfg(test)]
mod tests;
