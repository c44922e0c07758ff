//! What the expressions of a configuration may use beside the components: variables, the agent's attributes, where
//! relative paths begin. Off the host, attributes that were not given are unknown values of their type.

use std::collections::HashMap;
use std::sync::Arc;

use invar_policy::Policy;
use invar_syntax::File;
use invar_syntax::check::TypeLookup;
use invar_syntax::diagnostic::{Diagnostics, Label, nearest};
use invar_syntax::evaluate::{Reference, references};
use invar_syntax::schema::Type;
use invar_syntax::scope::Missing;
use invar_syntax::value::{Object, Value};

use crate::authors::Authors;
use crate::configuration::Configuration;
use crate::secrets::Secrets;
use crate::variables::{Definition, Undefined, Variables};

/// The names by which expressions reach the inputs.
pub(crate) const INPUT_NAMES: [&str; 3] = ["var", "agent", "module_path"];

/// What `agent` has.
const AGENT_FIELDS: [&str; 3] = ["name", "environment", "labels"];

/// How many variables an error names the places of; an expression that uses many is at fault as a whole.
const ORIGINS: usize = 3;

/// What the expressions of a configuration may use beside the components.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// `var`: typed variables.
    pub variables: Variables,
    /// `agent`: name, environment, labels; an object.
    pub agent: Value,
    /// `module_path`: where relative paths in the files begin.
    pub module_path: String,
    /// Whether the configuration is for another host than this one: what `agent` does not say then, and the variables of
    /// the environment, are unknown.
    pub off_host: bool,
    /// What may be used of the host, and by whom.
    pub policy: Arc<Policy>,
    /// Who wrote which file.
    pub authors: Authors,
    /// Where secrets come from.
    pub secrets: Secrets,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            variables: Variables::default(),
            agent: Value::from(Object::new()),
            module_path: String::new(),
            off_host: false,
            policy: Arc::default(),
            authors: Authors::default(),
            secrets: Secrets::default(),
        }
    }
}

impl Inputs {
    /// The value of an input name, as far as it is known.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        match name {
            "var" => Some(Value::Object(Arc::clone(self.variables.values()))),
            "agent" => Some(self.agent.clone()),
            "module_path" => Some(Value::string(self.module_path.as_str())),
            _ => None,
        }
    }

    /// The value of the longest part of `path` that the inputs answer, and how many names that took. None where the path
    /// does not lead to an input; [`Self::undefined`] then says whether it should.
    pub(crate) fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        match path {
            ["var", rest @ ..] => {
                let (value, taken) = self.variables.follow(rest)?;
                Some((value, taken + 1))
            }
            ["agent", rest @ ..] => self.resolve_agent(rest),
            ["sys", "env", ..] if self.off_host => Some((Value::Unknown(Type::Any), 2)),
            ["env", ..] if self.off_host => Some((Value::Unknown(Type::Any), 1)),
            [first, ..] => self.get(first).map(|value| (value, 1)),
            [] => None,
        }
    }

    fn resolve_agent(&self, path: &[&str]) -> Option<(Value, usize)> {
        let agent = self.agent.to_object()?;
        match path {
            // Whether there are more labels than were given nobody knows here.
            [] if self.off_host => Some((Value::Unknown(agent_type()), 1)),
            [] => Some((self.agent.clone(), 1)),
            ["labels"] if self.off_host => Some((Value::Unknown(labels_type()), 2)),
            ["labels", label, ..] => {
                let given = agent.get("labels").and_then(Value::to_object);
                match given.and_then(|labels| labels.get(label).cloned()) {
                    Some(value) => Some((value, 3)),
                    None => self.off_host.then_some((Value::Unknown(Type::String), 3)),
                }
            }
            [field, ..] => match agent.get(field) {
                Some(value) => Some((value.clone(), 2)),
                None => {
                    (self.off_host && AGENT_FIELDS.contains(field)).then(|| (Value::Unknown(Type::String), 2))
                }
            },
        }
    }

    /// What to say of a path that begins with an input's name and that [`Self::resolve`] does not find.
    pub(crate) fn undefined(&self, path: &[&str]) -> Option<Undefined> {
        match path {
            ["var", rest @ ..] => self.variables.undefined(rest),
            ["agent", "labels", label, ..] => {
                let labels = self.agent.to_object().and_then(|agent| agent.get("labels")?.to_object());
                let near = labels.and_then(|labels| {
                    nearest(label, labels.keys().map(|key| &**key)).map(|near| format!("agent.labels.{near}"))
                });
                let message = format!(
                    "this agent has no label \"{label}\"; give it one in `[agent] labels` of its settings"
                );
                Some(Undefined { message, nearest: near })
            }
            ["agent", field, ..] => Some(Undefined {
                message: format!(
                    "agent.{field} does not exist; there are agent.name, agent.environment and agent.labels"
                ),
                nearest: nearest(field, AGENT_FIELDS.into_iter()).map(|near| format!("agent.{near}")),
            }),
            _ => None,
        }
    }

    /// As [`Self::undefined`], for a scope to say.
    pub(crate) fn missing(&self, path: &[&str]) -> Option<Missing> {
        let undefined = self.undefined(path)?;
        let help = undefined.nearest.map(|near| format!("did you mean \"{near}\"?"));
        Some(Missing { message: undefined.message, help })
    }

    /// The type of what `path` names, for the static check.
    pub(crate) fn type_of(&self, path: &[&str]) -> TypeLookup {
        if !path.first().is_some_and(|first| INPUT_NAMES.contains(first)) {
            return TypeLookup::Unknown;
        }
        match self.resolve(path) {
            Some((value, taken)) => TypeLookup::Known(type_of(&value), taken),
            None => match self.undefined(path) {
                Some(Undefined { message, nearest }) => TypeLookup::Missing { message, nearest },
                None => TypeLookup::Unknown,
            },
        }
    }

    /// The value that the whole of `path` names, where it is known.
    pub(crate) fn value_of(&self, path: &[&str]) -> Option<Value> {
        if !path.first().is_some_and(|first| INPUT_NAMES.contains(first)) {
            return None;
        }
        let (value, taken) = self.resolve(path)?;
        (taken == path.len() && !value.has_unknown()).then_some(value)
    }
}

