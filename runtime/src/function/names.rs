//! The functions of an engine by name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use cranelift_codegen::ir::Signature;

use crate::Result;
use crate::function::Function;
use crate::function::env::FunctionEnv;
use crate::host::fork::{ForkSafeMutex, Guard};

/// The table of names. Only the holder of its lock publishes versions.
#[derive(Default)]
pub(crate) struct Names {
    table: ForkSafeMutex<NameTable>,
}

impl Names {
    pub(crate) fn lock(&self) -> Guard<'_, NameTable> {
        self.table.lock()
    }

    /// The function of this name, if it can be called and imported.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<Function>> {
        self.lock().known(name).map(Arc::clone)
    }

    /// The function of this name and signature, known or not. If there is none, it is made.
    ///
    /// As long as anything keeps the function, every caller gets the same for this name. So units
    /// that define a function at the same time, before it is known, define the same function.
    pub(crate) fn obtain(
        &self,
        name: &str,
        signature: &Signature,
        env: &Arc<FunctionEnv>,
    ) -> Result<Arc<Function>> {
        let existing = self.lock().existing(name);
        let function = match existing {
            Some(function) => function,
            None => {
                let new = Function::new(name.into(), signature, env)?;
                let existing = self.lock().claim(&new);
                existing.unwrap_or(new)
            }
        };
        function.expect_signature(signature)?;
        Ok(function)
    }
}

#[derive(Default)]
pub(crate) struct NameTable {
    names: HashMap<Arc<str>, Name>,
    unknown: usize,
    /// How many unknown functions were left after the last sweep.
    swept: usize,
    /// How many units have been installed.
    pub(crate) installs: u64,
}

enum Name {
    /// A function that can be called and imported by its name, which keeps it.
    Known(Arc<Function>),
    /// A function that is about to become known, or was removed. If something still keeps it when a
    /// unit with the name is installed, it gets the version, so that its callers reach that.
    Unknown(Weak<Function>),
}

impl NameTable {
    pub(crate) fn known(&self, name: &str) -> Option<&Arc<Function>> {
        match self.names.get(name)? {
            Name::Known(function) => Some(function),
            Name::Unknown(_) => None,
        }
    }

    /// The function of this name, known or not, if it exists.
    fn existing(&self, name: &str) -> Option<Arc<Function>> {
        match self.names.get(name)? {
            Name::Known(function) => Some(Arc::clone(function)),
            Name::Unknown(function) => function.upgrade(),
        }
    }

    /// Notes a function that is not known yet, unless its name has a function, which is returned.
    fn claim(&mut self, function: &Arc<Function>) -> Option<Arc<Function>> {
        let existing = self.existing(function.name());
        if existing.is_none() {
            self.insert(function, Name::Unknown(Arc::downgrade(function)));
            self.sweep();
        }
        existing
    }

    /// Makes a function known under its name.
    pub(crate) fn publish(&mut self, function: &Arc<Function>) {
        self.insert(function, Name::Known(Arc::clone(function)));
    }

    /// Makes a known function unknown, and returns it.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Function>> {
        let function = Arc::clone(self.known(name)?);
        self.insert(&function, Name::Unknown(Arc::downgrade(&function)));
        self.sweep();
        Some(function)
    }

    /// Removes all known functions, and returns them.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Function>> {
        (self.unknown, self.swept) = (0, 0);
        let names = std::mem::take(&mut self.names).into_values();
        let known = names.filter_map(|name| match name {
            Name::Known(function) => Some(function),
            Name::Unknown(_) => None,
        });
        known.collect()
    }

    /// How many functions are known.
    pub(crate) fn len(&self) -> usize {
        self.names.len() - self.unknown
    }

    fn insert(&mut self, function: &Arc<Function>, name: Name) {
        self.unknown += usize::from(matches!(name, Name::Unknown(_)));
        let before = self.names.insert(Arc::clone(function.name()), name);
        self.unknown -= usize::from(matches!(before, Some(Name::Unknown(_))));
    }

    /// Clears unknown functions that are gone, when they may be the better part of the table: so
    /// the table stays in proportion to what is in it, and each call pays a constant share.
    fn sweep(&mut self) {
        if self.unknown <= 16 + self.len() + 2 * self.swept {
            return;
        }
        self.names.retain(|_, name| match name {
            Name::Known(_) => true,
            Name::Unknown(function) => function.strong_count() > 0,
        });
        let unknown = self.names.values().filter(|name| matches!(name, Name::Unknown(_)));
        self.unknown = unknown.count();
        self.swept = self.unknown;
        self.names.shrink_to(2 * self.names.len());
    }
}
