//! What unwinding has to know of the processor: one folder for each that frames can be unwound on.

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod this;
#[cfg(not(target_arch = "x86_64"))]
#[path = "elsewhere.rs"]
mod this;

use std::ffi::c_int;

pub(super) use this::{
    FRAME_POINTER, KEPT, LANE, PINNED, RETURN_ADDRESS, go_on_after_signal, interrupted, resume,
};

/// What calls keep, in some frame, and where that frame goes on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    pub(super) pc: usize,
    /// 0 where it is not known, which is not in a function that has just begun.
    pub(super) sp: usize,
    pub(super) frame_pointer: usize,
    /// Those in [`KEPT`], in that order.
    pub(super) kept: [usize; KEPT.len()],
    pub(super) pinned: usize,
    /// What a handler gets.
    pub(super) payload: [u64; 2],
}

impl Registers {
    /// What is in the register that has the lane.
    pub(super) fn lane(&self) -> usize {
        self.kept[0]
    }
}

const _: () = assert!(KEPT[0] == LANE.0);

/// Where a thread was when it got a signal.
pub(super) struct Interrupted {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) frame_pointer: usize,
}

/// What a thread goes on in after a trap: with the registers of the frame that would have gone on
/// at the address that was returned to, and where it has trapped.
pub(super) type AfterTrap = unsafe extern "C" fn(registers: *const Registers, at: usize) -> !;

/// A register by its number, as the system's unwinder takes it.
pub(super) fn number(register: u16) -> c_int {
    c_int::from(register)
}
