//! Engines that find out when a suspended call goes on in the wrong place. There the process ends,
//! so each such test runs its own program once more.

use std::thread;

use lastout::{Engine, Fiber};
use lastout_tests::child::child;
use lastout_tests::coroutine::Routine;
use lastout_tests::support::{
    COUNTINGS, Callback, CallingBack, caller, calling_back, constant, install, step, steps,
};
use lastout_tests::{builder, call};

/// Runs a program in a process of its own, which is to end with a message.
fn is_detected(program: impl FnOnce()) {
    let Some(ended) = child("checked", program) else { return };
    let said = &ended.errors;
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{said}");
    assert!(
        said.contains("lastout: a call goes on where") && said.contains("lastout::Fiber"),
        "{said}"
    );
}

/// A function that calls back, in a checked engine.
fn checked() -> (Engine, CallingBack) {
    let engine = builder!().checked(true).build().unwrap();
    install(&engine, &calling_back("f", 10));
    let f = engine.function("f").unwrap();
    (engine, f)
}

/// A coroutine that calls `f` and is suspended there.
fn suspended_inside(f: &CallingBack) -> Routine<i64> {
    let f = f.clone();
    let mut routine = Routine::new(move |pause| call!(f, pause.callback().address(), 1).unwrap());
    assert_eq!(routine.resume(), None);
    routine
}

#[test]
fn resumed_on_a_thread_that_calls_too() {
    is_detected(|| {
        let (_engine, f) = checked();
        let mut suspended = suspended_inside(&f);
        thread::scope(|scope| {
            scope.spawn(|| {
                let double = Callback::new(|x| 2 * x);
                assert_eq!(call!(f, double.address(), 1).unwrap(), 12);
                suspended.resume()
            });
        });
    });
}

#[test]
fn resumed_on_a_thread_that_has_never_called() {
    is_detected(|| {
        let (_engine, f) = checked();
        let mut suspended = suspended_inside(&f);
        thread::spawn(move || suspended.resume()).join().unwrap();
    });
}

#[test]
fn resumed_by_another_fiber() {
    is_detected(|| {
        let (_engine, f) = checked();
        let [mut one, mut two] = [Fiber::new().unwrap(), Fiber::new().unwrap()];
        let mut suspended = one.run(|| suspended_inside(&f));
        two.run(|| suspended.resume());
    });
}

#[test]
fn resumed_by_no_fiber() {
    is_detected(|| {
        let (_engine, f) = checked();
        let mut suspended = Fiber::new().unwrap().run(|| suspended_inside(&f));
        suspended.resume();
    });
}

#[test]
fn resumed_by_a_fiber_that_it_has_not_begun_in() {
    is_detected(|| {
        let (_engine, f) = checked();
        let mut suspended = suspended_inside(&f);
        Fiber::new().unwrap().run(|| suspended.resume());
    });
}

#[test]
fn what_keeps_the_rule_is_left_alone() {
    for counting in COUNTINGS {
        let engine = builder!().checked(true).counting(counting).build().unwrap();
        install(&engine, &(calling_back("f", 10) + &constant("one", 1)));
        install(&engine, &caller("two", "one", 1));
        let f = engine.function("f").unwrap();
        let two = engine.function::<fn() -> i64>("two").unwrap();
        // SAFETY: it is a function of this type, and the handle keeps it.
        let entry: extern "C" fn() -> i64 =
            unsafe { std::mem::transmute(two.c_address().unwrap()) };
        let others = || assert_eq!((call!(two), entry()), (Ok(2), 2));
        // Where it began, with or without a fiber; and with one, elsewhere.
        let mut suspended = suspended_inside(&f);
        let mut fiber = Fiber::new().unwrap();
        let mut in_fiber = fiber.run(|| suspended_inside(&f));
        others();
        install(&engine, &calling_back("f", 20));
        thread::scope(|scope| {
            scope.spawn(|| {
                others();
                assert_eq!(fiber.run(|| in_fiber.resume()), Some(11));
                others();
            });
        });
        assert_eq!(suspended.resume(), Some(11));
        assert_eq!(engine.stats().alive(), 3);
        engine.remove("one").unwrap();
        assert!(call!(two).is_err());
    }
}

#[test]
fn the_hook_between_steps_is_called_too() {
    let counted = |checked| {
        let engine = builder!().checked(checked).interleave(step).build().unwrap();
        install(&engine, &constant("f", 1));
        let f = engine.function::<fn() -> i64>("f").unwrap();
        steps(|| call!(f).unwrap())
    };
    let (steps, result) = counted(true);
    assert!(steps > 0);
    assert_eq!((steps, result), counted(false));
}
