//! Invar's own API: status, sources, revisions, plan, graph, components, quarantine, and the few calls that change
//! something. Answers are JSON; changes to their shape are additive.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use invar_engine::{ComponentStatus, GraphReport};
use invar_rollout::{
    Hold, PlanSummary, QuarantineEntry, RevisionRecord, Status, Timestamp, VariableReport, explain_variable,
};
use serde::Deserialize;

use super::{Face, Refusal, events, secrets, sources};
use crate::planning::Proposal;

/// Longest that a call which waits for its effect waits: a fetch, a prepare and a probation fit in.
const PATIENCE: Duration = Duration::from_secs(290);

type Answer<T> = Result<Json<T>, Refusal>;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/status", get(status))
        .route("/sources", get(sources::list))
        .route("/sources/{*name}", get(sources::one))
        .route("/secrets", get(secrets::list))
        .route("/secrets/{name}", get(secrets::one))
        .route("/secrets/{name}/rotate", post(secrets::rotate))
        .route("/secrets/{name}/test", post(secrets::test))
        .route("/revisions", get(revisions))
        .route("/revisions/{generation}", get(revision))
        .route("/plan", get(plan).post(plan_for))
        .route("/graph", get(graph))
        .route("/variables/{name}", get(variable))
        .route("/components", get(components))
        .route("/components/{*id}", get(component))
        .route("/events", get(events::stream))
        .route("/quarantine", get(quarantine).delete(quarantine_clear_all))
        .route("/quarantine/{key}", delete(quarantine_clear))
        .route("/quarantine/{key}/retry", post(quarantine_retry))
        .route("/hold", post(hold).delete(unhold))
        .route("/rollback", post(rollback))
        .route("/reconcile", post(reconcile))
        .route("/accept-history", post(accept_history))
}

async fn status(State(face): State<Face>) -> Answer<Status> {
    Ok(Json(Status::clone(&face.rooms()?.rollout.status())))
}

async fn revisions(State(face): State<Face>) -> Answer<Vec<RevisionRecord>> {
    Ok(Json(face.rooms()?.rollout.history().await?))
}

async fn revision(State(face): State<Face>, Path(generation): Path<u64>) -> Answer<RevisionRecord> {
    let records = face.rooms()?.rollout.history().await?;
    records
        .into_iter()
        .find(|record| record.generation == Some(generation))
        .map(Json)
        .ok_or_else(|| Refusal::missing(format!("generation {generation} is not remembered")))
}

async fn plan(State(face): State<Face>) -> Answer<Option<PlanSummary>> {
    Ok(Json(face.rooms()?.rollout.plan().await?))
}

async fn plan_for(State(face): State<Face>, Json(proposal): Json<Proposal>) -> Answer<PlanSummary> {
    let rooms = face.rooms()?;
    let pipeline = rooms.pipeline.clone();
    let fetched = rooms.rollout.modules();
    // Parsing and evaluating are computation: kept off the threads that move data.
    let planned =
        invar_engine::compute_aside(move || crate::planning::plan(&pipeline, proposal, &fetched)).await;
    match planned {
        Ok(Ok(summary)) => Ok(Json(summary)),
        Ok(Err(faults)) => Err(Refusal::rejected(faults)),
        Err(_panic) => Err(Refusal::rejected("planning panicked; this is a bug, please report it")),
    }
}

async fn graph(State(face): State<Face>) -> Answer<GraphReport> {
    Ok(Json(face.rooms()?.engine().graph()))
}

async fn variable(State(face): State<Face>, Path(name): Path<String>) -> Answer<VariableReport> {
    let variables = face.rooms()?.engine().variables();
    explain_variable(&variables, &name).map(Json).map_err(Refusal::missing)
}

async fn components(State(face): State<Face>) -> Answer<Vec<ComponentStatus>> {
    Ok(Json(face.rooms()?.engine().components()))
}

async fn component(State(face): State<Face>, Path(id): Path<String>) -> Answer<ComponentStatus> {
    face.rooms()?
        .engine()
        .component(&id)
        .map(Json)
        .ok_or_else(|| Refusal::missing(format!("no component `{id}` runs")))
}

async fn quarantine(State(face): State<Face>) -> Answer<Vec<QuarantineEntry>> {
    Ok(Json(face.rooms()?.rollout.quarantine_list()))
}

async fn quarantine_clear(State(face): State<Face>, Path(key): Path<String>) -> Answer<Vec<QuarantineEntry>> {
    Ok(Json(face.rooms()?.rollout.quarantine_clear(Some(&key)).await?))
}

async fn quarantine_clear_all(State(face): State<Face>) -> Answer<Vec<QuarantineEntry>> {
    Ok(Json(face.rooms()?.rollout.quarantine_clear(None).await?))
}

async fn quarantine_retry(State(face): State<Face>, Path(key): Path<String>) -> Answer<Vec<QuarantineEntry>> {
    Ok(Json(face.rooms()?.rollout.quarantine_retry(&key).await?))
}

/// Body of `POST /hold`.
#[derive(Deserialize)]
struct HoldRequest {
    by: String,
    reason: String,
    #[serde(default)]
    until: Option<Timestamp>,
}

async fn hold(State(face): State<Face>, Json(request): Json<HoldRequest>) -> Answer<Option<Hold>> {
    let rollout = &face.rooms()?.rollout;
    rollout.hold(&request.by, &request.reason, request.until).await?;
    Ok(Json(rollout.status().hold.clone()))
}

async fn unhold(State(face): State<Face>) -> Answer<Status> {
    let rollout = &face.rooms()?.rollout;
    rollout.unhold("the API").await?;
    Ok(Json(Status::clone(&rollout.status())))
}

/// Body of `POST /rollback`.
#[derive(Deserialize)]
struct RollbackRequest {
    #[serde(default)]
    generation: Option<u64>,
    by: String,
    reason: String,
}

async fn rollback(State(face): State<Face>, Json(request): Json<RollbackRequest>) -> Answer<Status> {
    let rollout = &face.rooms()?.rollout;
    rollout.rollback(request.generation, &request.by, &request.reason).await?;
    Ok(Json(Status::clone(&rollout.status())))
}

/// Body of `POST /reconcile`.
#[derive(Default, Deserialize)]
struct ReconcileRequest {
    #[serde(default)]
    sources: Vec<String>,
    /// Whether to answer at once rather than when what the sources bring has come to rest.
    #[serde(default)]
    no_wait: bool,
}

async fn reconcile(State(face): State<Face>, Json(request): Json<ReconcileRequest>) -> Answer<Status> {
    let rollout = &face.rooms()?.rollout;
    let status = match request.no_wait {
        true => {
            rollout.request(&request.sources, "the API").await?;
            rollout.status()
        }
        false => rollout.reconcile(&request.sources, "the API", PATIENCE).await?,
    };
    Ok(Json(Status::clone(&status)))
}

/// Body of `POST /accept-history`.
#[derive(Deserialize)]
struct AcceptRequest {
    /// The id of a commit, or its first digits.
    commit: String,
    by: String,
}

async fn accept_history(State(face): State<Face>, Json(request): Json<AcceptRequest>) -> Answer<Status> {
    let rollout = &face.rooms()?.rollout;
    let status = rollout.accept_history(&request.commit, &request.by, PATIENCE).await?;
    Ok(Json(Status::clone(&status)))
}
