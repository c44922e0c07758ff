//! The arguments of both components, and what of a `client` block may be said together.

use std::time::Duration;

use invar_blocks::HttpClientArguments;
use invar_blocks::http_client::http_url;
use invar_syntax::arguments::{Arguments, BodyDecoder, ValidationError};
use invar_syntax::schema::Schema;
use invar_syntax::value::{Capsule, Value};

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct KubernetesArguments {
    /// The namespace of the object.
    #[argument(required)]
    pub namespace: String,
    /// Its name.
    #[argument(required)]
    pub name: String,
    /// How often it is read in any case. Where a watch is allowed, changes come at once.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
    /// How long one read may take.
    #[argument(default = "\"15s\"")]
    pub poll_timeout: Duration,
    /// Which API server, and as whom. Without it, that of the cluster whose pod the agent runs in.
    #[argument(block)]
    pub client: Option<KubernetesClientBlock>,
}

/// `client`: an API server by its address, or by a kubeconfig file.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct KubernetesClientBlock {
    /// Address of the API server. The arguments of the HTTP client need it.
    #[argument(type_note = "config.URL", names = "destination")]
    pub api_server: String,
    /// A kubeconfig file that says all of it.
    #[argument(names = "file")]
    pub kubeconfig_file: String,
    /// How to connect to `api_server`.
    #[argument(flatten)]
    pub http: ServerClientArguments,
}

/// The arguments of the HTTP client. Alloy declares two of its switches as off where there is no `client` block, and has
/// them on in every block; both are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerClientArguments(pub HttpClientArguments);

impl Arguments for ServerClientArguments {
    fn schema() -> Schema {
        let mut schema = HttpClientArguments::schema();
        for field in &mut schema.fields {
            let documentation = match field.name {
                "follow_redirects" => {
                    "Whether redirects are followed. A `client` block turns it on. Credentials stay with the first origin."
                }
                "enable_http2" => "Whether HTTP/2 is offered to the server. A `client` block turns it on.",
                _ => continue,
            };
            field.documentation = documentation;
            field.default = Some(Value::Bool(false));
        }
        schema
    }

    fn defaults() -> Self {
        Self(HttpClientArguments::defaults())
    }

    fn decode_fields(&mut self, decoder: &mut BodyDecoder<'_>) {
        self.0.decode_fields(decoder);
    }

    fn validate_fields(&self) -> Vec<ValidationError> {
        self.0.validate_fields()
    }

    fn visit_capsules(&self, visit: &mut dyn FnMut(&'static str, &Capsule)) {
        self.0.visit_capsules(visit);
    }

    fn to_value(&self) -> Value {
        self.0.to_value()
    }
}

impl KubernetesClientBlock {
    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut errors = Vec::new();
        let custom = self.http != ServerClientArguments::defaults();
        let (server, file) = (!self.api_server.is_empty(), !self.kubeconfig_file.is_empty());
        if server && file {
            errors.push((
                "kubeconfig_file",
                "at most one of api_server and kubeconfig_file may be set".to_owned(),
            ));
        }
        if custom && file {
            errors.push((
                "kubeconfig_file",
                "kubeconfig_file says how to connect: no other argument of the client may be set with it"
                    .to_owned(),
            ));
        }
        if custom && !server && !file {
            errors.push((
                "api_server",
                "api_server must be set where arguments of the client say how to connect".to_owned(),
            ));
        }
        if server && let Err(problem) = http_url(&self.api_server) {
            errors.push(("api_server", format!("api_server {problem}")));
        }
        errors
    }
}
