//! Where panics end: at what cannot be unwound, with the process.

use lastout::Engine;
use lastout_tests::child::child;
use lastout_tests::support::{calling_back, calls, install};
use lastout_tests::{builder, call};

use super::panics::left;

fn engine_whose_callback_is(function: extern "C" fn(usize, i64) -> i64) -> Engine {
    builder!().host_function("call_back", function).build().unwrap()
}

#[test]
fn a_panic_ends_the_process_at_a_function_that_is_not_to_unwind() {
    extern "C" fn panicking(_: usize, _: i64) -> i64 {
        panic!("on the way out")
    }

    let engine = engine_whose_callback_is(panicking);
    install(&engine, &calling_back("f", 1));
    let ended = child("abort", || {
        let _ = left(|| call!(calls(&engine, "f"), 0, 1));
    });
    let Some(ended) = ended else { return };
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended:?}");
    assert!(ended.errors.contains("on the way out"));
    assert!(ended.errors.contains("panic in a function that cannot unwind"), "{}", ended.errors);
}
