//! Where callers of a function wait while its version is replaced where it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lastout_instrument::{Symbol, machine_detour};
use lastout_reclaim::{Frames, Hold, State, StateWord};
use rustix::thread::futex;

use super::seats::Chosen;
use super::{Function, Seat};
use crate::code_map::Description;
use crate::fork::{self, Pass};
use crate::memory::{Block, Footprint};
use crate::payload::{Code, Payload};
use crate::relocation::Object;
use crate::shared::{Hooks, Shared};
use crate::template::instantiate;
use crate::thread;
use crate::version::{Version, VersionState};
use crate::{Error, Result};

/// What gates of a seat call instead of the body while callers are held.
pub(super) struct Valet {
    code: Block,
    held: Box<Held>,
}

/// The callers of a seat, as its valet knows them.
#[repr(C)]
struct Held {
    /// Where they go on. First, since the valet loads it.
    body: AtomicUsize,
    seat: *const Seat,
    hold: Hold,
    /// The thread that holds them, and the [generation](fork::generation) of the process that it
    /// is of.
    holder: AtomicU64,
    process: AtomicU64,
}

// SAFETY: the seat owns it, and so is there; all else can be shared.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// The stub's call when a gate has called the valet.
    unsafe extern "C" fn wait(held: *const Self, ledger: *const u32, hooks: *const Hooks) {
        // SAFETY: the valet passes what its seat keeps, as long as somebody is counted in there.
        let (held, seat) = unsafe { (&*held, &*(*held).seat) };
        if !hooks.is_null() {
            // SAFETY: they are the engine's.
            unsafe { Hooks::step(seat, ledger, hooks) };
        }
        // A process that was forked has nobody who would end the hold.
        let is_ours = || held.process.load(Ordering::Relaxed) == fork::generation();
        if !is_ours() {
            return;
        }
        // A signal handler would have the thread that it has interrupted wait for itself.
        let is_holder = held.holder.load(Ordering::Relaxed) == thread::id();
        // SAFETY: the gate has counted in with this ledger.
        unsafe {
            held.hold.wait(&seat.lane, ledger, is_holder, |word, seen| {
                // Whatever it returns, the word says whether the waiting is over.
                let _ = futex::wait(word, futex::Flags::PRIVATE, seen, None);
                is_ours()
            });
        }
    }

    fn wake(&self) {
        // It fails only where there is nobody to wake.
        let _ = futex::wake(self.hold.word(), futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

/// What the valets of an engine have in common.
#[derive(Default)]
pub(crate) struct Valets {
    stub: OnceLock<Box<Block>>,
}

impl Valets {
    /// The address of the stub that they call, made when it is first asked for.
    fn stub(&self, shared: &Shared) -> Result<usize> {
        if let Some(stub) = self.stub.get() {
            return Ok(stub.address());
        }
        let Shared { stubs, templates, memory, .. } = shared;
        let stub = stubs.another(Held::wait as *const () as usize, templates, memory)?;
        let stub = Box::new(stub);
        // If another thread was faster, its stub is the one.
        let _pass = Pass::new();
        Ok(self.stub.get_or_init(|| stub).address())
    }
}

impl Seat {
    /// The valet; made when it is first asked for, if this host has such.
    fn valet(&self, shared: &Shared) -> Result<Option<&Valet>> {
        if let Some(valet) = self.valet.get() {
            return Ok(Some(valet));
        }
        let Some(code) = machine_detour(&*shared.isa) else { return Ok(None) };
        let stub = shared.valets.stub(shared)?;
        let held = Box::new(Held {
            body: AtomicUsize::new(0),
            seat: self,
            hold: thread::domain().hold()?,
            holder: AtomicU64::new(0),
            process: AtomicU64::new(0),
        });
        let code =
            instantiate(&Object::from_machine_code(code), &shared.memory, |symbol| match symbol {
                Symbol::Hold => stub,
                Symbol::Held => std::ptr::from_ref(&*held).expose_provenance(),
                _ => unreachable!("a valet refers to nothing else"),
            })?;
        code.describe(Arc::new(Description::Helper));
        let valet = Box::new(Valet { code, held });
        let _pass = Pass::new();
        Ok(Some(self.valet.get_or_init(|| valet)))
    }
}

/// The version of a function that is current, in its seat.
#[derive(Clone)]
pub(crate) struct LiveSeat {
    function: Arc<Function>,
    seat: Chosen,
    index: u32,
    version: Version,
    state: StateWord,
}

/// Where a version is that can be written over.
pub(crate) struct Place {
    pub(crate) block: Arc<Block>,
    pub(crate) footprint: Footprint,
    /// Where the function's code starts.
    pub(crate) body: usize,
}

impl Function {
    /// The version that is current, if there is one.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn live(self: &Arc<Self>) -> Option<LiveSeat> {
        let mut seats = self.seats.lock();
        let index = seats.live?;
        let seat = seats.chosen(index);
        let version = seats.place(index).version.clone()?;
        let state = seat.of(self).lane.state();
        Some(LiveSeat { function: Arc::clone(self), seat, index, version, state })
    }
}

impl LiveSeat {
    fn seat(&self) -> &Seat {
        self.seat.of(&self.function)
    }

    /// Whether it may still be current. Never again, once it is not.
    pub(crate) fn is_live(&self) -> bool {
        let state = self.seat().lane.state();
        state == self.state && state.state() == State::Live
    }

    /// Whether it is current, as it was found.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn is_current(&self) -> bool {
        let mut seats = self.function.seats.lock();
        seats.live == Some(self.index)
            && seats.place(self.index).version.as_ref() == Some(&self.version)
    }

    /// Where its code and data are, or why it cannot be written over.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and it is current.
    pub(crate) unsafe fn place(&self) -> Result<Place, &'static str> {
        let look = |payload: &Payload| match payload.code() {
            Code::Block { block, only: Some(body), .. } => {
                let block = Arc::clone(block);
                Ok(Place { footprint: block.footprint(), block, body: *body })
            }
            Code::Block { .. } => Err("its unit has several functions that can be replaced"),
            Code::Adopted { .. } | Code::Room { .. } => Err("its code is not a unit's"),
        };
        // SAFETY: only who publishes closes the lane of a version that is current.
        let place = unsafe { self.seat().lane.look(look) };
        place.unwrap_or(Err("it has no version"))
    }

    /// Holds the callers, unless somebody else does; whether it does now.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and it is current, at this place.
    pub(crate) unsafe fn hold(&self, body: usize) -> Result<bool> {
        let seat = self.seat();
        let Some(Valet { code, held }) = seat.valet(&self.function.shared)? else {
            let (function, why) = (self.function.name.to_string(), "this host is not x86-64");
            return Err(Error::NotInPlace { function, why });
        };
        if held.hold.is_on() && held.process.load(Ordering::Relaxed) == fork::generation() {
            return Ok(false);
        }
        held.body.store(body, Ordering::Relaxed);
        held.holder.store(thread::id(), Ordering::Relaxed);
        held.process.store(fork::generation(), Ordering::Relaxed);
        // SAFETY: as the caller says. The valet stays with the seat, and goes on to the body.
        unsafe {
            held.hold.begin();
            seat.lane.divert(code.address());
        }
        Ok(true)
    }

    /// The callers that it holds.
    fn held(&self) -> &Held {
        &self.seat().valet.get().expect("it holds callers").held
    }

    /// The frames of those that are inside and do not wait, at some moment during the call.
    pub(crate) fn inside(&self) -> Vec<Frames> {
        self.held().hold.inside(&self.seat().lane)
    }

    /// Makes sure that nobody is inside, until callers go on; or else says who is.
    ///
    /// # Safety
    ///
    /// It holds the callers, and there was a heavy fence since.
    pub(crate) unsafe fn decide(&self) -> Result<(), Vec<Frames>> {
        let held = self.held();
        // SAFETY: as the caller says.
        let decided = unsafe { held.hold.decide(&self.seat().lane) };
        if decided.is_err() {
            held.wake();
        }
        decided
    }

    /// Puts the version of a payload into the place of this one, whose payload it returns.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, this is current, and nobody is inside, for good.
    pub(crate) unsafe fn exchange(&self, payload: Payload) -> Option<Payload> {
        self.function.seats.lock().place(self.index).version = Some(payload.version().clone());
        self.version.advance(VersionState::Retired);
        // SAFETY: as the caller says.
        unsafe { self.seat().lane.exchange(payload) }
    }

    /// Has callers go on to the body that are held since the process had this
    /// [generation](fork::generation), if they still are.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing. It was the one that held the callers then, or this is
    /// another process.
    pub(crate) unsafe fn go_on(&self, since: u64) {
        let held = self.held();
        if held.process.load(Ordering::Relaxed) != since {
            return;
        }
        // Else it was closed, and the body is for those who wait only.
        if self.is_live() {
            // SAFETY: as the caller says. The code at the body is that of the version there.
            unsafe { self.seat().lane.divert(held.body.load(Ordering::Relaxed)) };
        }
        // SAFETY: as the caller says.
        unsafe { held.hold.end() };
        held.wake();
    }

    pub(crate) fn function(&self) -> &Arc<Function> {
        &self.function
    }
}

impl PartialEq for LiveSeat {
    /// Whether it is the same version.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}
