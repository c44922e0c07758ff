//! `livedebugging`: whether people may look at the data that passes through components.

use std::sync::Arc;

use invar_engine::{
    Component, ExportContext, InstanceContext, PrepareError, Stability, StateContext, Transition,
};
use invar_syntax::arguments::Arguments;
use tokio::sync::watch;

use super::setting::Setting;

/// The block.
pub(crate) struct LiveDebugging;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(crate) struct LiveDebuggingArguments {
    /// Whether it is on.
    enabled: bool,
}

/// Whether live debugging is on, for those who serve it. Off where the host does not allow it, whatever a configuration says:
/// one that comes from afar must not open the data of this host.
#[derive(Debug)]
pub(crate) struct LiveDebuggingSwitch {
    allowed: bool,
    on: watch::Sender<bool>,
}

impl LiveDebuggingSwitch {
    pub(crate) fn new(allowed: bool) -> Self {
        Self { allowed, on: watch::Sender::new(false) }
    }

    /// Whether a configuration could switch it on.
    pub(crate) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// Whether it is on, now and later.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.on.subscribe()
    }

    fn set(&self, on: bool) {
        if on && !self.allowed {
            ::tracing::warn!(
                "live debugging stays off: the configuration is not local; `[features] live_debugging = true` allows it"
            );
        }
        self.on.send_replace(on && self.allowed);
    }
}

impl Component for LiveDebugging {
    const NAME: &'static str = "livedebugging";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Whether people may look at the data that passes through components.";
    const SETTINGS: bool = true;

    type Arguments = LiveDebuggingArguments;
    type Exports = ();
    type Instance = Setting<bool>;
    type State = bool;

    fn instance(
        _: &LiveDebuggingArguments,
        context: &InstanceContext,
    ) -> Result<Setting<bool>, PrepareError> {
        let switch = context.services().get::<LiveDebuggingSwitch>();
        Ok(Setting::new(move |on: Option<&Arc<bool>>| {
            if let Some(switch) = &switch {
                switch.set(on.is_some_and(|on| **on));
            }
        }))
    }

    async fn state(
        arguments: Arc<LiveDebuggingArguments>,
        _: Arc<Setting<bool>>,
        _: StateContext,
    ) -> Result<bool, PrepareError> {
        Ok(arguments.enabled)
    }

    fn exports(_: &Setting<bool>, _: &bool, _: &ExportContext) {}

    fn transition(instance: &Arc<Setting<bool>>, transition: Transition<'_, Self>) {
        instance.follow(&transition);
    }
}
