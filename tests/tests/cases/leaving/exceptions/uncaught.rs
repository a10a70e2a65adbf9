//! Exceptions that no handler wants: the innermost call of the host's gets them, if it can be told.

use std::cell::Cell;

use lastout::{CallError, Exception, Uncaught, throw};
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::{call_address, keeps};
use lastout_tests::support::{Callback, Drops, calling_back, calls, install};
use lastout_tests::{builder, call};

use super::{Catching, throwing};

fn uncaught(number: i64) -> CallError {
    let (tag, payload) = ((number / 100) as u32, [number as u64, 5]);
    CallError::Exception(Box::new(Exception { tag, payload }))
}

#[test]
fn the_call_of_the_host_fails_with_what_nobody_wants() {
    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        for live in [0, 8] {
            let mut below = "call_back";
            for (height, kind) in (1..).zip(&KINDS) {
                kind.install(&engine, kind.name, below, live, &Drops::new());
                below = kind.name;
                // A handler for another tag on top, and the layer itself.
                let catching = Catching { tags: &[2], callee: below, live, ..Catching::default() };
                install(&engine, &catching.function("catcher"));
                for function in ["catcher", below] {
                    let called = calls(&engine, function);
                    let run = |number| keeps(|| call!(called, callback.address(), number));
                    assert_eq!(run(107), Err(uncaught(107)), "{name}, {function}");
                    assert_eq!(run(5), Ok(5 + height), "{name}, {function}");
                }
                let inner = format!("{}_inner", kind.name);
                assert_eq!(frames(&engine, &["catcher", kind.name, &inner]), 0);
            }
        }
    }
}

#[test]
fn of_nested_calls_the_innermost_fails() {
    for (name, engine) in engines(|| builder!()) {
        // It would be wanted out there.
        let outer = Catching { tags: &[0], ..Catching::default() };
        install(&engine, &outer.function("outer"));
        install(&engine, &calling_back("inner", 1));
        let (outer, inner) = (calls(&engine, "outer"), calls(&engine, "inner"));
        let callback = throwing();
        let calling = Callback::new(|number| {
            assert_eq!(keeps(|| call!(inner, callback.address(), 107)), Err(uncaught(107)));
            assert_eq!(call!(inner, callback.address(), 7), Ok(8));
            number + 1
        });
        assert_eq!(keeps(|| call!(outer, calling.address(), 1)), Ok(2), "{name}");
        assert_eq!(frames(&engine, &["outer", "inner"]), 0);
    }
}

/// A callback that throws, and if that returns, notes that nobody wants it, and returns.
fn trying(refused: &Cell<u32>) -> Callback<'_> {
    struct Shared<'a>(&'a Cell<u32>);

    // SAFETY: it is used by one thread.
    unsafe impl Sync for Shared<'_> {}

    let refused = Shared(refused);
    Callback::new(move |number| {
        let refused = &refused;
        // SAFETY: there is nothing to drop.
        let Uncaught = unsafe { throw(1, [number as u64, 5]) };
        refused.0.set(refused.0.get() + 1);
        number
    })
}

#[test]
fn nothing_is_thrown_at_a_caller_that_cannot_be_told() {
    let refused = Cell::new(0);
    let callback = trying(&refused);
    for (name, engine) in engines(|| builder!()) {
        refused.set(0);
        let mut below = "call_back";
        for (height, kind) in (1..).zip(&KINDS) {
            kind.install(&engine, kind.name, below, 8, &Drops::new());
            below = kind.name;
            let function = calls(&engine, below);
            let entry = function.c_address().unwrap().expose_provenance();
            // SAFETY: it is the entry of a function of this type, and the handle keeps it.
            let result = unsafe { call_address(entry, callback.address(), 7) };
            assert_eq!((result, refused.get()), (7 + height as i64, height), "{name}");
        }
        // Not even if there is one further out, which could be told.
        let outer = Catching { tags: &[0], ..Catching::default() };
        install(&engine, &outer.function("outer"));
        let entry = calls(&engine, below).c_address().unwrap().expose_provenance();
        let calling = Callback::new(|number| {
            // SAFETY: as above.
            unsafe { call_address(entry, callback.address(), number) }
        });
        refused.set(0);
        let height = KINDS.len() as i64;
        let result = call!(calls(&engine, "outer"), calling.address(), 7);
        assert_eq!((result, refused.get()), (Ok(7 + height), 1), "{name}");
    }
}

#[test]
fn nothing_is_thrown_where_there_is_no_generated_code() {
    // SAFETY: there is nothing to drop.
    let thrown = || unsafe { throw(1, [2, 3]) };
    assert_eq!(thrown(), Uncaught);
    assert_eq!(keeps(thrown), Uncaught);
    assert_eq!(std::thread::spawn(thrown).join().unwrap(), Uncaught);
}

#[test]
fn what_is_called_through_an_entry_by_generated_code_throws_past_it() {
    // The host calls `outer`, which calls `f` by its address: the caller of `outer` can be told.
    const OUTER: &str = "function %outer(i64, i64) -> i64 system_v {
        sig0 = (i64, i64) -> i64 system_v
        fn0 = %f(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = func_addr.i64 fn0
        v3 = call_indirect sig0, v2(v0, v1)
        v4 = iadd v3, v1
        return v4
     }";

    let callback = throwing();
    for (name, engine) in engines(|| builder!()) {
        install(&engine, &calling_back("f", 1));
        install(&engine, OUTER);
        install(&engine, &Catching { callee: "outer", ..Catching::default() }.function("catcher"));
        let (outer, catcher) = (calls(&engine, "outer"), calls(&engine, "catcher"));
        for _ in 0..2 {
            assert_eq!(
                keeps(|| call!(outer, callback.address(), 107)),
                Err(uncaught(107)),
                "{name}"
            );
            let caught = super::caught(1, 107);
            assert_eq!(keeps(|| call!(catcher, callback.address(), 107)), Ok(caught), "{name}");
            assert_eq!(keeps(|| call!(outer, callback.address(), 7)), Ok(15));
            assert_eq!(frames(&engine, &["f", "outer", "catcher"]), 0);
        }
    }
}
