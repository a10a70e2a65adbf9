//! Bytes of code and data in memory: sections, blocks, relocations, and changing code that runs.
//! This layer may know bytes, and the code map, in which it notes what they are; it must not know
//! signatures, nor what the code is for.
//!
//! A [`Draft`] is memory that can be written and not run; publishing turns it into a [`Block`],
//! which can be run and not written, and which gives the memory back when it is dropped.
//!
//! The chapter [`docs::code_memory`](crate::docs::code_memory) says how an engine's range of
//! addresses is divided, who may write code and how, what freed code is filled with, and what
//! happens after a fork. Of that, [`section`] has the files and their copies, [`pages`] gives empty
//! pages back, [`free_ranges`] finds room, [`patch`] changes calls that threads execute, and
//! [`overwrite`] writes a version where another was.

pub(crate) mod block;
mod free_ranges;
pub(crate) mod libcalls;
pub(crate) mod memory;
pub(crate) mod object;
mod overwrite;
mod pages;
pub(crate) mod patch;
pub(crate) mod relocation;
mod section;
#[cfg(test)]
mod tests;

pub(crate) use block::{Block, Contents, Draft, Room, Sizes};
pub(crate) use memory::{MAX_SIZE, Memory};
pub(crate) use overwrite::Footprint;
pub(crate) use patch::Patches;
