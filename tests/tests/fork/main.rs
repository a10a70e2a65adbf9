//! Engines of which `fork` has made two: each process replaces and frees on its own.
//!
//! Where the two should not be apart, the one that is not writing runs what the other has written:
//! another version's code, or traps, which end it with a signal.
//!
//! Tests take turns, since some count the descriptors of the process.

mod call_sites;
mod closing;
mod fibers;
#[cfg(target_arch = "x86_64")]
mod in_place;
mod inside;
#[cfg(target_arch = "x86_64")]
mod parked;
mod process;
mod storm;
mod vanished;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use lastout::cranelift_module::{DataDescription, Linkage, Module};
use lastout::{CallError, Engine, Unit};
use lastout_tests::support::{
    COUNTINGS, Callback, Drops, caller, calling_back, constant, handle, install, install_counted,
    turn,
};
use lastout_tests::{builder, call, clif, engine};

use process::{Stage, fork, split};

/// Both ways to write code: through a second view, and with the kernel's help.
const STRICT: [bool; 2] = [false, true];

/// A function that adds a number in read-only data to one in writable data, and returns that.
fn counting_by(engine: &Engine, name: &str, step: i64) -> Unit {
    let mut unit = engine.unit();
    for (data, word, writable) in [("sum", 0, true), ("step", step, false)] {
        let data = format!("data.{name}.{data}");
        let id = unit.declare_data(&data, Linkage::Local, writable, false).unwrap();
        let mut description = DataDescription::new();
        description.define(i64::to_ne_bytes(word).into());
        unit.define_data(id, &description).unwrap();
    }
    let text = format!(
        "function %{name}() -> i64 system_v {{
            gv0 = symbol u1:0
            gv1 = symbol u1:1
         block0:
            v0 = symbol_value.i64 gv0
            v1 = symbol_value.i64 gv1
            v2 = load.i64 v0
            v3 = load.i64 v1
            v4 = iadd v2, v3
            store v4, v0
            return v4
         }}"
    );
    clif::define(&mut unit, &text).unwrap();
    unit
}

/// Installs, calls, replaces and removes functions with and without data, and checks that nothing
/// is left of them.
fn exercise(engine: &Engine, rounds: i64) {
    let held = || (engine.stats().alive(), engine.stats().code_bytes, engine.stats().data_bytes);
    let mut before = None;
    for round in 1..=rounds {
        engine.install(counting_by(engine, "own_count", round)).unwrap();
        install(engine, &caller("own_caller", "own_count", 1000));
        let (count, caller) = (handle(engine, "own_count"), handle(engine, "own_caller"));
        assert_eq!((call!(count).unwrap(), call!(caller).unwrap()), (round, 1000 + 2 * round));
        let replaced = install(engine, &constant("own_count", -round));
        assert_eq!((call!(count).unwrap(), call!(caller).unwrap()), (-round, 1000 - round));
        engine.remove("own_count").unwrap();
        assert!(replaced.versions()[0].wait_freed(Duration::ZERO));
        assert!(matches!(call!(count), Err(CallError::Removed(_))));
        engine.remove("own_caller").unwrap();
        drop((count, caller));
        // Entries for types of calls are made in the first round, and kept.
        assert_eq!(*before.get_or_insert_with(held), held());
    }
}

#[test]
fn a_child_replaces_removes_and_frees_and_the_parent_notices_nothing() {
    let _turn = turn();
    for (counting, strict) in COUNTINGS.into_iter().zip(STRICT) {
        let engine = builder!().counting(counting).strict(strict).build().unwrap();
        let drops = Drops::new();
        let first = install_counted(&engine, &constant("f", 1), &drops);
        install(&engine, &caller("g", "f", 10));
        engine.install(counting_by(&engine, "count", 3)).unwrap();
        let [f, g, count] = ["f", "g", "count"].map(|name| handle(&engine, name));
        let is = |number: i64| {
            assert_eq!((call!(f).unwrap(), call!(g).unwrap()), (number, 10 + number));
        };
        is(1);
        assert_eq!(call!(count).unwrap(), 3);

        let stage = Stage::new();
        let child = fork(|| {
            is(1);
            install_counted(&engine, &constant("f", 2), &drops);
            assert!(first.versions()[0].wait_freed(Duration::ZERO));
            assert_eq!(drops.count(), 1);
            is(2);
            assert_eq!(call!(count).unwrap(), 6);
            exercise(&engine, 20);
            stage.reach(1);
            stage.wait_for(2);
            for name in ["f", "g", "count"] {
                engine.remove(name).unwrap();
            }
            assert_eq!(drops.count(), 2);
            let stats = engine.stats();
            assert_eq!((stats.functions, stats.alive(), stats.data_bytes), (0, 0, 0));
            assert!(matches!(call!(f), Err(CallError::Removed(_))));
        });
        stage.wait_for(1);
        is(1);
        stage.reach(2);
        child.join();
        is(1);
        assert_eq!(drops.count(), 0);
        assert_eq!(call!(count).unwrap(), 6);
        install_counted(&engine, &constant("f", 3), &drops);
        is(3);
        assert_eq!(drops.count(), 1);
        exercise(&engine, 5);
    }
}

