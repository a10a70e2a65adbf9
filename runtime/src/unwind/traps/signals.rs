//! The handler of the signals that traps are reported by.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, sigaction,
    siginfo_t, ucontext_t,
};

use super::machine;
use super::machine::Interrupted;
use crate::host::context;
use crate::unwind::backtrace::{location_of_code, location_of_frame};
use crate::unwind::code_map::Description;
use crate::unwind::registry;
use crate::unwind::walk::{self, Registers};
use crate::version::location::{Trap, TrapCause};
use crate::{CallError, Error, Result};

/// Those that traps are reported by. Freed code is full of breakpoints.
const SIGNALS: [c_int; 5] = [SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP];

/// What was done on each of them before.
static BEFORE: OnceLock<[sigaction; SIGNALS.len()]> = OnceLock::new();

/// Which of these handlers have taken themselves off since.
static GONE: [AtomicBool; SIGNALS.len()] = [const { AtomicBool::new(false) }; SIGNALS.len()];

/// Installs the handler, the first time.
pub(super) fn install() -> Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), c_int>> = OnceLock::new();
    let install_all = || {
        let current = |signal| action(signal, None);
        let mut before = [MaybeUninit::<sigaction>::zeroed(); SIGNALS.len()];
        for (before, signal) in before.iter_mut().zip(SIGNALS) {
            before.write(current(signal)?);
        }
        // SAFETY: all of them were written.
        let _ = BEFORE.set(before.map(|before| unsafe { before.assume_init() }));
        SIGNALS.into_iter().try_for_each(|signal| action(signal, Some(&own_action())).map(drop))
    };
    let installed = INSTALLED.get_or_init(install_all);
    installed.map_err(|errno| Error::Memory(io::Error::from_raw_os_error(errno)))
}

/// Has the handler called.
fn own_action() -> sigaction {
    // SAFETY: zeros are an action without flags or a mask.
    let mut own: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    own.sa_sigaction = handle as *const () as usize;
    own.sa_flags = SA_SIGINFO | SA_ONSTACK;
    own
}

/// What is done on a signal; and has something else done from now on.
fn action(signal: c_int, new: Option<&sigaction>) -> std::result::Result<sigaction, c_int> {
    let mut old = MaybeUninit::<sigaction>::zeroed();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both are actions, or null where there is none.
    match unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) } {
        // SAFETY: the call has written it, and zeros are one, too.
        0 => Ok(unsafe { old.assume_init() }),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
    }
}

unsafe extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes these.
    let caught = unsafe { catch(signal, &*info, &mut *context.cast::<ucontext_t>()) };
    if !caught {
        // SAFETY: as above.
        unsafe { as_before(signal, info, context) };
    }
}

/// Has the thread that trapped go on with unwinding, if somebody is there to be told.
unsafe fn catch(signal: c_int, info: &siginfo_t, context: &mut ucontext_t) -> bool {
    // Somebody else may have sent it, and then it says nothing about the instruction.
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
            // As if the instruction was a call: this is within it.
            (pc, pc + 1)
        }
        None if signal == SIGTRAP && map.is_freed(pc - 1) => {
            // SAFETY: whoever came here has called, and a call leaves this on the stack.
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
    machine::go_on(context, returned, at);
    true
}

/// Leaves the frames from that with these registers to the call of the host's, which fails.
///
/// # Safety
///
/// The handler has had the thread go on here, from a trap in that frame.
pub(super) unsafe extern "C" fn fail(registers: *const Registers, at: usize) -> ! {
    // SAFETY: they are on the stack, above this.
    let registers = unsafe { *registers };
    // SAFETY: the handler has found that there is one, in the same way.
    let target = unsafe { walk::search(registers.pc, registers.rbp, None) };
    let Some(target) = target else { std::process::abort() };
    // SAFETY: the registers are those of a frame on the stack of this thread.
    match unsafe { trap(&registers, at) } {
        Some(trap) => context::fail(CallError::Trap(Box::new(trap))),
        None => std::process::abort(),
    }
    // SAFETY: the registers are those of the frame that it was found from.
    unsafe { walk::go_on(registers, target) }
}

/// What has trapped: the instruction at an address, or a call that led to freed code.
///
/// # Safety
///
/// The registers are those of a frame on the stack of the calling thread.
unsafe fn trap(registers: &Registers, at: usize) -> Option<Trap> {
    let map = registry::returned_to(registers.pc)?;
    if at == 0 {
        // SAFETY: as the caller says.
        let location = unsafe { location_of_frame(map, registers.pc, registers.rbp) }?;
        return Some(Trap { cause: TrapCause::Freed, location });
    }
    let (unit, start, _) = map.unit(at)?;
    let Description::Unit(unit) = &*unit else { return None };
    let cause = TrapCause::Code(unit.trap(at - start)?);
    Some(Trap { cause, location: location_of_code(map, at)? })
}

/// Does what would have been done if this handler was not there.
unsafe fn as_before(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(number) = SIGNALS.iter().position(|&it| it == signal) else { return };
    let before = BEFORE.get().map(|before| &before[number]);
    let before = before.filter(|_| !GONE[number].load(Ordering::Relaxed));
    match before {
        // What an instruction has caused cannot be ignored: it would be caused again.
        // SAFETY: the system passes it.
        Some(before) if before.sa_sigaction == SIG_IGN && unsafe { (*info).si_code } <= 0 => {}
        Some(before) if ![SIG_DFL, SIG_IGN].contains(&before.sa_sigaction) => {
            // SAFETY: the system passes these.
            unsafe { call(before, signal, info, context) };
            // Rust's handler, called for what is not its business, takes itself off, and not this.
            let now = action(signal, None);
            if now.is_ok_and(|now| now.sa_sigaction == SIG_DFL) {
                GONE[number].store(true, Ordering::Relaxed);
                let _ = action(signal, Some(&own_action()));
            }
        }
        _ => {
            // SAFETY: zeros are the default action.
            let default: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            let _ = action(signal, Some(&default));
            // A signal that was sent does not come again by itself, as that of an instruction
            // does when it is executed again.
            // SAFETY: sending the thread a signal, which it gets once this handler is over.
            unsafe { libc::raise(signal) };
        }
    }
}

/// Calls the handler of an action that has one.
unsafe fn call(action: &sigaction, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type WithInfo = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    type Plain = unsafe extern "C" fn(c_int);

    // SAFETY: the flag says which of the two types the function has, and the system has passed
    // what it gets.
    unsafe {
        if action.sa_flags & SA_SIGINFO != 0 {
            let handler: WithInfo = std::mem::transmute(action.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: Plain = std::mem::transmute(action.sa_sigaction);
            handler(signal);
        }
    }
}
