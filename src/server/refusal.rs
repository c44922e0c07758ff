//! How the API says no: one JSON shape, with a kind for programs and a message for people.

use axum::Json;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use invar_rollout::RolloutError;
use serde::Serialize;

/// A refusal and its status code.
pub(crate) struct Refusal {
    status: StatusCode,
    body: Body,
}

#[derive(Serialize)]
struct Body {
    kind: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, body: Body { kind, message: message.into() } }
    }

    /// The agent has not come far enough yet.
    pub(crate) fn starting() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "the agent is starting; try again in a moment")
    }

    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", message)
    }
}

impl From<RolloutError> for Refusal {
    fn from(error: RolloutError) -> Self {
        let (status, kind) = match &error {
            RolloutError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            RolloutError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            RolloutError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            RolloutError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
        };
        Self::new(status, kind, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The answer to every path that nothing is at.
pub(crate) async fn not_found(uri: Uri) -> Refusal {
    Refusal::missing(format!("there is nothing at {}", uri.path()))
}
