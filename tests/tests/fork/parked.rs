//! Frames that wait in no version when the process forks: the child does not have the threads that
//! these are of.

use std::sync::Mutex;
use std::thread;

use lastout_tests::moving::{asking, install_counted};
use lastout_tests::support::{self, Callback, Door, Drops, turn};
use lastout_tests::{builder, call};

use super::exercise;
use super::process::{Forked, fork, split};

#[test]
fn what_only_a_vanished_thread_would_have_gone_on_in_is_freed() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    let double = Callback::new(|x| 2 * x);
    let door = Door::default();
    let wait = door.callback();
    install_counted(&engine, &asking(10), &drops);
    let ask = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| call!(ask, wait.address(), 1).unwrap());
        door.arrived();
        // Without the point: the thread is to come back to the version that it is from.
        support::install_counted(&engine, &asking(20), &drops);
        assert_eq!(drops.count(), 0);
        let child = fork(|| {
            engine.collect();
            assert_eq!(drops.count(), 1);
            assert!(engine.waiting("ask").unwrap().is_empty());
            install_counted(&engine, &asking(30), &drops);
            assert_eq!(drops.count(), 2);
            assert_eq!(call!(ask, double.address(), 4).unwrap(), 8 + 30 + 4);
            exercise(&engine, 5);
        });
        child.join();
        assert_eq!((drops.count(), engine.waiting("ask").unwrap().len()), (0, 1));
        door.open();
        assert_eq!(waiting.join().unwrap(), 1 + 10 + 1);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_fork_in_a_parked_call_goes_on_in_both_processes() {
    let _turn = turn();
    let engine = builder!().build().unwrap();
    let drops = Drops::new();
    install_counted(&engine, &asking(10), &drops);
    let ask = engine.function::<fn(usize, i64) -> i64>("ask").unwrap();
    let forked = Mutex::new(None);
    let callback = Callback::new(|x| {
        let split = split();
        let child = matches!(split, Forked::Child);
        *forked.lock().unwrap() = Some(split);
        install_counted(&engine, &asking(if child { 200 } else { 100 }), &drops);
        assert_eq!(drops.count(), 1);
        x
    });
    let result = call!(ask, callback.address(), 1).unwrap();
    let forked = forked.lock().unwrap().take().unwrap();
    forked.both(|child| {
        assert_eq!(result, if child { 202 } else { 102 });
        engine.remove("ask").unwrap();
        assert_eq!((drops.count(), engine.stats().alive()), (2, 0));
        exercise(&engine, 5);
    });
}
