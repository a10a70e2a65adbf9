//! Panics that pass generated code, of every kind, to wherever they are caught.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use lastout::{CallError, Engine};
use lastout_tests::layers::{KINDS, engines, frames};
use lastout_tests::registers::{call_address, keeps};
use lastout_tests::support::{
    Callback, CallingBack, Drops, OnDrop, calling_back, calls, install, install_counted, unit,
};
use lastout_tests::{builder, call};

/// How a call is left that panics with a number.
pub(crate) fn left<R>(call: impl FnOnce() -> R) -> Result<R, i64> {
    let caught = catch_unwind(AssertUnwindSafe(|| keeps(call)));
    caught.map_err(|panic| match panic.downcast::<i64>() {
        Ok(number) => *number,
        Err(other) => resume_unwind(other),
    })
}

/// Panics without a message, as thousands of these would be.
pub(crate) fn raise(number: i64) -> ! {
    resume_unwind(Box::new(number))
}

/// A tower of layers of all kinds, the first above `call_back`, and the handles to them.
fn tower(engine: &Engine, live: usize, drops: &Drops) -> Vec<CallingBack> {
    let mut below = "call_back";
    for kind in &KINDS {
        kind.install(engine, kind.name, below, live, drops);
        below = kind.name;
    }
    KINDS.iter().map(|kind| calls(engine, kind.name)).collect()
}

/// The names of all functions of a tower.
fn functions() -> Vec<String> {
    KINDS.iter().flat_map(|kind| [kind.name.to_owned(), format!("{}_inner", kind.name)]).collect()
}

fn nobody_is_inside(engine: &Engine) {
    let names = functions();
    assert_eq!(frames(engine, &names.iter().map(String::as_str).collect::<Vec<_>>()), 0);
}

#[test]
fn a_panic_passes_frames_of_every_kind() {
    let callback = Callback::new(|argument| if argument == 7 { raise(70) } else { argument });
    for (name, engine) in engines(|| builder!()) {
        for live in [0, 8] {
            let tower = tower(&engine, live, &Drops::new());
            for (height, top) in (1..).zip(&tower) {
                let called = |argument| left(|| call!(top, callback.address(), argument).unwrap());
                assert_eq!(called(5), Ok(5 + height), "{name}, {live} live");
                assert_eq!(called(7), Err(70), "{name}, {live} live, {height} layers");
                nobody_is_inside(&engine);
                assert_eq!(called(6), Ok(6 + height));
            }
        }
    }
}

#[test]
fn a_panic_passes_the_stable_entries_of_every_kind() {
    let callback = Callback::new(|argument| if argument == 7 { raise(70) } else { argument });
    for (name, engine) in engines(|| builder!()) {
        let tower = tower(&engine, 8, &Drops::new());
        for (height, top) in (1..).zip(&tower) {
            let address = top.c_address().unwrap().expose_provenance();
            let called = |argument| {
                // SAFETY: that is the entry's type, and the handle keeps it.
                left(|| unsafe { call_address(address, callback.address(), argument) })
            };
            assert_eq!(called(5), Ok(5 + height), "{name}");
            assert_eq!(called(7), Err(70), "{name}, {height} layers");
            nobody_is_inside(&engine);
        }
    }
}

#[test]
fn what_was_replaced_meanwhile_is_freed_by_the_panic_frame_by_frame() {
    for (name, engine) in engines(|| builder!()) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let this_thread = thread::current().id();
        let attach = |unit: &mut lastout::Unit, name: String| {
            let log = Arc::clone(&log);
            let dropped = OnDrop(move || {
                assert_eq!(thread::current().id(), this_thread);
                log.lock().unwrap().push(name.clone());
            });
            unit.attach(dropped);
        };
        let build = || {
            let mut below = "call_back";
            for kind in &KINDS {
                let texts = [kind.inner(kind.name, below, 8), kind.outer(kind.name, 8)];
                for (text, part) in texts.iter().zip(["_inner", ""]) {
                    let mut unit = unit(&engine, text);
                    attach(&mut unit, format!("{}{part}", kind.name));
                    engine.install(unit).unwrap();
                }
                below = kind.name;
            }
        };
        build();
        let top = calls(&engine, KINDS[KINDS.len() - 1].name);
        let callback = Callback::new(|_| {
            build();
            assert!(log.lock().unwrap().is_empty(), "somebody is inside of all that is replaced");
            raise(8)
        });
        assert_eq!(left(|| call!(top, callback.address(), 1)), Err(8), "{name}");
        // Innermost first, as they were left.
        let dropped = std::mem::take(&mut *log.lock().unwrap());
        let expected: Vec<_> = KINDS
            .iter()
            .flat_map(|kind| [format!("{}_inner", kind.name), kind.name.into()])
            .collect();
        assert_eq!(dropped, expected, "{name}");
        nobody_is_inside(&engine);
        assert_eq!(engine.stats().alive(), 2 * KINDS.len() as u64);
        drop((top, callback));
        drop(engine);
        assert_eq!(log.lock().unwrap().len(), expected.len());
    }
}

