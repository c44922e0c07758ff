//! What the server says, as far as it is looked at. Values go from the text straight into [`Secret`]s; no message repeats
//! any part of what is not an error message of the server.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use invar_syntax::Secret;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::snapshot::Lease;

/// Longer durations are as good as for ever, and far from overflowing.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A value within an answer, its texts kept as secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(Secret),
    /// A list.
    List(Vec<Self>),
    /// Fields by name.
    Map(BTreeMap<String, Self>),
}

/// A successful answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What has to be renewed for the values to last.
    pub lease: Option<Lease>,
    /// What was asked for.
    pub data: Option<Tree>,
    /// A token that was granted.
    pub auth: Option<Grant>,
    /// What to unwrap to have the answer.
    pub wrapping: Option<Wrapping>,
    /// What the server wants people to read.
    pub warnings: Vec<String>,
}

/// A token that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token.
    pub token: Secret,
    /// For how long; `None` for ever.
    pub lifetime: Option<Duration>,
    /// Whether the time can be extended.
    pub renewable: bool,
    /// Whether it is a batch token, which cannot be.
    pub batch: bool,
}

/// A wrapped answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// The token that unwraps it, once.
    pub token: Secret,
    /// The path whose answer it is.
    pub creation_path: String,
}

/// How a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// Whether it was ever initialised.
    #[serde(default)]
    pub initialized: bool,
    /// Whether it cannot read its own storage.
    #[serde(default)]
    pub sealed: bool,
    /// Whether another node is the active one.
    #[serde(default)]
    pub standby: bool,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

#[derive(Deserialize)]
struct RawAnswer {
    #[serde(default)]
    lease_id: Option<Secretly>,
    #[serde(default)]
    lease_duration: Option<u64>,
    #[serde(default)]
    renewable: Option<bool>,
    #[serde(default)]
    data: Option<Tree>,
    #[serde(default)]
    auth: Option<RawGrant>,
    #[serde(default)]
    wrap_info: Option<RawWrapping>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawGrant {
    #[serde(default)]
    client_token: Option<Secretly>,
    #[serde(default)]
    lease_duration: Option<u64>,
    #[serde(default)]
    renewable: Option<bool>,
    #[serde(default)]
    token_type: Option<String>,
}

#[derive(Deserialize)]
struct RawWrapping {
    token: Secretly,
    #[serde(default)]
    creation_path: Option<String>,
}

#[derive(Deserialize)]
struct RawErrors {
    #[serde(default)]
    errors: Option<Vec<String>>,
}

/// Text that is kept as a secret.
struct Secretly(Secret);

/// The answer that `text` is, in JSON.
///
/// # Errors
/// What is wrong with it; never a part of it.
pub fn decode_answer(text: &[u8]) -> Result<Answer, String> {
    // A list would do for the parser, its items taken for fields.
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err("the answer is none of this server's API: it is no object".to_owned());
    }
    // The parser's own words may repeat a value.
    let raw: RawAnswer = serde_json::from_slice(text).map_err(|error| {
        format!("the answer is none of this server's API: line {} column {}", error.line(), error.column())
    })?;
    let lifetime = |seconds: Option<u64>| Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST);
    let lease = raw.lease_id.map(|Secretly(id)| id).filter(|id| !id.is_empty()).map(|id| Lease {
        id: id.expose().to_owned(),
        duration: lifetime(raw.lease_duration),
        renewable: raw.renewable.unwrap_or(false),
    });
    let auth = raw.auth.and_then(|auth| {
        let token = auth.client_token.map(|Secretly(token)| token).filter(|token| !token.is_empty())?;
        Some(Grant {
            token,
            lifetime: Some(lifetime(auth.lease_duration)).filter(|lifetime| !lifetime.is_zero()),
            renewable: auth.renewable.unwrap_or(false),
            batch: auth.token_type.as_deref() == Some("batch"),
        })
    });
    let wrapping = raw.wrap_info.map(|wrapping| Wrapping {
        token: wrapping.token.0,
        creation_path: wrapping.creation_path.unwrap_or_default(),
    });
    let warnings = raw.warnings.unwrap_or_default();
    let warnings = warnings.iter().map(|warning| cleaned(warning)).collect();
    Ok(Answer { lease, data: raw.data.filter(|data| *data != Tree::Null), auth, wrapping, warnings })
}

