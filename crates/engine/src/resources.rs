//! Exclusive things other than sockets (logs, position files, directories): owned here by key, lent to instances and states,
//! and outliving them.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use crate::delivery::PrepareError;

/// All resources, by type and key.
#[derive(Clone)]
pub struct ResourceRegistry {}

/// A borrowed resource. Clones share the loan; the resource is dropped after its last loan.
pub struct Loan<T> {
    resource: Arc<T>,
}

// === impl ResourceRegistry ===

impl ResourceRegistry {
    /// A registry without resources.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Borrows the resource of type `T` under `key`, making it if nobody holds it.
    ///
    /// # Errors
    /// What `make` answers, or that the key is held by a resource of another type.
    pub fn borrow<T: Any + Send + Sync>(
        &self,
        _key: &str,
        make: impl FnOnce() -> Result<T, PrepareError>,
    ) -> Result<Loan<T>, PrepareError> {
        Ok(Loan { resource: Arc::new(make()?) })
    }
}

impl Default for ResourceRegistry {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Loan ===

impl<T> Clone for Loan<T> {
    fn clone(&self) -> Self {
        Self { resource: Arc::clone(&self.resource) }
    }
}

impl<T> Deref for Loan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.resource
    }
}
