//! Engines that find out when a suspended call goes on in the wrong place. There the process ends,
//! so each such test runs its own program once more.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use lastout::{Engine, Fiber, Handle};
use lastout_tests::support::{
    COUNTINGS, Callback, caller, calling_back, constant, install, step, steps,
};
use lastout_tests::{builder, call};

/// Set in the process that is to end.
const HERE: &str = "LASTOUT_TEST_CHECKED";

/// Runs the test of this name in a process of its own, which is to end with a message; or, in that
/// process, `program`.
fn is_detected(test: &str, program: impl FnOnce()) {
    if std::env::var_os(HERE).is_some() {
        return program();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(HERE, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(
        said.contains("lastout: a call goes on where") && said.contains("lastout::Fiber"),
        "{said}"
    );
}

type Calls = Handle<fn(usize, i64) -> i64>;

/// A function that calls back, in a checked engine.
fn checked() -> (Engine, Calls) {
    let engine = builder!().checked(true).build().unwrap();
    install(&engine, &calling_back("f", 10));
    let f = engine.function("f").unwrap();
    (engine, f)
}

/// A coroutine that is inside of a function.
struct Suspended(Coroutine<(), (), i64>);

// SAFETY: what it has on its stack can be sent, but for what these tests are about.
unsafe impl Send for Suspended {}

impl Suspended {
    /// A coroutine that calls `f` and is suspended there.
    fn inside(f: &Handle<fn(usize, i64) -> i64>) -> Self {
        thread_local! {
            static YIELDER: Cell<*const Yielder<(), ()>> = const { Cell::new(std::ptr::null()) };
        }

        let f = f.clone();
        let mut coroutine = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
            YIELDER.set(yielder);
            let suspending = Callback::new(|x| {
                // SAFETY: this thread has set it to that of the coroutine that calls this.
                unsafe { &*YIELDER.get() }.suspend(());
                x
            });
            call!(f, suspending.address(), 1).unwrap()
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Yield(())));
        Self(coroutine)
    }

    fn resume(mut self) -> i64 {
        match self.0.resume(()) {
            CoroutineResult::Return(result) => result,
            CoroutineResult::Yield(()) => panic!("it is suspended once"),
        }
    }
}

#[test]
fn resumed_on_a_thread_that_calls_too() {
    is_detected("resumed_on_a_thread_that_calls_too", || {
        let (_engine, f) = checked();
        let suspended = Suspended::inside(&f);
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
    is_detected("resumed_on_a_thread_that_has_never_called", || {
        let (_engine, f) = checked();
        let suspended = Suspended::inside(&f);
        thread::spawn(|| suspended.resume()).join().unwrap();
    });
}

#[test]
fn resumed_by_another_fiber() {
    is_detected("resumed_by_another_fiber", || {
        let (_engine, f) = checked();
        let [mut one, mut two] = [Fiber::new().unwrap(), Fiber::new().unwrap()];
        let suspended = one.run(|| Suspended::inside(&f));
        two.run(|| suspended.resume());
    });
}

#[test]
fn resumed_by_no_fiber() {
    is_detected("resumed_by_no_fiber", || {
        let (_engine, f) = checked();
        let suspended = Fiber::new().unwrap().run(|| Suspended::inside(&f));
        suspended.resume();
    });
}

#[test]
fn resumed_by_a_fiber_that_it_has_not_begun_in() {
    is_detected("resumed_by_a_fiber_that_it_has_not_begun_in", || {
        let (_engine, f) = checked();
        let suspended = Suspended::inside(&f);
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
        let suspended = Suspended::inside(&f);
        let mut fiber = Fiber::new().unwrap();
        let in_fiber = fiber.run(|| Suspended::inside(&f));
        others();
        install(&engine, &calling_back("f", 20));
        thread::scope(|scope| {
            scope.spawn(|| {
                others();
                assert_eq!(fiber.run(|| in_fiber.resume()), 11);
                others();
            });
        });
        assert_eq!(suspended.resume(), 11);
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
