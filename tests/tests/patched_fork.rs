//! As in `patched`, the tests that fork. Threads of other tests would be lost in the child, and
//! what these map and open would be counted.

#[path = "fork.rs"]
mod fork;
