//! `remotecfg`: a configuration that a control plane sends, over the `collector.v1` protocol. To the rest of the agent it
//! is one more source, whose files go into a scope of their own; what becomes of a revision is reported back to the
//! server, and only what was committed is reported as applied. There is no cache beside the agent's own: a revision that
//! ran is on disk already, and runs again after a restart with the server down.
//!
//! The block is Alloy's (<https://grafana.com/docs/alloy/latest/reference/config-blocks/remotecfg/>).

mod identity;
mod protocol;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use invar_blocks::HttpClientArguments;
use invar_syntax::arguments::Arguments;

pub use identity::collector_id;
pub use source::{RemoteConfigReporter, RemoteConfigSource, RemoteConfigVerdict};

/// Attributes below this name are the agent's own.
const RESERVED: &str = "collector.";
/// Asking more often would burden the server of a whole fleet.
const SHORTEST_POLL: Duration = Duration::from_secs(10);

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct RemoteConfigArguments {
    /// Address of the server; without one nothing is asked for.
    #[argument(names = "destination")]
    pub url: String,
    /// How the server knows this agent; an identifier kept in the state directory where empty.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What the server may choose a configuration by.
    pub attributes: BTreeMap<String, String>,
    /// How often the server is asked.
    #[argument(default = "\"1m\"")]
    pub poll_frequency: Duration,
    /// How the server is reached.
    #[argument(flatten)]
    pub client: HttpClientArguments,
}

impl RemoteConfigArguments {
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.poll_frequency < SHORTEST_POLL {
            return Err(("poll_frequency", "must be at least \"10s\"".to_owned()));
        }
        if let Some(name) = self.attributes.keys().find(|name| name.starts_with(RESERVED)) {
            return Err((
                "attributes",
                format!("\"{name}\" is reserved: names that begin with \"{RESERVED}\" are the agent's own"),
            ));
        }
        if !self.url.is_empty()
            && let Err(message) = invar_blocks::http_client::http_url(&self.url)
        {
            return Err(("url", message));
        }
        Ok(())
    }
}
