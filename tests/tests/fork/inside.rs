//! Forks by what generated code calls, and by what is dropped where a version is freed: both
//! processes go on from there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastout_tests::support::{
    COUNTINGS, Callback, Drops, OnDrop, calling_back, install, install_counted, turn,
};
use lastout_tests::{builder, call, clif, engine};

use super::exercise;
use super::process::{Forked, split};

#[test]
fn a_host_function_forks_inside_a_version_that_both_then_replace_and_leave() {
    let _turn = turn();
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let drops = Drops::new();
        let first = install_counted(&engine, &calling_back("f", 10), &drops);
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let forked = Mutex::new(None);
        let callback = Callback::new(|x| {
            let split = split();
            let plus = if matches!(split, Forked::Child) { 200 } else { 100 };
            *forked.lock().unwrap() = Some(split);
            install(&engine, &calling_back("f", plus));
            assert!(!first.versions()[0].wait_freed(Duration::ZERO));
            x
        });
        let result = call!(f, callback.address(), 1);
        let forked = forked.lock().unwrap().take().unwrap();
        forked.both(|child| {
            assert_eq!(result.unwrap(), 11);
            assert!(first.versions()[0].wait_freed(Duration::ZERO));
            assert_eq!((drops.count(), engine.stats().alive()), (1, 1));
            let double = Callback::new(|x| 2 * x);
            let plus = if child { 200 } else { 100 };
            assert_eq!(call!(f, double.address(), 4).unwrap(), 8 + plus);
            exercise(&engine, 10);
        });
    }
}

#[test]
fn a_destructor_forks_where_a_version_is_freed() {
    let _turn = turn();
    for by_leaver in [false, true] {
        let engine = engine!();
        let forked = Arc::new(Mutex::new(None));
        let fork_when_dropped = {
            let forked = Arc::clone(&forked);
            OnDrop(move || *forked.lock().unwrap() = Some(split()))
        };
        let drops = Drops::new();
        let mut unit = engine.unit();
        clif::define(&mut unit, &calling_back("f", 10)).unwrap();
        unit.attach(fork_when_dropped);
        unit.attach(drops.value());
        let first = engine.install(unit).unwrap();
        let f = engine.function::<fn(usize, i64) -> i64>("f").unwrap();
        let replace = || drop(install(&engine, &calling_back("f", 20)));
        let callback = Callback::new(|x| {
            if by_leaver {
                replace();
            }
            x
        });
        let result = call!(f, callback.address(), 1);
        if !by_leaver {
            replace();
        }
        let forked = forked.lock().unwrap().take().unwrap();
        forked.both(|_| {
            assert_eq!(result.unwrap(), 11);
            assert!(first.versions()[0].wait_freed(Duration::ZERO));
            assert_eq!((drops.count(), engine.stats().alive()), (1, 1));
            let double = Callback::new(|x| 2 * x);
            assert_eq!(call!(f, double.address(), 4).unwrap(), 28);
            exercise(&engine, 10);
        });
    }
}
