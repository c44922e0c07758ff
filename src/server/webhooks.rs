//! `POST /api/v1/webhooks/NAME`: the one path that the gate does not cover, since Git hosts have no credentials of the
//! API. Who calls is checked by the webhook itself.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde::Serialize;

use super::connections::Connections;
use super::{Face, Refusal, refusal};
use crate::webhook::{Outcome, Refused};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, Connections>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// The answer to a delivery that was authenticated.
#[derive(Serialize)]
struct Receipt {
    outcome: &'static str,
    delivery: Option<String>,
}

pub(super) async fn receive(
    State(face): State<Face>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let rooms = match face.rooms() {
        Ok(rooms) => rooms,
        Err(refusal) => return refusal.into_response(),
    };
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(address))| address.ip());
    let (parts, body) = request.into_parts();
    match rooms.webhooks.receive(&name, peer, &parts.headers, body).await {
        Ok((outcome, delivery)) => {
            let status = match outcome {
                Outcome::Duplicate => StatusCode::OK,
                Outcome::Accepted | Outcome::Ignored => StatusCode::ACCEPTED,
            };
            (status, Json(Receipt { outcome: outcome.as_str(), delivery })).into_response()
        }
        Err(Refused::Unknown) => refusal::not_found(parts.uri).await.into_response(),
        Err(refused) => refuse(refused),
    }
}

fn refuse(refused: Refused) -> Response {
    let (status, kind, message) = match refused {
        Refused::Unknown => (StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
        Refused::Unauthenticated => {
            (StatusCode::UNAUTHORIZED, "unauthenticated", "the signature is missing or wrong")
        }
        Refused::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "limited", "too many deliveries"),
        Refused::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a delivery has at most 1 MiB"),
        Refused::TimedOut => (StatusCode::REQUEST_TIMEOUT, "timed_out", "the body did not come in time"),
        Refused::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the webhook cannot check signatures now")
        }
    };
    let mut response = Refusal::new(status, kind, message).into_response();
    let after = match refused {
        Refused::Limited(wait) => Some(wait.as_secs_f64().ceil() as u64),
        Refused::Unavailable => Some(60),
        _ => None,
    };
    if let Some(after) = after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after));
    }
    response
}