#[test]
fn where_an_inner_call_is_caught_the_outer_ones_go_on() {
    for (name, engine) in engines(|| builder!()) {
        let tower = tower(&engine, 8, &Drops::new());
        // Each callback calls the next layer, down to the last one, which panics. It is caught at
        // one of the levels; those inside of that are left, those outside go on.
        let deep = tower.len() as i64;
        for caught_at in 0..deep {
            let left_levels = Cell::new(0);
            let counted = AssertUnwindSafe(&left_levels);
            fn level(
                tower: &[CallingBack],
                number: i64,
                caught_at: i64,
                left_levels: &Cell<i64>,
            ) -> i64 {
                if number == tower.len() as i64 {
                    raise(number);
                }
                let _counted = OnDrop(|| {
                    left_levels.set(left_levels.get() + i64::from(thread::panicking()));
                });
                let next = Level { tower, number: number + 1, caught_at, left_levels };
                let callback = Callback::new(|argument| {
                    let Level { tower, number, caught_at, left_levels } = *next.get();
                    argument + level(tower, number, caught_at, left_levels)
                });
                let called = || call!(tower[number as usize], callback.address(), 1).unwrap();
                if number == caught_at {
                    match left(called) {
                        Err(thrown) => thrown * 1000,
                        Ok(result) => panic!("nothing was thrown: {result}"),
                    }
                } else {
                    called()
                }
            }
            let result = level(&tower, 0, caught_at, &counted);
            // Each level that goes on adds its layers, and its argument.
            let above: i64 = (0..caught_at).map(|number| number + 2).sum();
            assert_eq!(result, deep * 1000 + above, "{name}, caught at {caught_at}");
            assert_eq!(left_levels.get(), deep - 1 - caught_at);
            nobody_is_inside(&engine);
        }
    }
}

/// What a callback needs that calls another level.
struct Level<'a> {
    tower: &'a [CallingBack],
    number: i64,
    caught_at: i64,
    left_levels: &'a Cell<i64>,
}

// SAFETY: all of it is used by one thread.
unsafe impl Sync for Level<'_> {}

impl Level<'_> {
    /// As a whole: a closure that takes its fields apart would not be `Sync`.
    fn get(&self) -> &Self {
        self
    }
}

#[test]
fn a_destructor_that_panicking_runs_may_call_and_catch() {
    for (name, engine) in engines(|| builder!()) {
        let tower = tower(&engine, 8, &Drops::new());
        let top = tower.last().unwrap();
        let raising = Callback::new(|argument| raise(argument));
        let passing = Callback::new(|argument| argument);
        let results = Mutex::new(Vec::new());
        let callback = Callback::new(|argument| {
            let _destructor = OnDrop(|| {
                let inner = left(|| call!(top, raising.address(), 31).unwrap());
                let after = left(|| call!(top, passing.address(), 32).unwrap());
                results.lock().unwrap().push((thread::panicking(), inner, after));
            });
            call!(tower[3], raising.address(), argument).unwrap()
        });
        let height = tower.len() as i64;
        assert_eq!(left(|| call!(top, callback.address(), 30)), Err(30), "{name}");
        let result = results.lock().unwrap().pop();
        assert_eq!(result, Some((true, Err(31), Ok(32 + height))));
        nobody_is_inside(&engine);
    }
}

#[test]
fn what_is_dropped_by_a_panic_may_panic_too() {
    for (name, engine) in engines(|| builder!()) {
        for kind in &KINDS {
            let drops = Drops::new();
            kind.install(&engine, "layer", "call_back", 8, &drops);
            let mut unit = unit(&engine, &kind.inner("layer", "call_back", 8));
            unit.attach(drops.value());
            unit.attach(OnDrop(|| raise(4)));
            unit.attach(drops.value());
            engine.install(unit).unwrap();
            assert_eq!(drops.count(), 1);
            let layer = calls(&engine, "layer");
            let callback = Callback::new(|_| {
                kind.install(&engine, "layer", "call_back", 8, &drops);
                raise(3)
            });
            let result = left(|| call!(layer, callback.address(), 1));
            assert_eq!(result, Err(3), "{name}, {}", kind.name);
            assert_eq!(drops.count(), 4);
            assert_eq!(frames(&engine, &["layer", "layer_inner"]), 0);
            engine.remove("layer").unwrap();
            engine.remove("layer_inner").unwrap();
            assert_eq!(drops.count(), 6);
        }
    }
}