/// A function with many pages of code and of read-only data.
fn install_large(engine: &Engine) {
    let mut unit = engine.unit();
    let data = unit.declare_data("data.large", Linkage::Local, false, false).unwrap();
    let mut description = DataDescription::new();
    description.define(vec![1; 150_000].into());
    unit.define_data(data, &description).unwrap();
    let steps = (1..=5000).map(|step| {
        let (last, constant, product, sum) = (3 * step - 2, 3 * step - 1, 3 * step, 3 * step + 1);
        format!(
            "v{constant} = iconst.i64 0x{:x}
             v{product} = imul v{last}, v{constant}
             v{sum} = bxor v{last}, v{product}\n",
            i64::MAX - step,
        )
    });
    let steps: String = steps.collect();
    let body = format!("block0(v1: i64):\n{steps} return v15001");
    clif::define(&mut unit, &format!("function %large(i64) -> i64 system_v {{\n{body}\n}}"))
        .unwrap();
    engine.install(unit).unwrap();
}

/// A process frees everything and fills the memory anew, while the other calls what was there at
/// the fork, and is inside of it.
fn one_writes_and_the_other_reads(writer_is_child: bool, quarantine: usize, strict: bool) {
    const FUNCTIONS: i64 = 60;
    let engine = builder!().quarantine(quarantine).strict(strict).build().unwrap();
    let name = |number: i64| format!("f{number}");
    for number in 0..FUNCTIONS {
        if number == FUNCTIONS / 2 {
            install_large(&engine);
        }
        install(&engine, &constant(&name(number), number));
    }
    engine.install(counting_by(&engine, "count", 5)).unwrap();
    install(&engine, &calling_back("around", 100));
    // Pages with nothing in them between those that have something.
    let before = engine.stats().committed_bytes;
    engine.remove("large").unwrap();
    let given_back = before - engine.stats().committed_bytes;
    assert!((given_back >= 200_000) == (quarantine == 0), "{given_back} bytes given back");
    let functions: Vec<_> = (0..FUNCTIONS).map(|f| handle(&engine, &name(f))).collect();
    let count = handle(&engine, "count");
    let around = engine.function::<fn(usize, i64) -> i64>("around").unwrap();
    let stage = Stage::new();

    let write = |engine: Engine| {
        stage.wait_for(1);
        for number in 0..FUNCTIONS {
            install(&engine, &constant(&name(number), -number));
            assert_eq!(call!(functions[number as usize]).unwrap(), -number);
        }
        install(&engine, &calling_back("around", 200));
        for number in (0..FUNCTIONS).step_by(2) {
            engine.remove(&name(number)).unwrap();
        }
        engine.remove("count").unwrap();
        assert_eq!(engine.stats().alive(), FUNCTIONS as u64 / 2 + 1);
        for number in 0..3 * FUNCTIONS {
            engine.install(counting_by(&engine, &format!("new{number}"), number)).unwrap();
        }
        drop(engine);
        stage.reach(2);
    };
    let read = |engine: Engine| {
        let mut sum = 0;
        let mut check = || {
            for (number, function) in (0..).zip(&functions) {
                assert_eq!(call!(function).unwrap(), number);
            }
            sum += 5;
            assert_eq!(call!(count).unwrap(), sum);
        };
        check();
        let check = Mutex::new(check);
        let while_inside = Callback::new(|x| {
            stage.reach(1);
            while !stage.reached(2) {
                check.lock().unwrap()();
            }
            x
        });
        assert_eq!(call!(around, while_inside.address(), 1).unwrap(), 101);
        check.lock().unwrap()();
        exercise(&engine, 5);
        check.lock().unwrap()();
    };
    split().both(|child| if child == writer_is_child { write(engine) } else { read(engine) });
}

#[test]
fn a_child_runs_what_its_parent_frees() {
    let _turn = turn();
    for strict in STRICT {
        one_writes_and_the_other_reads(false, 0, strict);
        one_writes_and_the_other_reads(false, 1 << 20, strict);
    }
}

