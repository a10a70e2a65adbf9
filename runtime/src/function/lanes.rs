//! The lanes of a function. Each version of the function occupies one.

use std::collections::VecDeque;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use lastout_instrument::LaneLayout;
use lastout_reclaim::{Lane, State};

use super::Function;
use super::hold::{Detour, Held};
use crate::Result;
use crate::code::Block;
use crate::gates::SlowPath;
use crate::host::context;
use crate::host::fork::ForkSafeMutex;
use crate::host::threads;
use crate::version::payload::Payload;
use crate::version::{Version, VersionState};

/// The lanes of a function, with what belongs to each.
#[derive(Default)]
pub(super) struct FunctionLanes {
    /// The first lane's record, if there is such a lane: set as soon as that has its address.
    pub(super) first: Option<LaneRecord>,
    pub(super) more: Vec<(Arc<FunctionLane>, LaneRecord)>,
    /// The lane that the current version occupies, as its number, counted from the first lane.
    pub(super) live: Option<u32>,
}

/// The gate of a lane, and the version that has occupied it last.
pub(super) struct LaneRecord {
    pub(super) gate: Block,
    pub(super) version: Option<Version>,
    /// Whether an install has chosen the lane and not published yet.
    pub(super) reserved: bool,
}

/// A lane, with what its gate needs.
///
/// Its address is that of the [`Lane`] in it, and so that of the body. Gates contain the address,
/// so a lane stays where it is for as long as its function lives, or longer: see [`LanePool`].
#[repr(C)]
pub(crate) struct FunctionLane {
    pub(super) inner: Lane<Payload>,
    /// From the start of any ledger to the lane's cell, in bytes.
    pub(super) cell_offset: usize,
    /// The function whose lane this is; null while the lane is in the pool. Only callers on their
    /// way in use it, through a gate of the function, which is there as long as they are.
    pub(super) function: AtomicPtr<Function>,
    /// Made when a version in this lane is first replaced in its place.
    pub(super) detour: OnceLock<Box<Detour>>,
}

// Gates have the address of a `FunctionLane` for that of its lane.
const _: () = assert!(offset_of!(FunctionLane, inner) == 0);

/// Where entries and the tails of gates find what they need in a lane and in a function.
const LANE_LAYOUT: LaneLayout = LaneLayout {
    function: offset_of!(FunctionLane, function) as i32,
    cell_offset: offset_of!(FunctionLane, cell_offset) as i32,
    current: offset_of!(Function, current) as i32,
    lane: offset_of!(Function, lane) as i32,
    no_version: offset_of!(Function, no_version) as i32,
};

/// The facts of functions that gates know.
pub(crate) fn slow_path() -> SlowPath {
    SlowPath {
        layout: LANE_LAYOUT,
        leave: FunctionLane::leave as *const () as usize,
        removed: FunctionLane::removed as *const () as usize,
        wait: Held::wait as *const () as usize,
    }
}

impl FunctionLane {
    /// A lane that no frame is in.
    pub(super) fn new(function: *const Function) -> Result<Self> {
        let inner = threads::domain().lane()?;
        let cell_offset = inner.cell() as usize * size_of::<u32>();
        let function = AtomicPtr::new(function.cast_mut());
        Ok(Self { inner, cell_offset, function, detour: OnceLock::new() })
    }

    /// The stub calls this when a caller has found the version gone on its way out of the gate.
    pub(crate) unsafe extern "C" fn leave(lane: *const Self) {
        // SAFETY: gates pass a lane that they have counted out of. It lives as long as its
        // function, which the maker of the call in progress keeps until that returns. If that may
        // be gone already, the lane is of the pool, which stays as long as any of the functions.
        unsafe { &*lane }.inner.leave();
    }

    /// The stub calls this when a caller has found that the function has no version.
    pub(crate) unsafe extern "C" fn removed(lane: *const Self) {
        // SAFETY: as in `leave`.
        let lane = unsafe { &*lane };
        // SAFETY: a caller on its way in is called by something that keeps the function.
        let function = unsafe { &*lane.function.load(Ordering::Relaxed) };
        // A frame that has a fallback has not failed.
        if function.fallback.is_none() {
            context::met_removed(&function.name);
        }
    }
}

/// A lane that was chosen for the next version of a function. No other install gets it until this
/// has been published or dropped.
pub(crate) struct ReservedLane {
    pub(super) function: Arc<Function>,
    pub(super) lane: LaneRef,
    pub(super) index: u32,
}

/// One lane of a function.
#[derive(Clone)]
pub(super) enum LaneRef {
    First,
    Other(Arc<FunctionLane>),
}

impl LaneRef {
    pub(super) fn of<'a>(&'a self, function: &'a Function) -> &'a FunctionLane {
        match self {
            Self::First => function.first.as_ref().expect("it was chosen"),
            Self::Other(lane) => lane,
        }
    }
}

/// The lanes of functions that could be tail-called and are gone.
///
/// A function may be tail-called by a body that was the last to keep it, and that is gone while the
/// function runs. Then no further caller comes, and the frames inside leave one by one. The last
/// thing that each does is to look at the lane, after it has counted out and when nothing else
/// keeps the lane. So the lane stays as long as anything of the engine, and other functions use it
/// again: a frame that looks late treats all lanes alike.
#[derive(Default)]
pub(crate) struct LanePool(ForkSafeMutex<VecDeque<Arc<FunctionLane>>>);