#[test]
fn ten_thousand_frames_are_left_at_once() {
    const DEEP: i64 = 10_000;

    let recursive = |name: &str, convention: &str, callee: &str| {
        format!(
            "function %{name}(i64, i64, i64) -> i64 {convention} {{
                fn0 = %{name}(i64, i64, i64) -> i64 {convention}
                fn1 = %{callee}(i64, i64) -> i64 system_v
             block0(v0: i64, v1: i64, v2: i64):
                brif v2, block1, block2
             block1:
                v3 = iconst.i64 -1
                v4 = iadd v2, v3
                v5 = call fn0(v0, v1, v4)
                v6 = iadd v5, v1
                return v6
             block2:
                v7 = call fn1(v0, v1)
                return v7
             }}"
        )
    };
    for (name, engine) in engines(|| builder!()) {
        for convention in ["system_v", "tail"] {
            let drops = Drops::new();
            install_counted(&engine, &recursive("deep", convention, "call_back"), &drops);
            let deep = engine.function::<fn(usize, i64, i64) -> i64>("deep").unwrap();
            let callback = Callback::new(|argument| {
                assert_eq!(frames(&engine, &["deep"]), DEEP as u64 + 1);
                if argument == 1 {
                    return 0;
                }
                install(&engine, &recursive("deep", convention, "call_back"));
                assert_eq!(drops.count(), 0);
                raise(argument)
            });
            assert_eq!(left(|| call!(deep, callback.address(), 1, DEEP).unwrap()), Ok(DEEP));
            assert_eq!(left(|| call!(deep, callback.address(), 2, DEEP)), Err(2), "{name}");
            assert_eq!((drops.count(), frames(&engine, &["deep"])), (1, 0));
            drop(deep);
            engine.remove("deep").unwrap();
        }
    }
}

#[test]
fn a_panic_leaves_nothing_behind_of_a_call_that_has_met_a_removed_function() {
    // First `gone`, then the callback.
    const MEETING: &str = "function %meeting(i64, i64) -> i64 system_v {
        fn0 = %gone() -> i64 system_v
        fn1 = %call_back(i64, i64) -> i64 system_v
     block0(v0: i64, v1: i64):
        v2 = call fn0()
        v3 = call fn1(v0, v1)
        v4 = iadd v2, v3
        return v4
     }";

    for (name, engine) in engines(|| builder!()) {
        install(
            &engine,
            "function %gone() -> i64 system_v {\nblock0:\nv0 = iconst.i64 9\nreturn v0\n}",
        );
        install(&engine, MEETING);
        install(&engine, &calling_back("outer", 100));
        let [meeting, outer] = ["meeting", "outer"].map(|name| calls(&engine, name));
        engine.remove("gone").unwrap();
        let raising = Callback::new(|argument| raise(argument));
        let passing = Callback::new(|argument| argument);
        for _ in 0..3 {
            assert_eq!(left(|| call!(meeting, raising.address(), 5)), Err(5), "{name}");
            // It was not this call that met it.
            assert_eq!(left(|| call!(outer, passing.address(), 6)), Ok(Ok(106)), "{name}");
            let error = call!(meeting, passing.address(), 7).unwrap_err();
            assert!(matches!(error, CallError::Removed(name) if &*name == "gone"));
        }
        // The inner call is left by a panic, and the outer one has met nothing.
        let inner = Callback::new(|_| {
            assert_eq!(left(|| call!(meeting, raising.address(), 5)), Err(5));
            50
        });
        assert_eq!(call!(outer, inner.address(), 1), Ok(150), "{name}");
        // The outer call has met one, and so has the inner one, which is left by a panic.
        let error = call!(meeting, inner.address(), 1).unwrap_err();
        assert!(matches!(error, CallError::Removed(name) if &*name == "gone"));
        // An inner call that meets nothing is left by a panic, and the outer one has met one.
        let inner = Callback::new(|_| {
            assert_eq!(left(|| call!(outer, raising.address(), 5)), Err(5));
            50
        });
        let error = call!(meeting, inner.address(), 1).unwrap_err();
        assert!(matches!(error, CallError::Removed(name) if &*name == "gone"), "{name}");
        assert_eq!(call!(outer, passing.address(), 1), Ok(101), "{name}");
        assert_eq!(frames(&engine, &["meeting", "outer"]), 0);
    }
}
