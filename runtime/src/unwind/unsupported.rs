//! Processors on which frames of generated code are not unwound. Nothing here is called there.

use cranelift_codegen::gimli::Register;
use libc::ucontext_t;

use super::{AfterTrap, Interrupted, Registers};

pub(in crate::unwind) const FRAME_POINTER: Register = Register(0);
pub(in crate::unwind) const RETURN_ADDRESS: Register = Register(0);
pub(in crate::unwind) const LANE: Register = Register(0);
pub(in crate::unwind) const PINNED: Register = Register(0);
pub(in crate::unwind) const KEPT: [u16; 4] = [0; 4];
pub(in crate::unwind) const ENTRY_SAVES: [u8; KEPT.len()] = [0; KEPT.len()];

pub(in crate::unwind) unsafe extern "C" fn resume(registers: *const Registers) -> ! {
    unreachable!("no frame goes on elsewhere: {registers:p}")
}

/// No trap is caught.
pub(in crate::unwind) fn interrupted(_context: &ucontext_t) -> Option<Interrupted> {
    None
}

pub(in crate::unwind) fn go_on_after_signal(
    _context: &mut ucontext_t,
    _returned: usize,
    _at: usize,
    _then: AfterTrap,
) {
    unreachable!("no trap is caught")
}
