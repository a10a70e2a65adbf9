//! The process: system calls, forks, signals, threads, fibers, and the contexts in which calls are
//! counted. This layer may know the process, its threads and the `Domain` in which they count; it
//! must not know code.

pub(crate) mod context;
pub(crate) mod fiber;
pub(crate) mod fork;
#[cfg(test)]
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod sys;
pub(crate) mod threads;
