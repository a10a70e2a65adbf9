//! As in `patched`, the tests of what leaves generated code otherwise than by returning.

#[path = "escaping.rs"]
mod escaping;
#[path = "exceptions.rs"]
mod exceptions;
#[path = "traps.rs"]
mod traps;
#[path = "unwinding.rs"]
mod unwinding;
