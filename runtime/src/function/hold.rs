//! How callers of a function are held while its version is replaced in its place.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lastout_reclaim::{Frames, Hold, State, StateWord};
use rustix::thread::futex;

use super::lanes::LaneRef;
use super::{Function, FunctionLane};
use crate::code::Block;
use crate::function::env::FunctionEnv;
use crate::gates::hooks::Hooks;
use crate::host::fork::{self, Pass};
use crate::host::threads;
use crate::version::payload::Payload;
use crate::version::{Version, VersionState};
use crate::{Error, Result};

/// The code that gates of a lane call instead of the body while callers are held, and its data.
pub(super) struct Detour {
    code: Block,
    held: Box<Held>,
}

/// The callers of a lane, as its detour knows them. The detour owns it.
#[repr(C)]
pub(super) struct Held {
    /// Where the callers go on. This is the first field, since the detour loads it.
    body: AtomicUsize,
    lane: *const FunctionLane,
    hold: Hold,
    /// The thread that holds the callers, and the [generation](fork::generation) of its process.
    holder: AtomicU64,
    process: AtomicU64,
}

// SAFETY: the lane outlives the detour that it owns, and this with it; all else can be shared.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// The stub calls this when a gate has called the detour.
    pub(super) unsafe extern "C" fn wait(
        held: *const Self,
        ledger: *const u32,
        hooks: *const Hooks,
    ) {
        // SAFETY: the detour passes what its lane keeps as long as a frame is counted in there.
        let (held, lane) = unsafe { (&*held, &*(*held).lane) };
        if !hooks.is_null() {
            // SAFETY: the hooks are the engine's.
            unsafe { Hooks::step(ptr::from_ref(lane).cast(), ledger, hooks) };
        }
        // In a process that was forked there is no thread that would end the hold.
        let is_ours = || held.process.load(Ordering::Relaxed) == fork::generation();
        if !is_ours() {
            return;
        }
        // A signal handler would wait for the thread that it has interrupted.
        let is_holder = held.holder.load(Ordering::Relaxed) == threads::id();
        // SAFETY: the gate has counted in with this ledger.
        unsafe {
            held.hold.wait(&lane.inner, ledger, is_holder, |word, seen| {
                // The result does not matter: the word says whether the waiting is over.
                let _ = futex::wait(word, futex::Flags::PRIVATE, seen, None);
                is_ours()
            });
        }
    }

    fn wake(&self) {
        // The call fails only where there is no thread to wake.
        let _ = futex::wake(self.hold.word(), futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

impl FunctionLane {
    /// The detour of the lane, made when it is first asked for; `None` if this host has no detours.
    fn detour(&self, env: &FunctionEnv) -> Result<Option<&Detour>> {
        if let Some(detour) = self.detour.get() {
            return Ok(Some(detour));
        }
        let held = || {
            Ok(Box::new(Held {
                body: AtomicUsize::new(0),
                lane: self,
                hold: threads::domain().hold()?,
                holder: AtomicU64::new(0),
                process: AtomicU64::new(0),
            }))
        };
        let Some((code, held)) = env.gates.detour(held)? else { return Ok(None) };
        let detour = Box::new(Detour { code, held });
        let _pass = Pass::new();
        Ok(Some(self.detour.get_or_init(|| detour)))
    }
}

/// The version of a function that is current, and its lane.
#[derive(Clone)]
pub(crate) struct CurrentVersion {
    function: Arc<Function>,
    lane: LaneRef,
    index: u32,
    version: Version,
    state: StateWord,
}

impl Function {
    /// The version that is current, if there is one.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn live(self: &Arc<Self>) -> Option<CurrentVersion> {
        let mut lanes = self.lanes.lock();
        let index = lanes.live?;
        let lane = lanes.chosen(index);
        let version = lanes.record(index).version.clone()?;
        let state = lane.of(self).inner.state();
        Some(CurrentVersion { function: Arc::clone(self), lane, index, version, state })
    }
}

impl CurrentVersion {
    fn lane(&self) -> &FunctionLane {
        self.lane.of(&self.function)
    }

    /// Whether the version may still be current. Once this is false, it stays so.
    pub(crate) fn is_live(&self) -> bool {
        let state = self.lane().inner.state();
        state == self.state && state.state() == State::Live
    }

    /// Whether the version is current, as it was found.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn is_current(&self) -> bool {
        let mut lanes = self.function.lanes.lock();
        lanes.live == Some(self.index)
            && lanes.record(self.index).version.as_ref() == Some(&self.version)
    }

    /// Looks at the payload of the version.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and the version is current.
    pub(crate) unsafe fn look<R>(&self, look: impl FnOnce(&Payload) -> R) -> Option<R> {
        // SAFETY: only the one that publishes closes the lane of a version that is current.
        unsafe { self.lane().inner.look(look) }
    }

    /// Holds the callers, and returns true, unless another thread holds them already.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, and the version is current, in this lane.
    pub(crate) unsafe fn hold(&self, body: usize) -> Result<bool> {
        let lane = self.lane();
        let Some(Detour { code, held }) = lane.detour(&self.function.env)? else {
            let (function, why) = (self.function.name.to_string(), "this host is not x86-64");
            return Err(Error::NotInPlace { function, why });
        };
        if held.hold.is_on() && held.process.load(Ordering::Relaxed) == fork::generation() {
            return Ok(false);
        }
        held.body.store(body, Ordering::Relaxed);
        held.holder.store(threads::id(), Ordering::Relaxed);
        held.process.store(fork::generation(), Ordering::Relaxed);
        // SAFETY: as the caller says. The detour stays with the lane, and goes on to the body.
        unsafe {
            held.hold.begin();
            lane.inner.divert(code.address());
        }
        Ok(true)
    }

    /// The callers that are held.
    fn held(&self) -> &Held {
        &self.lane().detour.get().expect("it holds callers").held
    }

    /// The frames that are inside and do not wait, at some moment during the call.
    pub(crate) fn inside(&self) -> Vec<Frames> {
        self.held().hold.inside(&self.lane().inner)
    }

    /// Makes sure that no frame is inside until the callers go on; or else returns the frames.
    ///
    /// # Safety
    ///
    /// The caller holds the callers of the function, and there was a heavy fence since.
    pub(crate) unsafe fn decide(&self) -> Result<(), Vec<Frames>> {
        let held = self.held();
        // SAFETY: as the caller says.
        let decided = unsafe { held.hold.decide(&self.lane().inner) };
        if decided.is_err() {
            held.wake();
        }
        decided
    }

    /// Puts the version of a payload into the place of this one, and returns this one's payload.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing, this version is current, and no frame can be inside.
    pub(crate) unsafe fn exchange(&self, payload: Payload) -> Option<Payload> {
        self.function.lanes.lock().record(self.index).version = Some(payload.version().clone());
        self.version.advance(VersionState::Retired);
        // SAFETY: as the caller says.
        unsafe { self.lane().inner.exchange(payload) }
    }

    /// Makes callers go on to the body if they are still held since the process had this
    /// [generation](fork::generation).
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing. It is the one that has held the callers, or this is
    /// another process.
    pub(crate) unsafe fn go_on(&self, since: u64) {
        let held = self.held();
        if held.process.load(Ordering::Relaxed) != since {
            return;
        }
        // Otherwise the lane was closed, and only callers that wait go to the body.
        if self.is_live() {
            // SAFETY: as the caller says. The code at the body is that of the version in the lane.
            unsafe { self.lane().inner.divert(held.body.load(Ordering::Relaxed)) };
        }
        // SAFETY: as the caller says.
        unsafe { held.hold.end() };
        held.wake();
    }

    pub(crate) fn function(&self) -> &Arc<Function> {
        &self.function
    }
}

impl PartialEq for CurrentVersion {
    /// Whether both are the same version.
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}
