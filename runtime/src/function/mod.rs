//! Functions, which stay while their versions come and go: lanes, held callers, call sites, points,
//! names, handles, and retirement. This layer may know lanes, and how a version is published; it
//! must not know units. Its own files may know each other.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cranelift_codegen::ir::Signature;
use lastout_reclaim::State;

use crate::code::Block;
use crate::function::call_sites::Sites;
use crate::function::env::FunctionEnv;
use crate::function::resume_points::Points;
use crate::gates::LaneAddresses;
use crate::gates::template::{GateKind, Prototype};
use crate::host::fork::{ForkSafeMutex, Pass};
use crate::host::threads;
use crate::unwind::code_map::{Description, GateCode};
use crate::version::{ThreadFrames, Version, VersionInfo, VersionState};
use crate::{Error, Result};

pub(crate) mod call_sites;
pub(crate) mod callee;
pub(crate) mod env;
pub(crate) mod handle;
mod hold;
mod lanes;
pub(crate) mod names;
pub(crate) mod resume_points;
pub(crate) mod retirement;

pub(crate) use hold::CurrentVersion;
pub(crate) use lanes::{Closing, FunctionLane, LanePool, ReservedLane, slow_path};
use lanes::{FunctionLanes, LaneRecord};

/// A name and a signature, with the slot that callers load and the lanes that versions occupy.
///
/// Everything that can call a function owns it: handles, and the units that import it. So as long
/// as a thread may be in a gate or on its way to one, the function, and with it the gate, is there.
#[repr(C)]
pub(crate) struct Function {
    /// The word that callers load and call. It always holds the gate of some lane of this function.
    slot: AtomicUsize,
    /// The gate of the lane that is current, or 0 while there is no version. A caller that has
    /// bailed out of a gate goes on from here.
    current: AtomicUsize,
    /// The lane whose gate is in the slot. Entries act as the gate of this lane.
    lane: AtomicPtr<FunctionLane>,
    /// The first lane, next to the slot: most calls need nothing else of the function. It is `None`
    /// if the function can be tail-called, since then all its lanes are of the pool.
    first: Option<FunctionLane>,
    /// The code to which a call goes if there is no version and the function can be tail-called: it
    /// returns zeros, or it calls the fallback of a frame that would move.
    no_version: usize,
    /// The code that calls the fallback, if the function belongs to a point at which frames move.
    fallback: Option<Box<Block>>,
    /// The points of the function, once a version has had any.
    points: OnceLock<Arc<Points>>,
    name: Arc<str>,
    prototype: Arc<Prototype>,
    lanes: ForkSafeMutex<FunctionLanes>,
    sites: Sites,
    entry: OnceLock<Box<Block>>,
    env: Arc<FunctionEnv>,
}

impl Drop for Function {
    fn drop(&mut self) {
        // The gates are forgotten before anything goes that they refer to.
        let map = self.env.gates.memory().code_map();
        let mut lanes = self.lanes.lock();
        let gates = lanes.iter(self.first.as_ref()).map(|(_, record)| record.gate.address());
        gates.for_each(|gate| map.forget(gate));
        if !self.can_be_tail_called() {
            return;
        }
        // The last owner may be a body that has tail-called this, and is gone while this runs.
        let live = lanes.live.take();
        let closing = live.map(|live| lanes.closing(live, None));
        let given_back = std::mem::take(&mut lanes.more);
        let pass = lanes.unlock();
        if let Some(closing) = &closing {
            // SAFETY: a function that has no owner gets no further version.
            unsafe { closing.close() };
        }
        // The pool has the lanes before the pass ends, so that a forked process finds them there.
        given_back.into_iter().for_each(|(lane, _)| self.env.lane_pool.give_back(lane));
        if let Some(closing) = closing {
            self.env.retirement.retire(vec![closing], pass);
        }
    }
}

impl Function {
    /// A function without a version.
    pub(crate) fn new(
        name: Arc<str>,
        signature: &Signature,
        env: &Arc<FunctionEnv>,
    ) -> Result<Arc<Self>> {
        Self::with_fallback(name, signature, None, env)
    }

    /// A function that belongs to a point at which frames move. While it has no version, a call
    /// calls the address in its last argument with the other arguments.
    pub(crate) fn of_point(
        name: Arc<str>,
        signature: &Signature,
        env: &Arc<FunctionEnv>,
    ) -> Result<Arc<Self>> {
        let fallback = env.gates.call_fallback(signature)?;
        Self::with_fallback(name, signature, Some(Box::new(fallback)), env)
    }

