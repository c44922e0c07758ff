//! Exclusive things other than sockets (logs, position files, directories): owned here by key, lent to instances and states,
//! and outliving them.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;

use crate::delivery::PrepareError;

/// All resources, by type and key. Clones share it.
#[derive(Clone)]
pub struct ResourceRegistry {
    shared: Arc<Mutex<HashMap<(TypeId, String), Held>>>,
}

struct Held {
    type_name: &'static str,
    resource: Weak<dyn Any + Send + Sync>,
    /// How many loans are out; only changed under the registry's lock, so that nobody borrows what is being dropped.
    loans: usize,
}

/// A borrowed resource. Clones are loans of their own; the resource is dropped with the last of them.
pub struct Loan<T: Any + Send + Sync> {
    /// `None` only while it is being dropped.
    resource: Option<Arc<T>>,
    key: (TypeId, String),
    registry: ResourceRegistry,
}

// === impl ResourceRegistry ===

impl ResourceRegistry {
    /// A registry without resources.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Borrows the resource of type `T` under `key`, making it if nobody holds it. Two callers never make one resource
    /// twice: `make` runs under the registry's lock, so it may not borrow itself.
    ///
    /// # Errors
    /// What `make` answers.
    pub fn borrow<T: Any + Send + Sync>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, PrepareError>,
    ) -> Result<Loan<T>, PrepareError> {
        let key = (TypeId::of::<T>(), key.to_owned());
        let mut held = self.shared.lock();
        if let Some(entry) = held.get_mut(&key)
            && let Some(resource) =
                entry.resource.upgrade().and_then(|resource| resource.downcast::<T>().ok())
        {
            entry.loans += 1;
            return Ok(Loan { resource: Some(resource), key, registry: self.clone() });
        }
        let resource = Arc::new(make()?);
        let shared: Arc<dyn Any + Send + Sync> = resource.clone();
        let entry = Held { type_name: type_name::<T>(), resource: Arc::downgrade(&shared), loans: 1 };
        held.insert(key.clone(), entry);
        Ok(Loan { resource: Some(resource), key, registry: self.clone() })
    }

    /// The resource of type `T` under `key`, if somebody holds it.
    #[must_use]
    pub fn find<T: Any + Send + Sync>(&self, key: &str) -> Option<Loan<T>> {
        let key = (TypeId::of::<T>(), key.to_owned());
        let mut held = self.shared.lock();
        let entry = held.get_mut(&key)?;
        let resource = entry.resource.upgrade()?.downcast::<T>().ok()?;
        entry.loans += 1;
        Some(Loan { resource: Some(resource), key, registry: self.clone() })
    }

    /// The keys of the resources of type `T` that are held, in order.
    #[must_use]
    pub fn keys<T: Any + Send + Sync>(&self) -> Vec<String> {
        let held = self.shared.lock();
        let mut keys: Vec<String> =
            held.keys().filter(|(kind, _)| *kind == TypeId::of::<T>()).map(|(_, key)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }
}

impl Default for ResourceRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ResourceRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.shared.lock();
        f.debug_map()
            .entries(held.iter().map(|((_, key), entry)| ((entry.type_name, key), entry.loans)))
            .finish()
    }
}

// === impl Loan ===

impl<T: Any + Send + Sync> Clone for Loan<T> {
    fn clone(&self) -> Self {
        if let Some(entry) = self.registry.shared.lock().get_mut(&self.key) {
            entry.loans += 1;
        }
        Self { resource: self.resource.clone(), key: self.key.clone(), registry: self.registry.clone() }
    }
}

impl<T: Any + Send + Sync> Deref for Loan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.resource.as_ref().expect("a loan holds its resource until it is dropped")
    }
}

impl<T: Any + Send + Sync> Drop for Loan<T> {
    fn drop(&mut self) {
        // The resource is dropped under the lock: its files are closed before anybody can open them again.
        let mut held = self.registry.shared.lock();
        let last = held.get_mut(&self.key).is_none_or(|entry| {
            entry.loans -= 1;
            entry.loans == 0
        });
        drop(self.resource.take());
        if last {
            held.remove(&self.key);
        }
    }
}

impl<T: Any + Send + Sync + fmt::Debug> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loan").field(&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug)]
    struct Log(Arc<AtomicUsize>);

    impl Drop for Log {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_resource_is_made_once_and_dropped_with_its_last_loan() {
        let registry = ResourceRegistry::new();
        let dropped = Arc::new(AtomicUsize::new(0));
        let make = || Ok(Log(Arc::clone(&dropped)));
        let first = registry.borrow("a", make).unwrap();
        let second = registry.borrow::<Log>("a", || unreachable!("held already")).unwrap();
        let third = second.clone();
        assert!(Arc::ptr_eq(&first.0, &third.0));
        drop(first);
        drop(second);
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        assert_eq!(registry.keys::<Log>(), ["a"]);
        drop(third);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert!(registry.find::<Log>("a").is_none());
        let again = registry.borrow("a", make).unwrap();
        drop(again);
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_key_belongs_to_one_type() {
        let registry = ResourceRegistry::new();
        let number = registry.borrow("a", || Ok(7_u32)).unwrap();
        let text = registry.borrow("a", || Ok("seven".to_owned())).unwrap();
        assert_eq!((*number, text.as_str()), (7, "seven"));
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing_behind() {
        let registry = ResourceRegistry::new();
        let refused = registry.borrow::<u32>("a", || Err(PrepareError::resource("taken")));
        assert_eq!(refused.unwrap_err().message, "taken");
        assert_eq!(*registry.borrow("a", || Ok(1_u32)).unwrap(), 1);
    }
}
