//! What the API server says, as far as it is looked at: the data of one object, and which object an event is about.
//! Everything else in an answer is skipped. Values go from the text straight into [`Secret`]s; no message repeats any
//! part of the text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use invar_syntax::Secret;
use invar_syntax::secret::REDACTED;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use zeroize::Zeroize as _;

/// As much data as an object holds: what API servers allow.
const LARGEST_DATA: usize = 1 << 20;

/// The kinds of objects that hold data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A Secret.
    Secret,
    /// A config map.
    ConfigMap,
}

impl ObjectKind {
    /// The resource, as paths and roles name it.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        })
    }
}

/// `<namespace>/<name>`: names that the API server would take, so that they can stand in a path as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    namespace: String,
    name: String,
}

impl ObjectName {
    /// Both parts.
    ///
    /// # Errors
    /// What is wrong with one of them, beginning with the word `namespace` or `name`.
    pub fn new(namespace: &str, name: &str) -> Result<Self, String> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let label = |text: &str| {
            let bytes = text.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if is_word(*first) && is_word(*last))
                && bytes.iter().all(|byte| is_word(*byte) || *byte == b'-')
        };
        if namespace.len() > 63 || !label(namespace) {
            return Err(format!(
                "namespace {namespace:?}: a namespace has at most 63 lower case letters, digits and dashes"
            ));
        }
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(format!(
                "name {name:?}: a name has at most 253 lower case letters, digits, dashes and dots"
            ));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err("a path is `<namespace>/<name>`".to_owned()),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What one object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The entries of `data`, decoded. Those of a config map are no secrets, but are carried alike.
    pub fields: BTreeMap<String, Secret>,
    /// Names of entries that are not UTF-8 text, which are left out.
    pub binary: Vec<String>,
    /// What the server calls this version of it; empty where it does not say.
    pub version: String,
}

/// An event of a watch that asks for metadata only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The object of that name came, changed, or went.
    Changed {
        /// The name, without its namespace.
        name: String,
        /// The version it has now; its last one where it went.
        version: String,
        /// Whether it is there no more.
        gone: bool,
    },
    /// Nothing happened up to this version.
    Bookmark {
        /// The version.
        version: String,
    },
    /// The server ends the watch.
    Error {
        /// As an HTTP status: 410 when the events asked for are not held any more.
        code: u16,
        /// The server's words.
        message: String,
    },
}

#[derive(Deserialize)]
struct RawObject<Entry> {
    kind: String,
    #[serde(default)]
    metadata: RawMetadata,
    #[serde(default = "Option::default")]
    data: Option<BTreeMap<String, Entry>>,
}

/// Base64 in JSON, decoded in place; none where it is not text.
struct Encoded(Option<Secret>);

/// Text in JSON.
struct Plain(Secret);

#[derive(Deserialize)]
struct RawStatus {
    kind: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: RawEventObject,
}

#[derive(Deserialize)]
struct RawEventObject {
    #[serde(default)]
    metadata: RawMetadata,
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: u16,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "resourceVersion")]
    version: String,
}

#[derive(Deserialize)]
struct RawList {
    metadata: RawListMetadata,
    #[serde(default = "Option::default")]
    items: Option<Vec<RawItem>>,
}

#[derive(Deserialize)]
struct RawListMetadata {
    #[serde(rename = "resourceVersion")]
    version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct RawItem {
    metadata: RawMetadata,
}

/// A part of a list of metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListPage {
    /// The version that the list was made at.
    pub(super) version: String,
    /// Names, each with the version it has.
    pub(super) items: Vec<(String, String)>,
    /// What to ask for the next part with; empty in the last one.
    pub(super) next: String,
}

