//! As in `patched`, the tests of what leaves generated code otherwise than by returning.

#[path = "escaping.rs"]
mod escaping;
#[path = "exceptions.rs"]
mod exceptions;
#[path = "tail_calls.rs"]
mod tail_calls;
#[path = "traps.rs"]
mod traps;
#[path = "unwinding.rs"]
mod unwinding;
