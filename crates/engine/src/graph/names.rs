//! Which blocks are custom components: the declares and imports that a body sees, its own before those around it.

use std::sync::Arc;

use crate::modules::{Declare, Import, ImportContent, Lexicon, Module};

/// What a body sees, innermost first.
#[derive(Clone)]
pub(super) struct Names(Arc<Level>);

struct Level {
    lexicon: Arc<Lexicon>,
    /// Where the nodes of its imports are; none at the top of a module, which has no nodes.
    frame: Option<u32>,
    around: Option<Names>,
}

/// What a block name stands for.
pub(super) enum Found {
    /// No custom component.
    Nothing,
    /// A custom component, with what its body sees around itself.
    Declare(Arc<Declare>, Names),
    /// Something from an import of which nothing is known.
    Unknown,
    /// Something from an import whose content is the value of a node: which import, and the frame of its node.
    Dynamic(Arc<Import>, Option<u32>),
    /// The beginning of the name is taken, but nothing has all of it.
    Missing,
}

impl Names {
    pub(super) fn new(lexicon: &Arc<Lexicon>, frame: Option<u32>) -> Self {
        Self(Arc::new(Level { lexicon: Arc::clone(lexicon), frame, around: None }))
    }

    /// A body within this one.
    pub(super) fn within(&self, lexicon: &Arc<Lexicon>, frame: u32) -> Self {
        let around = Some(self.clone());
        Self(Arc::new(Level { lexicon: Arc::clone(lexicon), frame: Some(frame), around }))
    }

    pub(super) fn lexicon(&self) -> &Arc<Lexicon> {
        &self.0.lexicon
    }

    /// The names of all custom components in sight, as blocks use them; sorted.
    pub(super) fn all(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut next = Some(self);
        while let Some(level) = next {
            let lexicon = &level.0.lexicon;
            names.extend(lexicon.declares.keys().map(ToString::to_string));
            for (label, import) in &lexicon.imports {
                if let ImportContent::Module(module) = &import.content {
                    names.extend(module.lexicon.declares.keys().map(|name| format!("{label}.{name}")));
                }
            }
            next = level.0.around.as_ref();
        }
        names.sort_unstable();
        names
    }

    pub(super) fn find(&self, name: &[&str]) -> Found {
        let Some(first) = name.first() else { return Found::Nothing };
        let mut taken = false;
        let mut next = Some(self);
        while let Some(level) = next {
            let lexicon = &level.0.lexicon;
            if lexicon.has(first) {
                taken = true;
                match (name, lexicon.declares.get(*first), lexicon.imports.get(*first)) {
                    ([_], Some(declare), _) => return Found::Declare(Arc::clone(declare), level.clone()),
                    ([_, component], _, Some(import)) => match &import.content {
                        ImportContent::Module(module) => {
                            if let Some(found) = in_module(module, component) {
                                return found;
                            }
                        }
                        ImportContent::Unknown => return Found::Unknown,
                        ImportContent::Dynamic => {
                            return Found::Dynamic(Arc::clone(import), level.0.frame);
                        }
                    },
                    _ => {}
                }
            }
            next = level.0.around.as_ref();
        }
        if taken { Found::Missing } else { Found::Nothing }
    }
}

/// A declare at the top of a module: it sees that module, and nothing of who imports it.
pub(super) fn in_module(module: &Arc<Module>, component: &str) -> Option<Found> {
    let declare = module.lexicon.declares.get(component)?;
    Some(Found::Declare(Arc::clone(declare), Names::new(&module.lexicon, None)))
}
