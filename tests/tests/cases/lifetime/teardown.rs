//! The end of an engine, with and without threads inside, handles, units and cycles.

use std::thread;
use std::time::Duration;

use lastout::{CallError, DropPolicy, Error, Handle, VersionState};
use lastout_tests::support::{
    COUNTINGS, Callback, Door, Drops, caller, calling_back, constant, install, install_counted,
    unit,
};
use lastout_tests::{builder, call, engine};

#[test]
fn an_engine_frees_everything_it_knows() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        for number in 0..10 {
            install_counted(&engine, &constant(&format!("f{number}"), 1), &drops);
        }
        install_counted(&engine, &caller("g", "f0", 1), &drops);
        drop(engine);
        assert_eq!(drops.count(), 11);
    }
}

#[test]
fn a_thread_that_is_inside_leaves_in_peace() {
    for counting in COUNTINGS {
        for policy in [DropPolicy::Leaver, DropPolicy::Collector] {
            let engine = builder!().counting(counting).drop_policy(policy).build().unwrap();
            let drops = Drops::new();
            install_counted(&engine, &calling_back("inner", 1), &drops);
            let mut unit = unit(
                &engine,
                "function %f(i64, i64) -> i64 system_v {
                    fn0 = %inner(i64, i64) -> i64 system_v
                 block0(v0: i64, v1: i64):
                    v2 = call fn0(v0, v1)
                    v3 = iadd v2, v2
                    return v3
                 }",
            );
            unit.attach(drops.value());
            let version = engine.install(unit).unwrap().versions()[0].clone();
            let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
            let door = Door::default();
            let wait = door.callback();
            thread::scope(|scope| {
                let inside = scope.spawn(|| call!(f, wait.address(), 20));
                door.arrived();
                drop(engine);
                assert_eq!(drops.count(), 0);
                assert_eq!(version.state(), VersionState::Retired);
                door.open();
                assert_eq!(inside.join().unwrap().unwrap(), 42);
            });
            assert!(version.wait_freed(Duration::ZERO), "{policy:?}");
            assert_eq!(drops.count(), 2, "{policy:?}");
            let removed = call!(f, wait.address(), 20);
            assert!(matches!(removed, Err(CallError::Removed(name)) if &*name == "f"));
        }
    }
}

#[test]
fn a_collector_collects_once_more_at_the_end() {
    let engine = builder!().drop_policy(DropPolicy::Collector).build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &constant("f", 1), &drops);
    install_counted(&engine, &constant("f", 2), &drops);
    assert_eq!(drops.count(), 0);
    drop(engine);
    assert_eq!(drops.count(), 2);
}

#[test]
fn handles_and_entries_stay_good_when_the_engine_is_gone() {
    let engine = engine!();
    install(&engine, &constant("f", 1));
    let f: Handle<fn() -> i64> = engine.function("f").unwrap();
    // SAFETY: the function is of this type, and the handle keeps it.
    let entry: extern "C" fn() -> i64 = unsafe { std::mem::transmute(f.c_address().unwrap()) };
    drop(engine);
    assert!(matches!(call!(f), Err(CallError::Removed(name)) if &*name == "f"));
    assert_eq!(entry(), 0);
    assert!(f.versions().is_empty());
    assert!(f.clone().c_address().is_ok());
    let other = thread::spawn(move || call!(f).is_err());
    assert!(other.join().unwrap());
}

#[test]
fn a_unit_can_be_filled_when_its_engine_is_gone() {
    let engine = engine!();
    let drops = Drops::new();
    let mut unit = engine.unit();
    drop(engine);
    lastout_tests::clif::define(&mut unit, &constant("f", 1)).unwrap();
    unit.attach(drops.value());
    let other = lastout_tests::engine!();
    assert!(matches!(other.install(unit), Err(Error::ForeignUnit)));
    assert_eq!(drops.count(), 1);
}

#[test]
fn units_that_import_each_other_are_freed() {
    for remove in [false, true] {
        let engine = engine!();
        let drops = Drops::new();
        install_counted(&engine, &constant("a", 1), &drops);
        install_counted(&engine, &caller("b", "a", 1), &drops);
        // Each has the other's function among its callees, and `a` its own besides.
        let text = caller("a", "b", 1) + &caller("a2", "a", 1);
        install_counted(&engine, &text, &drops);
        assert_eq!(drops.count(), 1);
        if remove {
            for name in ["a", "b", "a2"] {
                engine.remove(name).unwrap();
            }
            assert_eq!(drops.count(), 3);
        }
        drop(engine);
        assert_eq!(drops.count(), 3);
    }
}

#[test]
fn an_engine_can_be_dropped_by_its_own_function() {
    let engine = engine!();
    let drops = Drops::new();
    install_counted(&engine, &calling_back("f", 1), &drops);
    let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
    let engine = std::sync::Mutex::new(Some(engine));
    let end = Callback::new(|x| {
        drop(engine.lock().unwrap().take());
        assert_eq!(drops.count(), 0);
        x
    });
    assert_eq!(call!(f, end.address(), 1).unwrap(), 2);
    assert_eq!(drops.count(), 1);
}

#[test]
fn engines_do_not_know_of_each_other() {
    let (one, two) = (engine!(), engine!());
    install(&one, &constant("f", 1));
    install(&two, &calling_back("f", 2));
    let f1 = one.function::<fn() -> i64>("f").unwrap();
    let f2 = two.function::<fn(usize, i64) -> i64>("f").unwrap();
    // A thread inside functions of both, when one of the engines goes.
    let one = std::sync::Mutex::new(Some(one));
    let callback = Callback::new(|x| {
        let result = call!(f1).unwrap();
        drop(one.lock().unwrap().take());
        assert!(call!(f1).is_err());
        x + result
    });
    assert_eq!(call!(f2, callback.address(), 10).unwrap(), 13);
    assert!(matches!(two.remove("g"), Err(Error::UnknownFunction(_))));
    two.remove("f").unwrap();
}
