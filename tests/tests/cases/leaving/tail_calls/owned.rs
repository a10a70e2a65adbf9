//! Functions that go while they run: what tail-called them was all that kept them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lastout::cranelift_codegen::Context;
use lastout::cranelift_module::{Linkage, Module};
use lastout::{CallError, Engine};
use lastout_tests::layers::{engines, frames};
use lastout_tests::registers::keeps;
use lastout_tests::support::{Callback, CallingBack, Drops, OnDrop, unit, wait_until};
use lastout_tests::{builder, call};

/// A function without a name that calls back and adds a number, of which there is nothing but the
/// handle.
fn nameless(engine: &Engine, plus: i64, drops: &Drops) -> CallingBack {
    let text = format!(
        "function %nameless(i64, i64) -> i64 tail {{
            fn0 = u0:1(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            v3 = iconst.i64 {plus}
            v4 = iadd v2, v3
            return v4
         }}"
    );
    let mut function = cranelift_reader::parse_functions(&text).unwrap().remove(0);
    let mut unit = engine.unit();
    let id = unit.declare_anonymous_function(&function.signature).unwrap();
    let signature = function.dfg.signatures.values().next().unwrap().clone();
    unit.declare_function("call_back", Linkage::Import, &signature).unwrap();
    function.name = Default::default();
    unit.define_function(id, &mut Context::for_function(function)).unwrap();
    unit.expose(id);
    unit.attach(drops.value());
    engine.install(unit).unwrap().function(id).unwrap()
}

/// Installs `f`, which tail-calls a function by its address, and keeps it.
fn tail_calling(engine: &Engine, callee: CallingBack, drops: &Drops) {
    let address = callee.c_address().unwrap().expose_provenance();
    let text = format!(
        "function %f(i64, i64) -> i64 tail {{
            sig0 = (i64, i64) -> i64 tail
         block0(v0: i64, v1: i64):
            v2 = iconst.i64 {address}
            return_call_indirect sig0, v2(v0, v1)
         }}"
    );
    let mut unit = unit(engine, &text);
    let value = drops.value();
    unit.attach(Mutex::new(Some((callee, value))));
    engine.install(unit).unwrap();
}

