//! What a `prometheus.receive_http` block says.

use invar_blocks::ServerArguments;
use invar_engine::MetricsReceiver;
use invar_syntax::arguments::Arguments;
use invar_telemetry::remote_write::Protocol;

/// Arguments of `prometheus.receive_http`.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct ReceiveHttpArguments {
    /// Where to listen.
    #[argument(flatten)]
    pub server: ServerArguments,
    /// Receivers of what was received; each gets all of it.
    #[argument(required, type_note = "any<storage.Appendable>")]
    pub forward_to: Vec<MetricsReceiver>,
    /// Whether metadata of metric families is forwarded.
    pub append_metadata: bool,
    /// Whether series get the labels `__type__` and `__unit__` from the metadata of version 2 requests.
    pub enable_type_and_unit_labels: bool,
    /// The messages to accept: `prometheus.WriteRequest`, `io.prometheus.write.v2.Request`.
    #[argument(
        default = "[\"prometheus.WriteRequest\"]",
        values = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"]
    )]
    pub accepted_remote_write_protobuf_messages: Vec<String>,
}

impl ReceiveHttpArguments {
    /// The protocols that requests may speak.
    pub(super) fn protocols(&self) -> Vec<Protocol> {
        let names = self.accepted_remote_write_protobuf_messages.iter();
        names.filter_map(|name| Protocol::from_message_name(name)).collect()
    }

    fn validate(&self) -> Vec<(&'static str, String)> {
        let field = "accepted_remote_write_protobuf_messages";
        let names = &self.accepted_remote_write_protobuf_messages;
        let known = [Protocol::V1, Protocol::V2].map(Protocol::message_name).join(" and ");
        if names.is_empty() {
            return vec![(field, format!("without a message nothing would be accepted: there are {known}"))];
        }
        let unknown = names.iter().filter(|name| Protocol::from_message_name(name).is_none());
        unknown.map(|name| (field, format!("message {name:?} is unknown: there are {known}"))).collect()
    }
}
