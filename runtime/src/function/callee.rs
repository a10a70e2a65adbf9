//! What a unit calls: a replaceable function, and the call sites for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::code::patch::Site;
use crate::function::Function;

/// A replaceable function that a unit refers to, and the unit's sites that call it. This keeps the
/// function, and the sites are patched until it is dropped.
pub(crate) struct Callee {
    function: Arc<Function>,
    registered: Option<RegisteredSites>,
}

/// The sites of a unit that call a function, as registered.
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
    /// A function that no site calls.
    pub(crate) fn new(function: Arc<Function>) -> Self {
        Self { function, registered: None }
    }

    /// A function that sites call. From now on the sites are patched. The caller has the
    /// [`Patches`](crate::code::Patches), and the sites call the gate in the function's slot.
    pub(crate) fn register(function: Arc<Function>, sites: Vec<Site>, calls: Calls) -> Self {
        let key = function.sites().add(sites.into());
        function.env().calls.add(calls);
        Self { function, registered: Some(RegisteredSites { key, calls }) }
    }
}

impl Callee {
    /// Ends the patching of the sites.
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

    /// The present counts.
    pub(crate) fn get(&self) -> Calls {
        Calls {
            in_place: self.in_place.load(Ordering::Relaxed),
            by_jump: self.by_jump.load(Ordering::Relaxed),
        }
    }
}
