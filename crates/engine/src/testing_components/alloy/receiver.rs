//! Receivers of test values: shared memory of an instance, equal only to itself.

use std::any::Any;
use std::sync::Arc;

use invar_syntax::convert::{ConvertError, FromValue, ToValue};
use invar_syntax::schema::Type;
use invar_syntax::value::{Capsule, CapsuleValue, Value};
use parking_lot::Mutex;

/// What was received, oldest first.
#[derive(Debug, Default)]
pub struct Collected {
    values: Mutex<Vec<Value>>,
}

/// Takes values.
#[derive(Clone, Debug)]
pub struct TestReceiver(pub(super) Arc<Collected>);

const TYPE: &str = "test receiver";

// === impl Collected ===

impl Collected {
    /// What was received so far.
    #[must_use]
    pub fn values(&self) -> Vec<Value> {
        self.values.lock().clone()
    }
}

// === impl TestReceiver ===

impl TestReceiver {
    /// Gives a value.
    pub fn receive(&self, value: Value) {
        self.0.values.lock().push(value);
    }
}

impl PartialEq for TestReceiver {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl CapsuleValue for TestReceiver {
    fn type_name(&self) -> &'static str {
        TYPE
    }

    fn equals(&self, other: &dyn CapsuleValue) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FromValue for TestReceiver {
    fn value_type() -> Type {
        Type::Capsule(TYPE)
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        if let Value::Capsule(capsule) = value
            && let Some(receiver) = capsule.downcast_ref::<Self>()
        {
            return Ok(receiver.clone());
        }
        Err(ConvertError {
            path: String::new(),
            message: format!("expected a {TYPE}, got {}", value.describe()),
        })
    }
}

impl ToValue for TestReceiver {
    fn to_value(&self) -> Value {
        Value::Capsule(Capsule::new(self.clone()))
    }
}
