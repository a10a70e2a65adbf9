//! A function: what stays while its versions come and go.

use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cranelift_codegen::ir::Signature;
use lastout_instrument::{LaneLayout, Symbol};
use lastout_reclaim::{Lane, State};

use crate::fork::{Lock, Pass};
use crate::memory::Block;
use crate::payload::Payload;
use crate::shared::Shared;
use crate::sites::Sites;
use crate::template::{Kind, Prototype, instantiate};
use crate::thread;
use crate::version::{ThreadFrames, Version, VersionInfo, VersionState};
use crate::{Error, Result};

/// A name and a signature, with the slot that callers load and the lanes that versions occupy.
///
/// Whoever can call a function owns it: handles, and the units that import it. So as long as a
/// thread may be in or on its way to a gate, the function, and with it the gate, is there.
#[repr(C)]
pub(crate) struct Function {
    /// What callers load and call: the gate of some lane of this function, always.
    slot: AtomicUsize,
    /// The gate of the lane that is current, or 0 while there is no version. Who has bailed out
    /// of a gate goes on from here.
    current: AtomicUsize,
    /// The seat whose gate is in the slot: entries are gates for it.
    lane: AtomicPtr<Seat>,
    /// The first seat, next to the slot: most calls need nothing else of the function.
    first: Seat,
    name: Arc<str>,
    prototype: Arc<Prototype>,
    seats: Lock<Seats>,
    sites: Sites,
    entry: OnceLock<Box<Block>>,
    shared: Arc<Shared>,
}

/// What is known of the seats of a function.
#[derive(Default)]
struct Seats {
    /// Set once, right after the function has got its address.
    first: Option<Place>,
    more: Vec<(Arc<Seat>, Place)>,
    /// Which of them the current version sits in, counted from the first.
    live: Option<u32>,
}

/// The gate of a seat, and what was put into it last.
struct Place {
    gate: Block,
    version: Option<Version>,
    /// An install has chosen it and not published yet.
    reserved: bool,
}

/// A lane, for its gate.
///
/// The address of a seat is that of its lane, and so of its body word. Gates know it, so a seat
/// stays where it is for as long as its function lives.
#[repr(C)]
pub(crate) struct Seat {
    lane: Lane<Payload>,
    /// From the start of any ledger to the lane's cell, in bytes.
    cell_offset: usize,
    /// Whose it is.
    function: *const Function,
}

// SAFETY: the lane can be sent and shared. The function is only used by those who are in a call of
// it, which keeps it alive, and can be shared.
unsafe impl Send for Seat {}
// SAFETY: as above.
unsafe impl Sync for Seat {}

/// Where entries and the tails of gates find what they need.
pub(crate) const LANE_LAYOUT: LaneLayout = LaneLayout {
    function: offset_of!(Seat, function) as i32,
    cell_offset: offset_of!(Seat, cell_offset) as i32,
    current: offset_of!(Function, current) as i32,
    lane: offset_of!(Function, lane) as i32,
};

impl Seat {
    /// A seat with nobody in it.
    fn new(function: *const Function) -> Result<Self> {
        let lane = thread::domain().lane()?;
        let cell_offset = lane.cell() as usize * size_of::<u32>();
        Ok(Self { lane, cell_offset, function })
    }

    /// The stub's call when a caller has found the version gone on its way out of the gate.
    pub(crate) unsafe extern "C" fn leave(seat: *const Self) {
        // SAFETY: gates pass the seat they were made for. It lives as long as the function, which
        // whoever made the call in progress keeps alive until it returns.
        unsafe { &*seat }.lane.leave();
    }

    /// The stub's call when a caller has found that the function has no version.
    pub(crate) unsafe extern "C" fn removed(seat: *const Self) {
        // SAFETY: as in `leave`.
        let seat = unsafe { &*seat };
        // SAFETY: the function lives as long as its seats.
        thread::met_removed(&unsafe { &*seat.function }.name);
    }
}

