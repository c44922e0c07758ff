//! The agent's HTTP face: Alloy's endpoints (`/-/ready`, `/-/healthy`, `/-/reload`, `/metrics`, component
//! handlers) and Invar's own API under `/api/v1`. It is bound before anything else happens and answers from the
//! first second of the process, whatever the configuration does.

mod alloy;
mod api;
mod connections;
mod debug;
mod events;
mod gate;
mod refusal;
mod secrets;
mod sources;
mod webhooks;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use invar_engine::Engine;
use invar_rollout::{EnginePipeline, Rollout};
use invar_secrets::{SecretReference, SecretStores, SecretUser};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use gate::{Credentials, Gate, Paths};
use refusal::Refusal;
pub(crate) use sources::{SourceAnswer, SourceDeclaration};

use crate::webhook::Webhooks;

/// Longest body that a request to the API may have, in bytes: a plan carries whole configurations.
const BODY_LIMIT: usize = 64 << 20;

/// What the handlers reach: filled as the agent comes up.
#[derive(Clone, Default)]
pub(crate) struct Face {
    rooms: Arc<OnceLock<Rooms>>,
    gate: Arc<Gate>,
    stopping: CancellationToken,
}

/// The rooms behind the API.
pub(crate) struct Rooms {
    pub(crate) pipeline: EnginePipeline,
    pub(crate) rollout: Rollout,
    /// What the settings say of the sources.
    pub(crate) declared: Vec<SourceDeclaration>,
    /// The secret stores, and what they hold.
    pub(crate) secrets: SecretStores,
    /// Who uses secrets beside the pipeline: sources and webhooks.
    pub(crate) secret_users: Vec<(SecretReference, SecretUser)>,
    pub(crate) webhooks: Webhooks,
}

impl Rooms {
    pub(crate) fn engine(&self) -> &Engine {
        self.pipeline.engine()
    }
}

impl Face {
    /// Opens the rooms to the handlers. A second call changes nothing.
    pub(crate) fn open(&self, rooms: Rooms) {
        drop(self.rooms.set(rooms));
    }

    /// Who may use the server.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// The rooms, or the refusal of an agent that is still coming up.
    fn rooms(&self) -> Result<&Rooms, Refusal> {
        self.rooms.get().ok_or_else(Refusal::starting)
    }

    /// Ends streams, so that a graceful end does not wait for those who listen.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
        if let Some(rooms) = self.rooms.get() {
            rooms.webhooks.stop();
        }
    }
}

/// The bound server.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    face: Face,
}

impl Server {
    /// Binds the address.
    pub(crate) async fn bind(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, face: Face::default() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn face(&self) -> Face {
        self.face.clone()
    }

    /// Serves until `stop` is cancelled, then lets requests in flight finish for at most five seconds.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let router = router(self.face.clone());
        let graceful = stop.clone();
        let (connections, accepting) = connections::accept(self.listener, self.address, self.face.gate());
        let service = router.into_make_service_with_connect_info::<webhooks::Peer>();
        let served = axum::serve(connections, service).with_graceful_shutdown(graceful.cancelled_owned());
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        tokio::select! {
            // It ends with the server's own ending, when requests may still be under way.
            never = accepting => never,
            ended = served => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the HTTP server ended");
                }
            }
            () = late => tracing::warn!("requests were still under way when the HTTP server ended"),
        }
    }
}

fn router(face: Face) -> Router {
    Router::new()
        .merge(alloy::routes())
        .nest("/api/v1", api::routes())
        .fallback(refusal::not_found)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::from_fn_with_state(face.gate(), gate::guard))
        // After the gate, and so outside of it: the only path that is.
        .route("/api/v1/webhooks/{name}", post(webhooks::receive))
        .with_state(face)
}

#[cfg(test)]
mod tests;