#[test]
fn a_parent_runs_what_its_child_frees() {
    let _turn = turn();
    for strict in STRICT {
        one_writes_and_the_other_reads(true, 0, strict);
        one_writes_and_the_other_reads(true, 1 << 20, strict);
    }
}

#[test]
fn both_write_at_the_same_time_and_have_data_of_their_own() {
    let _turn = turn();
    for strict in STRICT {
        let engine = builder!().strict(strict).build().unwrap();
        install(&engine, &constant("f", 0));
        engine.install(counting_by(&engine, "count", 1)).unwrap();
        let (f, count) = (handle(&engine, "f"), handle(&engine, "count"));
        for number in 1..=7 {
            assert_eq!(call!(count).unwrap(), number);
        }
        split().both(|child| {
            let sign = if child { -1 } else { 1 };
            for round in 1..=200 {
                install(&engine, &constant("f", sign * round));
                assert_eq!(call!(f).unwrap(), sign * round);
                for _ in 0..=usize::from(child) {
                    call!(count).unwrap();
                }
            }
            assert_eq!(call!(count).unwrap(), if child { 408 } else { 208 });
            exercise(&engine, 20);
        });
    }
}

#[test]
fn a_child_forks_too() {
    let _turn = turn();
    for replace_before in [false, true] {
        let engine = engine!();
        install(&engine, &constant("f", 1));
        let f = handle(&engine, "f");
        let stage = Stage::new();
        let replace = |number: i64| {
            install(&engine, &constant("f", number));
            exercise(&engine, 10);
            assert_eq!(call!(f).unwrap(), number);
        };
        let child = fork(|| {
            if replace_before {
                replace(2);
            }
            let mine = call!(f).unwrap();
            let grandchild = fork(|| {
                assert_eq!(call!(f).unwrap(), mine);
                replace(3);
                stage.reach(1);
                stage.wait_for(3);
                exercise(&engine, 10);
                assert_eq!(call!(f).unwrap(), 3);
            });
            stage.wait_for(1);
            assert_eq!(call!(f).unwrap(), mine);
            replace(4);
            stage.reach(2);
            grandchild.join();
            assert_eq!(call!(f).unwrap(), 4);
        });
        stage.wait_for(2);
        assert_eq!(call!(f).unwrap(), 1);
        replace(5);
        stage.reach(3);
        child.join();
        assert_eq!(call!(f).unwrap(), 5);
    }
}

#[test]
fn a_child_makes_an_engine_of_its_own() {
    let _turn = turn();
    let child = fork(|| {
        let engine = engine!();
        install(&engine, &constant("f", 1));
        assert_eq!(call!(handle(&engine, "f")).unwrap(), 1);
        exercise(&engine, 10);
        drop(engine);
    });
    child.join();
}

#[test]
fn children_that_touch_nothing_cost_the_parent_nothing_that_stays() {
    let _turn = turn();
    for strict in STRICT {
        let engine = builder!().quarantine(0).strict(strict).build().unwrap();
        let drops = Drops::new();
        install_counted(&engine, &constant("f", 0), &drops);
        let f = handle(&engine, "f");
        let held = |number: usize| {
            fork(|| assert_eq!(call!(f).unwrap(), number as i64 - 1)).join();
            install_counted(&engine, &constant("f", number as i64), &drops);
            exercise(&engine, 2);
            assert_eq!(call!(f).unwrap(), number as i64);
            assert_eq!(drops.count(), number);
            let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let views = maps.lines().filter(|line| line.contains("lastout")).count();
            (descriptors, views, engine.stats().committed_bytes)
        };
        let before = held(1);
        for number in 2..=20 {
            assert_eq!(held(number), before);
        }
    }
}

#[test]
fn what_a_child_frees_is_no_trap_for_the_parent() {
    let _turn = turn();
    for (quarantine, strict) in [0, 1 << 20].into_iter().zip(STRICT) {
        let engine = builder!().quarantine(quarantine).strict(strict).build().unwrap();
        let names: Vec<_> = (0..200).map(|number| format!("f{number}")).collect();
        for (step, name) in (1..).zip(&names) {
            engine.install(counting_by(&engine, name, step)).unwrap();
        }
        let child = fork(|| {
            for name in &names {
                engine.remove(name).unwrap();
            }
            let stats = engine.stats();
            assert_eq!((stats.alive(), stats.data_bytes), (0, 0));
        });
        child.join();
        for (step, name) in (1..).zip(&names) {
            assert_eq!(call!(handle(&engine, name)).unwrap(), step);
        }
    }
}
