//! Names for frames: the functions that the calling thread is inside of.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::code_map::{CodeMap, Description, Role};
use super::machine::{FRAME_POINTER, number};
use super::system::{self, Context, NO_REASON};
use super::walk;
use crate::version::location::{Location, Part};
use crate::version::payload::Payload;

/// Describes the frame that is returned to at an address, if it is one of this code.
///
/// # Safety
///
/// The frame is on the stack of the calling thread, with that frame pointer.
pub(super) unsafe fn location_of_frame(
    map: &CodeMap,
    returned: usize,
    frame_pointer: usize,
) -> Option<Location> {
    // SAFETY: as the caller says.
    let frame = unsafe { map.frame(returned) }?;
    let part = match frame.role {
        Role::Body { unit, function, .. } => part_of_function(&unit, function)?,
        Role::Gate => {
            // SAFETY: a gate has its lane in the code or in its frame.
            let lane =
                frame.counted.map(|counted| unsafe { walk::lane(counted, frame_pointer, 0) });
            let version = |payload: &Payload| payload.version().clone();
            // SAFETY: the frame is counted in there, and versions can be shared.
            Part::Gate { version: lane.and_then(|lane| unsafe { (*lane).look(version) }) }
        }
        Role::Entry { .. } => Part::Entry,
        Role::Helper => Part::Helper,
    };
    Some(Location { part, offset: frame.offset })
}

/// The function of a unit that has code at an address.
pub(crate) fn location_of_code(map: &CodeMap, address: usize) -> Option<Location> {
    let (unit, start, function) = map.unit(address)?;
    let Description::Unit(code) = &*unit else { return None };
    let offset = address - start - code.functions[function].start as usize;
    Some(Location { part: part_of_function(&unit, function)?, offset })
}

fn part_of_function(unit: &Description, function: usize) -> Option<Part> {
    let Description::Unit(unit) = unit else { return None };
    let function = Arc::clone(&unit.functions[function].name);
    Some(Part::Body { function, version: unit.number.load(Ordering::Relaxed) })
}

/// The frames of the code in `map` on the stack of the calling thread, innermost first.
pub(crate) fn backtrace(map: &CodeMap) -> Vec<Location> {
    struct State<'a> {
        map: &'a CodeMap,
        found: Vec<Location>,
    }

    unsafe extern "C" fn trace(context: *mut Context, state: *mut c_void) -> c_int {
        // SAFETY: `backtrace` passes the state below.
        let state = unsafe { &mut *state.cast::<State<'_>>() };
        // SAFETY: the context is that of a frame of this thread.
        unsafe {
            let returned = system::returned(context);
            if state.map.contains(returned) {
                let frame_pointer = system::register(context, number(FRAME_POINTER.0));
                let found = location_of_frame(state.map, returned, frame_pointer);
                state.found.extend(found);
            }
        }
        NO_REASON
    }

    let mut state = State { map, found: Vec::new() };
    // SAFETY: `trace` takes the state.
    unsafe { system::backtrace(trace, (&raw mut state).cast()) };
    state.found
}
