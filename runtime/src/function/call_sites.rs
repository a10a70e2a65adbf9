//! Call sites that are patched when the function they call is replaced.
//!
//! With [`Dispatch::PatchedSites`](crate::Dispatch::PatchedSites), a call of a replaceable
//! function is a direct call of the gate of its current lane. An install that brings another lane
//! into use changes every such call in every unit that is alive, while threads execute them.
//!
//! Why that is safe is told in the crate's documentation, under "How calls are patched".
//!
//! # Who writes
//!
//! Sites are changed by whoever has the [`Patches`] of the engine's memory, and so one after the
//! other. Who registers a unit has them, too, and the sites call what is in the slots at that
//! moment. A unit is deregistered before its code is freed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use slab::Slab;

use crate::code::Patches;
use crate::code::patch::Site;
use crate::function::Function;
use crate::host::fork::ForkSafeMutex;

#[cfg(test)]
mod tests;

/// The sites that call a function, in all units that are alive.
#[derive(Default)]
pub(crate) struct Sites {
    /// Made for the first unit that has some.
    units: OnceLock<Box<ForkSafeMutex<ByUnit>>>,
}

/// The sites of each unit.
type ByUnit = Slab<Box<[Site]>>;

impl Sites {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.units.get().is_some_and(|units| !units.lock().is_empty())
    }

    /// Has all of them call `gate`.
    pub(crate) fn aim(&self, gate: usize, patches: &Patches<'_>) {
        let Some(units) = self.units.get() else { return };
        for (_, sites) in units.lock().iter() {
            for &site in sites {
                patches.aim(site, gate);
            }
        }
    }

    fn add(&self, sites: Box<[Site]>) -> usize {
        self.units.get_or_init(Box::default).lock().insert(sites)
    }

    fn remove(&self, key: usize) {
        if let Some(units) = self.units.get() {
            let mut units = units.lock();
            units.remove(key);
            // Of many callers that are gone nothing is kept.
            if units.is_empty() {
                *units = Slab::new();
            }
        }
    }
}

/// A replaceable function that a unit refers to, which keeps it; and the unit's sites that call it,
/// which are patched until this is dropped.
pub(crate) struct Callee {
    function: Arc<Function>,
    registered: Option<RegisteredSites>,
}

/// How a unit calls a function.
#[derive(Clone, Copy)]
struct RegisteredSites {
    key: usize,
    calls: Calls,
}

/// Of a unit's calls of a function, how many are sites, and how many call a jump that is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) in_place: usize,
    pub(crate) by_jump: usize,
}

impl Callee {
    /// A function that is not called by sites.
    pub(crate) fn new(function: Arc<Function>) -> Self {
        Self { function, registered: None }
    }

    /// One that is. From now on the sites are patched. The caller has the [`Patches`], and the
    /// sites call the gate that is in the function's slot.
    pub(crate) fn register(function: Arc<Function>, sites: Vec<Site>, calls: Calls) -> Self {
        let key = function.sites().add(sites.into());
        function.env().calls.add(calls);
        Self { function, registered: Some(RegisteredSites { key, calls }) }
    }
}

impl Callee {
    /// From now on the sites are not patched any more.
    pub(crate) fn deregister(&mut self) {
        if let Some(RegisteredSites { key, calls }) = self.registered.take() {
            self.function.sites().remove(key);
            self.function.env().calls.subtract(calls);
        }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// All [`Calls`] in an engine.
#[derive(Default)]
pub(crate) struct AllCalls {
    in_place: AtomicUsize,
    by_jump: AtomicUsize,
}

impl AllCalls {
    fn add(&self, calls: Calls) {
        self.in_place.fetch_add(calls.in_place, Ordering::Relaxed);
        self.by_jump.fetch_add(calls.by_jump, Ordering::Relaxed);
    }

    fn subtract(&self, calls: Calls) {
        self.in_place.fetch_sub(calls.in_place, Ordering::Relaxed);
        self.by_jump.fetch_sub(calls.by_jump, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn get(&self) -> Calls {
        Calls {
            in_place: self.in_place.load(Ordering::Relaxed),
            by_jump: self.by_jump.load(Ordering::Relaxed),
        }
    }
}