/// What the server says is wrong, if `text` says it the way such servers do.
#[must_use]
pub fn decode_errors(text: &[u8]) -> Vec<String> {
    let raw = serde_json::from_slice::<RawErrors>(text).ok().and_then(|raw| raw.errors);
    raw.unwrap_or_default().iter().map(|error| cleaned(error)).filter(|error| !error.is_empty()).collect()
}

/// How the server says it is.
pub(crate) fn decode_health(text: &[u8]) -> Option<Health> {
    serde_json::from_slice(text).ok()
}

/// Foreign words, fit for one line of a message.
fn cleaned(text: &str) -> String {
    const LONGEST: usize = 300;
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = one_line.chars().filter(|char| !char.is_control()).take(LONGEST).collect();
    if one_line.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

// === impl Tree ===

impl Tree {
    /// The fields, if it has any by name.
    #[must_use]
    pub fn as_map(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What stands under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_map()?.get(name)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.expose()),
            _ => None,
        }
    }

    /// The number, if it is one without a sign and a fraction; some engines write numbers as texts.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            Self::Text(text) => text.expose().parse().ok(),
            _ => None,
        }
    }

    /// Whether it is `true`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    /// As one secret: a text as it is, everything else in JSON; nothing for `null`.
    #[must_use]
    pub fn to_secret(&self) -> Option<Secret> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone()),
            other => {
                // Growing would leave pieces behind.
                let mut json = Zeroizing::new(Vec::with_capacity(other.longest()));
                other.write(&mut json);
                std::str::from_utf8(&json).ok().map(Secret::new)
            }
        }
    }

    /// At least as many bytes as it is long in JSON.
    fn longest(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 8,
            Self::Number(number) => number.to_string().len() + 1,
            Self::Text(text) => text.expose().len() * 6 + 3,
            Self::List(items) => items.iter().map(Self::longest).sum::<usize>() + items.len() + 2,
            Self::Map(map) => {
                map.iter().map(|(name, item)| name.len() * 6 + 4 + item.longest()).sum::<usize>() + 2
            }
        }
    }

    fn write(&self, json: &mut Vec<u8>) {
        // Writing to memory does not fail.
        match self {
            Self::Null => json.extend_from_slice(b"null"),
            Self::Bool(value) => drop(write!(json, "{value}")),
            Self::Number(number) => drop(write!(json, "{number}")),
            Self::Text(text) => drop(serde_json::to_writer(json, text.expose())),
            Self::List(items) => {
                json.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        json.push(b',');
                    }
                    item.write(json);
                }
                json.push(b']');
            }
            Self::Map(map) => {
                json.push(b'{');
                for (at, (name, item)) in map.iter().enumerate() {
                    if at > 0 {
                        json.push(b',');
                    }
                    drop(serde_json::to_writer(&mut *json, name));
                    json.push(b':');
                    item.write(json);
                }
                json.push(b'}');
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(Secret::new(value)))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(Secret::new(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, item)) = access.next_entry()? {
            map.insert(name, item);
        }
        Ok(Tree::Map(map))
    }
}

// === impl Secretly ===

