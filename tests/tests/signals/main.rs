//! Functions that are called by a signal handler, wherever the thread is: it is made to execute one
//! instruction after the other, with a signal after each.
//!
//! Tests take turns, since a machine that has other things to do takes long for signals.

#![cfg(target_arch = "x86_64")]

mod held;
mod leaving;
mod replaced;
mod stepping;

use std::cell::RefCell;

use lastout::{CallError, Engine, Fiber};
use lastout_tests::support::{COUNTINGS, Nullary, caller, constant, handle, install, turn};
use lastout_tests::{builder, call};

use stepping::{Wrong, stepping};

/// The stable entry of a function.
fn entry(handle: &Nullary) -> extern "C" fn() -> i64 {
    // SAFETY: it is a function of this type; tests keep the handle for as long as they call it.
    unsafe { std::mem::transmute(handle.c_address().unwrap()) }
}

fn removed(result: Result<i64, CallError>, name: &str) -> bool {
    matches!(result, Err(CallError::Removed(removed)) if &*removed == name)
}

/// Makes a call, interrupted after each instruction by calls of all kinds.
fn interrupted<R>(
    engine: &Engine,
    what: &str,
    expected: impl Fn(R) -> bool,
    call: impl FnOnce() -> R,
) {
    let (three, fails) = (handle(engine, "three"), handle(engine, "fails"));
    let stable = entry(&three);
    let wrong = Wrong::default();
    let at = |step: usize| match step % 3 {
        0 => wrong.unless(call!(three) == Ok(3)),
        1 => wrong.unless(removed(call!(fails), "gone")),
        _ => wrong.unless(stable() == 3),
    };
    let (steps, result) = stepping(&at, call);
    assert!(expected(result), "{what}");
    assert!(steps > 50, "{what}: {steps} steps");
    assert_eq!(wrong.count(), 0, "{what}, of {steps}");
    for name in ["one", "two", "three", "fails"] {
        assert_eq!(engine.versions(name).unwrap()[0].frames(), 0, "{what}");
    }
    assert_eq!(call!(three), Ok(3), "{what}");
}

#[test]
fn a_call_can_be_interrupted_at_each_instruction() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        install(&engine, &(constant("one", 1) + &constant("gone", 4)));
        install(&engine, &caller("two", "one", 1));
        install(&engine, &(caller("three", "two", 1) + &caller("fails", "gone", 0)));
        engine.declare("other", handle(&engine, "one").signature()).unwrap();
        install(&engine, &caller("fails_otherwise", "other", 0));
        engine.remove("gone").unwrap();
        let [one, two, three, fails] =
            ["one", "two", "three", "fails_otherwise"].map(|name| handle(&engine, name));
        let stable = entry(&two);
        // Registering is not for handlers.
        assert_eq!(call!(one), Ok(1));
        let mut fiber = Fiber::new().unwrap();
        let in_fiber = RefCell::new(|| fiber.run(|| call!(two)));

        interrupted(&engine, "entry", |result| result == Ok(1), || call!(one));
        interrupted(&engine, "gates", |result| result == Ok(3), || call!(three));
        interrupted(&engine, "stable entry", |result| result == 2, || stable());
        let fails_otherwise = |result| removed(result, "other");
        interrupted(&engine, "failing", fails_otherwise, || call!(fails));
        interrupted(&engine, "fiber", |result| result == Ok(2), || in_fiber.borrow_mut()());
        for name in ["one", "two", "three", "fails", "fails_otherwise"] {
            engine.remove(name).unwrap();
        }
        assert_eq!(engine.stats().alive(), 0);
    }
}
