//! Gates, entries and stubs in CLIF, for every architecture that Cranelift compiles for.
//!
//! A file here may know signatures, symbols, the layout of lanes and frames, and the steps of the
//! protocol, and may ask [`machine`](crate::machine) whether functions can be tail-called. It must
//! not know which functions there are, nor what the machine code beside it looks like.

pub(crate) mod access;
pub(crate) mod entry;
pub(crate) mod function;
pub(crate) mod gate;
pub(crate) mod stub;
pub(crate) mod zero;
