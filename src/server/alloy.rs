//! The endpoints that Alloy has, answering as Alloy's do: readiness, health, reload, metrics, and each component's
//! own handler.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use invar_engine::HealthState;
use prometheus::{Encoder, TextEncoder};

use super::{BODY_LIMIT, Face, Refusal};

/// How long `/-/reload` waits for what it set off.
const RELOAD_DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/-/ready", get(ready))
        .route("/-/healthy", get(healthy))
        .route("/-/insync", get(in_sync))
        .route("/-/reload", get(reload).post(reload))
        .route("/metrics", get(metrics))
        .route("/api/v0/component/{*path}", any(component))
        .route("/api/v0/web/debug/{*id}", get(super::debug::stream))
}

async fn ready(State(face): State<Face>) -> Response {
    let runs = face.rooms().is_ok_and(|rooms| rooms.rollout.status().running.is_some());
    if runs {
        (StatusCode::OK, "Invar is ready.\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "Invar is not ready.\n").into_response()
    }
}

async fn healthy(State(face): State<Face>) -> Response {
    let unhealthy: Vec<String> = face.rooms().map_or_else(
        |_| Vec::new(),
        |rooms| {
            let statuses = rooms.engine().components();
            let ill = statuses.into_iter().filter(|status| status.health.state == HealthState::Unhealthy);
            ill.map(|status| status.id.to_string()).collect()
        },
    );
    if unhealthy.is_empty() {
        (StatusCode::OK, "All Invar components are healthy.\n").into_response()
    } else {
        let text = format!("unhealthy components: {}\n", unhealthy.join(", "));
        (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
    }
}

/// 200 when what runs is what the sources say: for automation that waits on a canary.
async fn in_sync(State(face): State<Face>) -> Response {
    let status = match face.rooms() {
        Ok(rooms) => rooms.rollout.status(),
        Err(refusal) => return refusal.into_response(),
    };
    if status.in_sync {
        (StatusCode::OK, "in sync\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not in sync\n").into_response()
    }
}

async fn reload(State(face): State<Face>) -> Response {
    let rooms = match face.rooms() {
        Ok(rooms) => rooms,
        Err(refusal) => return refusal.into_response(),
    };
    match rooms.rollout.reconcile(&[], "POST /-/reload", RELOAD_DEADLINE).await {
        Ok(status) => match status.reason.as_ref().filter(|_| !status.in_sync) {
            None => (StatusCode::OK, "config reloaded\n").into_response(),
            Some(reason) => {
                let place = match (&reason.file, reason.line) {
                    (Some(file), Some(line)) => format!("{file}:{line}: "),
                    (Some(file), None) => format!("{file}: "),
                    _ => String::new(),
                };
                (StatusCode::BAD_REQUEST, format!("{place}{}\n", reason.message)).into_response()
            }
        },
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn metrics(State(face): State<Face>) -> Response {
    let rooms = match face.rooms() {
        Ok(rooms) => rooms,
        Err(refusal) => return refusal.into_response(),
    };
    let families = rooms.engine().metrics().gather();
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&families, &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error.to_string()).into_response()
        }
    }
}

/// A request to a component. The names of those within modules have slashes; the component sees the path behind its name.
async fn component(
    State(face): State<Face>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let rooms = face.rooms()?;
    let engine = rooms.engine();
    let Some((id, rest)) = engine.split_component_path(&path) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (mut head, body) = request.into_parts();
    let rest = if rest.is_empty() { "/" } else { rest };
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    head.uri = Uri::builder()
        .path_and_query(format!("{rest}{query}"))
        .build()
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "path", error.to_string()))?;
    let body = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|error| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body", error.to_string()))?;
    let answer = engine.serve_component(id, Request::from_parts(head, body)).await;
    Ok(answer.map(Body::from))
}
