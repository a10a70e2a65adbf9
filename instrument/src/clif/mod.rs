//! Gates, entries and stubs in CLIF.

pub(crate) mod access;
pub(crate) mod entry;
pub(crate) mod function;
pub(crate) mod gate;
pub(crate) mod stub;
pub(crate) mod zero;
