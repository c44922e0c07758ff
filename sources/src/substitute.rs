//! `${agent.name}`, `${agent.environment}` and `${agent.labels.X}` in settings: the only substitutions,
//! done once, so that a value that looks like an expression stays text.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What is known about this agent when sources are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AgentAttributes {
    /// The agent's name, by default the host's.
    pub name: String,
    /// The environment it serves, where the settings name one.
    #[serde(default)]
    pub environment: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Why a text could not be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    /// `${` without `}`.
    #[error("`${{` without `}}` in `{0}`")]
    Unclosed(String),
    /// Not one of the three.
    #[error("`${{{0}}}` is not known; there are agent.name, agent.environment and agent.labels.X")]
    Unknown(String),
    /// The attribute has no value on this agent.
    #[error("`${{{0}}}` has no value on this agent")]
    Undefined(String),
    /// The value could step out of where it is put.
    #[error("the value of `${{{0}}}` may not contain `/`, `\\`, control characters, or be `.` or `..`")]
    Unsafe(String),
}

/// Replaces every expression in `text`, in a single pass.
///
/// # Errors
/// [`SubstituteError`].
pub fn substitute(text: &str, agent: &AgentAttributes) -> Result<String, SubstituteError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        let (expression, remaining) =
            after.split_once('}').ok_or_else(|| SubstituteError::Unclosed(text.to_owned()))?;
        let undefined = || SubstituteError::Undefined(expression.to_owned());
        let value = match expression.trim() {
            "agent.name" => agent.name.as_str(),
            "agent.environment" => agent.environment.as_deref().ok_or_else(undefined)?,
            other => match other.strip_prefix("agent.labels.") {
                Some(label) => agent.labels.get(label).ok_or_else(undefined)?,
                None => return Err(SubstituteError::Unknown(expression.to_owned())),
            },
        };
        if value.is_empty() {
            return Err(undefined());
        }
        let is_unsafe = |c: char| c.is_control() || matches!(c, '/' | '\\');
        if value == "." || value == ".." || value.contains(is_unsafe) {
            return Err(SubstituteError::Unsafe(expression.to_owned()));
        }
        result.push_str(value);
        rest = remaining;
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn agent() -> AgentAttributes {
        AgentAttributes {
            name: "web-17".to_owned(),
            environment: Some("production".to_owned()),
            labels: [("region", "eu-1"), ("odd", "${agent.name}"), ("up", ".."), ("empty", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn attributes_are_put_in_once() {
        let text = substitute("e/${agent.environment}/${ agent.name }-${agent.labels.region}$", &agent());
        assert_eq!(text.unwrap(), "e/production/web-17-eu-1$");
        assert_eq!(substitute("${agent.labels.odd}", &agent()).unwrap(), "${agent.name}");
        assert_eq!(substitute("plain", &agent()).unwrap(), "plain");
    }

    #[test]
    fn what_is_unknown_or_unsafe_is_an_error() {
        assert!(matches!(substitute("${agent.nam}", &agent()), Err(SubstituteError::Unknown(_))));
        assert!(matches!(substitute("${env.HOME}", &agent()), Err(SubstituteError::Unknown(_))));
        assert!(matches!(substitute("${agent.name", &agent()), Err(SubstituteError::Unclosed(_))));
        assert!(matches!(substitute("${agent.labels.x}", &agent()), Err(SubstituteError::Undefined(_))));
        assert!(matches!(substitute("${agent.labels.empty}", &agent()), Err(SubstituteError::Undefined(_))));
        assert!(matches!(substitute("${agent.labels.up}", &agent()), Err(SubstituteError::Unsafe(_))));
        let without = AgentAttributes::default();
        assert!(matches!(substitute("${agent.environment}", &without), Err(SubstituteError::Undefined(_))));
    }
}
