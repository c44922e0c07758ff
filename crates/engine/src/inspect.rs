//! Read models of the running pipeline: built from one generation each, without the writer's part in them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use invar_syntax::json::value_to_json;
use invar_syntax::value::Value;
use jiff::Timestamp;

use crate::configuration::Configuration;
use crate::engine::Shared;
use crate::generation::{Generation, Occupant, Slot};
use crate::graph::{Custom, Graph, GraphNode, NodeKind};
use crate::health::{Health, HealthState};
use crate::report::{
    ComponentStatus, EdgeKind, GenerationStatus, GraphEdge, GraphNodeReport, GraphReport, HealthCounts,
    Provenance,
};
use crate::vitals::VitalsReport;

impl Shared {
    pub(crate) fn vitals(&self) -> VitalsReport {
        let (running, retained, baseline) = {
            let writer = self.writer.lock();
            (self.root.current(), writer.retained.clone(), writer.baseline.clone())
        };
        VitalsReport::compare(&running, retained.as_deref(), &baseline)
    }

    pub(crate) fn components(&self) -> Vec<ComponentStatus> {
        let generation = self.root.current();
        let health = combined_health(&generation);
        (0_u32..)
            .zip(&generation.graph.nodes)
            .filter(|(_, node)| node.is_shown())
            .map(|(index, _)| status(&generation, index, health[index as usize].clone()))
            .collect()
    }

    pub(crate) fn component(&self, node: &str) -> Option<ComponentStatus> {
        let generation = self.root.current();
        let index = generation.graph.find(node)?;
        if !generation.graph.node(index).is_shown() {
            return None;
        }
        let slot = generation.slot(index);
        let health = combined_health(&generation).swap_remove(index as usize);
        let mut status = status(&generation, index, health);
        if let Some(unit) = slot.unit() {
            let definition = unit.cell.definition();
            let debug_info = catch_unwind(AssertUnwindSafe(|| definition.debug_info(unit.cell.instance())));
            status.debug_info = value_to_json(&debug_info.unwrap_or(Value::Null));
        }
        Some(status)
    }

    pub(crate) fn graph_report(&self) -> GraphReport {
        let generation = self.root.current();
        let graph = &generation.graph;
        let mut report = GraphReport::default();
        let health = combined_health(&generation);
        for ((node, slot), health) in graph.nodes.iter().zip(&generation.slots).zip(health) {
            report.nodes.push(GraphNodeReport {
                id: node.id.clone(),
                name: node.type_name(),
                health: health.state,
            });
            let targets = slot.outputs.iter().map(|output| (output.slot, EdgeKind::Data));
            for (target, kind) in
                targets.chain(node.references.iter().map(|target| (*target, EdgeKind::Reference)))
            {
                let to = graph.node(target).id.clone();
                report.edges.push(GraphEdge { from: node.id.clone(), to, kind });
            }
        }
        report
    }

    pub(crate) fn generation_status(&self) -> GenerationStatus {
        let (generation, retained) = self.base();
        GenerationStatus {
            id: generation.id,
            epoch: generation.epoch,
            digest: generation.configuration.digest.clone(),
            revision: generation.configuration.revision.clone(),
            on_probation: retained.is_some(),
            nodes: generation.graph.len(),
        }
    }

    pub(crate) fn health_counts(&self) -> HealthCounts {
        let mut counts = HealthCounts::default();
        let generation = self.root.current();
        for (node, health) in generation.graph.nodes.iter().zip(combined_health(&generation)) {
            if node.is_shown() {
                counts.add(health.state);
            }
        }
        counts
    }
}

/// How each node is: a custom component as its least healthy part, and as the import it comes from.
fn combined_health(generation: &Generation) -> Vec<Health> {
    let graph = &generation.graph;
    let mut combined: Vec<Health> = generation.slots.iter().map(own_health).collect();
    // What is within a node comes after it.
    for index in (0..graph.nodes.len()).rev() {
        if let NodeKind::Custom(Custom { import: Some(import), .. }) = &graph.nodes[index].kind {
            let import = combined[*import as usize].clone();
            worsen(&mut combined[index], import);
        }
        if let Some(owner) = u32::try_from(index).ok().and_then(|index| graph.owner(index)) {
            let part = combined[index].clone();
            worsen(&mut combined[owner as usize], part);
        }
    }
    combined
}

/// Takes over the opinion on a part where that is worse.
fn worsen(health: &mut Health, part: Health) {
    if part.state > health.state {
        *health = part;
    }
}

fn own_health(slot: &Slot) -> Health {
    match &slot.place.occupant {
        Occupant::Ready(unit) => unit.cell.health().combined(),
        Occupant::Failed(failure) => Health {
            state: HealthState::Unhealthy,
            message: format!("component could not be prepared: {}", failure.reason),
            since: failure.since,
        },
        Occupant::Value(None) => Health {
            state: HealthState::Healthy,
            message: "evaluated".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        },
        Occupant::Value(Some(problem)) => Health {
            state: HealthState::Unhealthy,
            message: format!("evaluation failed: {}", problem.reason),
            since: problem.since,
        },
    }
}

/// Where the block of a node comes from.
pub(crate) fn provenance(graph: &Graph, configuration: &Configuration, node: &GraphNode) -> Provenance {
    let sources = configuration.inputs.authors_at(graph, node.frame, &node.block);
    let name = node.block.file_name();
    let of_source = |source: &&str| name.strip_prefix(*source).and_then(|rest| rest.strip_prefix(':'));
    let file = sources.iter().find_map(of_source).unwrap_or(name).to_owned();
    Provenance { file, line: node.block.line(), sources: sources.into_iter().map(str::to_owned).collect() }
}

fn status(generation: &Generation, index: u32, health: Health) -> ComponentStatus {
    let graph = &generation.graph;
    let (node, slot) = (graph.node(index), generation.slot(index));
    let ids = |indices: &[u32]| indices.iter().map(|index| graph.node(*index).id.clone()).collect();
    let unit = slot.unit();
    let arguments = node.component().zip(unit).map(|(definition, unit)| {
        let value = catch_unwind(AssertUnwindSafe(|| definition.arguments_value(&unit.arguments)));
        value_to_json(&value.unwrap_or(Value::Null))
    });
    let given = || match &node.kind {
        NodeKind::Custom(custom) => {
            let value =
                |argument: u32| generation.slot(argument).place.exports.to_object()?.get("value").cloned();
            let given = custom.arguments.iter();
            let given = given.map(|(name, node)| (Arc::clone(name), value(*node).unwrap_or_default()));
            value_to_json(&Value::object(given))
        }
        _ => serde_json::Value::Null,
    };
    ComponentStatus {
        id: node.id.clone(),
        name: node.type_name(),
        label: node.block.get().label.as_ref().map(|label| label.text.to_string()),
        health,
        arguments: arguments.unwrap_or_else(given),
        exports: value_to_json(&slot.place.exports),
        debug_info: serde_json::Value::Null,
        instance: unit.map(|unit| unit.cell.number().to_string()),
        generation: generation.id,
        references_to: ids(&node.references),
        referenced_by: ids(&node.dependants),
        data_flow_to: slot.outputs.iter().map(|output| graph.node(output.slot).id.clone()).collect(),
        location: node.block.location(),
        provenance: provenance(graph, &generation.configuration, node),
        restarts: unit.map_or(0, |unit| unit.cell.restarts()),
    }
}
