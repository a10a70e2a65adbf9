//! As in `patched`, the cases that fork.

#[path = "fork/main.rs"]
mod fork;