// Between any two steps of a gate, where an engine asks for that.
impl Seat {
    /// The stub's call.
    pub(crate) unsafe extern "C" fn step(seat: *const Self, ledger: *const u32) {
        // SAFETY: as in `leave`.
        let seat = unsafe { &*seat };
        // SAFETY: the function lives as long as its seats.
        let function = unsafe { &*seat.function };
        let hooks = function.shared.hooks;
        if hooks.checked && !thread::counts_in(ledger) {
            eprintln!(
                "lastout: a call of `{}` goes on where the calling thread does not count it: it was \
                 suspended, and resumed on another thread or by another fiber than it began with. \
                 Whatever is resumed elsewhere needs a `lastout::Fiber` of its own.",
                function.name
            );
            std::process::abort();
        }
        if let Some(interleave) = hooks.interleave {
            interleave();
        }
    }
}

/// A seat that was chosen for the next version of a function: nobody else gets it until it is
/// published or dropped.
pub(crate) struct FreeSeat {
    function: Arc<Function>,
    seat: Chosen,
    index: u32,
}

/// Which seat of a function.
#[derive(Clone)]
enum Chosen {
    First,
    Other(Arc<Seat>),
}

impl Chosen {
    fn of<'a>(&'a self, function: &'a Function) -> &'a Seat {
        match self {
            Self::First => &function.first,
            Self::Other(seat) => seat,
        }
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
        Some(seats.closing(replaced, function))
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
    seat: Chosen,
    version: Option<Version>,
    function: Arc<Function>,
}

impl Closing {
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
        unsafe { self.seat.of(&self.function).lane.close() };
    }

    /// Lets the version go: whoever is the last to leave it frees it.
    ///
    /// # Safety
    ///
    /// A heavy fence was executed after the version was closed.
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the lane was closed, and the caller says that there was a fence since.
        unsafe { self.seat.of(&self.function).lane.let_go() };
    }

    /// Frees the version if nobody is inside, once it has been let go.
    pub(crate) fn leave(self) {
        self.seat.of(&self.function).lane.leave();
    }

    /// Whose version it is.
    pub(crate) fn function(&self) -> &Arc<Function> {
        &self.function
    }
}

impl Seats {
    /// The place with this number, which there is.
    fn place(&mut self, index: u32) -> &mut Place {
        match index {
            0 => self.first.as_mut().expect("it was set when the function was made"),
            _ => &mut self.more[index as usize - 1].1,
        }
    }

    fn chosen(&self, index: u32) -> Chosen {
        match index {
            0 => Chosen::First,
            _ => Chosen::Other(Arc::clone(&self.more[index as usize - 1].0)),
        }
    }

    fn closing(&mut self, index: u32, function: &Arc<Function>) -> Closing {
        let (seat, version) = (self.chosen(index), self.place(index).version.clone());
        Closing { seat, version, function: Arc::clone(function) }
    }

    /// All of them, in order.
    fn iter<'a>(&'a self, first: &'a Seat) -> impl Iterator<Item = (&'a Seat, &'a Place)> {
        let more = self.more.iter().map(|(seat, place)| (&**seat, place));
        self.first.iter().map(move |place| (first, place)).chain(more)
    }
}

