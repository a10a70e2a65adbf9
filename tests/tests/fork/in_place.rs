//! Forks while callers are held whose function is replaced in its place: the child does not have
//! the thread that holds them.

use std::thread;
use std::time::Duration;

use lastout::{Engine, Error, Installed};
use lastout_tests::support::{
    COUNTINGS, Callback, CallingBack, Door, Drops, calling_back, install, install_counted, turn,
    unit, wait_until,
};
use lastout_tests::{builder, call};

use super::process::{Child, fork};
use super::{STRICT, exercise};

const LIMIT: Duration = Duration::from_secs(60);

fn replace(engine: &Engine, plus: i64, limit: Duration) -> Result<Installed, Error> {
    engine.replace_in_place(unit(engine, &calling_back("f", plus)), limit)
}

/// Forks while callers of `f` are held by one thread, since another is inside, and a third waits.
fn fork_while_held(engine: &Engine, child: impl FnOnce()) {
    let f: CallingBack = engine.function("f").unwrap();
    let (door, returns) = (Door::default(), Callback::new(|x| x));
    let stays = door.callback();
    let child: Child = thread::scope(|scope| {
        let inside = scope.spawn(|| call!(f, stays.address(), 1).unwrap());
        door.arrived();
        let fences = engine.stats().heavy_fences;
        let replacing = scope.spawn(|| replace(engine, 20, LIMIT).unwrap());
        // It is executed when callers are held.
        wait_until(|| engine.stats().heavy_fences > fences);
        let waits = scope.spawn(|| call!(f, returns.address(), 1).unwrap());
        wait_until(|| engine.versions("f").unwrap()[0].frames() == 2);
        let child = fork(child);
        // What the child does is nothing to this process, whose callers wait.
        thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished() && !replacing.is_finished());
        door.open();
        assert_eq!(inside.join().unwrap(), 11);
        replacing.join().unwrap();
        assert_eq!(waits.join().unwrap(), 21);
        child
    });
    child.join();
    assert_eq!(call!(f, returns.address(), 1).unwrap(), 21);
}

#[test]
fn callers_in_a_child_do_not_wait_for_a_thread_that_it_lacks() {
    let _turn = turn();
    for (counting, strict) in COUNTINGS.into_iter().zip(STRICT) {
        let engine = builder!().counting(counting).strict(strict).build().unwrap();
        let drops = Drops::new();
        let first = install_counted(&engine, &calling_back("f", 10), &drops);
        let f: CallingBack = engine.function("f").unwrap();
        fork_while_held(&engine, || {
            let returns = Callback::new(|x| x);
            assert_eq!(call!(f, returns.address(), 1).unwrap(), 11);
            // Here nobody is inside.
            let second = replace(&engine, 30, LIMIT).unwrap();
            assert_eq!(second.address("f"), first.address("f"));
            assert_eq!(drops.count(), 1);
            assert_eq!(call!(f, returns.address(), 1).unwrap(), 31);
            for plus in 40..50 {
                replace(&engine, plus, LIMIT).unwrap();
                assert_eq!(call!(f, returns.address(), 1).unwrap(), plus + 1);
            }
            exercise(&engine, 5);
            engine.remove("f").unwrap();
            assert_eq!(engine.stats().alive(), 0);
        });
        assert_eq!(drops.count(), 1);
        replace(&engine, 60, LIMIT).unwrap();
        engine.remove("f").unwrap();
        assert_eq!(engine.stats().alive(), 0);
    }
}

#[test]
fn the_function_is_installed_anew_or_removed_in_the_child() {
    let _turn = turn();
    for remove in [false, true] {
        let engine = builder!().build().unwrap();
        let drops = Drops::new();
        let first = install_counted(&engine, &calling_back("f", 10), &drops);
        let f: CallingBack = engine.function("f").unwrap();
        fork_while_held(&engine, || {
            let returns = Callback::new(|x| x);
            if remove {
                engine.remove("f").unwrap();
                call!(f, returns.address(), 1).unwrap_err();
            }
            install(&engine, &calling_back("f", 30));
            assert!(first.versions()[0].wait_freed(Duration::ZERO));
            assert_eq!(drops.count(), 1);
            assert_eq!(call!(f, returns.address(), 1).unwrap(), 31);
            replace(&engine, 40, LIMIT).unwrap();
            assert_eq!(call!(f, returns.address(), 1).unwrap(), 41);
        });
    }
}

/// The engine goes with all that it holds.
#[test]
fn the_child_drops_the_engine() {
    let _turn = turn();
    let drops = Drops::new();
    let engine = builder!().build().unwrap();
    install_counted(&engine, &calling_back("f", 10), &drops);
    fork_while_held(&engine, || {
        // SAFETY: the child ends after this, and does not come back to where it is dropped again.
        drop(unsafe { std::ptr::read(&raw const engine) });
        assert_eq!(drops.count(), 1);
    });
}
