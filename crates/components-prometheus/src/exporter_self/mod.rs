//! `prometheus.exporter.self`: the agent's own metrics as a target. Its address is reached within the process, so that no port need be
//! open for it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use invar_blocks::Target;
use invar_engine::{
    Call, Component, ExportContext, InstanceContext, PrepareError, Request, Response, StateContext,
};
use invar_syntax::arguments::Exports;
use invar_syntax::schema::Stability;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::InProcessAddress;

/// Where the agent is reached within the process, unless the binary says otherwise.
const DEFAULT_ADDRESS: &str = "alloy.internal:12345";

/// The component type.
#[derive(Debug)]
pub struct ExporterSelf;

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct ExporterSelfExports {
    /// The agent itself.
    pub targets: Vec<Target>,
}

/// Where the metrics are, and how they are reached.
#[derive(Debug)]
pub struct Instance {
    registry: Option<Arc<Registry>>,
    address: String,
    host: String,
}

impl Component for ExporterSelf {
    const NAME: &'static str = "prometheus.exporter.self";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "The agent's own metrics, as a target to scrape within the process.";

    type Arguments = ();
    type Exports = ExporterSelfExports;
    type Instance = Instance;
    type State = ();

    fn instance(_arguments: &(), context: &InstanceContext) -> Result<Instance, PrepareError> {
        let services = context.services();
        let address = services.get::<InProcessAddress>();
        Ok(Instance {
            registry: services.get(),
            address: address.map_or_else(|| DEFAULT_ADDRESS.to_owned(), |address| address.0.clone()),
            host: host_name(),
        })
    }

    async fn state(_: Arc<()>, _: Arc<Instance>, _: StateContext) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports(instance: &Instance, _state: &(), context: &ExportContext) -> ExporterSelfExports {
        let node = context.node().as_str();
        let path = format!("/api/v0/component/{node}/metrics");
        let labels = [
            ("__address__", instance.address.as_str()),
            ("__metrics_path__", &path),
            ("__scheme__", "http"),
            ("__meta_component_id", node),
            ("__meta_component_name", Self::NAME),
            ("instance", &instance.host),
            ("job", "integrations/self"),
        ];
        ExporterSelfExports { targets: vec![labels.into_iter().collect()] }
    }

    async fn serve(call: Call<Self>, request: Request) -> Response {
        let mut response = Response::default();
        if request.uri().path() != "/metrics" {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return response;
        }
        let families =
            call.instance().registry.as_ref().map(|registry| registry.gather()).unwrap_or_default();
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut page) {
            tracing::warn!(%error, "the agent's own metrics cannot be written");
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        }
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        *response.body_mut() = page.into();
        response
    }
}

/// The label `instance` of whatever describes this host.
fn host_name() -> String {
    if let Ok(name) = std::env::var("HOSTNAME")
        && !name.is_empty()
    {
        return name;
    }
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