impl Configuration {
    /// Adds to every error in an expression that uses variables where those were defined.
    pub fn point_at_variables(&self, diagnostics: &mut Diagnostics) {
        let mut uses: HashMap<&str, Vec<Reference>> = HashMap::new();
        let mut files: HashMap<&str, &File> = HashMap::new();
        for file in &self.files {
            files.entry(&file.source.name).or_insert(file);
        }
        for diagnostic in &mut diagnostics.0 {
            let Some(place) = diagnostic.primary() else { continue };
            let Some(file) = files.get(&*place.source.name) else { continue };
            let span = place.span;
            let uses = uses.entry(&file.source.name).or_insert_with(|| {
                let is_variable =
                    |reference: &Reference| reference.path.first().is_some_and(|root| &**root == "var");
                references(&file.body).into_iter().filter(is_variable).collect()
            });
            let mut found: Vec<(&Definition, String)> = Vec::new();
            // In the order of the text, and none within another.
            let first = uses.partition_point(|reference| reference.span.end <= span.start);
            for reference in uses[first..].iter().take_while(|reference| reference.span.start < span.end) {
                if let Some((definition, length)) = self.inputs.variables.origin(&reference.path[1..])
                    && found.len() <= ORIGINS
                    && !found.iter().any(|(known, _)| *known == definition)
                {
                    found.push((definition, reference.path[..=length].join(".")));
                }
            }
            if found.len() <= ORIGINS {
                for (definition, name) in found {
                    let place = definition.key.to(definition.value);
                    let label = Label {
                        source: Arc::clone(&definition.source),
                        span: place,
                        text: format!("{name} is defined here"),
                    };
                    diagnostic.labels.push(label);
                }
            }
        }
    }
}

fn labels_type() -> Type {
    Type::Map(Box::new(Type::String))
}

fn agent_type() -> Type {
    Type::Object(vec![("name", Type::String), ("environment", Type::String), ("labels", labels_type())])
}

/// The type of a value, as far as the static check goes: what is in lists and objects stays open.
fn type_of(value: &Value) -> Type {
    match value {
        Value::Bool(_) => Type::Bool,
        Value::Number(_) => Type::Number,
        Value::String(_) => Type::String,
        Value::Unknown(unknown) => unknown.clone(),
        _ => Type::Any,
    }
}
