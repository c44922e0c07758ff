//! One field of a path as expressions and clients hold it: whatever is asked of it is answered by the cell of the path.

use std::sync::Arc;

use invar_syntax::{Secret, SecretCell};

use crate::cell::Cell;
use crate::reference::SecretReference;
use crate::snapshot::SecretSnapshot;

/// A field of a cell, by the reference that names it.
pub(crate) struct FieldCell {
    cell: Arc<Cell>,
    field: Option<String>,
    reference: String,
}

impl FieldCell {
    pub(crate) fn new(cell: Arc<Cell>, reference: &SecretReference) -> Self {
        Self { cell, field: reference.field.clone(), reference: reference.to_string() }
    }

    fn of(&self, snapshot: &SecretSnapshot) -> Option<Secret> {
        match &self.field {
            Some(name) => snapshot.fields.get(name).cloned(),
            None => snapshot.fields.values().next().cloned(),
        }
    }
}

impl SecretCell for FieldCell {
    fn reference(&self) -> &str {
        &self.reference
    }

    fn version(&self) -> u64 {
        self.cell.version()
    }

    fn read(&self) -> Secret {
        // It is there, unless it is to be empty where it is missing.
        self.of(&self.cell.current.load()).unwrap_or_default()
    }

    fn previous(&self) -> Option<Secret> {
        self.cell.other().and_then(|snapshot| self.of(&snapshot))
    }

    fn refused(&self, version: u64) {
        self.cell.refuse(version);
    }

    fn lost(&self, version: u64) {
        self.cell.lose(version);
    }
}
