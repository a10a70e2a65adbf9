//! What an exception leaves on its way: frames that are counted out, versions that it was the last
//! in, values of the functions in Rust that it begins in.

use std::thread;

use lastout::throw;
use lastout_tests::child::child;
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::measure::leaves_nothing;
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, Drops, calling_back, calls, install, install_counted};
use lastout_tests::{builder, call, engine};

use super::{Catching, caught, pass_or_throw, throwing};

#[test]
fn what_was_replaced_meanwhile_is_freed_by_the_exception() {
    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        let catchers = Drops::new();
        let build = || {
            let mut below = "call_back";
            for kind in &KINDS {
                kind.install(&engine, kind.name, below, 8, &drops);
                below = kind.name;
            }
            let catching = Catching { callee: below, ..Catching::default() };
            install_counted(&engine, &catching.function("catcher"), &catchers);
            install_counted(
                &engine,
                &catching.function("outer").replace(below, "catcher"),
                &catchers,
            );
        };
        build();
        let outer = calls(&engine, "outer");
        let callback = Callback::new(|number| {
            build();
            assert_eq!((drops.count(), catchers.count()), (0, 0));
            pass_or_throw(number)
        });
        // The handler's function goes on, in a version that is not current any more.
        assert_eq!(keeps(|| call!(outer, callback.address(), 107)), Ok(caught(1, 107)), "{name}");
        assert_eq!((drops.count(), catchers.count()), (2 * KINDS.len(), 2), "{name}");
        let functions: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(frames(&engine, &functions) + frames(&engine, &["catcher", "outer"]), 0);
        drop((outer, callback));
        drop(engine);
        assert_eq!((drops.count(), catchers.count()), (4 * KINDS.len(), 4));
    }
}

#[test]
fn a_handler_runs_in_its_version_until_it_returns() {
    // It calls back once more after it has caught.
    const AGAIN: &str = "function %catcher(i64, i64) -> i64 system_v {
        sig0 = (i64, i64) -> i64 system_v
        fn0 = %f(i64, i64) -> i64 system_v
        fn1 = %call_back(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        try_call fn0(v0, v1), sig0, block1(ret0), [ tag1: block2 ]
     block1(v2: i64):
        return v2
     block2:
        v3 = iconst.i64 1
        v4 = call fn1(v0, v3)
        v5 = iadd v4, v1
        return v5
     }";

    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        install(&engine, &calling_back("f", 1));
        install_counted(&engine, AGAIN, &drops);
        let callback = Callback::new(|number| {
            if number >= 100 {
                install(&engine, &AGAIN.replace("%catcher", "%other"));
                install(&engine, AGAIN);
                return pass_or_throw(number);
            }
            let versions = engine.versions("catcher").unwrap();
            let inside: Vec<_> = versions.iter().map(|version| version.frames()).collect();
            assert_eq!((drops.count(), inside), (0, vec![1, 0]));
            number
        });
        let catcher = calls(&engine, "catcher");
        assert_eq!(keeps(|| call!(catcher, callback.address(), 107)), Ok(108), "{name}");
        assert_eq!((drops.count(), frames(&engine, &["catcher", "f"])), (1, 0), "{name}");
    }
}

#[test]
fn the_functions_that_throw_drop_what_they_have_once() {
    for (name, engine) in engines(|| builder!()) {
        install(&engine, &Catching::default().function("f"));
        let f = calls(&engine, "f");
        let drops = Drops::new();
        let callback = Callback::new(|number| {
            let _outer = drops.value();
            let throws = || {
                let _inner = drops.value();
                // SAFETY: these two are all there is to drop.
                let _ = unsafe { throw(1, [number as u64, 5]) };
            };
            throws();
            unreachable!("somebody catches it")
        });
        for round in 1..=3 {
            assert_eq!(keeps(|| call!(f, callback.address(), 107)), Ok(caught(1, 107)), "{name}");
            assert_eq!(drops.count(), 2 * round);
        }
    }
}

#[test]
fn a_hundred_thousand_exceptions_leave_nothing() {
    let engine = engine!();
    install(
        &engine,
        &Catching { callee: "layer", ..Catching::default() }
            .function("catcher")
            .replace("%layer", "%call_back"),
    );
    install(&engine, &calling_back("f", 1));
    let (catcher, f) = (calls(&engine, "catcher"), calls(&engine, "f"));
    let callback = throwing();
    let round = |number: i64| {
        let number = 100 + number % 100;
        assert_eq!(call!(catcher, callback.address(), number), Ok(caught(1, number)));
        assert!(call!(f, callback.address(), number).is_err());
    };
    let ended = child("exceptions", || leaves_nothing(50_000, round));
    if let Some(ended) = ended {
        assert!(ended.well(), "{}", ended.errors);
    }
}

#[test]
fn threads_throw_out_of_what_others_replace() {
    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        let kinds = ["plain", "structs", "windows", "tail_stack"];
        let kinds = kinds.map(|name| KINDS.into_iter().find(|kind| kind.name == name).unwrap());
        let mut below = "call_back";
        for kind in &kinds {
            kind.install(&engine, kind.name, below, 8, &drops);
            below = kind.name;
        }
        install(&engine, &Catching { callee: below, ..Catching::default() }.function("catcher"));
        let callback = throwing();
        let over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let catcher = calls(&engine, "catcher");
                    for number in (100..200).cycle() {
                        let result = keeps(|| call!(catcher, callback.address(), number));
                        assert_eq!(result, Ok(caught(1, number)));
                        assert_eq!(call!(catcher, callback.address(), 1), Ok(5));
                        if over.load(std::sync::atomic::Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            for round in 0..100 {
                let kind = &kinds[round % kinds.len()];
                let below = match round % kinds.len() {
                    0 => "call_back",
                    index => kinds[index - 1].name,
                };
                kind.install(&engine, kind.name, below, 8 * (round % 2), &drops);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(drops.count(), 200, "{name}");
        let functions: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        assert_eq!(frames(&engine, &functions), 0);
    }
}
