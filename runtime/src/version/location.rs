//! Places in generated code, and the traps and exceptions that can happen there, as data.

use std::fmt;
use std::sync::Arc;

use cranelift_codegen::ir::TrapCode;

use crate::version::Version;

/// A place in generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The function, gate or other code in which the place is.
    pub part: Part,
    /// The distance of the place from the start of that, in bytes.
    pub offset: usize,
}

/// The purpose of generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A function that a unit defines.
    Body {
        /// The name of the function.
        function: Arc<str>,
        /// The [number](Version::number) of the versions that the unit has installed; 0 while it
        /// is being installed.
        version: u64,
    },
    /// A gate.
    Gate {
        /// The version whose gate has counted the call in; `None` if the gate has not, and the call
        /// is on its way to another gate.
        version: Option<Version>,
    },
    /// An entry, for calls from the host.
    Entry,
    /// Code that gates call when they find that a version is gone.
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

/// A trap of generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why it trapped.
    pub cause: TrapCause,
    /// Where it trapped: the instruction, or if that is gone, the call that led there.
    pub location: Location,
}

/// Why generated code trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapCause {
    /// The code that Cranelift has given to the instruction.
    Code(TrapCode),
    /// The code that was called has been freed. This is found if no other code is there yet, as
    /// [`EngineBuilder::quarantine`](crate::EngineBuilder::quarantine) ensures for some time.
    Freed,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, location } = self;
        match cause {
            TrapCause::Code(code) => write!(f, "trap in {location}: {code}"),
            TrapCause::Freed => write!(f, "{location} has called code that is freed"),
        }
    }
}

impl std::error::Error for Trap {}

/// Nothing would catch an exception: the throwing function was not called by generated code; or the
/// host, or code of others, has called that through a [stable entry](crate::Handle::c_address) and
/// cannot be told of an error; or this host cannot unwind frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing catches the exception")]
pub struct Uncaught;

/// An exception that no handler of generated code has caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an exception with tag {tag} was thrown and not caught")]
pub struct Exception {
    /// The tag by which handlers know the exception.
    pub tag: u32,
    /// The payload that a handler would have got.
    pub payload: [u64; 2],
}
