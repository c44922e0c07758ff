//! `invar.toml`: what the operator of the host decides. Strict: an unknown key is an error that names the nearest
//! one. Addresses and pipelines on the command line become the same [`Settings`] with everything else at its default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use invar_policy::{Policy, PolicySettings};
use invar_rollout::{RolloutSettings, StateSettings};
use invar_secrets::StoreTable;
use invar_sources::SourceSettings;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::webhook::WebhookSettings;

/// Everything that is settled before the agent starts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Who this agent is.
    pub(crate) agent: AgentSettings,
    /// The HTTP API.
    pub(crate) server: ServerSettings,
    /// Where state is kept.
    pub(crate) state: StateSettings,
    /// Where configuration comes from, in order.
    pub(crate) source: Vec<SourceSettings>,
    /// Where secrets come from, by the name that stands before the first slash of a reference.
    pub(crate) secrets: StoreTable,
    /// When and how a candidate is applied.
    pub(crate) rollout: RolloutSettings,
    /// Ceilings.
    pub(crate) limits: LimitSettings,
    /// What pipelines may use.
    pub(crate) features: FeatureSettings,
    /// Who may say that there is something new, by the name under `/api/v1/webhooks/`.
    pub(crate) webhook: BTreeMap<String, WebhookSettings>,
    /// What no source can raise.
    pub(crate) policy: PolicySettings,
    /// What an address on the command line may use of this host, which comes with nothing that a person settled: as good as
    /// nothing.
    #[serde(skip)]
    pub(crate) closed: Option<Closed>,
}

/// What flags allow to what an address on the command line brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Whether all files of this host may be used.
    pub(crate) host_files: bool,
    /// The environment variables that may be read.
    pub(crate) environment_variables: Vec<String>,
}

/// `[agent]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentSettings {
    /// Name of the agent; the host name by default.
    pub(crate) name: Option<String>,
    /// Environment, such as `production`.
    pub(crate) environment: String,
    /// Free labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// `[server]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// Address the HTTP API listens on.
    pub(crate) listen: String,
    /// Address under which components reach each other in process, never on the network.
    pub(crate) memory_address: String,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: "127.0.0.1:12345".to_owned(), memory_address: "alloy.internal:12345".to_owned() }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitSettings {
    /// Size of the write-ahead log of one component, in bytes.
    #[serde(deserialize_with = "size_text")]
    #[schemars(with = "String", regex(pattern = SIZE_PATTERN), extend("default" = "2GiB"))]
    pub(crate) log: u64,
    /// Memory of the process, in bytes, for the memory rule of probation where no cgroup says it.
    #[serde(deserialize_with = "optional_size_text")]
    #[schemars(with = "String", regex(pattern = SIZE_PATTERN))]
    pub(crate) memory: Option<u64>,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { log: 2 << 30, memory: None }
    }
}

/// `[features]`: Alloy's flags of the same meaning, as settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FeatureSettings {
    /// Least stability a component may have: `experimental`, `public-preview` or `generally-available`.
    pub(crate) stability: String,
    /// Whether community components may be used.
    pub(crate) community_components: bool,
    /// Whether a configuration may switch live debugging on; by default only one that is local altogether.
    pub(crate) live_debugging: Option<bool>,
}

impl Default for FeatureSettings {
    fn default() -> Self {
        Self {
            stability: "generally-available".to_owned(),
            community_components: false,
            live_debugging: None,
        }
    }
}

/// What [`parse_size`] accepts.
const SIZE_PATTERN: &str = r"^[0-9]+ *(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// The text of the file; secrets in it are not printed beyond the line at fault.
        #[source_code]
        text: miette::NamedSource<String>,
        /// Where.
        #[label("here")]
        at: Option<miette::SourceSpan>,
        /// What next.
        #[help]
        help: Option<String>,
    },
}

impl Settings {
    /// Whether a configuration may open the data of this host to whoever reaches the API.
    pub(crate) fn allows_live_debugging(&self) -> bool {
        let local = || self.source.iter().all(|source| source.file.is_some());
        self.features.live_debugging.unwrap_or_else(local)
    }

