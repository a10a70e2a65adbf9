//! The process: system calls, forks, signals, threads, fibers, and the contexts that calls are
//! counted in. This layer may know the process, its threads and the `Domain` that they count in; it
//! must not know code.

pub(crate) mod context;
pub(crate) mod fiber;
pub(crate) mod fork;
#[cfg(test)]
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod sys;
pub(crate) mod threads;
