//! The components this binary has, and those that it knows of.

mod known;
#[cfg(test)]
mod secret_classes;
#[cfg(test)]
mod tests;

use invar_engine::Registry;

/// Every component, by explicit registration.
pub(crate) fn components() -> Registry {
    let registry =
        Registry::new().knowing(known::COMPONENTS).with_import_client::<invar_blocks::HttpClientArguments>();
    let registry = invar_components_prometheus::register(registry);
    let registry = invar_components_discovery::register(registry);
    let registry = invar_components_remote::register(registry);
    let registry = crate::blocks::register(registry);
    #[cfg(feature = "testing")]
    let registry = invar_engine::testing_components::register(registry);
    registry
}
