//! The walk from one frame of generated code to the next, without the system's unwinder.

use lastout_reclaim::{Counting, Lane};

use super::machine::{Registers, resume};
use super::registry;
use crate::unwind::code_map::{Counted, Description, Found, Role};
use crate::version::payload::Payload;

/// The word at an address.
unsafe fn word(at: usize) -> usize {
    // SAFETY: the caller says that there is a word.
    unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() }
}

/// Counts a frame out that is left otherwise than by returning.
///
/// # Safety
///
/// The frame, of a gate, has this frame pointer and is counted in with `ledger`, the calling
/// thread's. It is not returned to.
pub(super) unsafe fn count_out(
    counted: Counted,
    frame_pointer: usize,
    lane_register: usize,
    ledger: usize,
    counting: Counting,
) {
    let ledger = std::ptr::with_exposed_provenance(ledger);
    // SAFETY: as the caller says; a frame that is counted in a lane keeps the lane.
    unsafe { (*lane(counted, frame_pointer, lane_register)).leave_by_unwinding(ledger, counting) };
}

/// The lane in which a frame is counted.
///
/// # Safety
///
/// The frame is on the stack and has this frame pointer. If it is one of an entry, `lane_register`
/// is its value of the register in which entries have the lane.
pub(super) unsafe fn lane(
    counted: Counted,
    frame_pointer: usize,
    lane_register: usize,
) -> *const Lane<Payload> {
    match counted {
        Counted::At(lane) => lane,
        Counted::InFrame(at) => {
            // SAFETY: the frame has the address there.
            let lane = unsafe { word(frame_pointer.wrapping_add_signed(at as isize)) };
            std::ptr::with_exposed_provenance(lane)
        }
        Counted::InRegister => std::ptr::with_exposed_provenance(lane_register),
    }
}

impl Registers {
    /// Goes on to the caller of a frame, after counting the frame out.
    ///
    /// # Safety
    ///
    /// These are the registers of `frame`, on the stack of the calling thread. The frame is not
    /// returned to.
    unsafe fn leave(&mut self, frame: &Found, counting: Counting) {
        if let Some(counted) = frame.counted {
            // SAFETY: as the caller says.
            unsafe { count_out(counted, self.frame_pointer, self.lane(), self.pinned, counting) };
        }
        // A function that traps before it has moved the stack pointer has not saved anything yet:
        // the check of its stack limit has failed.
        if self.sp != self.frame_pointer {
            for (register, place) in frame.saved.places(self.frame_pointer) {
                // SAFETY: the function has saved the register there.
                self.kept[register] = unsafe { word(place) };
            }
        }
        if let Some(outer) = frame.outer {
            let place = self.frame_pointer.wrapping_add_signed(outer as isize);
            // SAFETY: as above.
            self.pinned = unsafe { word(place) };
        }
        self.sp = self.frame_pointer + 16;
        // SAFETY: every frame has these two words.
        unsafe {
            self.pc = word(self.frame_pointer + 8);
            self.frame_pointer = word(self.frame_pointer);
        }
    }
}

/// The place where the thread is to go on after an exception or a trap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// How many frames are left before.
    frames: usize,
    /// The address of the handler, and how far the stack pointer is below the frame pointer there.
    /// `None` if the call of the host's goes on, with an error.
    handler: Option<(usize, u32)>,
}

impl Target {
    pub(super) fn is_handler(&self) -> bool {
        self.handler.is_some()
    }
}

/// Finds what catches an exception with `tag`, or a trap, in the frames from the one that is
/// returned to at `pc`: the first handler for the tag, or else the call through a handle that is in
/// progress. `None` if code of others comes first.
///
/// # Safety
///
/// The frame is on the stack of the calling thread, with this frame pointer.
pub(super) unsafe fn search(
    mut pc: usize,
    mut frame_pointer: usize,
    tag: Option<u32>,
) -> Option<Target> {
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
            // Generated code may have called the stable entry; then the search goes on there.
            Role::Entry { typed: false } | Role::Gate | Role::Helper => {}
        }
        frames += 1;
        // SAFETY: every frame has these two words.
        (pc, frame_pointer) = unsafe { (word(frame_pointer + 8), word(frame_pointer)) };
    }
}

/// The handler for `tag` of the call that returns to an offset in a function.
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
/// As [`search`], which has found the target from the frame of `registers`. The frames between the
/// caller of this and that frame have nothing left to do.
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
        registers.sp = registers.frame_pointer - stack as usize;
    }
    // SAFETY: these are the registers of the frame that goes on.
    unsafe { resume(&registers) }
}
