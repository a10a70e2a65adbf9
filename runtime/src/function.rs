//! A function: what stays while its versions come and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cranelift_codegen::ir::Signature;
use lastout_instrument::Symbol;
use lastout_reclaim::{Lane, State};

use crate::memory::Block;
use crate::payload::Payload;
use crate::shared::Shared;
use crate::template::{Kind, instantiate};
use crate::thread;
use crate::version::{ThreadFrames, Version, VersionInfo, VersionState};
use crate::{Error, Result};

/// A name and a signature, with the slot that callers load and the lanes that versions occupy.
///
/// Whoever can call a function owns it: handles, and the units that import it. So as long as a
/// thread may be in or on its way to a gate, the function, and with it the gate, is there.
pub(crate) struct Function {
    /// What callers load and call: the gate of some lane of this function, always.
    slot: AtomicUsize,
    /// The gate of the lane that is current, or 0 while there is no version. Who has bailed out
    /// of a gate goes on from here.
    current: AtomicUsize,
    name: Arc<str>,
    signature: Signature,
    /// Changed only by whoever is publishing, one at a time.
    seats: Mutex<Seats>,
    entry: OnceLock<Block>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Seats {
    all: Vec<Arc<Seat>>,
    /// The one of them that the current version sits in.
    live: Option<Arc<Seat>>,
}

/// A lane, its gate, and what was put into it last.
///
/// The address of a seat is that of its lane, and so of its body word. Gates know it, so a seat
/// stays where it is for as long as its function lives.
#[repr(C)]
pub(crate) struct Seat {
    lane: Lane<Payload>,
    /// The function's.
    name: Arc<str>,
    /// Set once, right after the seat has got its address.
    gate: OnceLock<Block>,
    version: Mutex<Option<Version>>,
}

impl Seat {
    /// The stub's call when a caller has found the version gone on its way out of the gate.
    pub(crate) unsafe extern "C" fn leave(seat: *const Self) {
        // SAFETY: gates pass the seat they were made for. It lives as long as the function, which
        // whoever made the call in progress keeps alive until it returns.
        unsafe { &*seat }.lane.leave();
    }

    /// The stub's call when a caller has found that the function has no version.
    pub(crate) unsafe extern "C" fn removed(seat: *const Self) {
        // SAFETY: as in `leave`.
        thread::met_removed(&unsafe { &*seat }.name);
    }

    fn gate(&self) -> usize {
        self.gate.get().map_or(0, Block::address)
    }

    fn version(&self) -> Option<Version> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A seat that was chosen for the next version of a function, and is free.
pub(crate) struct FreeSeat(Arc<Seat>);

/// A version that can no longer be entered and is to be let go after a heavy fence. Keeps the
/// function, and so the lane, until then.
pub(crate) struct Closing {
    seat: Arc<Seat>,
    /// Its gate's slot goes with the function.
    _function: Arc<Function>,
}

impl Closing {
    /// Makes the version impossible to enter.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and got this just now.
    pub(crate) unsafe fn close(&self) {
        if let Some(version) = self.seat.version() {
            version.advance(VersionState::Retired);
        }
        // SAFETY: it was live until it was unpublished, and nobody else closes it.
        unsafe { self.seat.lane.close() };
    }

