//! `discovery.relabel`: rewrites and selects targets by rules. It has no task: its exports are a function of its arguments,
//! computed when they change.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use invar_blocks::{RelabelRuleBlock, RelabelRules, Target};
use invar_engine::{Component, ExportContext, InstanceContext, PrepareError, StateContext};
use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_telemetry::{LabelsBuilder, Verdict, relabel};

/// The component type.
#[derive(Debug)]
pub struct DiscoveryRelabel;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DiscoveryRelabelArguments {
    /// The targets to rewrite.
    #[argument(required)]
    pub targets: Vec<Target>,
    /// Rules, applied in order to each target.
    #[argument(block, name = "rule")]
    pub rules: Vec<RelabelRuleBlock>,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct DiscoveryRelabelExports {
    /// The targets that are kept, rewritten, in the order of the arguments.
    pub output: Vec<Target>,
    /// The rules themselves, for components that apply them to what they produce.
    pub rules: RelabelRules,
}

/// The compiled rules and what they made of the targets.
#[derive(Debug)]
pub struct State {
    rules: RelabelRules,
    output: Vec<Target>,
    /// What the rules made of each target, so that the next list only costs what is new in it.
    known: HashMap<Target, Option<Target>>,
}

impl Component for DiscoveryRelabel {
    const NAME: &'static str = "discovery.relabel";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Rewrites and selects targets by rules.";

    type Arguments = DiscoveryRelabelArguments;
    type Exports = DiscoveryRelabelExports;
    type Instance = ();
    type State = State;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<()>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let rules = RelabelRules::compile(&arguments.rules)
            .map_err(|error| PrepareError::invalid(format!("{}: {}", error.field, error.message)))?;
        let previous = context.previous::<Self>().filter(|previous| previous.rules == rules);
        Ok(State::new(rules, &arguments.targets, previous.as_deref()))
    }

    fn exports(_instance: &(), state: &State, _context: &ExportContext) -> DiscoveryRelabelExports {
        DiscoveryRelabelExports { output: state.output.clone(), rules: state.rules.clone() }
    }
}

// === impl State ===

impl State {
    fn new(rules: RelabelRules, targets: &[Target], previous: Option<&Self>) -> Self {
        let mut known: HashMap<Target, Option<Target>> = HashMap::with_capacity(targets.len());
        let mut output = Vec::with_capacity(targets.len());
        let mut labels = LabelsBuilder::new();
        for target in targets {
            let result = known.entry(target.clone()).or_insert_with(|| {
                match previous.and_then(|previous| previous.known.get(target)) {
                    Some(result) => result.clone(),
                    None => rewrite(&rules, target, &mut labels),
                }
            });
            output.extend(result.clone());
        }
        Self { rules, output, known }
    }
}

fn rewrite(rules: &RelabelRules, target: &Target, labels: &mut LabelsBuilder) -> Option<Target> {
    labels.clear();
    for (name, value) in target.iter() {
        labels.set(name, value);
    }
    match relabel(&rules.0, labels) {
        Verdict::Keep => Some(Target::from_builder(labels)),
        Verdict::Drop => None,
    }
}
