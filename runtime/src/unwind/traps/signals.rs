//! The answer to a signal that a trap of generated code may have caused.

use std::ffi::c_int;
use std::ptr;

use libc::{SIGTRAP, siginfo_t, ucontext_t};

use crate::CallError;
use crate::host::context;
use crate::unwind::backtrace::{location_of_code, location_of_frame};
use crate::unwind::code_map::Description;
use crate::unwind::machine::{self, Interrupted, Registers};
use crate::unwind::registry;
use crate::unwind::walk;
use crate::version::location::{Trap, TrapCause};

/// Makes the thread that trapped go on with unwinding, if a call can return the error.
///
/// # Safety
///
/// A handler passes what the system has passed to it.
pub(super) unsafe fn catch(signal: c_int, info: &siginfo_t, context: &mut ucontext_t) -> bool {
    // A program may have sent the signal, which then says nothing about the instruction.
    if info.si_code <= 0 {
        return false;
    }
    let Some(Interrupted { pc, sp, frame_pointer }) = machine::interrupted(context) else {
        return false;
    };
    let Some(map) = registry::at(pc) else { return false };
    if !map.catches_traps() {
        return false;
    }
    let (at, returned) = match map.unit(pc) {
        Some((unit, start, _)) => {
            let Description::Unit(unit) = &*unit else { return false };
            if unit.trap(pc - start).is_none() {
                return false;
            }
            // The trap is treated as a call, whose return address is within it.
            (pc, pc + 1)
        }
        None if signal == SIGTRAP && map.is_freed(pc - 1) => {
            // SAFETY: freed code is only reached by a call, which leaves its return address on the
            // stack.
            let returned = unsafe { ptr::with_exposed_provenance::<usize>(sp).read() };
            if registry::returned_to(returned).is_none() {
                return false;
            }
            (0, returned)
        }
        None => return false,
    };
    // SAFETY: the frame is on the stack of this thread.
    if unsafe { walk::search(returned, frame_pointer, None) }.is_none() {
        return false;
    }
    machine::go_on_after_signal(context, returned, at, fail);
    true
}

/// Leaves the frames, from that with these registers to the call of the host's, which fails.
///
/// # Safety
///
/// The handler has made the thread go on here, from a trap in that frame.
pub(super) unsafe extern "C" fn fail(registers: *const Registers, at: usize) -> ! {
    // SAFETY: the registers are on the stack, above this.
    let registers = unsafe { *registers };
    // SAFETY: the handler has found a target, in the same way.
    let target = unsafe { walk::search(registers.pc, registers.frame_pointer, None) };
    let Some(target) = target else { std::process::abort() };
    // SAFETY: the registers are those of a frame on the stack of this thread.
    match unsafe { trap(&registers, at) } {
        Some(trap) => context::fail(CallError::Trap(Box::new(trap))),
        None => std::process::abort(),
    }
    // SAFETY: the registers are those of the frame from which the target was found.
    unsafe { walk::go_on(registers, target) }
}

/// Describes the trap: of the instruction at an address, or of a call that led to freed code.
///
/// # Safety
///
/// The registers are those of a frame on the stack of the calling thread.
unsafe fn trap(registers: &Registers, at: usize) -> Option<Trap> {
    let map = registry::returned_to(registers.pc)?;
    if at == 0 {
        // SAFETY: as the caller says.
        let location = unsafe { location_of_frame(map, registers.pc, registers.frame_pointer) }?;
        return Some(Trap { cause: TrapCause::Freed, location });
    }
    let (unit, start, _) = map.unit(at)?;
    let Description::Unit(unit) = &*unit else { return None };
    let cause = TrapCause::Code(unit.trap(at - start)?);
    Some(Trap { cause, location: location_of_code(map, at)? })
}
