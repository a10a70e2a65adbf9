//! Frames that are left otherwise than by returning, or by returning to a caller that has gone.

mod exceptions;
mod tail_calls;
mod traps;
mod unwinding;
