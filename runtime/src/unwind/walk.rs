//! From one frame of generated code to the next, without the system's unwinder.

use std::ffi::c_int;

use lastout_reclaim::{Counting, Lane};

use super::registry;
use crate::unwind::code_map::{Counted, Description, Found, Role};
use crate::version::payload::Payload;

/// Registers as unwind tables number them: the frame pointer, `rbx`, the pinned register.
pub(super) const FRAME_POINTER: c_int = 6;
pub(super) const RBX: c_int = 3;
pub(super) const PINNED: c_int = 15;

/// What calls keep, in some frame, and where that frame goes on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    pub(super) pc: usize,
    /// 0 where it is not known, which is not in a function that has just begun.
    pub(super) sp: usize,
    pub(super) rbp: usize,
    pub(super) rbx: usize,
    pub(super) r12: usize,
    pub(super) r13: usize,
    pub(super) r14: usize,
    pub(super) r15: usize,
    /// What a handler gets.
    pub(super) payload: [u64; 2],
}

/// The word at an address.
unsafe fn word(at: usize) -> usize {
    // SAFETY: the caller says that there is one.
    unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() }
}

/// Counts a frame out that is left otherwise than by returning.
///
/// # Safety
///
/// The frame, of a gate, has this frame pointer and is counted in at `ledger`, the calling
/// thread's. It is not returned to.
pub(super) unsafe fn count_out(
    counted: Counted,
    frame_pointer: usize,
    rbx: usize,
    ledger: usize,
    counting: Counting,
) {
    let ledger = std::ptr::with_exposed_provenance(ledger);
    // SAFETY: as the caller says; who is counted in at a lane may use it.
    unsafe { (*lane(counted, frame_pointer, rbx)).leave_by_unwinding(ledger, counting) };
}

/// The lane that a frame is counted in at.
///
/// # Safety
///
/// The frame is there, with this frame pointer and, if it is one of an entry, this in `rbx`.
pub(super) unsafe fn lane(
    counted: Counted,
    frame_pointer: usize,
    rbx: usize,
) -> *const Lane<Payload> {
    match counted {
        Counted::At(lane) => lane,
        Counted::InFrame(at) => {
            // SAFETY: that is where the frame has it.
            let lane = unsafe { word(frame_pointer.wrapping_add_signed(at as isize)) };
            std::ptr::with_exposed_provenance(lane)
        }
        Counted::InRegister => std::ptr::with_exposed_provenance(rbx),
    }
}

impl Registers {
    fn register(&mut self, number: u16) -> &mut usize {
        match number {
            3 => &mut self.rbx,
            12 => &mut self.r12,
            13 => &mut self.r13,
            _ => &mut self.r14,
        }
    }

    /// Goes on to the caller of a frame, having counted it out.
    ///
    /// # Safety
    ///
    /// These are the registers of `frame`, on the stack of the calling thread. It is not returned
    /// to.
    unsafe fn leave(&mut self, frame: &Found, counting: Counting) {
        if let Some(counted) = frame.counted {
            // SAFETY: as the caller says.
            unsafe { count_out(counted, self.rbp, self.rbx, self.r15, counting) };
        }
        // A function that traps before it has made room has not saved anything yet: its stack
        // limit was too low.
        if self.sp != self.rbp {
            for (register, place) in frame.saved.places(self.rbp) {
                // SAFETY: the function has saved it there.
                *self.register(register) = unsafe { word(place) };
            }
        }
        if let Some(outer) = frame.outer {
            // SAFETY: as above.
            self.r15 = unsafe { word(self.rbp.wrapping_add_signed(outer as isize)) };
        }
        self.sp = self.rbp + 16;
        // SAFETY: every frame has these two words.
        unsafe {
            self.pc = word(self.rbp + 8);
            self.rbp = word(self.rbp);
        }
    }
}

/// Where what was thrown, or has trapped, is to go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// How many frames are left for it.
    frames: usize,
    /// Where the handler is, and how far the stack pointer is below the frame pointer there.
    /// `None` if it is the call of the host's that goes on, with an error.
    handler: Option<(usize, u32)>,
}

impl Target {
    pub(super) fn is_handler(&self) -> bool {
        self.handler.is_some()
    }
}

/// Finds who catches what is thrown, with `tag` or as a trap, in the frame that is returned to at
/// `pc`: the first handler for the tag, or else the call through a handle that is in progress.
/// `None` if other code than ours comes first.
///
/// # Safety
///
/// It is a frame on the stack of the calling thread, with this frame pointer.
pub(super) unsafe fn search(mut pc: usize, mut rbp: usize, tag: Option<u32>) -> Option<Target> {
    let mut frames = 0;
    loop {
        let map = registry::returned_to(pc)?;
        // SAFETY: as the caller says.
        let frame = unsafe { map.frame(pc)? };
        match frame.role {
            Role::Body { unit, function, start } => {
                let handler = tag.and_then(|tag| handler(&unit, function, frame.offset, tag));
                if let Some((offset, stack)) = handler {
                    return Some(Target { frames, handler: Some((start + offset, stack)) });
                }
            }
            Role::Entry { typed: true } => {
                return Some(Target { frames: frames + 1, handler: None });
            }
            // Generated code may have called the stable entry; then it goes on there.
            Role::Entry { typed: false } | Role::Gate | Role::Helper => {}
        }
        frames += 1;
        // SAFETY: every frame has these two words.
        (pc, rbp) = unsafe { (word(rbp + 8), word(rbp)) };
    }
}

/// The handler for `tag` of the call that returns to a place in a function.
fn handler(unit: &Description, function: usize, offset: usize, tag: u32) -> Option<(usize, u32)> {
    let Description::Unit(unit) = unit else { return None };
    let start = unit.functions[function].start as usize;
    let catch = unit.catch(start + offset)?;
    let wanted = |handler: &&(Option<u32>, u32)| handler.0.is_none_or(|caught| caught == tag);
    let (_, offset) = catch.handlers.iter().find(wanted)?;
    Some((*offset as usize, catch.stack))
}

/// Leaves all frames up to a target, and goes on there.
///
/// # Safety
///
/// As [`search`], which has found the target from there. The frames between the caller of this and
/// the one that `registers` are of have nothing left to do.
pub(super) unsafe fn go_on(mut registers: Registers, target: Target) -> ! {
    for _ in 0..target.frames {
        if let Some(map) = registry::returned_to(registers.pc) {
            // SAFETY: as the caller says: the frame is there, and is left for good.
            unsafe {
                if let Some(frame) = map.frame(registers.pc) {
                    registers.leave(&frame, map.counting());
                }
            }
        }
    }
    if let Some((handler, stack)) = target.handler {
        registers.pc = handler;
        registers.sp = registers.rbp - stack as usize;
    }
    // SAFETY: these are the registers of the frame that goes on.
    unsafe { resume(&registers) }
}

/// Goes on in the frame that these are the registers of.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn resume(registers: *const Registers) -> ! {
    std::arch::naked_asm!(
        "mov rcx, [rdi]",
        "mov rsi, [rdi + 8]",
        "mov rbp, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov r12, [rdi + 32]",
        "mov r13, [rdi + 40]",
        "mov r14, [rdi + 48]",
        "mov r15, [rdi + 56]",
        "mov rax, [rdi + 64]",
        "mov rdx, [rdi + 72]",
        // From here on a signal may write over the registers' values.
        "mov rsp, rsi",
        "jmp rcx",
    )
}

/// Nothing is thrown on other hosts.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn resume(_registers: *const Registers) -> ! {
    unreachable!("frames are unwound on x86-64 only")
}
