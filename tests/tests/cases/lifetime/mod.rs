//! When a version goes: after its last frame, whichever thread or fiber that was on, and with what
//! it owns.

mod fibers;
mod payloads;
mod queries;
mod removed;
mod replaced;
mod stress;
mod teardown;
mod thread_exit;
mod threads;
