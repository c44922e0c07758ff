//! A setting that a block holds while it is part of the running pipeline: set when the block starts or changes, cleared when
//! it is gone, set again when a rollback brings it back.

use std::sync::Arc;

use invar_engine::{Component, Transition};
use parking_lot::Mutex;

/// What is told what holds from now on.
type Apply<S> = dyn Fn(Option<&Arc<S>>) + Send + Sync;

/// The instance of a block that sets something.
pub(crate) struct Setting<S> {
    /// What the block said last: what an unparked block says again.
    last: Mutex<Option<Arc<S>>>,
    apply: Box<Apply<S>>,
}

impl<S: Send + Sync + 'static> Setting<S> {
    /// `apply` is told what holds from now on, or that the block is gone. Quick and infallible: it runs right after a swap.
    pub(crate) fn new(apply: impl Fn(Option<&Arc<S>>) + Send + Sync + 'static) -> Self {
        Self { last: Mutex::new(None), apply: Box::new(apply) }
    }

    /// Follows a transition of the block.
    pub(crate) fn follow<C: Component<State = S>>(&self, transition: &Transition<'_, C>) {
        match transition {
            Transition::Started { state, .. } | Transition::Swapped { to: state, .. } => self.set(state),
            Transition::RolledBack { to: Some(state), .. } => self.set(state),
            Transition::Unparked => {
                let last = self.last.lock().clone();
                if let Some(last) = last {
                    (self.apply)(Some(&last));
                }
            }
            Transition::Parked | Transition::Retired => (self.apply)(None),
            Transition::RolledBack { to: None, .. } | Transition::Committed { .. } => {}
        }
    }

    fn set(&self, state: &Arc<S>) {
        *self.last.lock() = Some(Arc::clone(state));
        (self.apply)(Some(state));
    }
}