    fn with_fallback(
        name: Arc<str>,
        signature: &Signature,
        fallback: Option<Box<Block>>,
        env: &Arc<FunctionEnv>,
    ) -> Result<Arc<Self>> {
        let prototype = env.gates.prototype(signature)?;
        let zeros = match &prototype.kind {
            GateKind::Tail { zeros } => Some(zeros.address()),
            GateKind::Compiled | GateKind::Machine => None,
        };
        let first = if zeros.is_none() { Some(FunctionLane::new(ptr::null())?) } else { None };
        let function = Arc::new_cyclic(|this: &Weak<Self>| Self {
            slot: AtomicUsize::new(0),
            current: AtomicUsize::new(0),
            lane: AtomicPtr::new(ptr::null_mut()),
            first: first.inspect(|first| {
                first.function.store(this.as_ptr().cast_mut(), Ordering::Relaxed);
            }),
            no_version: fallback.as_ref().map(|code| code.address()).or(zeros).unwrap_or_default(),
            fallback,
            points: OnceLock::new(),
            name,
            prototype,
            lanes: ForkSafeMutex::default(),
            sites: Sites::default(),
            entry: OnceLock::new(),
            env: Arc::clone(env),
        });
        // The slot must hold a gate before the first call.
        if let Some(first) = &function.first {
            let record = function.record(first)?;
            function.set_slot(first, record.gate.address());
            function.lanes.lock().first = Some(record);
        } else {
            let (lane, record) = function.another_lane()?;
            function.set_slot(&lane, record.gate.address());
            function.lanes.lock().more.push((lane, record));
        }
        Ok(function)
    }

    fn can_be_tail_called(&self) -> bool {
        matches!(self.prototype.kind, GateKind::Tail { .. })
    }

