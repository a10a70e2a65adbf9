//! Call sites that are patched when the function they call is replaced.
//!
//! With [`Dispatch::PatchedSites`](crate::Dispatch::PatchedSites), a call of a replaceable
//! function is a direct call of the gate of its current lane. An install that brings another lane
//! into use changes every such call in every unit that is alive, while threads execute them.
//!
//! Why that is safe is told in [`docs::calls`](crate::docs::calls), under "How calls are patched".
//!
//! # Writers
//!
//! Only the owner of the [`Patches`] of the engine's memory changes sites, so they are changed one
//! after the other. A unit is registered under the [`Patches`] too, and its sites then call what is
//! in the slots at that moment. A unit is deregistered before its code is freed.

use std::sync::OnceLock;

use slab::Slab;

use crate::code::Patches;
use crate::code::patch::Site;
use crate::host::fork::ForkSafeMutex;

#[cfg(test)]
mod tests;

/// The sites that call a function, in all units that are alive.
#[derive(Default)]
pub(crate) struct Sites {
    /// The table is made for the first unit that has sites.
    units: OnceLock<Box<ForkSafeMutex<ByUnit>>>,
}

/// The sites of each unit, by the key that registration returned.
type ByUnit = Slab<Box<[Site]>>;

impl Sites {
    /// Whether any unit has sites that call the function.
    pub(crate) fn any(&self) -> bool {
        self.units.get().is_some_and(|units| !units.lock().is_empty())
    }

    /// Makes all sites call `gate`.
    pub(crate) fn aim(&self, gate: usize, patches: &Patches<'_>) {
        let Some(units) = self.units.get() else { return };
        for (_, sites) in units.lock().iter() {
            for &site in sites {
                patches.aim(site, gate);
            }
        }
    }

    pub(super) fn add(&self, sites: Box<[Site]>) -> usize {
        self.units.get_or_init(Box::default).lock().insert(sites)
    }

    pub(super) fn remove(&self, key: usize) {
        if let Some(units) = self.units.get() {
            let mut units = units.lock();
            units.remove(key);
            // The table shrinks again when many callers have gone.
            if units.is_empty() {
                *units = Slab::new();
            }
        }
    }
}
