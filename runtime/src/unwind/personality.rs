//! The function that the system's unwinder calls for each frame of generated code that it leaves.

use std::ffi::c_int;

use super::machine::{FRAME_POINTER, KEPT, LANE, PINNED, number};
use super::system::{self, CLEANUP_PHASE, CONTINUE_UNWIND, Context, Exception};
use super::walk::count_out;
use crate::unwind::code_map::CodeMap;

/// Leaves a frame of generated code for good: counts it out if it is one of a gate, and restores
/// those of its caller's registers that the table does not tell the unwinder of. It catches
/// nothing.
///
/// # Safety
///
/// Only the system's unwinder calls this, for frames in the range of an
/// [`UnwindTable`](super::UnwindTable).
pub(super) unsafe extern "C" fn personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut Exception,
    context: *mut Context,
) -> c_int {
    if actions & CLEANUP_PHASE == 0 {
        return CONTINUE_UNWIND;
    }
    // SAFETY: the context is that of a frame in the range of a table, which has the map of that
    // code. The unwinder has all these registers.
    let (map, returned, frame_pointer, lane, ledger) = unsafe {
        (
            &*system::data(context).cast::<CodeMap>(),
            system::returned(context),
            system::register(context, number(FRAME_POINTER.0)),
            system::register(context, number(LANE.0)),
            system::register(context, number(PINNED.0)),
        )
    };
    // SAFETY: the unwinder is at that frame.
    let Some(frame) = (unsafe { map.frame(returned) }) else {
        return CONTINUE_UNWIND;
    };
    if let Some(counted) = frame.counted {
        // SAFETY: the frame is counted in, by the thread that is leaving it.
        unsafe { count_out(counted, frame_pointer, lane, ledger, map.counting()) };
    }
    for (kept, place) in frame.saved.places(frame_pointer) {
        // SAFETY: the function has saved the register there, in its frame.
        unsafe {
            let value = std::ptr::with_exposed_provenance::<usize>(place).read();
            system::set_register(context, number(KEPT[kept]), value);
        }
    }
    if let Some(outer) = frame.outer {
        let place = frame_pointer.wrapping_add_signed(outer as isize);
        // SAFETY: as above.
        unsafe {
            let value = std::ptr::with_exposed_provenance::<usize>(place).read();
            system::set_register(context, number(PINNED.0), value);
        }
    }
    CONTINUE_UNWIND
}
