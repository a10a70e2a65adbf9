//! Which functions the calling thread is inside of, by name.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::system::{self, Context, NO_REASON};
use super::walk::{self, FRAME_POINTER};
use crate::Version;
use crate::unwind::code_map::{CodeMap, Description, Role};
use crate::version::payload::Payload;

/// A place in generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What it is a place in.
    pub part: Part,
    /// How many bytes it is from the start of that.
    pub offset: usize,
}

/// What generated code is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A function that a unit defines.
    Body {
        /// Its name.
        function: Arc<str>,
        /// The [number](Version::number) of the versions that the unit has installed; 0 while it
        /// is being installed.
        version: u64,
    },
    /// A gate.
    Gate {
        /// The version that it has counted the call in at; `None` if it has not, being on its way
        /// to another gate.
        version: Option<Version>,
    },
    /// A way in from the host.
    Entry,
    /// What gates call when they find that a version is gone.
    Helper,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Body { function, version } => write!(f, "`{function}`#{version}")?,
            Part::Gate { version: Some(version) } => {
                write!(f, "the gate of `{}`#{}", version.function(), version.number())?;
            }
            Part::Gate { version: None } => f.write_str("a gate")?,
            Part::Entry => f.write_str("an entry")?,
            Part::Helper => f.write_str("a helper of gates")?,
        }
        write!(f, "+{:#x}", self.offset)
    }
}

impl Location {
    /// What a frame is that is returned to at an address, if it is one of this code.
    ///
    /// # Safety
    ///
    /// It is a frame on the stack of the calling thread, with that frame pointer.
    pub(super) unsafe fn of_frame(
        map: &CodeMap,
        returned: usize,
        frame_pointer: usize,
    ) -> Option<Self> {
        // SAFETY: as the caller says.
        let frame = unsafe { map.frame(returned) }?;
        let part = match frame.role {
            Role::Body { unit, function, .. } => Part::of_function(&unit, function)?,
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
        Some(Self { part, offset: frame.offset })
    }

    /// The function of a unit that has code at an address.
    pub(crate) fn of_code(map: &CodeMap, address: usize) -> Option<Self> {
        let (unit, start, function) = map.unit(address)?;
        let Description::Unit(code) = &*unit else { return None };
        let offset = address - start - code.functions[function].start as usize;
        Some(Self { part: Part::of_function(&unit, function)?, offset })
    }
}

impl Part {
    fn of_function(unit: &Description, function: usize) -> Option<Self> {
        let Description::Unit(unit) = unit else { return None };
        let function = Arc::clone(&unit.functions[function].name);
        Some(Self::Body { function, version: unit.number.load(Ordering::Relaxed) })
    }
}

/// The frames of the code in `map` on the stack of the calling thread, innermost first.
pub(crate) fn backtrace(map: &CodeMap) -> Vec<Location> {
    struct State<'a> {
        map: &'a CodeMap,
        found: Vec<Location>,
    }

    unsafe extern "C" fn trace(context: *mut Context, state: *mut c_void) -> c_int {
        // SAFETY: it is the state below.
        let state = unsafe { &mut *state.cast::<State<'_>>() };
        // SAFETY: the context is that of a frame of this thread.
        unsafe {
            let returned = system::returned(context);
            if state.map.contains(returned) {
                let frame_pointer = system::register(context, FRAME_POINTER);
                state.found.extend(Location::of_frame(state.map, returned, frame_pointer));
            }
        }
        NO_REASON
    }

    let mut state = State { map, found: Vec::new() };
    // SAFETY: `trace` takes the state.
    unsafe { system::backtrace(trace, (&raw mut state).cast()) };
    state.found
}
