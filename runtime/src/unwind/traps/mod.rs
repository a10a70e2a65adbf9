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

mod signals;

use crate::{Error, Result, host};

/// Has traps caught from now on, in this process, of the engines that want it.
pub(crate) fn catch() -> Result<()> {
    if !super::SUPPORTED {
        return Err(Error::NoUnwinding);
    }
    Ok(host::signals::catch_faults(signals::catch)?)
}