/// The data of the object that `text` is, in JSON.
///
/// # Errors
/// What is wrong with it; never a part of it.
pub fn decode_object(kind: ObjectKind, text: &[u8]) -> Result<Object, String> {
    let mut object = Object { fields: BTreeMap::new(), binary: Vec::new(), version: String::new() };
    let found = match kind {
        ObjectKind::Secret => {
            let raw: RawObject<Encoded> = parse(text, kind)?;
            for (name, Encoded(value)) in raw.data.unwrap_or_default() {
                match value {
                    Some(value) => drop(object.fields.insert(name, value)),
                    None => object.binary.push(name),
                }
            }
            object.version = raw.metadata.version;
            raw.kind
        }
        ObjectKind::ConfigMap => {
            let raw: RawObject<Plain> = parse(text, kind)?;
            object.fields =
                raw.data.unwrap_or_default().into_iter().map(|(name, Plain(value))| (name, value)).collect();
            object.version = raw.metadata.version;
            raw.kind
        }
    };
    if found != kind.to_string() {
        return Err(format!("the answer is not a {kind}"));
    }
    let size: usize = object.fields.iter().map(|(name, value)| name.len() + value.expose().len()).sum();
    if size > LARGEST_DATA {
        return Err(format!("its data are larger than {} MiB", LARGEST_DATA >> 20));
    }
    Ok(object)
}

/// The event on one line of a watch.
///
/// # Errors
/// What is wrong with it; never a part of it.
pub fn decode_watch_event(line: &[u8]) -> Result<WatchEvent, String> {
    let raw: RawEvent = parse(line, "watch event")?;
    match raw.kind.as_str() {
        kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
            let RawMetadata { name, version } = raw.object.metadata;
            Ok(WatchEvent::Changed { name, version, gone: kind == "DELETED" })
        }
        "BOOKMARK" => Ok(WatchEvent::Bookmark { version: raw.object.metadata.version }),
        "ERROR" => Ok(WatchEvent::Error { code: raw.object.code, message: cleaned(&raw.object.message) }),
        _ => Err("the answer is not a watch event: its type is unknown".to_owned()),
    }
}

/// What the server says is wrong, if `text` says it the way API servers do.
pub(super) fn status_message(text: &[u8]) -> Option<String> {
    let status: RawStatus = serde_json::from_slice(text).ok()?;
    (status.kind == "Status" && !status.message.is_empty()).then(|| cleaned(&status.message))
}

/// A part of a list of metadata.
pub(super) fn decode_list(text: &[u8]) -> Result<ListPage, String> {
    let list: RawList = parse(text, "list")?;
    let version = list.metadata.version;
    if !is_version(&version) {
        return Err("the answer is not a list: its version is malformed".to_owned());
    }
    let items = list.items.unwrap_or_default().into_iter();
    let items = items.map(|item| (item.metadata.name, item.metadata.version)).collect();
    Ok(ListPage { version, items, next: list.metadata.next })
}

/// Whether a text can stand in an address as the version to go on from.
pub(super) fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn parse<'de, T: Deserialize<'de>>(text: &'de [u8], what: impl fmt::Display) -> Result<T, String> {
    // The parser's own words may repeat a value.
    serde_json::from_slice(text).map_err(|error| {
        format!("the answer is not a {what}: line {} column {}", error.line(), error.column())
    })
}

/// Foreign words, fit for one line of a message, and without what may be a token.
fn cleaned(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line = String::new();
    for part in text.split_inclusive(|char: char| !(char.is_ascii_alphanumeric() || "_-+/=".contains(char))) {
        let word = part.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
        line.push_str(if is_tokenlike(word) { REDACTED } else { part });
    }
    let mut cut: String =
        line.chars().take(LONGEST).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if line.chars().nth(LONGEST).is_some() {
        cut.push('…');
    }
    cut
}

/// Whether a word is as random as tokens are: long, with digits and both cases, which no name of a cluster has.
fn is_tokenlike(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    word.len() >= 32 && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
}

// === impl Encoded ===

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Encoded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Encoded, E> {
                let decoded = BASE64.decode(text).map_err(|_| E::custom("not base64"))?;
                Ok(Encoded(match String::from_utf8(decoded) {
                    Ok(value) => Some(Secret::new(value)),
                    Err(binary) => {
                        binary.into_bytes().zeroize();
                        None
                    }
                }))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Encoded, E> {
                Ok(Encoded(Some(Secret::default())))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

// === impl Plain ===

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}
