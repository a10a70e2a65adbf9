//! As in `patched`, the tests that have many threads of their own.

#[path = "parallel.rs"]
mod parallel;
#[path = "stress.rs"]
mod stress;
