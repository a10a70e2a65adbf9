//! A library that knows nothing of engines.

use std::sync::atomic::{AtomicI64, Ordering};

static CALLS: AtomicI64 = AtomicI64::new(0);

/// `x * 10`, counting its calls.
#[unsafe(no_mangle)]
pub extern "C" fn times_ten(x: i64) -> i64 {
    CALLS.fetch_add(1, Ordering::SeqCst);
    x * 10
}

/// How many calls of `times_ten` there were.
#[unsafe(no_mangle)]
pub extern "C" fn calls() -> i64 {
    CALLS.load(Ordering::SeqCst)
}

/// Calls `pass(door)` from inside of the library, and adds 1000 to what it returns.
#[unsafe(no_mangle)]
pub extern "C" fn through(door: usize, pass: extern "C" fn(usize) -> i64) -> i64 {
    pass(door) + 1000
}
