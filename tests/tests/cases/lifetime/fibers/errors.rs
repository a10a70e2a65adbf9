//! A call that fails on one thread and ends on another.

use std::thread;

use lastout::{CallError, Engine, Handle};
use lastout_tests::coroutine::Task;
use lastout_tests::support::{Callback, constant, install};
use lastout_tests::{call, engine};

/// A function that calls `first`, then calls back, then calls `second`.
fn meets_first_calls_back_meets_second(engine: &Engine) -> Handle<fn(usize) -> i64> {
    install(
        engine,
        "function %outer(i64) -> i64 system_v {
            fn0 = %first() -> i64 system_v
            fn1 = %call_back(i64, i64) -> i64 system_v
            fn2 = %second() -> i64 system_v
         block0(v0: i64):
            v1 = call fn0()
            v2 = call fn1(v0, v1)
            v3 = call fn2()
            v4 = iadd v2, v3
            return v4
         }",
    );
    engine.function("outer").unwrap()
}

fn removed(name: &str) -> Result<i64, CallError> {
    Err(CallError::Removed(name.into()))
}

#[test]
fn it_is_told_where_it_ends_and_nowhere_else() {
    let engine = engine!();
    install(&engine, &(constant("first", 1) + &constant("second", 2) + &constant("there", 3)));
    let outer = meets_first_calls_back_meets_second(&engine);
    let [first, second, there] =
        ["first", "second", "there"].map(|name| engine.function::<fn() -> i64>(name).unwrap());
    engine.remove("first").unwrap();
    engine.remove("second").unwrap();
    let others = || {
        for _ in 0..2 {
            assert_eq!(call!(there), Ok(3));
            assert_eq!(call!(second), removed("second"));
        }
    };
    others();
    let mut task = {
        let (outer, second, there) = (outer.clone(), second.clone(), there.clone());
        Task::new(move |pause| {
            let inner = Callback::new(|x| {
                assert_eq!(call!(there), Ok(3));
                pause.pause();
                assert_eq!(call!(there), Ok(3));
                assert_eq!(call!(second), removed("second"));
                pause.pause();
                assert_eq!(call!(there), Ok(3));
                x
            });
            let result = call!(outer, inner.address());
            // Nothing is left of it.
            assert_eq!(call!(there), Ok(3));
            result
        })
    };
    assert_eq!(task.resume(), None);
    others();
    let task = thread::scope(|scope| {
        let resuming = scope.spawn(|| {
            others();
            assert_eq!(task.resume(), None);
            others();
            task
        });
        resuming.join().unwrap()
    });
    others();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut task = task;
            assert_eq!(task.resume(), Some(removed("first")));
            others();
        });
    });
    others();
    drop(first);
}

#[test]
fn an_inner_call_that_is_suspended_has_an_error_of_its_own() {
    let engine = engine!();
    install(&engine, &(constant("first", 1) + &constant("second", 2)));
    let outer = meets_first_calls_back_meets_second(&engine);
    engine.remove("first").unwrap();
    let there = engine.function::<fn() -> i64>("second").unwrap();
    let mut task = {
        let outer = outer.clone();
        Task::new(move |pause| {
            let innermost = pause.callback();
            let inner = Callback::new(|x| {
                // Fails before it is suspended, inside of one that has failed before.
                assert_eq!(call!(outer, innermost.address()), removed("first"));
                x
            });
            call!(outer, inner.address())
        })
    };
    assert_eq!(task.resume(), None);
    assert_eq!(call!(there), Ok(2));
    let other = thread::spawn(move || (call!(there), task.resume(), call!(there)));
    assert_eq!(other.join().unwrap(), (Ok(2), Some(removed("first")), Ok(2)));
}
