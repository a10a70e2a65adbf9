//! The processor, as unwinding needs it: one folder for each on which frames can be unwound.

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod this;
#[cfg(not(target_arch = "x86_64"))]
#[path = "unsupported.rs"]
mod this;

use std::ffi::c_int;

pub(super) use this::{
    ENTRY_SAVES, FRAME_POINTER, KEPT, LANE, PINNED, RETURN_ADDRESS, go_on_after_signal,
    interrupted, resume,
};

/// The registers that calls keep, in some frame, and where that frame goes on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    pub(super) pc: usize,
    /// 0 where the value is not known, which is never so in a function that has just begun.
    pub(super) sp: usize,
    pub(super) frame_pointer: usize,
    /// The registers in [`KEPT`], in that order.
    pub(super) kept: [usize; KEPT.len()],
    pub(super) pinned: usize,
    /// The payload of an exception, for a handler.
    pub(super) payload: [u64; 2],
}

impl Registers {
    /// The value of the register that has the lane.
    pub(super) fn lane(&self) -> usize {
        self.kept[0]
    }
}

const _: () = assert!(KEPT[0] == LANE.0);

/// The place where a signal has interrupted a thread.
pub(super) struct Interrupted {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) frame_pointer: usize,
}

/// The code in which a thread goes on after a trap. It gets the registers of the frame that is
/// returned to at the given address, and the address of the trap.
pub(super) type AfterTrap = unsafe extern "C" fn(registers: *const Registers, at: usize) -> !;

/// The number of a register, as the system's unwinder takes it.
pub(super) fn number(register: u16) -> c_int {
    c_int::from(register)
}
