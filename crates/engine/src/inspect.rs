//! Read models of the running pipeline: built from one generation each, without the writer's part in them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use invar_syntax::json::value_to_json;
use invar_syntax::value::Value;

use crate::engine::Shared;
use crate::generation::{Generation, Occupant, Slot};
use crate::graph::GraphNode;
use crate::health::{Health, HealthState};
use crate::report::{
    ComponentStatus, EdgeKind, GenerationStatus, GraphEdge, GraphNodeReport, GraphReport, HealthCounts,
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
        let slots = generation.graph.nodes.iter().zip(&generation.slots);
        slots.map(|(node, slot)| status(&generation, node, slot)).collect()
    }

    pub(crate) fn component(&self, node: &str) -> Option<ComponentStatus> {
        let generation = self.root.current();
        let index = generation.graph.find(node)?;
        let slot = generation.slot(index);
        let mut status = status(&generation, generation.graph.node(index), slot);
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
        for (node, slot) in graph.nodes.iter().zip(&generation.slots) {
            report.nodes.push(GraphNodeReport {
                id: node.id.clone(),
                name: node.definition.name().to_owned(),
                health: health(slot).state,
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
        for slot in &self.root.current().slots {
            counts.add(health(slot).state);
        }
        counts
    }
}

fn health(slot: &Slot) -> Health {
    match &slot.place.occupant {
        Occupant::Ready(unit) => unit.cell.health().combined(),
        Occupant::Failed(failure) => Health {
            state: HealthState::Unhealthy,
            message: format!("component could not be prepared: {}", failure.reason),
            since: failure.since,
        },
    }
}

fn status(generation: &Generation, node: &GraphNode, slot: &Slot) -> ComponentStatus {
    let graph = &generation.graph;
    let ids = |indices: &[u32]| indices.iter().map(|index| graph.node(*index).id.clone()).collect();
    let unit = slot.unit();
    let arguments = unit.map(|unit| {
        let value = catch_unwind(AssertUnwindSafe(|| node.definition.arguments_value(&unit.arguments)));
        value_to_json(&value.unwrap_or(Value::Null))
    });
    ComponentStatus {
        id: node.id.clone(),
        name: node.definition.name().to_owned(),
        label: node.block.get().label.as_ref().map(|label| label.text.to_string()),
        health: health(slot),
        arguments: arguments.unwrap_or(serde_json::Value::Null),
        exports: value_to_json(&slot.place.exports),
        debug_info: serde_json::Value::Null,
        instance: unit.map(|unit| unit.cell.number().to_string()),
        generation: generation.id,
        references_to: ids(&node.references),
        referenced_by: ids(&node.dependants),
        data_flow_to: slot.outputs.iter().map(|output| graph.node(output.slot).id.clone()).collect(),
        location: node.block.location(),
        restarts: unit.map_or(0, |unit| unit.cell.restarts()),
    }
}
