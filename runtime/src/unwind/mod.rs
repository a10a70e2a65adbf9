//! Frames of generated code: finding them, and leaving them otherwise than by returning. This layer
//! may know addresses, frames and the `Lane<Payload>` in which a frame is counted; it must not know
//! the memory that has the code, nor functions.
//!
//! Panics, exceptions and traps leave generated code.
//!
//! All code that is generated or written down here has *frame pointer frames*: the word at the
//! frame pointer is the caller's frame pointer, and the one above it the return address. So one
//! rule tells the system's unwinder how to get from any of these frames to its caller. An engine
//! registers one [table] when it is made, for all code that will ever be in its code memory:
//! installing and freeing code registers nothing, and unwinders have nothing to search.
//!
//! (The tails that gates jump to when a version is gone have no frame. The functions that they call
//! let nothing out, and a backtrace from there lacks one function.)
//!
//! A [`personality`] does what the rule does not say. The unwinder calls it for each frame that it
//! leaves for good: it counts the frames of gates out, and restores the registers that calls keep,
//! from where the [map of code](code_map) says that each function has saved them.
//!
//! - **Panics** of host functions, and all else that comes from the system's unwinder (exceptions
//!   of C++, `pthread_exit`), take this way.
//! - **Exceptions** of generated code are [thrown](throw()) by a host function and stay within the
//!   call of the host's that is in progress: from the thrower to the handler, or to the entry of
//!   that call, there are only frames of generated code, which are unwound [here](walk). The system
//!   unwinds those of the thrower.
//! - **[Traps](traps)** are unwound here, too, from the instruction that trapped.

mod backtrace;
pub(crate) mod code_map;
mod machine;
mod personality;
mod registry;
mod saved;
mod system;
mod table;
mod throw;
pub(crate) mod traps;
mod walk;

pub(crate) use backtrace::{backtrace, location_of_code};
pub(crate) use registry::Registration;
pub(crate) use saved::Saved;
pub(crate) use table::UnwindTable;
pub use throw::throw;

/// Whether generated code can be left otherwise than by returning on this host.
pub(crate) const SUPPORTED: bool = cfg!(all(target_arch = "x86_64", target_env = "gnu"));
