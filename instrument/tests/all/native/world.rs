//! A function that is made up: its lane, a ledger, and what is called for it.
//!
//! There is one, and one test.

use std::arch::asm;
use std::mem::{offset_of, take};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard};

use lastout_instrument::{GateFrame, LaneLayout, preserving_stub};

use super::link::{self, Linker, Target};
use super::registers::{Registers, callee};
use crate::support;

#[repr(C)]
#[derive(Default)]
pub(crate) struct Function {
    pub(crate) slot: AtomicU64,
    pub(crate) current: AtomicU64,
    pub(crate) lane: AtomicU64,
    pub(crate) no_version: AtomicU64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) body: AtomicU64,
    pub(crate) cell_offset: AtomicU64,
    pub(crate) function: AtomicU64,
}

pub(crate) const LAYOUT: LaneLayout = LaneLayout {
    function: offset_of!(Lane, function) as i32,
    cell_offset: offset_of!(Lane, cell_offset) as i32,
    current: offset_of!(Function, current) as i32,
    lane: offset_of!(Function, lane) as i32,
    no_version: offset_of!(Function, no_version) as i32,
};

static FUNCTION: Function = Function {
    slot: AtomicU64::new(0),
    current: AtomicU64::new(0),
    lane: AtomicU64::new(0),
    no_version: AtomicU64::new(0),
};
static LANE: Lane =
    Lane { body: AtomicU64::new(0), cell_offset: AtomicU64::new(0), function: AtomicU64::new(0) };
static LEDGER: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
/// Which of the ledger's words is the lane's.
const CELL: usize = 2;

static STATE: Mutex<State> = Mutex::new(State {
    scenario: Scenario::Open,
    frame: GateFrame { body_return: None, lane: None, outer: None },
    happened: Vec::new(),
    calls: Vec::new(),
});
/// How often interleave was called.
static STEPS: AtomicUsize = AtomicUsize::new(0);

struct State {
    scenario: Scenario,
    /// What is where in the frame of the entry that is tried.
    frame: GateFrame,
    happened: Vec<Happened>,
    calls: Vec<Call>,
}

/// A call with arguments.
pub(crate) struct Call {
    pub(crate) by: u64,
    pub(crate) registers: Registers,
    /// What an unwinder would have found in the frame of the entry.
    pub(crate) lane: Option<u64>,
    pub(crate) outer: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Open,
    /// There is no body any more when the body returns.
    ClosedInside,
    /// There is no body, but another gate.
    Closed,
    /// The same, but there is a body again before the entry counts out.
    Reopened,
    /// There is neither.
    Removed,
    /// There is a gate in the slot.
    Forwarded,
    /// The same, and the ledger is in the pinned register already.
    ForwardedFromInside,
}

impl Scenario {
    /// Those of entries that are gates.
    pub(crate) const OF_GATES: [Self; 5] =
        [Self::Open, Self::ClosedInside, Self::Closed, Self::Reopened, Self::Removed];
}

/// What was called, and what the lane's count was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Called { by: u64, count: u32 },
    Leave { count: u32 },
    Removed { count: u32 },
}

// The functions that are called with arguments.
pub(crate) const BODY: u64 = 1;
pub(crate) const CURRENT: u64 = 2;

fn state() -> MutexGuard<'static, State> {
    STATE.lock().expect("nothing panics with it")
}

pub(crate) fn prepare(scenario: Scenario, frame: GateFrame) {
    let open = matches!(scenario, Scenario::Open | Scenario::ClosedInside);
    let body = callee::<BODY> as *const () as u64;
    let current = callee::<CURRENT> as *const () as u64;
    LANE.body.store(if open { body } else { 0 }, Relaxed);
    LANE.cell_offset.store(CELL as u64 * 4, Relaxed);
    LANE.function.store(function(), Relaxed);
    // Nothing may go through the slot, but for the entries that forward.
    let forwards = matches!(scenario, Scenario::Forwarded | Scenario::ForwardedFromInside);
    FUNCTION.slot.store(if forwards { current } else { 1 }, Relaxed);
    FUNCTION.lane.store(lane(), Relaxed);
    FUNCTION.current.store(if scenario == Scenario::Removed { 0 } else { current }, Relaxed);
    let mut state = state();
    (state.scenario, state.frame) = (scenario, frame);
    STEPS.store(0, Relaxed);
}

