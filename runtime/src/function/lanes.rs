//! The seats of a function, one of which each of its versions sits in.

use std::collections::VecDeque;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use lastout_instrument::LaneLayout;
use lastout_reclaim::{Lane, State};

use super::Function;
use super::hold::{Held, Valet};
use crate::Result;
use crate::code::Block;
use crate::gates::SlowPath;
use crate::host::context;
use crate::host::fork::Lock;
use crate::host::threads;
use crate::version::payload::Payload;
use crate::version::{Version, VersionState};

/// What is known of the seats of a function.
#[derive(Default)]
pub(super) struct Seats {
    /// Of the first seat, if the function has that: set right after it has got its address.
    pub(super) first: Option<Place>,
    pub(super) more: Vec<(Arc<Seat>, Place)>,
    /// Which of them the current version sits in, counted from the first.
    pub(super) live: Option<u32>,
}

/// The gate of a seat, and what was put into it last.
pub(super) struct Place {
    pub(super) gate: Block,
    pub(super) version: Option<Version>,
    /// An install has chosen it and not published yet.
    pub(super) reserved: bool,
}

/// A lane, for its gate.
///
/// The address of a seat is that of its lane, and so of its body word. Gates know it, so a seat
/// stays where it is for as long as its function lives, or longer: see [`SeatPool`].
#[repr(C)]
pub(crate) struct Seat {
    pub(super) lane: Lane<Payload>,
    /// From the start of any ledger to the lane's cell, in bytes.
    pub(super) cell_offset: usize,
    /// Whose it is; null while it is in the pool. Only used by those who are on their way in, by
    /// a gate of the function, which is there as long as somebody is.
    pub(super) function: AtomicPtr<Function>,
    /// Made when a version is first replaced in its place here.
    pub(super) valet: OnceLock<Box<Valet>>,
}

/// Where entries and the tails of gates find what they need.
const LANE_LAYOUT: LaneLayout = LaneLayout {
    function: offset_of!(Seat, function) as i32,
    cell_offset: offset_of!(Seat, cell_offset) as i32,
    current: offset_of!(Function, current) as i32,
    lane: offset_of!(Function, lane) as i32,
    no_version: offset_of!(Function, zeros) as i32,
};

/// What gates are told of functions.
pub(crate) fn slow_path() -> SlowPath {
    SlowPath {
        layout: LANE_LAYOUT,
        leave: Seat::leave as *const () as usize,
        removed: Seat::removed as *const () as usize,
        wait: Held::wait as *const () as usize,
    }
}

impl Seat {
    /// A seat with nobody in it.
    pub(super) fn new(function: *const Function) -> Result<Self> {
        let lane = threads::domain().lane()?;
        let cell_offset = lane.cell() as usize * size_of::<u32>();
        let function = AtomicPtr::new(function.cast_mut());
        Ok(Self { lane, cell_offset, function, valet: OnceLock::new() })
    }

    /// The stub's call when a caller has found the version gone on its way out of the gate.
    pub(crate) unsafe extern "C" fn leave(seat: *const Self) {
        // SAFETY: gates pass a seat that they have counted out of. It lives as long as its function,
        // which whoever made the call in progress keeps until it returns; or if that may be gone
        // already, it is of the pool, which stays as long as any function of the engine.
        unsafe { &*seat }.lane.leave();
    }

    /// The stub's call when a caller has found that the function has no version.
    pub(crate) unsafe extern "C" fn removed(seat: *const Self) {
        // SAFETY: as in `leave`.
        let seat = unsafe { &*seat };
        // SAFETY: whoever is on the way in is called by something that keeps the function.
        let function = unsafe { &*seat.function.load(Ordering::Relaxed) };
        // Who stays has not failed.
        if function.stay.is_none() {
            context::met_removed(&function.name);
        }
    }
}

/// A seat that was chosen for the next version of a function: nobody else gets it until it is
/// published or dropped.
pub(crate) struct FreeSeat {
    pub(super) function: Arc<Function>,
    pub(super) seat: Chosen,
    pub(super) index: u32,
}

/// Which seat of a function.
#[derive(Clone)]
pub(super) enum Chosen {
    First,
    Other(Arc<Seat>),
}

impl Chosen {
    pub(super) fn of<'a>(&'a self, function: &'a Function) -> &'a Seat {
        match self {
            Self::First => function.first.as_ref().expect("it was chosen"),
            Self::Other(seat) => seat,
        }
    }
}

/// The seats of functions that could be tail-called and are gone.
///
/// A body that tail-calls such a function is gone while that runs, and with it perhaps the last
/// that kept the function: then nobody comes any more, and who is inside leaves one by one. The
/// last thing that they do is to look at the lane, after they have counted out and when nothing
/// else keeps it. So it stays, for as long as anything of the engine does, and other functions use
/// it again: to whoever looks late, all lanes are alike.
#[derive(Default)]
pub(crate) struct SeatPool(Lock<VecDeque<Arc<Seat>>>);