    /// What the sources may use of this host.
    ///
    /// # Errors
    /// All mistakes in `[policy]`; sentences for people.
    pub(crate) fn policy(&self) -> Result<Policy, String> {
        let policy = match &self.closed {
            None => Policy::new(&self.policy, &self.source_names()?),
            Some(Closed { host_files, environment_variables }) => {
                // What an agent keeps is its own.
                let roots = (!host_files).then(|| vec![std::path::absolute(&self.state.dir)]);
                let roots = roots.map(|roots| roots.into_iter().collect::<Result<Vec<_>, _>>());
                let roots = roots.transpose().map_err(|error| format!("`[state] dir`: {error}"))?;
                Policy::closed(environment_variables, roots)
            }
        };
        policy.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// The names of the sources, given or made up.
    pub(crate) fn source_names(&self) -> Result<Vec<String>, String> {
        let mut sources = self.source.clone();
        invar_sources::normalize(&mut sources)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        Ok(sources.into_iter().filter_map(|source| source.name).collect())
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown key or a value that does not fit.
    pub(crate) fn read(path: &Path) -> miette::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads settings from text; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn parse(name: &str, text: &str) -> miette::Result<Self> {
        let settings = toml::from_str(text).map_err(|error: toml::de::Error| {
            let message = without_text(error.message());
            // The whole line may hold a credential: only the key at fault is shown, so what is quoted is cut there.
            SettingsError::Invalid {
                help: nearest_key(&message),
                at: error.span().map(|span| (span.start, key_length(text, &span)).into()),
                text: miette::NamedSource::new(name, without_values(text)).with_language("TOML"),
                message,
            }
        })?;
        Ok(settings)
    }

    /// The JSON Schema of a settings file, draft 7: what editors' TOML support understands.
    pub(crate) fn json_schema() -> serde_json::Value {
        let generator = schemars::generate::SchemaSettings::draft07().into_generator();
        let mut schema = generator.into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), "invar.toml".into());
        let mut schema = schema.to_value();
        without_null(&mut schema);
        schema
    }

    /// The agent's name: as set, else the host's.
    #[must_use]
    pub(crate) fn agent_name(&self) -> String {
        self.agent.name.clone().unwrap_or_else(|| {
            rustix::system::uname().nodename().to_str().map_or_else(|_| "localhost".to_owned(), str::to_owned)
        })
    }
}

/// TOML has no null: what a schema says of it would only mislead.
fn without_null(schema: &mut serde_json::Value) {
    use serde_json::Value;
    let is_null = |entry: &Value| entry == "null" || entry.get("type").is_some_and(|kind| kind == "null");
    match schema {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            for key in ["type", "anyOf"] {
                if let Some(Value::Array(entries)) = object.get_mut(key) {
                    entries.retain(|entry| !is_null(entry));
                    if key == "type"
                        && let [only] = entries.as_slice()
                    {
                        let only = only.clone();
                        object.insert(key.to_owned(), only);
                    }
                }
            }
            // A single alternative is none, and editors explain it better without the detour.
            if let Some(Value::Array(entries)) = object.remove("anyOf") {
                let key = if entries.len() == 1 { "allOf" } else { "anyOf" };
                object.insert(key.to_owned(), Value::Array(entries));
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(entries) => entries.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// `did you mean …` out of serde's list of what it expected.
fn nearest_key(message: &str) -> Option<String> {
    let unknown = message.strip_prefix("unknown field `")?;
    let (name, rest) = unknown.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let nearest = invar_syntax::nearest(name, known.iter().copied());
    Some(match nearest {
        Some(nearest) => format!("did you mean `{nearest}`? accepted: {}", known.join(", ")),
        None => format!("accepted: {}", known.join(", ")),
    })
}

fn key_length(text: &str, span: &std::ops::Range<usize>) -> usize {
    let line_end = text[span.start..].find(['\n', '=']).map_or(text.len(), |offset| span.start + offset);
    span.end.min(line_end).saturating_sub(span.start)
}

/// A message of serde without the text it found: a credential in the wrong place is one all the same.
fn without_text(message: &str) -> String {
    const FOUND: &str = "string \"";
    let Some((before, rest)) = message.split_once(FOUND) else { return message.to_owned() };
    // The text itself may hold quotes; what is expected comes last.
    match rest.rsplit_once("\", expected") {
        Some((_, after)) => format!("{before}a string, expected{after}"),
        None => format!("{before}a string"),
    }
}

/// The same text, of the same length, with everything between quotes blanked: keys stay, values (which may be
/// credentials) do not reach the terminal.
fn without_values(text: &str) -> String {
    let mut quote = None;
    text.chars()
        .flat_map(|character| {
            let hidden = match (quote, character) {
                (None, '"' | '\'') => {
                    quote = Some(character);
                    false
                }
                (_, '\n') => {
                    quote = None;
                    false
                }
                (Some(open), _) if character == open => {
                    quote = None;
                    false
                }
                (quote, _) => quote.is_some(),
            };
            // Offsets are in bytes: what hides a character takes as many.
            let (shown, times) = if hidden { ('*', character.len_utf8()) } else { (character, 1) };
            std::iter::repeat_n(shown, times)
        })
        .collect()
}

/// Reads a size such as `512MiB`, in bytes.
///
/// # Errors
/// A sentence that shows the accepted form.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "KB" => 1 << 10,
        "MiB" | "MB" => 1 << 20,
        "GiB" | "GB" => 1 << 30,
        "TiB" | "TB" => 1 << 40,
        _ => {
            return Err(format!(
                "`{text}` is not a size; write a number and a unit, as in `512MiB` or `2GiB`"
            ));
        }
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size; write it as `512MiB` or `2GiB`"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is larger than any memory"))
}

fn size_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_size_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    size_text(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