#[test]
fn a_function_that_only_its_caller_has_kept_runs_to_its_end() {
    for (name, engine) in engines(|| builder!()) {
        let drops = Drops::new();
        let callers = Drops::new();
        for round in 0..50 {
            tail_calling(&engine, nameless(&engine, 100, &drops), &callers);
            let f: CallingBack = engine.function("f").unwrap();
            let callback = Callback::new(|number| {
                // Nobody is inside of the caller any more.
                engine.remove("f").unwrap();
                assert_eq!((callers.count(), drops.count()), (round + 1, round), "{name}");
                // Others get the lanes of those that are gone.
                let others = Drops::new();
                for number in 0..10 {
                    let other = nameless(&engine, number, &others);
                    let passing = Callback::new(|number| number);
                    assert_eq!(call!(other, passing.address(), 1), Ok(1 + number));
                }
                assert_eq!(others.count(), 10);
                number
            });
            assert_eq!(keeps(|| call!(f, callback.address(), 7)), Ok(107), "{name}");
            assert_eq!(drops.count(), round + 1, "{name}");
            let error = call!(f, callback.address(), 7);
            assert!(matches!(error, Err(CallError::Removed(it)) if &*it == "f"));
        }
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn the_engine_may_go_meanwhile() {
    for (name, engine) in engines(|| builder!()) {
        let (drops, callers) = (Drops::new(), Drops::new());
        tail_calling(&engine, nameless(&engine, 100, &drops), &callers);
        let f: CallingBack = engine.function("f").unwrap();
        let engine = Mutex::new(Some(engine));
        let callback = Callback::new(|number| {
            drop(engine.lock().unwrap().take());
            assert_eq!((callers.count(), drops.count()), (1, 0));
            number
        });
        assert_eq!(keeps(|| call!(f, callback.address(), 7)), Ok(107), "{name}");
        assert_eq!(drops.count(), 1, "{name}");
        assert!(call!(f, callback.address(), 7).is_err());
    }
}

#[test]
fn it_may_be_left_by_a_panic_a_trap_or_an_exception() {
    for (name, engine) in engines(|| builder!()) {
        let (drops, callers) = (Drops::new(), Drops::new());
        for round in 0..3 {
            tail_calling(&engine, nameless(&engine, 100, &drops), &callers);
            let f: CallingBack = engine.function("f").unwrap();
            let callback = Callback::new(|number| {
                engine.remove("f").unwrap();
                assert_eq!((callers.count(), drops.count()), (round + 1, round));
                if number == 1 {
                    std::panic::resume_unwind(Box::new(number));
                }
                // SAFETY: there is nothing to drop.
                let uncaught = unsafe { lastout::throw(1, [number as u64, 0]) };
                panic!("{uncaught}");
            });
            let call = || keeps(|| call!(f, callback.address(), round as i64));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
            match result {
                Err(panic) => assert_eq!((round, panic.downcast_ref()), (1, Some(&1_i64))),
                Ok(result) => assert!(matches!(result, Err(CallError::Exception(_))), "{name}"),
            }
            assert_eq!(drops.count(), round + 1, "{name}");
        }
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn thousands_come_and_go_with_threads_in_them() {
    const ROUNDS: usize = 300;

    extern "C" fn change_places() {
        thread::yield_now();
    }

    let plain = engines(|| builder!());
    let yielding = builder!().interleave(change_places).build().unwrap();
    for (name, engine) in plain.chain([("places are changed".to_owned(), yielding)]) {
        let (drops, callers) = (Drops::new(), Drops::new());
        let (over, calls) = (AtomicBool::new(false), AtomicU64::new(0));
        tail_calling(&engine, nameless(&engine, 1, &drops), &callers);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let f: CallingBack = engine.function("f").unwrap();
                    let callback = Callback::new(|number| {
                        if number % 8 == 0 {
                            thread::yield_now();
                        }
                        number
                    });
                    for number in 0.. {
                        assert_eq!(call!(f, callback.address(), number), Ok(number + 1));
                        calls.fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            for _ in 0..ROUNDS {
                tail_calling(&engine, nameless(&engine, 1, &drops), &callers);
            }
            wait_until(|| calls.load(Ordering::Relaxed) >= 100);
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!((drops.count(), callers.count()), (ROUNDS, ROUNDS), "{name}");
        assert_eq!(frames(&engine, &["f"]), 0);
        drop(engine);
        assert_eq!((drops.count(), callers.count()), (ROUNDS + 1, ROUNDS + 1), "{name}");
    }
}

#[test]
fn what_goes_with_it_is_dropped_by_who_leaves_last() {
    for (name, engine) in engines(|| builder!()) {
        let dropped_by = Arc::new(Mutex::new(None));
        let drops = Drops::new();
        let text = "function %g(i64, i64) -> i64 tail {
            fn0 = %call_back(i64, i64) -> i64 system_v
         block0(v0: i64, v1: i64):
            v2 = call fn0(v0, v1)
            return v2
         }";
        let mut g = unit(&engine, text);
        let noted = Arc::clone(&dropped_by);
        g.attach(OnDrop(move || *noted.lock().unwrap() = Some(thread::current().id())));
        engine.install(g).unwrap();
        let keeping: CallingBack = engine.function("g").unwrap();
        tail_calling(&engine, keeping, &drops);
        let f: CallingBack = engine.function("f").unwrap();
        let callback = Callback::new(|number| {
            // Here on another thread: first the name goes, then the version that has the handle.
            thread::scope(|scope| {
                let removing = scope.spawn(|| {
                    engine.remove("g").unwrap();
                    engine.remove("f").unwrap();
                });
                removing.join().unwrap();
            });
            assert_eq!((drops.count(), *dropped_by.lock().unwrap()), (1, None));
            number
        });
        assert_eq!(keeps(|| call!(f, callback.address(), 7)), Ok(7), "{name}");
        assert_eq!(*dropped_by.lock().unwrap(), Some(thread::current().id()), "{name}");
    }
}
