//! Traps of generated code, as errors of the call that they happen in.
//!
//! A processor reports a trap to the system, which sends the thread a signal. The handler for these
//! signals looks whether the instruction is one that Cranelift has noted as trapping, in an engine
//! that catches traps, and whether the frames from there on lead to a call through a
//! [`Handle`](crate::Handle) without any code of others in between. If so, it has the thread go on
//! in [`fail`](signals::fail), below the frames, which leaves them and returns to the host with the error. If
//! not, it does what the program would have done without it: call the handler that was there
//! before, or have the process die.
//!
//! A handler that runs on the stack of the thread would find no room there if that is what the trap
//! is about. So this one runs on the alternate stack, which Rust gives to each of its threads, and
//! leaves stack overflows to others: Cranelift notes no instruction as trapping for that.

mod machine;
mod signals;

use std::fmt;

use cranelift_codegen::ir::TrapCode;

use super::backtrace::Location;
use crate::{Error, Result};

/// A trap of generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub cause: TrapCause,
    /// Where: the instruction, or if that is gone, the call that led there.
    pub location: Location,
}

/// Why generated code trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrapCause {
    /// The code that Cranelift has given to the instruction.
    Code(TrapCode),
    /// The code that was called has been freed. This is found if nothing else is there yet, as
    /// [`EngineBuilder::quarantine`](crate::EngineBuilder::quarantine) sees to for some time.
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

/// Has traps caught from now on, in this process, of the engines that want it.
pub(crate) fn catch() -> Result<()> {
    if !super::SUPPORTED {
        return Err(Error::NoUnwinding);
    }
    signals::install()
}
