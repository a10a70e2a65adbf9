//! Bytes of code and data in memory: sections, blocks, relocations, and changing code that runs.
//! This layer may know bytes, and the code map, in which it notes what they are; it must not know
//! signatures, nor what the code is for.
//!
//! A [`Draft`] is memory that can be written and not run; publishing turns it into a [`Block`],
//! which can be run and not written, and which gives the memory back when it is dropped.
//!
//! An engine has one range of addresses, in three sections of the same size, so that everything in
//! it is in reach of the code's 32-bit references:
//!
//! ```text
//!   +-----------------+-----------------+-----------------+
//!   | read-only: r--  | code: r-x       | writable: rw-   |
//!   +-----------------+-----------------+-----------------+
//!     a file in memory, and another       private pages
//! ```
//!
//! Blocks are packed into cache lines: with a page each, functions compete for the few sets of the
//! instruction cache and the TLB into which the starts of pages fall. Gaps that touch are joined,
//! the smallest gap that is large enough is used first ([`free_ranges`]), and empty pages are given
//! back ([`pages`]).
//!
//! # Writing code
//!
//! No mapping is ever both writable and executable, and no protection is ever changed, which would
//! take pages from the threads that are running there. Code is in a file that is mapped twice, at
//! unrelated addresses: once to be executed, once to be written. A strict engine has no second
//! view. It makes the kernel write to the file (`pwrite`), which takes a microsecond where the view
//! takes a tenth of one, but leaves no view through which a stray or a wilful store could change
//! code.
//!
//! Other ways were tried and are not here. Mapping the second view for each write takes many times
//! longer than `pwrite`, and interrupts all threads when the view goes; `/proc/self/mem` takes
//! longer too, and is not there in every sandbox; changing protections takes longest.
//!
//! Freed code is always filled with traps before its place is used again. The space between blocks
//! in a page is full of traps too. Pages that are given back read as zeros, which are no traps on
//! x86-64, until they are used again.
//!
//! # After a fork
//!
//! A file in memory is shared with the child. Until either process writes, both run what is there.
//! The first to write makes itself a copy and maps it in the place of the old file, see
//! [`section`]; so does the other when its turn comes. Writable data is private and copied by the
//! kernel. This rests on `fork` of the C library running its `pthread_atfork` handlers; a process
//! that is copied by other means must not install or free anything.

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
