//! What the binary offers to components, by type: filled before the engine starts, read while preparing.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// A typed map of shared services. Clones share the map.
#[derive(Clone, Default)]
pub struct Services {
    by_type: Arc<RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl Services {
    /// No services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `service`, in place of one of the same type.
    pub fn insert<T: Any + Send + Sync>(&self, service: Arc<T>) {
        self.by_type.write().insert(TypeId::of::<T>(), service);
    }

    /// The service of type `T`, if offered.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.by_type.read().get(&TypeId::of::<T>()).cloned().and_then(|service| service.downcast().ok())
    }
}
