//! The process and its threads.

pub(crate) mod context;
pub(crate) mod fiber;
pub(crate) mod fork;
#[cfg(test)]
pub(crate) mod process;
pub(crate) mod sys;
pub(crate) mod threads;