pub(crate) fn function() -> u64 {
    &raw const FUNCTION as u64
}

pub(crate) fn lane() -> u64 {
    &raw const LANE as u64
}

pub(crate) fn ledger() -> u64 {
    &raw const LEDGER as u64
}

pub(crate) fn counts() -> [u32; 4] {
    LEDGER.each_ref().map(|count| count.load(Relaxed))
}

fn count() -> u32 {
    counts()[CELL]
}

pub(crate) fn take_happened() -> Vec<Happened> {
    take(&mut state().happened)
}

pub(crate) fn take_calls() -> Vec<Call> {
    take(&mut state().calls)
}

/// Leave, removed, and interleave.
pub(crate) const HOST: [extern "C" fn(u64); 3] = [leave, removed, interleave];

/// The stubs of these functions of the host.
pub(crate) fn stubs(linker: &mut Linker, host: [extern "C" fn(u64); 3]) -> [usize; 3] {
    let stub = link::compile(preserving_stub(&*support::isa("x86_64")));
    host.map(|target| linker.put(&stub, |_| Target::Address(target as *const () as u64)))
}

pub(crate) extern "C" fn current_ledger() -> u64 {
    spoil();
    ledger()
}

/// What the body, or the current gate, does with the registers it gets.
pub(crate) extern "C" fn called<const WHO: u64>(registers: &mut Registers) {
    let mut state = state();
    state.happened.push(Happened::Called { by: WHO, count: count() });
    let in_frame = |distance: Option<i32>| {
        let at = registers.frame_pointer().wrapping_add_signed(distance?.into());
        let at = std::ptr::with_exposed_provenance::<u64>(at as usize);
        // SAFETY: it is in the frame of the entry, which is calling.
        Some(unsafe { at.read() })
    };
    let (lane, outer) = (in_frame(state.frame.lane), in_frame(state.frame.outer));
    state.calls.push(Call { by: WHO, registers: *registers, lane, outer });
    if WHO == BODY && state.scenario == Scenario::ClosedInside {
        LANE.body.store(0, Relaxed);
    }
    registers.set_results(Registers::results_of(WHO));
    drop(state);
    spoil();
}

extern "C" fn leave(of: u64) {
    let happened = Happened::Leave { count: count() };
    stub(of, Some(happened));
}

extern "C" fn removed(of: u64) {
    let happened = Happened::Removed { count: count() };
    stub(of, Some(happened));
}

/// In the fourth place, where the first three steps are behind it, is the counting out.
extern "C" fn interleave(of: u64) {
    if STEPS.fetch_add(1, Relaxed) == 3 && state().scenario == Scenario::Reopened {
        LANE.body.store(callee::<BODY> as *const () as u64, Relaxed);
    }
    stub(of, None);
}

fn stub(of: u64, happened: Option<Happened>) {
    assert_eq!(of, lane(), "a stub gets the lane");
    state().happened.extend(happened);
    spoil();
}

/// Leaves nothing in any register that need not be kept.
#[inline(always)]
pub(crate) fn spoil() {
    // SAFETY: it says which registers it changes.
    unsafe {
        asm!(
            "mov rax, -1",
            "mov rcx, rax",
            "mov rdx, rax",
            "mov rsi, rax",
            "mov rdi, rax",
            "mov r8, rax",
            "mov r9, rax",
            "mov r10, rax",
            "mov r11, rax",
            "pcmpeqd xmm0, xmm0",
            "movaps xmm1, xmm0",
            "movaps xmm2, xmm0",
            "movaps xmm3, xmm0",
            "movaps xmm4, xmm0",
            "movaps xmm5, xmm0",
            "movaps xmm6, xmm0",
            "movaps xmm7, xmm0",
            "movaps xmm8, xmm0",
            "movaps xmm9, xmm0",
            "movaps xmm10, xmm0",
            "movaps xmm11, xmm0",
            "movaps xmm12, xmm0",
            "movaps xmm13, xmm0",
            "movaps xmm14, xmm0",
            "movaps xmm15, xmm0",
            clobber_abi("C"),
            options(nomem, nostack),
        );
    }
}