    /// Lets the version go.
    ///
    /// # Safety
    ///
    /// A heavy fence was executed after the version was closed.
    pub(crate) unsafe fn retire(self) {
        // SAFETY: the lane was closed, and the caller says that there was a fence since.
        unsafe { self.seat.lane.retire() };
    }
}

impl Function {
    /// A function without a version.
    pub(crate) fn new(
        name: Arc<str>,
        signature: Signature,
        shared: Arc<Shared>,
    ) -> Result<Arc<Self>> {
        let function = Arc::new(Self {
            slot: AtomicUsize::new(0),
            current: AtomicUsize::new(0),
            name,
            signature,
            seats: Mutex::default(),
            entry: OnceLock::new(),
            shared,
        });
        // The slot must hold a gate before anyone can call.
        let FreeSeat(first) = function.free_seat()?;
        function.slot.store(first.gate(), Ordering::Release);
        Ok(function)
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn slot(&self) -> *const usize {
        self.slot.as_ptr()
    }

    /// An error unless `signature` is the function's.
    pub(crate) fn expect_signature(&self, signature: &Signature) -> Result<()> {
        if *signature == self.signature {
            return Ok(());
        }
        Err(Error::SignatureMismatch {
            name: self.name.to_string(),
            existing: Box::new(self.signature.clone()),
            given: Box::new(signature.clone()),
        })
    }

    /// The address that any thread may call for as long as the function lives.
    pub(crate) fn entry(&self) -> Result<usize> {
        if let Some(entry) = self.entry.get() {
            return Ok(entry.address());
        }
        let template = self.shared.templates.get(Kind::CEntry(self.signature.clone()))?;
        let entry = instantiate(&template, &self.shared.memory, |symbol| match symbol {
            Symbol::OwnSlot => self.slot().addr(),
            Symbol::CurrentLedger => thread::current_ledger as *const () as usize,
            _ => unreachable!("an entry refers to nothing else"),
        })?;
        // If another thread was faster, its entry is the one, and this one goes.
        Ok(self.entry.get_or_init(|| entry).address())
    }

    /// A seat for the next version: one whose last has been freed, or else a new one.
    ///
    /// The caller is the only one publishing, so the seat stays free until it is occupied.
    pub(crate) fn free_seat(&self) -> Result<FreeSeat> {
        let mut seats = self.lock();
        let free = |seat: &&Arc<Seat>| seat.lane.state().state() == State::Free;
        if let Some(seat) = seats.all.iter().find(free) {
            return Ok(FreeSeat(Arc::clone(seat)));
        }
        let seat = Arc::new(Seat {
            lane: thread::domain().lane()?,
            name: Arc::clone(&self.name),
            gate: OnceLock::new(),
            version: Mutex::new(None),
        });
        let template = self.shared.templates.get(Kind::Gate(self.signature.clone()))?;
        let gate = instantiate(&template, &self.shared.memory, |symbol| match symbol {
            Symbol::Lane => Arc::as_ptr(&seat).addr(),
            Symbol::CellOffset => seat.lane.cell() as usize * size_of::<u32>(),
            Symbol::Current => self.current.as_ptr().addr(),
            symbol => self.shared.stubs.address(symbol),
        })?;
        seat.gate.get_or_init(|| gate);
        seats.all.push(Arc::clone(&seat));
        Ok(FreeSeat(seat))
    }

    /// Publishes a version: from now on calls go to `body`. What was current before can still be
    /// entered, until it is closed: see [`Closing::close`].
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing. `seat` was got by [`free_seat`](Self::free_seat) and
    /// not occupied since. `body` is code of this function's signature, which lives until
    /// `payload` is dropped.
    pub(crate) unsafe fn publish(
        self: &Arc<Self>,
        FreeSeat(seat): FreeSeat,
        body: usize,
        payload: Payload,
        version: &Version,
    ) -> Option<Closing> {
        *seat.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.clone());
        // In this order, so that no thread goes back to an older version. A caller that finds the
        // new gate and not the body yet bails, to what is still current. One that finds the body,
        // even by way of a lane that it was late for, finds the new gate from then on: the stores
        // of the body and of the current gate are releases, and gates load both with acquire.
        self.slot.store(seat.gate(), Ordering::Release);
        // SAFETY: the caller says that the lane is free and the body code.
        unsafe { seat.lane.occupy(body, payload) };
        self.current.store(seat.gate(), Ordering::Release);
        let replaced = self.lock().live.replace(seat)?;
        Some(Closing { seat: replaced, _function: Arc::clone(self) })
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
        let removed = self.lock().live.take()?;
        Some(Closing { seat: removed, _function: Arc::clone(self) })
    }

    /// Its versions that are not freed yet, oldest first.
    pub(crate) fn versions(&self) -> Vec<VersionInfo> {
        let seats = self.lock();
        let infos = seats.all.iter().filter_map(|seat| {
            let version = seat.version()?;
            if version.state() == VersionState::Freed {
                return None;
            }
            let threads = seat.lane.frames().into_iter().map(|frames| ThreadFrames {
                thread_id: frames.owner,
                name: thread::name(frames.owner),
                frames: frames.frames,
            });
            Some(VersionInfo { version, threads: threads.collect() })
        });
        let mut infos: Vec<_> = infos.collect();
        infos.sort_by_key(|info| info.version.number());
        infos
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
