//! The component types a binary was built with. Registration is explicit: the binary lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_syntax::arguments::Arguments;
use invar_syntax::schema::{Schema, Stability};

use crate::component::Component;
use crate::definition::{Definition, Erased};

/// The component types by name.
#[derive(Clone, Default)]
pub struct Registry {
    definitions: BTreeMap<&'static str, Arc<dyn Definition>>,
    import_client: Option<Arc<Schema>>,
    known_elsewhere: &'static [KnownComponent],
}

/// A component type of Alloy's: what to say of one that is used and not built in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KnownComponent {
    /// The block name.
    pub name: &'static str,
    /// How settled its interface is there.
    pub stability: Stability,
    /// Whether it is a community component there.
    pub community: bool,
}

/// What a component type declares about itself.
#[derive(Clone, Debug)]
pub struct ComponentInfo {
    /// The block name.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub summary: &'static str,
    /// How settled the interface is.
    pub stability: Stability,
    /// Whether it is a community component, which must be enabled.
    pub community: bool,
    /// What the block takes.
    pub arguments: Schema,
    /// What it exports.
    pub exports: Schema,
    /// Whether it is no component but a block that configures the agent itself.
    pub settings: bool,
}

impl Registry {
    /// A registry without component types.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component type.
    ///
    /// # Panics
    /// When the name is registered already, or one is a dotted prefix of the other: a mistake in the binary's list, which
    /// every run of it would show.
    #[must_use]
    pub fn with<C: Component>(mut self) -> Self {
        let clash = self.definitions.keys().find(|name| {
            let prefix_of = |short: &str, long: &str| {
                long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            prefix_of(name, C::NAME) || prefix_of(C::NAME, name)
        });
        assert!(clash.is_none(), "component {} clashes with {clash:?}, which is registered already", C::NAME);
        self.definitions.insert(C::NAME, Arc::new(Erased::<C>::new()));
        self
    }

    /// Says what the `client` block of `import.http` takes. Without, its content is not checked here.
    #[must_use]
    pub fn with_import_client<A: Arguments>(mut self) -> Self {
        self.import_client = Some(Arc::new(A::schema()));
        self
    }

    pub(crate) fn import_client(&self) -> Option<&Schema> {
        self.import_client.as_deref()
    }

    /// Tells which component types exist in Alloy, ordered by name, so that one that is not built in is told from one that
    /// does not exist at all.
    #[must_use]
    pub fn knowing(mut self, components: &'static [KnownComponent]) -> Self {
        debug_assert!(components.is_sorted_by_key(|component| component.name), "the list is ordered by name");
        self.known_elsewhere = components;
        self
    }

    /// Whether Alloy has a component type of this name and the binary lacks it.
    pub(crate) fn is_known_elsewhere(&self, name: &str) -> bool {
        !self.definitions.contains_key(name)
            && self.known_elsewhere.binary_search_by(|component| component.name.cmp(name)).is_ok()
    }

    /// The names of all types that exist, built in or not, for suggestions.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.names().chain(self.known_elsewhere.iter().map(|component| component.name))
    }

    /// What each type declares, by name.
    pub fn iter(&self) -> impl Iterator<Item = ComponentInfo> + '_ {
        self.definitions.values().map(|definition| info(&**definition))
    }

    /// What one type declares.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<ComponentInfo> {
        self.definitions.get(name).map(|definition| info(&**definition))
    }

    /// The arguments of one type.
    #[must_use]
    pub fn schema(&self, name: &str) -> Option<Schema> {
        self.definitions.get(name).map(|definition| definition.arguments_schema().clone())
    }

    /// All names in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.definitions.keys().copied()
    }

    pub(crate) fn definition(&self, name: &str) -> Option<&Arc<dyn Definition>> {
        self.definitions.get(name)
    }
}

fn info(definition: &dyn Definition) -> ComponentInfo {
    ComponentInfo {
        name: definition.name(),
        summary: definition.summary(),
        stability: definition.stability(),
        community: definition.is_community(),
        arguments: definition.arguments_schema().clone(),
        exports: definition.exports_schema().clone(),
        settings: definition.is_settings(),
    }
}
