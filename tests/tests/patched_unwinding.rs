//! As in `patched`, the tests of what leaves generated code otherwise than by returning.

#[path = "exceptions.rs"]
mod exceptions;
#[path = "unwinding.rs"]
mod unwinding;
