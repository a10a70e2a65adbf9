//! An installed unit: what its versions own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::code::Block;
use crate::function::callee::Callee;
use crate::function::resume_points::{ParkedCall, PointUse};
use crate::unwind::code_map::Description;

/// An installed unit: its code, its data, and what these need to live. Shared by the versions that
/// the unit has installed, one a function, and dropped with the last of them.
pub(crate) struct Image {
    // In the order in which they are dropped: what the user attached goes while the code that may
    // know of it is still there, and functions it calls, with the sites that call them, go before
    // it does.
    attached: Option<Box<Attached>>,
    callees: Box<[Callee]>,
    /// The points of its functions, if they have any.
    points: Option<Box<LinkedPoints>>,
    code: Code,
}

/// What a unit has to do with points at which frames move.
#[derive(Default)]
pub(crate) struct LinkedPoints {
    pub(crate) uses: Vec<PointUse>,
    pub(crate) parked_calls: Vec<Arc<ParkedCall>>,
}

struct Attached(Vec<Box<dyn Any + Send>>);

// SAFETY: a shared reference to them gives nothing.
unsafe impl Sync for Attached {}

/// Who owns the code and data of a unit.
pub(crate) enum Code {
    /// The engine's memory.
    Block {
        /// Shared with the version that is written over this one.
        block: Arc<Block>,
        description: Arc<Description>,
        /// Where the code of the unit's function starts, if only one of them has a version.
        only: Option<usize>,
    },
    /// Something else, which is told to let go of it.
    Adopted { _owner: Owner },
}

/// Called once, when dropped.
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

/// Runs what the user has us drop. The panic hook has reported a panic in it; it must not unwind
/// into the leaving thread, which is inside generated code and has done nothing wrong.
fn survive(release: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(release));
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

    /// Its code.
    pub(crate) fn code(&self) -> &Code {
        &self.code
    }

    /// Has no calls in its code patched any more, as that is written over.
    pub(crate) fn deregister_sites(&mut self) {
        self.callees.iter_mut().for_each(Callee::deregister);
    }

    /// The points of its functions.
    pub(crate) fn uses(&self) -> &[PointUse] {
        self.points.as_ref().map_or(&[], |points| &points.uses)
    }

    /// Says which install its code is of, to whoever finds it on a stack.
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
        // Each on its own: a panic in one must not keep the others from being dropped.
        for value in self.attached.take().into_iter().flat_map(|attached| attached.0) {
            survive(|| drop(value));
        }
        self.callees = Box::default();
        self.points = None;
    }
}