impl SeatPool {
    /// A seat that is free, of the pool or a new one, for a function.
    pub(super) fn take(&self, function: *const Function) -> Result<Arc<Seat>> {
        /// How many are looked at: those that were given back first have been left, mostly.
        const LOOKED_AT: usize = 4;

        let mut seats = self.0.lock();
        let looked_at = seats.len().min(LOOKED_AT);
        let is_free = |seat: &Arc<Seat>| seat.lane.state().state() == State::Free;
        if let Some(free) = seats.iter().take(looked_at).position(is_free)
            && let Some(seat) = seats.remove(free)
        {
            seat.function.store(function.cast_mut(), Ordering::Relaxed);
            return Ok(seat);
        }
        seats.rotate_left(looked_at);
        Ok(Arc::new(Seat::new(function)?))
    }

    /// Frees what sits in them, was let go, and has nobody inside any more.
    pub(crate) fn leave_retired(&self) {
        let seats: Vec<_> = self.0.lock().iter().map(Arc::clone).collect();
        for seat in seats {
            seat.lane.leave();
        }
    }

    /// Takes back a seat of a function that is gone, whoever may still be inside.
    pub(super) fn give_back(&self, seat: Arc<Seat>) {
        seat.function.store(ptr::null_mut(), Ordering::Relaxed);
        self.0.lock().push_back(seat);
    }
}

impl FreeSeat {
    pub(crate) fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Has the slot hold this seat's gate; whether it held another.
    pub(crate) fn enter_slot(&self) -> bool {
        let function = &self.function;
        let gate = function.seats.lock().place(self.index).gate.address();
        function.set_slot(self.seat.of(function), gate) != gate
    }

    /// Makes a version current: who comes to this seat's gate, or bails out of another, calls
    /// `body`. What was current before can still be entered, until it is closed: see
    /// [`Closing::close`].
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing. `body` is code of the function's signature, which
    /// lives until `payload` is dropped.
    pub(crate) unsafe fn publish(&self, body: usize, payload: Payload) -> Option<Closing> {
        let function = &self.function;
        let mut seats = function.seats.lock();
        let Place { gate, version, .. } = seats.place(self.index);
        *version = Some(payload.version().clone());
        // SAFETY: the lane was free when it was chosen, and only who has chosen it occupies it.
        // The caller says that the body is code.
        unsafe { self.seat.of(function).lane.occupy(body, payload) };
        function.current.store(gate.address(), Ordering::Release);
        let replaced = seats.live.replace(self.index)?;
        Some(seats.closing(replaced, Some(function)))
    }
}

impl Drop for FreeSeat {
    fn drop(&mut self) {
        // If it was published, its lane is not free any more.
        self.function.seats.lock().place(self.index).reserved = false;
    }
}

/// A version that can no longer be entered and is to be let go after a heavy fence, and then left.
/// Keeps the function, and so the lane, until then.
pub(crate) struct Closing {
    pub(super) seat: Chosen,
    pub(super) version: Option<Version>,
    /// `None` if the function is gone, and only the seat is left of it.
    pub(super) function: Option<Arc<Function>>,
}

impl Closing {
    pub(super) fn lane(&self) -> &Lane<Payload> {
        match (&self.seat, &self.function) {
            (Chosen::Other(seat), _) => &seat.lane,
            (seat, Some(function)) => &seat.of(function).lane,
            (Chosen::First, None) => unreachable!("the first seat goes with its function"),
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
        // SAFETY: it was live until it was unpublished, and nobody else closes it.
        unsafe { self.lane().close() };
    }

    /// Lets the version go: whoever is the last to leave it frees it.
    ///
    /// # Safety
    ///
    /// A heavy fence was executed after the version was closed.
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the lane was closed, and the caller says that there was a fence since.
        unsafe { self.lane().retire() };
    }

    /// Frees the version if nobody is inside, once it has been let go.
    pub(crate) fn leave(self) {
        self.lane().leave();
    }

    /// Whose version it is, if that is still there.
    pub(crate) fn function(&self) -> Option<&Arc<Function>> {
        self.function.as_ref()
    }
}

impl Seats {
    /// The number of a seat among those that are not the first.
    pub(super) fn among_more(&self, index: u32) -> Option<usize> {
        (index as usize).checked_sub(usize::from(self.first.is_some()))
    }

    /// The place with this number, which there is.
    pub(super) fn place(&mut self, index: u32) -> &mut Place {
        match (self.among_more(index), &mut self.first) {
            (Some(index), _) => &mut self.more[index].1,
            (None, first) => first.as_mut().expect("the first is not among the others"),
        }
    }

    pub(super) fn chosen(&self, index: u32) -> Chosen {
        match self.among_more(index) {
            Some(index) => Chosen::Other(Arc::clone(&self.more[index].0)),
            None => Chosen::First,
        }
    }

    pub(super) fn closing(&mut self, index: u32, function: Option<&Arc<Function>>) -> Closing {
        let (seat, version) = (self.chosen(index), self.place(index).version.clone());
        Closing { seat, version, function: function.map(Arc::clone) }
    }

    /// All of them, in order.
    pub(super) fn iter<'a>(
        &'a self,
        first: Option<&'a Seat>,
    ) -> impl Iterator<Item = (&'a Seat, &'a Place)> {
        let more = self.more.iter().map(|(seat, place)| (&**seat, place));
        first.into_iter().zip(&self.first).chain(more)
    }
}