    /// A lane that is not the first, and its gate.
    fn another_lane(self: &Arc<Self>) -> Result<(Arc<FunctionLane>, LaneRecord)> {
        let this = Arc::as_ptr(self);
        let lane = match self.can_be_tail_called() {
            true => self.env.lane_pool.take(this)?,
            false => Arc::new(FunctionLane::new(this)?),
        };
        match self.record(&lane) {
            Ok(record) => Ok((lane, record)),
            Err(error) => {
                if self.can_be_tail_called() {
                    self.env.lane_pool.give_back(lane);
                }
                Err(error)
            }
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.prototype.signature
    }

    pub(crate) fn env(&self) -> &Arc<FunctionEnv> {
        &self.env
    }

    /// The points of the function, of which there may be none yet.
    pub(crate) fn points(&self) -> &Arc<Points> {
        // The pass keeps a fork from copying a process in which another thread is at this.
        let _pass = Pass::new();
        self.points.get_or_init(Arc::default)
    }

    /// The points of the function, if any version has had some.
    pub(crate) fn known_points(&self) -> Option<&Arc<Points>> {
        self.points.get()
    }

    /// Whether the function has a current version. The answer stays true while the caller is the
    /// only one publishing.
    pub(crate) fn is_published(&self) -> bool {
        self.lanes.lock().live.is_some()
    }

    pub(crate) fn slot(&self) -> *const usize {
        self.slot.as_ptr()
    }

    /// Puts the gate of a lane of this function into the slot. Returns what the slot held.
    fn set_slot(&self, lane: &FunctionLane, gate: usize) -> usize {
        self.lane.store(ptr::from_ref(lane).cast_mut(), Ordering::Release);
        self.slot.swap(gate, Ordering::Release)
    }

    /// The gate in the slot.
    pub(crate) fn gate(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    /// The call sites of this function, which are to be patched.
    pub(crate) fn sites(&self) -> &Sites {
        &self.sites
    }

    /// Returns an error unless `signature` is the function's.
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
        let entry = Box::new(self.env.gates.c_entry(self.signature(), self.slot().addr())?);
        // If another thread was faster, its entry is used, and this one goes.
        let _pass = Pass::new();
        Ok(self.entry.get_or_init(|| entry).address())
    }

    /// A lane for the next version: one whose last version has been freed, or else a new one.
    pub(crate) fn reserve_lane(self: &Arc<Self>) -> Result<ReservedLane> {
        let mut lanes = self.lanes.lock();
        let free = |(lane, record): (&FunctionLane, &LaneRecord)| {
            !record.reserved && lane.inner.state().state() == State::Free
        };
        let index = lanes.iter(self.first.as_ref()).position(free);
        let index = match index {
            Some(index) => index as u32,
            None => {
                lanes.more.push(self.another_lane()?);
                lanes.more.len() as u32 - u32::from(lanes.first.is_none())
            }
        };
        lanes.record(index).reserved = true;
        let lane = lanes.chosen(index);
        drop(lanes);
        Ok(ReservedLane { function: Arc::clone(self), lane, index })
    }

    /// Makes the gate of a lane. The lane must already have its final address.
    fn record(&self, lane: &FunctionLane) -> Result<LaneRecord> {
        let addresses = LaneAddresses {
            lane: ptr::from_ref(lane).addr(),
            cell_offset: lane.cell_offset,
            current: self.current.as_ptr().addr(),
        };
        let gate = self.env.gates.gate(&self.prototype, &addresses)?;
        self.describe(&gate, lane);
        Ok(LaneRecord { gate, version: None, reserved: false })
    }

    /// Notes what the gate of a lane is, for unwinding and for backtraces.
    fn describe(&self, gate: &Block, lane: &FunctionLane) {
        match self.prototype.kind {
            GateKind::Machine => self.env.gates.memory().code_map().note_gate(gate.address()),
            GateKind::Compiled => {
                let gate_code =
                    GateCode { frame: self.prototype.gate.frame, lane: &raw const lane.inner };
                gate.describe(Arc::new(Description::Gate(gate_code)));
            }
            // A head is never in a frame of its own.
            GateKind::Tail { .. } => {}
        }
    }

    /// Leaves the function without a version. The one that was current is to be closed.
    ///
    /// # Safety
    ///
    /// The caller is the only one publishing.
    pub(crate) unsafe fn unpublish(self: &Arc<Self>) -> Option<Closing> {
        // The slot keeps the gate. A caller that comes through it bails, and finds that there is no
        // current lane to go on with.
        self.current.store(0, Ordering::Release);
        let mut lanes = self.lanes.lock();
        let removed = lanes.live.take()?;
        Some(lanes.closing(removed, Some(self)))
    }

    /// Whether the function has versions that are retired and not freed.
    pub(crate) fn keeps_retired(&self) -> bool {
        let lanes = self.lanes.lock();
        lanes
            .iter(self.first.as_ref())
            .any(|(lane, _)| lane.inner.state().state() == State::Retired)
    }

    /// Frees those of the function's versions that are retired and have no frame inside any more.
    pub(crate) fn leave_retired(&self) {
        let lanes = self.lanes.lock();
        let count = (usize::from(lanes.first.is_some()) + lanes.more.len()) as u32;
        let all: Vec<_> = (0..count).map(|index| lanes.chosen(index)).collect();
        drop(lanes);
        for lane in all {
            lane.of(self).inner.leave();
        }
    }

    /// The function's versions that are not freed yet, oldest first.
    pub(crate) fn versions(&self) -> Vec<VersionInfo> {
        let mut infos = self.occupants();
        let points = self.known_points().map(|points| points.functions());
        for resume_entry in points.iter().flat_map(|(resume_entries, _)| resume_entries) {
            for VersionInfo { version, threads } in resume_entry.occupants() {
                match infos.iter_mut().find(|info| info.version == version) {
                    Some(info) => threads.into_iter().for_each(|thread| info.add(thread)),
                    None => infos.push(VersionInfo { version, threads }),
                }
            }
        }
        infos.sort_by_key(|info| info.version.number());
        infos
    }

    /// The frames in parked calls of the function, between two versions.
    pub(crate) fn waiting(&self) -> Vec<ThreadFrames> {
        let points = self.known_points().map(|points| points.functions());
        let parked_calls = points.into_iter().flat_map(|(_, parked_calls)| parked_calls);
        let mut waiting =
            VersionInfo { version: Version::new(Arc::clone(&self.name)), threads: Vec::new() };
        let infos = parked_calls.flat_map(|parked_call| parked_call.occupants());
        infos.flat_map(|info| info.threads).for_each(|thread| waiting.add(thread));
        waiting.threads
    }

    /// The versions that occupy the function's lanes and are not freed yet.
    fn occupants(&self) -> Vec<VersionInfo> {
        let lanes = self.lanes.lock();
        let infos = lanes.iter(self.first.as_ref()).filter_map(|(lane, record)| {
            let version = record.version.clone()?;
            if version.state() == VersionState::Freed {
                return None;
            }
            let threads = lane.inner.frames().into_iter().map(threads::describe);
            Some(VersionInfo { version, threads: threads.collect() })
        });
        infos.collect()
    }
}