impl Function {
    /// A function without a version.
    pub(crate) fn new(
        name: Arc<str>,
        signature: &Signature,
        shared: &Arc<Shared>,
    ) -> Result<Arc<Self>> {
        let prototype = shared.templates.prototype(signature)?;
        let mut seat = Seat::new(ptr::null())?;
        let function = Arc::new_cyclic(|this| Self {
            slot: AtomicUsize::new(0),
            current: AtomicUsize::new(0),
            lane: AtomicPtr::new(ptr::null_mut()),
            first: {
                seat.function = this.as_ptr();
                seat
            },
            name,
            prototype,
            seats: Lock::default(),
            sites: Sites::default(),
            entry: OnceLock::new(),
            shared: Arc::clone(shared),
        });
        // The slot must hold a gate before anyone can call.
        let first = function.place(&function.first)?;
        function.set_slot(&function.first, first.gate.address());
        function.seats.lock().first = Some(first);
        Ok(function)
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.prototype.signature
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn slot(&self) -> *const usize {
        self.slot.as_ptr()
    }

    /// Has the slot hold the gate of a seat of this function; returns what it held.
    fn set_slot(&self, seat: &Seat, gate: usize) -> usize {
        self.lane.store(ptr::from_ref(seat).cast_mut(), Ordering::Release);
        self.slot.swap(gate, Ordering::Release)
    }

    /// The gate in the slot.
    pub(crate) fn gate(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    /// The calls of this function that are to be patched.
    pub(crate) fn sites(&self) -> &Sites {
        &self.sites
    }

    /// An error unless `signature` is the function's.
    pub(crate) fn expect_signature(&self, signature: &Signature) -> Result<()> {
        if signature == self.signature() {
            return Ok(());
        }
        Err(Error::SignatureMismatch {
            name: self.name.to_string(),
            existing: Box::new(self.signature().clone()),
            given: Box::new(signature.clone()),
        })
    }

    /// The address that any thread may call for as long as the function lives.
    pub(crate) fn entry(&self) -> Result<usize> {
        if let Some(entry) = self.entry.get() {
            return Ok(entry.address());
        }
        let template = self.shared.templates.get(Kind::CEntry(self.signature().clone()))?;
        let entry = instantiate(&template, &self.shared.memory, |symbol| match symbol {
            Symbol::OwnSlot => self.slot().addr(),
            Symbol::CurrentLedger => thread::current_ledger as *const () as usize,
            symbol => self.shared.stubs.address(symbol),
        })?;
        let entry = Box::new(entry);
        // If another thread was faster, its entry is the one, and this one goes.
        let _pass = Pass::new();
        Ok(self.entry.get_or_init(|| entry).address())
    }

    /// A seat for the next version: one whose last has been freed, or else a new one.
    pub(crate) fn free_seat(self: &Arc<Self>) -> Result<FreeSeat> {
        let mut seats = self.seats.lock();
        let free = |(seat, place): (&Seat, &Place)| {
            !place.reserved && seat.lane.state().state() == State::Free
        };
        let index = seats.iter(&self.first).position(free);
        let index = match index {
            Some(index) => index as u32,
            None => {
                let new = Arc::new(Seat::new(Arc::as_ptr(self))?);
                let place = self.place(&new)?;
                seats.more.push((new, place));
                seats.more.len() as u32
            }
        };
        seats.place(index).reserved = true;
        let seat = seats.chosen(index);
        drop(seats);
        Ok(FreeSeat { function: Arc::clone(self), seat, index })
    }

    /// Makes the gate of a seat, which has its address for good.
    fn place(&self, seat: &Seat) -> Result<Place> {
        let Shared { memory, stubs, .. } = &*self.shared;
        let gate = instantiate(&self.prototype.gate, memory, |symbol| match symbol {
            Symbol::Lane => ptr::from_ref(seat).addr(),
            Symbol::CellOffset => seat.cell_offset,
            Symbol::Current => self.current.as_ptr().addr(),
            symbol => stubs.address(symbol),
        })?;
        Ok(Place { gate, version: None, reserved: false })
    }

    /// Leaves the function without a version: what was current is to be closed.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn unpublish(self: &Arc<Self>) -> Option<Closing> {
        // The slot keeps the gate. Who comes through it bails, and finds that there is no current
        // lane to go on with.
        self.current.store(0, Ordering::Release);
        let mut seats = self.seats.lock();
        let removed = seats.live.take()?;
        Some(seats.closing(removed, self))
    }

    /// Whether it has versions that were let go and are not freed.
    pub(crate) fn keeps_retired(&self) -> bool {
        let seats = self.seats.lock();
        seats.iter(&self.first).any(|(seat, _)| seat.lane.state().state() == State::Retired)
    }

    /// Frees those of its versions that were let go and that nobody is inside of any more.
    pub(crate) fn leave_retired(&self) {
        let count = self.seats.lock().more.len() as u32;
        for index in 0..=count {
            let seat = self.seats.lock().chosen(index);
            seat.of(self).lane.leave();
        }
    }

    /// Its versions that are not freed yet, oldest first.
    pub(crate) fn versions(&self) -> Vec<VersionInfo> {
        let seats = self.seats.lock();
        let infos = seats.iter(&self.first).filter_map(|(seat, place)| {
            let version = place.version.clone()?;
            if version.state() == VersionState::Freed {
                return None;
            }
            let threads = seat.lane.frames().into_iter().map(ThreadFrames::new);
            Some(VersionInfo { version, threads: threads.collect() })
        });
        let mut infos: Vec<_> = infos.collect();
        infos.sort_by_key(|info| info.version.number());
        infos
    }
}