impl LanePool {
    /// A free lane for a function: one of the pool, or a new one.
    pub(super) fn take(&self, function: *const Function) -> Result<Arc<FunctionLane>> {
        /// How many lanes are looked at. Frames have mostly left those that were given back first.
        const LOOKED_AT: usize = 4;

        let mut lanes = self.0.lock();
        let looked_at = lanes.len().min(LOOKED_AT);
        let is_free = |lane: &Arc<FunctionLane>| lane.inner.state().state() == State::Free;
        if let Some(free) = lanes.iter().take(looked_at).position(is_free)
            && let Some(lane) = lanes.remove(free)
        {
            lane.function.store(function.cast_mut(), Ordering::Relaxed);
            return Ok(lane);
        }
        lanes.rotate_left(looked_at);
        Ok(Arc::new(FunctionLane::new(function)?))
    }

    /// Frees the versions that occupy these lanes, are retired, and have no frame inside any more.
    pub(crate) fn leave_retired(&self) {
        let lanes: Vec<_> = self.0.lock().iter().map(Arc::clone).collect();
        for lane in lanes {
            lane.inner.leave();
        }
    }

    /// Takes back a lane of a function that is gone. Frames may still be inside.
    pub(super) fn give_back(&self, lane: Arc<FunctionLane>) {
        lane.function.store(ptr::null_mut(), Ordering::Relaxed);
        self.0.lock().push_back(lane);
    }
}

impl ReservedLane {
    pub(crate) fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Puts this lane's gate into the slot. Returns whether the slot held another gate.
    pub(crate) fn enter_slot(&self) -> bool {
        let function = &self.function;
        let gate = function.lanes.lock().record(self.index).gate.address();
        function.set_slot(self.lane.of(function), gate) != gate
    }

    /// Makes a version current: a caller that comes to this lane's gate, or bails out of another,
    /// calls `body`. The version that was current before can still be entered until it is closed:
    /// see [`Closing::close`].
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing. `body` is code of the function's signature, which
    /// lives until `payload` is dropped.
    pub(crate) unsafe fn publish(&self, body: usize, payload: Payload) -> Option<Closing> {
        let function = &self.function;
        let mut lanes = function.lanes.lock();
        let LaneRecord { gate, version, .. } = lanes.record(self.index);
        *version = Some(payload.version().clone());
        // SAFETY: the lane was free when it was chosen, and only the install that has chosen it
        // occupies it. The caller says that the body is code.
        unsafe { self.lane.of(function).inner.occupy(body, payload) };
        function.current.store(gate.address(), Ordering::Release);
        let replaced = lanes.live.replace(self.index)?;
        Some(lanes.closing(replaced, Some(function)))
    }
}

impl Drop for ReservedLane {
    fn drop(&mut self) {
        // The lane of a version that was published is not free any more.
        self.function.lanes.lock().record(self.index).reserved = false;
    }
}

/// A version that is no longer current: it is to be closed, retired after a heavy fence, and then
/// left. This keeps the function, and so the lane, until then.
pub(crate) struct Closing {
    pub(super) lane: LaneRef,
    pub(super) version: Option<Version>,
    /// `None` if the function is gone, and only its lane is left.
    pub(super) function: Option<Arc<Function>>,
}

impl Closing {
    pub(super) fn lane(&self) -> &Lane<Payload> {
        match (&self.lane, &self.function) {
            (LaneRef::Other(lane), _) => &lane.inner,
            (lane, Some(function)) => &lane.of(function).inner,
            (LaneRef::First, None) => unreachable!("the first lane goes with its function"),
        }
    }

    /// Makes the version impossible to enter.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and got this just now.
    pub(crate) unsafe fn close(&self) {
        if let Some(version) = &self.version {
            version.advance(VersionState::Retired);
        }
        // SAFETY: the lane was live until its version was unpublished, and nothing else closes it.
        unsafe { self.lane().close() };
    }

    /// Retires the version: the last frame to leave it frees it.
    ///
    /// # Safety
    ///
    /// A heavy fence was executed after the version was closed.
    pub(crate) unsafe fn retire(&self) {
        // SAFETY: the lane was closed, and the caller says that there was a fence since.
        unsafe { self.lane().retire() };
    }

    /// Frees the version if it is retired and no frame is inside.
    pub(crate) fn leave(self) {
        self.lane().leave();
    }

    /// The function whose version this is, if the function still exists.
    pub(crate) fn function(&self) -> Option<&Arc<Function>> {
        self.function.as_ref()
    }
}

impl FunctionLanes {
    /// The number of a lane among those that are not the first.
    pub(super) fn among_more(&self, index: u32) -> Option<usize> {
        (index as usize).checked_sub(usize::from(self.first.is_some()))
    }

    /// The record of the lane with this number, which must exist.
    pub(super) fn record(&mut self, index: u32) -> &mut LaneRecord {
        match (self.among_more(index), &mut self.first) {
            (Some(index), _) => &mut self.more[index].1,
            (None, first) => first.as_mut().expect("the first is not among the others"),
        }
    }

    pub(super) fn chosen(&self, index: u32) -> LaneRef {
        match self.among_more(index) {
            Some(index) => LaneRef::Other(Arc::clone(&self.more[index].0)),
            None => LaneRef::First,
        }
    }

    pub(super) fn closing(&mut self, index: u32, function: Option<&Arc<Function>>) -> Closing {
        let (lane, version) = (self.chosen(index), self.record(index).version.clone());
        Closing { lane, version, function: function.map(Arc::clone) }
    }

    /// All lanes with their records, in order.
    pub(super) fn iter<'a>(
        &'a self,
        first: Option<&'a FunctionLane>,
    ) -> impl Iterator<Item = (&'a FunctionLane, &'a LaneRecord)> {
        let more = self.more.iter().map(|(lane, record)| (&**lane, record));
        first.into_iter().zip(&self.first).chain(more)
    }
}
