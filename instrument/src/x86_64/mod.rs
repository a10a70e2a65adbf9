//! Gates, entries and valets in machine code for x86-64.

pub(crate) mod encoder;
pub(crate) mod entry;
pub(crate) mod gate;
pub(crate) mod tail_gate;
pub(crate) mod valet;