impl<'de> Deserialize<'de> for Secretly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Tree::deserialize(deserializer)? {
            Tree::Text(text) => Ok(Self(text)),
            Tree::Null => Ok(Self(Secret::default())),
            _ => Err(serde::de::Error::custom("not text")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_of_an_answer() {
        let answer = decode_answer(
            br#"{"request_id":"r","lease_id":"db/creds/a/1","renewable":true,"lease_duration":3600,
                "data":{"user":"u","password":"hunter2\n","port":5432,"on":true,"none":null,"list":["a",{"b":1.5}]},
                "wrap_info":null,"warnings":["old\nwords"],"auth":null,"mount_type":"database"}"#,
        )
        .unwrap();
        let lease = answer.lease.clone().unwrap();
        assert_eq!((lease.duration.as_secs(), lease.renewable), (3600, true));
        assert_eq!(answer.warnings, ["old words"]);
        let field = |name: &str| {
            let secret = answer.data.as_ref().unwrap().get(name).unwrap().to_secret();
            secret.map(|secret| secret.expose().to_owned())
        };
        assert_eq!(field("password").as_deref(), Some("hunter2\n"));
        assert_eq!(field("port").as_deref(), Some("5432"));
        assert_eq!(field("on").as_deref(), Some("true"));
        assert_eq!(field("none"), None);
        assert_eq!(field("list").as_deref(), Some(r#"["a",{"b":1.5}]"#));
        let shown = format!("{answer:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("db/creds"), "{shown}");
    }

    #[test]
    fn tokens_and_wrappings() {
        let answer = decode_answer(
            br#"{"auth":{"client_token":"hvs.x","lease_duration":0,"renewable":false,"token_type":"service"}}"#,
        )
        .unwrap();
        assert_eq!(answer.auth.unwrap().lifetime, None, "a root token has no end");
        let answer = decode_answer(
            br#"{"auth":{"client_token":"hvb.x","lease_duration":60,"renewable":false,"token_type":"batch"}}"#,
        )
        .unwrap();
        assert!(answer.auth.unwrap().batch);
        let answer =
            decode_answer(br#"{"wrap_info":{"token":"hvs.w","ttl":60,"creation_path":"kv/data/a"}}"#)
                .unwrap();
        assert_eq!(answer.wrapping.unwrap().creation_path, "kv/data/a");
        assert!(decode_answer(br#"{"auth":{"client_token":""}}"#).unwrap().auth.is_none());
    }

    #[test]
    fn what_is_no_answer_is_not_repeated() {
        for text in [&b"hunter2"[..], br#"{"data":"hunter2"#, br#"{"lease_duration":"hunter2"}"#, b"[]", b""]
        {
            let error = decode_answer(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let deep = "[".repeat(5000);
        assert!(decode_answer(format!(r#"{{"data":{deep}"#).as_bytes()).is_err());
    }

    #[test]
    fn errors_are_one_line_each() {
        let body = br#"{"errors":["1 error occurred:\n\t* permission denied\n\n",""]}"#;
        assert_eq!(decode_errors(body), ["1 error occurred: * permission denied"]);
        assert!(decode_errors(b"<html>").is_empty());
        assert_eq!(
            decode_errors(format!(r#"{{"errors":["{}"]}}"#, "x".repeat(500)).as_bytes())[0].chars().count(),
            301
        );
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            "\\PC{0,12}".prop_map(Into::into),
            "[\"\\\\\n\u{1}a]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_survives(value in values()) {
            let text = serde_json::json!({ "data": { "field": &value } }).to_string();
            let answer = decode_answer(text.as_bytes()).unwrap();
            let tree = answer.data.as_ref().unwrap().get("field").unwrap();
            match (tree.to_secret(), &value) {
                (None, value) => prop_assert!(value.is_null()),
                (Some(secret), serde_json::Value::String(text)) => prop_assert_eq!(secret.expose(), text),
                (Some(secret), value) => {
                    let again: serde_json::Value = serde_json::from_str(secret.expose()).unwrap();
                    prop_assert_eq!(&again, value);
                    prop_assert!(secret.expose().len() <= tree.longest());
                }
            }
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode_answer(&bytes));
            drop(decode_errors(&bytes));
        }
    }
}
