//! Receivers: the values by which one component's arguments name another as the target of its data.

use std::any::Any;

use invar_syntax::convert::{ConvertError, FromValue, ToValue};
use invar_syntax::schema::Type;
use invar_syntax::value::{Capsule, CapsuleValue, Value};

use crate::node::NodeId;

/// The kind of data that flows along a route.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum Signal {
    /// Batches of metric samples.
    Metrics,
}

/// A place that takes data: a port of a node. Equal by value, so that arguments which name the same place are unchanged.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Receiver {
    /// The node that takes the data.
    pub node: NodeId,
    /// Which of its ports; by convention the name of the export field.
    pub port: &'static str,
    /// What it takes.
    pub signal: Signal,
}

/// A receiver of metrics, as arguments and exports declare it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct MetricsReceiver(pub Receiver);

// === impl Signal ===

impl Signal {
    /// The name of the capsule type of its receivers.
    #[must_use]
    pub const fn receiver_type_name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics receiver",
        }
    }

    /// The signal whose receivers have this capsule type name.
    #[must_use]
    pub fn of_receiver_type(name: &str) -> Option<Self> {
        (name == Self::Metrics.receiver_type_name()).then_some(Self::Metrics)
    }
}

// === impl Receiver ===

impl CapsuleValue for Receiver {
    fn type_name(&self) -> &'static str {
        self.signal.receiver_type_name()
    }

    fn equals(&self, other: &dyn CapsuleValue) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

// === impl MetricsReceiver ===

impl FromValue for MetricsReceiver {
    fn value_type() -> Type {
        Type::Capsule(Signal::Metrics.receiver_type_name())
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        if let Value::Capsule(capsule) = value
            && let Some(receiver) = capsule.downcast_ref::<Receiver>()
            && receiver.signal == Signal::Metrics
        {
            return Ok(Self(receiver.clone()));
        }
        Err(ConvertError {
            path: String::new(),
            message: format!("expected a metrics receiver, got {}", value.describe()),
        })
    }
}

impl ToValue for MetricsReceiver {
    fn to_value(&self) -> Value {
        Value::Capsule(Capsule::new(self.0.clone()))
    }
}
