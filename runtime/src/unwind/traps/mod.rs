//! Traps of generated code, as errors of the calls in which they happen.
//!
//! A processor reports a trap to the system, which sends the thread a signal. The handler for these
//! signals checks that Cranelift has noted the instruction as trapping, in an engine that catches
//! traps. It also checks that the frames from there on lead to a call through a
//! [`Handle`](crate::Handle) without any code of others in between. If so, it makes the thread go
//! on in [`fail`](signals::fail), below the frames, which leaves them and returns to the host with
//! the error. If not, it does what the program would have done without it: call the handler that
//! was there before, or die.
//!
//! A handler on the thread's stack would find no space there if that is what the trap is about. So
//! this one runs on the alternate stack, which Rust gives to each of its threads. It leaves stack
//! overflows to other handlers: Cranelift notes no instruction as trapping for those.

mod signals;

use crate::{Error, Result, host};

/// Makes traps be caught from now on, in this process, for the engines that ask for it.
pub(crate) fn catch() -> Result<()> {
    if !super::SUPPORTED {
        return Err(Error::NoUnwinding);
    }
    Ok(host::signals::catch_faults(signals::catch)?)
}
