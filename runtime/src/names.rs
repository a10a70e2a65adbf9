//! The functions of an engine by name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::function::Function;

/// The table of names. Whoever holds its lock is the one that publishes.
#[derive(Default)]
pub(crate) struct Names {
    table: HashMap<Arc<str>, Name>,
    tombstones: usize,
    /// How many units have been installed.
    pub(crate) installs: u64,
}

enum Name {
    /// A function that can be called and imported by its name, which keeps it.
    Known(Arc<Function>),
    /// A function that was removed. If something still keeps it when the name is installed again,
    /// it is revived, so that its callers get the new version.
    Tombstone(Weak<Function>),
}

impl Names {
    /// The function of this name, if it can be called and imported.
    pub(crate) fn known(&self, name: &str) -> Option<&Arc<Function>> {
        match self.table.get(name)? {
            Name::Known(function) => Some(function),
            Name::Tombstone(_) => None,
        }
    }

    /// The function of this name, known or removed, if it exists.
    pub(crate) fn existing(&self, name: &str) -> Option<Arc<Function>> {
        match self.table.get(name)? {
            Name::Known(function) => Some(Arc::clone(function)),
            Name::Tombstone(function) => function.upgrade(),
        }
    }

    /// Makes a function known under its name.
    pub(crate) fn insert(&mut self, function: &Arc<Function>) {
        let known = Name::Known(Arc::clone(function));
        if let Some(Name::Tombstone(_)) = self.table.insert(Arc::clone(function.name()), known) {
            self.tombstones -= 1;
        }
    }

    /// Puts a tombstone in the place of a known function, and gives out the function.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Function>> {
        let function = Arc::clone(self.known(name)?);
        let tombstone = Name::Tombstone(Arc::downgrade(&function));
        self.table.insert(Arc::clone(function.name()), tombstone);
        self.tombstones += 1;
        self.sweep();
        Some(function)
    }

    /// All known functions, removed.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Function>> {
        let names = self.table.drain().filter_map(|(_, name)| match name {
            Name::Known(function) => Some(function),
            Name::Tombstone(_) => None,
        });
        let functions = names.collect();
        self.tombstones = 0;
        functions
    }

    /// How many functions are known.
    pub(crate) fn len(&self) -> usize {
        self.table.len() - self.tombstones
    }

    /// Clears tombstones of functions that are gone, when they are the better part of the table:
    /// so the table stays in proportion to what is in it, and each removal pays a constant share.
    fn sweep(&mut self) {
        if self.tombstones <= 16 + self.len() {
            return;
        }
        self.table.retain(|_, name| match name {
            Name::Known(_) => true,
            Name::Tombstone(function) => function.strong_count() > 0,
        });
        let tombstones = self.table.values().filter(|name| matches!(name, Name::Tombstone(_)));
        self.tombstones = tombstones.count();
        self.table.shrink_to(2 * self.table.len());
    }
}
