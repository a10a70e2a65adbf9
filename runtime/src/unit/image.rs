//! The image: an installed unit, which its versions own.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::code::Block;
use crate::function::callee::Callee;
use crate::function::resume_points::{ParkedCall, PointUse};
use crate::unwind::code_map::Description;

/// An installed unit: its code, its data, and what these need to live. The versions that the unit
/// has installed, one for each function, share it, and it is dropped with the last of them.
pub(crate) struct Image {
    // The fields are in the order in which they are dropped. What the user attached goes while the
    // code that may know of it is still there. The functions that the code calls, with the sites
    // that call them, go before the code does.
    attached: Option<Box<Attached>>,
    callees: Box<[Callee]>,
    /// The points of the unit's functions, if they have any.
    points: Option<Box<LinkedPoints>>,
    code: Code,
}

/// The points of a unit at which frames move, as linked.
#[derive(Default)]
pub(crate) struct LinkedPoints {
    pub(crate) uses: Vec<PointUse>,
    pub(crate) parked_calls: Vec<Arc<ParkedCall>>,
}

struct Attached(Vec<Box<dyn Any + Send>>);

// SAFETY: a shared reference to the values gives nothing.
unsafe impl Sync for Attached {}

/// The code and data of a unit, by their owners.
pub(crate) enum Code {
    /// The engine's memory.
    Block {
        /// The version that is written over this one shares the block.
        block: Arc<Block>,
        description: Arc<Description>,
        /// The address of the function's code, if only one function of the unit has a version.
        only: Option<usize>,
    },
    /// Something else owns the code, and is told to release it.
    Adopted { _owner: Owner },
}

/// A function that is called once, when this is dropped.
pub(crate) struct Owner(Option<Box<dyn FnOnce() + Send>>);

impl Owner {
    pub(crate) fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

// SAFETY: a shared reference to an owner gives nothing.
unsafe impl Sync for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            survive(release);
        }
    }
}

/// Runs a destructor of the user's. The panic hook has reported a panic in it; it must not unwind
/// into the leaving thread, which is inside generated code and has done nothing wrong.
///
/// The value of a panic has a destructor, too, and that may panic. A value that the second panic
/// has is leaked: dropping it could go on like that for ever.
fn survive(release: impl FnOnce()) {
    let Err(value) = catch_unwind(AssertUnwindSafe(release)) else { return };
    if let Err(value) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        mem::forget(value);
    }
}

impl Image {
    pub(crate) fn new(
        code: Code,
        callees: Vec<Callee>,
        attached: Vec<Box<dyn Any + Send>>,
    ) -> Self {
        let attached = (!attached.is_empty()).then(|| Box::new(Attached(attached)));
        Self { attached, callees: callees.into(), points: None, code }
    }

    pub(crate) fn with_points(mut self, points: LinkedPoints) -> Self {
        let any = !points.uses.is_empty();
        self.points = any.then(|| Box::new(points));
        self
    }

    /// The unit's code.
    pub(crate) fn code(&self) -> &Code {
        &self.code
    }

    /// Ends the patching of calls in this code, since other code is written over it.
    pub(crate) fn deregister_sites(&mut self) {
        self.callees.iter_mut().for_each(Callee::deregister);
    }

    /// The points of the unit's functions.
    pub(crate) fn uses(&self) -> &[PointUse] {
        self.points.as_ref().map_or(&[], |points| &points.uses)
    }

    /// Notes the number of the install that the code is from, for unwinding and for backtraces.
    pub(crate) fn set_number(&self, number: u64) {
        if let Code::Block { description, .. } = &self.code
            && let Description::Unit(unit) = &**description
        {
            unit.number.store(number, Ordering::Relaxed);
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Each value is dropped on its own, whether or not another's destructor panics.
        for value in self.attached.take().into_iter().flat_map(|attached| attached.0) {
            survive(|| drop(value));
        }
        self.callees = Box::default();
        self.points = None;
    }
}
